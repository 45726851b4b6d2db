#include "vmm/kvm/ioapic.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"

struct fixture {
    struct msi_sink sink;
    struct ioapic io;
    struct bus *bus;
    unsigned sent, changes;
    struct msi last;
};
enum { BASE = 0xfec00000u, PIN = 5, VECTOR = 0x41 };
enum { LEVEL = 1 << 15, MASKED = 1 << 16, REMOTE_IRR = 1 << 14 };

static void record(struct msi_sink *sink, struct msi m)
{
    struct fixture *f = container_of(sink, struct fixture, sink);

    f->sent++;
    f->last = m;
}

static void changed(struct ioapic *io)
{
    container_of(io, struct fixture, io)->changes++;
}

static void poke(struct fixture *f, uint32_t off, uint32_t v)
{
    uint8_t data[4];

    put_le32(data, v);
    bus_access(f->bus, BASE + off, data, 4, true);
}

static uint32_t reg_read(struct fixture *f, unsigned index)
{
    uint8_t data[4];

    poke(f, 0, index);
    bus_access(f->bus, BASE + 0x10, data, 4, false);
    return get_le32(data);
}

static void reg_write(struct fixture *f, unsigned index, uint32_t v)
{
    poke(f, 0, index);
    poke(f, 0x10, v);
}

static void set_entry(struct fixture *f, uint32_t high, uint32_t low)
{
    reg_write(f, 0x11 + 2 * PIN, high);
    reg_write(f, 0x10 + 2 * PIN, low);
}

static int setup(void **s)
{
    struct fixture *f = xcalloc(1, sizeof(*f));

    f->sink.send = record;
    f->bus = bus_create("memory", 1ull << 48);
    ioapic_init(&f->io, &f->sink, changed);
    assert_int_equal(bus_map(f->bus, &f->io.region, BASE, NULL), 0);
    *s = f;
    return 0;
}

static int teardown(void **s)
{
    struct fixture *f = *s;

    ioapic_fini(&f->io);
    bus_destroy(f->bus);
    free(f);
    return 0;
}

static void identifies_itself_with_24_masked_pins(void **s)
{
    struct fixture *f = *s;

    assert_int_equal(reg_read(f, 1), 0x170020);
    reg_write(f, 0, UINT32_MAX);
    assert_int_equal(reg_read(f, 0), 0x0f000000);
    for (unsigned i = 0; i < 24; i++) {
        assert_int_equal(reg_read(f, 0x10 + 2 * i), MASKED);
        assert_int_equal(reg_read(f, 0x11 + 2 * i), 0);
    }
}

static void what_is_no_register_reads_zero_and_takes_nothing(void **s)
{
    struct fixture *f = *s;

    for (unsigned index = 0; index < 256; index++) {
        if (index <= 2 || (index >= 0x10 && index < 0x40))
            continue;
        reg_write(f, index, UINT32_MAX);
        assert_int_equal(reg_read(f, index), 0);
    }
    for (uint32_t off = 0; off < IOAPIC_LEN; off += 4)
        poke(f, off, 0xffffff00);
    assert_int_equal(f->sent, 0);
}

static void an_edge_sends_once(void **s)
{
    struct fixture *f = *s;

    set_entry(f, 3u << 24, VECTOR);
    ioapic_set(&f->io, PIN, true);
    ioapic_set(&f->io, PIN, true);
    assert_int_equal(f->sent, 1);
    assert_int_equal(f->last.addr, 0xfee03000);
    assert_int_equal(f->last.data, VECTOR);
    ioapic_set(&f->io, PIN, false);
    ioapic_set(&f->io, PIN, true);
    assert_int_equal(f->sent, 2);
    assert_int_equal(f->changes, 0);
}

static void an_edge_on_a_masked_pin_is_lost(void **s)
{
    struct fixture *f = *s;

    set_entry(f, 0, VECTOR | MASKED);
    ioapic_set(&f->io, PIN, true);
    set_entry(f, 0, VECTOR);
    assert_int_equal(f->sent, 0);
}

static void a_level_waits_for_its_eoi(void **s)
{
    struct fixture *f = *s;

    set_entry(f, 0, VECTOR | LEVEL);
    ioapic_set(&f->io, PIN, true);
    assert_int_equal(f->sent, 1);
    assert_int_equal(f->last.data, VECTOR | LEVEL | 1 << 14);
    assert_int_equal(reg_read(f, 0x10 + 2 * PIN), VECTOR | LEVEL | REMOTE_IRR);
    ioapic_set(&f->io, PIN, false);
    ioapic_set(&f->io, PIN, true);
    assert_int_equal(f->sent, 1);
    ioapic_eoi(&f->io, VECTOR + 1);
    assert_int_equal(f->sent, 1);
    ioapic_eoi(&f->io, VECTOR); /* still up */
    assert_int_equal(f->sent, 2);
    ioapic_set(&f->io, PIN, false);
    ioapic_eoi(&f->io, VECTOR);
    ioapic_eoi(&f->io, VECTOR);
    assert_int_equal(f->sent, 2);
    assert_int_equal(reg_read(f, 0x10 + 2 * PIN), VECTOR | LEVEL);
}

