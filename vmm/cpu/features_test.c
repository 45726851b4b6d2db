#include "vmm/cpu/features.h"

#include "vmm/base/test.h"

static void known_bits_have_their_names(void **s)
{
    /* One from the end of each register's names, where a slip earlier in the row would show. */
    static const struct {
        const char *name;
        struct cpu_feature at;
    } cases[] = {
        {"fpu", {0x1, 0, CPUID_EDX, 0}},
        {"pbe", {0x1, 0, CPUID_EDX, 31}},
        {"hypervisor", {0x1, 0, CPUID_ECX, 31}},
        {"hwp_pkg_req", {0x6, 0, CPUID_EAX, 11}},
        {"avx512vl", {0x7, 0, CPUID_EBX, 31}},
        {"pks", {0x7, 0, CPUID_ECX, 31}},
        {"arch_capabilities", {0x7, 0, CPUID_EDX, 29}},
        {"lam", {0x7, 1, CPUID_EAX, 26}},
        {"xfd", {0xd, 1, CPUID_EAX, 4}},
        {"3dnow", {0x80000001, 0, CPUID_EDX, 31}},
        {"mwaitx", {0x80000001, 0, CPUID_ECX, 29}},
        {"proc_feedback", {0x80000007, 0, CPUID_EDX, 11}},
        {"brs", {0x80000008, 0, CPUID_EBX, 31}},
        {"vnmi", {0x8000000a, 0, CPUID_EDX, 25}},
        {"no_smm_ctl_msr", {0x80000021, 0, CPUID_EAX, 9}},
        {"asyncpf_int", {0x40000001, 0, CPUID_EAX, 14}},
    };

    (void)s;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct cpu_feature f;

        assert_true(cpu_feature_find(cases[i].name, 0, &f));
        assert_int_equal(f.fn, cases[i].at.fn);
        assert_int_equal(f.idx, cases[i].at.idx);
        assert_int_equal(f.reg, cases[i].at.reg);
        assert_int_equal(f.bit, cases[i].at.bit);
    }
}

static void a_name_may_stand_for_several_bits(void **s)
{
    struct cpu_feature f;

    (void)s;
    assert_true(cpu_feature_find("kvmclock", 2, &f));
    assert_int_equal(f.bit, 24);
    assert_false(cpu_feature_find("kvmclock", 3, &f));
}

static void holes_and_parts_of_names_are_no_features(void **s)
{
    struct cpu_feature f;

    (void)s;
    assert_false(cpu_feature_find("-", 0, &f));
    assert_false(cpu_feature_find("", 0, &f));
    assert_false(cpu_feature_find("avx51", 0, &f));
    assert_false(cpu_feature_find("sse sse2", 0, &f));
}

static void a_misspelt_name_has_a_neighbour(void **s)
{
    char buf[32];

    (void)s;
    assert_string_equal(cpu_feature_nearest("avx22", buf, sizeof(buf)), "avx2");
    assert_null(cpu_feature_nearest("thermonuclear", buf, sizeof(buf)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_bits_have_their_names),
        cmocka_unit_test(a_name_may_stand_for_several_bits),
        cmocka_unit_test(holes_and_parts_of_names_are_no_features),
        cmocka_unit_test(a_misspelt_name_has_a_neighbour),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
