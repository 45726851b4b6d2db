/* What a block driver is: an image format, a filter, or the leaf.  The core checks range, alignment and read-only, so
 * drivers assume valid input. */
#pragma once
#include <jansson.h>

#include "devices/block/block.h"
#include "vmm/base/opt.h"

enum blk_place {
    BLK_AT,      /* at `off` of a node below: for all that are asked */
    BLK_ZEROES,  /* reads: nothing but zeroes */
    BLK_BACKING, /* reads: what the backing node has at the same offset */
    BLK_BUSY,    /* rw() knows: compressed, to be allocated, metadata not in memory … */
};

struct blk_map {
    enum blk_place place;
    uint64_t off, len; /* len: how far this holds, at least 1, at most what was asked for */
    struct blk *in;    /* BLK_AT: that node; comes as b->file */
    bool held;         /* BLK_AT: the place stays what it is until release(hold) */
    unsigned hold;
};

/* What lies at an offset of a node, without what is below it. */
struct blk_status {
    enum blk_place place; /* BLK_AT: data, perhaps compressed; never BLK_BUSY */
    uint64_t len;         /* how far this holds, at least 1, at most what was asked for */
    bool has_off;         /* `off` of b->file holds it byte by byte */
    uint64_t off;
    bool compressed;
};

struct blk_check {               /* what a check found, and mended where it was asked to */
    uint64_t corruptions, leaks; /* clusters */
    uint64_t corruptions_fixed, leaks_fixed;
    uint64_t allocated, total, compressed, fragmented; /* clusters */
    uint64_t end;                                      /* bytes that the image needs of the file */
    uint64_t failures;                                 /* things that could not be looked at */
};
enum blk_fix { BLK_FIX_NONE, BLK_FIX_LEAKS, BLK_FIX_ALL };

struct blk_driver {
    const char *name, *summary;
    const char *alias;          /* another name for it; NULL: none */
    const char *const *endings; /* of files' names, without the dot, NULL-terminated; NULL: a filter or a leaf */
    size_t size;                /* of the node; struct blk comes first in it */
    const struct opt *opts;     /* of a node when it is opened, at offsets in it; may be NULL */

    bool guests_too; /* guests put such headers on their own disks, too: a raw disk may begin so */
    bool noise;      /* a new image reads as noise, not as zeroes */
    bool copies;     /* rw() knows BLK_COPY */
    /* Optional, of formats: does a file that begins so look like one?  `n` bytes, BLK_HEAD at most; of VHD fixed, which
     * ends in its header, the last 512 bytes are at `tail`. */
    bool (*probe)(const uint8_t *head, size_t n, const uint8_t *tail);
    /* b->file is open and the options are set.  Sets b->lim and opens b->backing.  Of a filter: may be NULL, `o` is
     * NULL, and b->lim is that of b->file. */
    int (*open)(struct blk *b, const struct blk_open_opts *o, struct err *err);
    /* Copes with half an open, and with none.  The core then closes what is below and frees the node.  May be NULL. */
    void (*close)(struct blk *b);

    /* Blocking, any thread, many at a time, no lane held: all of it or -errno.  io->iov stays as it is. */
    int (*rw)(struct blk *b, const struct blk_io *io);
    /* Optional, of a node with a file below.  In the lane, never waiting: where a read, a write or a flush can go
     * without us.  *ret comes as {BLK_BUSY, io->off, io->len, b->file}. */
    void (*map)(struct blk *b, const struct blk_io *io, struct blk_map *ret);
    void (*release)(struct blk *b, unsigned hold); /* any thread; of drivers that hold */
    /* Optional.  In the lane: takes the part r->io over, to answer it later by blk_complete() or blk_forward(), or at
     * once by blk_to_worker(). */
    void (*submit)(struct blk *b, struct blk_req *r);
    void (*kick)(struct blk *b); /* see blk_kick(); may be NULL */

