/*
 * What standard input and output do to a terminal can only be seen from outside.  So each test starts a child with a
 * terminal or pipes of its own.  There an echo takes the guest's place: what it reads it writes, and what else it is
 * told it reports by another pipe.
 */
#include "devices/char/chardev.h"
#include "devices/char/front.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>

#include "vmm/base/cleanup.h"

enum { CTRL_RBRACKET = 0x1d, BYE = 'X', CRASH = 'F', FLOOD = 'B' };

/* What the child says. */
struct stream {
    int fd;
    size_t n;
    char text[4096]; /* come but not expected yet */
};

struct run {
    pid_t pid;
    int in, master; /* our ends of its standard input and of its terminal; maybe the same */
    struct stream out, report;
};

/* The child's side. */
struct echo {
    struct front f;
    int report;
    bool flooding;
};

static void echo_report(struct echo *e, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (write(e->report, text, (size_t)n) != n)
        _exit(90);
}

static void echo_resized(struct chardev_user *u, uint16_t cols, uint16_t rows)
{
    echo_report(container_of(u, struct echo, f.user), "[%ux%u]", cols, rows);
}

static void echo_request(struct device_env *env, enum request r, int code)
{
    (void)code;
    echo_report(container_of(env, struct echo, f.env), "[request %d]", r);
}

static void echo_readable(struct chardev_user *u)
{
    struct echo *e = container_of(u, struct echo, f.user);
    char buf[256];
    ssize_t n;

    while (!e->flooding && (n = chardev_read(e->f.c, buf, sizeof(buf))) > 0)
        for (ssize_t i = 0; i < n; i++)
            if (buf[i] == BYE) {
                chardev_close(e->f.c);
                _exit(0);
            } else if (buf[i] == CRASH) {
                *(volatile int *)NULL = 0;
            } else if (buf[i] == FLOOD) {
                e->flooding = true; /* and reads no more */
                while (chardev_write(e->f.c, buf, sizeof(buf)) == sizeof(buf))
                    ;
                echo_report(e, "[full]");
            } else {
                chardev_write(e->f.c, &buf[i], 1);
            }
    if (!e->flooding && n == -EPIPE)
        echo_report(e, "[eof]");
}

static const int fatal[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};

static void echo_main(int report)
{
    struct rlimit none = {0};
    struct echo e = {.report = report};
    struct err err;

    setrlimit(RLIMIT_CORE, &none);
    for (size_t i = 0; i < array_len(fatal); i++)
        signal(fatal[i], SIG_DFL); /* not the test library's, nor a sanitizer's */
    signal(SIGPIPE, SIG_IGN);
    front_init(&e.f, "com1");
    e.f.user.readable = echo_readable;
    e.f.user.resized = echo_resized;
    e.f.env.request = echo_request;
    if (chardev_open("stdio", &e.f.dev, &e.f.c, &err))
        _exit(91);
    chardev_attach(e.f.c, &e.f.user);
    echo_report(&e, "[ready]");
    loop_run(e.f.loop);
}

/* Reads until `text` has come, and takes it off with all before it. */
static void expect(struct stream *t, const char *text)
{
    char *found;

    while (!(found = memmem(t->text, t->n, text, strlen(text)))) {
        ssize_t got = read(t->fd, t->text + t->n, sizeof(t->text) - t->n);

        if (got <= 0)
            fail_msg("\"%s\" did not come, but \"%.*s\"", text, (int)t->n, t->text);
        t->n += (size_t)got;
    }
    found += strlen(text);
    t->n -= (size_t)(found - t->text);
    memmove(t->text, found, t->n);
}

static void type(struct run *r, const char *text)
{
    assert_int_equal(write(r->in, text, strlen(text)), strlen(text));
}

