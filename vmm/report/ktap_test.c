/* What real producers print, and what is wrong with some of it. */
#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"
#include "vmm/report/ktap.h"

#include <stdio.h>

static void dump(FILE *f, const struct list *tests, int depth)
{
    list_for_each (l, tests) {
        const struct test *t = container_of(l, struct test, link);

        fprintf(f, "%*s%s %s%s%s\n", depth * 2, "", outcome_words[t->outcome], t->name, t->reason ? " | " : "",
                t->reason ? t->reason : "");
        dump(f, &t->children, depth + 1);
    }
}

/* Read in parts of `step` bytes. */
static void read_all(const char *text, size_t step, struct list *ret)
{
    struct ktap *k = xcalloc(1, sizeof(*k));
    size_t n = strlen(text);

    list_init(ret);
    ktap_init(k, ret);
    for (size_t i = 0; i < n; i += step)
        ktap_feed(k, text + i, min_u64(step, n - i), 0);
    ktap_end(k);
    free(k);
}

static void expect(const char *text, const char *wanted)
{
    static const size_t steps[] = {1, 7, 1 << 20};

    for (size_t i = 0; i < array_len(steps); i++) {
        char *got cleanup_free = NULL;
        size_t n;
        FILE *f = open_memstream(&got, &n);
        struct list t;

        read_all(text, steps[i], &t);
        dump(f, &t, 0);
        fclose(f);
        assert_string_equal(got, wanted);
        tests_destroy(&t);
    }
}

/* Of the first test with output. */
static const char *output_of(const struct list *tests)
{
    list_for_each (l, tests) {
        const struct test *t = container_of(l, struct test, link);
        const char *below = output_of(&t->children);

        if (below || t->output)
            return below ? below : t->output;
    }
    return NULL;
}

static void expect_output(const char *text, const char *wanted)
{
    struct list t;

    read_all(text, 1 << 20, &t);
    assert_non_null(output_of(&t));
    assert_string_equal(output_of(&t), wanted);
    tests_destroy(&t);
}

static void prove_style(void **state)
{
    (void)state;
    expect("1..4\nok 1 - Input file opened\nnot ok 2 - First line of the input valid\n"
           "ok 3 - Read the rest of the file\nnot ok 4 - Summarized correctly # TODO Not written yet\n",
           "pass Input file opened\nfail First line of the input valid\npass Read the rest of the file\n"
           "xfail Summarized correctly | Not written yet\n");
    expect("ok 1\nok 2\nnot ok 3\n1..3\n", "pass 1\npass 2\nfail 3\n");
    expect("TAP version 13\n1..2\nok\nok - second\n", "pass 1\npass second\n");
    expect("1..3\nok 1 - created Board\nok 2 # SKIP no such device\nok 3 - open # skip: not root\n# 1 of 3\n",
           "pass created Board\nskip no such device\nskip open | not root\n");
    expect("1..0 # SKIP English-to-French translator isn't installed\n",
           "skip (all) | English-to-French translator isn't installed\n");
    expect("1..2\nok 1 - fixes issue #12 of C#\nok 2 - a \\# b\n", "pass fixes issue #12 of C#\npass a # b\n");
    expect("1..1\r\nok 1 - with carriage returns\r\n", "pass with carriage returns\n");
    expect("1..1\nok 1 - without an end of line", "pass without an end of line\n");
}

static void tap_14_subtests(void **state)
{
    (void)state;
    expect("TAP version 14\n1..2\n# Subtest: foo.tap\n    1..2\n    ok 1\n    ok 2 - this passed\nok 1 - foo.tap\n"
           "# Subtest: bar.tap\n    ok 1 - object should be a Boat\n    not ok 2 - wet\n    1..2\nnot ok 2 - bar.tap\n",
           "pass foo.tap\n  pass 1\n  pass this passed\nfail bar.tap\n  pass object should be a Boat\n  fail wet\n");
    expect("TAP version 14\n1..1\n    ok 1 - deep # TODO later\n    not ok 2 - deeper\n    1..2\n"
           "not ok 1 - all of it # TODO not yet\n",
           "xfail all of it | not yet\n  pass deep | later\n  xfail deeper\n");
}

