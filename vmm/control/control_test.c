#include "vmm/control/control.h"

#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "devices/testing/fake_machine.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"
#include "vmm/loop/lines.h"

static struct machine m;
static struct control *control;
static char dir[32], path[48];

static int setup(void **s)
{
    struct err err = {0};

    (void)s;
    strcpy(dir, "/tmp/bothy-control.XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/it", dir);
    fake_machine_init(&m);
    if (control_open(&m, path, &control, &err))
        fail_msg("%s", err.msg);
    return 0;
}

static int teardown(void **s)
{
    (void)s;
    control_close(control);
    fake_machine_fini(&m);
    return rmdir(dir); /* nothing is left in it */
}

static int connected(void)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    strcpy(addr.sun_path, path);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    return fd;
}

/* Until nothing is left to do. */
static void settle(void)
{
    for (int i = 0; i < 8; i++) {
        loop_once(m.e.env.loop, 0);
        fake_machine_run_job(&m);
    }
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
    settle();
}

static void hears(int fd, const char *text)
{
    char buf[4096];
    ssize_t n = recv(fd, buf, sizeof(buf) - 1, 0);

    assert_true(n >= 0);
    buf[n] = 0;
    assert_string_equal(buf, text);
}

static void is_hung_up_on(int fd)
{
    char c;

    assert_int_equal(recv(fd, &c, 1, 0), 0);
    close(fd);
}

#define PAUSE "{\"command\": \"pause\"}\n"
#define OK    "{\"result\":{}}\n"

static void only_its_owner_may_connect(void **s)
{
    struct stat st;

    (void)s;
    assert_int_equal(lstat(path, &st), 0);
    assert_true(S_ISSOCK(st.st_mode));
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void a_path_in_use_is_refused(void **s)
{
    struct control *second;
    struct err err;

    (void)s;
    assert_int_equal(control_open(&m, path, &second, &err), -EADDRINUSE);
    assert_int_equal(access(path, F_OK), 0); /* and stays */
}

static void lines_are_answered_in_order(void **s)
{
    int fd = connected();

    (void)s;
    say(fd, PAUSE);
    hears(fd, OK);
    assert_true(m.paused);
    say(fd, "{\"command\": \"resume\"}\n{\"command\": \"nonsense\"}\n\n" PAUSE "{\"comm");
    hears(fd, OK "{\"error\":\"unknown command \\\"nonsense\\\"; \\\"help\\\" lists what there is\"}\n"
                 "{\"error\":\"not JSON: '[' or '{' expected near end of file\"}\n" OK);
    say(fd, "and\": \"resume\"}\n");
    hears(fd, OK);
    assert_false(m.paused);
    close(fd);
}

static void a_socket_can_be_inherited(void **s)
{
    struct control *inherits;
    char word[16];
    int ends[2];
    struct err err;

    (void)s;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    snprintf(word, sizeof(word), "fd:%d", ends[1]);
    assert_int_equal(control_open(&m, word, &inherits, &err), 0);
    say(ends[0], PAUSE);
    hears(ends[0], OK);
    assert_int_equal(send(ends[0], PAUSE, strlen(PAUSE), 0), (ssize_t)strlen(PAUSE));
    loop_once(m.e.env.loop, 0);
    fake_machine_run_job(&m);
    control_close(inherits);
    hears(ends[0], OK); /* as who says "quit" does */
    is_hung_up_on(ends[0]);
    assert_int_equal(control_open(&m, "fd:x", &inherits, &err), -EBADF);
    assert_non_null(strstr(err.msg, "give the number of a socket"));
}

static void clients_do_not_see_each_other(void **s)
{
    int a = connected(), b = connected();

    (void)s;
    assert_int_equal(send(a, PAUSE, strlen(PAUSE), 0), (ssize_t)strlen(PAUSE));
    say(b, "{\"command\": \"x\"}\n");
    hears(a, OK);
    hears(b, "{\"error\":\"unknown command \\\"x\\\"; \\\"help\\\" lists what there is\"}\n");
    close(a);
    say(b, PAUSE);
    hears(b, OK);
    close(b);
}

static void clients_may_leave_at_any_byte(void **s)
{
    int fd;

    (void)s;
    for (size_t n = 0; n <= strlen(PAUSE); n++) {
        fd = connected();
        assert_int_equal(send(fd, PAUSE, n, 0), (ssize_t)n);
        if (n % 2)
            settle();
        close(fd);
        settle();
    }
    for (int i = 0; i < 2 * LINES_CLIENTS; i++) { /* while its command is on its way */
        fd = connected();
        assert_int_equal(send(fd, PAUSE, strlen(PAUSE), 0), (ssize_t)strlen(PAUSE));
        loop_once(m.e.env.loop, 0);
        loop_once(m.e.env.loop, 0);
        close(fd);
        settle();
    }
    fd = connected();
    say(fd, PAUSE);
    hears(fd, OK);
    close(fd);
}

static void half_a_connection_is_one(void **s)
{
    int fd = connected();

    (void)s;
    assert_int_equal(send(fd, PAUSE PAUSE, 2 * strlen(PAUSE), 0), (ssize_t)(2 * strlen(PAUSE)));
    shutdown(fd, SHUT_WR);
    settle();
    hears(fd, OK OK);
    is_hung_up_on(fd);
}

static void a_line_has_a_limit(void **s)
{
    cleanup_free char *line = xcalloc(1, LINES_MAX + 1);
    int fd = connected();

    (void)s;
    memset(line, ' ', LINES_MAX);
    memcpy(line + LINES_MAX - strlen(PAUSE), PAUSE, strlen(PAUSE));
    say(fd, line);
    hears(fd, OK);
    line[LINES_MAX - 1] = ' ';
    say(fd, line);
    hears(fd, "{\"error\":\"a line of more than 64 KiB\"}\n");
    is_hung_up_on(fd);
}

static void clients_have_a_limit(void **s)
{
    int fds[LINES_CLIENTS], extra;

    (void)s;
    for (size_t i = 0; i < array_len(fds); i++)
        fds[i] = connected();
    settle();
    extra = connected();
    settle();
    hears(extra, "{\"error\":\"8 clients are connected already; end one of them\"}\n");
    is_hung_up_on(extra);
    close(fds[3]);
    settle();
    fds[3] = connected();
    for (size_t i = 0; i < array_len(fds); i++) {
        say(fds[i], PAUSE);
        hears(fds[i], OK);
        close(fds[i]);
    }
}

/* It gets no more commands served than its answers fit, and others do not notice. */
static void a_client_that_never_reads_waits(void **s)
{
    static const char help[] = "{\"command\": \"help\"}\n";
    int deaf = connected(), other = connected(), rounds = 0;

    (void)s;
    while (send(deaf, help, strlen(help), MSG_NOSIGNAL) > 0 && rounds++ < 100000)
        settle();
    assert_true(rounds < 100000);
    say(other, PAUSE);
    hears(other, OK);
    assert_null(m.job);
    close(other);
    close(deaf);
    settle();
}

#define with_control(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_control(only_its_owner_may_connect),    with_control(a_path_in_use_is_refused),
        with_control(lines_are_answered_in_order),   with_control(a_socket_can_be_inherited),
        with_control(clients_do_not_see_each_other), with_control(clients_may_leave_at_any_byte),
        with_control(half_a_connection_is_one),      with_control(a_line_has_a_limit),
        with_control(clients_have_a_limit),          with_control(a_client_that_never_reads_waits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
