#include "devices/pci/pci.h"
#include "vmm/base/test.h"

#include "devices/testing/probe.h"
#include "vmm/base/cleanup.h"

enum { ECAM = 0xe0000000, CF8 = 0xcf8, CFC = 0xcfc, CF9 = 0xcf9, ENABLE = 1u << 31, DEVICES = 3 };

struct bench {
    struct test_env t;
    struct device *host, *dev[DEVICES];
};

static int setup(void **state)
{
    static const char *const ids[DEVICES] = {"probe1", "probe2", "probe3"};
    struct bench *b = xcalloc(1, sizeof(*b));

    test_env_init(&b->t, MiB(16));
    b->host = test_env_device(&b->t, "pci-host", "pci", "");
    for (unsigned i = 0; i < DEVICES; i++)
        b->dev[i] = &probe_create(&b->t, ids[i])->dev;
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    struct bench *b = *state;

    for (unsigned i = 0; i < DEVICES; i++)
        device_destroy(b->dev[i]);
    device_destroy(b->host);
    test_env_fini(&b->t);
    free(b);
    return 0;
}

static uint64_t port(struct bench *b, uint16_t port, unsigned size)
{
    return test_env_read(&b->t, b->t.env.pio, port, size);
}

static void set_port(struct bench *b, uint16_t port, uint64_t val, unsigned size)
{
    test_env_write(&b->t, b->t.env.pio, port, val, size);
}

static uint64_t ecam(struct bench *b, unsigned slot, unsigned reg, unsigned size)
{
    return test_env_read(&b->t, b->t.env.mmio, ECAM + (slot << 15) + reg, size);
}

static void both_windows_show_the_same(void **state)
{
    struct bench *b = *state;

    assert_int_equal(ecam(b, 0, 0, 4), 0x00081b36);
    assert_int_equal(ecam(b, 0, PCI_INTERRUPT_PIN, 1), 0);
    assert_int_equal(ecam(b, 1, 0, 4), 0x56781234);
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        for (unsigned reg = 0; reg < PCI_CFG_SPACE_SIZE; reg += 4) {
            set_port(b, CF8, ENABLE | slot << 11 | reg, 4);
            assert_int_equal(port(b, CFC, 4), ecam(b, slot, reg, 4));
            for (unsigned i = 0; i < 4; i++)
                assert_int_equal(port(b, CFC + i, 1), ecam(b, slot, reg + i, 1));
            assert_int_equal(port(b, CFC + 2, 2), ecam(b, slot, reg + 2, 2));
        }
    }
}

static void both_windows_write_the_same(void **state)
{
    struct bench *b = *state;

    set_port(b, CF8, ENABLE | 2 << 11 | PCI_INTERRUPT_LINE, 4);
    set_port(b, CFC, 0x5a, 1);
    assert_int_equal(ecam(b, 2, PCI_INTERRUPT_LINE, 1), 0x5a);
    test_env_write(&b->t, b->t.env.mmio, ECAM + (2 << 15) + PCI_INTERRUPT_LINE, 0xa5, 1);
    assert_int_equal(port(b, CFC, 1), 0xa5);
    assert_int_equal(ecam(b, 1, PCI_INTERRUPT_LINE, 1), pci_slot_gsi(b->t.env.pci, 1));
}

static void what_is_not_there_reads_as_ones(void **state)
{
    struct bench *b = *state;

    assert_int_equal(ecam(b, DEVICES + 1, 0, 4), UINT32_MAX);
    assert_int_equal(ecam(b, 1, 1 << 12, 4), UINT32_MAX); /* function 1 */
    set_port(b, CF8, ENABLE | 1 << 16 | 1 << 11, 4);      /* bus 1 */
    assert_int_equal(port(b, CFC, 4), UINT32_MAX);
    set_port(b, CF8, 1 << 11, 4); /* not enabled */
    assert_int_equal(port(b, CFC, 4), UINT32_MAX);
    set_port(b, CFC, 0, 4);
    set_port(b, CF8, ENABLE | 1 << 11 | 1 << 8, 4);
    assert_int_equal(port(b, CFC, 4), UINT32_MAX);
}