static void kunit_of_6_1(void **state)
{
    (void)state;
    expect("[    0.060000] Freeing SMP alternatives memory: 28K\n"
           "[    0.271000] TAP version 14\n[    0.271100] 1..2\n[    0.271200]     # Subtest: example\n"
           "[    0.271300]     1..3\n[    0.271400]     # example_simple_test: initializing\n"
           "[    0.271500]     ok 1 - example_simple_test\n[    0.271600]     # example_skip_test: You should not\n"
           "[    0.271700]     ok 2 - example_skip_test # SKIP this test should be skipped\n"
           "[    0.271800]         # Subtest: example_params_test\n[    0.271900]         ok 1 - example value 2\n"
           "[    0.272000]         ok 2 - example value 1 # SKIP unsupported param value\n"
           "[    0.272100]     # example_params_test: pass:1 fail:0 skip:1 total:2\n"
           "[    0.272200]     ok 3 - example_params_test\n[    0.272300] # example: pass:2 fail:0 skip:1 total:3\n"
           "[    0.272400] ok 1 - example\n[    0.272500] e1000: Intel(R) PRO/1000\n"
           "[    0.272600]     # Subtest: other\n[    0.272700]     1..1\n[    0.272800]     ok 1 - one\n"
           "[    0.272900] ok 2 - other\n[    0.300000] Run /init as init process\n",
           "pass example\n  pass example_simple_test\n  skip example_skip_test | this test should be skipped\n"
           "  pass example_params_test\n    pass example value 2\n"
           "    skip example value 1 | unsupported param value\npass other\n  pass one\n");
}

static const char kunit_6_6[] =
    "<6>[    1.000000][    T1] KTAP version 1\n<6>[    1.000001][    T1] 1..1\n"
    "<6>[    1.000002][    T1]     KTAP version 1\n<6>[    1.000003][    T1]     # Subtest: list-kunit-test\n"
    "<6>[    1.000003][    T1]     # module: list_test\n<6>[    1.000004][    T1]     1..2\n"
    "<6>[    1.500004][    T1]     ok 1 list_test_list_init\n"
    "<3>[    1.500005][    T1]     # list_test_list_add: EXPECTATION FAILED at lib/list-test.c:42\n"
    "<3>[    1.500005][    T1]     Expected a == b, but\n<3>[    1.500005][    T1]         a == 1 (0x1)\n"
    "<6>[    1.750005][    T1]     not ok 2 list_test_list_add\n"
    "<6>[    1.750005][    T1] # list-kunit-test: pass:1 fail:1 skip:0 total:2\n"
    "<6>[    1.750005][    T1] not ok 1 list-kunit-test\n";

static void kunit_of_6_6(void **state)
{
    (void)state;
    expect(kunit_6_6, "fail list-kunit-test\n  pass list_test_list_init\n  fail list_test_list_add\n");
    expect_output(kunit_6_6, "    # list_test_list_add: EXPECTATION FAILED at lib/list-test.c:42\n"
                             "    Expected a == b, but\n        a == 1 (0x1)\n");
}

static void durations_are_the_kernel_s(void **state)
{
    const struct test *suite, *test;
    struct list t;

    (void)state;
    read_all(kunit_6_6, 1 << 20, &t);
    suite = container_of(t.next, struct test, link);
    test = container_of(suite->children.next, struct test, link);
    assert_int_equal(suite->ns, 750005000);
    assert_int_equal(test->ns, 500002000);
    tests_destroy(&t);
}

