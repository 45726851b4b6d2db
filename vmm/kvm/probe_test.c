#include "vmm/kvm/probe.h"

#include "vmm/base/test.h"

static void kernels_run_where_levels_are_alike(void **s)
{
    struct probe p = {.level0 = 1000000000, .level3 = 3000000000};
    char text[256];

    (void)s;
    assert_int_equal(probe_judge(&p), PROBE_KERNELS);
    probe_explain(&p, text, sizeof(text));
    assert_string_equal(text, "this host's KVM runs stock kernels");
}

static void a_slow_level_0_is_emulated(void **s)
{
    struct probe p = {.level0 = 450000, .level3 = 3000000000};
    char text[256];

    (void)s;
    assert_int_equal(probe_judge(&p), PROBE_SLOW);
    probe_explain(&p, text, sizeof(text));
    assert_non_null(strstr(text, "0.45 million instructions"));
    assert_non_null(strstr(text, "are of no use"));
}

static void what_is_missing_is_named(void **s)
{
    struct probe p = {.level0 = 450000, .level3 = 3000000000, .nmissing = 2, .missing = {"INT3", "XRSTOR"}};
    char text[256], little[16];

    (void)s;
    assert_int_equal(probe_judge(&p), PROBE_NO_KERNELS);
    probe_explain(&p, text, sizeof(text));
    assert_non_null(strstr(text, ", and not INT3, XRSTOR; stock kernels do not run here"));
    probe_explain(&p, little, sizeof(little));
    assert_string_equal(little, "this host's KVM");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kernels_run_where_levels_are_alike),
        cmocka_unit_test(a_slow_level_0_is_emulated),
        cmocka_unit_test(what_is_missing_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
