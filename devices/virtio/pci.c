/*
 * virtio over PCI, modern interface only [VIRTIO-v1.2 4.1]: BAR 0 holds one page each of common configuration, ISR,
 * device configuration and notify registers, BAR 4 the MSI-X table.  What a register means is the
 * core's business; here is where it is.
 */
#include "devices/virtio/pci.h"

#include <linux/virtio_ids.h>
#include <linux/virtio_pci.h>

#include "devices/pci/pci.h"
#include "devices/virtio/transport.h"
#include "vmm/base/cleanup.h"

enum { REGS_BAR = 0, MSIX_BAR = 4, REGS_SIZE = 0x4000, WINDOW_SIZE = 0x1000, NOTIFY_STEP = 4 };
enum { VIRTIO_VENDOR = 0x1af4, VIRTIO_DEVICE = 0x1040 };
enum { ISR_QUEUE = 1 << 0, ISR_CONFIG = 1 << 1 };

struct virtio_pci_state {
    uint32_t device_feature_select, driver_feature_select;
    uint16_t queue_select, isr;
};

struct virtio_pci {
    struct virtio_transport transport;
    struct virtio *v; /* borrowed */
    struct pci_func func;
    struct region regs;
    struct device_hook hook;
    unsigned cfg_cap; /* offset of the capability that reaches the BAR from configuration space */
    struct virtio_pci_state s;
};

static const struct field virtio_pci_fields[] = {
    F_U32(struct virtio_pci_state, device_feature_select),
    F_U32(struct virtio_pci_state, driver_feature_select),
    F_U16(struct virtio_pci_state, queue_select),
    F_U16(struct virtio_pci_state, isr),
    F_END,
};

static int virtio_pci_check(void *obj, struct err *err)
{
    struct virtio_pci_state *s = obj;

    return s->isr & ~(ISR_QUEUE | ISR_CONFIG) ? err_set(err, EBADMSG, "virtio ISR %#x", s->isr) : 0;
}

static const struct state_desc virtio_pci_desc = {"virtio-pci", 1, sizeof(struct virtio_pci_state), virtio_pci_fields,
                                                  virtio_pci_check};

/* Common configuration [4.1.4.3]: where registers begin, and how wide they are. */
static const struct reg {
    uint8_t off, width;
} regs[] = {
    {VIRTIO_PCI_COMMON_DFSELECT, 4},  {VIRTIO_PCI_COMMON_DF, 4},
    {VIRTIO_PCI_COMMON_GFSELECT, 4},  {VIRTIO_PCI_COMMON_GF, 4},
    {VIRTIO_PCI_COMMON_MSIX, 2},      {VIRTIO_PCI_COMMON_NUMQ, 2},
    {VIRTIO_PCI_COMMON_STATUS, 1},    {VIRTIO_PCI_COMMON_CFGGENERATION, 1},
    {VIRTIO_PCI_COMMON_Q_SELECT, 2},  {VIRTIO_PCI_COMMON_Q_SIZE, 2},
    {VIRTIO_PCI_COMMON_Q_MSIX, 2},    {VIRTIO_PCI_COMMON_Q_ENABLE, 2},
    {VIRTIO_PCI_COMMON_Q_NOFF, 2},    {VIRTIO_PCI_COMMON_Q_DESCLO, 4},
    {VIRTIO_PCI_COMMON_Q_DESCHI, 4},  {VIRTIO_PCI_COMMON_Q_AVAILLO, 4},
    {VIRTIO_PCI_COMMON_Q_AVAILHI, 4}, {VIRTIO_PCI_COMMON_Q_USEDLO, 4},
    {VIRTIO_PCI_COMMON_Q_USEDHI, 4},  {VIRTIO_PCI_COMMON_Q_NDATA, 2},
    {VIRTIO_PCI_COMMON_Q_RESET, 2},
};