static void kselftest(void **state)
{
    (void)state;
    expect("make: Entering directory '/usr/src/tools/testing/selftests'\nTAP version 13\n1..1\n"
           "# timeout set to 45\n# selftests: breakpoints: step_after_suspend_test\n# TAP version 13\n"
           "# Bail out! Failed to open /sys/power/state\n# # Totals: pass:0 fail:0 xfail:0 xpass:0 skip:0 error:0\n"
           "not ok 1 selftests: breakpoints: step_after_suspend_test # exit=1\n",
           "fail selftests: breakpoints: step_after_suspend_test | exit=1\n"
           "  error Bail out! | Failed to open /sys/power/state\n");
    expect("TAP version 13\n1..4\n# selftests: timers: posix_timers\n# TAP version 13\n# 1..2\n"
           "# Testing posix timers.\n# ok 1 check_itimer(ITIMER_VIRTUAL)\n# not ok 2 check_timer\n"
           "# # Totals: pass:1 fail:1 xfail:0 xpass:0 skip:0 error:0\n"
           "not ok 1 selftests: timers: posix_timers # exit=1\n# selftests: timers: nanosleep\n# it said ok\n"
           "ok 2 selftests: timers: nanosleep\n# selftests: timers: inconsistency-check\n#\n"
           "not ok 3 selftests: timers: inconsistency-check # TIMEOUT 45 seconds\n"
           "ok 4 selftests: timers: raw_skew # SKIP\n",
           "fail selftests: timers: posix_timers | exit=1\n  pass check_itimer(ITIMER_VIRTUAL)\n  fail check_timer\n"
           "pass selftests: timers: nanosleep\nfail selftests: timers: inconsistency-check | TIMEOUT 45 seconds\n"
           "skip selftests: timers: raw_skew\n");
    expect("TAP version 13\n1..2\nok 1 # XFAIL not on this arch\nnot ok 2 # error memory\n",
           "xfail not on this arch\nfail memory\n");
    /* The harness: two programs in one test, nested twice. */
    expect("TAP version 13\n1..1\n# TAP version 13\n# 1..1\n#     TAP version 13\n#     1..1\n#     ok 1 deep\n"
           "# ok 1 inner\n# TAP version 13\n# 1..1\n# ok 1 again\nok 1 selftests: two\n",
           "pass selftests: two\n  pass inner\n    pass deep\n  pass again\n");
}

static void a_comment_is_no_result(void **state)
{
    (void)state;
    expect("1..1\n# ok 1 - in former times\n# not ok 2 that was\nok 1 - now\n", "pass now\n");
    expect("TAP version 14\n1..1\n    1..1\n  # ok 7 odd\n    ok 1 - a\nok 1 - b\n", "pass b\n  pass a\n");
}

static void what_is_no_tap_has_no_results(void **state)
{
    (void)state;
    expect("", "");
    expect("ok\nnot ok\nok 12 files copied\nokay 1\n  ok 2\n1. one\n1..\nTAP version x\n# Subtest: none\n", "");
    expect("[    1.000000] ok 1 said the driver\n[    1.000000] 1..5\n[    2.0] Bail out!\n", "");
}

static void broken_promises(void **state)
{
    (void)state;
    expect("1..3\nok 1\nok 2\n", "pass 1\npass 2\nerror (results) | planned 3, got 2 results\n");
    expect("1..1\nok 1 a\nok 2 b\n", "pass a\npass b\nerror (results) | planned 1, got 2 results\n");
    expect("TAP version 13\nbash: ./test: not found\n", "error (results) | neither a plan nor a result\n");
    expect("1..2\nok 1\nok 3\n", "pass 1\npass 3\nerror (results) | result 3 came where 2 was due\n");
    expect("1..3\nok 1\n1..2\nok 2\n",
           "pass 1\npass 2\nerror (results) | a second plan, of 2, before the first was kept\n");
    expect("KTAP version 1\n1..2\n    KTAP version 1\n    # Subtest: dies\n    1..2\n    ok 1 a\n",
           "error dies | its subtests have ended, and it has no result\n  pass a\n"
           "  error (results) | planned 2, got 1 results\nerror (results) | planned 2, got 0 results\n");
    expect("KTAP version 1\n1..2\n    KTAP version 1\n    # Subtest: dies\n    1..2\n    ok 1 a\n"
           "    KTAP version 1\n    # Subtest: next\n    1..1\n    ok 1 b\nok 1 next\n",
           "error dies | its subtests have ended, and it has no result\n  pass a\n"
           "  error (results) | planned 2, got 1 results\npass next\n  pass b\n"
           "error (results) | planned 2, got 1 results\n");
    expect("1..5\nok 1 a\nBail out! MySQL is not running.\nok 7\n",
           "pass a\nerror Bail out! | MySQL is not running.\n");
}