static void a_masked_level_is_sent_when_unmasked(void **s)
{
    struct fixture *f = *s;

    set_entry(f, 0, VECTOR | LEVEL | MASKED);
    ioapic_set(&f->io, PIN, true);
    assert_int_equal(f->sent, 0);
    set_entry(f, 0, VECTOR | LEVEL);
    assert_int_equal(f->sent, 1);
    set_entry(f, 0, VECTOR | LEVEL | MASKED);
    ioapic_eoi(&f->io, VECTOR);
    assert_int_equal(f->sent, 1);
}

static void the_eoi_register_ends_a_level(void **s)
{
    struct fixture *f = *s;

    set_entry(f, 0, VECTOR | LEVEL);
    ioapic_set(&f->io, PIN, true);
    poke(f, 0x40, VECTOR);
    assert_int_equal(f->sent, 2);
}

static void remote_irr_is_read_only_and_goes_with_level_mode(void **s)
{
    struct fixture *f = *s;

    set_entry(f, 0, VECTOR | LEVEL | REMOTE_IRR | 1 << 12);
    assert_int_equal(reg_read(f, 0x10 + 2 * PIN), VECTOR | LEVEL);
    ioapic_set(&f->io, PIN, true);
    set_entry(f, 0, VECTOR | LEVEL);
    assert_int_equal(reg_read(f, 0x10 + 2 * PIN), VECTOR | LEVEL | REMOTE_IRR);
    set_entry(f, 0, VECTOR | MASKED);
    assert_int_equal(reg_read(f, 0x10 + 2 * PIN), VECTOR | MASKED);
}

static void destinations_keep_all_their_bits(void **s)
{
    struct fixture *f = *s;

    set_entry(f, 0x2cu << 24 | 1 << 17, VECTOR | 1 << 11 | 1 << 8); /* CPU 0x12c, logical, lowest priority */
    ioapic_set(&f->io, PIN, true);
    assert_int_equal(f->last.addr, 0xfee2c000 | 1 << 5 | 1 << 2);
    assert_int_equal(f->last.data, VECTOR | 1 << 8);
}

static void only_changes_of_level_entries_are_announced(void **s)
{
    struct fixture *f = *s;
    struct msi m;

    set_entry(f, 0, VECTOR);
    assert_int_equal(f->changes, 0);
    assert_false(ioapic_level_msi(&f->io, PIN, &m));
    set_entry(f, 0, VECTOR | LEVEL | MASKED);
    assert_int_equal(f->changes, 1);
    assert_true(ioapic_level_msi(&f->io, PIN, &m));
    assert_int_equal(m.data & 0xff, VECTOR);
    set_entry(f, 0, VECTOR | LEVEL); /* unmasking changes nothing */
    assert_int_equal(f->changes, 1);
    set_entry(f, 1u << 24, VECTOR | LEVEL);
    assert_int_equal(f->changes, 2);
    set_entry(f, 1u << 24, VECTOR);
    assert_int_equal(f->changes, 3);
}

static void reset_masks_all_and_lowers_the_lines(void **s)
{
    struct fixture *f = *s;

    set_entry(f, 0, VECTOR | LEVEL);
    ioapic_set(&f->io, PIN, true);
    ioapic_reset(&f->io);
    assert_int_equal(reg_read(f, 0x10 + 2 * PIN), MASKED);
    set_entry(f, 0, VECTOR | LEVEL);
    assert_int_equal(f->sent, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(identifies_itself_with_24_masked_pins),
        TEST(what_is_no_register_reads_zero_and_takes_nothing),
        TEST(an_edge_sends_once),
        TEST(an_edge_on_a_masked_pin_is_lost),
        TEST(a_level_waits_for_its_eoi),
        TEST(a_masked_level_is_sent_when_unmasked),
        TEST(the_eoi_register_ends_a_level),
        TEST(remote_irr_is_read_only_and_goes_with_level_mode),
        TEST(destinations_keep_all_their_bits),
        TEST(only_changes_of_level_entries_are_announced),
        TEST(reset_masks_all_and_lowers_the_lines),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
