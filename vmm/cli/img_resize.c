/* `bothy img resize`: a disk's size. */
#include <inttypes.h>

#include "vmm/base/cleanup.h"
#include "vmm/cli/img.h"

struct resize_opts {
    struct img_open open;
    bool shrink, quiet;
};

static const struct opt resize_opts[] = {
    IMG_OPEN_OPTIONS(struct resize_opts, open.),
    O_BOOL(struct resize_opts, shrink, "shrink", "off", "cut off, and lose, what lies past the new end"),
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

static int resize_run(struct cli_line *l, struct err *err)
{
    const struct resize_opts *o = l->opts;
    struct blk *b cleanup_blk = NULL;
    uint64_t size;
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
    rc = b->drv->resize(b, size, err);
    if (!rc && (rc = blk_flush(b)))
        img_io_failed(b, size, rc, err);
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
