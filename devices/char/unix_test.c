#include "devices/char/front.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static void a_socket_serves_one_client_after_another(void **s)
{
    struct test_dir d;
    struct front f;
    struct stat st;
    char c;
    int fd;

    (void)s;
    test_dir_init(&d, "unix");
    front_open(&f, d.spec);
    assert_int_equal(lstat(d.path, &st), 0);
    assert_int_equal(st.st_mode, S_IFSOCK | 0600);
    assert_int_equal(chardev_read(f.c, &c, 1), -EPIPE);
    front_until(&f, f.connected);
    assert_false(f.is_connected);

    fd = connect_to(d.path);
    front_until(&f, f.is_connected);
    assert_int_equal(write(fd, "in", 2), 2);
    front_until(&f, f.in_len == 2);
    assert_memory_equal(f.in, "in", 2);
    assert_int_equal(chardev_write(f.c, "out", 3), 3);
    assert_reads(fd, "out");
    close(fd);
    front_until(&f, !f.is_connected);
    assert_true(f.ended);

    fd = connect_to(d.path);
    front_until(&f, f.is_connected);
    assert_int_equal(write(fd, "!", 1), 1);
    front_until(&f, f.in_len == 3);
    close(fd);
    front_fini(&f);
    assert_int_equal(lstat(d.path, &st), -1);
    test_dir_fini(&d);
}

static void a_second_client_is_told_and_turned_away(void **s)
{
    struct test_dir d;
    struct front f;
    int one, two;
    char c;

    (void)s;
    test_dir_init(&d, "unix");
    front_open(&f, d.spec);
    one = connect_to(d.path);
    front_until(&f, f.is_connected);
    two = connect_to(d.path);
    front_settle(&f);
    assert_reads(two, "bothy: another client is connected\r\n");
    assert_int_equal(read(two, &c, 1), 0);
    assert_int_equal(chardev_write(f.c, "one", 3), 3);
    assert_reads(one, "one");
    close(one);
    close(two);
    front_fini(&f);
    test_dir_fini(&d);
}

static void a_socket_in_use_is_kept_and_a_stale_one_replaced(void **s)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct test_dir d;
    struct front f, g;
    struct err err;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)s;
    test_dir_init(&d, "unix");
    strcpy(addr.sun_path, d.path);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    close(fd);
    front_open(&f, d.spec);

    front_init(&g, "com2");
    assert_int_equal(chardev_open(d.spec, &g.dev, &g.c, &err), -EADDRINUSE);
    assert_non_null(strstr(err.msg, "exists already"));
    front_fini(&g);
    fd = connect_to(d.path);
    front_until(&f, f.is_connected);
    close(fd);
    front_fini(&f);
    test_dir_fini(&d);
}

static void a_socket_that_is_not_ours_any_more_is_not_removed(void **s)
{
    struct test_dir d;
    struct front f;
    struct stat st;

    (void)s;
    test_dir_init(&d, "unix");
    front_open(&f, d.spec);
    assert_int_equal(unlink(d.path), 0);
    close(open(d.path, O_CREAT | O_WRONLY, 0600));
    front_fini(&f);
    assert_int_equal(lstat(d.path, &st), 0);
    test_dir_fini(&d);
}

static void too_long_a_socket_path_is_refused(void **s)
{
    char spec[200] = "unix:/";
    struct err err;
    struct front f;

    (void)s;
    memset(spec + 6, 'x', sizeof(spec) - 7);
    front_init(&f, "com1");
    assert_int_equal(chardev_open(spec, &f.dev, &f.c, &err), -ENAMETOOLONG);
    assert_non_null(strstr(err.msg, "longer than 107 bytes"));
    front_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_socket_serves_one_client_after_another),
        cmocka_unit_test(a_second_client_is_told_and_turned_away),
        cmocka_unit_test(a_socket_in_use_is_kept_and_a_stale_one_replaced),
        cmocka_unit_test(a_socket_that_is_not_ours_any_more_is_not_removed),
        cmocka_unit_test(too_long_a_socket_path_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
