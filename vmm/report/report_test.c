/* What is written is read back by others: our own TAP parser and prove, jansson, Python's XML parser. */
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/exit_code.h"
#include "vmm/base/test.h"
#include "vmm/report/ktap.h"
#include "vmm/report/report.h"

#include <jansson.h>

#define NASTY "<a&b> \"quoted\" 'x' ]]> \xc3\xa4 # SKIP no"

static struct report_run *add_run(struct report *r, const char *name, enum test_outcome outcome, int code,
                                  const char *why, const char *tap)
{
    struct report_run *run = report_add(r, name);
    struct ktap *k = xcalloc(1, sizeof(*k));

    run->result = (struct test_result){.outcome = outcome, .code = code, .all_ns = 1500 * 1000 * 1000ull};
    run->tries = 1;
    strcpy(run->result.why, why);
    report_fact(run, "kernel", "/boot/vmlinuz & co");
    report_fact(run, "arguments", "console=\"a b\" <none>\x01");
    ktap_init(k, &run->test.children);
    ktap_feed(k, tap, strlen(tap), 0);
    ktap_end(k);
    free(k);
    report_settle(run);
    return run;
}

static void make(struct report *r)
{
    struct report_run *run;

    report_init(r);
    r->ns = 3 * NS_PER_SEC;
    add_run(r, "cpus=1", TEST_PASS, 0, "",
            "TAP version 14\n1..3\nok 1 - fine\n# Subtest: deep\n    1..2\n    ok 1 - a\n"
            "    not ok 2 - b # TODO some day\nok 2 - deep\nok 3 - absent # SKIP no such \\# thing\n");
    add_run(
        r, "cpus=2", TEST_PASS, 0, "",
        "1..2\n<said> & \x02\x1b[1m\n# ok 5 in a comment\nnot ok 1 - <a&b> \"quoted\" 'x' ]]> \xc3\xa4 \\# SKIP no\n"
        "    1..3\n    ok 1 - inside\nok 2 - around\n");
    run = add_run(r, "cpus=4 " NASTY, TEST_CRASH, EXIT_CRASHED, "panic: <" NASTY ">", "");
    report_fact(run, "bundle", "of the first try");
    report_fact(run, "bundle", "dead");
    run->log = xstrdup("Kernel panic <not syncing>\n" NASTY "\n");
    run->test.output = xstrdup("ok 1\n" NASTY "\n");
}

static char *written(const struct report *r, enum report_format format)
{
    char *text;
    size_t n;
    FILE *f = open_memstream(&text, &n);

    assert_int_equal(report_write(r, format, f), 0);
    fclose(f);
    return text;
}

/* What `command` makes of the text on its standard input. */
static char *judged(const char *command, const char *text)
{
    char path[] = "/tmp/bothy-report-XXXXXX", *line cleanup_free = NULL, *answer;
    int fd = mkstemp(path);
    size_t n = strlen(text);
    FILE *f;

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, n), n);
    close(fd);
    assert_true(asprintf(&line, "%s <%s 2>&1", command, path) > 0);
    answer = xcalloc(1, 65536);
    f = popen(line, "r");
    assert_non_null(f);
    n = fread(answer, 1, 65535, f);
    pclose(f);
    unlink(path);
    return answer;
}

static void human(void **state)
{
    char *text cleanup_free = NULL;
    struct report r;

    (void)state;
    make(&r);
    text = written(&r, REPORT_HUMAN);
    assert_string_equal(text, "pass     cpus=1  1.5 s, 4 tests: 2 passed, 1 skipped, 1 failed as expected\n"
                              "fail     cpus=2  1.5 s, 3 tests: 1 passed, 1 failed, 1 without a result\n"
                              "    fail  " NASTY "\n"
                              "        <said> & ?\n"
                              "        # ok 5 in a comment\n"
                              "    error  around: (results): planned 3, got 1 results\n"
                              "crash    cpus=4 " NASTY "  1.5 s: panic: <" NASTY ">\n"
                              "        ok 1\n"
                              "        " NASTY "\n"
                              "    the kernel's last words:\n"
                              "        Kernel panic <not syncing>\n"
                              "        " NASTY "\n"
                              "3 runs: 1 passed, 2 failed, 3.0 s\n");
    report_fini(&r);
}

static void same_tests(const struct list *a, const struct list *b)
{
    const struct list *l = b->next;

    list_for_each (k, a) {
        const struct test *x = container_of(k, struct test, link), *y = container_of(l, struct test, link);

        assert_ptr_not_equal(l, b);
        assert_string_equal(x->name, y->name);
        assert_int_equal(test_bad(x), test_bad(y));
        assert_int_equal(x->outcome == OUTCOME_SKIP, y->outcome == OUTCOME_SKIP);
        assert_int_equal(x->outcome == OUTCOME_XFAIL, y->outcome == OUTCOME_XFAIL);
        same_tests(&x->children, &y->children);
        l = l->next;
    }
    assert_ptr_equal(l, b);
}

