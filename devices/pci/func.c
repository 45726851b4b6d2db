/*
 * A PCI function's configuration space, type 0 header [PCI 3.0 6.1, 6.2], as data: bytes, and a mask of the bits that
 * the guest may write.  What follows from a write (where BARs decode, whether the pin is driven) is computed from the
 * bytes each time, so that reset and load need nothing of their own.
 */
#include "devices/pci/private.h"

#include <inttypes.h>
#include <stdlib.h>

#include "vmm/base/log.h"

static int pci_check(void *obj, struct err *err)
{
    struct pci_func *f = container_of(obj, struct pci_func, s);

    for (unsigned i = 0; i < sizeof(f->s.cfg); i++) {
        if ((f->s.cfg[i] ^ f->dflt[i]) & ~f->wmask[i])
            return err_set(err, EBADMSG, "configuration byte %#x is %#x, which this function cannot have", i,
                           f->s.cfg[i]);
    }
    return 0;
}

static const struct field pci_fields[] = {F_BYTES(struct pci_state, cfg), F_END};
static const struct state_desc pci_desc = {"pci", 1, sizeof(struct pci_state), pci_fields, pci_check};

/* The address in the BAR, and whether the guest has put one there: 0 is unplaced, all ones asks for the size. */
static bool bar_addr(const struct pci_func *f, unsigned bar, uint64_t *ret)
{
    const uint8_t *p = f->s.cfg + PCI_BASE_ADDRESS_0 + 4 * bar;
    uint64_t mask = ~(f->bars[bar].size - 1);
    uint64_t addr = get_le32(p) & mask;

    if (f->bars[bar].is64)
        addr |= (uint64_t)get_le32(p + 4) << 32;
    else
        mask = (uint32_t)mask;
    *ret = addr;
    return addr && addr != mask;
}

static bool over_ram(const struct gmem *m, uint64_t addr, uint64_t size)
{
    const struct gmem_range *r;
    unsigned n = gmem_ranges(m, &r);

    for (unsigned i = 0; i < n; i++) {
        if (addr < r[i].base ? r[i].base - addr < size : addr - r[i].base < r[i].size)
            return true;
    }
    return false;
}

static void bar_unmap(struct pci_func *f, unsigned bar)
{
    struct region *r = f->bars[bar].region;

    if (!r || !r->bus)
        return;
    if (f->ops && f->ops->bar_mapped)
        f->ops->bar_mapped(f, bar, false);
    bus_unmap(r);
}

static int bar_map(struct pci_func *f, unsigned bar, uint64_t addr, struct err *err)
{
    struct pci_bar *b = &f->bars[bar];
    int ret;

    if (over_ram(f->dev->env->mem, addr, b->size))
        return err_set(err, EEXIST, "RAM is there");
    ret = bus_map(f->dev->env->mmio, b->region, addr, err);
    if (!ret && f->ops && f->ops->bar_mapped)
        f->ops->bar_mapped(f, bar, true);
    return ret;
}

/* Makes the regions decode where the registers say.  A BAR that cannot be there decodes nothing. */
static void bars_update(struct pci_func *f)
{
    bool on = get_le16(f->s.cfg + PCI_COMMAND) & PCI_COMMAND_MEMORY;

    for (unsigned i = 0; i < PCI_STD_NUM_BARS; i++) {
        struct region *r = f->bars[i].region;
        struct err err;
        uint64_t addr;
        bool placed;

        if (!r)
            continue;
        placed = bar_addr(f, i, &addr) && on;
        if (r->bus && placed && r->base == addr)
            continue;
        bar_unmap(f, i);
        if (placed && bar_map(f, i, addr, &err))
            log_guest(&f->limit, "%s: BAR %u at %#" PRIx64 " decodes nothing: %s", f->dev->id, i, addr, err.msg);
    }
}

void pci_intx_update(struct pci_func *f)
{
    bool off = get_le16(f->s.cfg + PCI_COMMAND) & PCI_COMMAND_INTX_DISABLE;

    irq_set(f->intx_line, f->intx && !off && !pci_msix_enabled(f));
}

void pci_set_intx(struct pci_func *f, bool level)
{
    f->intx = level;
    pci_intx_update(f);
}

uint32_t pci_func_read(struct pci_func *f, unsigned off, unsigned size)
{
    uint32_t val = 0;

    if (f->ops && f->ops->cfg_read)
        f->ops->cfg_read(f, off, size);
    for (unsigned i = 0; i < size && off + i < sizeof(f->s.cfg); i++) {
        uint8_t byte = f->s.cfg[off + i];

        if (off + i == PCI_STATUS && f->intx)
            byte |= PCI_STATUS_INTERRUPT;
        val |= (uint32_t)byte << 8 * i;
    }
    return val;
}

static bool touches(unsigned off, unsigned size, unsigned reg, unsigned len)
{
    return off < reg + len && reg < off + size;
}

void pci_func_write(struct pci_func *f, unsigned off, uint32_t val, unsigned size)
{
    for (unsigned i = 0; i < size && off + i < sizeof(f->s.cfg); i++) {
        uint8_t *byte = &f->s.cfg[off + i], mask = f->wmask[off + i];

        *byte = (*byte & ~mask) | (val >> 8 * i & mask);
    }
    if (touches(off, size, PCI_COMMAND, 2) || touches(off, size, PCI_BASE_ADDRESS_0, 4 * PCI_STD_NUM_BARS))
        bars_update(f);
    if (f->nvectors && touches(off, size, f->msix_cap + PCI_MSIX_FLAGS, 2))
        pci_msix_update(f);
    pci_intx_update(f);
    if (f->ops && f->ops->cfg_written)
        f->ops->cfg_written(f, off, size);
}

