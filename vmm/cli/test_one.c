/*
 * Theory of operation.  Our standard streams are shared with whoever started us, so they stay in the mode they are in.
 * What poll() calls ready is written to by PIPE_BUF bytes at most, for which a pipe that is ready has room; so nothing
 * waits but in the loop, and limits of time hold even when nobody reads what the guest writes.
 */
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>

#include "devices/char/terminal.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/cli/test.h"
#include "vmm/report/boot.h"
#include "vmm/report/reader.h"

enum {
    IN_MAX = 64 << 10,
    ESCAPE = 0x1d, /* Ctrl-] */
};

struct one {
    struct test_run run;
    struct test_spec *spec;
    struct reader *reader;
    struct boot *boot; /* NULL: nobody wants its profile */
    struct loop *loop;
    struct lane lane;
    struct watch in, out[2], wake, signals;
    int log;
    bool over, escape;
    size_t in_at, in_n; /* what of `input` the command has not taken */
    char input[IN_MAX];
};

static struct one *one_of(struct test_run *r)
{
    return container_of(r, struct one, run);
}

static bool may_write(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};

    return poll(&p, 1, 0) == 1;
}

static size_t write_out(struct one *o, enum test_stream which, const char *bytes, size_t n)
{
    struct watch *w = &o->out[which];
    size_t done = 0;

    while (done < n && may_write(w->fd)) {
        ssize_t r = write(w->fd, bytes + done, min_u64(n - done, PIPE_BUF));

        if (r < 0 && errno != EAGAIN && errno != EINTR) {
            struct err err;

            err_file(&err, errno, "output", which == TEST_OUT ? "standard output" : "standard error");
            test_run_fail(&o->run, err.msg);
            return n;
        }
        if (r < 0)
            break;
        done += (size_t)r;
    }
    watch_set(w, done < n ? EPOLLOUT : 0);
    return done;
}

static size_t keep_log(struct one *o, const char *bytes, size_t n)
{
    for (size_t done = 0; o->log >= 0 && done < n;) {
        ssize_t r = write(o->log, bytes + done, n - done);

        if (r >= 0) {
            done += (size_t)r;
            continue;
        }
        fprintf(stderr, "bothy test: the kernel's log: %s; it is not whole\n", strerror(errno));
        o->log = -1;
    }
    return n;
}

static size_t output(struct test_run *r, enum test_stream s, const void *bytes, size_t n)
{
    size_t took = s == TEST_LOG ? keep_log(one_of(r), bytes, n) : write_out(one_of(r), s, bytes, n);

    reader_feed(one_of(r)->reader, s, bytes, took, clock_now_ns());
    if (s == TEST_LOG && one_of(r)->boot)
        boot_feed(one_of(r)->boot, bytes, took);
    return took;
}

static void out_ready(struct watch *w, uint32_t revents)
{
    struct one *o = w->fd == STDOUT_FILENO ? container_of(w, struct one, out[TEST_OUT])
                                           : container_of(w, struct one, out[TEST_ERR]);

    (void)revents;
    test_run_continue(&o->run, w == &o->out[TEST_OUT] ? TEST_OUT : TEST_ERR);
}

/* Ctrl-] q is the way out of a guest that hangs; Ctrl-] twice is one for the guest. */
static size_t take_keys(struct one *o, char *p, size_t n)
{
    size_t kept = 0;

    for (size_t i = 0; i < n; i++) {
        if (!o->escape && p[i] == ESCAPE) {
            o->escape = true;
            continue;
        }
        if (o->escape && p[i] == 'q')
            test_run_stop(&o->run, "ended by Ctrl-] q");
        else if (!o->escape || p[i] == ESCAPE)
            p[kept++] = p[i];
        o->escape = false;
    }
    return kept;
}

static void in_ready(struct watch *w, uint32_t revents)
{
    struct one *o = container_of(w, struct one, in);
    ssize_t n = read(w->fd, o->input, sizeof(o->input));

    (void)revents;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        watch_set(w, 0);
        test_run_input(&o->run, NULL, 0);
        return;
    }
    o->in_n = o->spec->tty ? take_keys(o, o->input, (size_t)n) : (size_t)n;
    o->in_at = o->in_n ? test_run_input(&o->run, o->input, o->in_n) : 0;
    if (o->in_at < o->in_n)
        watch_set(w, 0);
}

static void input(struct test_run *r)
{
    struct one *o = one_of(r);

    if (o->in_at < o->in_n)
        o->in_at += test_run_input(r, o->input + o->in_at, o->in_n - o->in_at);
    if (o->in_at == o->in_n)
        watch_set(&o->in, EPOLLIN);
}

static void done(struct test_run *r)
{
    one_of(r)->over = true;
    loop_quit(one_of(r)->loop);
}

static bool terminal_size(uint16_t *cols, uint16_t *rows)
{
    struct winsize size;

    if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size))
        return false;
    *cols = size.ws_col;
    *rows = size.ws_row;
    return true;
}

static void terminal_changed(struct watch *w, uint32_t revents)
{
    struct one *o = container_of(w, struct one, wake);
    uint16_t cols, rows;
    uint64_t count;

    (void)revents;
    if (read(w->fd, &count, sizeof(count)) == sizeof(count) && terminal_resume() && terminal_size(&cols, &rows))
        test_run_resize(&o->run, cols, rows);
}

