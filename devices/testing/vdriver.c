#include "devices/testing/vdriver.h"

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>

#include "devices/virtio/mmio.h"

enum {
    WRAP = 1 << 15,
    PACKED_AVAIL = 1 << VRING_PACKED_DESC_F_AVAIL,
    PACKED_USED = 1 << VRING_PACKED_DESC_F_USED,
    DESC = 16,            /* bytes, in both layouts */
    RINGS = 1 << 20,      /* where rings begin in guest RAM */
    RING_ROOM = 64 << 10, /* for each queue: its areas at fixed places in it */
    DRIVER_AREA = 0x8000,
    DEVICE_AREA = 0xc000,
    MMIO_BASE = 0x10000000, /* of the mmio transport's window */
    MMIO_GSI = 5,
};

static void must(bool ok)
{
    if (!ok)
        abort();
}

/* ---- The MMIO transport. ---- */

static uint64_t bus_get(struct vdriver *d, uint64_t addr, unsigned size)
{
    return test_env_read(&d->e, d->e.env.mmio, addr, size);
}

static void bus_set(struct vdriver *d, uint64_t addr, uint64_t val, unsigned size)
{
    test_env_write(&d->e, d->e.env.mmio, addr, val, size);
}

static int mmio_attach(struct device_env *env, struct virtio *v, struct err *err)
{
    (void)env;
    return virtio_mmio_attach(v, MMIO_BASE, MMIO_GSI, err);
}

static void mmio_find(struct vdriver *d)
{
    d->regs = MMIO_BASE;
    d->config = MMIO_BASE + VIRTIO_MMIO_CONFIG;
    d->notify = MMIO_BASE + VIRTIO_MMIO_QUEUE_NOTIFY;
    d->isr = MMIO_BASE + VIRTIO_MMIO_INTERRUPT_STATUS;
}

static unsigned mmio_interrupts(struct vdriver *d)
{
    unsigned pending = (unsigned)bus_get(d, d->isr, 4);

    bus_set(d, MMIO_BASE + VIRTIO_MMIO_INTERRUPT_ACK, pending, 4);
    return pending;
}

const struct vdriver_transport vdriver_mmio = {
    .name = "mmio",
    .attach = mmio_attach,
    .find = mmio_find,
    .interrupts = mmio_interrupts,
    .regs =
        {
            [VDR_OFFERED_PAGE] = {VIRTIO_MMIO_DEVICE_FEATURES_SEL, 4},
            [VDR_OFFERED] = {VIRTIO_MMIO_DEVICE_FEATURES, 4},
            [VDR_ACCEPTED_PAGE] = {VIRTIO_MMIO_DRIVER_FEATURES_SEL, 4},
            [VDR_ACCEPTED] = {VIRTIO_MMIO_DRIVER_FEATURES, 4},
            [VDR_STATUS] = {VIRTIO_MMIO_STATUS, 4},
            [VDR_GENERATION] = {VIRTIO_MMIO_CONFIG_GENERATION, 4},
            [VDR_QUEUE] = {VIRTIO_MMIO_QUEUE_SEL, 4},
            [VDR_QUEUE_MAX] = {VIRTIO_MMIO_QUEUE_NUM_MAX, 4},
            [VDR_QUEUE_SIZE] = {VIRTIO_MMIO_QUEUE_NUM, 4},
            [VDR_QUEUE_ENABLE] = {VIRTIO_MMIO_QUEUE_READY, 4},
            [VDR_QUEUE_RESET] = {0x0c0, 4},
            [VDR_DESC_LOW] = {VIRTIO_MMIO_QUEUE_DESC_LOW, 4},
            [VDR_DESC_HIGH] = {VIRTIO_MMIO_QUEUE_DESC_HIGH, 4},
            [VDR_DRIVER_LOW] = {VIRTIO_MMIO_QUEUE_AVAIL_LOW, 4},
            [VDR_DRIVER_HIGH] = {VIRTIO_MMIO_QUEUE_AVAIL_HIGH, 4},
            [VDR_DEVICE_LOW] = {VIRTIO_MMIO_QUEUE_USED_LOW, 4},
            [VDR_DEVICE_HIGH] = {VIRTIO_MMIO_QUEUE_USED_HIGH, 4},
        },
};

const struct vdriver_transport *const vdriver_transports[] = {&vdriver_mmio, &vdriver_pci, NULL};

/* ---- Registers. ---- */

uint64_t vdriver_get(struct vdriver *d, enum vdriver_reg r)
{
    return bus_get(d, d->regs + d->t->regs[r].off, d->t->regs[r].size);
}