static uint32_t reg_get(struct virtio_pci *p, unsigned off)
{
    struct virtio *v = p->v;
    uint16_t q = p->s.queue_select;

    switch (off) {
    case VIRTIO_PCI_COMMON_DFSELECT:
        return p->s.device_feature_select;
    case VIRTIO_PCI_COMMON_DF:
        return virtio_offered(v, p->s.device_feature_select);
    case VIRTIO_PCI_COMMON_GFSELECT:
        return p->s.driver_feature_select;
    case VIRTIO_PCI_COMMON_GF:
        return virtio_accepted(v, p->s.driver_feature_select);
    case VIRTIO_PCI_COMMON_MSIX:
        return virtio_config_vector(v);
    case VIRTIO_PCI_COMMON_NUMQ:
        return v->nqueues;
    case VIRTIO_PCI_COMMON_STATUS:
        return virtio_get_status(v);
    case VIRTIO_PCI_COMMON_CFGGENERATION:
        return virtio_config_generation(v);
    case VIRTIO_PCI_COMMON_Q_SELECT:
        return q;
    case VIRTIO_PCI_COMMON_Q_SIZE:
        return virtio_queue_get(v, q, VQ_SIZE);
    case VIRTIO_PCI_COMMON_Q_MSIX:
        return virtio_queue_get(v, q, VQ_VECTOR);
    case VIRTIO_PCI_COMMON_Q_ENABLE:
        return virtio_queue_get(v, q, VQ_ENABLE);
    case VIRTIO_PCI_COMMON_Q_NOFF:
        return q < v->nqueues ? q : 0;
    case VIRTIO_PCI_COMMON_Q_DESCLO:
        return virtio_queue_get(v, q, VQ_DESC);
    case VIRTIO_PCI_COMMON_Q_DESCHI:
        return virtio_queue_get(v, q, VQ_DESC) >> 32;
    case VIRTIO_PCI_COMMON_Q_AVAILLO:
        return virtio_queue_get(v, q, VQ_DRIVER);
    case VIRTIO_PCI_COMMON_Q_AVAILHI:
        return virtio_queue_get(v, q, VQ_DRIVER) >> 32;
    case VIRTIO_PCI_COMMON_Q_USEDLO:
        return virtio_queue_get(v, q, VQ_DEVICE);
    case VIRTIO_PCI_COMMON_Q_USEDHI:
        return virtio_queue_get(v, q, VQ_DEVICE) >> 32;
    }
    return 0; /* no notification data; a queue's reset is over when the write returns */
}

/* A vector that the table does not have is none. */
static uint16_t vector_of(const struct virtio_pci *p, uint32_t val)
{
    return val < p->func.nvectors ? val : VIRTIO_NO_VECTOR;
}

/* One half of an address. */
static void set_addr(struct virtio_pci *p, enum virtio_queue_reg reg, unsigned shift, uint32_t val)
{
    uint64_t old = virtio_queue_get(p->v, p->s.queue_select, reg);

    virtio_queue_set(p->v, p->s.queue_select, reg, (old & ~(0xffffffffull << shift)) | (uint64_t)val << shift);
}

static void set_status(struct virtio_pci *p, uint8_t val)
{
    virtio_set_status(p->v, val);
    if (val)
        return;
    p->s = (struct virtio_pci_state){0};
    pci_set_intx(&p->func, false);
}

