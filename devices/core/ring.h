/* A virtqueue in the hands of someone who serves the guest's ring itself, such as the host's kernel: split layout
 * [VIRTIO-v1.2 2.7]. */
#pragma once
#include "vmm/mem/gmem.h"

/* All borrowed, until the ring is taken back. */
struct ring {
    unsigned size;
    uint16_t next;                        /* chain to take, free-running; all before it have been used */
    struct gbyte *desc, *driver, *device; /* the three areas, aligned and within guest RAM */
    int kick, call; /* eventfds: chains are there; some have been used and the driver wants to know */
};
