/* The real verbs: tables without contradictions. */
#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"
#include "vmm/cli/cli.h"

/* Calls f() with every verb, also those of groups. */
static void for_each(const struct cli_verb *const *v, void (*f)(const struct cli_verb *))
{
    for (; *v; v++) {
        f(*v);
        if ((*v)->verbs)
            for_each((*v)->verbs, f);
    }
}

static void names_and_letters_of(const struct cli_verb *v)
{
    cleanup_free char *name = xstrdup(v->name);
    char *blank = strchr(name, ' '), *words[] = {name, blank ? blank + 1 : NULL, NULL}, *const * rest;
    const struct cli_verb *found;

    if (blank)
        *blank = 0;
    assert_int_equal(cli_verb_find(words, &found, &rest, NULL), 0);
    assert_ptr_equal(found, v);
    assert_null(*rest);
    assert_true(v->run || v->verbs);
    for (const struct opt *o = v->opts; o && o->name; o++) {
        assert_ptr_equal(opts_find(v->opts, o->name), o);
        assert_string_not_equal(o->name, "help");
        assert_int_not_equal(o->letter, 'h');
        for (const struct opt *p = v->opts; p != o; p++)
            assert_false(o->letter && p->letter == o->letter);
    }
}

static void names_and_letters_are_unique_and_free(void **s)
{
    (void)s;
    for_each(cli_verbs, names_and_letters_of);
}

static void help_and_value_of(const struct cli_verb *v)
{
    for (const struct opt *o = v->opts; o && o->name; o++) {
        assert_non_null(o->help);
        assert_true(o->dflt || o->kind == OPT_STRING || o->kind == OPT_LIST || o->kind == OPT_BOOL);
    }
}

/* A command line has no notion of a required option: the verb says what it lacks, and how to give it. */
static void every_option_has_help_and_a_value_to_begin_with(void **s)
{
    (void)s;
    for_each(cli_verbs, help_and_value_of);
}

static void defaults_of(const struct cli_verb *v)
{
    cleanup_free void *obj = xcalloc(1, v->size);

    if (v->opts) {
        opts_default(v->opts, obj);
        opts_clear(v->opts, obj);
    }
}

static void defaults_are_valid(void **s)
{
    (void)s;
    for_each(cli_verbs, defaults_of);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_letters_are_unique_and_free),
        cmocka_unit_test(every_option_has_help_and_a_value_to_begin_with),
        cmocka_unit_test(defaults_are_valid),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
