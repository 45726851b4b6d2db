#include "devices/pci/pci.h"
#include "vmm/base/test.h"

#include "devices/testing/probe.h"
#include "vmm/base/cleanup.h"

enum { LOW = 0xc0000000 };

struct bench {
    struct test_env t;
    struct device *host, *dev;
    struct probe *probe;
};

static int setup(void **state)
{
    struct bench *b = xcalloc(1, sizeof(*b));

    test_env_init(&b->t, MiB(16));
    b->host = test_env_device(&b->t, "pci-host", "pci", "");
    b->probe = probe_create(&b->t, "probe"); /* slot 1 */
    b->dev = &b->probe->dev;
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    struct bench *b = *state;

    device_destroy(b->dev);
    device_destroy(b->host);
    test_env_fini(&b->t);
    free(b);
    return 0;
}

static uint32_t get(struct bench *b, unsigned off, unsigned size)
{
    return pci_cfg_read(b->t.env.pci, 1, off, size);
}

static void set(struct bench *b, unsigned off, uint32_t val, unsigned size)
{
    pci_cfg_write(b->t.env.pci, 1, off, val, size);
}

static uint32_t mem_read(struct bench *b, uint64_t addr)
{
    return test_env_read(&b->t, b->t.env.mmio, addr, 4);
}

static void header_has_the_ids_and_a_capability_list(void **state)
{
    struct bench *b = *state;
    unsigned seen = 0, off;

    assert_int_equal(get(b, PCI_VENDOR_ID, 4), 0x56781234);
    assert_int_equal(get(b, PCI_SUBSYSTEM_VENDOR_ID, 4), 0xdef09abc);
    assert_int_equal(get(b, PCI_CLASS_REVISION, 4), 0x0c033007);
    assert_int_equal(get(b, PCI_HEADER_TYPE, 1), 0);
    assert_true(get(b, PCI_STATUS, 2) & PCI_STATUS_CAP_LIST);
    for (off = get(b, PCI_CAPABILITY_LIST, 1); off; off = get(b, off + PCI_CAP_LIST_NEXT, 1)) {
        assert_true(off >= PCI_STD_HEADER_SIZEOF && off % 4 == 0);
        if (get(b, off, 1) == PCI_CAP_ID_EXP)
            assert_int_equal((get(b, off + PCI_EXP_FLAGS, 2) & PCI_EXP_FLAGS_TYPE) >> 4, PCI_EXP_TYPE_RC_END);
        else
            assert_int_equal(get(b, off, 1), PCI_CAP_ID_MSIX);
        assert_true(++seen <= 2);
    }
    assert_int_equal(seen, 2);
    assert_int_equal(get(b, PCI_CFG_SPACE_SIZE, 4), 0); /* no extended capability */
    assert_int_equal(get(b, 0xffc, 4), 0);
}

static void only_bits_of_the_mask_can_be_written(void **state)
{
    struct bench *b = *state;

    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned off = 0; off < PCI_CFG_SPACE_SIZE; off++) {
            uint8_t mask = b->probe->func.wmask[off], dflt = b->probe->func.dflt[off];

            if (off == PCI_COMMAND)
                mask &= ~PCI_COMMAND_MEMORY; /* the BARs would go where this test puts them */
            set(b, off, pass ? 0 : mask, 1);
            assert_int_equal(get(b, off, 1) & ~mask, dflt & ~mask);
            assert_int_equal(get(b, off, 1) & mask, pass ? 0 : mask);
        }
    }
    set(b, 0x800, UINT32_MAX, 4);
    assert_int_equal(get(b, 0x800, 4), 0);
}

static void all_ones_ask_for_a_bars_size(void **state)
{
    struct bench *b = *state;

    for (unsigned i = 0; i < PCI_STD_NUM_BARS; i++)
        set(b, PCI_BASE_ADDRESS_0 + 4 * i, UINT32_MAX, 4);
    assert_int_equal(get(b, PCI_BASE_ADDRESS_0, 4), ~(PROBE_SMALL - 1u));
    assert_int_equal(get(b, PCI_BASE_ADDRESS_1, 4), 0);
    assert_int_equal(get(b, PCI_BASE_ADDRESS_2, 4), ~(PROBE_LARGE - 1u) | PCI_BASE_ADDRESS_MEM_TYPE_64);
    assert_int_equal(get(b, PCI_BASE_ADDRESS_3, 4), UINT32_MAX);
    set(b, PCI_COMMAND, PCI_COMMAND_MEMORY, 2); /* and is no place */
    assert_null(b->probe->small.bus);
    assert_null(b->probe->large.bus);
}

