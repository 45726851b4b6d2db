#include "devices/virtio/pci.h"
#include "vmm/base/test.h"

#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>

#include "devices/pci/pci.h"
#include "devices/testing/vdriver.h"
#include "devices/testing/vtoy.h"
#include "devices/virtio/transport.h"
#include "vmm/base/cleanup.h"

enum { SLOT = 1, LINE = 17, VECTORS = 3, NONE = VIRTIO_NO_VECTOR, ISR = 0x1000, CONFIG = 0x2000, NOTIFY = 0x3000 };
enum { CFG_DATA = offsetof(struct virtio_pci_cfg_cap, pci_cfg_data) };

static const unsigned sizes[] = {1, 2, 3, 4, 8};

/* Buffers go back unused. */
static void return_all(struct vtoy *t, struct vq *q)
{
    struct vq_chain c;

    (void)t;
    while (vq_pop(q, &c) > 0)
        vq_push(q, &c);
    vq_flush(q);
}

static int setup(void **state)
{
    struct vdriver *d = xcalloc(1, sizeof(*d));

    vdriver_create(d, &vdriver_pci, &vtoy_class, "");
    container_of(d->v, struct vtoy, v)->queue = return_all;
    *state = d;
    return 0;
}

static int teardown(void **state)
{
    vdriver_destroy(*state);
    free(*state);
    return 0;
}

static uint32_t cfg(struct vdriver *d, unsigned off, unsigned size)
{
    return pci_cfg_read(d->e.env.pci, SLOT, off, size);
}

static void set_cfg(struct vdriver *d, unsigned off, uint32_t val, unsigned size)
{
    pci_cfg_write(d->e.env.pci, SLOT, off, val, size);
}

static uint64_t reg(struct vdriver *d, unsigned off, unsigned size)
{
    return test_env_read(&d->e, d->e.env.mmio, d->regs + off, size);
}

static void set_reg(struct vdriver *d, unsigned off, uint64_t val, unsigned size)
{
    test_env_write(&d->e, d->e.env.mmio, d->regs + off, val, size);
}

/* The `n`th capability of that kind (cfg_type for vendor ones). */
static unsigned find_cap(struct vdriver *d, uint8_t id, uint8_t type)
{
    unsigned cap = cfg(d, PCI_CAPABILITY_LIST, 1);

    while (cap && (cfg(d, cap, 1) != id || (id == PCI_CAP_ID_VNDR && cfg(d, cap + VIRTIO_PCI_CAP_CFG_TYPE, 1) != type)))
        cap = cfg(d, cap + PCI_CAP_LIST_NEXT, 1);
    assert_true(cap);
    return cap;
}

static void enable_msix(struct vdriver *d)
{
    set_cfg(d, find_cap(d, PCI_CAP_ID_MSIX, 0) + PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_ENABLE, 2);
    for (unsigned i = 0; i < VECTORS; i++) {
        uint64_t entry = (cfg(d, PCI_BASE_ADDRESS_4, 4) & PCI_BASE_ADDRESS_MEM_MASK) + i * PCI_MSIX_ENTRY_SIZE;

        test_env_write(&d->e, d->e.env.mmio, entry, 0xfee00000, 8);
        test_env_write(&d->e, d->e.env.mmio, entry + PCI_MSIX_ENTRY_DATA, 0x40 + i, 4);
        test_env_write(&d->e, d->e.env.mmio, entry + PCI_MSIX_ENTRY_VECTOR_CTRL, 0, 4);
    }
}

static void set_vectors(struct vdriver *d, uint16_t config, uint16_t queue0)
{
    set_reg(d, VIRTIO_PCI_COMMON_MSIX, config, 2);
    set_reg(d, VIRTIO_PCI_COMMON_Q_SELECT, 0, 2);
    set_reg(d, VIRTIO_PCI_COMMON_Q_MSIX, queue0, 2);
}

