/*
 * Theory of operation.  The machine is `bothy run` with a configuration made here, in a child process that dies with
 * us.  A socket pair leads to each port of the guest's first process, to the serial port, and to the child's standard
 * error.  When the first process has said how the command ended and how many bytes went before
 * that, and those have been taken, the machine is told to quit.  Whatever happens, the run is over when the child is
 * gone and all its streams have come to their ends; one that is ended does not wait for who takes nothing.
 *
 * The kernel's log comes from the first process.  The serial port has only what is serious, since each of its bytes
 * costs the guest several exits, but it has that from the kernel's first moment to its last.  So what came there is
 * kept until the end, and then those lines make up the log that are newer than the first process's last one.
 */
#include "vmm/runner/run.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "firmware/abi/init.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/exit_code.h"
#include "vmm/base/file.h"
#include "vmm/machine/config.h"
#include "vmm/runner/guest_config.h"
#include "vmm/runner/has.h"
#include "vmm/runner/klog.h"
#include "vmm/runner/pack.h"
#include "vmm/runner/said.h"

const char *const test_outcome_words[] = {
    [TEST_PASS] = "pass",   [TEST_FAIL] = "fail",       [TEST_TIMEOUT] = "timeout", [TEST_CRASH] = "crash",
    [TEST_ERROR] = "error", [TEST_STOPPED] = "stopped", [TEST_STOPPED + 1] = NULL,
};

enum {
    CHUNK = 65536,
    QUIT_S = 20,  /* what an orderly end may take before it becomes another */
    READER_S = 1, /* what who is slow to take the output gets, once all is to end */
    BUNDLE_S = 60,
    NOTICE_S = 1, /* what the machine gets to notice a panic */
    MACHINE_WORDS = 12,
    PROFILE_MAX = 16384,
};

/* What comes from the guest. */
struct stream {
    struct watch watch;
    struct test_child *child;
    enum test_stream which;
    bool ended;
    size_t at, n; /* what of `buf` has not been taken */
    char buf[CHUNK];
};

struct test_child {
    struct test_run *run;
    const struct test_spec *spec;
    struct lane *lane;
    pid_t pid;  /* 0: gone */
    int status; /* of its end */
    struct watch gone, control, complaint, input, serial, machine;
    struct timer boot, silence, total, panic, quit;
    bool panicked; /* and the machine did not notice */
    int kept;      /* the signal that it did not get to end it; 0: none */
    struct stream streams[TEST_STREAMS];
    uint64_t start_ns, command_ns; /* when */
    bool decided;                  /* the result stands; what is left is to end the machine */
    bool running;                  /* the command */
    bool said_end;                 /* the first process told how it ended */
    bool unread;                   /* nobody waits for what is left of its output to be taken */
    struct said end;
    enum test_phase phase;
    char line[INIT_LINE_MAX]; /* of the control port, so far */
    size_t line_n;
    char complained[512]; /* the last line on the child's standard error */
    size_t complained_n;
    struct klog log;   /* what of it came from the first process, and in the end all */
    uint64_t serial_n; /* bytes that ever came by the serial port, of which we have the last */
    size_t panic_n;    /* of the last ones, how many are the beginning of KLOG_PANIC */
    bool serial_done;  /* they have become part of the log */
    char serial_text[CHUNK];
    char profile[PROFILE_MAX]; /* what has come of it */
    size_t profile_n;
};

static uint64_t now(struct test_child *c)
{
    return loop_now(c->lane->loop, CLK_HOST);
}

static void enter_phase(struct test_child *c, enum test_phase p)
{
    c->phase = p;
    if (c->run->phase)
        c->run->phase(c->run, p);
}

/* The first verdict is the one that counts. */
__attribute__((format(printf, 4, 5))) static void decide(struct test_child *c, enum test_outcome outcome, int code,
                                                         const char *fmt, ...)
{
    struct test_result *res = &c->run->result;
    va_list ap;

    if (c->decided)
        return;
    c->decided = true;
    res->outcome = outcome;
    res->code = code;
    va_start(ap, fmt);
    vsnprintf(res->why, sizeof(res->why), fmt, ap);
    va_end(ap);
}

