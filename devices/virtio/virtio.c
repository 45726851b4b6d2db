/*
 * The virtio core [VIRTIO-v1.2 2 and 3]: status, features, configuration bytes, queue set-up, reset.  What a guest
 * writes arrives here from a transport, is checked here, and is the same for every device.
 */
#include "devices/virtio/virtio.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <sys/mman.h>

#include "devices/virtio/vq.h"
#include "vmm/base/cleanup.h"

static const uint64_t core_features = 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_INDIRECT_DESC |
                                      1ull << VIRTIO_RING_F_EVENT_IDX | 1ull << VIRTIO_F_RING_PACKED |
                                      1ull << VIRTIO_F_RING_RESET;

enum {
    STATUS_DRIVER_BITS = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK |
                         VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FAILED,
    STATUS_BITS = STATUS_DRIVER_BITS | VIRTIO_CONFIG_S_NEEDS_RESET,
};

/* What a driver asks for before FEATURES_OK may be anything. */
static int check_state(void *obj, struct err *err)
{
    struct virtio_core *c = container_of((struct virtio_state *)obj, struct virtio_core, s);
    bool agreed = c->s.status & (VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);

    if (agreed && c->s.features & ~c->v->offered)
        return err_set(err, EBADMSG, "the driver accepted features %#llx that this device does not have",
                       (unsigned long long)(c->s.features & ~c->v->offered));
    if (c->s.status & ~STATUS_BITS)
        return err_set(err, EBADMSG, "impossible status %#x", c->s.status);
    return 0;
}

static const struct field virtio_fields[] = {
    F_U64(struct virtio_state, features),
    F_U32(struct virtio_state, generation),
    F_U16(struct virtio_state, vector),
    F_U16(struct virtio_state, status),
    F_END,
};
static const struct state_desc virtio_desc = {
    .name = "virtio", .version = 1, .size = sizeof(struct virtio_state), .fields = virtio_fields, .check = check_state};

/* What is wrong with a queue shows when it is started. */
static const struct field queue_fields[] = {
    F_U64(struct vq_state, desc),   F_U64(struct vq_state, driver),  F_U64(struct vq_state, device),
    F_U32(struct vq_state, size),   F_U32(struct vq_state, avail),   F_U32(struct vq_state, used),
    F_U16(struct vq_state, vector), F_U16(struct vq_state, enabled), F_END,
};
static const struct state_desc queue_desc = {
    .name = "virtqueue", .version = 1, .size = sizeof(struct vq_state), .fields = queue_fields};

/* The queue behind the guest's selector, or NULL. */
static struct vq *queue_at(const struct virtio *v, uint16_t queue)
{
    return queue < v->nqueues ? &v->core->queues[queue] : NULL;
}

static void dispatch_all(struct virtio *v)
{
    for (unsigned i = 0; i < v->nqueues; i++)
        vq_dispatch(&v->core->queues[i]);
}

static void recall_all(struct virtio *v)
{
    for (unsigned i = 0; i < v->nqueues; i++)
        vq_recall(&v->core->queues[i]);
}

static void reset_queue(struct vq *q)
{
    vq_stop(q);
    *q->s = (struct vq_state){.size = q->v->ops->queue_size, .vector = VIRTIO_NO_VECTOR};
}

/* Everything as at power-on.  Nothing is in flight. */
static void reset_all(struct virtio *v)
{
    struct virtio_core *c = v->core;

    for (unsigned i = 0; i < v->nqueues; i++)
        reset_queue(&c->queues[i]);
    madvise(c->iov, c->iov_size, MADV_DONTNEED);
    c->s = (struct virtio_state){.vector = VIRTIO_NO_VECTOR};
    v->features = 0;
    if (v->ops->reset)
        v->ops->reset(v);
}

/* DRIVER_OK is set: queues that are set up start to live. */
static void go_live(struct virtio *v)
{
    if (v->ops->activate)
        v->ops->activate(v);
    for (unsigned i = 0; i < v->nqueues; i++)
        if (v->core->qs[i].enabled)
            vq_start(&v->core->queues[i]);
}

static void hook_reset(struct device_hook *h)
{
    reset_all(container_of(h, struct virtio_core, hook)->v);
}

static void hook_settle(struct device_hook *h)
{
    struct virtio_core *c = container_of(h, struct virtio_core, hook);

    if (!(c->s.status & VIRTIO_CONFIG_S_DRIVER_OK))
        return;
    c->v->features = c->s.features;
    go_live(c->v);
}

static void hook_start(struct device_hook *h)
{
    struct virtio_core *c = container_of(h, struct virtio_core, hook);

    c->running = true;
    dispatch_all(c->v);
}

