#include "vmm/report/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { ESC = 0x1b, GROW = 256 };

/* The length of the UTF-8 character at `p`, whose code point is set; 0 where there is none (RFC 3629, section 4). */
static size_t utf8(const unsigned char *p, size_t n, uint32_t *ret)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t len = p[0] < 0x80 ? 1 : p[0] < 0xc0 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf8 ? 4 : 0;
    uint32_t c = len == 1 ? p[0] : p[0] & (0x7f >> len);

    if (!len || len > n)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3f);
    }
    if (c < least[len] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return 0;
    *ret = c;
    return len;
}

/* The length of the control sequence at `p`, ECMA-48 section 5.4: ESC [ parameters, intermediates, final. */
static size_t control_sequence(const unsigned char *p, size_t n)
{
    size_t i = 2;

    if (n < 3 || p[0] != ESC || p[1] != '[')
        return 0;
    while (i < n && p[i] >= 0x20 && p[i] <= 0x3f)
        i++;
    return i < n && p[i] >= 0x40 && p[i] <= 0x7e ? i + 1 : 0;
}

static bool is_control(uint32_t c)
{
    return (c < 0x20 && c != '\t' && c != '\n') || (c >= 0x7f && c < 0xa0) || c == 0xfffe || c == 0xffff;
}

size_t text_clean(char *text, size_t n)
{
    unsigned char *p = (unsigned char *)text;
    size_t out = 0;

    for (size_t i = 0; i < n;) {
        size_t len = control_sequence(p + i, n - i);
        uint32_t c;

        if (len) {
            i += len;
            continue;
        }
        len = utf8(p + i, n - i, &c);
        if (!len || is_control(c)) {
            p[out++] = '?';
            i += len ? len : 1;
            continue;
        }
        memmove(p + out, p + i, len);
        out += len;
        i += len;
    }
    return out;
}

void text_add(struct text *t, const char *p, size_t n)
{
    size_t keep = min_u64(n, t->max - t->len), want;
    char *grown;

    while (keep < n && keep && ((unsigned char)p[keep] & 0xc0) == 0x80)
        keep--; /* whole characters */
    want = t->len + keep + 1;
    if (t->lost) { /* only the end is missing */
        t->lost += n;
        return;
    }
    if (!t->p || want > align_up(t->len + 1, GROW)) {
        grown = realloc(t->p, align_up(want, GROW));
        if (!grown) {
            t->lost += n;
            return;
        }
        t->p = grown;
    }
    memcpy(t->p + t->len, p, keep);
    t->len += keep;
    t->p[t->len] = 0;
    t->lost += n - keep;
}

char *text_take(struct text *t)
{
    char *p = t->p, *told = NULL;

    if (p && t->lost) {
        if (asprintf(&told, "%.*s\n… %" PRIu64 " bytes more\n", (int)t->len, p, t->lost) >= 0) {
            free(p);
            p = told;
        }
    }
    *t = (struct text){.max = t->max};
    return p;
}

void text_write_lines(FILE *to, unsigned indent, const char *mark, const char *text)
{
    while (text && *text) {
        size_t n = strcspn(text, "\n");

        fprintf(to, "%*s%s%.*s\n", (int)indent, "", mark, (int)n, text);
        text += n + (text[n] == '\n');
    }
}
