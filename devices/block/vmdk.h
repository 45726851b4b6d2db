/* What the parts of VMDK share: the image (vmdk.c), its descriptor (vmdk_desc.c) and the making of new ones
 * (vmdk_create.c). */
#pragma once
#include "devices/block/blkimg.h"

enum { VMDK_SECTOR = 512, VMDK_HEADER = 512, VMDK_MARKER = 12, VMDK_GRAIN_MAX = 2 << 20 };

enum { /* offsets in a sparse extent's header; all little-endian */
       VMDK_VERSION = 4,
       VMDK_FLAGS = 8,
       VMDK_CAPACITY = 12,
       VMDK_GRAIN = 20,
       VMDK_DESC_OFFSET = 28,
       VMDK_DESC_SIZE = 36,
       VMDK_NGTE = 44,
       VMDK_RGD = 48,
       VMDK_GD = 56,
       VMDK_OVERHEAD = 64,
       VMDK_NEWLINES = 73,
       VMDK_ALGORITHM = 77,
};
enum {
    VMDK_FLAG_NEWLINES = 1 << 0,
    VMDK_FLAG_REDUNDANT = 1 << 1,
    VMDK_FLAG_ZEROED = 1 << 2,
    VMDK_FLAG_COMPRESSED = 1 << 16,
    VMDK_FLAG_MARKERS = 1 << 17,
};
enum { VMDK_DEFLATE = 1 };

/* ---- The descriptor. ---- */

enum vmdk_kind { VMDK_ZERO, VMDK_FLAT, VMDK_SPARSE };

struct vmdk_line { /* about one extent */
    enum vmdk_kind kind;
    uint64_t sectors, off; /* off: in sectors of the file, FLAT */
    char *name;            /* NULL: ZERO */
};

struct vmdk_desc {
    uint32_t cid, parent_cid; /* UINT32_MAX: none */
    char type[32];            /* createType */
    char *parent;             /* parentFileNameHint; NULL: none */
    struct vmdk_line *lines;
    unsigned nlines;
};

/* `text` ends in a NUL.  fini also after a failure. */
int vmdk_desc_parse(struct blk *b, const char *text, struct vmdk_desc *ret, struct err *err) must_check;
void vmdk_desc_fini(struct vmdk_desc *d);

/* ---- An image. ---- */

struct vmdk_extent {
    enum vmdk_kind kind;
    uint64_t start, len; /* bytes, of the disk */
    struct blk *file;    /* the node's own where the disk is one file; else the extent's */
    uint64_t off;        /* FLAT: in the file */
    /* SPARSE: */
    uint32_t grain, ngte; /* bytes; entries of a grain table */
    uint64_t gd, rgd;     /* grain directory and its copy, bytes in the file; rgd 0: none */
    uint64_t ntables;     /* that these name */
    uint64_t desc, ndesc; /* the descriptor inside, bytes; ndesc 0: none */
    bool zeroed, compressed, markers;
};

struct vmdk {
    struct blkimg im;
    struct vmdk_desc desc;
    struct vmdk_extent *extents; /* in the disk's order */
    unsigned nextents;
    pthread_mutex_t inflated; /* what follows: the grain that was inflated last */
    struct blk *grain_file;
    uint64_t grain_off;
    uint32_t grain_len;
    uint8_t *grain;
    pthread_mutex_t merging; /* fresh: a part of a grain is being written */
};

static inline struct vmdk *vmdk_of(struct blk *b)
{
    return container_of(b, struct vmdk, im.b);
}

/* The place of a table's entry in the file: by the directory `gd` at `off` of the extent.  0: there is no table. */
int vmdk_entry(struct blkimg *im, const struct vmdk_extent *e, uint64_t gd, uint64_t off, bool wait, uint64_t *ret)
    must_check;

/* ---- Writing. ---- */

struct vmdk_create {
    uint32_t subformat, adapter;
};
extern const struct opt vmdk_create_opts[];
int vmdk_create(struct blk *file, uint64_t size, const void *opts, const struct blk_keys *keys, struct err *err);
int vmdk_alloc(struct blkimg *im, uint64_t off);
int vmdk_finish(struct blkimg *im);
int vmdk_write_compressed(struct blk *b, uint64_t off, const void *buf, size_t n);
/* A write or zeroing of any part of a fresh image whose grains are compressed. */
int vmdk_write_stream(struct blk *b, const struct blk_io *io);
