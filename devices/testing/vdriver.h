/*
 * The other side of virtio, for tests: a driver that negotiates, sets up rings in fake guest RAM and adds buffers, over
 * either transport and in either ring layout; and that can write nonsense wherever a hostile one could.
 *
 * It runs in the test's thread, which also runs the loops; no lane is held.
 */
#pragma once
#include "devices/testing/env.h"
#include "devices/virtio/virtio.h"

enum vdriver_reg {
    VDR_OFFERED_PAGE,
    VDR_OFFERED,
    VDR_ACCEPTED_PAGE,
    VDR_ACCEPTED,
    VDR_STATUS,
    VDR_GENERATION,
    VDR_QUEUE,
    VDR_QUEUE_MAX,
    VDR_QUEUE_SIZE,
    VDR_QUEUE_ENABLE,
    VDR_QUEUE_RESET,
    VDR_DESC_LOW,
    VDR_DESC_HIGH,
    VDR_DRIVER_LOW,
    VDR_DRIVER_HIGH,
    VDR_DEVICE_LOW,
    VDR_DEVICE_HIGH,
    VDR_REGS
};

struct vdriver;

struct vdriver_transport {
    const char *name, *bridge; /* the class of the device that this board has besides; NULL: none */
    int (*attach)(struct device_env *env, struct virtio *v, struct err *err);
    void (*find)(struct vdriver *d); /* fills regs, config, notify and isr */
    /* Reads and acknowledges what interrupts are pending: bit 0 a queue, bit 1 the configuration. */
    unsigned (*interrupts)(struct vdriver *d);
    struct {
        uint16_t off;
        uint8_t size;
    } regs[VDR_REGS];
};
extern const struct vdriver_transport vdriver_mmio, vdriver_pci;
extern const struct vdriver_transport *const vdriver_transports[]; /* NULL-terminated */

struct vdriver_queue {
    unsigned index, size;
    gpa_t desc, driver, device;
    uint16_t avail, used; /* split: free-running; packed: slot | wrap << 15 */
    uint16_t slot;        /* split: next free descriptor */
    uint16_t ndesc[512];  /* packed: slots of the chain with that id */
};

enum { VDRIVER_QUEUES = 64, VDRIVER_RAM = 16 << 20 };

struct vdriver {
    struct test_env e;
    struct device *bridge;
    struct virtio *v; /* the device */
    const struct vdriver_transport *t;
    uint64_t regs, config, notify, isr; /* addresses on env->mmio */
    uint32_t notify_step;               /* a register for each queue; 0: one, and the queue is the value */
    unsigned queue_size;                /* of rings that vdriver_start() makes; 0: the maximum */
    unsigned queues;                    /* that vdriver_start() sets up, from the first on; 0: all */
    bool packed, event_idx;
    struct vdriver_queue q[VDRIVER_QUEUES];
    gpa_t ram; /* free from here on */
};

struct vdriver_buf {
    gpa_t addr;
    uint32_t len;
    bool write; /* for the device to fill */
};

/* A machine with one device "dev0" of that class in it, running; RAM is VDRIVER_RAM bytes.  Failures end the process.
 */
void vdriver_create(struct vdriver *d, const struct vdriver_transport *t, const struct device_class *cls,
                    const char *options);
void vdriver_destroy(struct vdriver *d);
/* The device's state goes to another one that takes its place. */
void vdriver_move(struct vdriver *d, const char *options);

uint64_t vdriver_get(struct vdriver *d, enum vdriver_reg r);
void vdriver_set(struct vdriver *d, enum vdriver_reg r, uint64_t val);
uint64_t vdriver_config(struct vdriver *d, unsigned off, unsigned size);
void vdriver_set_config(struct vdriver *d, unsigned off, uint64_t val, unsigned size);

/* Status 0, then rings are forgotten. */
void vdriver_reset(struct vdriver *d);
uint64_t vdriver_offered(struct vdriver *d);
/* ACKNOWLEDGE to FEATURES_OK; whether the device took the features. */
bool vdriver_negotiate(struct vdriver *d, uint64_t features);
/* Rings of `size` entries (0: the maximum) for the queue, and enables it. */
void vdriver_set_queue(struct vdriver *d, unsigned queue, unsigned size);
unsigned vdriver_queues(const struct vdriver *d); /* how many vdriver_start() sets up */
/* All of it: reset, features (VERSION_1 is added), all queues, DRIVER_OK. */
void vdriver_start(struct vdriver *d, uint64_t features);
bool vdriver_broken(struct vdriver *d); /* NEEDS_RESET */

/* Fresh guest RAM. */
gpa_t vdriver_alloc(struct vdriver *d, uint64_t n);
/* The slot of the `i`th descriptor of the next chain. */
unsigned vdriver_slot(const struct vdriver *d, unsigned queue, unsigned i);
/* Writes a descriptor; `next` is the link of a split ring, the id of a packed one. */
void vdriver_desc(struct vdriver *d, unsigned queue, unsigned slot, gpa_t addr, uint32_t len, uint16_t flags,
                  uint16_t next);
/* Makes the chain that was written at the next `n` slots available; split: head is what goes into the ring. */
void vdriver_publish(struct vdriver *d, unsigned queue, uint16_t head, unsigned n);
/* A whole chain, in the ring or (`indirect`) in a table; its head or id. */
uint16_t vdriver_add(struct vdriver *d, unsigned queue, const struct vdriver_buf *bufs, unsigned n, bool indirect);
void vdriver_kick(struct vdriver *d, unsigned queue);
/* Runs the device until nothing is in flight. */
void vdriver_run(struct vdriver *d);
/* Takes the next used chain. */
bool vdriver_used(struct vdriver *d, unsigned queue, uint16_t *id, uint32_t *len);
/* What the driver wants to be told: the event suppression of interrupts, raw (split: flags and event index; packed: the
 * two words of the event structure). */
void vdriver_want(struct vdriver *d, unsigned queue, uint16_t flags, uint16_t event);
/* Does the device ask to be notified of the chain that was added last, when `n` were added? */
bool vdriver_wanted(struct vdriver *d, unsigned queue, unsigned n);
