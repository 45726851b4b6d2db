/* A network card whose network serves the rings itself: what it is lent, and when it is taken back. */
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <sys/eventfd.h>

#include "devices/pci/pci.h"
#include "devices/testing/netscript.h"
#include "devices/testing/vdriver.h"
#include "vmm/base/log.h"
#include "vmm/base/test.h"

enum { RX = 0, TX = 1, HEADER = sizeof(struct virtio_net_hdr_v1), MAX = 60 };
#define BIT(f) (1ull << (f))
static const uint64_t serves = BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_NET_F_MRG_RXBUF) | BIT(VIRTIO_NET_F_CSUM);

static struct vdriver d;

static void plug(const struct vdriver_transport *t, uint64_t features, const char *options)
{
    char text[64];

    netscript_rings = serves;
    snprintf(text, sizeof(text), "null%s", options);
    vdriver_create(&d, t, device_class_find("virtio-net"), text);
    vdriver_start(&d, features);
}

static void unplug(void)
{
    vdriver_destroy(&d);
    netscript_rings = 0;
}

static unsigned lent(void)
{
    unsigned n = 0;

    for (unsigned i = 0; i < NETSCRIPT_RINGS; i++)
        n += netscript->rings[i].size != 0;
    return n;
}

/* Makes `len` bytes available, for the guest to receive or to send. */
static void add(unsigned queue, uint32_t len)
{
    const struct vdriver_buf buf = {vdriver_alloc(&d, len), len, queue % 2 == RX};

    vdriver_add(&d, queue, &buf, 1, false);
    vdriver_kick(&d, queue);
    vdriver_run(&d);
}

static bool used(unsigned queue)
{
    uint16_t id;
    uint32_t len;

    return vdriver_used(&d, queue, &id, &len);
}

static struct gbyte *host_address(gpa_t gpa)
{
    struct gspan s;

    assert_int_equal(gmem_span(d.e.env.mem, gpa, 1, 1, GMEM_READ, &s), 0);
    return s.p;
}

static void rings_are_lent_as_they_are(void **s)
{
    (void)s;
    for (const struct vdriver_transport *const *t = vdriver_transports; *t; t++) {
        plug(*t, BIT(VIRTIO_NET_F_MRG_RXBUF), "");
        assert_int_equal(lent(), 2);
        assert_int_equal(netscript->ring_features, BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_NET_F_MRG_RXBUF));
        for (unsigned i = RX; i <= TX; i++) {
            const struct ring *r = &netscript->rings[i];

            assert_int_equal(r->size, d.q[i].size);
            assert_int_equal(r->next, 0);
            assert_ptr_equal(r->desc, host_address(d.q[i].desc));
            assert_ptr_equal(r->driver, host_address(d.q[i].driver));
            assert_ptr_equal(r->device, host_address(d.q[i].device));
        }
        unplug();
    }
}

static void signals_pass_by_the_card(void **s)
{
    eventfd_t n;

    (void)s;
    for (const struct vdriver_transport *const *t = vdriver_transports; *t; t++) {
        plug(*t, 0, "");
        assert_int_equal(eventfd_read(netscript->rings[TX].kick, &n), -1);
        add(TX, HEADER + MAX);
        assert_int_equal(eventfd_read(netscript->rings[TX].kick, &n), 0);
        assert_false(used(TX));
        assert_int_equal(netscript->nout, 0);
        d.t->interrupts(&d);
        assert_int_equal(eventfd_write(netscript->rings[TX].call, 1), 0);
        vdriver_run(&d);
        assert_int_equal(d.t->interrupts(&d) & 1, 1);
        unplug();
    }
}

enum { SLOT = 1 };

