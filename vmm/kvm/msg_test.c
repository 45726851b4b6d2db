#include "vmm/kvm/msg.h"

#include "vmm/base/test.h"

static void ordinary_messages_pass_unchanged(void **s)
{
    struct irq_msg msg;

    (void)s;
    assert_true(irq_msg_from_msi((struct msi){0xfee03004, 0xc041}, false, &msg));
    assert_int_equal(msg.addr_lo, 0xfee03004);
    assert_int_equal(msg.addr_hi, 0);
    assert_int_equal(msg.data, 0xc041);
}

static void wide_ids_move_to_the_upper_half(void **s)
{
    struct irq_msg msg;

    (void)s;
    assert_true(irq_msg_from_msi((struct msi){0xfee2c000 | 1 << 5, 0x30}, true, &msg)); /* CPU 0x12c */
    assert_int_equal(msg.addr_lo, 0xfee2c000);
    assert_int_equal(msg.addr_hi, 0x100);
}

static void what_is_no_interrupt_message_is_refused(void **s)
{
    static const struct msi bad[] = {
        {0, 0x41},           {0xfec00000, 0x41},  {0xfed00000, 0x41},  {0xfef00000, 0x41},
        {0x1fee00000, 0x41}, {UINT64_MAX, 0x41},  {0xfee00000, 0},     {0xfee00000, 0x0f},
        {0xfee00000, 0x10f}, {0xfee00000, 0x341}, {0xfee00000, 0x641}, {0xfee00000, 0x741},
    };
    struct irq_msg msg = {.data = 0x5a};

    (void)s;
    for (size_t i = 0; i < array_len(bad); i++)
        for (int wide = 0; wide < 2; wide++)
            assert_false(irq_msg_from_msi(bad[i], wide, &msg));
    assert_int_equal(msg.data, 0x5a);
}

static void reserved_data_bits_never_reach_kvm(void **s)
{
    struct irq_msg msg;

    (void)s;
    assert_true(irq_msg_from_msi((struct msi){0xfee00000, 0xffff0041}, false, &msg));
    assert_int_equal(msg.data, 0x41);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ordinary_messages_pass_unchanged),
        cmocka_unit_test(wide_ids_move_to_the_upper_half),
        cmocka_unit_test(what_is_no_interrupt_message_is_refused),
        cmocka_unit_test(reserved_data_bits_never_reach_kvm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