static void hook_stop(struct device_hook *h)
{
    struct virtio_core *c = container_of(h, struct virtio_core, hook);

    recall_all(c->v);
    c->running = false;
}

int virtio_init(struct virtio *v, const struct virtio_ops *ops, struct err *err)
{
    struct device *d = &v->dev;
    struct virtio_core *c = xcalloc(1, sizeof(*c));

    v->ops = ops;
    v->core = c;
    v->nqueues = v->nqueues ? v->nqueues : ops->nqueues;
    v->offered = core_features | (v->offered ? v->offered : ops->features);
    c->v = v;
    c->hook = (struct device_hook){hook_reset, hook_settle, hook_start, hook_stop, NULL};
    c->qs = xcalloc(v->nqueues, sizeof(c->qs[0]));
    c->iov_size = sizeof(struct iovec) * v->nqueues * ops->queue_size * ops->queue_size;
    c->iov = mmap(NULL, c->iov_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (c->iov == MAP_FAILED) {
        c->iov = NULL;
        return err_set(err, errno, "no address space for %u queues: %s", v->nqueues, strerror(errno));
    }
    c->queues = xcalloc(v->nqueues, sizeof(c->queues[0]));
    for (unsigned i = 0; i < v->nqueues; i++)
        vq_init(&c->queues[i], v, i);
    v->config = xcalloc(1, ops->config_size);
    device_add_hook(d, &c->hook);
    device_add_state(d, "virtio", &virtio_desc, &c->s, 1);
    device_add_state(d, "queue", &queue_desc, c->qs, v->nqueues);
    return d->env->attach_virtio(d->env, v, err);
}

void virtio_fini(struct virtio *v)
{
    struct virtio_core *c = v->core;

    if (!c)
        return;
    for (unsigned i = 0; c->queues && i < v->nqueues; i++)
        vq_fini(&c->queues[i]);
    if (v->transport)
        v->transport->detach(v->transport);
    if (c->iov)
        munmap(c->iov, c->iov_size);
    free(c->queues);
    free(c->qs);
    free(v->config);
    free(c);
    v->core = NULL;
}

struct vq *virtio_queue(struct virtio *v, unsigned index)
{
    assert(index < v->nqueues);
    return &v->core->queues[index];
}

static void tell_config(struct virtio *v)
{
    if (v->core->s.status & VIRTIO_CONFIG_S_DRIVER_OK)
        v->transport->config_interrupt(v->transport, v->core->s.vector);
}

void virtio_config_changed(struct virtio *v)
{
    v->core->s.generation++;
    tell_config(v);
}

void virtio_broken(struct virtio *v, const char *why)
{
    struct virtio_core *c = v->core;

    if (c->s.status & VIRTIO_CONFIG_S_NEEDS_RESET)
        return;
    c->s.status |= VIRTIO_CONFIG_S_NEEDS_RESET;
    recall_all(v);
    log_guest(&c->limit, "%s: stopped until the guest resets it: %s", v->dev.id, why);
    tell_config(v);
}

uint8_t virtio_get_status(const struct virtio *v)
{
    return (uint8_t)v->core->s.status;
}

/* Waits, lane released meanwhile, until no request is in flight; other vCPUs may come in, and change nothing. */
static void drain(struct virtio *v)
{
    v->core->draining = true;
    lane_drain(&v->dev.lane);
    v->core->draining = false;
}

void virtio_set_status(struct virtio *v, uint8_t status)
{
    struct virtio_core *c = v->core;
    uint16_t now = c->s.status, new = status &STATUS_DRIVER_BITS & ~now;

    if (c->draining)
        return;
    if (!status) {
        drain(v);
        reset_all(v);
        return;
    }
    /* Bits that may not be set yet stay clear, which is how a driver learns of it.  None but a reset clears one. */
    if (new &VIRTIO_CONFIG_S_FEATURES_OK &&
        (c->s.features & ~v->offered || !(c->s.features & 1ull << VIRTIO_F_VERSION_1)))
        new &= ~VIRTIO_CONFIG_S_FEATURES_OK;
    if (!((now | new) & VIRTIO_CONFIG_S_FEATURES_OK))
        new &= ~VIRTIO_CONFIG_S_DRIVER_OK;
    c->s.status |= new;
    if (new &VIRTIO_CONFIG_S_DRIVER_OK) {
        v->features = c->s.features;
        for (unsigned i = 0; i < v->nqueues; i++)
            vq_fresh(&c->queues[i]);
        go_live(v);
        dispatch_all(v);
    }
}

uint32_t virtio_offered(const struct virtio *v, uint32_t page)
{
    return page < 2 ? (uint32_t)(v->offered >> (32 * page)) : 0;
}

uint32_t virtio_accepted(const struct virtio *v, uint32_t page)
{
    return page < 2 ? (uint32_t)(v->core->s.features >> (32 * page)) : 0;
}

void virtio_accept(struct virtio *v, uint32_t page, uint32_t bits)
{
    struct virtio_state *s = &v->core->s;

    if (page >= 2 || s->status & VIRTIO_CONFIG_S_FEATURES_OK)
        return;
    s->features &= ~(0xffffffffull << (32 * page));
    s->features |= (uint64_t)bits << (32 * page);
}

uint64_t virtio_queue_get(const struct virtio *v, uint16_t queue, enum virtio_queue_reg reg)
{
    const struct vq *q = queue_at(v, queue);

    if (!q)
        return 0;
    switch (reg) {
    case VQ_SIZE_MAX:
        return v->ops->queue_size;
    case VQ_SIZE:
        return q->s->size;
    case VQ_VECTOR:
        return q->s->vector;
    case VQ_ENABLE:
        return q->s->enabled;
    case VQ_DESC:
        return q->s->desc;
    case VQ_DRIVER:
        return q->s->driver;
    case VQ_DEVICE:
        return q->s->device;
    }
    return 0;
}

static void enable_queue(struct vq *q)
{
    q->s->enabled = 1;
    if (!(q->v->core->s.status & VIRTIO_CONFIG_S_DRIVER_OK))
        return; /* starts with the others */
    vq_fresh(q);
    vq_start(q);
    vq_dispatch(q);
}

void virtio_queue_set(struct virtio *v, uint16_t queue, enum virtio_queue_reg reg, uint64_t val)
{
    struct virtio_core *c = v->core;
    struct vq *q = queue_at(v, queue);
    bool driver_ok = c->s.status & VIRTIO_CONFIG_S_DRIVER_OK;

    if (!q || c->draining)
        return;
    if (reg == VQ_ENABLE && !val) {
        virtio_queue_reset(v, queue);
        return;
    }
    if (reg != VQ_VECTOR && (q->s->enabled || (driver_ok && !virtio_has(v, VIRTIO_F_RING_RESET))))
        return;
    switch (reg) {
    case VQ_SIZE_MAX:
        break;
    case VQ_SIZE:
        if (val && val <= v->ops->queue_size)
            q->s->size = (uint32_t)val;
        break;
    case VQ_VECTOR:
        vq_rewire(q, (uint16_t)val);
        break;
    case VQ_ENABLE:
        enable_queue(q);
        break;
    case VQ_DESC:
        q->s->desc = val;
        break;
    case VQ_DRIVER:
        q->s->driver = val;
        break;
    case VQ_DEVICE:
        q->s->device = val;
        break;
    }
}

void virtio_queue_reset(struct virtio *v, uint16_t queue)
{
    struct vq *q = queue_at(v, queue);

    if (!q || !q->s->enabled || v->core->draining)
        return;
    drain(v);
    reset_queue(q);
    if (v->ops->queue_reset)
        v->ops->queue_reset(v, q);
    dispatch_all(v); /* the others were not heard meanwhile */
}

void virtio_notify(struct virtio *v, uint16_t queue)
{
    struct vq *q = queue_at(v, queue);

    if (q)
        vq_dispatch(q);
}

void virtio_notify_mapped(struct virtio *v, bool mapped)
{
    recall_all(v); /* doorbells are theirs as well */
    v->core->notify_mapped = mapped;
    for (unsigned i = 0; i < v->nqueues; i++)
        vq_doorbell(&v->core->queues[i]);
    dispatch_all(v); /* what rang last may not have been heard */
}

uint16_t virtio_config_vector(const struct virtio *v)
{
    return v->core->s.vector;
}

void virtio_set_config_vector(struct virtio *v, uint16_t vector)
{
    v->core->s.vector = vector;
}

uint32_t virtio_config_generation(const struct virtio *v)
{
    return v->core->s.generation;
}

uint64_t virtio_config_read(struct virtio *v, uint64_t off, unsigned size)
{
    uint8_t bytes[8] = {0};

    for (unsigned i = 0; i < size; i++)
        if (off + i < v->ops->config_size)
            bytes[i] = v->config[off + i];
    return get_le64(bytes);
}

void virtio_config_write(struct virtio *v, uint64_t off, uint64_t val, unsigned size)
{
    const struct virtio_ops *ops = v->ops;
    uint8_t bytes[8];
    bool written = false;

    put_le64(bytes, val);
    for (unsigned i = 0; i < size && !v->core->draining; i++) {
        uint64_t at = off + i;

        if (at < ops->config_wr_off || at - ops->config_wr_off >= ops->config_wr_len)
            continue;
        v->config[at] = bytes[i];
        written = true;
    }
    if (written && ops->config_written)
        ops->config_written(v, off, size);
}