/* Turns MSI-X on, with the message `vector` for each vector. */
static void turn_msix_on(void)
{
    struct pci_bus *b = d.e.env.pci;
    unsigned cap = pci_cfg_read(b, SLOT, PCI_CAPABILITY_LIST, 1), bar;
    uint64_t table;

    while (pci_cfg_read(b, SLOT, cap, 1) != PCI_CAP_ID_MSIX)
        cap = pci_cfg_read(b, SLOT, cap + 1, 1);
    bar = pci_cfg_read(b, SLOT, cap + PCI_MSIX_TABLE, 1) & PCI_MSIX_TABLE_BIR;
    table = pci_cfg_read(b, SLOT, PCI_BASE_ADDRESS_0 + 4 * bar, 4);
    for (unsigned i = 0; i <= pci_cfg_read(b, SLOT, cap + PCI_MSIX_FLAGS, 2) % PCI_MSIX_MAX; i++) {
        test_env_write(&d.e, d.e.env.mmio, table + 16 * i + PCI_MSIX_ENTRY_DATA, i, 4);
        test_env_write(&d.e, d.e.env.mmio, table + 16 * i + PCI_MSIX_ENTRY_VECTOR_CTRL, 0, 4);
    }
    pci_cfg_write(b, SLOT, cap + PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_ENABLE, 2);
}

static void set_vector(unsigned queue, unsigned vector)
{
    vdriver_set(&d, VDR_QUEUE, queue);
    test_env_write(&d.e, d.e.env.mmio, d.regs + VIRTIO_PCI_COMMON_Q_MSIX, vector, 2);
}

/* The kernel may turn signals into messages by itself. */
static void signals_go_to_the_queues_vector(void **s)
{
    (void)s;
    plug(&vdriver_pci, 0, "");
    turn_msix_on();
    assert_int_equal(d.e.nwires, 0); /* no queue has one */
    set_vector(TX, 2);
    assert_int_equal(d.e.nwires, 1);
    assert_int_equal(d.e.wires[0].fd, netscript->rings[TX].call);
    assert_int_equal(d.e.wires[0].msi.data, 2);
    set_vector(TX, 1);
    assert_int_equal(d.e.nwires, 1);
    assert_int_equal(d.e.wires[0].msi.data, 1);
    set_vector(RX, 2);
    assert_int_equal(d.e.nwires, 2);
    device_stop(&d.v->dev);
    assert_int_equal(d.e.nwires, 0);
    device_start(&d.v->dev);
    assert_int_equal(d.e.nwires, 2);
    vdriver_reset(&d);
    assert_int_equal(d.e.nwires, 0);
    unplug();
}

static void what_only_the_card_can_do_is_not_offered(void **s)
{
    uint64_t offered;

    (void)s;
    plug(&vdriver_pci, 0, "");
    offered = vdriver_offered(&d);
    assert_int_equal(offered & serves, serves);
    assert_int_equal(offered & (BIT(VIRTIO_F_RING_PACKED) | BIT(VIRTIO_RING_F_INDIRECT_DESC) |
                                BIT(VIRTIO_NET_F_HOST_UFO) | BIT(VIRTIO_NET_F_GUEST_TSO4)),
                     0);
    assert_true(offered & BIT(VIRTIO_NET_F_STATUS) && offered & BIT(VIRTIO_NET_F_CTRL_VQ));
    unplug();
}

/* Between two stops the ring has moved on by others' doing. */
static void stop_and_start_go_on_where_it_was(void **s)
{
    (void)s;
    plug(&vdriver_mmio, 0, "");
    netscript->next = 5;
    device_stop(&d.v->dev);
    assert_int_equal(lent(), 0);
    device_start(&d.v->dev);
    assert_int_equal(lent(), 2);
    assert_int_equal(netscript->rings[TX].next, 5);
    unplug();
}

static void a_call_that_nobody_has_heard_still_interrupts(void **s)
{
    (void)s;
    plug(&vdriver_mmio, 0, "");
    d.t->interrupts(&d);
    assert_int_equal(eventfd_write(netscript->rings[RX].call, 1), 0);
    device_stop(&d.v->dev);
    assert_int_equal(d.t->interrupts(&d) & 1, 1);
    device_start(&d.v->dev);
    unplug();
}