static void disarm_limits(struct test_child *c)
{
    timer_disarm(&c->boot);
    timer_disarm(&c->silence);
    timer_disarm(&c->total);
    timer_disarm(&c->panic);
}

/* Ends the machine, in order if it does so soon; SIGQUIT leaves a bundle. */
static void quit(struct test_child *c, int sig)
{
    if (c->phase == TEST_ENDING || c->phase == TEST_OVER)
        return;
    enter_phase(c, TEST_ENDING);
    disarm_limits(c);
    if (c->pid)
        kill(c->pid, sig);
    timer_arm(&c->quit, now(c) + (!c->pid ? READER_S : c->spec->bundle ? BUNDLE_S : QUIT_S) * NS_PER_SEC);
}

/* The run is decided. */
static void quit_or_keep(struct test_child *c, int sig)
{
    if (!c->spec->keep || c->run->result.outcome == TEST_PASS) {
        quit(c, sig);
    } else if (!c->kept) {
        c->kept = sig;
        disarm_limits(c);
        c->run->kept(c->run);
    }
}

static void end_when_over(struct test_child *c);

static void quit_late(struct timer *t)
{
    struct test_child *c = container_of(t, struct test_child, quit);

    if (c->pid) {
        kill(c->pid, SIGKILL);
    } else {
        c->unread = true;
        end_when_over(c);
    }
}

static void out_of_time(struct test_child *c, uint64_t limit_ns, const char *what)
{
    decide(c, TEST_TIMEOUT, EXIT_TIMEOUT, "%s after %llu s", what, (unsigned long long)(limit_ns / NS_PER_SEC));
    quit_or_keep(c, c->spec->bundle ? SIGQUIT : SIGINT);
}

static void boot_late(struct timer *t)
{
    struct test_child *c = container_of(t, struct test_child, boot);

    out_of_time(c, c->spec->boot_ns, "the kernel has not come to the command");
}

static void silent(struct timer *t)
{
    struct test_child *c = container_of(t, struct test_child, silence);

    out_of_time(c, c->spec->silence_ns, "not a byte of output");
}

/* It has neither a pvpanic driver nor the note that the machine would find its log by. */
static void panicked(struct timer *t)
{
    struct test_child *c = container_of(t, struct test_child, panic);

    c->panicked = true;
    quit(c, SIGQUIT);
}

static void total_late(struct timer *t)
{
    struct test_child *c = container_of(t, struct test_child, total);

    out_of_time(c, c->spec->total_ns, "not ended");
}

static void heard(struct test_child *c)
{
    if (c->spec->silence_ns && c->phase == TEST_COMMAND && !c->decided && !c->said_end)
        timer_arm(&c->silence, now(c) + c->spec->silence_ns);
}

static void judge_command(struct test_child *c)
{
    int code = c->run->result.code, sig = c->run->result.signal;

    if (sig)
        decide(c, TEST_FAIL, code, "ended by signal %d, %s", sig, strsignal(sig));
    else if (code)
        decide(c, TEST_FAIL, code, "ended with code %d", code);
    else
        decide(c, TEST_PASS, 0, "%s", "");
}

/* All that the command wrote, and the log until then, has been taken: unless another may follow, nobody needs the
 * machine any more. */
static void end_when_complete(struct test_child *c)
{
    const uint64_t *bytes = c->run->result.bytes;

    if (!c->said_end || c->machine.events || bytes[TEST_OUT] < c->end.out || bytes[TEST_ERR] < c->end.err ||
        (bytes[TEST_LOG] < c->end.log && !c->spec->kernel_only))
        return;
    if (!c->spec->serve) {
        judge_command(c);
        quit_or_keep(c, SIGINT);
    } else if (!c->decided) {
        c->said_end = false;
        c->run->ended(c->run);
    }
}

