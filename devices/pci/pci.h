/*
 * PCI functions on bus 0 behind a PCIe host bridge [PCI 3.0 6, PCIe 5.0 7]: configuration space with write masks, BARs
 * that the guest may move, capabilities, MSI-X and INTx.
 */
#pragma once
#include "devices/core/device.h"

enum { PCI_CFG_SIZE = 4096, PCI_BARS = 6, PCI_SLOTS = 32, PCI_MSIX_MAX = 256 };

struct pci_func;
struct pci_bus;

struct pci_ids {
    uint16_t vendor, device, subvendor, subdevice;
    uint32_t class_code; /* 24 bits: class, subclass, programming interface */
    uint8_t revision;
};

/* A BAR's decoder: the region is mapped and moved as the guest programs it.  Size: power of two, ≥ 4 KiB. */
int pci_bar(struct pci_func *f, unsigned bar, bool is64, struct region *r, uint64_t size, struct err *err) must_check;
/* Appends a capability of `len` bytes (header included, next pointer filled in here); returns its offset.  `wmask`
 * (may be NULL) says which bits the guest may write. */
unsigned pci_capability(struct pci_func *f, const uint8_t *cap, const uint8_t *wmask, unsigned len);
/* Table and PBA in `bar`, `n` vectors. */
int pci_msix(struct pci_func *f, unsigned bar, unsigned n, struct err *err) must_check;
/* Sends the message or marks it pending while masked; vectors out of range are dropped.  In the function's lane. */
void pci_msix_fire(struct pci_func *f, unsigned vector);
bool pci_msix_enabled(const struct pci_func *f);
/* Level of the function's INTx pin (ignored while MSI-X is on, or Interrupt Disable is set). */
void pci_intx(struct pci_func *f, bool level);
