/* The MMIO transport [VIRTIO-v1.2 4.2.2]: one window of 32-bit registers, one level-triggered interrupt. */
#include "devices/virtio/mmio.h"

#include <linux/virtio_mmio.h>

#include "devices/virtio/transport.h"
#include "vmm/base/cleanup.h"

enum {
    MAGIC = 0x74726976, /* "virt" */
    VERSION = 2,
    VENDOR = 0x59485442, /* "BTHY" */
    QUEUE_RESET = 0x0c0, /* newer than <linux/virtio_mmio.h> */
};

struct mmio_state {
    uint32_t device_page, driver_page; /* selected feature pages */
    uint32_t queue;                    /* selected */
    uint32_t pending;                  /* interrupt status */
};

struct mmio {
    struct virtio_transport t;
    struct virtio *v; /* borrowed */
    struct region region;
    struct irq irq;
    struct device_hook hook;
    struct mmio_state s;
};

static const struct field mmio_fields[] = {
    F_U32(struct mmio_state, device_page),
    F_U32(struct mmio_state, driver_page),
    F_U32(struct mmio_state, queue),
    F_U32(struct mmio_state, pending),
    F_END,
};
static const struct state_desc mmio_desc = {
    .name = "virtio-mmio", .version = 1, .size = sizeof(struct mmio_state), .fields = mmio_fields};

static void set_pending(struct mmio *m, uint32_t pending)
{
    m->s.pending = pending;
    irq_set(m->irq, pending);
}

static void queue_interrupt(struct virtio_transport *t, unsigned queue, uint16_t vector)
{
    struct mmio *m = container_of(t, struct mmio, t);

    (void)queue;
    (void)vector;
    set_pending(m, m->s.pending | VIRTIO_MMIO_INT_VRING);
}

static void config_interrupt(struct virtio_transport *t, uint16_t vector)
{
    struct mmio *m = container_of(t, struct mmio, t);

    (void)vector;
    set_pending(m, m->s.pending | VIRTIO_MMIO_INT_CONFIG);
}

static struct doorbell notify_doorbell(struct virtio_transport *t, unsigned queue)
{
    struct mmio *m = container_of(t, struct mmio, t);

    return (struct doorbell){
        .region = &m->region, .off = VIRTIO_MMIO_QUEUE_NOTIFY, .len = 4, .match = true, .value = queue};
}

/* A selector that fits no queue is passed on as one that no device has. */
static uint16_t selected(const struct mmio *m)
{
    return m->s.queue < UINT16_MAX ? (uint16_t)m->s.queue : UINT16_MAX;
}

/* Half of a 64-bit queue address. */
static void set_half(struct mmio *m, enum virtio_queue_reg reg, unsigned shift, uint32_t val)
{
    uint64_t now = virtio_queue_get(m->v, selected(m), reg);

    now &= ~(0xffffffffull << shift);
    virtio_queue_set(m->v, selected(m), reg, now | (uint64_t)val << shift);
}

static uint32_t read_register(struct mmio *m, uint64_t off)
{
    switch (off) {
    case VIRTIO_MMIO_MAGIC_VALUE:
        return MAGIC;
    case VIRTIO_MMIO_VERSION:
        return VERSION;
    case VIRTIO_MMIO_DEVICE_ID:
        return m->v->ops->id;
    case VIRTIO_MMIO_VENDOR_ID:
        return VENDOR;
    case VIRTIO_MMIO_DEVICE_FEATURES:
        return virtio_offered(m->v, m->s.device_page);
    case VIRTIO_MMIO_QUEUE_NUM_MAX:
        return (uint32_t)virtio_queue_get(m->v, selected(m), VQ_SIZE_MAX);
    case VIRTIO_MMIO_QUEUE_READY:
        return (uint32_t)virtio_queue_get(m->v, selected(m), VQ_ENABLE);
    case VIRTIO_MMIO_INTERRUPT_STATUS:
        return m->s.pending;
    case VIRTIO_MMIO_STATUS:
        return virtio_get_status(m->v);
    case VIRTIO_MMIO_SHM_LEN_LOW: /* no shared memory: all regions have length -1 */
    case VIRTIO_MMIO_SHM_LEN_HIGH:
    case VIRTIO_MMIO_SHM_BASE_LOW:
    case VIRTIO_MMIO_SHM_BASE_HIGH:
        return UINT32_MAX;
    case VIRTIO_MMIO_CONFIG_GENERATION:
        return virtio_config_generation(m->v);
    default:
        return 0;
    }
}