static void a_bar_decodes_when_enabled_and_moves(void **state)
{
    struct bench *b = *state;

    set(b, PCI_BASE_ADDRESS_0, LOW, 4);
    assert_int_equal(mem_read(b, LOW), UINT32_MAX);
    set(b, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    assert_int_equal(mem_read(b, LOW + 0x10), PROBE_SMALL_IS + 0x10);
    set(b, PCI_BASE_ADDRESS_0, LOW + PROBE_SMALL, 4);
    assert_int_equal(mem_read(b, LOW + 0x10), UINT32_MAX);
    assert_int_equal(mem_read(b, LOW + PROBE_SMALL + 0x10), PROBE_SMALL_IS + 0x10);
    set(b, PCI_COMMAND, 0, 2);
    assert_int_equal(mem_read(b, LOW + PROBE_SMALL + 0x10), UINT32_MAX);
}

static void a_64_bit_bar_goes_above_4_gib(void **state)
{
    struct bench *b = *state;

    set(b, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    set(b, PCI_BASE_ADDRESS_2, LOW, 4);
    assert_int_equal(mem_read(b, LOW + 4), PROBE_LARGE_IS + 0x4);
    set(b, PCI_BASE_ADDRESS_3, 0x12, 4);
    assert_int_equal(mem_read(b, LOW + 4), UINT32_MAX);
    assert_int_equal(mem_read(b, 0x1200000000ull + LOW + 4), PROBE_LARGE_IS + 0x4);
    test_env_write(&b->t, b->t.env.mmio, 0x1200000000ull + LOW, 77, 4);
    assert_int_equal(b->probe->written, 77);
    assert_int_equal(b->probe->writes, 1);
}

static void a_bar_in_a_wrong_place_decodes_nothing(void **state)
{
    struct bench *b = *state;

    set(b, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    set(b, PCI_BASE_ADDRESS_0, MiB(16) - PROBE_SMALL, 4); /* the last page of RAM */
    assert_null(b->probe->small.bus);
    set(b, PCI_BASE_ADDRESS_0, MiB(16), 4); /* the first after it */
    assert_non_null(b->probe->small.bus);
    set(b, PCI_BASE_ADDRESS_0, 0xe0000000, 4); /* the configuration window */
    assert_null(b->probe->small.bus);
    set(b, PCI_BASE_ADDRESS_0, LOW, 4);
    set(b, PCI_BASE_ADDRESS_2, LOW, 4); /* the function's other BAR */
    assert_non_null(b->probe->small.bus);
    assert_null(b->probe->large.bus);
    set(b, PCI_BASE_ADDRESS_3, 0x7fffffff, 4); /* beyond the end */
    assert_null(b->probe->large.bus);
    set(b, PCI_BASE_ADDRESS_3, 1, 4);
    assert_non_null(b->probe->large.bus);
}

static void the_pin_follows_the_device_and_the_guest(void **state)
{
    struct bench *b = *state;
    unsigned gsi = pci_slot_gsi(b->t.env.pci, 1);

    assert_int_equal(gsi, 17);
    assert_int_equal(get(b, PCI_INTERRUPT_LINE, 2), 0x0100 | gsi);
    pci_set_intx(&b->probe->func, true);
    assert_true(b->t.lines[gsi].level);
    assert_true(get(b, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
    set(b, PCI_COMMAND, PCI_COMMAND_INTX_DISABLE, 2);
    assert_false(b->t.lines[gsi].level);
    assert_true(get(b, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
    set(b, PCI_COMMAND, 0, 2);
    assert_true(b->t.lines[gsi].level);
    set(b, b->probe->func.msix_cap + PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_ENABLE, 2);
    assert_false(b->t.lines[gsi].level);
    set(b, b->probe->func.msix_cap + PCI_MSIX_FLAGS, 0, 2);
    pci_set_intx(&b->probe->func, false);
    assert_false(b->t.lines[gsi].level);
    assert_false(get(b, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
}

static void reset_takes_the_bars_away(void **state)
{
    struct bench *b = *state;

    set(b, PCI_BASE_ADDRESS_0, LOW, 4);
    set(b, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    pci_set_intx(&b->probe->func, true);
    device_reset(b->dev);
    device_settle(b->dev);
    assert_null(b->probe->small.bus);
    assert_false(b->t.lines[17].level);
    assert_int_equal(get(b, PCI_BASE_ADDRESS_0, 4), 0);
    assert_int_equal(get(b, PCI_COMMAND, 2), 0);
}

static void load_puts_the_bars_back(void **state)
{
    struct bench *b = *state;
    struct state_writer w = {0};
    struct state_reader r;
    struct err err;

    set(b, PCI_BASE_ADDRESS_0, LOW, 4);
    set(b, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    device_save(b->dev, &w);
    set(b, PCI_BASE_ADDRESS_0, LOW + MiB(1), 4);
    r = (struct state_reader){w.buf, w.len, 0};
    assert_int_equal(device_load(b->dev, &r, &err), 0);
    device_settle(b->dev);
    assert_int_equal(mem_read(b, LOW + 4), PROBE_SMALL_IS + 0x4);
    assert_int_equal(mem_read(b, LOW + MiB(1) + 4), UINT32_MAX);

    state_writer_fini(&w);
    w = (struct state_writer){0};
    b->probe->func.s.cfg[PCI_VENDOR_ID] ^= 1; /* another function's state */
    device_save(b->dev, &w);
    r = (struct state_reader){w.buf, w.len, 0};
    assert_int_equal(device_load(b->dev, &r, &err), -EBADMSG);
    device_reset(b->dev);
    state_writer_fini(&w);
}

static void accesses_of_any_width_agree(void **state)
{
    struct bench *b = *state;
    uint8_t bytes[PCI_CFG_SPACE_SIZE + 8] = {0};

    for (unsigned off = 0; off < PCI_CFG_SPACE_SIZE; off++)
        bytes[off] = get(b, off, 1);
    for (unsigned off = 0; off < PCI_CFG_SPACE_SIZE; off++) {
        for (unsigned size = 1; size <= 4; size++)
            assert_int_equal(get(b, off, size), mask_bytes(get_le32(bytes + off), size));
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(header_has_the_ids_and_a_capability_list),
        TEST(only_bits_of_the_mask_can_be_written),
        TEST(all_ones_ask_for_a_bars_size),
        TEST(a_bar_decodes_when_enabled_and_moves),
        TEST(a_64_bit_bar_goes_above_4_gib),
        TEST(a_bar_in_a_wrong_place_decodes_nothing),
        TEST(the_pin_follows_the_device_and_the_guest),
        TEST(reset_takes_the_bars_away),
        TEST(load_puts_the_bars_back),
        TEST(accesses_of_any_width_agree),
    };

    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
