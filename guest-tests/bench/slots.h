/*
 * A ring as a fast driver uses it: each descriptor is a slot with an indirect table of its own, which is filled once
 * and made available over and over.  Completions are polled, no interrupts are wanted, and the device is kicked only
 * when it asks for that.
 */
#pragma once
#include "guest-tests/lib/test.h"
#include "guest-tests/lib/virtio.h"

enum { SLOTS = RING_MAX };

static const uint64_t slots_features = 1ull << VIRTIO_F_INDIRECT | 1ull << VIRTIO_F_EVENT_INDEX;

struct slots {
    struct ring ring;
    uint16_t told; /* of what is available, that much the device knows of */
};

/* Between virtio_open() with slots_features and virtio_go(). */
static inline void slots_init(struct slots *s, struct virtio *v, unsigned index)
{
    CHECK_EQ(v->features & slots_features, slots_features);
    CHECK(!v->packed);
    ring_init(&s->ring, v, index, VIRTIO_NO_VECTOR);
    CHECK_EQ(s->ring.size, RING_MAX);
    s->ring.driver.split.used_event = UINT16_MAX;
    s->told = 0;
}

static inline void slot_fill(struct slots *s, uint16_t slot, const struct buffer *b, unsigned n)
{
    ring_fill(&s->ring, slot, b, n);
}

/* Makes a slot available; the device hears of it by slots_kick(). */
static inline void slot_add(struct slots *s, uint16_t slot)
{
    struct split_avail *a = &s->ring.driver.split;

    a->ring[a->idx % RING_MAX] = slot;
    __atomic_store_n(&a->idx, a->idx + 1, __ATOMIC_RELEASE);
}

/* The next slot that is back; false: none is. */
static inline bool slot_take(struct slots *s, uint16_t *slot, uint32_t *len)
{
    return ring_take(&s->ring, slot, len);
}

static inline void slots_kick(struct slots *s)
{
    uint16_t now = s->ring.driver.split.idx, asked;

    if (now == s->told)
        return;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    asked = __atomic_load_n(&s->ring.device.split.avail_event, __ATOMIC_RELAXED);
    if ((uint16_t)(now - asked - 1) < (uint16_t)(now - s->told))
        ring_kick(&s->ring);
    s->told = now;
}
