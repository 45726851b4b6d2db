/* Raw disks: byte for byte what the file has. */
#include <inttypes.h>

#include "devices/block/file.h"
#include "vmm/base/cleanup.h"

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
    ret->has_off = true;
    ret->off = off;
    return rc;
}

static int raw_resize(struct blk *b, uint64_t size, struct err *err)
{
    int rc = b->file->drv->resize(b->file, size, err);

    b->lim.size = b->file->lim.size;
    return rc;
}

enum { SPACE_OFF, SPACE_FALLOC, SPACE_FULL };

struct raw_create {
    uint32_t space;
};

static const char *const space_words[] = {[SPACE_OFF] = "off", [SPACE_FALLOC] = "falloc", [SPACE_FULL] = "full", NULL};

static const struct opt create_opts[] = {
    O_ENUM(struct raw_create, space, "preallocation", "off", space_words,
           "space on the host: when written, reserved now, or filled with zeroes now"),
    O_END,
};

static int write_zeroes(struct blk *file, uint64_t size)
{
    enum { STEP = 1 << 20 };
    cleanup_free char *zeroes = xcalloc(1, STEP);
    int rc = 0;

    for (uint64_t at = 0; !rc && at < size; at += STEP)
        rc = blk_pwrite(file, zeroes, min_u64(size - at, STEP), at);
    return rc;
}

/* A device that is large enough is one already. */
static int raw_create(struct blk *file, uint64_t size, const void *opts, const struct blk_keys *keys, struct err *err)
{
    const struct raw_create *o = opts;
    int rc = size <= file->lim.size ? 0 : file->drv->resize(file, size, err);

    (void)keys;
    if (rc)
        return rc;
    if (o->space == SPACE_FALLOC)
        rc = blk_zero(file, 0, size, false);
    else if (o->space == SPACE_FULL)
        rc = write_zeroes(file, size);
    return rc ? err_set(err, -rc, "%" PRIu64 " bytes of space for it: %s", size, strerror(-rc)) : 0;
}

static const char *const endings[] = {"raw", "img", "iso", NULL};

const struct blk_driver raw_driver = {
    .name = "raw",
    .summary = "the disk's bytes as they are",
    .endings = endings,
    .size = sizeof(struct blk),
    .copies = true,
    .open = raw_open,
    .rw = raw_rw,
    .map = raw_map,
    .status = raw_status,
    .resize = raw_resize,
    .create = raw_create,
    .create_opts = create_opts,
    .create_size = sizeof(struct raw_create),
};