    /* Blocking, optional: what `bothy img` asks. */
    int (*status)(struct blk *b, uint64_t off, uint64_t len, struct blk_status *ret); /* NULL: all is data */
    /* One cluster, or what is left of the last, at the multiple of its size `off`, compressed; every cluster once. */
    int (*write_compressed)(struct blk *b, uint64_t off, const void *buf, size_t n);
    int (*resize)(struct blk *b, uint64_t size, struct err *err); /* nothing else going on */
    int (*check)(struct blk *b, enum blk_fix fix, struct blk_check *ret, struct err *err);
    /* The format's own properties, an object, owned by the caller; and those of all images where it knows them, by the
     * names that qemu-img has for them: "dirty-flag", "backing-filename" … */
    json_t *(*info)(struct blk *b);
    uint32_t (*cluster)(struct blk *b); /* bytes that are allocated at a time */
    /* Writes an empty image of `size` bytes into `file`, which is empty, writable and grows.  `opts` is a struct of
     * create_size that create_opts describes, `keys` those that these may name (NULL: none).  Messages leave the
     * image's name to the caller. */
    int (*create)(struct blk *file, uint64_t size, const void *opts, const struct blk_keys *keys, struct err *err);
    const struct opt *create_opts;
    size_t create_size;
    /* Optional: other properties for an image that nobody else uses.  `opts` is a struct of amend_size that amend_opts
     * describes. */
    int (*amend)(struct blk *b, const void *opts, const struct blk_keys *keys, bool force, struct err *err);
    const struct opt *amend_opts;
    size_t amend_size;
    /* Optional: what create() and full use of such an image need of the file beyond its `size` bytes of data, which are
     * allocated in *unit's. */
    int (*overhead)(uint64_t size, const void *opts, uint64_t *ret, uint64_t *unit, struct err *err);
};

enum { BLK_HEAD = 64 << 10 }; /* what probe() is shown of a file's beginning */

/* All drivers of this build but the leaf, NULL-terminated, and the one of that name or NULL. */
extern const struct blk_driver *const blk_drivers[];
const struct blk_driver *blk_driver_find(const char *name);
/* The format that a file's header shows, by the drivers' probe(); NULL when none does.  -EIO … */
int blk_probe(struct blk *file, const struct blk_driver **ret) must_check;

/*
 * Opens what image `b` names inside: its backing image, a data file, an extent.  Read-only unless `writable`; `name` is
 * relative to b's folder.  Format NULL: by name; "file": no format, just bytes.  Its parent is b; the caller keeps it
 * where b's close() or the core finds it.  `o` is what b was opened with.
 */
int blk_open_named(struct blk *b, const char *name, const char *format, bool writable, const struct blk_open_opts *o,
                   struct blk **ret, struct err *err) must_check;
/*
 * Puts a filter above `below`, which stays with the caller on failure.  `text`: the driver's name and its options, with
 * colons between: "throttle:iops=100:bps=1M".
 */
int blk_filter(struct blk *below, const char *text, struct blk **ret, struct err *err) must_check;
/* A new file, or one that is empty, or that `overwrite` says may be emptied: a `file` node, writable, which grows. */
int blk_create_file(const char *path, bool overwrite, struct blk **ret, struct err *err) must_check;

/* A node without anything below. */
struct blk *blk_node(const struct blk_driver *drv, const char *name, struct lane *lane);

/* In the lane, about what submit() took.  blk_complete: `ret` bytes of the part are done (0 for a flush), or -errno. */
void blk_complete(struct blk_req *r, int64_t ret);
void blk_batch(struct blk *b);         /* after one or more of these */
void blk_forward(struct blk_req *r);   /* hands the part on to b->file, to the same place */
void blk_to_worker(struct blk_req *r); /* rw() has it */

/* Any thread, blocking: a part of a read from the backing node, at io's offset; zeroes where that has nothing. */
int blk_read_backing(struct blk *b, const struct blk_io *io, uint64_t skip, uint64_t n) must_check;