static void tap_is_what_was_read(void **state)
{
    char *text cleanup_free = NULL;
    struct ktap *k = xcalloc(1, sizeof(*k));
    struct list tests, runs;
    struct report r;

    (void)state;
    make(&r);
    text = written(&r, REPORT_TAP);
    list_init(&tests);
    ktap_init(k, &tests);
    ktap_feed(k, text, strlen(text), 0);
    ktap_end(k);
    list_init(&runs);
    list_for_each (l, &r.runs)
        list_add_tail(&runs, &container_of(l, struct report_run, link)->test.link);
    same_tests(&runs, &tests);
    tests_destroy(&tests);
    free(k);
    report_fini(&r);
}

static void prove_reads_tap(void **state)
{
    char *text cleanup_free = NULL, *said cleanup_free = NULL;
    struct report r;

    (void)state;
    if (system("prove --version >/dev/null 2>&1"))
        skip();
    make(&r);
    text = written(&r, REPORT_TAP);
    said = judged("prove -v -e cat /dev/stdin", text);
    if (!strstr(said, "Failed 2/3 subtests") || strstr(said, "Parse errors"))
        fail_msg("prove said:\n%s", said);
    report_fini(&r);
}

/* Of "runs.1.name": members by name, elements by number. */
static json_t *at(json_t *o, const char *path)
{
    char *copy cleanup_free = xstrdup(path), *rest = NULL;

    for (char *word = strtok_r(copy, ".", &rest); word; word = strtok_r(NULL, ".", &rest)) {
        o = json_is_array(o) ? json_array_get(o, strtoul(word, NULL, 10)) : json_object_get(o, word);
        if (!o)
            fail_msg("no %s of %s", word, path);
    }
    return o;
}

static void json(void **state)
{
    static const struct {
        const char *path, *value;
    } strings[] = {
        {"outcome", "fail"},
        {"runs.0.name", "cpus=1"},
        {"runs.0.kernel", "/boot/vmlinuz & co"},
        {"runs.0.arguments", "console=\"a b\" <none>?"},
        {"runs.0.outcome", "pass"},
        {"runs.0.tests.1.tests.1.outcome", "xfail"},
        {"runs.0.tests.2.reason", "no such # thing"},
        {"runs.1.outcome", "fail"},
        {"runs.1.tests.0.name", NASTY},
        {"runs.1.tests.0.output", "<said> & ?\n# ok 5 in a comment\n"},
        {"runs.2.outcome", "crash"},
        {"runs.2.bundle", "dead"},
        {"runs.2.reason", "panic: <" NASTY ">"},
        {"runs.2.log", "Kernel panic <not syncing>\n" NASTY "\n"},
    };
    char *text cleanup_free = NULL;
    struct report r;
    json_t *o;

    (void)state;
    make(&r);
    text = written(&r, REPORT_JSON);
    o = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(o);
    for (size_t i = 0; i < array_len(strings); i++)
        assert_string_equal(json_string_value(at(o, strings[i].path)), strings[i].value);
    assert_int_equal(json_integer_value(at(o, "code")), EXIT_CRASHED);
    assert_int_equal(json_integer_value(at(o, "runs.1.counts.fail")), 1);
    assert_int_equal(json_integer_value(at(o, "runs.2.counts.error")), 1);
    assert_true(json_real_value(at(o, "runs.2.seconds")) == 1.5);
    json_decref(o);
    report_fini(&r);
}

static const char junit_reader[] = "python3 -c '\n"
                                   "import sys, xml.etree.ElementTree as E\n"
                                   "t = E.fromstring(sys.stdin.buffer.read())\n"
                                   "def show(e, depth):\n"
                                   "    words = [e.tag] + [k + \"=\" + repr(v) for k, v in e.attrib.items()]\n"
                                   "    if (e.text or \"\").strip():\n"
                                   "        words.append(repr(e.text))\n"
                                   "    print(\" \" * depth + \" \".join(words))\n"
                                   "    for c in e:\n"
                                   "        show(c, depth + 1)\n"
                                   "sys.stdout.reconfigure(encoding=\"utf-8\")\n"
                                   "show(t, 0)\n"
                                   "'";

