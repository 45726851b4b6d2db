/*
 * The PCIe host bridge: bus 0 with its 32 slots, and the two ways to its configuration space: the memory-mapped window
 * of one bus [PCIe 5.0 7.2.2] and the port pair 0xCF8, 0xCFC [PCI 3.0 3.2.2.3.2].  The byte at 0xCF9, within the first
 * of the ports, is the reset control register that chipsets have there.
 *
 * Windows onto other functions are forwarders: they take the lane of the function behind the address.  The table of
 * slots does not change once the machine runs.
 */
#include "devices/pci/private.h"

#include <inttypes.h>

enum { CF8_PORT = 0xcf8, CFC_PORT = 0xcfc, RESET_CTL = 1 };
enum { CF8_ENABLE = 1u << 31 };
enum { RESET_CPU = 1 << 2, RESET_WMASK = 0x0e };

struct host_state {
    uint32_t cf8, reset_ctl;
};

struct pci_bus {
    struct device dev;
    uint64_t ecam_base;
    uint32_t gsi;
    struct pci_func func; /* the bridge's own, in slot 0 */
    struct pci_func *slots[PCI_SLOTS];
    struct region cf8, cfc, ecam;
    struct host_state s;
};

static const struct field host_fields[] = {F_U32(struct host_state, cf8), F_U32(struct host_state, reset_ctl), F_END};
static const struct state_desc host_desc = {"pci-host", 1, sizeof(struct host_state), host_fields, NULL};

int pci_bus_attach(struct pci_bus *b, struct pci_func *f, int slot, struct err *err)
{
    struct device_env *env = f->dev->env;

    if (slot < 0) {
        for (slot = 0; slot < PCI_SLOTS && b->slots[slot]; slot++)
            ;
    }
    if (slot >= PCI_SLOTS)
        return err_set(err, ENOSPC, "%s: PCI bus 0 is full (%d slots); remove a device", f->dev->id, PCI_SLOTS);
    if (b->slots[slot])
        return err_set(err, EBUSY, "%s: PCI slot %d is taken by %s; choose another", f->dev->id, slot,
                       b->slots[slot]->dev->id);
    b->slots[slot] = f;
    f->bus = b;
    f->slot = slot;
    f->intx_line = env->line(env, pci_slot_gsi(b, slot));
    return 0;
}

void pci_bus_detach(struct pci_func *f)
{
    f->bus->slots[f->slot] = NULL;
    f->bus = NULL;
}

unsigned pci_slot_gsi(const struct pci_bus *b, unsigned slot)
{
    return b->gsi + slot % PCI_INTX_LINES;
}

uint32_t pci_cfg_read(struct pci_bus *b, unsigned slot, unsigned off, unsigned size)
{
    struct pci_func *f = slot < PCI_SLOTS ? b->slots[slot] : NULL;
    uint32_t val;

    if (!f)
        return UINT32_MAX;
    lane_lock(&f->dev->lane);
    val = pci_func_read(f, off, size);
    lane_unlock(&f->dev->lane);
    return val;
}

void pci_cfg_write(struct pci_bus *b, unsigned slot, unsigned off, uint32_t val, unsigned size)
{
    struct pci_func *f = slot < PCI_SLOTS ? b->slots[slot] : NULL;

    if (!f)
        return;
    lane_lock(&f->dev->lane);
    pci_func_write(f, off, val, size);
    lane_unlock(&f->dev->lane);
}

/* Both windows: bits 2 to 0 of `devfn` are the function, of which each slot has number 0 only. */
static uint64_t window_read(struct pci_bus *b, unsigned devfn, unsigned off, unsigned size)
{
    return devfn % 8 ? UINT64_MAX : pci_cfg_read(b, devfn / 8, off, size);
}

static void window_write(struct pci_bus *b, unsigned devfn, unsigned off, uint64_t val, unsigned size)
{
    if (devfn % 8 == 0)
        pci_cfg_write(b, devfn / 8, off, val, size);
}

static uint64_t ecam_read(struct region *r, uint64_t off, unsigned size)
{
    return window_read(container_of(r, struct pci_bus, ecam), off >> 12, off & 0xfff, size);
}

static void ecam_write(struct region *r, uint64_t off, uint64_t val, unsigned size)
{
    window_write(container_of(r, struct pci_bus, ecam), off >> 12, off & 0xfff, val, size);
}

/* What 0xCF8 selects: false when that is nothing on this bus. */
static bool cf8_target(struct pci_bus *b, unsigned *devfn, unsigned *reg)
{
    uint32_t cf8;

    lane_lock(&b->dev.lane);
    cf8 = b->s.cf8;
    lane_unlock(&b->dev.lane);
    *devfn = cf8 >> 8 & 0xff;
    *reg = cf8 & 0xfc;
    return cf8 & CF8_ENABLE && (cf8 >> 16 & 0xff) == 0;
}

static uint64_t cfc_read(struct region *r, uint64_t off, unsigned size)
{
    struct pci_bus *b = container_of(r, struct pci_bus, cfc);
    unsigned devfn, reg;

    return cf8_target(b, &devfn, &reg) ? window_read(b, devfn, reg + off, size) : UINT64_MAX;
}

static void cfc_write(struct region *r, uint64_t off, uint64_t val, unsigned size)
{
    struct pci_bus *b = container_of(r, struct pci_bus, cfc);
    unsigned devfn, reg;

    if (cf8_target(b, &devfn, &reg))
        window_write(b, devfn, reg + off, val, size);
}

