/* A virtio device for tests of the core: two queues, eight bytes of configuration, behaviour by callback. */
#pragma once
#include "devices/virtio/virtio.h"

struct vtoy {
    struct virtio v;
    void (*queue)(struct vtoy *t, struct vq *q); /* NULL: leaves chains where they are */
    unsigned resets, activations, dispatches, config_writes;
    struct vq_chain held[8]; /* for the test's use */
    unsigned nheld;
};

enum { VTOY_QUEUE_SIZE = 64, VTOY_CONFIG_WR_OFF = 4, VTOY_CONFIG_WR_LEN = 2, VTOY_FEATURE = 3 };

extern const struct device_class vtoy_class;
