/* What a block driver is: an image format, a filter, or the leaf.  The core checks range, alignment and read-only, so
 * drivers assume valid input. */
#pragma once
#include "devices/block/block.h"

enum blk_place {
    BLK_AT,      /* at `off` of b->file: for all that are asked */
    BLK_ZEROES,  /* reads: nothing but zeroes */
    BLK_BACKING, /* reads: what the backing node has at the same offset */
    BLK_BUSY,    /* rw() knows: compressed, to be allocated, metadata not in memory … */
};

struct blk_map {
    enum blk_place place;
    uint64_t off, len; /* len: how far this holds, at least 1, at most what was asked for */
    bool held;         /* BLK_AT: the place stays what it is until release(hold) */
    unsigned hold;
};

struct blk_driver {
    const char *name;
    size_t size; /* of the node; struct blk comes first in it */
    /* Blocking, any thread, many at a time, no lane held: all of it or -errno.  io->iov stays as it is. */
    int (*rw)(struct blk *b, const struct blk_io *io);
    /* Optional, of a node with a file below.  In the lane, never waiting: where a read, a write or a flush can go
     * without us.  *ret comes as {BLK_BUSY, io->off, io->len}. */
    void (*map)(struct blk *b, const struct blk_io *io, struct blk_map *ret);
    void (*release)(struct blk *b, unsigned hold); /* any thread; of drivers that hold */
    /* Optional.  In the lane: takes the part r->io over, to answer it later by blk_complete() or blk_forward(), or at
     * once by blk_to_worker(). */
    void (*submit)(struct blk *b, struct blk_req *r);
    void (*kick)(struct blk *b);  /* see blk_kick(); may be NULL */
    void (*close)(struct blk *b); /* copes with half an open; the core then closes what is below and frees the node */
};

/* A node without anything below. */
struct blk *blk_node(const struct blk_driver *drv, const char *name, struct lane *lane);

/* In the lane, about what submit() took.  blk_complete: `ret` bytes of the part are done (0 for a flush), or -errno. */
void blk_complete(struct blk_req *r, int64_t ret);
void blk_batch(struct blk *b);         /* after one or more of these */
void blk_forward(struct blk_req *r);   /* hands the part on to b->file, to the same place */
void blk_to_worker(struct blk_req *r); /* rw() has it */

/* Any thread, blocking: a part of a read from the backing node, at io's offset; zeroes where that has nothing. */
int blk_read_backing(struct blk *b, const struct blk_io *io, uint64_t skip, uint64_t n) must_check;
