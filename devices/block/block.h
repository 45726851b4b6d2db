/*
 * The block layer: a disk is a tree of nodes of one shape, each with one driver.  At the leaves are files; above them
 * image formats, with the image they are based on beside them, and filters.
 *
 * Requests go two roads.  A front end with a lane submits and is called back; what a driver can say the place of (see
 * map in driver.h) goes straight to the leaf's io_uring, everything else runs on a worker.  The verbs of `bothy img`
 * and the drivers themselves call blk_rw() and its like, which block, from any thread.
 */
#pragma once
#include "vmm/base/base.h"
#include "vmm/base/err.h"
#include "vmm/base/list.h"
#include "vmm/loop/loop.h"
#include "vmm/mem/iov.h"

enum blk_op { BLK_READ, BLK_WRITE, BLK_FLUSH, BLK_DISCARD, BLK_ZERO, BLK_COPY };

struct blk;
struct blk_keys;
struct opt_list;

struct blk_io {
    enum blk_op op;
    bool unmap;        /* BLK_ZERO: need not stay allocated */
    uint64_t off, len; /* bytes */
    /* BLK_READ, BLK_WRITE: `len` bytes, perhaps a guest's memory: touched by system calls and iov_*() only. */
    struct iovec *iov;
    unsigned niov; /* at most BLK_IOV_MAX */
    /* BLK_COPY: a write of what this leaf has there, which the host's file system moves by itself.  By blk_rw() only;
     * -ENOTSUP or another error where it cannot: then read and write. */
    struct blk *from;
    uint64_t from_off;
};
enum { BLK_IOV_MAX = 1024 }; /* what one system call takes */

struct blk_req {      /* embedded in its owner's request; belongs to the block layer from submit until done */
    struct blk_io io; /* used up on the way, its iovecs too */
    void (*done)(struct blk_req *r, int ret); /* in the lane, never from inside submit; 0 or -errno */
    /* Below: the block layer's. */
    struct blk *top;    /* submitted to */
    struct blk *blk;    /* who has it now */
    struct blk *holder; /* who is told when it is through: see release in driver.h; NULL: nobody */
    uint64_t off, left; /* of the whole, in top; io is the part that is under way */
    unsigned hold;
    bool again;    /* not the first part */
    unsigned niov; /* of the whole, from io.iov on */
    size_t cut;    /* bytes that the part's last iovec was shortened by */
    struct work work;
    struct list link;
    int ret;
};

struct blk_limits {
    uint64_t size;  /* bytes; a multiple of align */
    uint32_t align; /* of off and len of submitted requests; power of two, ≥ 512 */
    bool read_only;
    bool grows; /* a file below an image format: it may be written beyond its size, and reads as zeroes there */
};

struct blk_user { /* embedded in the front end */
    /* In the lane: done() was called for one or more requests, and there is a pause now.  May be NULL. */
    void (*batch)(struct blk_user *u);
};

struct blk_driver;

struct blk { /* first member of a driver's own struct */
    const struct blk_driver *drv;
    char *name;            /* for messages: the path, as the user or the image above wrote it */
    struct lane *lane;     /* borrowed: the front end's; NULL: blocking calls only */
    struct blk *parent;    /* who has it as `file` or `backing`; NULL: the front end */
    struct blk_user *user; /* borrowed; of the top node; may be NULL */
    struct blk *file;      /* where its bytes are; NULL: a leaf */
    struct blk *backing;   /* what it reads as where it holds nothing itself; may be shorter; NULL: zeroes */
    struct blk_limits lim;
};

enum blk_cache { BLK_CACHE_WRITEBACK, BLK_CACHE_NONE, BLK_CACHE_WRITETHROUGH, BLK_CACHE_UNSAFE };

struct blk_open_opts {
    const char *format;  /* a driver's name; NULL: by the ending of the file's name, checked against its header */
    const char *options; /* the driver's own, "key=value,…"; may be NULL */
    bool read_only;
    bool fresh;      /* just made by a driver's create(): also formats that are read-only as disks take writes */
    bool snapshot;   /* writes go to a file that vanishes with the disk */
    bool workers;    /* no io_uring: threads, as on hosts that forbid it */
    bool no_backing; /* leave b->backing alone, NULL */
    bool unlocked;   /* take no locks, whoever else writes */
    uint32_t cache;  /* enum blk_cache */
    /* Put above the image and above its file, the last one topmost: see blk_filter() in driver.h.  May be NULL. */
    const struct opt_list *filters, *file_filters;
    /* Of encrypted images, each is tried; borrowed while opening.  May be NULL. */
    const struct blk_keys *keys;
    bool keyless;      /* an encrypted image opens without its key: what it is can be told, its data not read */
    const char *allow; /* folders, ':' between, where images named inside images may lie besides the image's own */
    unsigned depth;    /* images above in the chain; the block layer's */
};

/*
 * Opens the image or raw disk `path`, a regular file or a block device, with all that it names inside, and locks it
 * against a second writer.  `lane` NULL: for blocking calls only.
 */
int blk_open(const char *path, const struct blk_open_opts *o, struct lane *lane, struct blk_user *user,
             struct blk **ret, struct err *err) must_check;
void blk_close(struct blk *b); /* with all below; nothing in flight; accepts NULL */

/* ---- With a lane, in it. ---- */

/* Every request is answered by done(), also those that fail the core's checks: -EINVAL (off or len), -EROFS. */
void blk_submit(struct blk *b, struct blk_req *r);
/* What is left of a request that done() was told has failed, from done() or later: as if it were submitted now. */
void blk_retry(struct blk_req *r);
/* After a batch of submits: hands them to the kernel in one go.  Calls done() of what is through already. */
void blk_kick(struct blk *b);

/* ---- Blocking, from any thread, many at a time; any alignment.  All of it or -errno. ---- */

int blk_rw(struct blk *b, const struct blk_io *io) must_check;
/* io's operation on a part of it, `n` bytes from `skip` on, at `off` of `b`. */
int blk_rw_part(struct blk *b, const struct blk_io *io, uint64_t skip, uint64_t n, uint64_t off) must_check;
int blk_pread(struct blk *b, void *buf, size_t n, uint64_t off) must_check;
int blk_pwrite(struct blk *b, const void *buf, size_t n, uint64_t off) must_check;
int blk_zero(struct blk *b, uint64_t off, uint64_t n, bool unmap) must_check;
int blk_discard(struct blk *b, uint64_t off, uint64_t n) must_check;
int blk_flush(struct blk *b) must_check;