/* `in` and `out` become the child's standard input and output, `tty` its controlling terminal unless it is -1. */
static void start_with(struct run *r, int in, int out, int tty)
{
    int report[2];

    assert_int_equal(pipe2(report, O_CLOEXEC), 0);
    r->pid = fork();
    if (!r->pid) {
        close(r->in);
        close(r->out.fd);
        setsid();
        if (tty >= 0)
            ioctl(tty, TIOCSCTTY, 0);
        dup2(in, STDIN_FILENO);
        dup2(out, STDOUT_FILENO);
        echo_main(report[1]);
    }
    close(report[1]);
    r->report = (struct stream){.fd = report[0]};
    expect(&r->report, "[ready]");
}

static void start_on_terminal(struct run *r)
{
    struct winsize size = {.ws_col = 80, .ws_row = 24};
    int slave;

    assert_int_equal(openpty(&r->master, &slave, NULL, NULL, &size), 0);
    r->in = r->master;
    r->out = (struct stream){.fd = r->master};
    start_with(r, slave, slave, slave);
    close(slave);
}

static void start_on_pipes(struct run *r)
{
    int in[2], out[2];

    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    r->in = in[1];
    r->out = (struct stream){.fd = out[0]};
    r->master = -1;
    start_with(r, in[0], out[1], -1);
    close(in[0]);
    close(out[1]);
}

static int end(struct run *r)
{
    int status;

    assert_int_equal(waitpid(r->pid, &status, 0), r->pid);
    close(r->report.fd);
    if (r->in >= 0)
        close(r->in);
    if (r->out.fd >= 0 && r->out.fd != r->in)
        close(r->out.fd);
    return status;
}

static void say_bye(struct run *r)
{
    type(r, (char[]){BYE, 0});
    assert_int_equal(end(r), 0);
}

static bool is_raw(const struct run *r)
{
    struct termios t;

    assert_int_equal(tcgetattr(r->master, &t), 0);
    assert_int_equal(!(t.c_lflag & ICANON), !(t.c_oflag & OPOST));
    assert_int_equal(!(t.c_lflag & ICANON), !(t.c_lflag & ISIG));
    return !(t.c_lflag & ICANON);
}

static void a_terminal_is_raw_only_as_long_as_we_run(void **s)
{
    struct run r;
    int master;

    (void)s;
    start_on_terminal(&r);
    assert_true(is_raw(&r));
    type(&r, "ls\r\3\4");
    expect(&r.out, "ls\r\3\4");
    master = r.master = dup(r.master);
    say_bye(&r);
    assert_false(is_raw(&r));
    close(master);
}

static void it_is_restored_whatever_signal_ends_us(void **s)
{
    (void)s;
    for (size_t i = 0; i <= array_len(fatal); i++) {
        int status, master, sig = i < array_len(fatal) ? fatal[i] : SIGSEGV;
        struct run r;

        start_on_terminal(&r);
        assert_true(is_raw(&r));
        if (i < array_len(fatal))
            kill(r.pid, sig);
        else
            type(&r, (char[]){CRASH, 0});
        master = r.master = dup(r.master);
        status = end(&r);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), sig);
        assert_false(is_raw(&r));
        close(master);
    }
}

static void stopped_it_is_the_shells_and_continued_ours_again(void **s)
{
    struct run r;
    int status;

    (void)s;
    start_on_terminal(&r);
    for (int i = 0; i < 2; i++) {
        kill(r.pid, SIGTSTP);
        assert_int_equal(waitpid(r.pid, &status, WUNTRACED), r.pid);
        assert_true(WIFSTOPPED(status));
        assert_false(is_raw(&r));
        kill(r.pid, SIGCONT);
        type(&r, "a");
        expect(&r.out, "a");
        while (!is_raw(&r))
            poll(NULL, 0, 1);
    }
    say_bye(&r);
}

