/*
 * "stdio": standard input and output.  A terminal becomes raw, and Ctrl-] there starts a word to bothy itself; in a
 * pipe, a file or with nothing there at all, bytes pass as they are.
 *
 * Input is read ahead of the guest into a buffer, so that the terminal's keys work even when the guest does not read.
 * The descriptors are shared with whoever started us: switching those to non-blocking mode would change them for the
 * shell as well.  So we open what is behind them once more, and where that cannot be done ask poll() each time.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/char/sink.h"
#include "devices/char/terminal.h"
#include "vmm/base/clock.h"

enum {
    INPUT_MAX = 64 << 10, /* read ahead; a guest that takes no more has our keys stop at last */
    ESCAPE = 0x1d,        /* Ctrl-] */
};
#define BACKGROUND_NS (NS_PER_SEC / 4) /* until we look again whether we are in the foreground */

static const struct key {
    char key;
    enum request request;
    const char *help;
} keys[] = {
    {'q', REQ_QUIT, "end at once"},
    {'p', REQ_BUTTON, "press the power button"},
    {'s', REQ_PAUSE, "stop the guest for a while"},
    {'c', REQ_RESUME, "let it continue"},
    {'r', REQ_RESET, "reset the machine"},
};

struct stdio {
    struct chardev c;
    struct sink out;
    int in;                  /* -1: no more input */
    struct watch more, wake; /* input; the terminal's size or our place in the foreground changed */
    struct timer background; /* to look again */
    bool terminal;           /* input is one */
    bool escape;             /* the byte before was Ctrl-] */
    size_t first, count;     /* in buf, a ring */
    uint8_t buf[INPUT_MAX];
};

/* The one front end that has it; set-up and tear-down are one thread's. */
static const struct chardev *owner;

static void show_keys(struct stdio *s)
{
    char text[512];
    int n = snprintf(text, sizeof(text), "\r\nbothy's keys:\r\n");

    for (size_t i = 0; i < array_len(keys); i++)
        n += snprintf(text + n, sizeof(text) - (size_t)n, "  Ctrl-] %c       %s\r\n", keys[i].key, keys[i].help);
    n += snprintf(text + n, sizeof(text) - (size_t)n, "  Ctrl-] Ctrl-]  send Ctrl-] to the guest\r\n");
    sink_write(&s->out, text, (size_t)n); /* what a stuck terminal does not take is not worth keeping */
}

static void press(struct stdio *s, uint8_t byte)
{
    struct device_env *env = s->c.dev->env;

    for (size_t i = 0; i < array_len(keys); i++)
        if (keys[i].key == byte) {
            env->request(env, keys[i].request, 0);
            return;
        }
    show_keys(s);
}

static void take(struct stdio *s, uint8_t byte)
{
    bool escaped = s->escape;

    s->escape = s->terminal && byte == ESCAPE && !escaped;
    if (s->escape)
        return;
    if (escaped && byte != ESCAPE)
        press(s, byte);
    else
        s->buf[(s->first + s->count++) % INPUT_MAX] = byte;
}

static void end_input(struct stdio *s)
{
    watch_del(&s->more);
    close(s->in);
    s->in = -1;
}

/* In the background a terminal is not ours to read; nothing tells when it is again. */
static bool may_read(struct stdio *s)
{
    if (!s->terminal || terminal_resume())
        return true;
    timer_arm(&s->background, loop_now(s->c.dev->lane.loop, CLK_HOST) + BACKGROUND_NS);
    return false;
}

/* Reads what is there and has room, then waits for more of either. */
static void read_ahead(struct stdio *s)
{
    uint8_t bytes[1024];
    struct pollfd p = {.fd = s->in, .events = POLLIN};
    bool may = true;

    while (s->in >= 0 && s->count < INPUT_MAX && (may = may_read(s)) && poll(&p, 1, 0) > 0) {
        ssize_t n = read(s->in, bytes, min_u64(sizeof(bytes), INPUT_MAX - s->count));

        for (ssize_t i = 0; i < n; i++)
            take(s, bytes[i]);
        /* EIO from a terminal: we were put into the background just now, or it is gone for good. */
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR && may_read(s)))
            end_input(s);
    }
    if (s->in >= 0)
        watch_set(&s->more, may && s->count < INPUT_MAX ? EPOLLIN : 0);
    chardev_tell(&s->c, CHARDEV_READABLE);
}

