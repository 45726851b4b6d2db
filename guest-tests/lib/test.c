#include "guest-tests/lib/test.h"

#include <stdarg.h>

#include "guest-tests/lib/boot.h"
#include "guest-tests/lib/io.h"

enum { PORT_DEBUG = 0xe9, PORT_EXIT = 0xf4, LINE = 200 };

struct line {
    char text[LINE];
    unsigned len;
};

static void put(struct line *l, char c)
{
    if (l->len < LINE)
        l->text[l->len++] = c;
}

static void put_number(struct line *l, uint64_t v, unsigned base, unsigned width)
{
    char digits[24];
    unsigned n = 0;

    do {
        digits[n++] = "0123456789abcdef"[v % base];
        v /= base;
    } while (v);
    while (n < width && n < sizeof(digits))
        digits[n++] = '0';
    while (n)
        put(l, digits[--n]);
}

void printf(const char *fmt, ...)
{
    struct line l = {.len = 0};
    va_list ap;

    va_start(ap, fmt);
    for (; *fmt; fmt++) {
        if (*fmt != '%') {
            put(&l, *fmt);
            continue;
        }

        unsigned width = 0;
        bool wide = false;

        for (fmt++; *fmt >= '0' && *fmt <= '9'; fmt++)
            width = width * 10 + (*fmt - '0');
        for (; *fmt == 'l' || *fmt == 'z'; fmt++)
            wide = true;
        if (*fmt == 's') {
            for (const char *s = va_arg(ap, const char *); *s; s++)
                put(&l, *s);
        } else if (*fmt == 'c') {
            put(&l, va_arg(ap, int));
        } else if (*fmt == 'd') {
            int64_t v = wide ? va_arg(ap, int64_t) : va_arg(ap, int);

            if (v < 0)
                put(&l, '-');
            put_number(&l, v < 0 ? -(uint64_t)v : (uint64_t)v, 10, width);
        } else if (*fmt == 'u' || *fmt == 'x') {
            put_number(&l, wide ? va_arg(ap, uint64_t) : va_arg(ap, unsigned), *fmt == 'u' ? 10 : 16, width);
        } else {
            put(&l, *fmt);
        }
    }
    va_end(ap);
    outsb(PORT_DEBUG, l.text, l.len);
}

_Noreturn void exit(int code)
{
    outb(PORT_EXIT, code);
    for (;;)
        asm volatile("pause");
}

_Noreturn void skip(const char *why)
{
    printf("skipped: %s\n", why);
    exit(EXIT_SKIPPED);
}

_Noreturn void fail(const char *file, int line, const char *what, uint64_t got, uint64_t want)
{
    printf("%s:%d: failed: %s: got 0x%lx, want 0x%lx\n", file, line, what, got, want);
    exit(EXIT_FAILED);
}

const char *word(const char *name)
{
    size_t n = strlen(name);

    for (const char *s = boot_words(); *s;) {
        if (!memcmp(s, name, n) && (s[n] == ' ' || s[n] == 0))
            return "";
        if (!memcmp(s, name, n) && s[n] == '=')
            return s + n + 1;
        while (*s && *s != ' ')
            s++;
        while (*s == ' ')
            s++;
    }
    return NULL;
}

uint64_t parse_number(const char *s, const char **end)
{
    uint64_t v = 0;
    unsigned base = 10;

    if (s[0] == '0' && s[1] == 'x') {
        base = 16;
        s += 2;
    }
    for (;; s++) {
        unsigned digit = *s >= '0' && *s <= '9'                     ? *s - '0'
                         : (*s | 0x20) >= 'a' && (*s | 0x20) <= 'f' ? (*s | 0x20) - 'a' + 10
                                                                    : 99;

        if (digit >= base)
            break;
        v = v * base + digit;
    }
    if (end)
        *end = s;
    return v;
}

void *memcpy(void *dst, const void *src, size_t n)
{
    void *d = dst;

    asm volatile("rep movsb" : "+D"(d), "+S"(src), "+c"(n) : : "memory");
    return dst;
}

void *memset(void *dst, int c, size_t n)
{
    void *d = dst;

    asm volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
    return dst;
}

/* Stops at the first difference, so that a string may be compared with less than what follows it. */
int memcmp(const void *a, const void *b, size_t n)
{
    const uint8_t *p = a, *q = b;

    for (; n; n--, p++, q++)
        if (*p != *q)
            return *p - *q;
    return 0;
}

size_t strlen(const char *s)
{
    size_t n = 0;

    while (s[n])
        n++;
    return n;
}
