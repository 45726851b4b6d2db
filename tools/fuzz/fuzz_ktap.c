/* A command's output or a kernel's log, in parts: whatever it is, every text that results is fit to print. */
#include "tools/fuzz/fuzz.h"
#include "vmm/base/cleanup.h"
#include "vmm/report/ktap.h"

static void check_text(const char *s, bool line)
{
    cleanup_free char *copy = xstrdup(s);
    size_t n = strlen(s);

    assert(text_clean(copy, n) == n && !memcmp(s, copy, n));
    assert(!line || !strchr(s, '\n'));
}

static unsigned check_all(const struct list *tests)
{
    unsigned n = 0;

    list_for_each (l, tests) {
        const struct test *t = container_of(l, struct test, link);

        assert(t->outcome < OUTCOME_MAX);
        check_text(t->name, true);
        check_text(t->reason ? t->reason : "", true);
        check_text(t->output ? t->output : "", false);
        n += 1 + check_all(&t->children);
    }
    return n;
}

/* The first byte is how long the parts are. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct ktap k;
    struct list t;
    size_t step;

    if (!size)
        return 0;
    step = data[0] ? data[0] : size;
    list_init(&t);
    ktap_init(&k, &t);
    for (size_t i = 1; i < size; i += step)
        ktap_feed(&k, data + i, min_u64(step, size - i), i);
    ktap_end(&k);
    assert(check_all(&t) <= KTAP_TESTS + 1);
    tests_destroy(&t);
    return 0;
}
