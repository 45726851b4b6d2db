#include "devices/char/front.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <termios.h>

static void a_pseudo_terminal_is_raw_and_may_be_reopened(void **s)
{
    struct termios t;
    struct test_dir d;
    struct front f;
    struct stat st;
    int fd;

    (void)s;
    test_dir_init(&d, "pty");
    front_open(&f, d.spec);
    assert_int_equal(chardev_write(f.c, "early\r\n", 7), 7);
    front_settle(&f);
    assert_false(f.is_connected);
    for (int i = 0; i < 2; i++) {
        fd = open(d.path, O_RDWR | O_NOCTTY | O_CLOEXEC);
        assert_int_equal(tcgetattr(fd, &t), 0);
        assert_int_equal(t.c_lflag & (ICANON | ECHO | ISIG), 0);
        front_until(&f, f.is_connected);
        assert_reads(fd, "early\r\n");
        assert_int_equal(write(fd, "in\3", 3), 3);
        front_until(&f, f.in_len == 3);
        assert_memory_equal(f.in, "in\3", 3);
        f.in_len = 0;
        close(fd);
        front_until(&f, !f.is_connected);
    }
    front_fini(&f);
    assert_int_equal(lstat(d.path, &st), -1);
    test_dir_fini(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pseudo_terminal_is_raw_and_may_be_reopened),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