/* In between stands a shell, which has the terminal and gives it away when it is told to. */
static void in_the_background_it_is_left_alone(void **s)
{
    struct run r;
    int slave, report[2], go[2];
    char c = 0;
    pid_t shell;

    (void)s;
    assert_int_equal(openpty(&r.master, &slave, NULL, NULL, NULL), 0);
    assert_int_equal(pipe2(report, O_CLOEXEC), 0);
    assert_int_equal(pipe2(go, O_CLOEXEC), 0);
    shell = fork();
    if (!shell) {
        pid_t vm;
        int status;

        setsid();
        ioctl(slave, TIOCSCTTY, 0);
        vm = fork();
        if (!vm) {
            setpgid(0, 0);
            dup2(slave, STDIN_FILENO);
            dup2(slave, STDOUT_FILENO);
            echo_main(report[1]);
        }
        setpgid(vm, vm);
        if (read(go[0], &c, 1) != 1 || tcsetpgrp(slave, vm))
            _exit(92);
        _exit(waitpid(vm, &status, WUNTRACED) == vm && WIFEXITED(status) ? WEXITSTATUS(status) : 93);
    }
    close(report[1]);
    close(slave);
    r.pid = shell;
    r.in = r.master;
    r.out = (struct stream){.fd = r.master};
    r.report = (struct stream){.fd = report[0]};
    expect(&r.report, "[ready]");
    assert_false(is_raw(&r));
    type(&r, "mine\n");
    assert_int_equal(write(go[1], "g", 1), 1);
    while (!is_raw(&r))
        poll(NULL, 0, 1);
    expect(&r.out, "mine\n");
    close(go[0]);
    close(go[1]);
    say_bye(&r);
}

static void its_size_is_followed(void **s)
{
    struct winsize size = {.ws_col = 132, .ws_row = 50};
    struct run r;

    (void)s;
    start_on_terminal(&r);
    expect(&r.report, "[80x24]");
    assert_int_equal(ioctl(r.master, TIOCSWINSZ, &size), 0);
    expect(&r.report, "[132x50]");
    say_bye(&r);
}

static void keys_after_ctrl_bracket_are_for_bothy(void **s)
{
    static const struct {
        char key;
        enum request request;
    } keys[] = {{'q', REQ_QUIT}, {'p', REQ_BUTTON}, {'r', REQ_RESET}, {'s', REQ_PAUSE}, {'c', REQ_RESUME}};
    struct run r;
    char text[32];

    (void)s;
    start_on_terminal(&r);
    expect(&r.report, "[80x24]");
    for (size_t i = 0; i < array_len(keys); i++) {
        type(&r, (char[]){CTRL_RBRACKET, keys[i].key, 0});
        snprintf(text, sizeof(text), "[request %d]", keys[i].request);
        expect(&r.report, text);
    }
    /* Alone it waits; doubled it is meant for the guest; what is no key of ours lists those that are. */
    type(&r, (char[]){'a', CTRL_RBRACKET, 0});
    type(&r, (char[]){CTRL_RBRACKET, 'b', 0});
    expect(&r.out, (char[]){'a', CTRL_RBRACKET, 'b', 0});
    type(&r, (char[]){CTRL_RBRACKET, '?', 0});
    expect(&r.out, "Ctrl-] p       press the power button\r\n");
    type(&r, (char[]){CTRL_RBRACKET, 'z', 'c', 0});
    expect(&r.out, "send Ctrl-] to the guest\r\nc");
    say_bye(&r);
}

static void keys_work_when_guest_and_terminal_are_stuck(void **s)
{
    char text[32];
    struct run r;

    (void)s;
    start_on_terminal(&r);
    expect(&r.report, "[80x24]");
    type(&r, (char[]){FLOOD, 0});
    expect(&r.report, "[full]");
    type(&r, (char[]){'a', 'b', CTRL_RBRACKET, 'q', 0});
    snprintf(text, sizeof(text), "[request %d]", REQ_QUIT);
    expect(&r.report, text);
    kill(r.pid, SIGKILL);
    assert_true(WIFSIGNALED(end(&r)));
}

