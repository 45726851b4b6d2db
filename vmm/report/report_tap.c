/* The report as TAP 13 (testanything.org) with subtests as TAP 14 has them, which older readers such as prove skip. */
#include "vmm/report/report.h"
#include "vmm/report/text.h"

/* '#' would begin a directive. */
static void write_text(FILE *to, const char *s)
{
    for (; *s; s++) {
        if (*s == '#')
            putc('\\', to);
        putc(*s, to);
    }
}

static void write_test(FILE *to, const struct test *t, unsigned indent, unsigned number);

static void write_tests(FILE *to, const struct list *tests, unsigned indent)
{
    unsigned n = 0, number = 0;

    list_for_each (l, tests)
        n++;
    fprintf(to, "%*s1..%u\n", (int)indent, "", n);
    list_for_each (l, tests)
        write_test(to, container_of(l, struct test, link), indent, ++number);
}

static void write_test(FILE *to, const struct test *t, unsigned indent, unsigned number)
{
    static const char *const directives[OUTCOME_MAX] = {
        [OUTCOME_SKIP] = "SKIP", [OUTCOME_XFAIL] = "TODO", [OUTCOME_ERROR] = "ERROR"};
    const char *directive = directives[t->outcome];

    if (!list_empty(&t->children)) {
        fprintf(to, "%*s# Subtest: %s\n", (int)indent, "", t->name);
        write_tests(to, &t->children, indent + 4);
    }
    fprintf(to, "%*s%s %u - ", (int)indent, "", test_bad(t) || t->outcome == OUTCOME_XFAIL ? "not ok" : "ok", number);
    write_text(to, t->name);
    if (directive)
        fprintf(to, " # %s", directive);
    if (t->reason) {
        fputs(directive ? " " : " # ", to);
        write_text(to, t->reason);
    }
    putc('\n', to);
    text_write_lines(to, indent, "# ", t->output);
}

void report_write_tap(const struct report *r, FILE *to)
{
    unsigned n = 0, number = 0;

    list_for_each (l, &r->runs)
        n++;
    fprintf(to, "TAP version 13\n1..%u\n", n);
    list_for_each (l, &r->runs) {
        const struct report_run *run = container_of(l, struct report_run, link);

        write_test(to, &run->test, 0, ++number);
        for (unsigned i = 0; run->facts[i].name; i++)
            fprintf(to, "# %s: %s\n", run->facts[i].name, run->facts[i].value);
        text_write_lines(to, 0, "# ", run->log);
    }
}
