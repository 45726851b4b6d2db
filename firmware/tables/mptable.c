/*
 * Processors, the I/O APIC and its lines for kernels with neither ACPI nor device trees [Intel MultiProcessor
 * Specification 1.4, 4].  All interrupts are said to come from an ISA bus, line n to pin n, those above 15 as well:
 * virtio-mmio windows have no bus of their own there.
 */
#include "firmware/tables/tables.h"

enum { POINTER_SIZE = 16, HEADER_SIZE = 44, APIC_ID_MAX = 254, PINS = 24 };
enum { PROCESSOR, BUS, IOAPIC, IO_INTERRUPT, LOCAL_INTERRUPT };
enum { INT, NMI, SMI, EXTINT };
enum { AS_THE_BUS = 0, LEVEL_ACTIVE_HIGH = 3 << 2 | 1 };
enum { ISA_BUS = 0, ENABLED = 1, BOOT_PROCESSOR = 2, LAPIC_VERSION = 0x14, IOAPIC_VERSION = 0x11 };

static void interrupt(struct blob *b, uint8_t entry, uint8_t type, uint8_t flags, uint8_t irq, uint8_t apic,
                      uint8_t pin)
{
    blob_put(b, (uint8_t[]){entry, type, flags, 0, ISA_BUS, irq, apic, pin}, 8);
}

static void interrupts(struct blob *b, const struct board_desc *d, uint8_t ioapic)
{
    uint8_t flags[PINS] = {0};

    for (unsigned i = 0; i < d->nvirtio_mmio; i++) {
        assert(d->virtio_mmio[i].gsi < PINS);
        flags[d->virtio_mmio[i].gsi] = LEVEL_ACTIVE_HIGH;
    }
    if (d->pit)
        interrupt(b, IO_INTERRUPT, INT, AS_THE_BUS, 0, ioapic, 2);
    for (unsigned irq = 1; irq < PINS; irq++)
        if (irq != 2 && (irq < 16 || flags[irq]))
            interrupt(b, IO_INTERRUPT, INT, flags[irq], (uint8_t)irq, ioapic, (uint8_t)irq);
    if (d->pit)
        interrupt(b, LOCAL_INTERRUPT, EXTINT, AS_THE_BUS, 0, 0, 0);
    interrupt(b, LOCAL_INTERRUPT, NMI, AS_THE_BUS, 0, 0xff /* every processor */, 1);
}

struct blob mptable_build(const struct board_desc *d, uint64_t base)
{
    struct blob b = {0};
    unsigned entries = 0;
    uint8_t ioapic = 0;

    blob_put(&b, "_MP_", 4);
    blob_u32(&b, (uint32_t)base + POINTER_SIZE);
    blob_put(&b, (uint8_t[8]){POINTER_SIZE / 16, 4}, 8);

    blob_put(&b, "PCMP", 4);
    blob_put(&b, (uint8_t[4]){0, 0, 4}, 4);
    blob_put(&b, "BOTHY   MACHINE     ", 20);
    blob_zero(&b, 8); /* no OEM table; the number of entries comes below */
    blob_u32(&b, d->lapic);
    blob_zero(&b, 4); /* no extended table */
    assert(b.len == POINTER_SIZE + HEADER_SIZE);

    for (unsigned i = 0; i < d->cpus && d->apic_ids[i] < APIC_ID_MAX; i++, entries++) {
        blob_put(&b, (uint8_t[4]){PROCESSOR, d->apic_ids[i], LAPIC_VERSION, ENABLED | (i ? 0 : BOOT_PROCESSOR)}, 4);
        blob_zero(&b, 16); /* signature and features: CPUID tells more */
        ioapic = (uint8_t)d->apic_ids[i] + 1;
    }
    blob_put(&b, (uint8_t[2]){BUS, ISA_BUS}, 2);
    blob_put(&b, "ISA   ", 6);
    blob_put(&b, (uint8_t[4]){IOAPIC, ioapic, IOAPIC_VERSION, ENABLED}, 4);
    blob_u32(&b, d->ioapic);

    size_t at = b.len;

    interrupts(&b, d, ioapic);
    entries += 2 + (unsigned)(b.len - at) / 8;
    put_le16(b.data + POINTER_SIZE + 4, (uint16_t)(b.len - POINTER_SIZE));
    put_le16(b.data + POINTER_SIZE + 34, (uint16_t)entries);
    b.data[POINTER_SIZE + 7] = blob_checksum(&b, POINTER_SIZE, b.len - POINTER_SIZE);
    b.data[10] = blob_checksum(&b, 0, POINTER_SIZE);
    return b;
}