static void junit(void **state)
{
    char *text cleanup_free = NULL, *said cleanup_free = NULL;
    struct report r;

    (void)state;
    make(&r);
    text = written(&r, REPORT_JUNIT);
    said = judged(junit_reader, text);
    assert_string_equal(
        said,
        "testsuites name='bothy test' tests='8' failures='1' errors='2' time='3.000'\n"
        " testsuite name='cpus=1' tests='4' failures='0' errors='0' skipped='2' time='1.500'\n"
        "  properties\n"
        "   property name='kernel' value='/boot/vmlinuz & co'\n"
        "   property name='arguments' value='console=\"a b\" <none>?'\n"
        "  testcase classname='cpus=1' name='fine' time='0.000'\n"
        "  testcase classname='cpus=1.deep' name='a' time='0.000'\n"
        "  testcase classname='cpus=1.deep' name='b' time='0.000'\n"
        "   skipped message='some day'\n"
        "  testcase classname='cpus=1' name='absent' time='0.000'\n"
        "   skipped message='no such # thing'\n"
        " testsuite name='cpus=2' tests='3' failures='1' errors='1' skipped='0' time='1.500'\n"
        "  properties\n"
        "   property name='kernel' value='/boot/vmlinuz & co'\n"
        "   property name='arguments' value='console=\"a b\" <none>?'\n"
        "  testcase classname='cpus=2' name='<a&b> \"quoted\" \\'x\\' ]]> \xc3\xa4 # SKIP no' time='0.000'\n"
        "   failure message='' type='fail' '<said> & ?\\n# ok 5 in a comment\\n'\n"
        "  testcase classname='cpus=2.around' name='inside' time='0.000'\n"
        "  testcase classname='cpus=2.around' name='(results)' time='0.000'\n"
        "   error message='planned 3, got 1 results' type='error'\n"
        " testsuite name='cpus=4 <a&b> \"quoted\" \\'x\\' ]]> \xc3\xa4 # SKIP no' tests='1' failures='0' errors='1' "
        "skipped='0' time='1.500'\n"
        "  properties\n"
        "   property name='kernel' value='/boot/vmlinuz & co'\n"
        "   property name='arguments' value='console=\"a b\" <none>?'\n"
        "   property name='bundle' value='dead'\n"
        "  testcase classname='cpus=4 <a&b> \"quoted\" \\'x\\' ]]> \xc3\xa4 # SKIP no' name='command' time='1.500'\n"
        "   error message='panic: <<a&b> \"quoted\" \\'x\\' ]]> \xc3\xa4 # SKIP no>' type='crash' 'ok 1\\n<a&b> "
        "\"quoted\" \\'x\\' ]]> \xc3\xa4 # SKIP no\\n'\n"
        "  system-err 'Kernel panic <not syncing>\\n<a&b> \"quoted\" \\'x\\' ]]> \xc3\xa4 # SKIP no\\n'\n");
    report_fini(&r);
}

static struct report_run *outcome_of(struct report *r, enum test_outcome outcome, int code, const char *tap)
{
    return add_run(r, "run", outcome, code, "", tap);
}

static void exit_codes(void **state)
{
    struct report r;

    (void)state;
    report_init(&r);
    outcome_of(&r, TEST_FAIL, 42, "");
    assert_int_equal(report_code(&r), 42); /* the command's own */
    outcome_of(&r, TEST_PASS, 0, "");
    assert_int_equal(report_code(&r), 1);
    outcome_of(&r, TEST_FAIL, EXIT_CRASHED, ""); /* so the command says, not we */
    assert_int_equal(report_code(&r), 1);
    outcome_of(&r, TEST_TIMEOUT, EXIT_TIMEOUT, "");
    assert_int_equal(report_code(&r), EXIT_TIMEOUT);
    outcome_of(&r, TEST_CRASH, EXIT_CRASHED, "");
    assert_int_equal(report_code(&r), EXIT_CRASHED);
    outcome_of(&r, TEST_ERROR, EXIT_BOTHY, "");
    assert_int_equal(report_code(&r), EXIT_BOTHY);
    report_fini(&r);

    report_init(&r);
    outcome_of(&r, TEST_PASS, 0, "1..1\nok 1\n");
    assert_int_equal(report_code(&r), 0);
    report_fini(&r);

    report_init(&r);
    outcome_of(&r, TEST_PASS, 0, "1..1\nnot ok 1\n");
    assert_int_equal(report_code(&r), 1);
    report_fini(&r);
}

static void a_full_disk_is_told(void **state)
{
    FILE *f = fopen("/dev/full", "w");
    struct report r;

    (void)state;
    make(&r);
    assert_non_null(f);
    assert_int_equal(report_write(&r, REPORT_JUNIT, f), -ENOSPC);
    fclose(f);
    report_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(human),
        cmocka_unit_test(tap_is_what_was_read),
        cmocka_unit_test(prove_reads_tap),
        cmocka_unit_test(json),
        cmocka_unit_test(junit),
        cmocka_unit_test(exit_codes),
        cmocka_unit_test(a_full_disk_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
