#include "vmm/report/report.h"

#include <stdlib.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/exit_code.h"
#include "vmm/report/text.h"

const char *const report_format_words[] = {
    [REPORT_HUMAN] = "human", [REPORT_TAP] = "tap", [REPORT_JSON] = "json", [REPORT_JUNIT] = "junit", NULL,
};

void report_init(struct report *r)
{
    *r = (struct report){0};
    list_init(&r->runs);
}

void report_fini(struct report *r)
{
    struct list *l;

    while ((l = list_pop(&r->runs))) {
        struct report_run *run = container_of(l, struct report_run, link);

        for (unsigned i = 0; i < REPORT_FACTS; i++)
            free(run->facts[i].value);
        free(run->log);
        test_clear(&run->test);
        free(run);
    }
}

/* One clean line. */
static char *line_of(const char *s)
{
    char *copy = xstrdup(s);

    copy[text_clean(copy, strlen(copy))] = 0;
    for (char *p = copy; (p = strpbrk(p, "\n\t"));)
        *p = ' ';
    return copy;
}

struct report_run *report_add(struct report *r, const char *name)
{
    struct report_run *run = xcalloc(1, sizeof(*run));

    list_init(&run->test.children);
    run->test.name = line_of(name);
    list_add_tail(&r->runs, &run->link);
    return run;
}

void report_fact(struct report_run *run, const char *name, const char *value)
{
    unsigned i = 0;

    while (run->facts[i].name && strcmp(run->facts[i].name, name))
        i++;
    assert(i + 1 < REPORT_FACTS);
    free(run->facts[i].value);
    run->facts[i] = (struct report_fact){.name = name, .value = line_of(value)};
}

void report_settle(struct report_run *run)
{
    const struct test_result *res = &run->result;

    run->test.outcome = res->outcome == TEST_PASS   ? OUTCOME_PASS
                        : res->outcome == TEST_FAIL ? OUTCOME_FAIL
                                                    : OUTCOME_ERROR;
    run->test.ns = res->all_ns;
    free(run->test.reason);
    run->test.reason = res->why[0] ? line_of(res->why) : NULL;
}

static int run_code(const struct report_run *run)
{
    return run->result.code ? run->result.code : test_bad(&run->test) ? EXIT_FAILURE : EXIT_ORDERLY;
}

int report_code(const struct report *r)
{
    static const int gravest_first[] = {EXIT_INTERRUPTED, EXIT_BOTHY, EXIT_CRASHED, EXIT_TIMEOUT};
    bool any = false;

    if (!list_empty(&r->runs) && r->runs.next == r->runs.prev)
        return run_code(container_of(r->runs.next, struct report_run, link));
    for (size_t i = 0; i < array_len(gravest_first); i++) {
        list_for_each (l, &r->runs) {
            const struct report_run *run = container_of(l, struct report_run, link);

            any |= test_bad(&run->test);
            if (run->result.outcome != TEST_FAIL && run->result.code == gravest_first[i])
                return gravest_first[i];
        }
    }
    return any ? EXIT_FAILURE : EXIT_ORDERLY;
}

int report_write(const struct report *r, enum report_format format, FILE *to)
{
    static void (*const writers[])(const struct report *, FILE *) = {
        [REPORT_HUMAN] = report_write_human,
        [REPORT_TAP] = report_write_tap,
        [REPORT_JSON] = report_write_json,
        [REPORT_JUNIT] = report_write_junit,
    };

    errno = 0;
    writers[format](r, to);
    if (fflush(to) || ferror(to))
        return errno ? -errno : -EIO;
    return 0;
}