static void use_a_buffer(struct vdriver *d)
{
    struct vdriver_buf b = {.addr = vdriver_alloc(d, 64), .len = 64, .write = true};

    vdriver_add(d, 0, &b, 1, false);
    vdriver_kick(d, 0);
    vdriver_run(d);
}

static void change_config(struct vdriver *d)
{
    lane_lock(&d->v->dev.lane);
    virtio_config_changed(d->v);
    lane_unlock(&d->v->dev.lane);
}

static void it_looks_like_a_modern_device(void **state)
{
    static const uint8_t types[] = {VIRTIO_PCI_CAP_COMMON_CFG, VIRTIO_PCI_CAP_ISR_CFG, VIRTIO_PCI_CAP_DEVICE_CFG,
                                    VIRTIO_PCI_CAP_NOTIFY_CFG, VIRTIO_PCI_CAP_PCI_CFG};
    struct vdriver *d = *state;

    assert_int_equal(cfg(d, PCI_VENDOR_ID, 4), (0x1040u + d->v->ops->id) << 16 | 0x1af4);
    assert_true(cfg(d, PCI_REVISION_ID, 1) >= 1);
    for (unsigned i = 0; i < array_len(types); i++) {
        unsigned cap = find_cap(d, PCI_CAP_ID_VNDR, types[i]);
        uint64_t off = cfg(d, cap + VIRTIO_PCI_CAP_OFFSET, 4), len = cfg(d, cap + VIRTIO_PCI_CAP_LENGTH, 4);

        assert_int_equal(cfg(d, cap + VIRTIO_PCI_CAP_BAR, 1), 0);
        assert_true(off % 4 == 0 && off + len <= 0x4000);
    }
    assert_int_equal(reg(d, VIRTIO_PCI_COMMON_NUMQ, 2), 2);
    assert_int_equal((cfg(d, find_cap(d, PCI_CAP_ID_MSIX, 0) + PCI_MSIX_FLAGS, 2) & PCI_MSIX_FLAGS_QSIZE) + 1, VECTORS);
}

static void registers_are_read_in_any_width(void **state)
{
    struct vdriver *d = *state;
    uint8_t bytes[72] = {0};

    set_reg(d, VIRTIO_PCI_COMMON_DFSELECT, 0x01020304, 4);
    set_reg(d, VIRTIO_PCI_COMMON_Q_DESCLO, 0x55667788, 4);
    set_reg(d, VIRTIO_PCI_COMMON_Q_DESCHI, 0x11223344, 4);
    for (unsigned off = 0; off < 64; off++)
        bytes[off] = reg(d, off, 1);
    assert_int_equal(get_le32(bytes), 0x01020304);
    assert_int_equal(get_le64(bytes + VIRTIO_PCI_COMMON_Q_DESCLO), 0x1122334455667788);
    for (unsigned off = 0; off < 64; off++) {
        for (unsigned i = 0; i < array_len(sizes); i++)
            assert_int_equal(reg(d, off, sizes[i]), mask_bytes(get_le64(bytes + off), sizes[i]));
    }
}

static void a_write_to_part_of_a_register_is_dropped(void **state)
{
    struct vdriver *d = *state;

    set_reg(d, VIRTIO_PCI_COMMON_Q_DESCLO, 0x1122334455667788, 8);
    assert_int_equal(reg(d, VIRTIO_PCI_COMMON_Q_DESCLO, 8), 0x1122334455667788);
    set_reg(d, VIRTIO_PCI_COMMON_Q_DESCLO, 0, 2);
    set_reg(d, VIRTIO_PCI_COMMON_Q_DESCHI + 1, 0, 1);
    assert_int_equal(reg(d, VIRTIO_PCI_COMMON_Q_DESCLO, 8), 0x1122334455667788);
    set_reg(d, VIRTIO_PCI_COMMON_Q_SIZE, 0xffff0020, 4); /* two registers at once */
    assert_int_equal(reg(d, VIRTIO_PCI_COMMON_Q_SIZE, 2), 0x20);
}

