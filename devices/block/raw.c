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

static void raw_close(struct blk *b)
{
    (void)b;
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

static const char *const endings[] = {"raw", "img", "iso", NULL};

const struct blk_driver raw_driver = {
    .name = "raw",
    .summary = "the disk's bytes as they are",
    .endings = endings,
    .size = sizeof(struct blk),
    .open = raw_open,
    .close = raw_close,
    .rw = raw_rw,
    .map = raw_map,
};
