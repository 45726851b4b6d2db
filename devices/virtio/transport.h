/*
 * The seam between the virtio core and its transports (PCI, MMIO) [VIRTIO-v1.2 4].  A transport decodes registers and
 * calls these; the core validates everything, so both transports refuse the same nonsense in the same way.  All in the
 * device's lane.
 */
#pragma once
#include "devices/virtio/virtio.h"

struct virtio_transport {
    /* Used-buffer interrupt of a queue (vector is the guest's choice for it; VIRTIO_NO_VECTOR: none). */
    void (*queue_interrupt)(struct virtio_transport *t, unsigned queue, uint16_t vector);
    void (*config_interrupt)(struct virtio_transport *t, uint16_t vector);
    /* Of a queue that is lent: have the host's kernel send the vector's interrupt whenever `fd` is signalled, or no
     * more. What it does not take is left in the eventfd.  NULL: it takes none. */
    void (*queue_wire)(struct virtio_transport *t, uint16_t vector, int fd, bool on);
    /* The guest's addresses for queue notifications, to be made doorbells when queues go live; undone by reset. */
    struct doorbell (*notify_doorbell)(struct virtio_transport *t, unsigned queue);
    /* virtio_fini(): the transport leaves the bus and frees itself. */
    void (*detach)(struct virtio_transport *t);
};
enum { VIRTIO_NO_VECTOR = 0xffff };

/* Status register.  Writing 0 resets: drains the device, so it returns when nothing touches guest RAM any more. */
uint8_t virtio_get_status(const struct virtio *v);
void virtio_set_status(struct virtio *v, uint8_t status);
/* Feature pages of 32 bits; pages beyond 1 read 0 and ignore writes. */
uint32_t virtio_offered(const struct virtio *v, uint32_t page);
uint32_t virtio_accepted(const struct virtio *v, uint32_t page);
void virtio_accept(struct virtio *v, uint32_t page, uint32_t bits);

/* Queue registers; `queue` is whatever the guest selected: out of range reads 0 and ignores writes.  So do all but the
 * vector once the queue is enabled, or the driver is up and did not negotiate VIRTIO_F_RING_RESET. */
enum virtio_queue_reg { VQ_SIZE_MAX, VQ_SIZE, VQ_VECTOR, VQ_ENABLE, VQ_DESC, VQ_DRIVER, VQ_DEVICE };
uint64_t virtio_queue_get(const struct virtio *v, uint16_t queue, enum virtio_queue_reg reg);
void virtio_queue_set(struct virtio *v, uint16_t queue, enum virtio_queue_reg reg, uint64_t val);
/* VIRTIO_F_RING_RESET. */
void virtio_queue_reset(struct virtio *v, uint16_t queue);
/* The guest notified `queue` by a write that was not a doorbell. */
void virtio_notify(struct virtio *v, uint16_t queue);
/* The notify addresses appear (true) or are about to vanish (false), because the guest moves a BAR; doorbells follow.
 */
void virtio_notify_mapped(struct virtio *v, bool mapped);

uint16_t virtio_config_vector(const struct virtio *v);
void virtio_set_config_vector(struct virtio *v, uint16_t vector);
uint32_t virtio_config_generation(const struct virtio *v);
/* Device configuration bytes; beyond the end reads 0, writes are dropped.  `size` 1, 2, 4 or 8. */
uint64_t virtio_config_read(struct virtio *v, uint64_t off, unsigned size);
void virtio_config_write(struct virtio *v, uint64_t off, uint64_t val, unsigned size);
