/*
 * PCI functions on bus 0 behind a PCIe host bridge [PCI 3.0 6, PCIe 5.0 7]: configuration space with write masks, BARs
 * that the guest may move, capabilities, MSI-X and INTx.  Every slot has one function, a root-complex integrated
 * endpoint.  256 bytes are kept; the extended space behind them reads as zeroes: no extended capability.
 *
 * The bus is the class "pci-host": its init makes env->pci.
 *
 * A function is embedded in its device and lives in that device's lane: all functions below are for init, or for in the
 * lane, unless they say otherwise.
 */
#pragma once
#include <linux/pci_regs.h>

#include "devices/core/device.h"
#include "vmm/base/log.h"

enum {
    PCI_SLOTS = 32,
    PCI_MSIX_MAX = 256,
    PCI_ECAM_SIZE = 1 << 20, /* one bus */
    PCI_INTX_LINES = 4,
};

struct pci_bus;
struct pci_func;

struct pci_ids {
    uint16_t vendor, device, subvendor, subdevice;
    uint32_t class_code; /* 24 bits: class, subclass, programming interface */
    uint8_t revision;
};

struct pci_func_ops { /* each may be NULL */
    /* The guest is about to read `n` bytes at `off` / has written them. */
    void (*cfg_read)(struct pci_func *f, unsigned off, unsigned n);
    void (*cfg_written)(struct pci_func *f, unsigned off, unsigned n);
    /* The BAR's region now decodes at its address / is about to be unmapped. */
    void (*bar_mapped)(struct pci_func *f, unsigned bar, bool mapped);
};

struct pci_bar {
    struct region *region; /* borrowed; NULL: none, or the upper half of a 64-bit one */
    uint64_t size;
    bool is64;
};

struct pci_vector { /* one MSI-X table entry */
    uint64_t addr;
    uint32_t data;
    uint32_t flags;
};

struct pci_wire { /* an eventfd whose signals are a vector's messages */
    int fd;       /* borrowed; -1: none */
    bool live;    /* the host's kernel sends them, as: */
    struct msi as;
};

struct pci_state {
    uint8_t cfg[PCI_CFG_SPACE_SIZE];
};

struct pci_func {
    struct device *dev; /* borrowed */
    const struct pci_func_ops *ops;
    struct pci_bus *bus; /* borrowed; NULL: not initialised */
    unsigned slot;
    struct device_hook hook;
    uint8_t wmask[PCI_CFG_SPACE_SIZE]; /* bits that the guest may write */
    uint8_t dflt[PCI_CFG_SPACE_SIZE];  /* after reset */
    unsigned cap_last, cap_end;        /* offsets: the last capability, the first free byte */
    struct pci_bar bars[PCI_STD_NUM_BARS];
    unsigned msix_cap, nvectors; /* 0: no MSI-X */
    struct pci_vector *vectors;  /* owned, as is the next */
    struct pci_wire *wires;      /* by vector */
    struct region msix_region;
    struct irq intx_line;
    bool intx; /* what the device asks for */
    struct log_limit limit;
    struct pci_state s;
};

/* Puts the function in `slot`, or in the next free one for -1.  Its configuration space and MSI-X table become state of
 * `d`.  `f` is zeroed. */
int pci_func_init(struct pci_func *f, struct device *d, int slot, const struct pci_ids *ids,
                  const struct pci_func_ops *ops, struct err *err) must_check;
void pci_func_fini(struct pci_func *f); /* copes with a half-done init */

/* A memory BAR: the region is mapped and moved as the guest programs it.  Size: power of two, ≥ 4 KiB; it becomes the
 * region's length.  A 64-bit one takes two. */
void pci_add_bar(struct pci_func *f, unsigned bar, bool is64, struct region *r, uint64_t size);
/* Appends a capability of `len` bytes (header included, next pointer filled in here); returns its offset.  `wmask`
 * (may be NULL) says which bits the guest may write. */
unsigned pci_add_capability(struct pci_func *f, const void *cap, const void *wmask, unsigned len);
/* MSI-X with `n` vectors; table and PBA get the 32-bit `bar` for themselves. */
void pci_add_msix(struct pci_func *f, unsigned bar, unsigned n);

/* Sends the message, or marks it pending while masked; vectors out of range are dropped, as all are while MSI-X is off.
 * Bus Master Enable is not asked for. */
void pci_msix_fire(struct pci_func *f, unsigned vector);
bool pci_msix_enabled(const struct pci_func *f);
/*
 * As long as the vector may send, the host's kernel sends its message for each signal of `fd`; else, and where the
 * kernel cannot, the signal stays for whoever waits for it.  A vector has one such descriptor; others are left alone.
 */
void pci_msix_wire(struct pci_func *f, unsigned vector, int fd);
void pci_msix_unwire(struct pci_func *f, int fd); /* before it is closed; no-op when it is not wired */
/* Level of the function's INTx pin; nothing goes out while MSI-X is on or Interrupt Disable is set. */
void pci_set_intx(struct pci_func *f, bool level);

/* Configuration accesses of any alignment; the lane is taken here.  A slot without function reads as ones. */
uint32_t pci_cfg_read(struct pci_bus *b, unsigned slot, unsigned off, unsigned size);
void pci_cfg_write(struct pci_bus *b, unsigned slot, unsigned off, uint32_t val, unsigned size);

/* Where BARs may be placed; a length of 0: nowhere. */
struct pci_window {
    uint64_t base, len;
};
/*
 * What firmware would do after reset: gives every BAR an address, in slot order, and turns decoding on.  64-bit BARs go
 * to `high` only when `low` is full.  Fails when a BAR fits nowhere.  Stopped, takes the lanes.
 */
int pci_bus_assign(struct pci_bus *b, struct pci_window low, struct pci_window high, struct err *err) must_check;
/* The interrupt line of the function's pin, for the routing table of the firmware (_PRT). */
unsigned pci_slot_gsi(const struct pci_bus *b, unsigned slot);
