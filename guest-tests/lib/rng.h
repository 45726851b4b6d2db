/* The entropy device as a source of interrupts: one request, one used buffer. */
#pragma once
#include "guest-tests/lib/virtio.h"

static inline void rng_open(struct virtio *v, struct ring *r, uint16_t vector)
{
    virtio_open(v, VIRTIO_RNG, 0);
    ring_init(r, v, 0, vector);
    virtio_go(v);
}

static inline void rng_call(struct ring *r)
{
    static uint8_t bytes[16];

    ring_call(r, &(struct buffer){bytes, sizeof(bytes), .in = true}, 1);
}
