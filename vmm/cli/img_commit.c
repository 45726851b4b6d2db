/* `bothy img commit`: what an image holds, into the image that it is based on. */
#include <inttypes.h>
#include <sys/stat.h>

#include "devices/block/file.h"
#include "devices/block/qcow2.h"
#include "vmm/base/cleanup.h"
#include "vmm/cli/img.h"

struct commit_opts {
    struct img_open open;
    char *base;
    bool keep;
    struct img_say say;
};

static const struct opt commit_opts[] = {
    IMG_OPEN_OPTIONS(struct commit_opts, open.),
    IMG_CACHE(struct commit_opts, open.cache, "cache", "writeback", 't'),
    O_STR(struct commit_opts, base, "base", NULL,
          "the image of its chain to copy into, with all that lie between; IMAGE then stays as it is", .letter = 'b',
          .arg = "FILE"),
    O_BOOL(struct commit_opts, keep, "keep", "off", "do not empty the image afterwards: it is to be deleted",
           .letter = 'd'),
    IMG_PROGRESS_OPTIONS(struct commit_opts, say.),
    O_END,
};

enum { CHUNK = 1 << 20 };

struct commit {
    struct img_task task;
    struct blk *top, *base;
    unsigned images; /* of the chain that are copied */
    uint64_t off;    /* where next() is */
    struct img_progress progress;
    _Atomic(struct blk *) broken; /* whose error ended it */
};

static struct commit *of(struct img_task *t)
{
    return container_of(t, struct commit, task);
}

/* What the upper image holds itself; kind: enum blk_place. */
static int next(struct img_task *t, struct img_item *ret)
{
    struct commit *c = of(t);

    while (c->off < c->top->lim.size) {
        struct img_part part;
        int rc = img_part(c->top, c->off, min_u64(c->top->lim.size - c->off, CHUNK - c->off % CHUNK), c->images, &part);

        *ret = (struct img_item){.off = c->off, .len = part.len, .kind = part.place};
        if (rc) {
            c->broken = c->top;
            return rc;
        }
        c->off += part.len;
        if (part.place != BLK_BACKING)
            return 0;
        img_progress_add(&c->progress, part.len);
    }
    return 1;
}

static int run(struct img_task *t, const struct img_item *item, void *buf)
{
    struct commit *c = of(t);
    int rc = item->kind == BLK_AT ? blk_pread(c->top, buf, item->len, item->off) : 0;

    if (rc) {
        c->broken = c->top;
        return rc;
    }
    rc = item->kind == BLK_AT ? blk_pwrite(c->base, buf, item->len, item->off)
                              : blk_zero(c->base, item->off, item->len, true);
    if (rc)
        c->broken = c->base;
    else
        img_progress_add(&c->progress, item->len);
    return rc;
}

static int copy_down(struct commit *c, const struct commit_opts *o, struct err *err)
{
    int rc = 0;

    if (c->base->lim.size < c->top->lim.size) {
        if (!c->base->drv->resize)
            return err_set(err, ENOTSUP, "%s is smaller than %s, and images of format %s keep their size",
                           c->base->name, c->top->name, c->base->drv->name);
        rc = c->base->drv->resize(c->base, c->top->lim.size, err);
    }
    if (rc)
        return rc;
    c->task = (struct img_task){.next = next, .run = run, .buf_size = CHUNK};
    img_progress_init(&c->progress, c->top->lim.size, o->say.progress, o->say.quiet);
    rc = img_task_run(&c->task);
    if (!rc && (rc = blk_flush(c->base)))
        c->broken = c->base;
    img_progress_fini(&c->progress);
    return rc ? img_io_failed(c->broken, c->task.failed.off, rc, err) : 0;
}

/* Finds the image of the chain, and opens it anew, alone and to be written. */
static int open_below(struct commit *c, const struct commit_opts *o, struct err *err)
{
    struct img_open open = o->open;
    struct blk *above = c->top;
    struct stat named, other;
    cleanup_free char *path = NULL;

    if (stat(o->base, &named))
        return err_file(err, errno, "base", o->base);
    for (c->images = 1; above->backing; above = above->backing, c->images++)
        if (!file_stat(above->backing, &other) && other.st_dev == named.st_dev && other.st_ino == named.st_ino)
            break;
    if (!above->backing)
        return err_set(err, EINVAL, "%s is not in the chain of %s; look at it with: bothy img info --backing-chain %s",
                       o->base, c->top->name, c->top->name);
    path = xstrdup(above->backing->name);
    open.format = (char *)above->backing->drv->name;
    blk_close(take_ptr(above->backing)); /* whose lock is in the way; of what it holds nothing is read */
    return img_open(path, &open, IMG_WRITE, &c->base, err);
}

static int commit_below(struct commit *c, const struct commit_opts *o, struct err *err)
{
    int rc = open_below(c, o, err);

    if (!rc)
        rc = copy_down(c, o, err);
    if (!rc && !o->say.quiet)
        puts("Image committed.");
    return rc;
}

static int commit(struct commit *c, const struct commit_opts *o, struct err *err)
{
    struct blk_keys keys cleanup_keys = {0};
    const struct blk_open_opts opts = {.allow = o->open.allow, .cache = o->open.cache, .keys = &keys};
    const char *name = c->top->drv == &qcow2_driver ? qcow2_backing_name(c->top) : NULL;
    cleanup_free char *format = name ? qcow2_backing_format(c->top) : NULL;
    int rc;

    if (!name)
        return err_set(err, EINVAL, "%s is based on no other image, so there is nothing to commit it to", c->top->name);
    rc = img_keys(&o->open.objects, &keys, err);
    if (!rc)
        rc = blk_open_named(c->top, name, format, true, &opts, &c->base, err);
    if (!rc)
        rc = copy_down(c, o, err);
    if (!rc && !o->keep)
        rc = qcow2_empty(c->top, err);
    if (!rc && !o->say.quiet)
        puts("Image committed.");
    return rc;
}

static int commit_run(struct cli_line *l, struct err *err)
{
    const struct commit_opts *o = l->opts;
    struct commit c = {.images = 1};
    int rc = img_need(l, 1, err);

    if (!rc)
        rc = img_open(l->args[0], &o->open, o->base ? IMG_READ : IMG_WRITE | IMG_ALONE, &c.top, err);
    if (!rc)
        rc = o->base ? commit_below(&c, o, err) : commit(&c, o, err);
    blk_close(c.base);
    blk_close(c.top);
    return rc;
}

const struct cli_verb img_commit = {
    .name = "img commit",
    .summary = "copy what an image holds into the one it is based on",
    .args = "IMAGE",
    .max_args = 1,
    .text =
        "The image then holds nothing of its own, and reads as before.  Other images that are based on the same one "
        "lose their foundation.",
    .opts = commit_opts,
    .size = sizeof(struct commit_opts),
    .run = commit_run,
    .fail_code = 1,
};
