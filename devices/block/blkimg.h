/*
 * What formats share that keep a disk in blocks and say in tables where each of them lies: reading through the tables,
 * a bounded cache of these, and filling a new image (`bothy img convert`).  A format says how its tables are read.
 *
 * As disks these formats are read-only.  An image that is fresh, just made by create(), takes writes from any number of
 * threads until it is closed; the tables are written as blocks are added, and a flush at the end, with no write under
 * way, completes the file.  Nothing is promised about a fresh image before that.
 */
#pragma once
#include <pthread.h>

#include "devices/block/driver.h"

struct blkimg;
struct blkimg_check;

struct blkimg_at { /* where a part of the disk lies */
    enum blk_place place;
    struct blk *file; /* BLK_AT: in whose bytes; NULL: of no use but to the format's own read() */
    uint64_t off;     /* BLK_AT: there */
    uint64_t len;     /* how far this holds, at least 1; comes as what was asked for, is shortened to what is known */
    bool compressed;  /* BLK_AT: not byte by byte, read() has it */
    bool fixed;       /* BLK_AT: there since the image was made, so that the file may have holes there */
};

struct blkimg_ops {
    /* Where the byte at `off` lies.  Any thread; without `wait` -EAGAIN where it would have to. */
    int (*find)(struct blkimg *im, uint64_t off, bool wait, struct blkimg_at *at);
    /* Optional: reads a part that is compressed, io's `n` bytes from `skip` on. */
    int (*read)(struct blkimg *im, const struct blkimg_at *at, const struct blk_io *io, uint64_t skip, uint64_t n);
    /* Fresh images: gives the block at `off` a place, where it has none.  One thread at a time. */
    int (*alloc)(struct blkimg *im, uint64_t off);
    /* Optional, of fresh images: writes what completes the file.  One thread at a time, also with alloc(). */
    int (*finish)(struct blkimg *im);
    /* Optional, of a check: the block at `off` as find() gives it, but what it takes of the file, whatever is
     * compressed or counts of it; *len, also on failure: how long it is on the disk. */
    int (*block)(struct blkimg *im, uint64_t off, struct blkimg_at *at, uint64_t *len);
    /* Optional, of a check: says what else takes places in the file, and what is wrong with the tables. */
    int (*tables)(struct blkimg *im, struct blkimg_check *c);
    /* Optional: what is wrong though every block has its place, of which there are so many; NULL: nothing. */
    const char *(*flaw)(struct blkimg *im, uint64_t allocated);
};

struct blkimg { /* first in a format's node */
    struct blk b;
    const struct blkimg_ops *ops;
    bool fresh;
    pthread_mutex_t grow;       /* alloc() and finish() */
    uint64_t end;               /* fresh: where the next block goes; under `grow` */
    pthread_mutex_t cached;     /* the pages */
    struct blkimg_page **pages; /* of tables; PAGES, by their place; NULL: not read yet */
};

/* The first thing in a format's open: b->lim.size is the caller's to set. */
int blkimg_init(struct blkimg *im, const struct blkimg_ops *ops, const struct blk_open_opts *o, struct err *err)
    must_check;
/* As a driver's close(); to be called last by formats that have their own. */
void blkimg_close(struct blk *b);
int blkimg_rw(struct blk *b, const struct blk_io *io);
void blkimg_map(struct blk *b, const struct blk_io *io, struct blk_map *ret);
int blkimg_status(struct blk *b, uint64_t off, uint64_t len, struct blk_status *ret);
int blkimg_check(struct blk *b, enum blk_fix fix, struct blk_check *ret, struct err *err);
/* For a format's tables(): these bytes of a file are `what`'s, "a grain table", and nothing else's. */
int blkimg_check_use(struct blkimg_check *c, struct blk *file, uint64_t off, uint64_t len, const char *what) must_check;
void blkimg_check_corrupt(struct blkimg_check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Does the file reach so far?  A fresh one reads as zeroes beyond its end. */
bool blkimg_fits(const struct blkimg *im, const struct blk *file, uint64_t off, uint64_t n);
/* `n` bytes of tables, cached: -EAGAIN where it would have to wait and may not, -EIO past the end of the file. */
int blkimg_get(struct blkimg *im, struct blk *file, uint64_t off, void *buf, size_t n, bool wait) must_check;
/* Writes them, to the file too. */
int blkimg_put(struct blkimg *im, struct blk *file, uint64_t off, const void *buf, size_t n) must_check;
/*
 * In a bitmap at `off`, from `bit` on: *set says what that bit is, *run how many like it follow, at least 1, at most
 * `max`.  `msb`: a byte's first bit is its highest.
 */
int blkimg_bits(struct blkimg *im, struct blk *file, uint64_t off, uint64_t bit, uint64_t max, bool msb, bool wait,
                bool *set, uint64_t *run) must_check;
/* Fresh: makes room of `n` bytes at the end of the file, at a multiple of `align`, reading as zeroes; its place. */
uint64_t blkimg_extend(struct blkimg *im, uint64_t n, uint64_t align);

/* Reads `n` bytes of a header at `off`: an error that says "NAME is cut short" where the file ends before. */
int blkimg_header(struct blk *b, void *buf, size_t n, uint64_t off, struct err *err) must_check;
/* -EINVAL, "NAME is no FORMAT image or a damaged one: …"; FORMAT is the driver's name. */
int blkimg_bad(struct blk *b, struct err *err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* -ENOTSUP, "NAME: …". */
int blkimg_refuse(struct blk *b, struct err *err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* May a new image be made in `file`?  Not in a device, which holds what it held before. */
int blkimg_may_make(struct blk *file, struct err *err) must_check;
/*
 * A name in UTF-16, up to a NUL, as UTF-8 of `max` bytes at most; Windows' separators become ours.  False: it is no
 * valid text, or empty, or too long.
 */
bool blkimg_utf16(const uint8_t *p, size_t n, bool big, char *ret, size_t max) must_check;
/* Random bytes for the names that formats give to images: a version 4 UUID, in the byte order of RFC 4122. */
void blkimg_uuid(uint8_t uuid[16]);