/* The machine's account of itself up to now, which it gives before it is told to quit. */
static void ask_for_profile(struct test_child *c)
{
    static const char request[] = "{\"command\": \"profile\"}\n";

    if (send(c->machine.fd, request, strlen(request), MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)strlen(request))
        watch_set(&c->machine, EPOLLIN);
}

static void machine_ready(struct watch *w, uint32_t revents)
{
    struct test_child *c = container_of(w, struct test_child, machine);
    ssize_t n = read(w->fd, c->profile + c->profile_n, PROFILE_MAX - 1 - c->profile_n);

    (void)revents;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    c->profile_n += n > 0 ? (size_t)n : 0;
    if (n > 0 && c->profile_n < PROFILE_MAX - 1 && c->profile[c->profile_n - 1] != '\n')
        return;
    watch_set(w, 0);
    if (n > 0)
        c->run->profile = xstrdup(c->profile);
    end_when_complete(c);
}

static void guest_error(struct test_child *c, const struct said *s, const char *hint)
{
    decide(c, TEST_ERROR, EXIT_BOTHY, "the guest cannot %s%s%s%s", s->text, s->number ? ": " : "",
           s->number ? strerror((int)s->number) : "", hint);
}

static void command_ended(struct test_child *c, const struct said *s)
{
    struct test_result *res = &c->run->result;

    c->end = *s;
    c->said_end = true;
    c->running = false;
    res->command_ns = now(c) - c->command_ns;
    res->signal = s->kind == SAID_SIGNAL ? (int)s->number : 0;
    res->code = res->signal ? 128 + res->signal : (int)s->number;
    timer_disarm(&c->silence);
    end_when_complete(c);
}

static void obey(struct test_child *c, const char *line)
{
    struct said s;
    bool bad = said_parse(line, &s) < 0 || (s.kind == SAID_READY ? c->phase != TEST_BOOTING : c->said_end) ||
               ((s.kind == SAID_EXIT || s.kind == SAID_SIGNAL) && !c->running);

    if (c->decided)
        return;
    if (bad) {
        decide(c, TEST_ERROR, EXIT_BOTHY, "the guest's first process says what it never would");
        quit(c, SIGINT);
    } else if (s.kind == SAID_READY) {
        c->command_ns = now(c);
        c->run->result.boot_ns = c->command_ns - c->start_ns;
        timer_disarm(&c->boot);
        c->running = !c->spec->serve;
        if (c->spec->profile)
            ask_for_profile(c);
        enter_phase(c, TEST_COMMAND);
        heard(c);
        watch_set(&c->input, c->spec->stdin_open ? EPOLLOUT : 0);
        if (!c->spec->stdin_open)
            test_run_input(c->run, NULL, 0);
    } else if (s.kind == SAID_ERROR) {
        guest_error(c, &s, "");
        quit(c, SIGINT);
    } else {
        command_ended(c, &s);
    }
}

/* What there is to read; at the end, or where it is broken, it is watched no more. */
static ssize_t read_watch(struct watch *w, char *buf, size_t size)
{
    ssize_t n = read(w->fd, buf, size);

    if (!n || (n < 0 && errno != EAGAIN && errno != EINTR))
        watch_set(w, 0);
    return n;
}

static void control_ready(struct watch *w, uint32_t revents)
{
    struct test_child *c = container_of(w, struct test_child, control);
    char buf[INIT_LINE_MAX];
    ssize_t n = read_watch(w, buf, sizeof(buf));

    (void)revents;
    for (ssize_t i = 0; i < n; i++) {
        if (buf[i] != '\n' && c->line_n < sizeof(c->line) - 1) {
            c->line[c->line_n++] = buf[i];
            continue;
        }
        c->line[c->line_n] = 0;
        c->line_n = 0;
        obey(c, c->line);
    }
}

