/* Between the files of this folder. */
#pragma once
#include "devices/pci/pci.h"

/* host.c: enters the function at `slot` (-1: the next free one) and gives it its interrupt line. */
int pci_bus_attach(struct pci_bus *b, struct pci_func *f, int slot, struct err *err) must_check;
void pci_bus_detach(struct pci_func *f);

/* func.c; in the lane, as the rest. */
uint32_t pci_func_read(struct pci_func *f, unsigned off, unsigned size);
void pci_func_write(struct pci_func *f, unsigned off, uint32_t val, unsigned size);
/* Programs a BAR and turns memory decoding on; -EEXIST when something else is at that address. */
int pci_func_place(struct pci_func *f, unsigned bar, uint64_t addr, struct err *err) must_check;
/* Drives the INTx line from what the device asks for and what the guest allows. */
void pci_intx_update(struct pci_func *f);

/* msix.c */
void pci_msix_reset(struct pci_func *f);
/* After the guest changed the control word: sends what no longer is masked, rewires what now is. */
void pci_msix_update(struct pci_func *f);
