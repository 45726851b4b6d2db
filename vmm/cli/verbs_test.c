/* The real verbs: tables without contradictions. */
#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"
#include "vmm/cli/cli.h"

static void names_and_letters_are_unique_and_free(void **s)
{
    (void)s;
    for (const struct cli_verb *const *v = cli_verbs; *v; v++) {
        const struct cli_verb *found;

        assert_int_equal(cli_verb_find((*v)->name, &found, NULL), 0);
        assert_ptr_equal(found, *v);
        for (const struct opt *o = (*v)->opts; o && o->name; o++) {
            assert_ptr_equal(opts_find((*v)->opts, o->name), o);
            assert_string_not_equal(o->name, "help");
            assert_int_not_equal(o->letter, 'h');
            for (const struct opt *p = (*v)->opts; p != o; p++)
                assert_false(o->letter && p->letter == o->letter);
        }
    }
}

/* A command line has no notion of a required option: the verb says what it lacks, and how to give it. */
static void every_option_has_help_and_a_value_to_begin_with(void **s)
{
    (void)s;
    for (const struct cli_verb *const *v = cli_verbs; *v; v++)
        for (const struct opt *o = (*v)->opts; o && o->name; o++) {
            assert_non_null(o->help);
            assert_true(o->dflt || o->kind == OPT_STRING || o->kind == OPT_LIST || o->kind == OPT_BOOL);
        }
}

static void defaults_are_valid(void **s)
{
    (void)s;
    for (const struct cli_verb *const *v = cli_verbs; *v; v++) {
        cleanup_free void *obj = xcalloc(1, (*v)->size);

        if ((*v)->opts) {
            opts_default((*v)->opts, obj);
            opts_clear((*v)->opts, obj);
        }
    }
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
