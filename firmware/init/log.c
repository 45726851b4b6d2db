/* The kernel's log [Documentation/ABI/testing/dev-kmsg], for the host as a console would show it. */
#include <fcntl.h>

#include "firmware/init/init.h"

enum {
    RECORD_MAX = 8192, /* the kernel's own limit, CONSOLE_EXT_LOG_MAX */
    PREFIX_MAX = 32,
    /* Every byte of a record can become a line's end, which brings a prefix. */
    OUT_MAX = 65536,
};

static struct {
    size_t at, n; /* what of `out` has not been sent */
    uint64_t sent;
    char record[RECORD_MAX], out[OUT_MAX];
} * state;

int log_open(void)
{
    state = pages(sizeof(*state));
    return (int)SYS(open, "/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
}

static void put(char c)
{
    if (state->n < OUT_MAX)
        state->out[state->n++] = c;
}

/* "[    1.234567] " */
static void put_prefix(uint64_t usec)
{
    struct line l = {.n = 0};
    uint64_t part = usec % 1000000;

    line_add(&l, "[");
    for (uint64_t width = 10000; width > 1 && usec / 1000000 < width; width /= 10)
        line_add(&l, " ");
    line_number(&l, usec / 1000000);
    line_add(&l, ".");
    for (uint64_t width = 100000; width > 1 && part < width; width /= 10)
        line_add(&l, "0");
    line_number(&l, part);
    line_add(&l, "] ");
    for (size_t i = 0; i < l.n; i++)
        put(l.text[i]);
}

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A byte of text, which the kernel writes as \xNN when it is not printable; *i is its place. */
static char unescape(const char *r, size_t n, size_t *i)
{
    char c = r[*i];

    if (c == '\\' && *i + 3 < n && r[*i + 1] == 'x' && hex(r[*i + 2]) >= 0 && hex(r[*i + 3]) >= 0) {
        c = (char)(hex(r[*i + 2]) << 4 | hex(r[*i + 3]));
        *i += 3;
    }
    return c;
}

/* "LEVEL,NUMBER,MICROSECONDS,…;TEXT", then lines of properties. */
static void take_record(const char *r, size_t n)
{
    uint64_t usec = 0;
    unsigned commas = 0;
    size_t i;

    for (i = 0; i < n && r[i] != ';'; i++) {
        if (r[i] == ',')
            commas++;
        else if (commas == 2 && r[i] >= '0' && r[i] <= '9')
            usec = usec * 10 + (uint64_t)(r[i] - '0');
    }
    put_prefix(usec);
    for (i++; i < n && r[i] != '\n'; i++) {
        char c = unescape(r, n, &i);

        put(c);
        if (c == '\n')
            put_prefix(usec);
    }
    put('\n');
}

uint64_t log_sent(void)
{
    return state->sent;
}

bool log_carry(int kmsg)
{
    for (;;) {
        long r;

        while (state->at < state->n) {
            r = SYS(write, ports[INIT_LOG], state->out + state->at, state->n - state->at);
            if (r <= 0)
                return r != -11; /* EAGAIN */
            state->at += (size_t)r;
            state->sent += (uint64_t)r;
        }
        state->at = state->n = 0;
        do {
            r = SYS(read, kmsg, state->record, RECORD_MAX);
            if (r > 0)
                take_record(state->record, (size_t)r);
        } while ((r > 0 && state->n < OUT_MAX / 2) || r == -32 /* EPIPE: some were overwritten */);
        if (!state->n)
            return true;
    }
}
