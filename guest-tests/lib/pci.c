#include "guest-tests/lib/pci.h"

#include "guest-tests/lib/boot.h"
#include "guest-tests/lib/cpu.h"
#include "guest-tests/lib/io.h"
#include "guest-tests/lib/test.h"

enum { ADDRESS = 0xcf8, DATA = 0xcfc, MSIX_ENABLE = 1 << 15, MSIX_TABLE = 4, MSIX_PBA = 8 };

static void select(int devfn, unsigned reg)
{
    outl(ADDRESS, 0x80000000 | devfn << 8 | (reg & 0xfc));
}

uint32_t pci_read32(int devfn, unsigned reg)
{
    select(devfn, reg);
    return inl(DATA);
}

uint16_t pci_read16(int devfn, unsigned reg)
{
    select(devfn, reg);
    return inw(DATA + (reg & 2));
}

uint8_t pci_read8(int devfn, unsigned reg)
{
    select(devfn, reg);
    return inb(DATA + (reg & 3));
}

void pci_write32(int devfn, unsigned reg, uint32_t v)
{
    select(devfn, reg);
    outl(DATA, v);
}

void pci_write16(int devfn, unsigned reg, uint16_t v)
{
    select(devfn, reg);
    outw(DATA + (reg & 2), v);
}

bool pci_present(void)
{
    outl(ADDRESS, 0x80000000);
    return inl(ADDRESS) == 0x80000000;
}

int pci_find(uint16_t vendor, uint16_t device, unsigned nth)
{
    for (int devfn = 0; devfn < 256; devfn += 8)
        if (pci_read32(devfn, PCI_VENDOR) == ((uint32_t)device << 16 | vendor) && nth-- == 0)
            return devfn;
    return PCI_NONE;
}

unsigned pci_capability(int devfn, uint8_t id, unsigned after)
{
    unsigned at = pci_read8(devfn, after ? after + 1 : PCI_CAPABILITIES);

    for (int guard = 0; at && guard < 48; guard++, at = pci_read8(devfn, at + 1))
        if (pci_read8(devfn, at) == id)
            return at;
    return 0;
}

static bool is_64(int devfn, unsigned bar)
{
    return (pci_read32(devfn, PCI_BAR0 + 4 * bar) & 7) == 4;
}

uint64_t pci_bar(int devfn, unsigned bar, uint64_t *size)
{
    uint16_t command = pci_read16(devfn, PCI_COMMAND);
    unsigned reg = PCI_BAR0 + 4 * bar;
    uint32_t low = pci_read32(devfn, reg), high = 0, high_mask = 0xffffffff;
    bool wide = is_64(devfn, bar);

    pci_write16(devfn, PCI_COMMAND, command & ~PCI_COMMAND_MEMORY);
    pci_write32(devfn, reg, 0xffffffff);
    uint32_t low_mask = pci_read32(devfn, reg) & ~0xfu;
    pci_write32(devfn, reg, low);
    if (wide) {
        high = pci_read32(devfn, reg + 4);
        pci_write32(devfn, reg + 4, 0xffffffff);
        high_mask = pci_read32(devfn, reg + 4);
        pci_write32(devfn, reg + 4, high);
    }
    pci_write16(devfn, PCI_COMMAND, command);
    *size = -((uint64_t)high_mask << 32 | low_mask);
    return (uint64_t)high << 32 | (low & ~0xfu);
}

void pci_bar_set(int devfn, unsigned bar, uint64_t address)
{
    pci_write32(devfn, PCI_BAR0 + 4 * bar, address);
    if (is_64(devfn, bar))
        pci_write32(devfn, PCI_BAR0 + 4 * bar + 4, address >> 32);
}

void *pci_bar_map(int devfn, unsigned bar)
{
    static uint64_t next = 0xc8000000; /* where nothing was put before */
    uint64_t size, at = pci_bar(devfn, bar, &size);

    CHECK(size);
    if (!at) {
        at = next = (next + size - 1) & ~(size - 1);
        next += size;
        pci_bar_set(devfn, bar, at);
    }
    pci_write16(devfn, PCI_COMMAND, pci_read16(devfn, PCI_COMMAND) | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    return map(at, size);
}

void *pci_ecam(int devfn)
{
    const uint8_t *mcfg = acpi_find("MCFG");

    if (!mcfg)
        skip("no memory-mapped configuration space");

    return map(get64(mcfg + 44) + (devfn << 12), 4096);
}

static unsigned msix(int devfn)
{
    unsigned cap = pci_capability(devfn, PCI_CAP_MSIX, 0);

    CHECK(cap);
    return cap;
}

static volatile uint8_t *msix_memory(int devfn, unsigned which)
{
    uint32_t v = pci_read32(devfn, msix(devfn) + which);

    return (volatile uint8_t *)pci_bar_map(devfn, v & 7) + (v & ~7u);
}

struct msix_entry *pci_msix_entry(int devfn, unsigned entry)
{
    return (struct msix_entry *)msix_memory(devfn, MSIX_TABLE) + entry;
}

bool pci_msix_pending(int devfn, unsigned entry)
{
    return read32(msix_memory(devfn, MSIX_PBA) + entry / 32 * 4) >> entry % 32 & 1;
}

void pci_msix_enable(int devfn)
{
    unsigned cap = msix(devfn);

    pci_write16(devfn, cap + 2, pci_read16(devfn, cap + 2) | MSIX_ENABLE);
}

void pci_msix_route(int devfn, unsigned entry, unsigned vector)
{
    struct msix_entry *e = pci_msix_entry(devfn, entry);

    write32(&e->address, 0xfee00000 | apic_id() << 12);
    write32((uint8_t *)&e->address + 4, 0);
    write32(&e->data, vector);
    write32(&e->control, 0);
}
