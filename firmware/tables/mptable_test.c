#include "firmware/tables/tables.h"
#include "vmm/base/test.h"

static const uint32_t apic_ids[] = {0, 1, 4, 5, 253, 254, 300};

static struct board_desc board(void)
{
    return (struct board_desc){
        .cpus = 4,
        .apic_ids = apic_ids,
        .virtio_mmio = {{0xd0000000, 4096, 16}, {0xd0001000, 4096, 17}},
        .nvirtio_mmio = 2,
        .ioapic = 0xfec00000,
        .lapic = 0xfee00000,
    };
}

static uint8_t sum(const uint8_t *p, size_t n)
{
    uint8_t s = 0;

    while (n--)
        s += *p++;
    return s;
}

/* Walks the table as a kernel does: the `n`th entry (from 0) of that type, NULL when there is none. */
static const uint8_t *entry(const struct blob *b, uint8_t type, unsigned n)
{
    const uint8_t *table = b->data + 16, *p = table + 44;

    for (unsigned left = get_le16(table + 34); left; left--) {
        assert_true(p < b->data + b->len);
        if (*p == type && n-- == 0)
            return p;
        p += *p ? 8 : 20;
    }
    assert_ptr_equal(p, b->data + b->len);
    return NULL;
}

static void the_pointer_leads_to_the_table(void **state)
{
    (void)state;
    struct board_desc d = board();
    struct blob b = mptable_build(&d, 0xf1230);

    assert_memory_equal(b.data, "_MP_", 4);
    assert_int_equal(get_le32(b.data + 4), 0xf1240);
    assert_int_equal(sum(b.data, 16), 0);
    assert_memory_equal(b.data + 16, "PCMP", 4);
    assert_int_equal(get_le16(b.data + 20), b.len - 16);
    assert_int_equal(sum(b.data + 16, b.len - 16), 0);
    assert_int_equal(get_le32(b.data + 16 + 36), 0xfee00000);
    assert_null(entry(&b, 200, 0));
    blob_fini(&b);
}

static void processors_and_the_ioapic_have_ids_of_their_own(void **state)
{
    (void)state;
    struct board_desc d = board();
    struct blob b = mptable_build(&d, 0xf0000);

    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(entry(&b, 0, i)[1], apic_ids[i]);
        assert_int_equal(entry(&b, 0, i)[3], i ? 1 : 3);
    }
    assert_null(entry(&b, 0, 4));
    assert_int_equal(entry(&b, 2, 0)[1], 6);
    assert_int_equal(get_le32(entry(&b, 2, 0) + 4), 0xfec00000);
    blob_fini(&b);

    /* Eight bits hold no more, and the last of them means all. */
    d.cpus = 7;
    b = mptable_build(&d, 0xf0000);
    assert_int_equal(entry(&b, 0, 4)[1], 253);
    assert_null(entry(&b, 0, 5));
    assert_int_equal(entry(&b, 2, 0)[1], 254);
    blob_fini(&b);
}

static const uint8_t *line(const struct blob *b, unsigned irq)
{
    const uint8_t *p;

    for (unsigned i = 0; (p = entry(b, 3, i)); i++)
        if (p[5] == irq)
            return p;
    return NULL;
}

static void lines_go_to_the_pins_of_their_numbers(void **state)
{
    (void)state;
    struct board_desc d = board();
    struct blob b = mptable_build(&d, 0xf0000);

    assert_int_equal(line(&b, 4)[7], 4);
    assert_int_equal(line(&b, 4)[2], 0);
    assert_int_equal(line(&b, 17)[7], 17);
    assert_int_equal(line(&b, 17)[2], 0xd); /* level-triggered, active high */
    assert_null(line(&b, 0));
    assert_null(line(&b, 18));
    assert_int_equal(entry(&b, 4, 0)[1], 1);
    assert_null(entry(&b, 4, 1));
    blob_fini(&b);

    d.pit = true;
    b = mptable_build(&d, 0xf0000);
    assert_int_equal(line(&b, 0)[7], 2);
    assert_int_equal(entry(&b, 4, 0)[1], 3);
    blob_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_pointer_leads_to_the_table),
        cmocka_unit_test(processors_and_the_ioapic_have_ids_of_their_own),
        cmocka_unit_test(lines_go_to_the_pins_of_their_numbers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
