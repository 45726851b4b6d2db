#include "firmware/init/init.h"

#include <fcntl.h>
#include <linux/time_types.h>
#include <poll.h>
#include <sys/mman.h>

int ports[INIT_PORTS] = {-1, -1, -1, -1, -1};

void *memcpy(void *dst, const void *src, size_t n)
{
    void *ret = dst;

    __asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(n) : : "memory");
    return ret;
}

void *memset(void *dst, int c, size_t n)
{
    void *ret = dst;

    __asm__ volatile("rep stosb" : "+D"(dst), "+c"(n) : "a"(c) : "memory");
    return ret;
}

size_t text_length(const char *s)
{
    size_t n = 0;

    while (s[n])
        n++;
    return n;
}

bool text_equal(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

bool path_join(const char *a, size_t alen, const char *b, char *ret, size_t size)
{
    size_t blen = text_length(b);

    if (alen + 1 + blen + 1 > size)
        return false;
    memcpy(ret, a, alen);
    ret[alen] = '/';
    memcpy(ret + alen + 1, b, blen + 1);
    return true;
}

void line_add(struct line *l, const char *text)
{
    while (*text && l->n < sizeof(l->text) - 2)
        l->text[l->n++] = *text++;
}

void line_number(struct line *l, uint64_t v)
{
    char digits[21], *p = digits + sizeof(digits) - 1;

    *p = 0;
    do
        *--p = (char)('0' + v % 10);
    while (v /= 10);
    line_add(l, p);
}

void line_send(struct line *l)
{
    size_t at = 0;

    l->text[l->n++] = '\n';
    while (at < l->n) {
        long r = SYS(write, ports[INIT_CONTROL], l->text + at, l->n - at);
        struct pollfd room = {.fd = ports[INIT_CONTROL], .events = POLLOUT};

        if (r > 0)
            at += (size_t)r;
        else
            SYS(poll, &room, 1, -1);
    }
}

void wait_for_the_end(void)
{
    for (;;)
        SYS(pause);
}

/* Without ports there is the kernel's log, which bothy reads. */
static void log_line(const struct line *l)
{
    long fd = SYS(open, "/dev/kmsg", O_WRONLY);
    struct line out = {.n = 0};

    line_add(&out, "<2>" INIT_LOG_MARK);
    line_add(&out, l->text);
    line_add(&out, "\n"); /* the kernel shows a line that may go on when the next one comes */
    SYS(write, fd < 0 ? 2 : fd, out.text, out.n);
}

void fail(long result, const char *text, const char *more)
{
    struct line l = {.n = 0};
    bool told = ports[INIT_CONTROL] >= 0;

    line_add(&l, told ? "error " : "");
    line_number(&l, result < 0 ? (uint64_t)-result : 0);
    line_add(&l, " ");
    line_add(&l, text);
    line_add(&l, more ? more : "");
    if (told) {
        line_send(&l);
        wait_for_the_end();
    }
    log_line(&l);
    if (!SYS(iopl, 3))
        __asm__ volatile("outb %0, %1" : : "a"((uint8_t)INIT_EXIT_ERROR), "d"((uint16_t)INIT_EXIT_PORT));
    SYS(exit_group, INIT_EXIT_ERROR); /* and the kernel panics */
    __builtin_unreachable();
}

void *pages(size_t n)
{
    long p = SYS(mmap, NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p < 0 && p > -4096)
        fail(p, "get memory; give the guest more by -m", NULL);
    return (void *)p;
}

static void read_orders(const char *path, struct orders *ret)
{
    char *text = pages(INIT_ORDERS_MAX + 1);
    long fd = SYS(open, path, O_RDONLY | O_CLOEXEC), r = fd;
    const char *wrong;
    size_t n = 0;

    while (r >= 0 && (r = SYS(read, fd, text + n, INIT_ORDERS_MAX + 1 - n)) > 0)
        n += (size_t)r;
    if (r < 0)
        fail(r, "read its orders", NULL);
    SYS(close, fd);
    wrong = orders_parse(text, n, pages(ORDERS_POINTERS * sizeof(char *)), ret);
    if (wrong)
        fail(0, "its orders: ", wrong);
}

/* A kernel that found no clock begins in 1970. */
static void set_clock(const struct orders *o)
{
    struct __kernel_timespec now;

    if (!SYS(clock_gettime, 0, &now) && now.tv_sec >= 0 && (uint64_t)now.tv_sec < o->clock) {
        now = (struct __kernel_timespec){.tv_sec = (long long)o->clock};
        SYS(clock_settime, 0, &now);
    }
}

__attribute__((noreturn, used)) static void start(void)
{
    bool unit = SYS(getpid) != 1;
    struct unit_files files;
    struct orders o;

    read_orders(unit ? "/run/" INIT_ORDERS : "/" INIT_ORDERS, &o);
    if (!unit) {
        load_modules(&o);
        if (o.systemd)
            open_unit_files(&files);
        else
            open_ports(); /* each can be open once */
        enter_root(&o);
        SYS(sethostname, o.host, text_length(o.host));
        set_clock(&o);
        start_network(&o);
        if (o.systemd)
            become_systemd(&files);
    } else {
        open_ports();
    }
    run_command(&o);
    wait_for_the_end();
}

__asm__(".globl _start\n_start:\n\tand $-16, %rsp\n\tcall start\n");
