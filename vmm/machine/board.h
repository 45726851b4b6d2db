/*
 * The two boards: what stands at which address.  Nothing here does anything; machine.c builds what these tables say,
 * and firmware/tables describes it to the guest.
 *
 *   pci   a PCIe host bridge (Q35's address map without its chipset) and the legacy devices that Linux wants
 *   mmio  the same legacy devices, and virtio-mmio windows instead of PCI
 */
#pragma once
#include "firmware/tables/tables.h"
#include "vmm/machine/config.h"

/* Guest-physical addresses that both boards share. */
enum {
    BOARD_LOADER_BASE = 0x1000, /* the kernel loader's: zero page, command line, page tables */
    BOARD_LOADER_END = 0x90000,
    BOARD_RAM_HOLE = 0x9fc00, /* end of conventional memory, as a BIOS with an EBDA leaves it */
    BOARD_DTB_BASE = 0xd0000, /* firmware's tables; reserved from here to 1 MiB */
    BOARD_ACPI_BASE = 0xe0000,
    BOARD_SMBIOS_BASE = 0xf0000,
    BOARD_FIRMWARE_END = 0x100000,
};
#define BOARD_MMIO32_BASE   0xc0000000ull
#define BOARD_MMIO32_END    0xe0000000ull
#define BOARD_VIRTIO_BASE   0xd0000000ull
#define BOARD_VIRTIO_STRIDE KiB(4)

/* These stand in option texts, too. */
#define BOARD_ECAM_BASE    0xe0000000 /* bus 0 */
#define BOARD_SCI          9
#define BOARD_INTX_GSI     16 /* INTA to INTD: 16 to 19; virtio-mmio shares 16 to 23 */
#define BOARD_PM_BASE      0x600
#define BOARD_PVPANIC_PORT 0x505

/* A device that the board always has, made by its class's name as any other. */
struct board_device {
    enum board board;
    const char *cls, *id, *options;
};
/* Ends with a row without class. */
extern const struct board_device board_devices[];

/* Where serial port `n` (0 to 3) is. */
struct board_serial {
    uint16_t port;
    uint8_t irq;
};
extern const struct board_serial board_serials[BOARD_UARTS_MAX];

/* Window of the `n`th virtio device of the mmio board; lines are shared in turn. */
struct board_virtio_slot {
    uint64_t base;
    uint32_t gsi;
};
struct board_virtio_slot board_virtio_slot(unsigned n);

/* The description that firmware tables are made from; it borrows apic_ids.  Nothing lies above 2^phys_bits. */
void board_describe(const struct config *c, const uint32_t *apic_ids, unsigned phys_bits, struct board_desc *ret);
