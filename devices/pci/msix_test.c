#include "devices/pci/pci.h"
#include "vmm/base/test.h"

#include "devices/testing/probe.h"
#include "vmm/base/cleanup.h"

enum { SLOT = 1, BAR = 4, VECTORS = PROBE_VECTORS, TABLE = 0xc0000000, PBA = TABLE + 0x800 };

struct bench {
    struct test_env t;
    struct device *host, *dev;
    struct pci_func *func;
};

static void control(struct bench *b, uint16_t val)
{
    pci_cfg_write(b->t.env.pci, SLOT, b->func->msix_cap + PCI_MSIX_FLAGS, val, 2);
}

static uint64_t get(struct bench *b, uint64_t addr, unsigned size)
{
    return test_env_read(&b->t, b->t.env.mmio, addr, size);
}

static void set(struct bench *b, uint64_t addr, uint64_t val, unsigned size)
{
    test_env_write(&b->t, b->t.env.mmio, addr, val, size);
}

static void program(struct bench *b, unsigned vector, uint64_t addr, uint32_t data, bool masked)
{
    uint64_t entry = TABLE + vector * PCI_MSIX_ENTRY_SIZE;

    set(b, entry + PCI_MSIX_ENTRY_LOWER_ADDR, addr, 8);
    set(b, entry + PCI_MSIX_ENTRY_DATA, data, 4);
    set(b, entry + PCI_MSIX_ENTRY_VECTOR_CTRL, masked, 4);
}

