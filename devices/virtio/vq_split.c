/*
 * Split virtqueues [VIRTIO-v1.2 2.7]: a table of descriptors linked by index, a ring of chain heads that the driver
 * makes available, a ring of used ones.  Positions are free-running 16-bit indices.
 */
#include <linux/virtio_ring.h>

#include "devices/virtio/vq.h"

enum {
    RING_FLAGS = 0, /* in both rings */
    RING_IDX = 2,
    RING_ENTRIES = 4, /* and after them the event index that is meant for the other side's ring */
    AVAIL_ENTRY = sizeof(uint16_t),
    USED_ENTRY = sizeof(struct vring_used_elem),
};

static bool split_position_ok(const struct vq_state *s)
{
    return s->avail <= UINT16_MAX && s->used <= UINT16_MAX;
}

/* One linked list of `n` descriptors at most: the ring's own, or an indirect table, which the ring's may end in. */
static int walk(struct vq *q, struct vq_chain *c, struct gspan table, unsigned n, unsigned at, bool indirect)
{
    for (unsigned steps = 0; steps < n; steps++) {
        struct vring_desc d;
        struct gspan inner;
        uint16_t flags;
        int rc;

        gspan_get(table, at * sizeof(d), &d, sizeof(d));
        flags = le16toh(d.flags);
        if (flags & VRING_DESC_F_INDIRECT) {
            if (indirect)
                return vq_broken(q, "an indirect table within an indirect table");
            rc = chain_table(q, le64toh(d.addr), le32toh(d.len), flags, &inner);
            return rc ? rc : walk(q, c, inner, (unsigned)(inner.len / sizeof(d)), 0, true);
        }
        rc = chain_add(q, c, le64toh(d.addr), le32toh(d.len), flags & VRING_DESC_F_WRITE);
        if (rc || !(flags & VRING_DESC_F_NEXT))
            return rc;
        at = le16toh(d.next);
        if (at >= n)
            return vq_broken(q, "a chain links to a descriptor beyond the table");
    }
    return vq_broken(q, "a chain of descriptors loops");
}

static int split_take(struct vq *q, struct vq_chain *c)
{
    struct vq_state *s = q->s;
    uint16_t ready = (uint16_t)(gspan_load16(q->driver, RING_IDX) - s->avail);
    int rc;

    if (!ready)
        return 0;
    if (ready > s->size)
        return vq_broken(q, "the available index jumped");
    rc = chain_begin(q, c);
    if (rc)
        return rc;
    c->head = gspan_load16(q->driver, RING_ENTRIES + AVAIL_ENTRY * (s->avail % s->size));
    if (c->head >= s->size)
        return vq_broken(q, "an available head is beyond the table");
    rc = walk(q, c, q->desc, s->size, c->head, false);
    if (rc)
        return rc;
    s->avail = (uint16_t)(s->avail + 1);
    return 1;
}

static void split_untake(struct vq *q, const struct vq_chain *c)
{
    (void)c;
    q->s->avail = (uint16_t)(q->s->avail - 1);
}

static void split_put(struct vq *q, const struct vq_chain *c)
{
    struct vring_used_elem e = {.id = htole32(c->head), .len = htole32(c->written)};

    gspan_put(q->device, RING_ENTRIES + USED_ENTRY * (q->s->used % q->s->size), &e, sizeof(e));
    q->s->used = (uint16_t)(q->s->used + 1);
}

static bool split_publish(struct vq *q, unsigned n)
{
    uint16_t used = (uint16_t)q->s->used;

    gspan_store16(q->device, RING_IDX, used);
    __sync_synchronize(); /* the driver asks for an interrupt, then looks at the index: one of us sees the other */
    if (q->event_idx)
        return vring_need_event(gspan_load16(q->driver, RING_ENTRIES + AVAIL_ENTRY * q->s->size), used,
                                (uint16_t)(used - n));
    return !(gspan_load16(q->driver, RING_FLAGS) & VRING_AVAIL_F_NO_INTERRUPT);
}

/* With event indices the last one asked for stays behind as the ring moves on, so there is nothing to take back. */
static void split_arm(struct vq *q, bool on)
{
    if (!q->event_idx)
        gspan_store16(q->device, RING_FLAGS, on ? 0 : VRING_USED_F_NO_NOTIFY);
    else if (on)
        gspan_store16(q->device, RING_ENTRIES + USED_ENTRY * q->s->size, (uint16_t)q->s->avail);
}

const struct vq_layout vq_split = {
    .desc = {.entry = sizeof(struct vring_desc), .align = 16},
    .driver = {.fixed = RING_ENTRIES + sizeof(uint16_t), .entry = AVAIL_ENTRY, .align = 2},
    .device = {.fixed = RING_ENTRIES + sizeof(uint16_t), .entry = USED_ENTRY, .align = 4},
    .pow2 = true,
    .position_ok = split_position_ok,
    .take = split_take,
    .untake = split_untake,
    .put = split_put,
    .publish = split_publish,
    .arm = split_arm,
};