int pci_func_place(struct pci_func *f, unsigned bar, uint64_t addr, struct err *err)
{
    uint8_t *p = f->s.cfg + PCI_BASE_ADDRESS_0 + 4 * bar;

    put_le32(p, (uint32_t)addr | f->dflt[PCI_BASE_ADDRESS_0 + 4 * bar]);
    if (f->bars[bar].is64)
        put_le32(p + 4, addr >> 32);
    put_le16(f->s.cfg + PCI_COMMAND, get_le16(f->s.cfg + PCI_COMMAND) | PCI_COMMAND_MEMORY);
    bar_unmap(f, bar);
    return bar_map(f, bar, addr, err);
}

static void func_reset(struct device_hook *h)
{
    struct pci_func *f = container_of(h, struct pci_func, hook);

    for (unsigned i = 0; i < PCI_STD_NUM_BARS; i++)
        bar_unmap(f, i);
    memcpy(f->s.cfg, f->dflt, sizeof(f->s.cfg));
    f->intx = false;
    pci_msix_reset(f);
}

static void func_settle(struct device_hook *h)
{
    struct pci_func *f = container_of(h, struct pci_func, hook);

    bars_update(f);
    pci_intx_update(f);
}

void pci_add_bar(struct pci_func *f, unsigned bar, bool is64, struct region *r, uint64_t size)
{
    unsigned reg = PCI_BASE_ADDRESS_0 + 4 * bar;

    assert(bar + is64 < PCI_STD_NUM_BARS && !f->bars[bar].region);
    assert(is_pow2(size) && size >= KiB(4) && (is64 || size <= GiB(2)));
    r->len = size;
    r->lane = &f->dev->lane;
    f->bars[bar] = (struct pci_bar){.region = r, .size = size, .is64 = is64};
    put_le32(f->wmask + reg, (uint32_t) ~(size - 1));
    if (is64) {
        put_le32(f->dflt + reg, PCI_BASE_ADDRESS_MEM_TYPE_64);
        put_le32(f->wmask + reg + 4, ~(size - 1) >> 32);
    }
}

unsigned pci_add_capability(struct pci_func *f, const void *cap, const void *wmask, unsigned len)
{
    unsigned off = f->cap_end;

    assert(len >= PCI_CAP_SIZEOF && range_fits(off, len, sizeof(f->dflt)));
    memcpy(f->dflt + off, cap, len);
    f->dflt[off + PCI_CAP_LIST_NEXT] = 0;
    if (wmask)
        memcpy(f->wmask + off, wmask, len);
    f->dflt[f->cap_last] = off;
    f->cap_last = off + PCI_CAP_LIST_NEXT;
    f->cap_end = align_up(off + len, 4);
    return off;
}

/* [PCIe 5.0 7.5.3], version 2, with the link and slot registers that an integrated endpoint leaves at 0. */
static void add_express(struct pci_func *f)
{
    uint8_t cap[PCI_EXP_SLTSTA2 + 2] = {PCI_CAP_ID_EXP}, wmask[sizeof(cap)] = {0};

    put_le16(cap + PCI_EXP_FLAGS, 2 | PCI_EXP_TYPE_RC_END << 4);
    put_le32(cap + PCI_EXP_DEVCAP, PCI_EXP_DEVCAP_RBER);
    put_le16(wmask + PCI_EXP_DEVCTL, PCI_EXP_DEVCTL_CERE | PCI_EXP_DEVCTL_NFERE | PCI_EXP_DEVCTL_FERE |
                                         PCI_EXP_DEVCTL_URRE | PCI_EXP_DEVCTL_PAYLOAD | PCI_EXP_DEVCTL_READRQ);
    pci_add_capability(f, cap, wmask, sizeof(cap));
}

int pci_func_init(struct pci_func *f, struct device *d, int slot, const struct pci_ids *ids,
                  const struct pci_func_ops *ops, struct err *err)
{
    int ret;

    f->dev = d;
    f->ops = ops;
    ret = pci_bus_attach(d->env->pci, f, slot, err);
    if (ret)
        return ret;

    put_le16(f->dflt + PCI_VENDOR_ID, ids->vendor);
    put_le16(f->dflt + PCI_DEVICE_ID, ids->device);
    put_le16(f->dflt + PCI_SUBSYSTEM_VENDOR_ID, ids->subvendor);
    put_le16(f->dflt + PCI_SUBSYSTEM_ID, ids->subdevice);
    put_le32(f->dflt + PCI_CLASS_REVISION, ids->class_code << 8 | ids->revision);
    put_le16(f->dflt + PCI_STATUS, PCI_STATUS_CAP_LIST);
    f->dflt[PCI_INTERRUPT_PIN] = 1;
    f->dflt[PCI_INTERRUPT_LINE] = pci_slot_gsi(f->bus, f->slot);
    put_le16(f->wmask + PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
    f->wmask[PCI_CACHE_LINE_SIZE] = 0xff;
    f->wmask[PCI_INTERRUPT_LINE] = 0xff;
    f->cap_last = PCI_CAPABILITY_LIST;
    f->cap_end = PCI_STD_HEADER_SIZEOF;
    add_express(f);

    f->hook = (struct device_hook){.reset = func_reset, .settle = func_settle};
    device_add_hook(d, &f->hook);
    device_add_state(d, "pci", &pci_desc, &f->s, 1);
    return 0;
}

void pci_func_fini(struct pci_func *f)
{
    if (!f->bus)
        return;
    for (unsigned i = 0; i < PCI_STD_NUM_BARS; i++)
        bar_unmap(f, i);
    pci_bus_detach(f);
    free(f->vectors);
    free(f->wires);
    f->vectors = NULL;
    f->wires = NULL;
}
