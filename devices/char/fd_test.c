#include "devices/char/front.h"

#include <fcntl.h>
#include <sys/socket.h>

static void a_socket_that_was_inherited_carries_bytes(void **s)
{
    struct front f;
    char spec[32], c;
    int fds[2];

    (void)s;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    snprintf(spec, sizeof(spec), "fd:%d", fds[1]);
    front_open(&f, spec);
    front_until(&f, f.is_connected);
    assert_int_equal(write(fds[0], "in", 2), 2);
    front_until(&f, f.in_len == 2);
    assert_int_equal(chardev_write(f.c, "out", 3), 3);
    assert_reads(fds[0], "out");
    assert_int_equal(write(fds[0], "!", 1), 1);
    close(fds[0]);
    front_until(&f, !f.is_connected);
    assert_int_equal(f.in_len, 3);
    assert_int_equal(chardev_read(f.c, &c, 1), -EPIPE);
    front_fini(&f);
    assert_int_equal(fcntl(fds[1], F_GETFD), -1);
}

static void assert_refused(const char *spec, const char *part)
{
    struct err err;
    struct front f;

    front_init(&f, "com1");
    assert_true(chardev_open(spec, &f.dev, &f.c, &err) < 0);
    assert_non_null(strstr(err.msg, part));
    f.c = NULL;
    front_fini(&f);
}

static void what_is_no_socket_of_ours_is_refused(void **s)
{
    char taken[32], file[32];
    int fds[2], fd = open("/dev/null", O_RDONLY);

    (void)s;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    snprintf(taken, sizeof(taken), "fd:%d", fds[1]);
    snprintf(file, sizeof(file), "fd:%d", fd);
    assert_refused("fd:x", "the number of a socket");
    assert_refused("fd:0", "the number of a socket");
    assert_refused("fd:99999999999", "the number of a socket");
    assert_refused(file, "no stream socket");
    assert_refused(taken, "in use");
    close(fd);
    close(fds[0]);
    close(fds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_socket_that_was_inherited_carries_bytes),
        cmocka_unit_test(what_is_no_socket_of_ours_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