static void write_register(struct mmio *m, uint64_t off, uint32_t val)
{
    switch (off) {
    case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
        m->s.device_page = val;
        break;
    case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
        m->s.driver_page = val;
        break;
    case VIRTIO_MMIO_DRIVER_FEATURES:
        virtio_accept(m->v, m->s.driver_page, val);
        break;
    case VIRTIO_MMIO_QUEUE_SEL:
        m->s.queue = val;
        break;
    case VIRTIO_MMIO_QUEUE_NUM:
        virtio_queue_set(m->v, selected(m), VQ_SIZE, val);
        break;
    case VIRTIO_MMIO_QUEUE_READY:
        virtio_queue_set(m->v, selected(m), VQ_ENABLE, val & 1);
        break;
    case VIRTIO_MMIO_QUEUE_NOTIFY:
        if (val < m->v->nqueues)
            virtio_notify(m->v, (uint16_t)val);
        break;
    case VIRTIO_MMIO_INTERRUPT_ACK:
        set_pending(m, m->s.pending & ~val);
        break;
    case VIRTIO_MMIO_STATUS:
        virtio_set_status(m->v, (uint8_t)val);
        if (!virtio_get_status(m->v))
            set_pending(m, 0);
        break;
    case VIRTIO_MMIO_QUEUE_DESC_LOW:
        set_half(m, VQ_DESC, 0, val);
        break;
    case VIRTIO_MMIO_QUEUE_DESC_HIGH:
        set_half(m, VQ_DESC, 32, val);
        break;
    case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
        set_half(m, VQ_DRIVER, 0, val);
        break;
    case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
        set_half(m, VQ_DRIVER, 32, val);
        break;
    case VIRTIO_MMIO_QUEUE_USED_LOW:
        set_half(m, VQ_DEVICE, 0, val);
        break;
    case VIRTIO_MMIO_QUEUE_USED_HIGH:
        set_half(m, VQ_DEVICE, 32, val);
        break;
    case QUEUE_RESET:
        if (val & 1)
            virtio_queue_reset(m->v, selected(m));
        break;
    default:
        break;
    }
}

static uint64_t window_read(struct region *r, uint64_t off, unsigned size)
{
    struct mmio *m = container_of(r, struct mmio, region);

    if (off >= VIRTIO_MMIO_CONFIG)
        return virtio_config_read(m->v, off - VIRTIO_MMIO_CONFIG, size);
    return size == 4 ? read_register(m, off) : 0;
}

static void window_write(struct region *r, uint64_t off, uint64_t val, unsigned size)
{
    struct mmio *m = container_of(r, struct mmio, region);

    if (off >= VIRTIO_MMIO_CONFIG)
        virtio_config_write(m->v, off - VIRTIO_MMIO_CONFIG, val, size);
    else if (size == 4)
        write_register(m, off, (uint32_t)val);
}

static const struct region_ops window_ops = {.read = window_read, .write = window_write, .sizes = 1 | 2 | 4};

static void hook_reset(struct device_hook *h)
{
    container_of(h, struct mmio, hook)->s = (struct mmio_state){0};
}

static void hook_settle(struct device_hook *h)
{
    struct mmio *m = container_of(h, struct mmio, hook);

    irq_set(m->irq, m->s.pending);
}

static void detach(struct virtio_transport *t)
{
    struct mmio *m = container_of(t, struct mmio, t);

    bus_unmap(&m->region);
    irq_set(m->irq, false); /* others may share the line */
    m->v->transport = NULL;
    free(m);
}

int virtio_mmio_attach(struct virtio *v, uint64_t base, unsigned gsi, struct err *err)
{
    struct device *d = &v->dev;
    struct mmio *m = xcalloc(1, sizeof(*m));

    m->t = (struct virtio_transport){.queue_interrupt = queue_interrupt,
                                     .config_interrupt = config_interrupt,
                                     .notify_doorbell = notify_doorbell,
                                     .detach = detach};
    m->v = v;
    m->region = (struct region){.name = d->id, .ops = &window_ops, .lane = &d->lane, .len = VIRTIO_MMIO_WINDOW};
    m->irq = d->env->line(d->env, gsi);
    m->hook = (struct device_hook){.reset = hook_reset, .settle = hook_settle};
    v->transport = &m->t;
    device_add_hook(d, &m->hook);
    device_add_state(d, "mmio", &mmio_desc, &m->s, 1);
    virtio_notify_mapped(v, true);
    return bus_map(d->env->mmio, &m->region, base, err);
}
