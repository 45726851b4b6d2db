#include "devices/net/slirp.h"

#include "vmm/base/test.h"

static void libslirp_is_there_and_says_its_version(void **state)
{
    const struct slirp_lib *lib, *again;
    struct err err;

    (void)state;
    assert_int_equal(slirp_load(&lib, &err), 0);
    assert_int_equal(slirp_load(&again, &err), 0);
    assert_ptr_equal(lib, again);
    assert_false(slirp_has_hole(lib->version_string(), &(struct slirp_hole){"4.0.0", ""}));
}

static void versions_are_compared_by_number(void **state)
{
    const struct slirp_hole hole = {"4.9.2", ""};

    (void)state;
    assert_true(slirp_has_hole("4.7.0", &hole));
    assert_true(slirp_has_hole("4.9.1", &hole));
    assert_false(slirp_has_hole("4.9.2", &hole));
    assert_false(slirp_has_hole("4.10.0", &hole));
    assert_false(slirp_has_hole("5.0.0-git", &hole));
    assert_true(slirp_has_hole("unknown", &hole));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(libslirp_is_there_and_says_its_version),
        cmocka_unit_test(versions_are_compared_by_number),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