void vdriver_set(struct vdriver *d, enum vdriver_reg r, uint64_t val)
{
    bus_set(d, d->regs + d->t->regs[r].off, val, d->t->regs[r].size);
}

uint64_t vdriver_config(struct vdriver *d, unsigned off, unsigned size)
{
    return bus_get(d, d->config + off, size);
}

void vdriver_set_config(struct vdriver *d, unsigned off, uint64_t val, unsigned size)
{
    bus_set(d, d->config + off, val, size);
}

void vdriver_kick(struct vdriver *d, unsigned queue)
{
    bus_set(d, d->notify + d->notify_step * queue, queue, d->notify_step ? 2 : 4);
}

void vdriver_run(struct vdriver *d)
{
    struct lane *lane = &d->v->dev.lane;

    for (unsigned i = 0; i < 2; i++) { /* doorbells start what is then waited for */
        loop_once(lane->loop, 0);
        lane_lock(lane);
        lane_drain(lane);
        lane_unlock(lane);
    }
}

/* ---- The machine. ---- */

static struct virtio *make(struct vdriver *d, const struct device_class *cls, const char *options)
{
    struct device *dev;
    struct err err;

    if (device_create(cls, "dev0", options, &dev, &err) || device_init(dev, &d->e.env, d->e.env.loop, &err))
        test_env_ends(cls->name, &err);
    return container_of(dev, struct virtio, dev);
}

void vdriver_create(struct vdriver *d, const struct vdriver_transport *t, const struct device_class *cls,
                    const char *options)
{
    *d = (struct vdriver){.t = t};
    test_env_init(&d->e, VDRIVER_RAM);
    d->e.env.attach_virtio = t->attach;
    if (t->bridge)
        d->bridge = test_env_device(&d->e, t->bridge, "bridge", "");
    d->v = make(d, cls, options);
    device_reset(&d->v->dev);
    device_settle(&d->v->dev);
    t->find(d);
    device_start(&d->v->dev);
}

void vdriver_destroy(struct vdriver *d)
{
    device_stop(&d->v->dev);
    device_destroy(&d->v->dev);
    device_destroy(d->bridge);
    test_env_fini(&d->e);
}

void vdriver_move(struct vdriver *d, const char *options)
{
    const struct device_class *cls = d->v->dev.cls;
    struct state_writer w = {0};
    struct state_reader r;
    struct err err;

    device_stop(&d->v->dev);
    device_save(&d->v->dev, &w);
    device_destroy(&d->v->dev);
    d->v = make(d, cls, options);
    r = (struct state_reader){.buf = w.buf, .len = w.len};
    if (device_load(&d->v->dev, &r, &err))
        test_env_ends(d->v->dev.cls->name, &err);
    state_writer_fini(&w);
    device_settle(&d->v->dev);
    device_start(&d->v->dev);
}

/* ---- Set-up. ---- */

void vdriver_reset(struct vdriver *d)
{
    vdriver_set(d, VDR_STATUS, 0);
    must(!vdriver_get(d, VDR_STATUS));
    d->ram = RINGS + VDRIVER_QUEUES * RING_ROOM;
}

uint64_t vdriver_offered(struct vdriver *d)
{
    uint64_t low;

    vdriver_set(d, VDR_OFFERED_PAGE, 0);
    low = vdriver_get(d, VDR_OFFERED);
    vdriver_set(d, VDR_OFFERED_PAGE, 1);
    return low | vdriver_get(d, VDR_OFFERED) << 32;
}