static void vectors_out_of_range_read_back_as_none(void **state)
{
    struct vdriver *d = *state;

    for (unsigned v = 0; v < 0x10000; v += v < 8 ? 1 : 0x7ff8) {
        set_vectors(d, v, v);
        assert_int_equal(reg(d, VIRTIO_PCI_COMMON_MSIX, 2), v < VECTORS ? v : NONE);
        assert_int_equal(reg(d, VIRTIO_PCI_COMMON_Q_MSIX, 2), v < VECTORS ? v : NONE);
    }
}

static void selectors_out_of_range_are_harmless(void **state)
{
    static const uint16_t queues[] = {2, 3, 64, 0x7fff, 0x8000, 0xffff};
    struct vdriver *d = *state;

    for (unsigned q = 0; q < array_len(queues); q++) {
        for (unsigned i = 0; i < array_len(sizes); i++) {
            set_reg(d, VIRTIO_PCI_COMMON_Q_SELECT, queues[q], 2);
            for (unsigned off = VIRTIO_PCI_COMMON_Q_SIZE; off < 64; off++) {
                set_reg(d, off, UINT64_MAX, sizes[i]);
                assert_int_equal(reg(d, off, 1), 0);
            }
        }
        test_env_write(&d->e, d->e.env.mmio, d->notify + 4 * (queues[q] % 1024), queues[q], 2);
    }
    for (unsigned page = 1; page; page <<= 1) {
        set_reg(d, VIRTIO_PCI_COMMON_DFSELECT, page, 4);
        set_reg(d, VIRTIO_PCI_COMMON_GFSELECT, page, 4);
        set_reg(d, VIRTIO_PCI_COMMON_GF, UINT32_MAX, 4);
        assert_true(page == 1 || (!reg(d, VIRTIO_PCI_COMMON_DF, 4) && !reg(d, VIRTIO_PCI_COMMON_GF, 4)));
    }
}

static void without_msix_the_pin_and_the_isr_tell(void **state)
{
    struct vdriver *d = *state;

    vdriver_start(d, 0);
    use_a_buffer(d);
    assert_true(d->e.lines[LINE].level);
    change_config(d);
    assert_int_equal(reg(d, ISR, 1), 3);
    assert_false(d->e.lines[LINE].level);
    assert_int_equal(reg(d, ISR, 1), 0);
    assert_int_equal(d->e.nmsis, 0);
}

static void with_msix_messages_tell(void **state)
{
    struct vdriver *d = *state;

    vdriver_reset(d);
    enable_msix(d);
    set_vectors(d, 2, 1);
    vdriver_negotiate(d, 1ull << VIRTIO_F_VERSION_1);
    vdriver_set_queue(d, 0, 0);
    vdriver_set(d, VDR_STATUS, 0xf);
    use_a_buffer(d);
    assert_int_equal(d->e.nmsis, 1);
    assert_int_equal(d->e.msis[0].data, 0x41);
    change_config(d);
    assert_int_equal(d->e.nmsis, 2);
    assert_int_equal(d->e.msis[1].data, 0x42);
    set_reg(d, VIRTIO_PCI_COMMON_MSIX, NONE, 2);
    change_config(d);
    assert_int_equal(d->e.nmsis, 2);
    assert_int_equal(reg(d, ISR, 1), 0);
    assert_false(d->e.lines[LINE].level);
}

