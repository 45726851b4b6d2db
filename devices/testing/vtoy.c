#include "devices/testing/vtoy.h"

static struct vtoy *toy_of(struct virtio *v)
{
    return container_of(v, struct vtoy, v);
}

static void toy_reset(struct virtio *v)
{
    toy_of(v)->resets++;
    put_le64(v->config, 0x8877665544332211);
}

static void toy_activate(struct virtio *v)
{
    toy_of(v)->activations++;
}

static void toy_queue(struct virtio *v, struct vq *q)
{
    struct vtoy *t = toy_of(v);

    t->dispatches++;
    if (t->queue)
        t->queue(t, q);
}

static void toy_config_written(struct virtio *v, size_t off, size_t n)
{
    (void)off;
    (void)n;
    toy_of(v)->config_writes++;
}

static const struct virtio_ops toy_ops = {
    .id = 63,
    .nqueues = 2,
    .queue_size = VTOY_QUEUE_SIZE,
    .features = 1ull << VTOY_FEATURE,
    .config_size = 8,
    .config_wr_off = VTOY_CONFIG_WR_OFF,
    .config_wr_len = VTOY_CONFIG_WR_LEN,
    .reset = toy_reset,
    .activate = toy_activate,
    .queue = toy_queue,
    .config_written = toy_config_written,
};

static int toy_init(struct device *d, struct err *err)
{
    return virtio_init(container_of(d, struct virtio, dev), &toy_ops, err);
}

static void toy_fini(struct device *d)
{
    virtio_fini(container_of(d, struct virtio, dev));
}

const struct device_class vtoy_class = {
    .name = "virtio-toy", .size = DEVICE_SIZE(struct vtoy, v.dev), .init = toy_init, .fini = toy_fini};