static void reg_set(struct virtio_pci *p, unsigned off, uint32_t val)
{
    struct virtio *v = p->v;
    uint16_t q = p->s.queue_select;

    switch (off) {
    case VIRTIO_PCI_COMMON_DFSELECT:
        p->s.device_feature_select = val;
        break;
    case VIRTIO_PCI_COMMON_GFSELECT:
        p->s.driver_feature_select = val;
        break;
    case VIRTIO_PCI_COMMON_GF:
        virtio_accept(v, p->s.driver_feature_select, val);
        break;
    case VIRTIO_PCI_COMMON_MSIX:
        virtio_set_config_vector(v, vector_of(p, val));
        break;
    case VIRTIO_PCI_COMMON_STATUS:
        set_status(p, val);
        break;
    case VIRTIO_PCI_COMMON_Q_SELECT:
        p->s.queue_select = val;
        break;
    case VIRTIO_PCI_COMMON_Q_SIZE:
        virtio_queue_set(v, q, VQ_SIZE, val);
        break;
    case VIRTIO_PCI_COMMON_Q_MSIX:
        virtio_queue_set(v, q, VQ_VECTOR, vector_of(p, val));
        break;
    case VIRTIO_PCI_COMMON_Q_ENABLE:
        if (val == 1) /* nothing else may be written: a queue is disabled by its reset */
            virtio_queue_set(v, q, VQ_ENABLE, 1);
        break;
    case VIRTIO_PCI_COMMON_Q_DESCLO:
        set_addr(p, VQ_DESC, 0, val);
        break;
    case VIRTIO_PCI_COMMON_Q_DESCHI:
        set_addr(p, VQ_DESC, 32, val);
        break;
    case VIRTIO_PCI_COMMON_Q_AVAILLO:
        set_addr(p, VQ_DRIVER, 0, val);
        break;
    case VIRTIO_PCI_COMMON_Q_AVAILHI:
        set_addr(p, VQ_DRIVER, 32, val);
        break;
    case VIRTIO_PCI_COMMON_Q_USEDLO:
        set_addr(p, VQ_DEVICE, 0, val);
        break;
    case VIRTIO_PCI_COMMON_Q_USEDHI:
        set_addr(p, VQ_DEVICE, 32, val);
        break;
    case VIRTIO_PCI_COMMON_Q_RESET:
        if (val == 1)
            virtio_queue_reset(v, q);
        break;
    }
}

/* Reads may be of any width and see the bytes of each register that they touch. */
static uint64_t common_read(struct virtio_pci *p, uint64_t off, unsigned size)
{
    uint64_t val = 0;

    for (unsigned i = 0; i < array_len(regs); i++) {
        const struct reg *r = &regs[i];

        if (r->off + r->width <= off || off + size <= r->off)
            continue;
        if (off >= r->off)
            val |= mask_bytes(reg_get(p, r->off), r->width) >> 8 * (off - r->off);
        else
            val |= mask_bytes(reg_get(p, r->off), r->width) << 8 * (r->off - off);
    }
    return val;
}

/* A write sets the registers that it covers whole; no driver may write part of one. */
static void common_write(struct virtio_pci *p, uint64_t off, uint64_t val, unsigned size)
{
    for (unsigned i = 0; i < array_len(regs); i++) {
        const struct reg *r = &regs[i];

        if (off <= r->off && r->off + r->width <= off + size)
            reg_set(p, r->off, mask_bytes(val >> 8 * (r->off - off), r->width));
    }
}

static uint64_t isr_read(struct virtio_pci *p, uint64_t off, unsigned size)
{
    uint64_t isr = p->s.isr;

    (void)size;
    if (off)
        return 0;
    p->s.isr = 0;
    pci_set_intx(&p->func, false);
    return isr;
}

static uint64_t device_read(struct virtio_pci *p, uint64_t off, unsigned size)
{
    return virtio_config_read(p->v, off, size);
}

static void device_write(struct virtio_pci *p, uint64_t off, uint64_t val, unsigned size)
{
    virtio_config_write(p->v, off, val, size);
}

static uint64_t notify_read(struct virtio_pci *p, uint64_t off, unsigned size)
{
    (void)p;
    (void)off;
    (void)size;
    return 0;
}

static void notify_write(struct virtio_pci *p, uint64_t off, uint64_t val, unsigned size)
{
    (void)val;
    (void)size;
    if (off % NOTIFY_STEP == 0)
        virtio_notify(p->v, off / NOTIFY_STEP);
}

/* The BAR's pages, and the capabilities that name them, in this order. */
static const struct window {
    uint8_t type;
    uint64_t (*read)(struct virtio_pci *p, uint64_t off, unsigned size);
    void (*write)(struct virtio_pci *p, uint64_t off, uint64_t val, unsigned size);
} windows[] = {
    {VIRTIO_PCI_CAP_COMMON_CFG, common_read, common_write},
    {VIRTIO_PCI_CAP_ISR_CFG, isr_read, NULL},
    {VIRTIO_PCI_CAP_DEVICE_CFG, device_read, device_write},
    {VIRTIO_PCI_CAP_NOTIFY_CFG, notify_read, notify_write},
};
enum { NOTIFY_WINDOW = 3 };
static_assert(array_len(windows) * WINDOW_SIZE == REGS_SIZE, "one page each");

