/* MSI-X [PCI 3.0 6.8.2]: the table of messages and the pending bits, in a BAR of their own: the table at its start, the
 * pending bits in its second half.  A message is copied out of the table when it is sent. */
#include "devices/pci/private.h"

#include "vmm/base/cleanup.h"

enum { VECTOR_MASKED = 1 << 0, VECTOR_PENDING = 1 << 1 };

static int vector_check(void *obj, struct err *err)
{
    const struct pci_vector *v = obj;

    if (v->flags & ~(VECTOR_MASKED | VECTOR_PENDING))
        return err_set(err, EBADMSG, "MSI-X vector flags %#x", v->flags);
    return 0;
}

static const struct field vector_fields[] = {F_U64(struct pci_vector, addr), F_U32(struct pci_vector, data),
                                             F_U32(struct pci_vector, flags), F_END};
static const struct state_desc vector_desc = {"msix", 1, sizeof(struct pci_vector), vector_fields, vector_check};

static uint16_t control(const struct pci_func *f)
{
    return get_le16(f->s.cfg + f->msix_cap + PCI_MSIX_FLAGS);
}

bool pci_msix_enabled(const struct pci_func *f)
{
    return f->nvectors && control(f) & PCI_MSIX_FLAGS_ENABLE;
}

static bool may_send(const struct pci_func *f, const struct pci_vector *v)
{
    return !(v->flags & VECTOR_MASKED) &&
           (control(f) & (PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL)) == PCI_MSIX_FLAGS_ENABLE;
}

void pci_msix_fire(struct pci_func *f, unsigned vector)
{
    struct msi_sink *sink = f->dev->env->msi;
    struct pci_vector *v;

    if (vector >= f->nvectors || !pci_msix_enabled(f))
        return;
    v = &f->vectors[vector];
    if (!may_send(f, v)) {
        v->flags |= VECTOR_PENDING;
        return;
    }
    v->flags &= ~VECTOR_PENDING;
    sink->send(sink, (struct msi){.addr = v->addr, .data = v->data});
}

/* Has the host's kernel send what the vector says now, or nothing. */
static void rewire(struct pci_func *f, unsigned vector)
{
    struct msi_sink *sink = f->dev->env->msi;
    const struct pci_vector *v = &f->vectors[vector];
    struct pci_wire *w = &f->wires[vector];
    bool want = w->fd >= 0 && sink->wire && may_send(f, v);

    if (w->live && want && w->as.addr == v->addr && w->as.data == v->data)
        return;
    if (w->live)
        sink->unwire(sink, w->fd);
    w->as = (struct msi){.addr = v->addr, .data = v->data};
    w->live = want && !sink->wire(sink, w->fd, w->as);
}

void pci_msix_wire(struct pci_func *f, unsigned vector, int fd)
{
    if (vector >= f->nvectors || f->wires[vector].fd >= 0)
        return;
    f->wires[vector].fd = fd;
    rewire(f, vector);
}

void pci_msix_unwire(struct pci_func *f, int fd)
{
    for (unsigned i = 0; i < f->nvectors; i++) {
        struct pci_wire *w = &f->wires[i];

        if (w->fd != fd)
            continue;
        if (w->live)
            f->dev->env->msi->unwire(f->dev->env->msi, fd);
        *w = (struct pci_wire){.fd = -1};
    }
}

static void changed(struct pci_func *f, unsigned vector)
{
    if (f->vectors[vector].flags & VECTOR_PENDING)
        pci_msix_fire(f, vector);
    rewire(f, vector);
}

void pci_msix_update(struct pci_func *f)
{
    for (unsigned i = 0; i < f->nvectors; i++)
        changed(f, i);
}

static uint64_t msix_read(struct region *r, uint64_t off, unsigned size)
{
    struct pci_func *f = container_of(r, struct pci_func, msix_region);
    uint32_t pending = 0;

    (void)size;
    if (off / PCI_MSIX_ENTRY_SIZE < f->nvectors) {
        const struct pci_vector *v = &f->vectors[off / PCI_MSIX_ENTRY_SIZE];

        switch (off % PCI_MSIX_ENTRY_SIZE) {
        case PCI_MSIX_ENTRY_LOWER_ADDR:
            return (uint32_t)v->addr;
        case PCI_MSIX_ENTRY_UPPER_ADDR:
            return v->addr >> 32;
        case PCI_MSIX_ENTRY_DATA:
            return v->data;
        case PCI_MSIX_ENTRY_VECTOR_CTRL:
            return v->flags & VECTOR_MASKED ? PCI_MSIX_ENTRY_CTRL_MASKBIT : 0;
        }
    }
    if (off < r->len / 2)
        return 0;
    for (unsigned i = 0, vector = (off - r->len / 2) * 8; i < 32 && vector + i < f->nvectors; i++)
        pending |= (uint32_t) !!(f->vectors[vector + i].flags & VECTOR_PENDING) << i;
    return pending;
}

static void msix_write(struct region *r, uint64_t off, uint64_t val, unsigned size)
{
    struct pci_func *f = container_of(r, struct pci_func, msix_region);
    unsigned vector = off / PCI_MSIX_ENTRY_SIZE;
    struct pci_vector *v;

    (void)size;
    if (vector >= f->nvectors)
        return;
    v = &f->vectors[vector];
    switch (off % PCI_MSIX_ENTRY_SIZE) {
    case PCI_MSIX_ENTRY_LOWER_ADDR:
        v->addr = (v->addr & ~0xffffffffull) | (val & ~3u);
        break;
    case PCI_MSIX_ENTRY_UPPER_ADDR:
        v->addr = (uint32_t)v->addr | val << 32;
        break;
    case PCI_MSIX_ENTRY_DATA:
        v->data = val;
        break;
    case PCI_MSIX_ENTRY_VECTOR_CTRL:
        v->flags = (v->flags & ~VECTOR_MASKED) | (val & PCI_MSIX_ENTRY_CTRL_MASKBIT ? VECTOR_MASKED : 0);
        break;
    }
    changed(f, vector);
}

static const struct region_ops msix_ops = {.read = msix_read, .write = msix_write, .sizes = 4};

void pci_msix_reset(struct pci_func *f)
{
    for (unsigned i = 0; i < f->nvectors; i++)
        f->vectors[i] = (struct pci_vector){.flags = VECTOR_MASKED};
}

void pci_add_msix(struct pci_func *f, unsigned bar, unsigned n)
{
    uint8_t cap[PCI_CAP_MSIX_SIZEOF] = {PCI_CAP_ID_MSIX}, wmask[PCI_CAP_MSIX_SIZEOF] = {0};
    uint64_t half = KiB(2);

    assert(n && n <= PCI_MSIX_MAX);
    while (half < n * PCI_MSIX_ENTRY_SIZE)
        half *= 2;
    put_le16(cap + PCI_MSIX_FLAGS, n - 1);
    put_le16(wmask + PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    put_le32(cap + PCI_MSIX_TABLE, bar);
    put_le32(cap + PCI_MSIX_PBA, half | bar);
    f->msix_cap = pci_add_capability(f, cap, wmask, sizeof(cap));
    f->nvectors = n;
    f->vectors = xcalloc(n, sizeof(*f->vectors));
    f->wires = xcalloc(n, sizeof(*f->wires));
    for (unsigned i = 0; i < n; i++)
        f->wires[i].fd = -1;
    f->msix_region = (struct region){.name = f->dev->id, .ops = &msix_ops};
    pci_add_bar(f, bar, false, &f->msix_region, 2 * half);
    device_add_state(f->dev, "msix", &vector_desc, f->vectors, n);
}
