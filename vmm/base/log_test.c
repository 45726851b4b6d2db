#include "vmm/base/log.h"
#include "vmm/base/test.h"

static void every_level_has_its_word(void **s)
{
    (void)s;
    assert_string_equal(log_level_words[LOG_ERROR], "error");
    assert_string_equal(log_level_words[LOG_DEBUG], "debug");
    assert_null(log_level_words[LOG_DEBUG + 1]);
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
        cmocka_unit_test(every_level_has_its_word),
        cmocka_unit_test(a_guest_cannot_flood_the_log),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