static void more_input(struct watch *w, uint32_t revents)
{
    (void)revents;
    read_ahead(container_of(w, struct stdio, more));
}

static void look_again(struct timer *t)
{
    read_ahead(container_of(t, struct stdio, background));
}

static void follow_size(struct stdio *s)
{
    struct winsize ws;

    if (ioctl(s->in, TIOCGWINSZ, &ws) || !ws.ws_col || !ws.ws_row || (ws.ws_col == s->c.cols && ws.ws_row == s->c.rows))
        return;
    s->c.cols = ws.ws_col;
    s->c.rows = ws.ws_row;
    chardev_tell(&s->c, CHARDEV_RESIZED);
}

static void woken(struct watch *w, uint32_t revents)
{
    struct stdio *s = container_of(w, struct stdio, wake);
    uint64_t count;

    (void)revents;
    if (read(w->fd, &count, sizeof(count)) < 0)
        return;
    follow_size(s);
    read_ahead(s);
}

/* What is behind `fd` without sharing its mode: terminals and pipes can be opened again; a file's position is shared.
 */
static int reopen(int fd, int mode)
{
    struct stat st;
    char path[32];
    int ret = -1;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (!fstat(fd, &st) && (S_ISFIFO(st.st_mode) || isatty(fd)))
        ret = open(path, mode | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return ret >= 0 ? ret : fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

static int stdio_open(struct chardev *c, const char *arg, struct err *err)
{
    struct stdio *s = container_of(c, struct stdio, c);
    int out, wake, r;

    (void)arg;
    s->in = s->out.fd = -1;
    if (owner)
        return err_set(err, EBUSY, "stdio is taken by %s; give %s another place", owner->dev->id, c->dev->id);
    owner = c;
    s->in = reopen(STDIN_FILENO, O_RDONLY);
    out = reopen(STDOUT_FILENO, O_WRONLY);
    if (s->in < 0 || out < 0)
        return err_set(err, errno, "standard %s: %s", out < 0 ? "output" : "input", strerror(errno));
    sink_init(&s->out, c, out);
    s->more = (struct watch){.lane = &c->dev->lane, .fd = s->in, .events = EPOLLIN, .ready = more_input};
    s->background = (struct timer){.lane = &c->dev->lane, .clk = CLK_HOST, .fire = look_again};
    watch_add(&s->more);
    s->terminal = isatty(s->in);
    if (!s->terminal)
        return 0;
    r = terminal_enter(s->in, &wake, err);
    if (r)
        return r;
    s->wake = (struct watch){.lane = &c->dev->lane, .fd = wake, .events = EPOLLIN, .ready = woken};
    watch_add(&s->wake);
    follow_size(s);
    return 0;
}

static void stdio_close(struct chardev *c)
{
    struct stdio *s = container_of(c, struct stdio, c);

    if (owner != c)
        return;
    watch_del(&s->wake);
    timer_disarm(&s->background);
    terminal_leave();
    if (s->in >= 0)
        end_input(s);
    sink_fini(&s->out);
    owner = NULL;
}

static ssize_t stdio_read(struct chardev *c, void *buf, size_t n)
{
    struct stdio *s = container_of(c, struct stdio, c);
    uint8_t *to = buf;
    size_t got = 0;

    if (!s->count && s->in < 0)
        return -EPIPE;
    for (; got < n && s->count; got++, s->count--) {
        to[got] = s->buf[s->first];
        s->first = (s->first + 1) % INPUT_MAX;
    }
    if (s->in >= 0)
        watch_set(&s->more, EPOLLIN);
    return (ssize_t)got;
}

static size_t stdio_write(struct chardev *c, const void *buf, size_t n)
{
    return sink_write(&container_of(c, struct stdio, c)->out, buf, n);
}

const struct chardev_class chardev_stdio = {
    .name = "stdio",
    .size = sizeof(struct stdio),
    .open = stdio_open,
    .close = stdio_close,
    .read = stdio_read,
    .write = stdio_write,
};
