/* The report for people, and the numbers in it. */
#include "vmm/base/clock.h"
#include "vmm/report/report.h"
#include "vmm/report/text.h"

enum { OUTPUT_LINES = 40, LOG_LINES = 20 }; /* that are shown; the other formats have more */

void report_counts_text(const unsigned counts[OUTCOME_MAX], char *buf, size_t n)
{
    static const char *const words[OUTCOME_MAX] = {
        [OUTCOME_PASS] = "passed", [OUTCOME_SKIP] = "skipped",           [OUTCOME_XFAIL] = "failed as expected",
        [OUTCOME_FAIL] = "failed", [OUTCOME_ERROR] = "without a result",
    };
    unsigned total = 0;
    size_t len;

    for (unsigned i = 0; i < OUTCOME_MAX; i++)
        total += counts[i];
    len = (size_t)snprintf(buf, n, "%u test%s", total, total == 1 ? "" : "s");
    for (unsigned i = 0, first = 1; i < OUTCOME_MAX; i++) {
        if (!counts[i] || len >= n)
            continue;
        len += (size_t)snprintf(buf + len, n - len, "%s%u %s", first ? ": " : ", ", counts[i], words[i]);
        first = 0;
    }
}

static void write_failures(FILE *to, const struct list *tests, const char *path, bool output)
{
    list_for_each (l, tests) {
        const struct test *t = container_of(l, struct test, link);
        char here[1024];

        snprintf(here, sizeof(here), "%s%s%s", path, path[0] ? ": " : "", t->name);
        if (outcome_bad(t->outcome) && test_counts(t)) {
            fprintf(to, "    %s  %s%s%s\n", outcome_words[t->outcome], here, t->reason ? ": " : "",
                    t->reason ? t->reason : "");
            text_write_lines(to, 8, "", output ? t->output : NULL);
        }
        write_failures(to, &t->children, here, output);
    }
}

void report_write_failures(const struct report_run *run, bool output, FILE *to)
{
    write_failures(to, &run->test.children, "", output);
}

const char *report_word(const struct report_run *run)
{
    return run->result.outcome == TEST_PASS && test_bad(&run->test) ? "fail" : test_outcome_words[run->result.outcome];
}

void report_write_line(const struct report_run *run, FILE *to)
{
    const struct test *t = &run->test;
    unsigned counts[OUTCOME_MAX] = {0};
    char text[128];

    fprintf(to, "%-7s  %s  %.1f s", report_word(run), t->name, (double)t->ns / NS_PER_SEC);
    if (run->tries > 1)
        fprintf(to, ", try %u", run->tries);
    if (!list_empty(&t->children)) {
        test_count(t, counts);
        report_counts_text(counts, text, sizeof(text));
        fprintf(to, ", %s", text);
    }
    if (t->reason)
        fprintf(to, ": %s", t->reason);
    putc('\n', to);
}

/* Where the last `lines` lines begin. */
static const char *last_lines(const char *text, unsigned lines)
{
    const char *at = text + strlen(text);

    for (unsigned n = 0; at > text; at--)
        if (at[-1] == '\n' && n++ == lines)
            break;
    return at;
}

void report_write_log(const struct report_run *run, FILE *to)
{
    if (!run->log)
        return;
    fputs("    the kernel's last words:\n", to);
    text_write_lines(to, 8, "", last_lines(run->log, LOG_LINES));
}

void report_write_run(const struct report_run *run, FILE *to)
{
    report_write_line(run, to);
    report_write_failures(run, true, to);
    if (!outcome_bad(run->test.outcome))
        return;
    text_write_lines(to, 8, "", run->test.output ? last_lines(run->test.output, OUTPUT_LINES) : NULL);
    report_write_log(run, to);
}

void report_write_sum(const struct report *r, FILE *to)
{
    unsigned runs = 0, bad = 0;

    list_for_each (l, &r->runs) {
        bad += test_bad(&container_of(l, struct report_run, link)->test);
        runs++;
    }
    if (runs > 1)
        fprintf(to, "%u runs: %u passed, %u failed, %.1f s\n", runs, runs - bad, bad, (double)r->ns / NS_PER_SEC);
}

void report_write_human(const struct report *r, FILE *to)
{
    list_for_each (l, &r->runs)
        report_write_run(container_of(l, struct report_run, link), to);
    report_write_sum(r, to);
}