static void a_reset_takes_them_back(void **s)
{
    (void)s;
    plug(&vdriver_pci, 0, "");
    netscript->next = 7;
    vdriver_reset(&d);
    assert_int_equal(lent(), 0);
    vdriver_start(&d, 0);
    assert_int_equal(lent(), 2);
    assert_int_equal(netscript->rings[RX].next, 0);
    unplug();
}

static void without_a_link_the_card_drops_frames(void **s)
{
    (void)s;
    plug(&vdriver_mmio, BIT(VIRTIO_NET_F_STATUS), "");
    netscript->n.user->link(netscript->n.user, false);
    assert_int_equal(lent(), 0);
    add(TX, HEADER + MAX);
    assert_true(used(TX));
    assert_int_equal(net_dropped(&netscript->n, NET_DROP_DOWN), 1);
    netscript->n.user->link(netscript->n.user, true);
    assert_int_equal(lent(), 2);
    assert_int_equal(netscript->rings[TX].next, 1);
    unplug();
}

static void who_refuses_them_gets_frames(void **s)
{
    const uint8_t frame[MAX] = {0xff};

    (void)s;
    plug(&vdriver_mmio, 0, "");
    netscript->refuses = true;
    vdriver_start(&d, 0);
    assert_int_equal(lent(), 0);
    add(TX, HEADER + MAX);
    assert_true(used(TX));
    assert_int_equal(netscript->nout, 1);
    add(RX, 2000);
    netscript_put(0, &(struct virtio_net_hdr_v1){0}, frame, sizeof(frame));
    assert_true(used(RX));
    unplug();
}

static void a_ring_that_he_finds_broken_breaks_the_device(void **s)
{
    (void)s;
    plug(&vdriver_mmio, 0, "");
    netscript->n.user->broken(netscript->n.user, "so says the test");
    assert_int_equal(lent(), 0);
    assert_true(vdriver_broken(&d));
    vdriver_start(&d, 0);
    assert_int_equal(lent(), 2);
    unplug();
}

/* Without a doorbell there is nothing that he could wait for. */
static void a_board_without_doorbells_keeps_them(void **s)
{
    (void)s;
    plug(&vdriver_mmio, 0, "");
    d.e.no_doorbells = true;
    vdriver_start(&d, 0);
    assert_int_equal(lent(), 0);
    add(TX, HEADER + MAX);
    assert_true(used(TX));
    unplug();
}

static void pairs_that_are_not_used_are_not_lent(void **s)
{
    (void)s;
    plug(&vdriver_mmio, 0, ",queues=4");
    assert_int_equal(lent(), 2);
    unplug();
    plug(&vdriver_mmio, BIT(VIRTIO_NET_F_MQ) | BIT(VIRTIO_NET_F_CTRL_VQ), ",queues=4");
    assert_int_equal(lent(), 2); /* until the driver says how many it uses */
    unplug();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rings_are_lent_as_they_are),
        cmocka_unit_test(signals_pass_by_the_card),
        cmocka_unit_test(signals_go_to_the_queues_vector),
        cmocka_unit_test(what_only_the_card_can_do_is_not_offered),
        cmocka_unit_test(stop_and_start_go_on_where_it_was),
        cmocka_unit_test(a_call_that_nobody_has_heard_still_interrupts),
        cmocka_unit_test(a_reset_takes_them_back),
        cmocka_unit_test(without_a_link_the_card_drops_frames),
        cmocka_unit_test(who_refuses_them_gets_frames),
        cmocka_unit_test(a_ring_that_he_finds_broken_breaks_the_device),
        cmocka_unit_test(a_board_without_doorbells_keeps_them),
        cmocka_unit_test(pairs_that_are_not_used_are_not_lent),
    };

    log_set_level(LOG_ERROR); /* what is refused or broken is meant to be */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