static void the_address_port_takes_dwords_only(void **state)
{
    struct bench *b = *state;

    set_port(b, CF8, UINT32_MAX, 4);
    assert_int_equal(port(b, CF8, 4), 0x80fffffc);
    set_port(b, CF8 + 3, 1, 1); /* as systems do that look for another mechanism */
    set_port(b, CF8, 0, 1);
    assert_int_equal(port(b, CF8, 4), 0x80fffffc);
    assert_int_equal(b->t.requests[REQ_RESET], 0);
}

static void the_reset_register_resets_once_a_rise(void **state)
{
    struct bench *b = *state;

    set_port(b, CF9, 2, 1);
    assert_int_equal(port(b, CF9, 1), 2);
    assert_int_equal(b->t.requests[REQ_RESET], 0);
    set_port(b, CF9, 6, 1);
    assert_int_equal(b->t.requests[REQ_RESET], 1);
    set_port(b, CF9, 6, 1);
    assert_int_equal(b->t.requests[REQ_RESET], 1);
    set_port(b, CF8, UINT32_MAX, 4);
    set_port(b, CF9, 0, 1);
    set_port(b, CF9, 0x0e, 1);
    assert_int_equal(b->t.requests[REQ_RESET], 2);
}

static void accesses_of_every_place_and_width_are_safe(void **state)
{
    static const unsigned sizes[] = {1, 2, 3, 4, 8};
    struct bench *b = *state;

    for (unsigned i = 0; i < array_len(sizes); i++) {
        for (uint16_t p = CF8 - 8; p < CFC + 8; p++) {
            set_port(b, p, 0x8000080480000800, sizes[i]);
            port(b, p, sizes[i]);
        }
        for (unsigned reg = 0; reg < 0x120; reg++) {
            for (unsigned slot = 0; slot < DEVICES + 2; slot++) {
                uint64_t val = ecam(b, slot, reg, sizes[i]);

                for (unsigned n = 0; n < sizes[i]; n++)
                    assert_int_equal(ecam(b, slot, reg + n, 1), val >> 8 * n & 0xff);
                test_env_write(&b->t, b->t.env.mmio, ECAM + (slot << 15) + reg, 0x5aa5f00f3cc3aa55, sizes[i]);
            }
        }
        ecam(b, PCI_SLOTS - 1, 0x7fff, sizes[i]); /* and across the end */
    }
}

static uint64_t bar(struct bench *b, unsigned slot, unsigned n)
{
    return ecam(b, slot, PCI_BASE_ADDRESS_0 + 4 * n, 4) & PCI_BASE_ADDRESS_MEM_MASK;
}

static void assign_places_bars_in_slot_order(void **state)
{
    struct bench *b = *state;
    struct pci_window low = {0xc0001000, MiB(1)}, none = {0};
    uint64_t next = 0xc0001000;
    struct err err;

    for (int again = 0; again < 2; again++)
        assert_int_equal(pci_bus_assign(b->t.env.pci, low, none, &err), 0);
    for (unsigned slot = 1; slot <= DEVICES; slot++) {
        assert_int_equal(bar(b, slot, 0), next);
        next = align_up(next + PROBE_SMALL, PROBE_LARGE);
        assert_int_equal(bar(b, slot, 2), next);
        assert_int_equal(bar(b, slot, 3), 0);
        assert_int_equal(test_env_read(&b->t, b->t.env.mmio, next + 8, 4), PROBE_LARGE_IS + 8);
        next += PROBE_LARGE;
        assert_int_equal(bar(b, slot, 4), next);
        next += 0x1000;
        assert_true(ecam(b, slot, PCI_COMMAND, 2) & PCI_COMMAND_MEMORY);
    }
}