/* The last whole line is what explains the rest. */
static void complaint_ready(struct watch *w, uint32_t revents)
{
    struct test_child *c = container_of(w, struct test_child, complaint);
    char buf[4096];
    ssize_t n = read_watch(w, buf, sizeof(buf));

    (void)revents;
    for (ssize_t i = 0; i < n; i++) {
        if (c->complained_n && c->complained[c->complained_n - 1] == '\n')
            c->complained_n = 0;
        if (c->complained_n < sizeof(c->complained) - 1)
            c->complained[c->complained_n++] = buf[i];
    }
}

/* A panic comes by no other way. */
static void look_for_panic(struct test_child *c, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        c->panic_n = bytes[i] == KLOG_PANIC[c->panic_n] ? c->panic_n + 1 : bytes[i] == KLOG_PANIC[0];
        if (c->panic_n < strlen(KLOG_PANIC))
            continue;
        c->panic_n = 0;
        if (c->phase < TEST_ENDING)
            timer_arm(&c->panic, now(c) + NOTICE_S * NS_PER_SEC);
    }
}

static void serial_ready(struct watch *w, uint32_t revents)
{
    struct test_child *c = container_of(w, struct test_child, serial);
    char buf[4096];
    ssize_t n = read_watch(w, buf, sizeof(buf));

    (void)revents;
    if (n > 0)
        heard(c);
    if (n > 0 && c->spec->bundle)
        look_for_panic(c, buf, (size_t)n);
    if (n > 0 && c->spec->kernel_only) {
        klog_feed(&c->log, buf, (size_t)n);
        c->run->result.bytes[TEST_LOG] += c->run->output(c->run, TEST_LOG, buf, (size_t)n);
        return;
    }
    for (ssize_t i = 0; i < n; i++)
        c->serial_text[c->serial_n++ % CHUNK] = buf[i];
}

/* Offers what is there; true: all of it was taken. */
static bool offer(struct stream *s)
{
    struct test_child *c = s->child;
    size_t took = s->at < s->n ? c->run->output(c->run, s->which, s->buf + s->at, s->n - s->at) : 0;

    s->at += took;
    c->run->result.bytes[s->which] += took;
    if (took)
        end_when_complete(c);
    return s->at == s->n;
}

static void stream_ready(struct watch *w, uint32_t revents)
{
    struct stream *s = container_of(w, struct stream, watch);
    ssize_t n = read(w->fd, s->buf, sizeof(s->buf));

    (void)revents;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        watch_set(w, 0);
        s->ended = true;
        end_when_over(s->child);
        return;
    }
    s->at = 0;
    s->n = (size_t)n;
    heard(s->child);
    if (s->which != TEST_LOG && !s->child->run->result.byte_ns)
        s->child->run->result.byte_ns = now(s->child) - s->child->command_ns;
    if (s->which == TEST_LOG && s->child->spec->kernel_only) { /* it came by the serial port */
        s->at = s->n;
        return;
    }
    if (s->which == TEST_LOG)
        klog_feed(&s->child->log, s->buf, s->n);
    if (!offer(s))
        watch_set(w, 0);
}

void test_run_continue(struct test_run *r, enum test_stream which)
{
    struct stream *s = &r->child->streams[which];

    if (!offer(s))
        return;
    if (s->ended)
        end_when_over(r->child);
    else
        watch_set(&s->watch, EPOLLIN);
}

/* What the machine said last, without who says it; NULL: nothing. */
static const char *last_words(const struct test_child *c)
{
    const char *colon = strstr(c->complained, ": ");

    return colon ? colon + 2 : NULL;
}