static uint64_t regs_read(struct region *r, uint64_t off, unsigned size)
{
    return windows[off / WINDOW_SIZE].read(container_of(r, struct virtio_pci, regs), off % WINDOW_SIZE, size);
}

static void regs_write(struct region *r, uint64_t off, uint64_t val, unsigned size)
{
    const struct window *w = &windows[off / WINDOW_SIZE];

    if (w->write)
        w->write(container_of(r, struct virtio_pci, regs), off % WINDOW_SIZE, val, size);
}

static const struct region_ops regs_ops = {.read = regs_read, .write = regs_write, .sizes = 1 | 2 | 4};

/*
 * VIRTIO_PCI_CAP_PCI_CFG [4.1.4.9]: the driver writes place and length into the capability, and the data field is then
 * a window on the BAR.  What is not an aligned access within BAR 0 does nothing.
 */
static bool cfg_window(struct virtio_pci *p, unsigned off, unsigned n, uint32_t *where, uint32_t *len)
{
    const uint8_t *cap = p->func.s.cfg + p->cfg_cap;
    unsigned data = p->cfg_cap + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data);

    if (off >= data + 4 || data >= off + n)
        return false;
    *where = get_le32(cap + VIRTIO_PCI_CAP_OFFSET);
    *len = get_le32(cap + VIRTIO_PCI_CAP_LENGTH);
    return cap[VIRTIO_PCI_CAP_BAR] == REGS_BAR && *len <= 4 && is_pow2(*len) && *where % *len == 0 &&
           range_fits(*where, *len, REGS_SIZE);
}

static void cfg_read(struct pci_func *f, unsigned off, unsigned n)
{
    struct virtio_pci *p = container_of(f, struct virtio_pci, func);
    uint8_t *data = f->s.cfg + p->cfg_cap + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data);
    uint32_t where, len;

    if (cfg_window(p, off, n, &where, &len)) {
        put_le32(data, 0);
        put_le32(data, (uint32_t)mask_bytes(regs_read(&p->regs, where, len), len));
    }
}

static void cfg_written(struct pci_func *f, unsigned off, unsigned n)
{
    struct virtio_pci *p = container_of(f, struct virtio_pci, func);
    const uint8_t *data = f->s.cfg + p->cfg_cap + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data);
    uint32_t where, len;

    if (cfg_window(p, off, n, &where, &len))
        regs_write(&p->regs, where, mask_bytes(get_le32(data), len), len);
}

static void bar_mapped(struct pci_func *f, unsigned bar, bool mapped)
{
    if (bar == REGS_BAR)
        virtio_notify_mapped(container_of(f, struct virtio_pci, func)->v, mapped);
}

static const struct pci_func_ops func_ops = {
    .cfg_read = cfg_read, .cfg_written = cfg_written, .bar_mapped = bar_mapped};

static void interrupt(struct virtio_pci *p, uint16_t vector, uint16_t isr)
{
    if (pci_msix_enabled(&p->func)) {
        pci_msix_fire(&p->func, vector);
    } else {
        p->s.isr |= isr;
        pci_set_intx(&p->func, true);
    }
}

static void queue_interrupt(struct virtio_transport *t, unsigned queue, uint16_t vector)
{
    (void)queue;
    interrupt(container_of(t, struct virtio_pci, transport), vector, ISR_QUEUE);
}

static void config_interrupt(struct virtio_transport *t, uint16_t vector)
{
    interrupt(container_of(t, struct virtio_pci, transport), vector, ISR_CONFIG);
}

static void queue_wire(struct virtio_transport *t, uint16_t vector, int fd, bool on)
{
    struct virtio_pci *p = container_of(t, struct virtio_pci, transport);

    if (on)
        pci_msix_wire(&p->func, vector, fd);
    else
        pci_msix_unwire(&p->func, fd);
}

static struct doorbell notify_doorbell(struct virtio_transport *t, unsigned queue)
{
    struct virtio_pci *p = container_of(t, struct virtio_pci, transport);

    return (struct doorbell){.region = &p->regs, .off = NOTIFY_WINDOW * WINDOW_SIZE + NOTIFY_STEP * queue, .fd = -1};
}