static void place(struct bench *b)
{
    pci_cfg_write(b->t.env.pci, SLOT, PCI_BASE_ADDRESS_0 + 4 * BAR, TABLE, 4);
    pci_cfg_write(b->t.env.pci, SLOT, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
}

static int setup(void **state)
{
    struct bench *b = xcalloc(1, sizeof(*b));

    test_env_init(&b->t, MiB(16));
    b->host = test_env_device(&b->t, "pci-host", "pci", "");
    b->dev = &probe_create(&b->t, "probe")->dev;
    b->func = &container_of(b->dev, struct probe, dev)->func;
    place(b);
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

static void the_capability_says_where_things_are(void **state)
{
    struct bench *b = *state;
    unsigned cap = b->func->msix_cap;

    assert_int_equal(pci_cfg_read(b->t.env.pci, SLOT, cap + PCI_MSIX_FLAGS, 2), VECTORS - 1);
    assert_int_equal(pci_cfg_read(b->t.env.pci, SLOT, cap + PCI_MSIX_TABLE, 4), BAR);
    assert_int_equal(pci_cfg_read(b->t.env.pci, SLOT, cap + PCI_MSIX_PBA, 4), (PBA - TABLE) | BAR);
}

static void a_message_is_sent_as_programmed(void **state)
{
    struct bench *b = *state;

    control(b, PCI_MSIX_FLAGS_ENABLE);
    program(b, 5, 0x12fee00000, 0x4041, false);
    pci_msix_fire(b->func, 5);
    assert_int_equal(b->t.nmsis, 1);
    assert_int_equal(b->t.msis[0].addr, 0x12fee00000);
    assert_int_equal(b->t.msis[0].data, 0x4041);
    assert_int_equal(get(b, TABLE + 5 * PCI_MSIX_ENTRY_SIZE, 8), 0x12fee00000);
    assert_int_equal(get(b, TABLE + 5 * PCI_MSIX_ENTRY_SIZE + PCI_MSIX_ENTRY_DATA, 4), 0x4041);
}

static void nothing_is_sent_while_disabled(void **state)
{
    struct bench *b = *state;

    program(b, 0, 0xfee00000, 1, false);
    pci_msix_fire(b->func, 0);
    control(b, PCI_MSIX_FLAGS_ENABLE);
    assert_int_equal(b->t.nmsis, 0);
}

static void a_masked_vector_is_sent_once_when_unmasked(void **state)
{
    struct bench *b = *state;

    control(b, PCI_MSIX_FLAGS_ENABLE);
    program(b, 33, 0xfee00000, 7, true);
    pci_msix_fire(b->func, 33);
    pci_msix_fire(b->func, 33);
    assert_int_equal(b->t.nmsis, 0);
    assert_int_equal(get(b, PBA, 4), 0);
    assert_int_equal(get(b, PBA + 4, 4), 1 << 1);
    assert_int_equal(get(b, PBA, 8), 1ull << 33);
    set(b, PBA, UINT64_MAX, 8); /* read-only */
    program(b, 33, 0xfee01000, 8, false);
    assert_int_equal(b->t.nmsis, 1);
    assert_int_equal(b->t.msis[0].addr, 0xfee01000);
    assert_int_equal(b->t.msis[0].data, 8);
    assert_int_equal(get(b, PBA, 8), 0);
}

static void the_function_mask_holds_all_back(void **state)
{
    struct bench *b = *state;

    program(b, 0, 0xfee00000, 10, false);
    program(b, 1, 0xfee00000, 11, false);
    program(b, 2, 0xfee00000, 12, true);
    control(b, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    for (unsigned i = 0; i < 3; i++)
        pci_msix_fire(b->func, i);
    assert_int_equal(b->t.nmsis, 0);
    assert_int_equal(get(b, PBA, 4), 7);
    control(b, PCI_MSIX_FLAGS_ENABLE);
    assert_int_equal(b->t.nmsis, 2);
    assert_int_equal(get(b, PBA, 4), 4);
}

/* What the host's kernel sends follows what the guest programs; the descriptors are never used. */
static void a_wire_follows_its_vector(void **state)
{
    struct bench *b = *state;
    const struct test_wire *w = b->t.wires;

    pci_msix_wire(b->func, 3, 100);
    assert_int_equal(b->t.nwires, 0); /* all is off */
    control(b, PCI_MSIX_FLAGS_ENABLE);
    assert_int_equal(b->t.nwires, 0); /* masked */
    program(b, 3, 0xfee00000, 7, false);
    assert_int_equal(b->t.nwires, 1);
    assert_int_equal(w->fd, 100);
    assert_int_equal(w->msi.addr, 0xfee00000);
    assert_int_equal(w->msi.data, 7);
    program(b, 3, 0xfee01000, 8, false); /* to another CPU, say */
    assert_int_equal(b->t.nwires, 1);
    assert_int_equal(w->msi.addr, 0xfee01000);
    assert_int_equal(w->msi.data, 8);
    control(b, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    assert_int_equal(b->t.nwires, 0);
    pci_msix_fire(b->func, 3); /* somebody else has heard the signal meanwhile */
    control(b, PCI_MSIX_FLAGS_ENABLE);
    assert_int_equal(b->t.nwires, 1);
    assert_int_equal(b->t.nmsis, 1);
    program(b, 3, 0xfee01000, 8, true);
    assert_int_equal(b->t.nwires, 0);
    pci_msix_unwire(b->func, 100);
    program(b, 3, 0xfee01000, 8, false);
    assert_int_equal(b->t.nwires, 0);
}

static void a_vector_has_one_wire(void **state)
{
    struct bench *b = *state;

    control(b, PCI_MSIX_FLAGS_ENABLE);
    program(b, 3, 0xfee00000, 7, false);
    pci_msix_wire(b->func, 3, 100);
    pci_msix_wire(b->func, 3, 101);
    pci_msix_wire(b->func, VECTORS, 102);
    assert_int_equal(b->t.nwires, 1);
    assert_int_equal(b->t.wires[0].fd, 100);
    for (int fd = 100; fd < 103; fd++)
        pci_msix_unwire(b->func, fd);
    assert_int_equal(b->t.nwires, 0);
}

static void vectors_out_of_range_are_dropped(void **state)
{
    struct bench *b = *state;

    control(b, PCI_MSIX_FLAGS_ENABLE);
    for (unsigned v = VECTORS; v < 70000; v++)
        pci_msix_fire(b->func, v);
    pci_msix_fire(b->func, UINT32_MAX);
    program(b, VECTORS, 0xfee00000, 1, false);
    assert_int_equal(b->t.nmsis, 0);
    assert_int_equal(get(b, TABLE + VECTORS * PCI_MSIX_ENTRY_SIZE, 4), 0);
}

static void accesses_of_every_place_and_width_are_safe(void **state)
{
    static const unsigned sizes[] = {1, 2, 3, 4, 8};
    struct bench *b = *state;

    control(b, PCI_MSIX_FLAGS_ENABLE);
    for (unsigned off = 0; off < KiB(4); off++) {
        for (unsigned i = 0; i < array_len(sizes); i++) {
            uint64_t val = get(b, TABLE + off, sizes[i]);

            set(b, TABLE + off, UINT64_MAX, sizes[i]);
            if (off % 4 == 0 && sizes[i] < 4) /* a part of a register cannot be written */
                assert_int_equal(get(b, TABLE + off, sizes[i]), val);
        }
    }
    assert_int_equal(b->t.nmsis, 0);
    assert_int_equal(get(b, TABLE, 8), 0xfffffffffffffffc);
    assert_int_equal(get(b, TABLE + PCI_MSIX_ENTRY_VECTOR_CTRL, 4), PCI_MSIX_ENTRY_CTRL_MASKBIT);
}

static void reset_masks_and_forgets(void **state)
{
    struct bench *b = *state;

    control(b, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    program(b, 4, 0xfee00000, 10, false);
    pci_msix_fire(b->func, 4);
    device_reset(b->dev);
    device_settle(b->dev);
    place(b);
    control(b, PCI_MSIX_FLAGS_ENABLE);
    assert_int_equal(b->t.nmsis, 0);
    assert_int_equal(get(b, PBA, 8), 0);
    assert_int_equal(get(b, TABLE + 4 * PCI_MSIX_ENTRY_SIZE + PCI_MSIX_ENTRY_VECTOR_CTRL, 4), 1);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_capability_says_where_things_are),
        TEST(a_message_is_sent_as_programmed),
        TEST(nothing_is_sent_while_disabled),
        TEST(a_masked_vector_is_sent_once_when_unmasked),
        TEST(the_function_mask_holds_all_back),
        TEST(a_wire_follows_its_vector),
        TEST(a_vector_has_one_wire),
        TEST(vectors_out_of_range_are_dropped),
        TEST(accesses_of_every_place_and_width_are_safe),
        TEST(reset_masks_and_forgets),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
