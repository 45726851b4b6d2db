#include "vmm/base/err.h"
#include "vmm/base/test.h"

static void set_returns_minus_code_and_formats(void **s)
{
    struct err e;

    (void)s;
    assert_int_equal(err_set(&e, ENOENT, "open %s", "/x"), -ENOENT);
    assert_int_equal(e.code, ENOENT);
    assert_string_equal(e.msg, "open /x");
    assert_int_equal(err_set(NULL, EIO, "unseen"), -EIO);
}

static void wrap_prefixes_and_keeps_the_code(void **s)
{
    struct err e;

    (void)s;
    err_set(&e, EACCES, "permission denied");
    assert_int_equal(err_wrap(&e, "disk%d", 0), -EACCES);
    assert_string_equal(e.msg, "disk0: permission denied");
}

static void file_names_purpose_path_reason_and_remedy(void **s)
{
    struct err e;

    (void)s;
    assert_int_equal(err_file(&e, ENOENT, "log", "/x"), -ENOENT);
    assert_string_equal(e.msg, "log \"/x\": No such file or directory; check the path");
    err_file(&e, EIO, "log", "/x");
    assert_string_equal(e.msg, "log \"/x\": Input/output error");
}

static void long_messages_are_cut_not_overrun(void **s)
{
    struct err e;
    char big[2 * sizeof(e.msg)];

    (void)s;
    memset(big, 'x', sizeof(big));
    big[sizeof(big) - 1] = 0;
    err_set(&e, EIO, "%s", big);
    assert_int_equal(strlen(e.msg), sizeof(e.msg) - 1);
    err_wrap(&e, "%s", big);
    assert_int_equal(strlen(e.msg), sizeof(e.msg) - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(set_returns_minus_code_and_formats),
        cmocka_unit_test(wrap_prefixes_and_keeps_the_code),
        cmocka_unit_test(file_names_purpose_path_reason_and_remedy),
        cmocka_unit_test(long_messages_are_cut_not_overrun),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