static void status_zero_resets_the_transport(void **state)
{
    struct vdriver *d = *state;

    vdriver_start(d, 0);
    change_config(d);
    set_reg(d, VIRTIO_PCI_COMMON_DFSELECT, 1, 4);
    set_reg(d, VIRTIO_PCI_COMMON_GFSELECT, 1, 4);
    set_reg(d, VIRTIO_PCI_COMMON_Q_SELECT, 1, 2);
    set_reg(d, VIRTIO_PCI_COMMON_STATUS, 0, 1);
    assert_false(d->e.lines[LINE].level);
    assert_int_equal(reg(d, ISR, 1), 0);
    assert_int_equal(reg(d, VIRTIO_PCI_COMMON_DFSELECT, 4), 0);
    assert_int_equal(reg(d, VIRTIO_PCI_COMMON_GFSELECT, 4), 0);
    assert_int_equal(reg(d, VIRTIO_PCI_COMMON_Q_SELECT, 2), 0);
    assert_int_equal(reg(d, VIRTIO_PCI_COMMON_Q_MSIX, 2), NONE);
}

static void doorbells_follow_the_bar(void **state)
{
    struct vdriver *d = *state;
    struct vdriver_buf b = {.addr = vdriver_alloc(d, 64), .len = 64, .write = true};
    uint64_t to = d->regs + MiB(1);
    uint16_t id;
    uint32_t len;

    vdriver_start(d, 0);
    assert_int_equal(d->e.ndoorbells, 2);
    vdriver_add(d, 0, &b, 1, false);
    vdriver_kick(d, 0); /* not heard yet */
    set_cfg(d, PCI_COMMAND, 0, 2);
    assert_int_equal(d->e.ndoorbells, 0);
    assert_true(vdriver_used(d, 0, &id, &len));
    set_cfg(d, PCI_BASE_ADDRESS_0, to, 4);
    set_cfg(d, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    assert_int_equal(d->e.ndoorbells, 2);
    d->notify += to - d->regs;
    d->regs = to;
    use_a_buffer(d);
    assert_true(vdriver_used(d, 0, &id, &len));
}

static void notifications_arrive_without_doorbells(void **state)
{
    struct vdriver *d = *state;
    uint16_t id;
    uint32_t len;

    d->e.no_doorbells = true;
    vdriver_start(d, 0);
    for (unsigned size = 1; size <= 4; size *= 2) {
        struct vdriver_buf b = {.addr = vdriver_alloc(d, 64), .len = 64, .write = true};

        vdriver_add(d, 0, &b, 1, false);
        test_env_write(&d->e, d->e.env.mmio, d->notify, 0, size);
        vdriver_run(d);
        assert_true(vdriver_used(d, 0, &id, &len));
    }
}

static void set_window(struct vdriver *d, uint8_t bar, uint32_t off, uint32_t len)
{
    unsigned cap = find_cap(d, PCI_CAP_ID_VNDR, VIRTIO_PCI_CAP_PCI_CFG);

    set_cfg(d, cap + VIRTIO_PCI_CAP_BAR, bar, 1);
    set_cfg(d, cap + VIRTIO_PCI_CAP_OFFSET, off, 4);
    set_cfg(d, cap + VIRTIO_PCI_CAP_LENGTH, len, 4);
}

static void configuration_space_has_a_window_on_the_bar(void **state)
{
    struct vdriver *d = *state;
    unsigned data = find_cap(d, PCI_CAP_ID_VNDR, VIRTIO_PCI_CAP_PCI_CFG) + CFG_DATA;

    set_cfg(d, PCI_COMMAND, 0, 2); /* works without the BAR */
    set_window(d, 0, VIRTIO_PCI_COMMON_NUMQ, 2);
    assert_int_equal(cfg(d, data, 4), 2);
    set_window(d, 0, VIRTIO_PCI_COMMON_DFSELECT, 4);
    set_cfg(d, data, 0x12345678, 4);
    assert_int_equal(cfg(d, data, 4), 0x12345678);
    set_window(d, 0, CONFIG, 1);
    assert_int_equal(cfg(d, data, 4), 0x11);
    lane_lock(&d->v->dev.lane);
    d->v->transport->config_interrupt(d->v->transport, NONE);
    lane_unlock(&d->v->dev.lane);
    set_window(d, 0, ISR, 1);
    assert_int_equal(cfg(d, data, 1), 2);
    assert_int_equal(cfg(d, data, 1), 0);
}

static void the_window_refuses_what_is_not_in_the_bar(void **state)
{
    static const struct {
        uint8_t bar;
        uint32_t off, len;
    } bad[] = {
        {1, 0, 4},      {4, 0, 4},          {0xff, 0, 4},       {0, 0, 0},          {0, 0, 3},
        {0, 0, 8},      {0, 0, 0x80000000}, {0, 1, 2},          {0, 2, 4},          {0, 0x4000, 4},
        {0, 0x3fff, 2}, {0, 0xfffffffc, 4}, {0, 0xffffffff, 1}, {0, 0, 0xffffffff},
    };
    struct vdriver *d = *state;
    unsigned data = find_cap(d, PCI_CAP_ID_VNDR, VIRTIO_PCI_CAP_PCI_CFG) + CFG_DATA;

    for (unsigned i = 0; i < array_len(bad); i++) {
        set_window(d, bad[i].bar, bad[i].off, bad[i].len);
        set_cfg(d, data, 0xa5a5a5a5, 4);
        assert_int_equal(cfg(d, data, 4), 0xa5a5a5a5);
        assert_int_equal(reg(d, VIRTIO_PCI_COMMON_DFSELECT, 4), 0);
    }
    set_window(d, 0, 0x3ffc, 4); /* the very last place */
    set_cfg(d, data, 0xa5a5a5a5, 4);
    assert_int_equal(cfg(d, data, 4), 0);
}

static void accesses_of_every_place_and_width_are_safe(void **state)
{
    struct vdriver *d = *state;

    for (unsigned i = 0; i < array_len(sizes); i++) {
        for (unsigned off = 0; off <= 0x4000; off++) {
            reg(d, off, sizes[i]);
            set_reg(d, off, off * 0x9e3779b97f4a7c15ull, sizes[i]);
        }
    }
    vdriver_start(d, 0);
    use_a_buffer(d);
}

static void buffers_in_the_bar_are_refused(void **state)
{
    static const unsigned pages[] = {0, ISR, CONFIG, NOTIFY};
    struct vdriver *d = *state;

    for (unsigned i = 0; i < array_len(pages); i++) {
        struct vdriver_buf b = {.addr = d->regs + pages[i], .len = 64, .write = true};

        vdriver_start(d, 0);
        vdriver_add(d, 0, &b, 1, false);
        vdriver_kick(d, 0);
        vdriver_run(d);
        assert_true(vdriver_broken(d));
    }
}

static void it_goes_on_after_a_move(void **state)
{
    struct vdriver *d = *state;

    vdriver_reset(d);
    enable_msix(d);
    set_vectors(d, 2, 1);
    vdriver_negotiate(d, 1ull << VIRTIO_F_VERSION_1);
    vdriver_set_queue(d, 0, 0);
    vdriver_set(d, VDR_STATUS, 0xf);
    vdriver_move(d, "");
    container_of(d->v, struct vtoy, v)->queue = return_all;
    use_a_buffer(d);
    assert_int_equal(d->e.nmsis, 1);
    assert_int_equal(d->e.msis[0].data, 0x41);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(it_looks_like_a_modern_device),
        TEST(registers_are_read_in_any_width),
        TEST(a_write_to_part_of_a_register_is_dropped),
        TEST(vectors_out_of_range_read_back_as_none),
        TEST(selectors_out_of_range_are_harmless),
        TEST(without_msix_the_pin_and_the_isr_tell),
        TEST(with_msix_messages_tell),
        TEST(status_zero_resets_the_transport),
        TEST(doorbells_follow_the_bar),
        TEST(notifications_arrive_without_doorbells),
        TEST(configuration_space_has_a_window_on_the_bar),
        TEST(the_window_refuses_what_is_not_in_the_bar),
        TEST(accesses_of_every_place_and_width_are_safe),
        TEST(buffers_in_the_bar_are_refused),
        TEST(it_goes_on_after_a_move),
    };

    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
