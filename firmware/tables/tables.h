/*
 * What firmware tells an operating system: ACPI tables, SMBIOS, device tree, MP tables.  Pure functions from the
 * board's description to bytes; nothing here touches guest RAM.  A description comes from the board function, never
 * from a guest or a file, so what is impossible in one is asserted.
 */
#pragma once
#include "firmware/tables/blob.h"

enum { BOARD_UARTS_MAX = 4, BOARD_VIRTIO_MMIO_MAX = 16 };

struct board_desc {             /* what there is and where; zero or false: it is not there */
    unsigned cpus;              /* at least 1 */
    const uint32_t *apic_ids;   /* cpus of them, ascending; > 254 get x2APIC entries */
    unsigned sockets;           /* cpus is a multiple of it */
    uint64_t ram_low, ram_high; /* bytes below the hole, above 4 GiB */
    struct {
        uint64_t ecam; /* base of bus 0's 1 MiB, the only bus; 0: no PCI */
        uint64_t mmio32, mmio32_len, mmio64, mmio64_len;
        uint16_t io_base, io_len;
        const uint8_t *intx_gsi; /* [4]; pin p (0 is INTA) of a slot is wired to [(slot + p) & 3] */
    } pci;
    struct {
        uint64_t base, len;
        uint32_t gsi; /* level-triggered, active high */
    } virtio_mmio[BOARD_VIRTIO_MMIO_MAX];
    unsigned nvirtio_mmio;
    struct {
        uint16_t port;
        uint8_t irq;
    } uart[BOARD_UARTS_MAX];
    unsigned nuarts;
    bool rtc;            /* at 0x70 with its century at 0x32, interrupt 8 */
    uint16_t pm_base;    /* PM1a event block +0, control +4, 24-bit timer +8; 0: hardware-reduced ACPI */
    uint8_t sci;         /* GSI below 16: level-triggered, active high */
    uint8_t s5_type;     /* SLP_TYP of power-off in PM1a control */
    uint16_t reset_port; /* writing reset_value resets */
    uint8_t reset_value;
    uint16_t pvpanic_port;
    uint32_t ioapic, lapic; /* physical addresses; the I/O APIC serves GSIs from 0 */
    bool pit;               /* i8254 wired to GSI 2, and the i8259 pair */
};

/*
 * All ACPI tables [ACPI 6.3 5.2] linked for `base`, a multiple of 64 where all lies below 4 GiB; the RSDP is at its
 * start.  Below 1 MiB from 0xE0000 on guests find it by themselves.
 */
struct blob acpi_build(const struct board_desc *d, uint64_t base);
/*
 * SMBIOS 3 entry point followed by its tables [DSP0134 3.6], for `base`, a multiple of 16 in 0xF0000 to 0xFFFFF so that
 * guests find it; `uuid` is 16 bytes in RFC 4122 order.
 */
struct blob smbios_build(const struct board_desc *d, uint64_t base, const uint8_t uuid[16], const char *version);
/* The MultiProcessor tables [MP 1.4 4] for `base`, a multiple of 16 in 0xF0000 to 0xFFFFF so that guests find them. */
struct blob mptable_build(const struct board_desc *d, uint64_t base);
/* Flattened device tree [devicetree 0.4] of the mmio board. */
struct blob fdt_build(const struct board_desc *d, const char *cmdline);
