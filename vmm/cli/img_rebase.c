/* `bothy img rebase`: an image's backing image; by default what the disk holds stays the same. */
#include <inttypes.h>

#include "devices/block/qcow2.h"
#include "vmm/base/cleanup.h"
#include "vmm/cli/img.h"

struct rebase_opts {
    struct img_open open;
    char *backing, *backing_format;
    bool unchecked;
    struct img_say say;
};

static const struct opt rebase_opts[] = {
    IMG_OPEN_OPTIONS(struct rebase_opts, open.),
    IMG_CACHE(struct rebase_opts, open.cache, "cache", "writeback", 't'),
    O_STR(struct rebase_opts, backing, "backing", NULL, "new backing image, relative to the image's folder; \"\": none",
          .letter = 'b', .arg = "FILE"),
    O_STR(struct rebase_opts, backing_format, "backing-format", NULL, "that image's format", .letter = 'F',
          .arg = "FORMAT"),
    O_BOOL(struct rebase_opts, unchecked, "unsafe", "off",
           "change the name only: the new backing image holds the same already", .letter = 'u'),
    IMG_PROGRESS_OPTIONS(struct rebase_opts, say.),
    O_END,
};

enum { CHUNK = 512 << 10 };

struct rebase {
    struct img_task task;
    struct blk *b, *new; /* new: backing image to be, or NULL */
    uint32_t cluster;
    uint64_t off; /* where next() is */
    struct img_progress progress;
    _Atomic(struct blk *) broken; /* whose error ended it */
};

static struct rebase *of(struct img_task *t)
{
    return container_of(t, struct rebase, task);
}

/* What the image itself does not hold, within one piece of the buffer's size. */
static int next(struct img_task *t, struct img_item *ret)
{
    struct rebase *r = of(t);

    while (r->off < r->b->lim.size) {
        struct img_part part;
        int rc = img_part(r->b, r->off, min_u64(r->b->lim.size - r->off, CHUNK - r->off % CHUNK), 1, &part);

        *ret = (struct img_item){.off = r->off, .len = part.len};
        if (rc) {
            r->broken = r->b;
            return rc;
        }
        r->off += part.len;
        if (part.place == BLK_BACKING)
            return 0;
        img_progress_add(&r->progress, part.len);
    }
    return 1;
}

static int read_new(struct rebase *r, char *buf, uint64_t off, uint64_t len)
{
    uint64_t has = r->new &&off < r->new->lim.size ? min_u64(len, r->new->lim.size - off) : 0;
    int rc = has ? blk_pread(r->new, buf, has, off) : 0;

    memset(buf + has, 0, len - has);
    if (rc)
        r->broken = r->new;
    return rc;
}

/* What would change becomes the image's own. */
static int run(struct img_task *t, const struct img_item *item, void *buf)
{
    struct rebase *r = of(t);
    char *old = buf, *new = old + CHUNK;
    uint64_t n;
    int rc = read_new(r, new, item->off, item->len);

    if (rc)
        return rc;
    r->broken = r->b;
    rc = blk_pread(r->b, old, item->len, item->off);
    for (uint64_t at = 0; !rc && at < item->len; at += n) {
        n = min_u64(item->len - at, r->cluster - (item->off + at) % r->cluster);
        if (!memcmp(old + at, new + at, n))
            continue;
        rc = img_is_zero(old + at, n) ? blk_zero(r->b, item->off + at, n, true)
                                      : blk_pwrite(r->b, old + at, n, item->off + at);
    }
    if (!rc)
        img_progress_add(&r->progress, item->len);
    return rc;
}

static int keep_contents(struct rebase *r, const struct rebase_opts *o, struct err *err)
{
    int rc;

    r->task = (struct img_task){.next = next, .run = run, .buf_size = 2 * CHUNK};
    r->cluster = r->b->drv->cluster(r->b);
    img_progress_init(&r->progress, r->b->lim.size, o->say.progress, o->say.quiet);
    rc = img_task_run(&r->task);
    if (!rc && (rc = blk_flush(r->b)))
        r->broken = r->b;
    img_progress_fini(&r->progress);
    return rc ? img_io_failed(r->broken, r->task.failed.off, rc, err) : 0;
}

/* Opens what -b names.  The image names it from then on, so it has to lie where that is allowed. */
static int open_new(struct rebase *r, const struct rebase_opts *o, struct err *err)
{
    struct blk_keys keys cleanup_keys = {0};
    const struct blk_open_opts opts = {.allow = o->open.allow, .cache = o->open.cache, .keys = &keys};
    int rc = img_keys(&o->open.objects, &keys, err);

    return rc ? rc : blk_open_named(r->b, o->backing, o->backing_format, false, &opts, &r->new, err);
}

static int rebase(struct rebase *r, const struct rebase_opts *o, struct err *err)
{
    const char *format = o->backing_format;
    int rc = 0;

    if (r->b->drv != &qcow2_driver)
        return err_set(err, ENOTSUP, "%s: only qcow2 images can change what they are based on, and this one is %s",
                       r->b->name, r->b->drv->name);
    if (*o->backing && !o->unchecked)
        rc = open_new(r, o, err);
    if (!rc && !o->unchecked)
        rc = keep_contents(r, o, err);
    if (r->new && !format)
        format = r->new->drv->name;
    return rc ? rc : qcow2_set_backing(r->b, *o->backing ? o->backing : NULL, format, err);
}

static int rebase_run(struct cli_line *l, struct err *err)
{
    const struct rebase_opts *o = l->opts;
    struct rebase r = {0};
    int rc = img_need(l, 1, err);

    if (!rc && !o->backing)
        rc = err_set(err, EINVAL, "on which image? say -b FILE, or -b \"\" for none");
    if (!rc)
        rc = img_open(l->args[0], &o->open, IMG_WRITE | (o->unchecked ? IMG_ALONE | IMG_ABOUT : 0), &r.b, err);
    if (!rc)
        rc = rebase(&r, o, err);
    blk_close(r.new);
    blk_close(r.b);
    return rc;
}

const struct cli_verb img_rebase = {
    .name = "img rebase",
    .summary = "put an image on top of another one",
    .args = "-b FILE IMAGE",
    .max_args = 1,
    .text =
        "What the disk holds stays the same: what the new backing image has not, or has otherwise, is copied into the "
        "image first.  With -u only the name is changed, as is right when the backing image was moved.",
    .opts = rebase_opts,
    .size = sizeof(struct rebase_opts),
    .run = rebase_run,
    .fail_code = 1,
};
