/*
 * A virtio device and a driver gone mad: the input picks device, transport, ring layout and features, then writes
 * descriptors, guest RAM and registers, notifies, resets, and lets the device run, in any order.  Afterwards a reset
 * must leave the device idle.
 */
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "devices/testing/vdriver.h"
#include "devices/virtio/mmio.h"
#include "tools/fuzz/fuzz.h"
#include "vmm/base/log.h"

enum {
    MACHINES_MAX = 64,
    DATA = 64 << 10,   /* guest RAM from 0 on where most buffers are */
    IMAGE = 256 << 10, /* the disk */
    PCI_WINDOW = 0x4000,
};

/* One machine for each device class and transport, made when first wanted and used again by later inputs. */
static struct vdriver *machine(unsigned which)
{
    static struct vdriver *machines[MACHINES_MAX];
    const struct device_class *classes[MACHINES_MAX / 2];
    unsigned n = 0;
    char options[64];
    int image;

    for (const struct device_class *const *c = device_classes; *c; c++)
        if (!strncmp((*c)->name, "virtio-", 7) && n < array_len(classes))
            classes[n++] = *c;
    which %= 2 * n;
    if (machines[which])
        return machines[which];
    log_set_level(LOG_ERROR);
    image = memfd_create("disk", MFD_CLOEXEC);
    if (image < 0 || ftruncate(image, IMAGE))
        abort();
    machines[which] = calloc(1, sizeof(*machines[which]));
    vdriver_create(machines[which], vdriver_transports[which % 2], classes[which / 2],
                   test_env_options(classes[which / 2], image, options, sizeof(options)));
    machines[which]->queue_size = 16; /* small rings are soon full, and quick to set up */
    return machines[which];
}

static gpa_t take_address(struct vdriver *d, struct bytes *b)
{
    const gpa_t odd[] = {VDRIVER_RAM - 1, VDRIVER_RAM, UINT64_MAX,   UINT64_MAX - 15, d->regs,
                         d->notify,       d->config,   d->q[0].desc, d->q[0].driver,  d->q[0].device};
    unsigned i = (unsigned)bytes_take(b, 1);

    return i < array_len(odd) ? odd[i] + bytes_take(b, 1) : bytes_take(b, 2);
}

static void start(struct vdriver *d, struct bytes *b)
{
    uint8_t how = (uint8_t)bytes_take(b, 1);
    uint64_t features = vdriver_offered(d);

    d->e.no_doorbells = (how & 0x21) != 0x20; /* most of the time: each takes system calls */
    if (how & 2)
        features &= ~(1ull << VIRTIO_F_RING_PACKED);
    if (how & 4)
        features &= ~(1ull << VIRTIO_RING_F_EVENT_IDX);
    if (how & 8)
        features &= ~(uint64_t)bytes_take(b, 4);
    d->queues = how & 16 ? 0 : 4; /* most of them: few are as good, and started sooner */
    vdriver_start(d, features);
}

static void add_descriptor(struct vdriver *d, struct bytes *b, unsigned queue)
{
    uint8_t flags = (uint8_t)bytes_take(b, 1);
    unsigned slot = vdriver_slot(d, queue, flags >> 4);
    gpa_t addr = take_address(d, b);
    uint32_t len = (uint32_t)bytes_take(b, flags & 8 ? 4 : 1);

    vdriver_desc(d, queue, slot, addr, len, flags & 7, (uint16_t)vdriver_slot(d, queue, (unsigned)bytes_take(b, 1)));
}

static void write_ram(struct vdriver *d, struct bytes *b)
{
    gpa_t at = take_address(d, b);
    uint8_t buf[64];
    size_t n = bytes_take(b, 1) % sizeof(buf);

    for (size_t i = 0; i < n; i++)
        buf[i] = (uint8_t)bytes_take(b, 1);
    if (gmem_write(d->e.env.mem, at, buf, n))
        return; /* not RAM */
}

static void touch_register(struct vdriver *d, struct bytes *b)
{
    uint64_t window = d->t == &vdriver_mmio ? VIRTIO_MMIO_WINDOW : PCI_WINDOW;
    uint64_t at = d->regs + bytes_take(b, 2) % window;
    unsigned how = (unsigned)bytes_take(b, 1), size = how % 8 + 1;

    if (how & 8)
        test_env_write(&d->e, d->e.env.mmio, at, bytes_take(b, size), size);
    else
        test_env_read(&d->e, d->e.env.mmio, at, size);
}

static void step(struct vdriver *d, struct bytes *b)
{
    uint8_t op = (uint8_t)bytes_take(b, 1);
    unsigned queue = (op >> 4) % vdriver_queues(d);

    switch (op % 12) {
    case 0:
    case 1:
    case 2:
        add_descriptor(d, b, queue);
        break;
    case 3:
    case 4: {
        unsigned n = (unsigned)bytes_take(b, 1) % 8 + 1;

        vdriver_publish(d, queue, (uint16_t)vdriver_slot(d, queue, 0), n);
        vdriver_kick(d, queue);
        break;
    }
    case 5:
        vdriver_publish(d, queue, (uint16_t)bytes_take(b, 2), 1);
        break;
    case 6:
    case 7:
        write_ram(d, b);
        break;
    case 8:
        touch_register(d, b);
        break;
    case 9:
        vdriver_run(d);
        break;
    case 10:
        start(d, b);
        break;
    case 11:
        vdriver_set(d, (enum vdriver_reg)(bytes_take(b, 1) % VDR_REGS), bytes_take(b, 4));
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes b = {.p = data, .left = size};
    struct vdriver *d = machine((unsigned)bytes_take(&b, 1));

    if (gmem_zero(d->e.env.mem, 0, DATA))
        abort();
    start(d, &b);
    while (b.left)
        step(d, &b);
    vdriver_run(d);
    vdriver_reset(d);
    assert(!d->v->dev.lane.inflight && !d->e.ndoorbells);
    return 0;
}
