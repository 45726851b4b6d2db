/* Entropy device [VIRTIO-v1.2 5.4]. */
#include <linux/virtio_ids.h>
#include <sys/random.h>

#include "devices/virtio/virtio.h"

enum { RNG_CHUNK = 256 }; /* getrandom(2): up to 256 bytes never come short */

static void rng_queue(struct virtio *v, struct vq *q)
{
    struct vq_chain c;
    uint8_t buf[RNG_CHUNK];

    (void)v;
    while (vq_pop(q, &c) > 0) {
        ssize_t got = getrandom(buf, sizeof(buf), 0);

        chain_write(&c, buf, got > 0 ? (size_t)got : 0);
        vq_push(q, &c);
    }
    vq_flush(q);
}

static const struct virtio_ops rng_ops = {.id = VIRTIO_ID_RNG, .nqueues = 1, .queue_size = 64, .queue = rng_queue};

static int rng_init(struct device *d, struct err *err)
{
    return virtio_init(container_of(d, struct virtio, dev), &rng_ops, err);
}

static void rng_fini(struct device *d)
{
    virtio_fini(container_of(d, struct virtio, dev));
}

const struct device_class virtio_rng = {
    .name = "virtio-rng",
    .summary = "entropy for the guest",
    .size = DEVICE_SIZE(struct virtio, dev),
    .init = rng_init,
    .fini = rng_fini,
};
