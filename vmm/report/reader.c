#include "vmm/report/reader.h"

#include <inttypes.h>
#include <stdlib.h>

#include "vmm/base/cleanup.h"
#include "vmm/report/ktap.h"

enum { TAIL_MAX = 64 << 10 };

/* The last bytes of a stream. */
struct tail {
    uint64_t n; /* that there ever were */
    char buf[TAIL_MAX];
};

struct reader {
    struct ktap out, log; /* standard error has no results */
    struct list out_tests, log_tests;
    struct tail said, kernel;
};

struct reader *reader_create(void)
{
    struct reader *r = xcalloc(1, sizeof(*r));

    list_init(&r->out_tests);
    list_init(&r->log_tests);
    ktap_init(&r->out, &r->out_tests);
    ktap_init(&r->log, &r->log_tests);
    return r;
}

void reader_destroy(struct reader *r)
{
    if (!r)
        return;
    ktap_end(&r->out);
    ktap_end(&r->log);
    tests_destroy(&r->out_tests);
    tests_destroy(&r->log_tests);
    free(r);
}

static void tail_add(struct tail *t, const char *p, size_t n)
{
    size_t skip = n > TAIL_MAX ? n - TAIL_MAX : 0;

    t->n += skip;
    for (size_t i = skip; i < n; i++)
        t->buf[t->n++ % TAIL_MAX] = p[i];
}

/* As a clean text of whole lines, the caller's; NULL: nothing was said. */
static char *tail_take(const struct tail *t)
{
    uint64_t at = t->n > TAIL_MAX ? t->n - TAIL_MAX : 0, start = at;
    char *text, *to;
    int head;

    if (!t->n)
        return NULL;
    while (start && at < t->n && t->buf[at++ % TAIL_MAX] != '\n') /* the cut line */
        ;
    text = xcalloc(1, TAIL_MAX + 64);
    head = start ? sprintf(text, "… %" PRIu64 " bytes before\n", at) : 0;
    for (to = text + head; at < t->n; at++)
        if (t->buf[at % TAIL_MAX] != '\r')
            *to++ = t->buf[at % TAIL_MAX];
    *to = 0;
    text[head + (int)text_clean(text + head, (size_t)(to - text) - (size_t)head)] = 0;
    return text;
}

void reader_feed(struct reader *r, enum test_stream s, const void *bytes, size_t n, uint64_t now_ns)
{
    tail_add(s == TEST_LOG ? &r->kernel : &r->said, bytes, n);
    if (s == TEST_OUT)
        ktap_feed(&r->out, bytes, n, now_ns);
    else if (s == TEST_LOG)
        ktap_feed(&r->log, bytes, n, now_ns);
}

void reader_settle(struct reader *r, struct report_run *run)
{
    ktap_end(&r->log);
    ktap_end(&r->out);
    tests_destroy(&run->test.children);
    list_move_all(&run->test.children, &r->log_tests); /* what the kernel tested came first */
    list_move_all(&run->test.children, &r->out_tests);
    report_settle(run);
    free(run->test.output);
    free(run->log);
    run->test.output = outcome_bad(run->test.outcome) ? tail_take(&r->said) : NULL;
    run->log = run->test.outcome == OUTCOME_ERROR ? tail_take(&r->kernel) : NULL;
}