/* A child that ended although its guest had not said how the command did. */
static void judge(struct test_child *c)
{
    int code = WIFEXITED(c->status) ? WEXITSTATUS(c->status) : -1;
    const char *mark = strstr(c->log.told, INIT_LOG_MARK), *words;
    struct said s;

    c->complained[strcspn(c->complained, "\r\n")] = 0;
    words = last_words(c);
    if (code == EXIT_CRASHED && c->spec->fail_on && c->run->result.outcome <= TEST_FAIL)
        c->decided = false; /* what the kernel said by then weighs more than how the command ended */
    else if (c->said_end && !c->spec->serve)
        judge_command(c);
    if (code < 0) {
        decide(c, TEST_ERROR, EXIT_BOTHY, "bothy's own machine ended by signal %d", WTERMSIG(c->status));
    } else if (mark && !said_parse_error(mark + strlen(INIT_LOG_MARK), &s)) {
        guest_error(c, &s,
                    c->spec->modules ? "" : "; no modules of its kernel are known: name their directory by --modules");
    } else if (code == EXIT_BOTHY) {
        decide(c, TEST_ERROR, EXIT_BOTHY, "%s", words ? words : "the machine did not start");
    } else if (*c->log.told) {
        const char *hint = klog_hint(&c->log);

        decide(c, TEST_CRASH, EXIT_CRASHED, "%s%s%s", c->log.told, *hint ? "; " : "", hint);
    } else if (code == EXIT_CRASHED) {
        decide(c, TEST_CRASH, EXIT_CRASHED, "the guest crashed%s%s", words ? ": " : "", words ? words : "");
    } else if (code == EXIT_INTERRUPTED) {
        decide(c, TEST_STOPPED, code, "the guest was ended from outside, by gdb or bothy ctl");
    } else if (c->spec->kernel_only) {
        decide(c, TEST_PASS, 0, "%s", "");
    } else {
        decide(c, TEST_CRASH, EXIT_CRASHED, "the guest powered off before its command ended");
    }
}

/* The machine's last words name the place of the crash, and the bundle. */
static void tell_of_bundle(struct test_child *c)
{
    struct test_result *res = &c->run->result;
    const char *words = last_words(c), *see = strstr(c->complained, "; see ");
    size_t n = strlen(res->why);

    if (!c->spec->bundle || !words || !see || !WIFEXITED(c->status) || WEXITSTATUS(c->status) != EXIT_CRASHED)
        return;
    res->bundled = true;
    if (res->outcome == TEST_CRASH && !c->panicked)
        snprintf(res->why, sizeof(res->why), "%s", words);
    else
        snprintf(res->why + n, sizeof(res->why) - n, "%s", see);
}

/* What came by the serial port and is not in the log already becomes its end. */
static void add_serial(struct test_child *c)
{
    struct stream *log = &c->streams[TEST_LOG];
    uint64_t at = c->serial_n > CHUNK ? c->serial_n - CHUNK : 0;
    int64_t last = c->log.usec;
    char line[CHUNK + 1];
    size_t n = 0;

    c->serial_done = true;
    log->at = log->n = 0;
    for (; at < c->serial_n; at++) {
        char b = c->serial_text[at % CHUNK];

        if (b != '\r')
            line[n++] = b ? b : '?';
        if (b != '\n' && at + 1 < c->serial_n)
            continue;
        line[n] = 0;
        if (klog_usec(line) > last) {
            memcpy(log->buf + log->n, line, n);
            log->n += n;
        }
        n = 0;
    }
    klog_feed(&c->log, log->buf, log->n);
    klog_feed(&c->log, "\n", 1);
    offer(log);
}

static bool streams_over(const struct test_child *c)
{
    if (c->unread)
        return true;
    for (int i = 0; i < TEST_STREAMS; i++)
        if (!c->streams[i].ended || c->streams[i].at < c->streams[i].n)
            return false;
    return true;
}

static void end_when_over(struct test_child *c)
{
    struct test_run *r = c->run;

    if (c->pid || c->phase == TEST_OVER || !streams_over(c))
        return;
    while (c->control.events)
        control_ready(&c->control, 0);
    while (c->complaint.events)
        complaint_ready(&c->complaint, 0);
    while (c->serial.events)
        serial_ready(&c->serial, 0);
    if (!c->serial_done)
        add_serial(c);
    if (!streams_over(c))
        return;
    judge(c);
    tell_of_bundle(c);
    quit(c, SIGINT);
    timer_disarm(&c->quit);
    r->result.all_ns = now(c) - c->start_ns;
    enter_phase(c, TEST_OVER);
    r->done(r);
}

