/*
 * What tests came to: a tree for each run, as KTAP nests them.  Texts are fit for every output format (text.h).
 */
#pragma once
#include "vmm/base/list.h"

enum outcome {
    OUTCOME_PASS,
    OUTCOME_SKIP,
    OUTCOME_XFAIL, /* failed, as was expected */
    OUTCOME_FAIL,
    OUTCOME_ERROR, /* there is no result: missing, or the plan was not kept */
    OUTCOME_MAX,
};
extern const char *const outcome_words[OUTCOME_MAX];

struct test {
    struct list link;
    struct list children; /* of struct test */
    char *name;           /* one line */
    char *reason;         /* of a skip, a failure …: one line; NULL: none is known */
    char *output;         /* what was said about it; kept of failures; NULL: nothing */
    enum outcome outcome;
    uint64_t ns; /* how long it took */
};

/* With all below them; the list is empty then. */
void tests_destroy(struct list *tests);
void test_destroy(struct test *t);
void test_clear(struct test *t); /* not itself: for one that is embedded */

static inline bool outcome_bad(enum outcome o)
{
    return o == OUTCOME_FAIL || o == OUTCOME_ERROR;
}
/* Has it, or any below it, failed? */
bool test_bad(const struct test *t);
/* Is it counted?  A test with children is only when it failed and none of them did. */
bool test_counts(const struct test *t);
/* Adds it and those below it to `ret`, by outcome. */
void test_count(const struct test *t, unsigned ret[OUTCOME_MAX]);
