/* Raw disks: byte for byte what the file has. */
#include "devices/block/file.h"

static int raw_open(struct blk *b, const struct blk_open_opts *o, struct err *err)
{
    int rc = file_as_disk(b->file, err);

    (void)o;
    b->lim = b->file->lim;
    b->lim.grows = false;
    return rc;
}

static int raw_rw(struct blk *b, const struct blk_io *io)
{
    return blk_rw(b->file, io);
}

static void raw_map(struct blk *b, const struct blk_io *io, struct blk_map *ret)
{
    (void)b;
    (void)io;
    ret->place = BLK_AT;
}

static int raw_status(struct blk *b, uint64_t off, uint64_t len, struct blk_status *ret)
{
    int rc = 0;

    if (b->file->drv->status)
        rc = b->file->drv->status(b->file, off, len, ret);
    else
        *ret = (struct blk_status){.place = BLK_AT, .len = len}; /* a filter does not say */
    ret->has_off = ret->place == BLK_AT;
    ret->off = off;
    return rc;
}

static int raw_resize(struct blk *b, uint64_t size, struct err *err)
{
    int rc = b->file->drv->resize(b->file, size, err);

    b->lim.size = b->file->lim.size;
    return rc;
}

static const char *const endings[] = {"raw", "img", "iso", NULL};

const struct blk_driver raw_driver = {
    .name = "raw",
    .summary = "the disk's bytes as they are",
    .endings = endings,
    .size = sizeof(struct blk),
    .open = raw_open,
    .rw = raw_rw,
    .map = raw_map,
    .status = raw_status,
    .resize = raw_resize,
};
