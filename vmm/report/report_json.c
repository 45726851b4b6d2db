/* The report as JSON. */
#include <jansson.h>

#include "vmm/base/clock.h"
#include "vmm/report/report.h"

static json_t *seconds(uint64_t ns)
{
    return json_real((double)(ns / 1000) / 1e6);
}

static json_t *counts_of(const struct test *t)
{
    unsigned counts[OUTCOME_MAX] = {0};
    json_t *o = json_object();

    test_count(t, counts);
    for (unsigned i = 0; i < OUTCOME_MAX; i++)
        json_object_set_new(o, outcome_words[i], json_integer(counts[i]));
    return o;
}

static void set_text(json_t *o, const char *key, const char *text)
{
    if (text)
        json_object_set_new(o, key, json_string(text));
}

static json_t *tests_of(const struct list *tests)
{
    json_t *a = json_array();

    list_for_each (l, tests) {
        const struct test *t = container_of(l, struct test, link);
        json_t *o = json_object();

        set_text(o, "name", t->name);
        set_text(o, "outcome", outcome_words[t->outcome]);
        json_object_set_new(o, "seconds", seconds(t->ns));
        set_text(o, "reason", t->reason);
        set_text(o, "output", t->output);
        if (!list_empty(&t->children))
            json_object_set_new(o, "tests", tests_of(&t->children));
        json_array_append_new(a, o);
    }
    return a;
}

static json_t *run_of(const struct report_run *run)
{
    const struct test *t = &run->test;
    json_t *o = json_object();

    set_text(o, "name", t->name);
    for (unsigned i = 0; run->facts[i].name; i++)
        set_text(o, run->facts[i].name, run->facts[i].value);
    set_text(o, "outcome", report_word(run));
    json_object_set_new(o, "code", json_integer(run->result.code));
    if (run->result.signal)
        json_object_set_new(o, "signal", json_integer(run->result.signal));
    set_text(o, "reason", t->reason);
    json_object_set_new(o, "tries", json_integer(run->tries));
    json_object_set_new(o, "seconds", seconds(run->result.all_ns));
    json_object_set_new(o, "boot_seconds", seconds(run->result.boot_ns));
    json_object_set_new(o, "command_seconds", seconds(run->result.command_ns));
    set_text(o, "output", t->output);
    set_text(o, "log", run->log);
    json_object_set_new(o, "counts", counts_of(t));
    json_object_set_new(o, "tests", tests_of(&t->children));
    return o;
}

void report_write_json(const struct report *r, FILE *to)
{
    json_t *o = json_object(), *runs = json_array();

    set_text(o, "outcome", report_code(r) ? "fail" : "pass");
    json_object_set_new(o, "code", json_integer(report_code(r)));
    json_object_set_new(o, "seconds", seconds(r->ns));
    list_for_each (l, &r->runs)
        json_array_append_new(runs, run_of(container_of(l, struct report_run, link)));
    json_object_set_new(o, "runs", runs);
    json_dumpf(o, to, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    putc('\n', to);
    json_decref(o);
}