static void child_gone(struct watch *w, uint32_t revents)
{
    struct test_child *c = container_of(w, struct test_child, gone);

    (void)revents;
    if (waitpid(c->pid, &c->status, WNOHANG) != c->pid)
        return;
    c->pid = 0;
    watch_set(w, 0);
    if (c->phase == TEST_ENDING)
        timer_arm(&c->quit, now(c) + READER_S * NS_PER_SEC);
    end_when_over(c);
}

static void input_ready(struct watch *w, uint32_t revents)
{
    struct test_child *c = container_of(w, struct test_child, input);

    (void)revents;
    watch_set(w, 0);
    if (c->run->input)
        c->run->input(c->run);
}

size_t test_run_input(struct test_run *r, const void *bytes, size_t n)
{
    struct watch *w = &r->child->input;
    ssize_t sent;

    if (w->fd < 0)
        return n; /* who read it is gone */
    if (!n) {
        watch_del(w);
        close(w->fd);
        w->fd = -1;
        return 0;
    }
    sent = send(w->fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        test_run_input(r, NULL, 0);
        return n;
    }
    if (sent < (ssize_t)n)
        watch_set(w, EPOLLOUT);
    return sent < 0 ? 0 : (size_t)sent;
}

/* A few bytes, for which there is always room unless the guest reads none: then it has no use for them either. */
void test_run_resize(struct test_run *r, uint16_t cols, uint16_t rows)
{
    char text[32];
    int n = snprintf(text, sizeof(text), "size %u %u\n", cols, rows);

    if (send(r->child->control.fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) < n)
        return;
}

int test_run_command(struct test_run *r, char *const *command, uint64_t input)
{
    struct test_child *c = r->child;
    char *orders cleanup_free = NULL, line[64];
    size_t n;

    assert(c->spec->serve && c->phase == TEST_COMMAND && !c->running && !c->said_end);
    pack_command(command, &orders, &n);
    snprintf(line, sizeof(line), "run %zu %llu\n", n, (unsigned long long)input);
    if (send(c->control.fd, line, strlen(line), MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)strlen(line) ||
        send(c->control.fd, orders, n, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)n)
        return -EPIPE;
    c->command_ns = now(c);
    c->running = true;
    return 0;
}

void test_run_stop(struct test_run *r, const char *why)
{
    decide(r->child, TEST_STOPPED, EXIT_INTERRUPTED, "%s", why);
    quit(r->child, r->child->kept ? r->child->kept : SIGINT);
}

void test_run_fail(struct test_run *r, const char *why)
{
    decide(r->child, TEST_ERROR, EXIT_BOTHY, "%s", why);
    quit(r->child, SIGINT);
}

void test_run_diagnose(struct test_run *r)
{
    decide(r->child, TEST_CRASH, EXIT_CRASHED, "ended to be looked at");
    quit(r->child, SIGQUIT);
}

pid_t test_run_pid(const struct test_run *r)
{
    return r->child->pid;
}

static int write_config(const struct config *c, int *ret, struct err *err)
{
    int fd cleanup_fd = memfd_create("bothy config", MFD_CLOEXEC);
    char *text cleanup_free = NULL;
    int r = fd < 0 ? err_set(err, errno, "memory for the configuration: %s", strerror(errno))
                   : config_to_json(c, &text, err);

    if (r < 0)
        return r;
    r = file_write(fd, text, strlen(text));
    if (r < 0)
        return err_set(err, -r, "memory for the configuration: %s", strerror(-r));
    *ret = take_fd(&fd);
    return 0;
}

