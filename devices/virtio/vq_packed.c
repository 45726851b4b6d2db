/*
 * Packed virtqueues [VIRTIO-v1.2 2.8]: one ring of descriptors that both sides write.  A descriptor is available, or
 * used, by two flags that change their meaning with every turn of the ring; a position is a slot and the wrap counter
 * of that turn.  A chain takes consecutive slots and is returned in as many, of which the first is written.
 */
#include <linux/virtio_ring.h>

#include "devices/virtio/vq.h"

enum {
    WRAP = 1 << 15, /* of a position, and of an event offset */
    AVAIL = 1 << VRING_PACKED_DESC_F_AVAIL,
    USED = 1 << VRING_PACKED_DESC_F_USED,
    DESC = sizeof(struct vring_packed_desc),
    DESC_FLAGS = offsetof(struct vring_packed_desc, flags),
    EVENT_OFF_WRAP = offsetof(struct vring_packed_desc_event, off_wrap),
    EVENT_FLAGS = offsetof(struct vring_packed_desc_event, flags),
};

static unsigned slot_of(uint32_t pos)
{
    return pos & ~(uint32_t)WRAP;
}

static bool packed_position_ok(const struct vq_state *s)
{
    return s->avail <= UINT16_MAX && s->used <= UINT16_MAX && slot_of(s->avail) < s->size && slot_of(s->used) < s->size;
}

static uint32_t forward(const struct vq *q, uint32_t pos, unsigned n)
{
    unsigned slot = slot_of(pos) + n;

    return slot < q->s->size ? pos + n : (slot - q->s->size) | (~pos & WRAP);
}

static uint32_t back(const struct vq *q, uint32_t pos, unsigned n)
{
    unsigned slot = slot_of(pos);

    return slot >= n ? pos - n : (slot + q->s->size - n) | (~pos & WRAP);
}

/* All entries of the table, in order; only their WRITE flag counts. */
static int add_table(struct vq *q, struct vq_chain *c, struct gspan table)
{
    for (size_t off = 0; off < table.len; off += DESC) {
        struct vring_packed_desc d;
        int rc;

        gspan_get(table, off, &d, sizeof(d));
        if (le16toh(d.flags) & VRING_DESC_F_INDIRECT)
            return vq_broken(q, "an indirect table within an indirect table");
        rc = chain_add(q, c, le64toh(d.addr), le32toh(d.len), le16toh(d.flags) & VRING_DESC_F_WRITE);
        if (rc)
            return rc;
    }
    return 0;
}

static int packed_take(struct vq *q, struct vq_chain *c)
{
    struct vq_state *s = q->s;
    uint16_t flags = gspan_load16(q->desc, slot_of(s->avail) * DESC + DESC_FLAGS);
    bool wrap = s->avail & WRAP;
    uint32_t pos = s->avail;
    int rc;

    if (!!(flags & AVAIL) != wrap || !!(flags & USED) == wrap)
        return 0;
    rc = chain_begin(q, c);
    if (rc)
        return rc;
    for (c->ndesc = 1;; c->ndesc++, pos = forward(q, pos, 1)) {
        struct vring_packed_desc d;
        struct gspan table;

        if (q->busy + c->ndesc > s->size)
            return vq_broken(q, "more descriptors made available than the ring has");
        gspan_get(q->desc, slot_of(pos) * DESC, &d, sizeof(d));
        if (pos != s->avail)
            flags = le16toh(d.flags); /* the first one's were read already, and may have changed since */
        if (flags & VRING_DESC_F_INDIRECT) {
            rc = chain_table(q, le64toh(d.addr), le32toh(d.len), flags, &table);
            rc = rc ? rc : add_table(q, c, table);
        } else {
            rc = chain_add(q, c, le64toh(d.addr), le32toh(d.len), flags & VRING_DESC_F_WRITE);
        }
        if (rc)
            return rc;
        c->head = le16toh(d.id); /* only the last one's counts */
        if (!(flags & VRING_DESC_F_NEXT))
            break;
    }
    if (c->head >= s->size)
        return vq_broken(q, "a buffer id is not below the ring's size");
    s->avail = forward(q, s->avail, c->ndesc);
    q->busy += c->ndesc;
    return 1;
}

static void packed_untake(struct vq *q, const struct vq_chain *c)
{
    q->s->avail = back(q, q->s->avail, c->ndesc);
    q->busy -= c->ndesc;
}

static void packed_put(struct vq *q, const struct vq_chain *c)
{
    size_t at = slot_of(q->s->used) * DESC;
    uint16_t flags = (q->s->used & WRAP ? AVAIL | USED : 0) | (c->written ? VRING_DESC_F_WRITE : 0);

    gspan_store32(q->desc, at + offsetof(struct vring_packed_desc, len), c->written);
    gspan_store16(q->desc, at + offsetof(struct vring_packed_desc, id), c->head);
    gspan_store16(q->desc, at + DESC_FLAGS, flags);
    q->s->used = forward(q, q->s->used, c->ndesc);
    q->busy -= c->ndesc;
}

/* Used descriptors are visible as they are put. */
static bool packed_publish(struct vq *q, unsigned n)
{
    uint16_t flags, event, off;

    __sync_synchronize(); /* the driver asks for an interrupt, then looks at the ring: one of us sees the other */
    flags = gspan_load16(q->driver, EVENT_FLAGS);
    if (!q->event_idx || flags != VRING_PACKED_EVENT_FLAG_DESC)
        return flags != VRING_PACKED_EVENT_FLAG_DISABLE;
    event = gspan_load16(q->driver, EVENT_OFF_WRAP);
    off = (uint16_t)slot_of(event);
    if ((event ^ q->s->used) & WRAP)
        off = (uint16_t)(off - q->s->size); /* a slot of the turn before */
    return vring_need_event(off, (uint16_t)slot_of(q->s->used), (uint16_t)(slot_of(q->s->used) - n));
}

static void packed_arm(struct vq *q, bool on)
{
    uint16_t flags = on ? VRING_PACKED_EVENT_FLAG_ENABLE : VRING_PACKED_EVENT_FLAG_DISABLE;

    if (on && q->event_idx) {
        gspan_store16(q->device, EVENT_OFF_WRAP, (uint16_t)q->s->avail);
        flags = VRING_PACKED_EVENT_FLAG_DESC;
    }
    gspan_store16(q->device, EVENT_FLAGS, flags);
}

const struct vq_layout vq_packed = {
    .desc = {.entry = DESC, .align = 16},
    .driver = {.fixed = sizeof(struct vring_packed_desc_event), .align = 4},
    .device = {.fixed = sizeof(struct vring_packed_desc_event), .align = 4},
    .start = WRAP,
    .position_ok = packed_position_ok,
    .take = packed_take,
    .untake = packed_untake,
    .put = packed_put,
    .publish = packed_publish,
    .arm = packed_arm,
};