static void pipes_pass_every_byte_and_keep_their_mode(void **s)
{
    int in[2], out[2];
    struct run r = {.master = -1};

    (void)s;
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    r.in = in[1];
    r.out = (struct stream){.fd = out[0]};
    start_with(&r, in[0], out[1], -1);
    type(&r, "a\35q\35\35b");
    expect(&r.out, "a\35q\35\35b");
    assert_int_equal(fcntl(in[0], F_GETFL) & O_NONBLOCK, 0);
    assert_int_equal(fcntl(out[1], F_GETFL) & O_NONBLOCK, 0);
    close(in[0]);
    close(out[1]);
    say_bye(&r);
}

static void the_end_of_input_is_not_the_end_of_the_guest(void **s)
{
    struct run r;
    int status;

    (void)s;
    start_on_pipes(&r);
    type(&r, "last");
    close(r.in);
    r.in = -1;
    expect(&r.out, "last");
    expect(&r.report, "[eof]");
    assert_int_equal(waitpid(r.pid, &status, WNOHANG), 0);
    kill(r.pid, SIGTERM);
    assert_true(WIFSIGNALED(end(&r)));
}

static void a_reader_that_is_gone_does_not_end_the_guest(void **s)
{
    struct run r;

    (void)s;
    start_on_pipes(&r);
    close(r.out.fd);
    r.out.fd = -1;
    type(&r, "unread");
    say_bye(&r);
}

static void files_and_devices_do_for_input(void **s)
{
    char name[] = "/tmp/bothy-stdio.XXXXXX";
    int file = mkostemp(name, O_CLOEXEC), null = open("/dev/null", O_RDWR | O_CLOEXEC), out[2];
    const int inputs[] = {null, file};

    (void)s;
    unlink(name);
    assert_int_equal(write(file, "from a file", 11), 11);
    lseek(file, 0, SEEK_SET);
    for (size_t i = 0; i < array_len(inputs); i++) {
        struct run r = {.master = -1, .in = -1};

        assert_int_equal(pipe2(out, O_CLOEXEC), 0);
        r.out = (struct stream){.fd = out[0]};
        start_with(&r, inputs[i], out[1], -1);
        close(out[1]);
        expect(&r.report, "[eof]");
        if (inputs[i] == file)
            expect(&r.out, "from a file");
        kill(r.pid, SIGTERM);
        assert_true(WIFSIGNALED(end(&r)));
    }
    close(file);
    close(null);
}

static void only_one_front_end_has_them(void **s)
{
    struct err err;
    struct front f, g;

    (void)s;
    front_open(&f, "stdio");
    front_init(&g, "console0");
    assert_int_equal(chardev_open("stdio", &g.dev, &g.c, &err), -EBUSY);
    assert_string_equal(err.msg, "stdio is taken by com1; give console0 another place");
    front_fini(&g);
    front_fini(&f);
    front_open(&f, "stdio");
    front_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_terminal_is_raw_only_as_long_as_we_run),
        cmocka_unit_test(it_is_restored_whatever_signal_ends_us),
        cmocka_unit_test(stopped_it_is_the_shells_and_continued_ours_again),
        cmocka_unit_test(in_the_background_it_is_left_alone),
        cmocka_unit_test(its_size_is_followed),
        cmocka_unit_test(keys_after_ctrl_bracket_are_for_bothy),
        cmocka_unit_test(keys_work_when_guest_and_terminal_are_stuck),
        cmocka_unit_test(pipes_pass_every_byte_and_keep_their_mode),
        cmocka_unit_test(the_end_of_input_is_not_the_end_of_the_guest),
        cmocka_unit_test(a_reader_that_is_gone_does_not_end_the_guest),
        cmocka_unit_test(files_and_devices_do_for_input),
        cmocka_unit_test(only_one_front_end_has_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
