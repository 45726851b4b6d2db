#include "devices/char/front.h"
#include "devices/char/sink.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

static void a_full_disk_ends_output_not_the_guest(void **s)
{
    struct front f;

    (void)s;
    front_open(&f, "file:/dev/full");
    assert_int_equal(chardev_write(f.c, "abc", 3), 3);
    assert_int_equal(chardev_write(f.c, "abc", 3), 3);
    front_fini(&f);
}

static void a_named_pipe_pushes_back_until_it_is_read(void **s)
{
    char block[4096] = {0};
    size_t sent = 0, n;
    struct err err;
    struct test_dir d;
    struct front f;
    int fd;

    (void)s;
    test_dir_init(&d, "file");
    assert_int_equal(mkfifo(d.path, 0600), 0);
    front_init(&f, "com1");
    assert_int_equal(chardev_open(d.spec, &f.dev, &f.c, &err), -ENXIO);
    assert_non_null(strstr(err.msg, "nobody reads this pipe"));
    front_fini(&f);

    fd = open(d.path, O_RDONLY | O_NONBLOCK);
    front_open(&f, d.spec);
    do
        sent += n = chardev_write(f.c, block, sizeof(block));
    while (n == sizeof(block));
    front_settle(&f);
    assert_int_equal(f.writable, 0);
    while (sent)
        sent -= (size_t)read(fd, block, sizeof(block));
    front_until(&f, f.writable);
    assert_int_equal(chardev_write(f.c, "abc", 3), 3);
    close(fd);
    assert_int_equal(chardev_write(f.c, "abc", 3), 3);
    front_fini(&f);
    test_dir_fini(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_disk_ends_output_not_the_guest),
        cmocka_unit_test(a_named_pipe_pushes_back_until_it_is_read),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