static void several_documents(void **state)
{
    (void)state;
    expect("TAP version 13\n1..1\nok 1 a\nTAP version 13\n1..2\nok 1 b\nTAP version 13\n1..1\nok 1 c\n",
           "pass a\npass b\nerror (results) | planned 2, got 1 results\npass c\n");
    expect("1..1\nok 1 a\n1..1\nok 1 b\nok 1 c\n1..1\n", "pass a\npass b\npass c\n");
}

static void what_is_said_about_a_failure(void **state)
{
    (void)state;
    expect_output("1..2\nok 1 fine\nreading\nwriting\nnot ok 2 bad\nnothing of it\n", "reading\nwriting\n");
    expect_output("ok 1 - a\nnot ok 2 - b\n#   Failed test 'b'\n#   at t.pl line 3.\nok 3 - c\n1..3\n",
                  "#   Failed test 'b'\n#   at t.pl line 3.\n");
    expect_output("1..1\nnot ok 1 a\n  ---\n  message: \"broken\"\n  ...\n", "  ---\n  message: \"broken\"\n  ...\n");
    expect_output("1..1\n\x1b[31mred\x1b[0m \xff\x01 \xc3\xa4\nnot ok 1\n", "red ?? \xc3\xa4\n");
}

static char *repeat(const char *s, size_t n)
{
    char *all = xcalloc(n, strlen(s) + 1), *p = all;

    for (size_t i = 0; i < n; i++)
        p = stpcpy(p, s);
    return all;
}

static void bounds(void **state)
{
    char *text cleanup_free = NULL, *many cleanup_free = repeat("ok 1\n", KTAP_TESTS + 10);
    char *wide cleanup_free = repeat("x", 3 * KTAP_LINE_MAX), *lines cleanup_free = repeat("0123456789abcde\n", 9000);
    unsigned n[OUTCOME_MAX] = {0};
    const struct test *last;
    struct list t;

    (void)state;
    read_all(many, 1 << 20, &t);
    list_for_each (l, &t)
        test_count(container_of(l, struct test, link), n);
    assert_int_equal(n[OUTCOME_PASS], KTAP_TESTS);
    assert_int_equal(n[OUTCOME_ERROR], 1);
    tests_destroy(&t);

    assert_true(asprintf(&text, "1..2\nok 1 %s\n%snot ok 2\n", wide, lines) > 0);
    read_all(text, 4000, &t);
    last = container_of(t.prev, struct test, link);
    assert_in_range(strlen(container_of(t.next, struct test, link)->name), 100, 512);
    assert_in_range(strlen(last->output), KTAP_OUTPUT_MAX, KTAP_OUTPUT_MAX + 64);
    assert_non_null(strstr(last->output, "\n… 78464 bytes more\n"));
    tests_destroy(&t);
}

static void nesting_has_an_end(void **state)
{
    char *text cleanup_free = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    struct list t;

    (void)state;
    for (int i = 0; i < 100; i++)
        fprintf(f, "%*s1..1\n", i * 2, "");
    for (int i = 99; i >= 0; i--)
        fprintf(f, "%*sok 1\n", i * 2, "");
    fclose(f);
    read_all(text, 1000, &t);
    assert_false(test_bad(container_of(t.next, struct test, link)));
    tests_destroy(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prove_style),
        cmocka_unit_test(tap_14_subtests),
        cmocka_unit_test(kunit_of_6_1),
        cmocka_unit_test(kunit_of_6_6),
        cmocka_unit_test(durations_are_the_kernel_s),
        cmocka_unit_test(kselftest),
        cmocka_unit_test(a_comment_is_no_result),
        cmocka_unit_test(what_is_no_tap_has_no_results),
        cmocka_unit_test(broken_promises),
        cmocka_unit_test(several_documents),
        cmocka_unit_test(what_is_said_about_a_failure),
        cmocka_unit_test(bounds),
        cmocka_unit_test(nesting_has_an_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