bool vdriver_negotiate(struct vdriver *d, uint64_t features)
{
    uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

    d->packed = features >> VIRTIO_F_RING_PACKED & 1;
    d->event_idx = features >> VIRTIO_RING_F_EVENT_IDX & 1;
    vdriver_set(d, VDR_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    vdriver_set(d, VDR_STATUS, status);
    for (unsigned page = 0; page < 2; page++) {
        vdriver_set(d, VDR_ACCEPTED_PAGE, page);
        vdriver_set(d, VDR_ACCEPTED, (uint32_t)(features >> (32 * page)));
    }
    vdriver_set(d, VDR_STATUS, status | VIRTIO_CONFIG_S_FEATURES_OK);
    return vdriver_get(d, VDR_STATUS) & VIRTIO_CONFIG_S_FEATURES_OK;
}

void vdriver_set_queue(struct vdriver *d, unsigned queue, unsigned size)
{
    struct vdriver_queue *q = &d->q[queue];
    gpa_t base = RINGS + (gpa_t)queue * RING_ROOM;

    vdriver_set(d, VDR_QUEUE, queue);
    *q = (struct vdriver_queue){.index = queue,
                                .size = size ? size : (unsigned)vdriver_get(d, VDR_QUEUE_MAX),
                                .desc = base,
                                .driver = base + DRIVER_AREA,
                                .device = base + DEVICE_AREA,
                                .avail = d->packed ? WRAP : 0,
                                .used = d->packed ? WRAP : 0};
    assert(q->size && q->size <= array_len(q->ndesc));
    must(!gmem_zero(d->e.env.mem, q->desc, 16ull * q->size) &&
         !gmem_zero(d->e.env.mem, q->driver, 2ull * q->size + 6) &&
         !gmem_zero(d->e.env.mem, q->device, 8ull * q->size + 6));
    vdriver_set(d, VDR_QUEUE_SIZE, q->size);
    vdriver_set(d, VDR_DESC_LOW, (uint32_t)q->desc);
    vdriver_set(d, VDR_DESC_HIGH, q->desc >> 32);
    vdriver_set(d, VDR_DRIVER_LOW, (uint32_t)q->driver);
    vdriver_set(d, VDR_DRIVER_HIGH, q->driver >> 32);
    vdriver_set(d, VDR_DEVICE_LOW, (uint32_t)q->device);
    vdriver_set(d, VDR_DEVICE_HIGH, q->device >> 32);
    vdriver_set(d, VDR_QUEUE_ENABLE, 1);
}

unsigned vdriver_queues(const struct vdriver *d)
{
    return d->queues && d->queues < d->v->nqueues ? d->queues : d->v->nqueues;
}

void vdriver_start(struct vdriver *d, uint64_t features)
{
    vdriver_reset(d);
    must(vdriver_negotiate(d, features | 1ull << VIRTIO_F_VERSION_1));
    for (unsigned i = 0; i < vdriver_queues(d); i++)
        vdriver_set_queue(d, i, d->queue_size);
    vdriver_set(d, VDR_STATUS, vdriver_get(d, VDR_STATUS) | VIRTIO_CONFIG_S_DRIVER_OK);
    must(vdriver_get(d, VDR_STATUS) & VIRTIO_CONFIG_S_DRIVER_OK);
}

bool vdriver_broken(struct vdriver *d)
{
    return vdriver_get(d, VDR_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

/* ---- Rings. ---- */

static void put(struct vdriver *d, gpa_t at, const void *src, size_t n)
{
    must(!gmem_write(d->e.env.mem, at, src, n));
}

static void put16(struct vdriver *d, gpa_t at, uint16_t val)
{
    uint8_t bytes[2];

    put_le16(bytes, val);
    put(d, at, bytes, sizeof(bytes));
}

static uint16_t get16(struct vdriver *d, gpa_t at)
{
    uint8_t bytes[2];

    must(!gmem_read(d->e.env.mem, at, bytes, sizeof(bytes)));
    return get_le16(bytes);
}

gpa_t vdriver_alloc(struct vdriver *d, uint64_t n)
{
    gpa_t at = d->ram;

    d->ram = align_up(d->ram + n, 64);
    must(!gmem_zero(d->e.env.mem, at, n));
    return at;
}

/* A packed position, `n` slots on. */
static uint16_t forward(const struct vdriver_queue *q, uint16_t pos, unsigned n)
{
    unsigned slot = (pos & ~WRAP) + n;

    return (uint16_t)(slot < q->size ? (pos & WRAP) | slot : (~pos & WRAP) | (slot - q->size));
}

unsigned vdriver_slot(const struct vdriver *d, unsigned queue, unsigned i)
{
    const struct vdriver_queue *q = &d->q[queue];

    return d->packed ? forward(q, q->avail, i) & ~WRAP : (q->slot + i) % q->size;
}

static void make_desc(uint8_t *bytes, bool packed, gpa_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
    put_le64(bytes, addr);
    put_le32(bytes + 8, len);
    put_le16(bytes + (packed ? 14 : 12), flags);
    put_le16(bytes + (packed ? 12 : 14), next);
}

void vdriver_desc(struct vdriver *d, unsigned queue, unsigned slot, gpa_t addr, uint32_t len, uint16_t flags,
                  uint16_t next)
{
    uint8_t bytes[DESC];

    make_desc(bytes, d->packed, addr, len, flags, next);
    put(d, d->q[queue].desc + (gpa_t)slot * DESC, bytes, sizeof(bytes));
}

static void publish_packed(struct vdriver *d, struct vdriver_queue *q, unsigned n)
{
    for (unsigned i = n; i-- > 0;) { /* the first one last: then all are there */
        uint16_t pos = forward(q, q->avail, i);
        gpa_t at = q->desc + (gpa_t)(pos & ~WRAP) * DESC;

        put16(d, at + 14, get16(d, at + 14) | (pos & WRAP ? PACKED_AVAIL : PACKED_USED));
    }
    q->avail = forward(q, q->avail, n);
}

void vdriver_publish(struct vdriver *d, unsigned queue, uint16_t head, unsigned n)
{
    struct vdriver_queue *q = &d->q[queue];

    if (d->packed) {
        publish_packed(d, q, n);
        return;
    }
    put16(d, q->driver + 4 + 2 * (q->avail % q->size), head);
    put16(d, q->driver + 2, ++q->avail);
    q->slot = (uint16_t)((q->slot + n) % q->size);
}

uint16_t vdriver_add(struct vdriver *d, unsigned queue, const struct vdriver_buf *bufs, unsigned n, bool indirect)
{
    uint16_t head = (uint16_t)vdriver_slot(d, queue, 0), id = head;
    gpa_t table = indirect ? vdriver_alloc(d, n * DESC) : 0;

    for (unsigned i = 0; i < n; i++) {
        bool more = i + 1 < n;
        uint16_t flags = (bufs[i].write ? VRING_DESC_F_WRITE : 0) | (more ? VRING_DESC_F_NEXT : 0);
        unsigned slot = vdriver_slot(d, queue, i);
        uint8_t bytes[DESC];

        if (indirect) {
            make_desc(bytes, d->packed, bufs[i].addr, bufs[i].len, d->packed ? flags & VRING_DESC_F_WRITE : flags,
                      d->packed ? 0 : (uint16_t)(i + 1));
            put(d, table + i * DESC, bytes, sizeof(bytes));
        } else {
            vdriver_desc(d, queue, slot, bufs[i].addr, bufs[i].len, flags,
                         d->packed ? id : (uint16_t)vdriver_slot(d, queue, i + 1));
        }
    }
    if (indirect)
        vdriver_desc(d, queue, head, table, n * DESC, VRING_DESC_F_INDIRECT, id);
    d->q[queue].ndesc[id] = (uint16_t)(indirect ? 1 : n);
    vdriver_publish(d, queue, head, indirect ? 1 : n);
    return id;
}

static bool has_used(struct vdriver *d, const struct vdriver_queue *q)
{
    bool wrap = q->used & WRAP;
    uint16_t flags;

    if (!d->packed)
        return get16(d, q->device + 2) != q->used;
    flags = get16(d, q->desc + (gpa_t)(q->used & ~WRAP) * DESC + 14);
    return !!(flags & PACKED_AVAIL) == wrap && !!(flags & PACKED_USED) == wrap;
}

bool vdriver_used(struct vdriver *d, unsigned queue, uint16_t *id, uint32_t *len)
{
    struct vdriver_queue *q = &d->q[queue];
    uint8_t bytes[DESC];

    if (!has_used(d, q))
        return false;
    if (d->packed) {
        must(!gmem_read(d->e.env.mem, q->desc + (gpa_t)(q->used & ~WRAP) * DESC, bytes, DESC));
        *len = get_le32(bytes + 8);
        *id = get_le16(bytes + 12);
        assert(*id < q->size);
        q->used = forward(q, q->used, q->ndesc[*id]);
    } else {
        must(!gmem_read(d->e.env.mem, q->device + 4 + 8 * (q->used % q->size), bytes, 8));
        *id = (uint16_t)get_le32(bytes);
        *len = get_le32(bytes + 4);
        q->used++;
    }
    return true;
}

void vdriver_want(struct vdriver *d, unsigned queue, uint16_t flags, uint16_t event)
{
    struct vdriver_queue *q = &d->q[queue];

    put16(d, q->driver + (d->packed ? 2 : 0), flags);
    put16(d, q->driver + (d->packed ? 0 : 4 + 2 * q->size), event);
}

bool vdriver_wanted(struct vdriver *d, unsigned queue, unsigned n)
{
    struct vdriver_queue *q = &d->q[queue];
    uint16_t flags = get16(d, q->device + (d->packed ? 2 : 0)), event, now;

    if (!d->packed) {
        event = get16(d, q->device + 4 + 8 * q->size);
        return d->event_idx ? vring_need_event(event, q->avail, (uint16_t)(q->avail - n))
                            : !(flags & VRING_USED_F_NO_NOTIFY);
    }
    if (flags != VRING_PACKED_EVENT_FLAG_DESC)
        return flags == VRING_PACKED_EVENT_FLAG_ENABLE;
    event = get16(d, q->device);
    now = q->avail & ~WRAP;
    if ((event ^ q->avail) & WRAP)
        event = (uint16_t)((event & ~WRAP) - q->size);
    else
        event &= ~WRAP;
    return vring_need_event(event, now, (uint16_t)(now - n));
}
