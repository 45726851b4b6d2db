#include "vmm/report/result.h"

#include <stdlib.h>

const char *const outcome_words[] = {
    [OUTCOME_PASS] = "pass", [OUTCOME_SKIP] = "skip",   [OUTCOME_XFAIL] = "xfail",
    [OUTCOME_FAIL] = "fail", [OUTCOME_ERROR] = "error",
};

static void destroy_all(struct list *tests)
{
    struct list *l;

    while ((l = list_pop(tests)))
        test_destroy(container_of(l, struct test, link));
}

void test_destroy(struct test *t)
{
    destroy_all(&t->children);
    free(t->name);
    free(t->reason);
    free(t->output);
    free(t);
}

void tests_init(struct tests *t)
{
    list_init(&t->list);
}

void tests_fini(struct tests *t)
{
    destroy_all(&t->list);
}

static bool any_bad(const struct list *tests)
{
    list_for_each (l, tests)
        if (test_bad(container_of(l, struct test, link)))
            return true;
    return false;
}

bool test_bad(const struct test *t)
{
    return outcome_bad(t->outcome) || any_bad(&t->children);
}

bool test_counts(const struct test *t)
{
    return list_empty(&t->children) || (outcome_bad(t->outcome) && !any_bad(&t->children));
}

static void count(const struct list *tests, unsigned ret[OUTCOME_MAX])
{
    list_for_each (l, tests) {
        const struct test *t = container_of(l, struct test, link);

        ret[t->outcome] += test_counts(t);
        count(&t->children, ret);
    }
}

void tests_count(const struct tests *t, unsigned ret[OUTCOME_MAX])
{
    count(&t->list, ret);
}