static void machine_words(const struct test_spec *s, const char *argv[MACHINE_WORDS])
{
    static const char *const first[] = {"bothy", "run", "--config", "/proc/self/fd/3"};
    unsigned n = array_len(first);

    static_assert(FD_CONFIG == 3, "the first words say so");
    memcpy(argv, first, sizeof(first));
    if (s->bundle) {
        argv[n++] = "--bundle";
        argv[n++] = s->bundle;
    }
    if (s->core)
        argv[n++] = "--core";
    if (s->lean_core)
        argv[n++] = "--lean-core";
    if (s->packed_core)
        argv[n++] = "--packed-core";
    if (s->fail_on) {
        argv[n++] = "--fail-on";
        argv[n++] = s->fail_on;
    }
    argv[n] = NULL;
}

/* In the child, between fork and exec. */
__attribute__((noreturn)) static void become_machine(const struct test_spec *s, const int fds[FD_END], int complaint,
                                                     pid_t parent)
{
    const char *argv[MACHINE_WORDS];
    int high[FD_END], null = open("/dev/null", O_RDWR | O_CLOEXEC);

    machine_words(s, argv);
    complaint = fcntl(complaint, F_DUPFD_CLOEXEC, FD_END);
    for (int fd = FD_CONFIG; fd < FD_END; fd++)
        high[fd] = fcntl(fds[fd], F_DUPFD_CLOEXEC, FD_END);
    for (int fd = FD_CONFIG; fd < FD_END; fd++)
        dup2(high[fd], fd);
    dup2(null, STDIN_FILENO);
    dup2(complaint, STDOUT_FILENO);
    dup2(complaint, STDERR_FILENO);
    setpgid(0, 0); /* what the terminal's keys send is for us */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() == parent)
        execv("/proc/self/exe", (char *const *)argv);
    dprintf(STDERR_FILENO, "bothy: /proc/self/exe: %s\n", strerror(errno));
    _exit(EXIT_BOTHY);
}

static void set_watch(struct watch *w, struct lane *lane, int fd, uint32_t events,
                      void (*ready)(struct watch *w, uint32_t revents))
{
    *w = (struct watch){.lane = lane, .fd = fd, .events = events, .ready = ready};
    watch_add(w);
}

static void set_timers(struct test_child *c)
{
    const struct test_spec *s = c->spec;

    c->boot = (struct timer){.lane = c->lane, .clk = CLK_HOST, .fire = boot_late};
    c->silence = (struct timer){.lane = c->lane, .clk = CLK_HOST, .fire = silent};
    c->total = (struct timer){.lane = c->lane, .clk = CLK_HOST, .fire = total_late};
    c->panic = (struct timer){.lane = c->lane, .clk = CLK_HOST, .fire = panicked};
    c->quit = (struct timer){.lane = c->lane, .clk = CLK_HOST, .fire = quit_late};
    if (s->boot_ns)
        timer_arm(&c->boot, c->start_ns + s->boot_ns);
    if (s->total_ns)
        timer_arm(&c->total, c->start_ns + s->total_ns);
}

/* The pairs' near ends in `ours`, by the child's numbers; the last is for its complaints. */
static int make_pairs(int ours[FD_END + 1], int theirs[FD_END + 1], struct err *err)
{
    for (int i = FD_CONTROL; i <= FD_END; i++) {
        int pair[2];

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
            return err_set(err, errno, "sockets: %s%s", strerror(errno),
                           errno == EMFILE ? "; raise ulimit -n, or run fewer at once" : "");
        ours[i] = pair[0];
        theirs[i] = pair[1];
        fcntl(ours[i], F_SETFL, O_NONBLOCK);
    }
    return 0;
}