static void assign_goes_high_when_low_is_full(void **state)
{
    struct bench *b = *state;
    struct pci_window low = {0xc0000000, 0x6000}, high = {GiB(8), MiB(1)}, none = {0};
    struct err err;

    assert_int_equal(pci_bus_assign(b->t.env.pci, low, high, &err), 0);
    for (unsigned slot = 1; slot <= DEVICES; slot++) {
        assert_int_equal(bar(b, slot, 0), 0xc0000000 + (slot - 1) * 0x2000);
        assert_int_equal(bar(b, slot, 2), (slot - 1) * PROBE_LARGE);
        assert_int_equal(ecam(b, slot, PCI_BASE_ADDRESS_3, 4), 2);
        assert_int_equal(bar(b, slot, 4), 0xc0001000 + (slot - 1) * 0x2000);
    }
    low.len = 0x5000; /* 32-bit BARs have nowhere else to go */
    assert_int_equal(pci_bus_assign(b->t.env.pci, low, high, &err), -ENOSPC);
    assert_non_null(strstr(err.msg, "probe3"));
    assert_int_equal(pci_bus_assign(b->t.env.pci, (struct pci_window){ECAM, MiB(1)}, none, &err), -EEXIST);
}

enum { MOVES = 2000, HERE = 0xc0000000, THERE = 0xd0000000 };

static void *move_the_bar(void *far)
{
    struct bench *b = far;

    for (unsigned i = 0; i < MOVES; i++)
        test_env_write(&b->t, b->t.env.mmio, ECAM + (1 << 15) + PCI_BASE_ADDRESS_0, i % 2 ? HERE : THERE, 4);
    return NULL;
}

static void a_bar_may_move_while_others_access_it(void **state)
{
    struct bench *b = *state;
    uint32_t there = PROBE_SMALL_IS + 8, id = 0x56781234;
    pthread_t mover;

    test_env_write(&b->t, b->t.env.mmio, ECAM + (1 << 15) + PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    pthread_create(&mover, NULL, move_the_bar, b);
    for (unsigned i = 0; i < MOVES; i++) { /* what was seen is judged when the other thread is gone */
        uint32_t val = test_env_read(&b->t, b->t.env.mmio, (i % 2 ? HERE : THERE) + 8, 4);

        if (val != UINT32_MAX && there == PROBE_SMALL_IS + 8)
            there = val;
        set_port(b, CF8, ENABLE | 1 << 11, 4);
        if (id == 0x56781234)
            id = port(b, CFC, 4);
    }
    pthread_join(mover, NULL);
    assert_int_equal(there, PROBE_SMALL_IS + 8);
    assert_int_equal(id, 0x56781234);
    assert_int_equal(test_env_read(&b->t, b->t.env.mmio, HERE + 8, 4), PROBE_SMALL_IS + 8);
}

static void a_full_bus_says_so(void **state)
{
    struct bench *b = *state;
    struct probe *more[PCI_SLOTS - DEVICES - 1];
    struct device *last;
    struct err err;

    for (unsigned i = 0; i < array_len(more); i++)
        more[i] = probe_create(&b->t, "more");
    assert_int_equal(device_create(&probe_class, "last", "", &last, &err), 0);
    assert_int_equal(device_init(last, &b->t.env, b->t.env.loop, &err), -ENOSPC);
    assert_non_null(strstr(err.msg, "last"));
    device_destroy(last);
    for (unsigned i = 0; i < array_len(more); i++)
        device_destroy(&more[i]->dev);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(both_windows_show_the_same),
        TEST(both_windows_write_the_same),
        TEST(what_is_not_there_reads_as_ones),
        TEST(the_address_port_takes_dwords_only),
        TEST(the_reset_register_resets_once_a_rise),
        TEST(accesses_of_every_place_and_width_are_safe),
        TEST(assign_places_bars_in_slot_order),
        TEST(assign_goes_high_when_low_is_full),
        TEST(a_bar_may_move_while_others_access_it),
        TEST(a_full_bus_says_so),
    };

    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
