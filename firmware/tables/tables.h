/*
 * What firmware tells an operating system: ACPI tables, SMBIOS, device tree.  Pure functions from the board's
 * description to bytes; nothing here touches guest RAM.
 */
#pragma once
#include "vmm/base/base.h"
#include "vmm/base/err.h"

enum { BOARD_UARTS_MAX = 4, BOARD_VIRTIO_MMIO_MAX = 16 };

struct board_desc { /* what there is and where; zero or false: it is not there */
    unsigned cpus;
    const uint32_t *apic_ids;   /* cpus of them; > 254 get x2APIC entries */
    uint64_t ram_low, ram_high; /* bytes below the hole, above 4 GiB */
    struct {
        uint64_t ecam; /* base; bus 0 only */
        uint64_t mmio32, mmio32_len, mmio64, mmio64_len;
        uint16_t io_base, io_len;
        const uint8_t *intx_gsi; /* [4]: GSI of INTA..INTD swizzled by slot: (slot + pin) & 3 */
    } pci;
    struct {
        uint64_t base, len;
        uint32_t gsi;
    } virtio_mmio[BOARD_VIRTIO_MMIO_MAX];
    unsigned nvirtio_mmio;
    struct {
        uint16_t port;
        uint8_t irq;
    } uart[BOARD_UARTS_MAX];
    unsigned nuarts;
    bool rtc, i8042;
    uint16_t pm_base;    /* PM1a event block +0, control +4, timer +8; 0: hardware-reduced with no PM */
    uint8_t sci;         /* GSI */
    uint16_t reset_port; /* writing reset_value resets */
    uint8_t reset_value;
    uint16_t pvpanic_port;
    uint32_t ioapic, lapic; /* physical addresses */
    bool hpet, pit;
};

struct blob { /* owned bytes */
    uint8_t *data;
    size_t len;
};
void blob_fini(struct blob *b);

/* All ACPI tables [ACPI 6.5 5.2] linked for `base`; the RSDP is at its start. */
int acpi_build(const struct board_desc *d, uint64_t base, struct blob *ret, struct err *err) must_check;
/* SMBIOS 3 entry point followed by its tables [DSP0134 3.6], for `base`; `uuid` is 16 bytes in RFC 4122 order. */
int smbios_build(const struct board_desc *d, uint64_t base, const uint8_t uuid[16], const char *version,
                 struct blob *ret, struct err *err) must_check;
/* Flattened device tree of the mmio board. */
int fdt_build(const struct board_desc *d, const char *cmdline, struct blob *ret, struct err *err) must_check;
