#include "vmm/cpu/topology.h"

#include "vmm/base/test.h"

static void powers_of_two_leave_no_gaps(void **s)
{
    struct cpu_topology t = {.sockets = 2, .cores = 4, .threads = 2};

    (void)s;
    assert_int_equal(cpu_count(&t), 16);
    for (unsigned cpu = 0; cpu < 16; cpu++)
        assert_int_equal(cpu_apic_id(&t, cpu), cpu);
}

static void other_counts_start_each_level_at_a_power_of_two(void **s)
{
    struct cpu_topology t = {.sockets = 2, .cores = 3, .threads = 1};

    (void)s;
    assert_int_equal(cpu_apic_id(&t, 2), 2);
    assert_int_equal(cpu_apic_id(&t, 3), 4);
    t = (struct cpu_topology){.sockets = 2, .cores = 3, .threads = 3};
    assert_int_equal(cpu_apic_id(&t, 2), 2);
    assert_int_equal(cpu_apic_id(&t, 3), 4);
    assert_int_equal(cpu_apic_id(&t, 9), 16);
    assert_int_equal(cpu_apic_id(&t, 17), 16 + 8 + 2);
}

static void ids_never_repeat(void **s)
{
    struct cpu_topology t = {.sockets = 3, .cores = 5, .threads = 3};

    (void)s;
    for (unsigned cpu = 1; cpu < cpu_count(&t); cpu++)
        assert_true(cpu_apic_id(&t, cpu) > cpu_apic_id(&t, cpu - 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(powers_of_two_leave_no_gaps),
        cmocka_unit_test(other_counts_start_each_level_at_a_power_of_two),
        cmocka_unit_test(ids_never_repeat),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
