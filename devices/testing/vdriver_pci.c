/* The PCI transport as a driver finds it. */
#include <linux/pci_regs.h>
#include <linux/virtio_pci.h>

#include "devices/pci/pci.h"
#include "devices/testing/vdriver.h"
#include "devices/virtio/pci.h"

enum { PCI_BASE = 0x20000000, PCI_ROOM = 0x10000000 }; /* where BARs go */

static int pci_attach(struct device_env *env, struct virtio *v, struct err *err)
{
    (void)env;
    return virtio_pci_attach(v, -1, err);
}

/* Walks the capabilities as any driver does, with every BAR where the firmware would have put it. */
static void pci_find(struct vdriver *d)
{
    const struct pci_window low = {PCI_BASE, PCI_ROOM}, high = {0, 0};
    struct pci_bus *b = d->e.env.pci;
    unsigned slot = 0, cap;
    uint64_t bar;
    struct err err;

    if (pci_bus_assign(b, low, high, &err))
        test_env_ends(d->v->dev.cls->name, &err);
    while (slot < PCI_SLOTS && pci_cfg_read(b, slot, PCI_VENDOR_ID, 2) != 0x1af4)
        slot++;
    assert(slot < PCI_SLOTS);
    bar = pci_cfg_read(b, slot, PCI_BASE_ADDRESS_0, 4) & PCI_BASE_ADDRESS_MEM_MASK;
    for (cap = pci_cfg_read(b, slot, PCI_CAPABILITY_LIST, 1); cap; cap = pci_cfg_read(b, slot, cap + 1, 1)) {
        uint32_t off = pci_cfg_read(b, slot, cap + VIRTIO_PCI_CAP_OFFSET, 4);

        if (pci_cfg_read(b, slot, cap, 1) != PCI_CAP_ID_VNDR)
            continue;
        switch (pci_cfg_read(b, slot, cap + VIRTIO_PCI_CAP_CFG_TYPE, 1)) {
        case VIRTIO_PCI_CAP_COMMON_CFG:
            d->regs = bar + off;
            break;
        case VIRTIO_PCI_CAP_ISR_CFG:
            d->isr = bar + off;
            break;
        case VIRTIO_PCI_CAP_DEVICE_CFG:
            d->config = bar + off;
            break;
        case VIRTIO_PCI_CAP_NOTIFY_CFG:
            d->notify = bar + off;
            d->notify_step = pci_cfg_read(b, slot, cap + VIRTIO_PCI_NOTIFY_CAP_MULT, 4);
            break;
        }
    }
    assert(d->regs && d->isr && d->config && d->notify && d->notify_step);
}

static unsigned pci_interrupts(struct vdriver *d)
{
    return (unsigned)test_env_read(&d->e, d->e.env.mmio, d->isr, 1);
}

const struct vdriver_transport vdriver_pci = {
    .name = "pci",
    .bridge = "pci-host",
    .attach = pci_attach,
    .find = pci_find,
    .interrupts = pci_interrupts,
    .regs =
        {
            [VDR_OFFERED_PAGE] = {VIRTIO_PCI_COMMON_DFSELECT, 4},
            [VDR_OFFERED] = {VIRTIO_PCI_COMMON_DF, 4},
            [VDR_ACCEPTED_PAGE] = {VIRTIO_PCI_COMMON_GFSELECT, 4},
            [VDR_ACCEPTED] = {VIRTIO_PCI_COMMON_GF, 4},
            [VDR_STATUS] = {VIRTIO_PCI_COMMON_STATUS, 1},
            [VDR_GENERATION] = {VIRTIO_PCI_COMMON_CFGGENERATION, 1},
            [VDR_QUEUE] = {VIRTIO_PCI_COMMON_Q_SELECT, 2},
            [VDR_QUEUE_MAX] = {VIRTIO_PCI_COMMON_Q_SIZE, 2},
            [VDR_QUEUE_SIZE] = {VIRTIO_PCI_COMMON_Q_SIZE, 2},
            [VDR_QUEUE_ENABLE] = {VIRTIO_PCI_COMMON_Q_ENABLE, 2},
            [VDR_QUEUE_RESET] = {VIRTIO_PCI_COMMON_Q_RESET, 2},
            [VDR_DESC_LOW] = {VIRTIO_PCI_COMMON_Q_DESCLO, 4},
            [VDR_DESC_HIGH] = {VIRTIO_PCI_COMMON_Q_DESCHI, 4},
            [VDR_DRIVER_LOW] = {VIRTIO_PCI_COMMON_Q_AVAILLO, 4},
            [VDR_DRIVER_HIGH] = {VIRTIO_PCI_COMMON_Q_AVAILHI, 4},
            [VDR_DEVICE_LOW] = {VIRTIO_PCI_COMMON_Q_USEDLO, 4},
            [VDR_DEVICE_HIGH] = {VIRTIO_PCI_COMMON_Q_USEDHI, 4},
        },
};
