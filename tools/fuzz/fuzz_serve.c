/* Lines for `bothy test --serve`: what is accepted is within the named limits, what is not has a reason. */
#include "tools/fuzz/fuzz.h"
#include "vmm/cli/serve_request.h"

static void parse(const char *line, size_t n)
{
    struct err err = {.msg = ""};
    struct serve_request q;
    unsigned words = 0;

    if (serve_request_parse(line, n, &q, &err) < 0) {
        assert(err.code && err.msg[0]);
        serve_request_clear(&q);
        return;
    }
    assert(q.verb < SERVE_VERBS && serve_verb_name(q.verb));
    assert(q.timeout <= SERVE_SECONDS_MAX && q.count <= SERVE_GUESTS_MAX);
    assert(q.verb == SERVE_CREATE ? q.count > 0 : q.vm > 0);
    assert(!q.argv == (q.verb != SERVE_RUN) && (!q.machine || q.verb == SERVE_CREATE));
    assert((q.from && q.to) == (q.verb == SERVE_PUT || q.verb == SERVE_GET));
    for (char **w = q.argv; w && *w; w++)
        words++;
    assert(words <= SERVE_WORDS_MAX && (words || !q.argv));
    serve_request_clear(&q);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *line = (const char *)data, *end = line + size, *next;

    while (line < end && (next = memchr(line, '\n', (size_t)(end - line)))) {
        parse(line, (size_t)(next - line));
        line = next + 1;
    }
    parse(line, (size_t)(end - line));
    return 0;
}