static uint64_t cf8_read(struct region *r, uint64_t off, unsigned size)
{
    struct pci_bus *b = container_of(r, struct pci_bus, cf8);

    if (size == 4)
        return b->s.cf8;
    return off == RESET_CTL ? b->s.reset_ctl : UINT64_MAX;
}

static void cf8_write(struct region *r, uint64_t off, uint64_t val, unsigned size)
{
    struct pci_bus *b = container_of(r, struct pci_bus, cf8);
    uint32_t old = b->s.reset_ctl;

    if (size == 4) {
        b->s.cf8 = val & ~0x7f000003u;
    } else if (off == RESET_CTL) {
        b->s.reset_ctl = val & RESET_WMASK;
        if (b->s.reset_ctl & ~old & RESET_CPU)
            b->dev.env->request(b->dev.env, REQ_RESET, 0);
    }
}

static const struct region_ops ecam_ops = {.read = ecam_read, .write = ecam_write, .sizes = 1 | 2 | 4};
static const struct region_ops cfc_ops = {.read = cfc_read, .write = cfc_write, .sizes = 1 | 2 | 4};
static const struct region_ops cf8_ops = {.read = cf8_read, .write = cf8_write, .sizes = 1 | 4};

/* A place of that size in what is left of the window. */
static bool window_take(struct pci_window *w, uint64_t size, uint64_t *ret)
{
    uint64_t base = align_up(w->base, size), skip = base - w->base;

    if (!range_fits(skip, size, w->len))
        return false;
    *w = (struct pci_window){.base = base + size, .len = w->len - skip - size};
    *ret = base;
    return true;
}

static int func_assign(struct pci_func *f, struct pci_window *low, struct pci_window *high, struct err *err)
{
    for (unsigned i = 0; i < PCI_STD_NUM_BARS; i++) {
        struct pci_bar *bar = &f->bars[i];
        uint64_t addr;
        int ret;

        if (!bar->region)
            continue;
        if (!window_take(low, bar->size, &addr) && !(bar->is64 && window_take(high, bar->size, &addr)))
            return err_set(err, ENOSPC, "%s: no room for BAR %u of %" PRIu64 " bytes", f->dev->id, i, bar->size);
        ret = pci_func_place(f, i, addr, err);
        if (ret) {
            err_wrap(err, "%s: BAR %u at %#" PRIx64, f->dev->id, i, addr);
            return ret;
        }
    }
    return 0;
}

int pci_bus_assign(struct pci_bus *b, struct pci_window low, struct pci_window high, struct err *err)
{
    int ret = 0;

    for (unsigned i = 0; i < PCI_SLOTS && !ret; i++) {
        struct pci_func *f = b->slots[i];

        if (!f)
            continue;
        lane_lock(&f->dev->lane);
        ret = func_assign(f, &low, &high, err);
        lane_unlock(&f->dev->lane);
    }
    return ret;
}

static int host_init(struct device *d, struct err *err)
{
    static const struct pci_ids ids = {
        .vendor = 0x1b36, .device = 0x0008, .class_code = 0x060000}; /* a PCIe host bridge that no driver binds */
    struct pci_bus *b = container_of(d, struct pci_bus, dev);
    int ret;

    b->cf8 = (struct region){.name = "pci-cf8", .ops = &cf8_ops, .lane = &d->lane, .len = 4};
    b->cfc = (struct region){.name = "pci-cfc", .ops = &cfc_ops, .len = 4};
    b->ecam = (struct region){.name = "pci-ecam", .ops = &ecam_ops, .len = PCI_ECAM_SIZE};
    if (d->env->pci)
        return err_set(err, EEXIST, "%s: there is a PCI bus already, and a machine has one", d->id);
    d->env->pci = b;
    ret = pci_func_init(&b->func, d, 0, &ids, NULL, err);
    if (ret)
        return ret;
    b->func.dflt[PCI_INTERRUPT_PIN] = b->func.dflt[PCI_INTERRUPT_LINE] = 0;
    device_add_state(d, "", &host_desc, &b->s, 1);
    ret = bus_map(d->env->pio, &b->cf8, CF8_PORT, err);
    if (!ret)
        ret = bus_map(d->env->pio, &b->cfc, CFC_PORT, err);
    if (!ret)
        ret = bus_map(d->env->mmio, &b->ecam, b->ecam_base, err);
    return ret;
}

static void host_fini(struct device *d)
{
    struct pci_bus *b = container_of(d, struct pci_bus, dev);

    bus_unmap(&b->ecam);
    bus_unmap(&b->cfc);
    bus_unmap(&b->cf8);
    pci_func_fini(&b->func);
    if (d->env->pci == b)
        d->env->pci = NULL;
}

static void host_reset(struct device *d)
{
    struct pci_bus *b = container_of(d, struct pci_bus, dev);

    b->s = (struct host_state){0};
}

static const struct opt host_opts[] = {
    O_U64(struct pci_bus, ecam_base, "ecam", "0xe0000000", 0, UINT32_MAX - PCI_ECAM_SIZE + 1,
          "address of the configuration window"),
    O_U32(struct pci_bus, gsi, "irq", "16", 0, 20, "first of the four interrupt lines"),
    O_END,
};

const struct device_class pci_host = {
    .name = "pci-host",
    .summary = "PCIe host bridge",
    .size = DEVICE_SIZE(struct pci_bus, dev),
    .opts = host_opts,
    .internal = true,
    .init = host_init,
    .fini = host_fini,
    .reset = host_reset,
};
