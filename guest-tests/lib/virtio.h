/*
 * A small virtio driver [VIRTIO-v1.2]: PCI or MMIO, whatever the board has (MMIO devices are those that the command
 * line names as virtio_mmio.device=…), split rings or, with the word "packed", packed ones.  Completions are polled.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum {
    VIRTIO_BLK = 2,
    VIRTIO_CONSOLE = 3,
    VIRTIO_RNG = 4,
    VIRTIO_F_INDIRECT = 28,
    VIRTIO_F_EVENT_INDEX = 29,
    VIRTIO_F_VERSION_1 = 32,
    VIRTIO_F_PACKED = 34,
    VIRTIO_ACKNOWLEDGE = 1,
    VIRTIO_DRIVER = 2,
    VIRTIO_DRIVER_OK = 4,
    VIRTIO_FEATURES_OK = 8,
    VIRTIO_NEEDS_RESET = 64,
    VIRTIO_NO_VECTOR = 0xffff,
    RING_MAX = 64,  /* descriptors; the device's limit may be lower */
    RING_CHAIN = 4, /* buffers of a chain, at most */
};

struct virtio {
    int devfn; /* PCI_NONE on MMIO */
    volatile uint8_t *common, *notify, *isr, *config;
    uint32_t notify_multiplier;
    unsigned pin; /* I/O APIC pin on MMIO */
    uint64_t features;
    bool packed;
};

/* What a buffer is for. */
struct buffer {
    void *p;
    uint32_t len;
    bool in; /* the device writes */
};

struct split_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

struct packed_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t id, flags;
};

struct split_avail {
    uint16_t flags, idx, ring[RING_MAX], used_event;
};

struct split_used {
    uint16_t flags, idx;
    struct {
        uint32_t id, len;
    } ring[RING_MAX];
    uint16_t avail_event;
};

struct packed_event {
    uint16_t wrap, flags;
};

struct ring {
    union {
        struct split_desc split[RING_MAX];
        struct packed_desc packed[RING_MAX];
    } desc __attribute__((aligned(64)));
    union {
        struct split_avail split;
        struct packed_event packed;
    } driver __attribute__((aligned(64)));
    union {
        struct split_used split;
        struct packed_event packed;
    } device __attribute__((aligned(64)));
    struct virtio *v;
    volatile uint8_t *bell;
    uint16_t index, size;
    uint16_t next, seen; /* split: free-running counters; packed: positions */
    bool next_wrap, seen_wrap;
    uint16_t ndesc[RING_MAX]; /* packed: of the buffer with that id */
    union {
        struct split_desc split[RING_CHAIN];
        struct packed_desc packed[RING_CHAIN];
    } table[RING_MAX]; /* where indirect descriptors were agreed on */
};

/* Finds the first device of that type, resets it and agrees on features: those in `want` that it has, and VERSION_1;
 * skips the case when there is no such device or it lacks what the words ask for. */
void virtio_open(struct virtio *v, unsigned type, uint64_t want);
void virtio_find(struct virtio *v, unsigned type);
bool virtio_has(const struct virtio *v, unsigned feature);
uint8_t virtio_status(const struct virtio *v);
/* Writes 0 to the status and waits until it reads 0. */
void virtio_reset(const struct virtio *v);
uint64_t virtio_config64(const struct virtio *v, unsigned off);
/* The MSI-X entry for changes of the configuration, between virtio_open() and virtio_go(); PCI only. */
void virtio_config_vector(const struct virtio *v, uint16_t vector);
/* Reads, and so acknowledges, why the device interrupted: 1 queue, 2 configuration. */
uint32_t virtio_ack(const struct virtio *v);

/* Sets a queue up between virtio_open() and virtio_go(); `vector`: MSI-X entry, PCI only. */
void ring_init(struct ring *r, struct virtio *v, unsigned index, uint16_t vector);
/* With VIRTIO_F_EVENT_INDEX, on the first lap: no interrupt before the device has used descriptor `n`. */
void ring_ask(struct ring *r, uint16_t n);
/* With VIRTIO_F_EVENT_INDEX: whether the device asks to be told of the next chain. */
bool ring_wants_kick(const struct ring *r);
/* Whether the device has the queue enabled. */
bool ring_enabled(const struct virtio *v, unsigned index);
void virtio_go(const struct virtio *v);
/* Makes one chain of buffers available, through an indirect table if the feature was agreed on; returns its id. */
uint16_t ring_add(struct ring *r, const struct buffer *buffers, unsigned n);
/* Split rings with indirect tables: fills a descriptor's, and makes nothing available. */
void ring_fill(struct ring *r, uint16_t head, const struct buffer *buffers, unsigned n);
void ring_kick(struct ring *r);
/* Takes the next used chain if there is one. */
bool ring_take(struct ring *r, uint16_t *id, uint32_t *len);
/* One chain there and back: kick and wait; returns the used length. */
uint32_t ring_call(struct ring *r, const struct buffer *buffers, unsigned n);
