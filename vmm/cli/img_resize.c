/* `bothy img resize`: a disk's size. */
#include <inttypes.h>

#include "vmm/base/cleanup.h"
#include "vmm/cli/img.h"

struct resize_opts {
    struct img_open open;
    uint32_t space;
    bool shrink, quiet;
};

enum { SPACE_OFF, SPACE_METADATA, SPACE_FALLOC, SPACE_FULL };
static const char *const space_words[] = {
    [SPACE_OFF] = "off", [SPACE_METADATA] = "metadata", [SPACE_FALLOC] = "falloc", [SPACE_FULL] = "full", NULL};

static const struct opt resize_opts[] = {
    IMG_OPEN_OPTIONS(struct resize_opts, open.),
    O_BOOL(struct resize_opts, shrink, "shrink", "off", "cut off, and lose, what lies past the new end"),
    O_ENUM(struct resize_opts, space, "preallocation", "off", space_words,
           "space on the host for what is new: when written, or, of raw disks, falloc, or filled with zeroes: full"),
    O_BOOL(struct resize_opts, quiet, "quiet", "off", "say nothing but errors", .letter = 'q'),
    O_END,
};

/* "10G", "+1G" or "-1G". */
static int new_size(const char *text, uint64_t old, uint64_t *ret, struct err *err)
{
    bool more = *text == '+', less = *text == '-';
    uint64_t size;
    int rc = img_parse_size(text + (more || less), &size, err);

    if (rc)
        return rc;
    if (less && size >= old)
        return err_set(err, EINVAL, "%s: the disk has only %" PRIu64 " bytes", text, old);
    if (more && size > INT64_MAX - old)
        return err_set(err, EFBIG, "%s: that is larger than any disk", text);
    *ret = more ? old + size : less ? old - size : size;
    if (!*ret)
        return err_set(err, EINVAL, "%s: a disk of no size is none", text);
    return 0;
}

/* Space on the host for what is new. */
static int reserve(struct blk *b, uint32_t how, uint64_t off, uint64_t end)
{
    enum { STEP = 1 << 20 };
    cleanup_free char *zeroes = xcalloc(1, STEP);
    int rc = 0;

    if (how == SPACE_FALLOC)
        return blk_zero(b, off, end - off, false);
    for (uint64_t n; !rc && how == SPACE_FULL && off < end; off += n) {
        n = min_u64(end - off, STEP);
        rc = blk_pwrite(b, zeroes, n, off);
    }
    return rc;
}

static int resize_run(struct cli_line *l, struct err *err)
{
    const struct resize_opts *o = l->opts;
    struct blk *b cleanup_blk = NULL;
    uint64_t size, old;
    int rc = img_need(l, 2, err);

    if (!rc)
        rc = img_open(l->args[0], &o->open, IMG_WRITE, &b, err);
    if (!rc)
        rc = new_size(l->args[1], b->lim.size, &size, err);
    if (rc)
        return rc;
    if (!b->drv->resize)
        return err_set(err, ENOTSUP, "%s: images of format %s keep their size; convert it to qcow2 or raw first",
                       b->name, b->drv->name);
    if (size < b->lim.size && !o->shrink)
        return err_set(err, EINVAL,
                       "%s: everything past %" PRIu64
                       " bytes would be lost; shrink what is in the guest first, then say "
                       "--shrink",
                       b->name, size);
    old = b->lim.size;
    if (o->space && size < old)
        return err_set(err, EINVAL, "%s: --preallocation is for disks that grow", b->name);
    if ((o->space == SPACE_METADATA || o->space == SPACE_FALLOC) && strcmp(b->drv->name, "raw"))
        return err_set(err, ENOTSUP,
                       "%s: --preallocation=%s is not known for what a %s image grows by; say off or full", b->name,
                       space_words[o->space], b->drv->name);
    if (o->space == SPACE_METADATA)
        return err_set(err, EINVAL, "%s: a raw disk has no metadata; say off, falloc or full", b->name);
    rc = b->drv->resize(b, size, err);
    if (rc)
        return rc;
    rc = size > old ? reserve(b, o->space, old, size) : 0;
    if (!rc)
        rc = blk_flush(b);
    if (rc)
        img_io_failed(b, old, rc, err);
    if (!rc && !o->quiet)
        puts("Image resized.");
    return rc;
}

const struct cli_verb img_resize = {
    .name = "img resize",
    .summary = "change a disk's size",
    .args = "FILE [+|-]SIZE",
    .max_args = 2,
    .text = "After it has grown, the guest's partitions and file systems can grow, too; before it shrinks, they must.",
    .opts = resize_opts,
    .size = sizeof(struct resize_opts),
    .run = resize_run,
    .fail_code = 1,
};
