/*
 * The block layer: nodes of one shape, each with one driver.  A node may stand on a `file` node.  The core checks
 * range, alignment and read-only, splits to the driver's limit and counts requests in flight, so drivers assume valid
 * input.
 */
#pragma once
#include "devices/core/device.h"

enum blk_op { BLK_READ, BLK_WRITE, BLK_FLUSH, BLK_DISCARD, BLK_ZERO };
enum { BLK_FUA = 1 << 0 };

struct blk;

struct blk_req { /* embedded in its owner's request; belongs to the node from submit until done */
    enum blk_op op;
    unsigned flags;
    uint64_t off, len; /* bytes */
    struct iovec *iov;
    unsigned niov;
    void (*done)(struct blk_req *r, int ret); /* in the lane, never from inside submit; 0 or -errno */
    /* below: the driver's */
    struct work work;
    struct blk *blk;
    struct list link;
};

struct blk_limits {
    uint64_t size;  /* bytes */
    uint32_t align; /* of off and len; power of two, ≥ 512 */
    uint32_t max_len;
    bool read_only, can_discard, can_zero;
};

struct blk_opts {
    bool read_only, direct;
};

/* Opens `path` as the raw file driver does: regular file or block device.  `lane` is the front end's. */
int blk_open(const char *path, const struct blk_opts *o, struct lane *lane, struct blk **ret, struct err *err)
    must_check;
void blk_close(struct blk *b); /* nothing in flight; accepts NULL */
const struct blk_limits *blk_limits(const struct blk *b);
/* In the lane.  Every request is answered by done(), also those that fail the core's checks (-EINVAL, -EROFS, …). */
void blk_submit(struct blk *b, struct blk_req *r);
/* After a batch of submits: hands them to the kernel in one go. */
void blk_kick(struct blk *b);
