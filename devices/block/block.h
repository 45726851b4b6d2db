/*
 * The block layer: nodes of one shape, each with one driver.  The core checks range, alignment and read-only and counts
 * requests in flight, so drivers assume valid input; a driver may do a part of a request, and the core comes back with
 * the rest.
 */
#pragma once
#include "vmm/base/base.h"
#include "vmm/base/err.h"
#include "vmm/base/list.h"
#include "vmm/loop/loop.h"

enum blk_op { BLK_READ, BLK_WRITE, BLK_FLUSH, BLK_DISCARD, BLK_ZERO };

struct blk;

struct blk_req { /* embedded in its owner's request; belongs to the node from submit until done */
    enum blk_op op;
    bool unmap;        /* BLK_ZERO: need not stay allocated */
    uint64_t off, len; /* bytes; this and iov are used up on the way */
    struct iovec *iov; /* BLK_READ, BLK_WRITE: `len` bytes */
    unsigned niov;
    void (*done)(struct blk_req *r, int ret); /* in the lane, never from inside submit; 0 or -errno */
    /* Below: the block layer's. */
    struct blk *blk;
    struct work work;
    struct list link;
    int ret;
};

struct blk_limits {
    uint64_t size;  /* bytes; a multiple of align */
    uint32_t align; /* of off and len; power of two, ≥ 512 */
    bool read_only;
};

struct blk_user { /* embedded in the front end */
    /* In the lane: done() was called for one or more requests, and there is a pause now.  May be NULL. */
    void (*batch)(struct blk_user *u);
};

struct blk_driver {
    const char *name;
    void (*submit)(struct blk *b, struct blk_req *r); /* answered by blk_complete(), never from inside */
    void (*kick)(struct blk *b);                      /* see blk_kick(); may be NULL */
    void (*close)(struct blk *b);                     /* frees the node */
};

struct blk { /* first member of a driver's own struct */
    const struct blk_driver *drv;
    struct lane *lane;     /* borrowed: the front end's */
    struct blk_user *user; /* borrowed; may be NULL */
    struct blk_limits lim;
};

struct blk_open_opts {
    bool read_only;
    bool direct;     /* past the host's page cache */
    bool any_header; /* raw whatever it begins with: no look for the headers of other formats */
    bool workers;    /* no io_uring: threads, as on hosts that forbid it */
};

/* Opens `path`, a regular file or a block device, as a raw disk and locks it against a second writer. */
int blk_open(const char *path, const struct blk_open_opts *o, struct lane *lane, struct blk_user *user,
             struct blk **ret, struct err *err) must_check;
void blk_close(struct blk *b); /* nothing in flight; accepts NULL */

/* In the lane.  Every request is answered by done(), also those that fail the core's checks: -EINVAL (off or len),
 * -EROFS. */
void blk_submit(struct blk *b, struct blk_req *r);
/* After a batch of submits: hands them to the kernel in one go. */
void blk_kick(struct blk *b);

/* For drivers, in the lane: `ret` bytes are done (0 for a flush), or -errno. */
void blk_complete(struct blk_req *r, int64_t ret);
/* For drivers, after one or more blk_complete(). */
void blk_batch(struct blk *b);