static void start_watching(struct test_child *c, int ours[FD_END + 1], int pidfd)
{
    set_watch(&c->gone, c->lane, pidfd, EPOLLIN, child_gone);
    set_watch(&c->control, c->lane, take_fd(&ours[FD_CONTROL]), EPOLLIN, control_ready);
    set_watch(&c->complaint, c->lane, take_fd(&ours[FD_END]), EPOLLIN, complaint_ready);
    set_watch(&c->serial, c->lane, take_fd(&ours[FD_SERIAL]), EPOLLIN, serial_ready);
    set_watch(&c->machine, c->lane, take_fd(&ours[FD_MACHINE]), 0, machine_ready);
    set_watch(&c->input, c->lane, take_fd(&ours[FD_STDIN]), 0, input_ready);
    for (int i = 0; i < TEST_STREAMS; i++) {
        c->streams[i].child = c;
        c->streams[i].which = (enum test_stream)i;
        set_watch(&c->streams[i].watch, c->lane, take_fd(&ours[FD_STREAMS + i]), EPOLLIN, stream_ready);
    }
    set_timers(c);
}

static int start_child(struct test_child *c, int ours[FD_END + 1], int theirs[FD_END + 1], struct err *err)
{
    pid_t self = getpid();
    int pidfd;

    c->pid = fork();
    if (c->pid < 0)
        return err_set(err, errno, "start a process: %s", strerror(errno));
    if (!c->pid)
        become_machine(c->spec, theirs, theirs[FD_END], self);
    pidfd = (int)syscall(SYS_pidfd_open, c->pid, 0);
    if (pidfd < 0) {
        int e = errno;

        kill(c->pid, SIGKILL);
        waitpid(c->pid, NULL, 0);
        return err_set(err, e, "watch a process: %s; bothy test needs Linux 5.3 or newer", strerror(e));
    }
    start_watching(c, ours, pidfd);
    return 0;
}

int test_run_start(struct test_run *r, struct test_spec *s, struct lane *lane, struct err *err)
{
    struct test_child *c;
    int ours[FD_END + 1], theirs[FD_END + 1], ret;

    for (int i = 0; i <= FD_END; i++)
        ours[i] = theirs[i] = -1;
    ret = fit_to_kernel(s, err);
    if (ret >= 0)
        ret = guest_config_complete(s, err);
    if (ret >= 0)
        ret = config_resolve(s->config, err);
    if (ret >= 0)
        ret = pack_initrd(s, &theirs[FD_INITRD], err);
    if (ret >= 0)
        ret = opts_set(config_opts, s->config, "initrd", "/proc/self/fd/4", err);
    static_assert(FD_INITRD == 4, "the path says so");
    if (ret >= 0)
        ret = write_config(s->config, &theirs[FD_CONFIG], err);
    if (ret >= 0)
        ret = make_pairs(ours, theirs, err);
    if (ret >= 0) {
        r->result = (struct test_result){0};
        r->child = c = xcalloc(1, sizeof(*c));
        *c = (struct test_child){.run = r, .spec = s, .lane = lane};
        c->start_ns = r->result.start_ns = now(c);
        ret = start_child(c, ours, theirs, err);
        if (ret < 0)
            free(take_ptr(r->child));
    }
    for (int i = 0; i <= FD_END; i++) {
        if (ours[i] >= 0)
            close(ours[i]);
        if (theirs[i] >= 0)
            close(theirs[i]);
    }
    return ret;
}

static void drop(struct watch *w)
{
    if (w->fd < 0)
        return;
    watch_del(w);
    close(w->fd);
}

void test_run_fini(struct test_run *r)
{
    struct test_child *c = r->child;

    if (c->pid) {
        kill(c->pid, SIGKILL);
        waitpid(c->pid, NULL, 0);
    }
    drop(&c->gone);
    drop(&c->control);
    drop(&c->complaint);
    drop(&c->input);
    drop(&c->serial);
    drop(&c->machine);
    free(take_ptr(r->profile));
    for (int i = 0; i < TEST_STREAMS; i++)
        drop(&c->streams[i].watch);
    timer_disarm(&c->boot);
    timer_disarm(&c->silence);
    timer_disarm(&c->total);
    timer_disarm(&c->panic);
    timer_disarm(&c->quit);
    free(take_ptr(r->child));
}
