#include "vmm/base/log.h"
#include "vmm/base/test.h"

#include <errno.h>

static void levels_are_parsed_by_name(void **s)
{
    enum log_level l = LOG_ERROR;

    (void)s;
    assert_int_equal(log_level_parse("debug", &l), 0);
    assert_int_equal(l, LOG_DEBUG);
    assert_int_equal(log_level_parse("loud", &l), -EINVAL);
    assert_int_equal(l, LOG_DEBUG);
}

static void a_guest_cannot_flood_the_log(void **s)
{
    struct log_limit l = {0};
    unsigned passed = 0;

    (void)s;
    for (int i = 0; i < 100000; i++)
        passed += log_limit_ok(&l);
    assert_true(passed >= LOG_BURST);
    assert_true(passed < 1000);
    assert_int_equal(passed + l.dropped, 100000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels_are_parsed_by_name),
        cmocka_unit_test(a_guest_cannot_flood_the_log),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
