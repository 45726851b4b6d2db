#include "devices/char/chardev.h"
#include "devices/char/front.h"

#include <fcntl.h>
#include <sys/stat.h>

static void a_bad_spec_is_refused_with_the_remedy(void **s)
{
    static const struct {
        const char *spec, *msg;
    } cases[] = {
        {"", "\"\" is no place for a console; there is stdio|null|file:PATH|pty[:LINK]|unix:PATH|fd:N"},
        {"stdi", "\"stdi\" is no place for a console; there is stdio|null|file:PATH|pty[:LINK]|unix:PATH|fd:N"},
        {"null:x", "\"null:x\": nothing follows \"null\""},
        {"stdio:", "\"stdio:\": nothing follows \"stdio\""},
        {"file", "\"file\" is not whole; write file:PATH"},
        {"file:", "\"file:\" is not whole; write file:PATH"},
        {"fd:", "\"fd:\" is not whole; write fd:N"},
        {"pty:", "\"pty:\" is not whole; write pty:PATH"},
        {"file:/", "output \"/\": Is a directory; name a file in it"},
        {"unix:/nowhere/x", "socket \"/nowhere/x\": No such file or directory; check the path"},
        {"pty:/nowhere/x", "link \"/nowhere/x\": No such file or directory; check the path"},
    };
    struct front f;

    (void)s;
    front_init(&f, "com1");
    for (size_t i = 0; i < array_len(cases); i++) {
        struct err err = {0};

        assert_true(chardev_open(cases[i].spec, &f.dev, &f.c, &err) < 0);
        assert_null(f.c);
        err.msg[strlen(cases[i].msg)] = 0;
        assert_string_equal(err.msg, cases[i].msg);
    }
    front_fini(&f);
}

static void null_takes_all_and_gives_nothing(void **s)
{
    struct front f;
    char c;

    (void)s;
    front_open(&f, "null");
    assert_int_equal(chardev_write(f.c, "abc", 3), 3);
    assert_int_equal(chardev_read(f.c, &c, 1), -EPIPE);
    front_fini(&f);
}

static void names_that_are_there_already_are_left_alone(void **s)
{
    static const char *const kinds[] = {"unix", "pty"};

    (void)s;
    for (size_t i = 0; i < array_len(kinds); i++)
        for (int link = 0; link < 2; link++) {
            struct test_dir d;
            struct err err;
            struct stat st;
            struct front f;

            test_dir_init(&d, kinds[i]);
            if (link)
                assert_int_equal(symlink("/nowhere/at-all", d.path), 0);
            else
                close(open(d.path, O_CREAT | O_WRONLY, 0600));
            front_init(&f, "com1");
            assert_true(chardev_open(d.spec, &f.dev, &f.c, &err) < 0);
            front_fini(&f);
            assert_int_equal(lstat(d.path, &st), 0);
            assert_int_equal(S_ISLNK(st.st_mode), link);
            test_dir_fini(&d);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bad_spec_is_refused_with_the_remedy),
        cmocka_unit_test(null_takes_all_and_gives_nothing),
        cmocka_unit_test(names_that_are_there_already_are_left_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
