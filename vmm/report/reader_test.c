#include "vmm/base/test.h"
#include "vmm/report/reader.h"

#include <stdio.h>

static void say(struct reader *r, enum test_stream s, const char *text)
{
    reader_feed(r, s, text, strlen(text), 0);
}

static void results_of_both_streams(void **state)
{
    struct reader *r = reader_create();
    unsigned n[OUTCOME_MAX] = {0};
    struct report_run *run;
    struct report report;

    (void)state;
    report_init(&report);
    run = report_add(&report, "run");
    say(r, TEST_LOG, "[    0.100000] KTAP ver");
    say(r, TEST_OUT, "1..2\nok 1 - a\nno");
    say(r, TEST_LOG, "sion 1\r\n[    0.100000] 1..1\r\n[    0.200000] ok 1 suite\r\n");
    say(r, TEST_ERR, "ok 1 - on standard error it is none\n");
    say(r, TEST_OUT, "t ok 2 - b\n");
    reader_settle(r, run);
    test_count(&run->test, n);
    assert_int_equal(n[OUTCOME_PASS], 2);
    assert_int_equal(n[OUTCOME_FAIL], 1);
    assert_string_equal(container_of(run->test.children.next, struct test, link)->name, "suite");
    assert_null(run->test.output);
    assert_null(run->log);
    reader_destroy(r);
    report_fini(&report);
}

static void last_words_of_what_failed(void **state)
{
    struct reader *r = reader_create();
    struct report_run *run;
    struct report report;
    char line[64];

    (void)state;
    report_init(&report);
    run = report_add(&report, "run");
    run->result.outcome = TEST_CRASH;
    strcpy(run->result.why, "panic");
    say(r, TEST_OUT, "to say\n");
    say(r, TEST_ERR, "and to complain\x1b[0m\n");
    for (int i = 0; i < 10000; i++) {
        snprintf(line, sizeof(line), "[%5d.000000] line\r\n", i);
        say(r, TEST_LOG, line);
    }
    reader_settle(r, run);
    assert_string_equal(run->test.output, "to say\nand to complain\n");
    assert_in_range(strlen(run->log), 50 << 10, 65 << 10);
    assert_memory_equal(run->log, "… ", strlen("… "));
    assert_non_null(strstr(run->log, " bytes before\n[ "));
    assert_non_null(strstr(run->log, "[ 9999.000000] line\n"));
    assert_null(strchr(run->log, '\r'));
    reader_destroy(r);

    r = reader_create(); /* a second try, which passes */
    run->result = (struct test_result){.outcome = TEST_PASS};
    say(r, TEST_OUT, "fine\n");
    reader_settle(r, run);
    assert_int_equal(run->test.outcome, OUTCOME_PASS);
    assert_null(run->test.reason);
    assert_null(run->test.output);
    assert_null(run->log);
    reader_destroy(r);
    report_fini(&report);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_of_both_streams),
        cmocka_unit_test(last_words_of_what_failed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
