#include "devices/char/front.h"

static void a_file_is_made_anew(void **s)
{
    struct test_dir d;
    struct front f;
    char text[8] = "";
    FILE *old;

    (void)s;
    test_dir_init(&d, "file");
    old = fopen(d.path, "w");
    fputs("longer than what follows", old);
    fclose(old);
    front_open(&f, d.spec);
    assert_int_equal(chardev_write(f.c, "one ", 4), 4);
    assert_int_equal(chardev_write(f.c, "two", 3), 3);
    assert_int_equal(chardev_read(f.c, text, 1), -EPIPE);
    front_fini(&f);
    old = fopen(d.path, "r");
    assert_int_equal(fread(text, 1, sizeof(text), old), 7);
    fclose(old);
    assert_memory_equal(text, "one two", 7);
    test_dir_fini(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_made_anew),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
