#include "vmm/report/result.h"

#include <stdlib.h>

const char *const outcome_words[] = {
    [OUTCOME_PASS] = "pass", [OUTCOME_SKIP] = "skip",   [OUTCOME_XFAIL] = "xfail",
    [OUTCOME_FAIL] = "fail", [OUTCOME_ERROR] = "error",
};

void tests_destroy(struct list *tests)
{
    struct list *l;

    while ((l = list_pop(tests)))
        test_destroy(container_of(l, struct test, link));
}

void test_clear(struct test *t)
{
    tests_destroy(&t->children);
    free(t->name);
    free(t->reason);
    free(t->output);
}

void test_destroy(struct test *t)
{
    test_clear(t);
    free(t);
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

void test_count(const struct test *t, unsigned ret[OUTCOME_MAX])
{
    ret[t->outcome] += test_counts(t);
    list_for_each (l, &t->children)
        test_count(container_of(l, struct test, link), ret);
}
