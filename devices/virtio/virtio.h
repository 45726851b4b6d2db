/*
 * virtio 1.2 for device authors [VIRTIO-v1.2].  The core owns transport, features, rings (split and packed), event
 * index, indirect tables, reset and snapshots; a device is a const ops table and never sees PCI.
 */
#pragma once
#include "devices/core/device.h"
#include "devices/core/ring.h"

struct virtio;
struct vq;

/*
 * One request taken from a queue; a value, to be embedded in the device's own request.  The iovecs belong to the queue
 * and stay valid until the chain is pushed; hand them to the kernel as they are, or use the copying functions below.
 */
struct vq_side {
    struct iovec *iov;
    unsigned n;
    uint64_t left; /* bytes */
};
struct vq_chain {
    uint16_t head;      /* descriptor index (split) or buffer id (packed): below the queue's size, unique in flight */
    uint16_t ndesc;     /* ring slots that it took; this and the next two are the core's */
    uint16_t life;      /* which life of the queue it belongs to: a reset ends one */
    uint16_t iovs;      /* where its iovecs are */
    struct vq_side out; /* the guest wrote it: requests */
    struct vq_side in;  /* the guest will read it: replies */
    uint32_t written;   /* what the guest will be told */
};

/* All callbacks may be NULL, and run in the lane. */
struct virtio_ops {
    uint16_t id;         /* device type [VIRTIO-v1.2 5] */
    uint8_t nqueues;     /* unless the device sets v->nqueues before virtio_init() */
    uint16_t queue_size; /* maximum, power of two */
    uint64_t features;   /* device-specific bits; as nqueues */
    size_t config_size;
    bool no_doorbells; /* drivers wait for each answer, so the vCPU that notifies had better do the work itself */
    size_t config_wr_off, config_wr_len; /* the bytes of v->config that the driver may change */
    void (*reset)(struct virtio *v);     /* by guest or machine: own state and v->config as at power-on; lane drained */
    void (*activate)(struct virtio *v);  /* DRIVER_OK, or after load: v->features is final */
    void (*queue)(struct virtio *v, struct vq *q);                  /* "q may have chains": pop until 0 */
    void (*queue_reset)(struct virtio *v, struct vq *q);            /* one queue alone [2.6.1]; lane drained */
    void (*config_written)(struct virtio *v, size_t off, size_t n); /* after the bytes in v->config changed */
    void (*recall)(struct virtio *v, struct vq *q); /* a queue that is lent must be taken back now: vq_take_back() */
};

/*
 * In the device's lane, as all below.  1: a chain; 0: none, ops->queue will be called when there may be one again
 * (empty and notifications re-armed, or it is the other devices' turn); <0: the guest broke the ring, the core has set
 * NEEDS_RESET: just return.
 */
int vq_pop(struct vq *q, struct vq_chain *ret) must_check;
/* The same, but an empty queue stays as it is: for who has something to do before it asks for notifications. */
int vq_try_pop(struct vq *q, struct vq_chain *ret) must_check;
/* Puts the last popped chain back, unconsumed (no buffer at the host's end yet). */
void vq_unpop(struct vq *q, struct vq_chain *c);
/* Copies and consumes; less than n when the side is shorter. */
size_t chain_read(struct vq_chain *c, void *dst, size_t n);
size_t chain_write(struct vq_chain *c, const void *src, size_t n); /* and counts in c->written */
/* For replies that came by iovec: how much arrived. */
void chain_wrote(struct vq_chain *c, uint64_t n);
/* Cuts the last byte off a side (a status that follows data of any length).  False when the side is empty. */
bool chain_take_last(struct vq_side *s, struct gspan *ret);
/* Returns the chain to the guest; used length = c->written.  After a reset it does nothing. */
void vq_push(struct vq *q, struct vq_chain *c);
/* Publishes what was pushed; interrupts if the driver wants it. */
void vq_flush(struct vq *q);
unsigned vq_index(const struct vq *q);
unsigned vq_size(const struct vq *q); /* ring slots; 0 when it is not live */

/*
 * Lends a queue, with nothing in flight, to someone who serves its ring himself: it has no chains for the device until
 * vq_take_back(), and ops->queue is not called.  From that callback, again after each recall.  -errno where that cannot
 * be (packed rings, a board without doorbells): the device serves it.
 */
int vq_lend(struct vq *q, struct ring *ret) must_check;
/* `next` is where he stopped, all before it used. */
void vq_take_back(struct vq *q, uint16_t next);
bool vq_lent(const struct vq *q);

struct vq *virtio_queue(struct virtio *v, unsigned index);
/* The device changed v->config: bumps the generation and tells the driver. */
void virtio_config_changed(struct virtio *v);
/* The guest broke the protocol of this device (not of the ring): NEEDS_RESET, logged at a limited rate. */
void virtio_broken(struct virtio *v, const char *why);

struct virtio_transport;
struct virtio_core; /* queues, negotiation, generic state: private to the core */

/* First member of a device's own struct.  The core hooks into the life cycle by itself: a class needs init (which calls
 * virtio_init), fini (which calls virtio_fini), and what is its own. */
struct virtio {
    struct device dev;
    const struct virtio_ops *ops;
    unsigned nqueues;
    uint64_t offered;  /* ops->features, unless the device sets it before virtio_init(); the core adds its own, of
                          which the device may take some away after it */
    uint64_t features; /* negotiated; final in activate() */
    uint8_t *config; /* config_size plain little-endian bytes, filled by the device after virtio_init() and in reset */
    struct virtio_core *core;
    struct virtio_transport *transport; /* set by the board's attach */
};

/* From the device's init, after it has set nqueues and offered if they differ from the ops table. */
int virtio_init(struct virtio *v, const struct virtio_ops *ops, struct err *err) must_check;
void virtio_fini(struct virtio *v); /* copes with a half-done init */
static inline bool virtio_has(const struct virtio *v, unsigned feature_bit)
{
    return v->features >> feature_bit & 1;
}
