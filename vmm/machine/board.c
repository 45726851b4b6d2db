#include "vmm/machine/board.h"

#include "devices/platform/pm.h"
#include "vmm/kvm/vm.h"

#define STR_(x) #x
#define STR(x)  STR_(x)

const struct board_device board_devices[] = {
    {BOARD_PCI, "pci-host", "pci", "ecam=" STR(BOARD_ECAM_BASE) ",irq=" STR(BOARD_INTX_GSI)},
    {BOARD_ANY, "rtc", "rtc", "iobase=0x70,irq=8"},
    {BOARD_ANY, "i8042", "i8042", "irq=1"},
    {BOARD_ANY, "pm", "pm", "iobase=" STR(BOARD_PM_BASE) ",irq=" STR(BOARD_SCI)},
    {BOARD_ANY, "pvpanic", "pvpanic", "iobase=" STR(BOARD_PVPANIC_PORT)},
    {BOARD_ANY, "debug-exit", "debug-exit", "iobase=0xf4"},
    {0, NULL, NULL, NULL},
};

const struct board_serial board_serials[BOARD_UARTS_MAX] = {{0x3f8, 4}, {0x2f8, 3}, {0x3e8, 4}, {0x2e8, 3}};

static const uint8_t intx_gsi[] = {BOARD_INTX_GSI, BOARD_INTX_GSI + 1, BOARD_INTX_GSI + 2, BOARD_INTX_GSI + 3};

struct board_virtio_slot board_virtio_slot(unsigned n)
{
    return (struct board_virtio_slot){
        .base = BOARD_VIRTIO_BASE + n * BOARD_VIRTIO_STRIDE,
        .gsi = BOARD_INTX_GSI + n % (VM_IOAPIC_PINS - BOARD_INTX_GSI),
    };
}

static void describe_pci(struct board_desc *d, unsigned phys_bits)
{
    uint64_t end = 1ull << phys_bits;

    d->pci.ecam = BOARD_ECAM_BASE;
    d->pci.mmio32 = BOARD_MMIO32_BASE;
    d->pci.mmio32_len = BOARD_MMIO32_END - BOARD_MMIO32_BASE;
    d->pci.mmio64 = align_up(GMEM_HIGH_BASE + d->ram_high, GiB(1));
    d->pci.mmio64_len = d->pci.mmio64 < end ? min_u64(GiB(16), end - d->pci.mmio64) : 0;
    d->pci.io_base = 0x1000;
    d->pci.io_len = 0xf000;
    d->pci.intx_gsi = intx_gsi;
}

static void describe_virtio_mmio(const struct config *c, struct board_desc *d)
{
    for (unsigned i = 0; i < c->ndevices && d->nvirtio_mmio < BOARD_VIRTIO_MMIO_MAX; i++) {
        struct board_virtio_slot s = board_virtio_slot(d->nvirtio_mmio);

        if (strncmp(c->devices[i].cls->name, "virtio-", 7))
            continue;
        d->virtio_mmio[d->nvirtio_mmio].base = s.base;
        d->virtio_mmio[d->nvirtio_mmio].len = BOARD_VIRTIO_STRIDE;
        d->virtio_mmio[d->nvirtio_mmio++].gsi = s.gsi;
    }
}

void board_describe(const struct config *c, const uint32_t *apic_ids, unsigned phys_bits, struct board_desc *ret)
{
    struct board_desc *d = ret;

    *d = (struct board_desc){
        .cpus = c->cpus,
        .sockets = c->sockets,
        .apic_ids = apic_ids,
        .ram_low = min_u64(c->memory, GMEM_LOW_MAX),
        .ram_high = c->memory > GMEM_LOW_MAX ? c->memory - GMEM_LOW_MAX : 0,
        .rtc = true,
        .pm_base = BOARD_PM_BASE,
        .sci = BOARD_SCI,
        .s5_type = PM_S5_TYPE,
        .reset_port = BOARD_PM_BASE + PM_RESET,
        .reset_value = PM_RESET_VALUE,
        .pvpanic_port = BOARD_PVPANIC_PORT,
        .ioapic = VM_IOAPIC_BASE,
        .lapic = VM_LAPIC_BASE,
        .pit = c->pit,
    };
    for (unsigned i = 0; i < c->ndevices && d->nuarts < BOARD_UARTS_MAX; i++)
        if (!strcmp(c->devices[i].cls->name, "uart")) {
            d->uart[d->nuarts].port = board_serials[d->nuarts].port;
            d->uart[d->nuarts].irq = board_serials[d->nuarts].irq;
            d->nuarts++;
        }
    if (c->board == BOARD_PCI)
        describe_pci(d, phys_bits);
    else
        describe_virtio_mmio(c, d);
}