static void detach(struct virtio_transport *t)
{
    struct virtio_pci *p = container_of(t, struct virtio_pci, transport);

    pci_func_fini(&p->func);
    p->v->transport = NULL;
    free(p);
}

static void transport_reset(struct device_hook *h)
{
    struct virtio_pci *p = container_of(h, struct virtio_pci, hook);

    p->s = (struct virtio_pci_state){0};
}

static void transport_settle(struct device_hook *h)
{
    struct virtio_pci *p = container_of(h, struct virtio_pci, hook);

    pci_set_intx(&p->func, p->s.isr != 0);
}

static void add_capabilities(struct virtio_pci *p)
{
    struct virtio_pci_cfg_cap cfg = {
        .cap = {.cap_vndr = PCI_CAP_ID_VNDR, .cap_len = sizeof(cfg), .cfg_type = VIRTIO_PCI_CAP_PCI_CFG}};
    struct virtio_pci_cfg_cap cfg_wmask = {.cap = {.bar = 0xff, .offset = UINT32_MAX, .length = UINT32_MAX},
                                           .pci_cfg_data = {0xff, 0xff, 0xff, 0xff}};

    for (unsigned i = 0; i < array_len(windows); i++) {
        struct virtio_pci_notify_cap cap = {
            .cap = {.cap_vndr = PCI_CAP_ID_VNDR,
                    .cap_len = i == NOTIFY_WINDOW ? sizeof(cap) : sizeof(cap.cap),
                    .cfg_type = windows[i].type,
                    .bar = REGS_BAR,
                    .offset = htole32(i * WINDOW_SIZE),
                    .length = htole32(WINDOW_SIZE)},
            .notify_off_multiplier = htole32(NOTIFY_STEP),
        };

        pci_add_capability(&p->func, &cap, NULL, cap.cap.cap_len);
    }
    p->cfg_cap = pci_add_capability(&p->func, &cfg, &cfg_wmask, sizeof(cfg));
}

/* What the guest's tools call the device; drivers go by the device ID. */
static uint32_t class_code(unsigned virtio_id)
{
    static const uint32_t codes[] = {
        [VIRTIO_ID_NET] = 0x020000,     [VIRTIO_ID_BLOCK] = 0x018000, [VIRTIO_ID_CONSOLE] = 0x078000,
        [VIRTIO_ID_BALLOON] = 0x050000, [VIRTIO_ID_FS] = 0x018000,    [VIRTIO_ID_GPU] = 0x038000,
        [VIRTIO_ID_INPUT] = 0x098000,   [VIRTIO_ID_SOUND] = 0x040100, [VIRTIO_ID_VSOCK] = 0x078000,
    };

    return virtio_id < array_len(codes) && codes[virtio_id] ? codes[virtio_id] : 0xff0000;
}

int virtio_pci_attach(struct virtio *v, int slot, struct err *err)
{
    const struct pci_ids ids = {
        .vendor = VIRTIO_VENDOR,
        .device = VIRTIO_DEVICE + v->ops->id,
        .subvendor = VIRTIO_VENDOR,
        .subdevice = VIRTIO_DEVICE + v->ops->id,
        .class_code = class_code(v->ops->id),
        .revision = 1,
    };
    struct virtio_pci *p = xcalloc(1, sizeof(*p));
    int ret;

    p->v = v;
    p->transport = (struct virtio_transport){queue_interrupt, config_interrupt, queue_wire, notify_doorbell, detach};
    ret = pci_func_init(&p->func, &v->dev, slot, &ids, &func_ops, err);
    if (ret) {
        free(p);
        return ret;
    }
    p->regs = (struct region){.name = v->dev.id, .ops = &regs_ops};
    pci_add_bar(&p->func, REGS_BAR, true, &p->regs, REGS_SIZE);
    pci_add_msix(&p->func, MSIX_BAR, min_u64(v->nqueues + 1, PCI_MSIX_MAX));
    add_capabilities(p);
    p->hook = (struct device_hook){.reset = transport_reset, .settle = transport_settle};
    device_add_hook(&v->dev, &p->hook);
    device_add_state(&v->dev, "virtio-pci", &virtio_pci_desc, &p->s, 1);
    v->transport = &p->transport;
    return 0;
}
