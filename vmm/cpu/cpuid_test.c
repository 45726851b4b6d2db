#include "vmm/cpu/cpuid.h"

#include "vmm/base/test.h"

/* What KVM might support on a processor with both vendors' leaves, so that one table tests them all. */
static void supported(struct cpuid *c)
{
    static const struct cpuid_entry e[] = {
        {0x0, 0, false, {0x1f, 0, 0, 0}},
        {0x1, 0, false, {0, 0x00100800, 0x02000000, 0x00800001}}, /* CLFLUSH 64, aes, mmx, fpu */
        {0x4, 0, true, {0x1c004121, 0, 0, 0}},                    /* data, level 1 */
        {0x4, 1, true, {0x1c03c163, 0, 0, 0}},                    /* unified, level 3 */
        {0x4, 2, true, {0, 0, 0, 0}},
        {0x7, 0, true, {1, 0x24, 0x40000000, 0}}, /* avx2, sgx; sgx_lc */
        {0x12, 0, true, {1, 0, 0, 0}},
        {0x15, 0, false, {2, 200, 24000000, 0}},
        {0x1f, 0, true, {1, 2, 0x100, 77}},
        {0x1f, 5, true, {9, 9, 9, 77}},
        {0x40000001, 0, false, {1 << 0 | 1 << 3 | 1 << 24, 0, 0, 0}},
        {0x80000001, 0, false, {0, 0, 1 << 22, 1 << 23}}, /* topoext; mmx again */
        {0x80000008, 0, false, {0x3030, 0, 0x17003, 0}},
        {0x8000001d, 0, true, {0x1c143, 0, 0, 0}}, /* level 2 */
        {0x8000001e, 0, false, {0, 0, 0, 0}},
        {0x80000026, 0, true, {1, 2, 3, 4}},
    };

    *c = (struct cpuid){.n = array_len(e)};
    memcpy(c->e, e, sizeof(e));
}

static uint32_t reg(struct cpuid *c, uint32_t fn, uint32_t idx, enum cpuid_reg r)
{
    struct cpuid_entry *e = cpuid_find(c, fn, idx);

    assert_non_null(e);
    return e->r[r];
}

static void topology_leaves_agree(void **s)
{
    const struct cpuid_machine m = {.topology = {.sockets = 2, .cores = 3, .threads = 2}};
    struct cpuid c;

    (void)s;
    supported(&c);
    assert_int_equal(cpuid_set_machine(&c, &m, NULL), 0);
    cpuid_set_cpu(&c, &m.topology, 9); /* socket 1, core 1, thread 1: id 8 + 2 + 1 */

    assert_int_equal(reg(&c, 0x1, 0, CPUID_EBX), 11 << 24 | 8 << 16 | 0x0800);
    assert_true(reg(&c, 0x1, 0, CPUID_EDX) & 1 << 28);
    assert_int_equal(reg(&c, 0x4, 0, CPUID_EAX), 3 << 26 | 1 << 14 | 0x121);
    assert_int_equal(reg(&c, 0x4, 1, CPUID_EAX), 3 << 26 | 7 << 14 | 0x163);
    assert_int_equal(reg(&c, 0x4, 2, CPUID_EAX), 0);
    for (uint32_t fn = 0xb; fn <= 0x1f; fn += 0x1f - 0xb) {
        const uint32_t want[3][4] = {{1, 2, 0x100, 11}, {3, 6, 0x201, 11}, {0, 0, 2, 11}};

        for (unsigned i = 0; i < 3; i++)
            assert_memory_equal(cpuid_find(&c, fn, i)->r, want[i], sizeof(want[i]));
    }
    assert_int_equal(reg(&c, 0x1f, 5, CPUID_EAX), 0);
    assert_int_equal(reg(&c, 0x80000001, 0, CPUID_ECX), 1 << 22 | 1 << 1);
    assert_int_equal(reg(&c, 0x80000008, 0, CPUID_ECX), 0x10000 | 3 << 12 | 5);
    assert_int_equal(reg(&c, 0x8000001d, 0, CPUID_EAX), 1 << 14 | 0x143);
    assert_int_equal(reg(&c, 0x8000001e, 0, CPUID_EAX), 11);
    assert_int_equal(reg(&c, 0x8000001e, 0, CPUID_EBX), 1 << 8 | 1);
    assert_int_equal(reg(&c, 0x8000001e, 0, CPUID_ECX), 1);
    assert_int_equal(reg(&c, 0x80000026, 0, CPUID_EAX), 0);
}

static void one_cpu_shares_nothing(void **s)
{
    const struct cpuid_machine m = {.topology = {.sockets = 1, .cores = 1, .threads = 1}};
    struct cpuid c;

    (void)s;
    supported(&c);
    assert_int_equal(cpuid_set_machine(&c, &m, NULL), 0);
    cpuid_set_cpu(&c, &m.topology, 0);
    assert_int_equal(reg(&c, 0x1, 0, CPUID_EBX), 1 << 16 | 0x0800);
    assert_false(reg(&c, 0x1, 0, CPUID_EDX) & 1 << 28);
    assert_int_equal(reg(&c, 0x4, 1, CPUID_EAX), 0x163);
    assert_int_equal(reg(&c, 0x80000001, 0, CPUID_ECX), 1 << 22);
}

static void counts_beyond_a_field_are_all_ones(void **s)
{
    const struct cpuid_machine m = {.topology = {.sockets = 1, .cores = 300, .threads = 1}};
    struct cpuid c;

    (void)s;
    supported(&c);
    assert_int_equal(cpuid_set_machine(&c, &m, NULL), 0);
    cpuid_set_cpu(&c, &m.topology, 257);
    assert_int_equal(reg(&c, 0x1, 0, CPUID_EBX), 1 << 24 | 255 << 16 | 0x0800);
    assert_int_equal(reg(&c, 0x4, 0, CPUID_EAX) >> 26, 63);
    assert_int_equal(reg(&c, 0x80000008, 0, CPUID_ECX) & 0xff, 255);
    assert_int_equal(reg(&c, 0xb, 0, CPUID_EDX), 257);
}