static void signal_arrived(struct watch *w, uint32_t revents)
{
    struct one *o = container_of(w, struct one, signals);
    struct signalfd_siginfo si;

    (void)revents;
    if (read(w->fd, &si, sizeof(si)) == sizeof(si))
        test_run_stop(&o->run, strsignal((int)si.ssi_signo));
}

/* From here on Ctrl-C is for us. */
static void kept(struct test_run *r)
{
    struct one *o = one_of(r);
    const struct config *c = o->spec->config;

    watch_del(&o->wake);
    if (o->spec->tty)
        terminal_leave();
    o->spec->tty = false;
    fprintf(stderr, "bothy test: %s: %s; the guest is kept for %s%s%s%s, until Ctrl-C\n", o->spec->name, r->result.why,
            c->gdb ? "gdb at " : "", c->gdb ? c->gdb : "", c->control ? c->gdb ? " and bothy ctl " : "bothy ctl " : "",
            c->control ? c->control : "");
}

/* What the exit code alone does not tell. */
static void tell(const struct one *o, const struct report_run *run)
{
    const struct test_result *r = &run->result;
    unsigned counts[OUTCOME_MAX] = {0};
    char text[128];

    if (!list_empty(&run->test.children)) {
        test_count(&run->test, counts);
        report_counts_text(counts, text, sizeof(text));
        fprintf(stderr, "bothy test: %s: %s\n", o->spec->name, text);
        report_write_failures(run, false, stderr);
    }
    switch (r->outcome) {
    case TEST_PASS:
        break;
    case TEST_FAIL:
        if (r->signal)
            fprintf(stderr, "bothy test: %s: %s\n", o->spec->name, r->why);
        break;
    case TEST_TIMEOUT:
    case TEST_CRASH:
        report_write_log(run, stderr);
        fprintf(stderr, "bothy test: %s: %s: %s\n", o->spec->name, test_outcome_words[r->outcome], r->why);
        break;
    case TEST_ERROR:
    case TEST_STOPPED:
        fprintf(stderr, "bothy test: %s: %s\n", o->spec->name, r->why);
        break;
    }
}

/* What is in the background must not read its terminal. */
static bool has_input(void)
{
    return !isatty(STDIN_FILENO) || tcgetpgrp(STDIN_FILENO) == getpgrp();
}

static int start(struct one *o, struct err *err)
{
    struct test_spec *s = o->spec;
    int r = test_watch_signals(&o->signals, &o->lane, signal_arrived, err);

    s->stdin_open = has_input();
    s->tty = s->stdin_open && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && terminal_size(&s->cols, &s->rows);
    o->in = (struct watch){.lane = &o->lane, .fd = STDIN_FILENO, .ready = in_ready};
    o->out[TEST_OUT] = (struct watch){.lane = &o->lane, .fd = STDOUT_FILENO, .ready = out_ready};
    o->out[TEST_ERR] = (struct watch){.lane = &o->lane, .fd = STDERR_FILENO, .ready = out_ready};
    o->run = (struct test_run){.output = output, .input = input, .kept = kept, .done = done};
    if (r >= 0)
        r = test_run_start(&o->run, s, &o->lane, err);
    if (r < 0)
        return r;
    watch_add(&o->in);
    watch_add(&o->out[TEST_OUT]);
    watch_add(&o->out[TEST_ERR]);
    if (!s->tty)
        return 0;
    o->wake = (struct watch){.lane = &o->lane, .events = EPOLLIN, .ready = terminal_changed};
    r = terminal_enter(STDIN_FILENO, &o->wake.fd, err);
    if (r >= 0)
        watch_add(&o->wake);
    return r;
}

static void stop(struct one *o)
{
    watch_del(&o->in);
    watch_del(&o->out[TEST_OUT]);
    watch_del(&o->out[TEST_ERR]);
    watch_del(&o->wake);
    if (o->spec->tty)
        terminal_leave();
    test_unwatch_signals(&o->signals);
    if (o->run.child)
        test_run_fini(&o->run);
}

int test_one(const struct test_plan *p, struct test_job *j, int log, struct report_run *run, struct err *err)
{
    struct one *o cleanup_free = xcalloc(1, sizeof(*o));
    char *profile cleanup_free = NULL;
    int r;

    o->spec = &j->spec;
    o->log = log;
    o->signals.fd = -1;
    r = loop_create("test", &o->loop, err);
    if (r < 0)
        return r;
    o->reader = reader_create();
    o->boot = j->spec.profile ? boot_create() : NULL;
    lane_init(&o->lane, o->loop);
    lane_lock(&o->lane);
    r = start(o, err);
    lane_unlock(&o->lane);
    while (r >= 0 && !o->over)
        loop_run(o->loop);
    lane_lock(&o->lane);
    profile = take_ptr(o->run.profile);
    stop(o);
    lane_unlock(&o->lane);
    if (r >= 0) {
        run->tries = 1;
        run->result = o->run.result;
        reader_settle(o->reader, run);
        test_job_judge(j, run);
        tell(o, run);
        if (o->boot)
            boot_write(o->boot, &run->result, p->begun_ns, profile, stderr);
    }
    boot_destroy(o->boot);
    reader_destroy(o->reader);
    lane_fini(&o->lane);
    loop_destroy(o->loop);
    return r;
}
