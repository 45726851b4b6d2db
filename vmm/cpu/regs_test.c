#include "vmm/cpu/regs.h"

#include "vmm/base/test.h"

static void long_mode_pages_through_the_given_tables(void **s)
{
    struct cpu_boot_regs r;

    (void)s;
    cpu_boot_regs(true, 0x9000, 0x500, &r);
    assert_int_equal(r.cr0, 0x80000011);
    assert_int_equal(r.cr4, 1 << 5);
    assert_int_equal(r.efer, 0x500);
    assert_int_equal(r.cr3, 0x9000);
    assert_true(r.code.long_mode && !r.code.wide); /* L and D together are reserved */
    assert_int_equal(r.code.selector, 0x10);
    assert_int_equal(r.data.selector, 0x18);
    assert_int_equal(r.gdt_base, 0x500);
    assert_int_equal(r.gdt_limit, 0x1f);
    assert_int_equal(r.rflags, 2);
}

static void protected_mode_has_paging_off(void **s)
{
    struct cpu_boot_regs r;

    (void)s;
    cpu_boot_regs(false, 0x9000, 0, &r);
    assert_int_equal(r.cr0, 0x11);
    assert_int_equal(r.cr3, 0);
    assert_int_equal(r.cr4, 0);
    assert_int_equal(r.efer, 0);
    assert_true(!r.code.long_mode && r.code.wide);
    assert_int_equal(r.code.limit, UINT32_MAX);
    assert_int_equal(r.task.type, 11);
    assert_int_equal(r.task.limit, 0x67);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(long_mode_pages_through_the_given_tables),
        cmocka_unit_test(protected_mode_has_paging_off),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
