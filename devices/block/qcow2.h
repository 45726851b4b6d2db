/*
 * What qcow2 images can do beyond a disk: snapshots inside, bitmaps of changed blocks, another backing file.  `b` is a
 * node of the driver "qcow2"; all block, with nothing else going on, and all changes are in the file and synced when
 * they return.
 */
#pragma once
#include "devices/block/driver.h"

extern const struct blk_driver qcow2_driver;

struct qcow2_snapshot {
    char *id, *name;
    uint64_t l1_off, vm_clock, vm_size, disk_size; /* ns, bytes, bytes */
    uint32_t l1_size, sec, nsec;                   /* when it was made, since 1970 */
    uint64_t icount;                               /* instructions the guest had run; all ones: not counted */
    uint8_t *extra;                                /* of the table entry; kept */
    uint32_t extra_len;
};

/* Borrowed until the next change. */
const struct qcow2_snapshot *qcow2_snapshots(struct blk *b, unsigned *n);
/* One by name or id, names first; NULL: there is none. */
const struct qcow2_snapshot *qcow2_snapshot_find(struct blk *b, const char *name);
int qcow2_snapshot_create(struct blk *b, const char *name, struct err *err) must_check;
/* The disk becomes what the snapshot has; what it had before is gone. */
int qcow2_snapshot_apply(struct blk *b, const char *name, struct err *err) must_check;
int qcow2_snapshot_delete(struct blk *b, const char *name, struct err *err) must_check;

/* What the image says its backing file is, borrowed, and its format, owned by the caller; both NULL: none. */
const char *qcow2_backing_name(struct blk *b);
char *qcow2_backing_format(struct blk *b);
/* Changes that in the header alone; name NULL: none.  b->backing stays as it is. */
int qcow2_set_backing(struct blk *b, const char *name, const char *format, struct err *err) must_check;
/* It holds nothing of its own any more, and reads as what it is based on. */
int qcow2_empty(struct blk *b, struct err *err) must_check;

struct qcow2_bitmap_info {
    const char *name; /* borrowed until the next change */
    uint64_t granularity;
    bool in_use;  /* incomplete: it was not closed properly, or is in use now */
    bool enabled; /* follows writes */
};
/* The i-th; false: there is none. */
bool qcow2_bitmap_get(struct blk *b, unsigned i, struct qcow2_bitmap_info *ret);
int qcow2_bitmap_add(struct blk *b, const char *name, uint32_t granularity, bool enabled, struct err *err) must_check;
int qcow2_bitmap_remove(struct blk *b, const char *name, struct err *err) must_check;
int qcow2_bitmap_clear(struct blk *b, const char *name, struct err *err) must_check;
int qcow2_bitmap_enable(struct blk *b, const char *name, bool on, struct err *err) must_check;
/* What is set in `from`, of another image of the same size or this one, is set in `name` too. */
int qcow2_bitmap_merge(struct blk *b, const char *name, struct blk *from_b, const char *from, struct err *err)
    must_check;
