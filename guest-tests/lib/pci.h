/* PCI configuration space by the port pair, BARs and MSI-X. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum {
    PCI_VENDOR = 0x00,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_BAR0 = 0x10,
    PCI_CAPABILITIES = 0x34,
    PCI_COMMAND_MEMORY = 2,
    PCI_COMMAND_MASTER = 4,
    PCI_STATUS_INTX = 1 << 3,
    PCI_CAP_VENDOR = 9,
    PCI_CAP_MSIX = 0x11,
    PCI_NONE = -1,
};

/* A function of bus 0 is its device and function number. */
uint32_t pci_read32(int devfn, unsigned reg);
uint16_t pci_read16(int devfn, unsigned reg);
uint8_t pci_read8(int devfn, unsigned reg);
void pci_write32(int devfn, unsigned reg, uint32_t v);
void pci_write16(int devfn, unsigned reg, uint16_t v);

bool pci_present(void);
/* The `nth` function (from 0) with that vendor and device, or PCI_NONE. */
int pci_find(uint16_t vendor, uint16_t device, unsigned nth);
/* The next capability with that id after `after` (0: the first), or 0. */
unsigned pci_capability(int devfn, uint8_t id, unsigned after);
/* Where a memory BAR is and how large, by the all-ones probe; nothing is left changed. */
uint64_t pci_bar(int devfn, unsigned bar, uint64_t *size);
void pci_bar_set(int devfn, unsigned bar, uint64_t address);
/* The BAR's memory, given an address if it has none, decoding on. */
void *pci_bar_map(int devfn, unsigned bar);
/* Memory-mapped configuration space of a function of bus 0 by the MCFG table. */
void *pci_ecam(int devfn);

/* Turns MSI-X on; every entry is masked. */
void pci_msix_enable(int devfn);
struct msix_entry { /* as the device has it */
    uint64_t address;
    uint32_t data, control;
};
struct msix_entry *pci_msix_entry(int devfn, unsigned entry);
bool pci_msix_pending(int devfn, unsigned entry);
/* Message to this processor as `vector`, unmasked. */
void pci_msix_route(int devfn, unsigned entry, unsigned vector);
