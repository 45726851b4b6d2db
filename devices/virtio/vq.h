/* Inside the virtio core: what virtio.c, vq.c, chain.c and the two ring layouts share.  Not for devices. */
#pragma once
#include "devices/virtio/transport.h"
#include "vmm/base/log.h"

/* What a snapshot keeps of a queue.  Everything else follows from it, since nothing is in flight in a snapshot. */
struct vq_state {
    uint64_t desc, driver, device; /* guest-physical */
    uint32_t size;                 /* entries */
    uint32_t avail, used; /* next to take, next to return; split: free-running index, packed: slot | wrap << 15 */
    uint16_t vector;
    uint16_t enabled;
};

struct virtio_state {
    uint64_t features; /* accepted by the driver */
    uint32_t generation;
    uint16_t vector; /* of configuration changes */
    uint16_t status;
};

/* An area of a ring takes `fixed` + `entry` × size bytes. */
struct vq_area {
    uint32_t fixed, entry, align;
};

/* Where split and packed rings differ. */
struct vq_layout {
    struct vq_area desc, driver, device;
    bool pow2;                                     /* sizes are powers of two */
    uint32_t start;                                /* of avail and used in a fresh queue */
    bool (*position_ok)(const struct vq_state *s); /* avail and used may come from a snapshot */
    /* 1: a chain, 0: none available, <0: broken. */
    int (*take)(struct vq *q, struct vq_chain *c);
    void (*untake)(struct vq *q, const struct vq_chain *c);
    void (*put)(struct vq *q, const struct vq_chain *c);
    /* Makes what was put since the last time visible, and asks the ring whether that is worth an interrupt. */
    bool (*publish)(struct vq *q, unsigned n);
    /* Asks the driver for notifications, or says that there is no need. */
    void (*arm)(struct vq *q, bool on);
};
extern const struct vq_layout vq_split, vq_packed;

struct vq {
    struct virtio *v;
    struct vq_state *s;
    const struct vq_layout *layout; /* NULL: not live; the rest is valid only while it is */
    unsigned index;
    uint16_t life;
    bool event_idx, armed;
    unsigned budget;      /* chains until others get their turn */
    unsigned unpublished; /* ring slots put since the last publish */
    unsigned busy;        /* ring slots of chains in flight (packed) */
    struct gspan desc, driver, device;
    struct iovec *iov;   /* ops->queue_size times so many; memory only where they were used */
    uint16_t *free_iovs; /* stack of those that no chain has, `nfree` high */
    unsigned nfree;
    bool *inflight;    /* by head */
    struct work again; /* posted when the budget is spent */
    struct doorbell bell;
    struct watch watch; /* of bell.fd, -1: none */
    struct watch call;  /* while the queue is lent: of the eventfd that means an interrupt; fd -1: it is not */
};

struct virtio_core {
    struct virtio *v;
    struct device_hook hook;
    struct virtio_state s;
    struct vq_state *qs;
    struct vq *queues;
    bool running;
    bool draining;      /* no new work, no change of state */
    bool notify_mapped; /* doorbells have an address */
    struct iovec *iov;  /* of all queues; lazily backed */
    size_t iov_size;
    struct log_limit limit;
};

void vq_init(struct vq *q, struct virtio *v, unsigned index);
void vq_fini(struct vq *q);
/* Positions of a ring that was just set up. */
void vq_fresh(struct vq *q);
/* Checks the rings and makes the queue live; a queue that the guest set up badly breaks the device. */
void vq_start(struct vq *q);
/* Nothing is in flight.  Chains that a device still holds are void afterwards. */
void vq_stop(struct vq *q);
/* Calls ops->queue if the queue is live and the device runs. */
void vq_dispatch(struct vq *q);
/* Doorbell of a live queue on or off, as core->notify_mapped says. */
void vq_doorbell(struct vq *q);
/* loan.c: has the device take back a queue that is lent; the interrupt's vector, lent or not. */
void vq_recall(struct vq *q);
void vq_rewire(struct vq *q, uint16_t vector);
/* -EPROTO, after virtio_broken(). */
int vq_broken(struct vq *q, const char *why);

/* Building a chain for vq_layout.take: an empty one; 0 or <0 after vq_broken(). */
int chain_begin(struct vq *q, struct vq_chain *c) must_check;
int chain_add(struct vq *q, struct vq_chain *c, uint64_t addr, uint32_t len, bool write) must_check;
/* An indirect table as a span; its length is a multiple of a descriptor's. */
int chain_table(struct vq *q, uint64_t addr, uint32_t len, uint16_t flags, struct gspan *ret) must_check;
