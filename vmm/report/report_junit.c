/*
 * The report as JUnit's XML, in the form that Jenkins, GitLab and others read: a suite a run, a case for each test that
 * counts.  A test's texts hold only characters that XML allows (text.h).
 */
#include <stdlib.h>

#include "vmm/base/clock.h"
#include "vmm/report/report.h"

/* For attributes as for contents. */
static void write_escaped(FILE *to, const char *s)
{
    static const struct {
        char c;
        const char *entity;
    } entities[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&quot;"}, {'\t', "&#9;"}};

    for (; *s; s++) {
        const char *entity = NULL;

        for (size_t i = 0; i < array_len(entities); i++)
            if (entities[i].c == *s)
                entity = entities[i].entity;
        if (entity)
            fputs(entity, to);
        else
            putc(*s, to);
    }
}

static void write_attribute(FILE *to, const char *name, const char *value)
{
    fprintf(to, " %s=\"", name);
    write_escaped(to, value);
    putc('"', to);
}

static void write_seconds(FILE *to, uint64_t ns)
{
    fprintf(to, " time=\"%.3f\"", (double)ns / NS_PER_SEC);
}

/* `type` NULL: there is no such attribute. */
static void write_outcome(FILE *to, const char *element, const char *message, const char *type, const char *text)
{
    fprintf(to, "      <%s", element);
    write_attribute(to, "message", message);
    if (type)
        write_attribute(to, "type", type);
    if (!text) {
        fputs("/>\n", to);
        return;
    }
    putc('>', to);
    write_escaped(to, text);
    fprintf(to, "</%s>\n", element);
}

/* `type`: what kind of failure it is, if it is one. */
static void write_case(FILE *to, const struct test *t, const char *class, const char *name, const char *type)
{
    const char *reason = t->reason ? t->reason : "";

    fputs("    <testcase", to);
    write_attribute(to, "classname", class);
    write_attribute(to, "name", name);
    write_seconds(to, t->ns);
    if (t->outcome == OUTCOME_PASS) {
        fputs("/>\n", to);
        return;
    }
    fputs(">\n", to);
    switch (t->outcome) {
    case OUTCOME_PASS:
    case OUTCOME_MAX:
        break;
    case OUTCOME_SKIP:
        write_outcome(to, "skipped", reason, NULL, NULL);
        break;
    case OUTCOME_XFAIL:
        write_outcome(to, "skipped", t->reason ? t->reason : "failed as expected", NULL, NULL);
        break;
    case OUTCOME_FAIL:
        write_outcome(to, "failure", reason, type, t->output);
        break;
    case OUTCOME_ERROR:
        write_outcome(to, "error", reason, type, t->output);
        break;
    }
    fputs("    </testcase>\n", to);
}

static void write_cases(FILE *to, const struct list *tests, const char *class)
{
    list_for_each (l, tests) {
        const struct test *t = container_of(l, struct test, link);
        char *below;

        if (test_counts(t))
            write_case(to, t, class, t->name, outcome_words[t->outcome]);
        if (list_empty(&t->children))
            continue;
        if (asprintf(&below, "%s.%s", class, t->name) < 0)
            abort();
        write_cases(to, &t->children, below);
        free(below);
    }
}

static void write_counts(FILE *to, const unsigned counts[OUTCOME_MAX])
{
    unsigned total = 0;

    for (unsigned i = 0; i < OUTCOME_MAX; i++)
        total += counts[i];
    fprintf(to, " tests=\"%u\" failures=\"%u\" errors=\"%u\"", total, counts[OUTCOME_FAIL], counts[OUTCOME_ERROR]);
}

static void write_run(FILE *to, const struct report_run *run)
{
    unsigned counts[OUTCOME_MAX] = {0};

    test_count(&run->test, counts);
    fputs("  <testsuite", to);
    write_attribute(to, "name", run->test.name);
    write_counts(to, counts);
    fprintf(to, " skipped=\"%u\"", counts[OUTCOME_SKIP] + counts[OUTCOME_XFAIL]); /* of suites only, say schemas */
    write_seconds(to, run->test.ns);
    fputs(">\n    <properties>\n", to);
    for (unsigned i = 0; run->facts[i].name; i++) {
        fputs("      <property", to);
        write_attribute(to, "name", run->facts[i].name);
        write_attribute(to, "value", run->facts[i].value);
        fputs("/>\n", to);
    }
    fputs("    </properties>\n", to);
    if (test_counts(&run->test))
        write_case(to, &run->test, run->test.name, "command", test_outcome_words[run->result.outcome]);
    write_cases(to, &run->test.children, run->test.name);
    if (run->log) {
        fputs("    <system-err>", to);
        write_escaped(to, run->log);
        fputs("</system-err>\n", to);
    }
    fputs("  </testsuite>\n", to);
}

void report_write_junit(const struct report *r, FILE *to)
{
    unsigned counts[OUTCOME_MAX] = {0};

    list_for_each (l, &r->runs)
        test_count(&container_of(l, struct report_run, link)->test, counts);
    fputs("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"bothy test\"", to);
    write_counts(to, counts);
    write_seconds(to, r->ns);
    fputs(">\n", to);
    list_for_each (l, &r->runs)
        write_run(to, container_of(l, struct report_run, link));
    fputs("</testsuites>\n", to);
}