static void machine_adds_what_kvm_leaves_to_us(void **s)
{
    const struct cpuid_machine m = {.topology = {1, 1, 1}, .tsc_deadline = true, .wide_apic_ids = true};
    struct cpuid c;

    (void)s;
    supported(&c);
    cpuid_find(&c, 0, 0)->r[CPUID_EAX] = 1; /* an old processor, without leaf 0xb */
    assert_int_equal(cpuid_set_machine(&c, &m, NULL), 0);
    assert_int_equal(reg(&c, 0x0, 0, CPUID_EAX), 0xb);
    assert_int_equal(reg(&c, 0x1, 0, CPUID_ECX), 1u << 31 | 1 << 24 | 1 << 21 | 0x02000000);
    assert_true(reg(&c, 0x40000001, 0, CPUID_EAX) & 1 << 15);
}

static void host_facts_that_do_not_hold_in_a_guest_are_hidden(void **s)
{
    const struct cpuid_machine m = {.topology = {1, 1, 1}};
    struct cpuid c;

    (void)s;
    supported(&c);
    assert_int_equal(cpuid_set_machine(&c, &m, NULL), 0);
    assert_int_equal(reg(&c, 0x15, 0, CPUID_ECX), 0);
    assert_int_equal(reg(&c, 0x12, 0, CPUID_EAX), 0);
    assert_int_equal(reg(&c, 0x7, 0, CPUID_EBX), 0x20);
    assert_int_equal(reg(&c, 0x7, 0, CPUID_ECX), 0);
    assert_false(reg(&c, 0x1, 0, CPUID_ECX) & 1 << 24); /* KVM has no TSC deadline */
    assert_false(reg(&c, 0x40000001, 0, CPUID_EAX) & 1 << 15);
}

static void a_full_table_is_an_error(void **s)
{
    const struct cpuid_machine m = {.topology = {1, 1, 1}};
    struct cpuid c = {.n = CPUID_ENTRIES_MAX};
    struct err err;

    (void)s;
    assert_int_equal(cpuid_set_machine(&c, &m, &err), -ENOSPC);
}

static void features_are_taken_away_and_required(void **s)
{
    struct cpuid c;

    (void)s;
    supported(&c);
    assert_int_equal(cpuid_select(&c, NULL, NULL), 0);
    assert_int_equal(cpuid_select(&c, "host", NULL), 0);
    assert_int_equal(cpuid_select(&c, "host,-aes,+avx2,-kvmclock,-avx512f", NULL), 0);
    assert_int_equal(reg(&c, 0x1, 0, CPUID_ECX), 0);
    assert_int_equal(reg(&c, 0x7, 0, CPUID_EBX), 0x24);
    assert_int_equal(reg(&c, 0x40000001, 0, CPUID_EAX), 0);
}

static void taking_a_feature_away_takes_its_alias(void **s)
{
    struct cpuid c;

    (void)s;
    supported(&c);
    assert_int_equal(cpuid_select(&c, "host,-mmx", NULL), 0);
    assert_int_equal(reg(&c, 0x1, 0, CPUID_EDX), 1);
    assert_int_equal(reg(&c, 0x80000001, 0, CPUID_EDX), 0);
}

static void bad_words_are_named(void **s)
{
    static const struct {
        const char *text;
        int code;
        const char *in_message;
    } cases[] = {
        {"host,+avx512f", -EOPNOTSUPP, "\"avx512f\""},
        {"host,+avx22", -ENOENT, "did you mean \"avx2\"?"},
        {"host,-frobnicate", -ENOENT, "\"frobnicate\""},
        {"host,avx2", -EINVAL, "needs a + or -"},
        {"host,", -EINVAL, "needs a + or -"},
        {"host,-", -ENOENT, "\"\""},
        {"host,--", -ENOENT, "\"-\""},
        {"qemu64", -ENOENT, "\"qemu64\""},
        {"", -ENOENT, "\"\""},
        {"-avx2", -ENOENT, "\"host\""},
    };

    (void)s;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct cpuid c;
        struct err err;

        supported(&c);
        assert_int_equal(cpuid_select(&c, cases[i].text, &err), cases[i].code);
        assert_non_null(strstr(err.msg, cases[i].in_message));
    }
}

static void phys_bits_are_those_that_can_be_mapped(void **s)
{
    struct cpuid c;

    (void)s;
    supported(&c);
    assert_int_equal(cpuid_phys_bits(&c), 48);
    cpuid_find(&c, 0x80000008, 0)->r[CPUID_EAX] = 0x303034; /* 52, of which second-level tables reach 48 */
    assert_int_equal(cpuid_phys_bits(&c), 48);
    c.n = 1;
    assert_int_equal(cpuid_phys_bits(&c), 36);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(topology_leaves_agree),
        cmocka_unit_test(one_cpu_shares_nothing),
        cmocka_unit_test(counts_beyond_a_field_are_all_ones),
        cmocka_unit_test(machine_adds_what_kvm_leaves_to_us),
        cmocka_unit_test(host_facts_that_do_not_hold_in_a_guest_are_hidden),
        cmocka_unit_test(a_full_table_is_an_error),
        cmocka_unit_test(features_are_taken_away_and_required),
        cmocka_unit_test(taking_a_feature_away_takes_its_alias),
        cmocka_unit_test(bad_words_are_named),
        cmocka_unit_test(phys_bits_are_those_that_can_be_mapped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
