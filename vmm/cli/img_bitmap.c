/* `bothy img bitmap`: the bitmaps of changed blocks that a qcow2 image keeps. */
#include "devices/block/qcow2.h"
#include "vmm/base/cleanup.h"
#include "vmm/cli/img.h"

struct bitmap_opts {
    struct img_open open;
    char *source, *source_format;
    struct opt_list merge;
    uint64_t granularity;
    bool add, remove, clear, enable, disable;
};

static const struct opt bitmap_opts[] = {
    IMG_OPEN_OPTIONS(struct bitmap_opts, open.),
    O_BOOL(struct bitmap_opts, add, "add", "off", "make a new one, which follows writes unless --disable is said"),
    O_BOOL(struct bitmap_opts, remove, "remove", "off", "remove it"),
    O_BOOL(struct bitmap_opts, clear, "clear", "off", "let it say that nothing changed"),
    O_BOOL(struct bitmap_opts, enable, "enable", "off", "let it follow writes"),
    O_BOOL(struct bitmap_opts, disable, "disable", "off", "let it stay as it is whatever is written"),
    O_LIST(struct bitmap_opts, merge, "merge", "set in it what is set in this other one", .arg = "BITMAP"),
    O_SIZE(struct bitmap_opts, granularity, "granularity", "64K", 512, GiB(2),
           "of a new one: bytes that a bit stands for", .letter = 'g'),
    O_STR(struct bitmap_opts, source, "source", NULL, "the image that has what --merge names", .letter = 'b',
          .arg = "FILE"),
    IMG_FORMAT(struct bitmap_opts, source_format, "source-format", 'F'),
    O_END,
};

static int need_qcow2(const struct blk *b, struct err *err)
{
    if (b->drv == &qcow2_driver)
        return 0;
    return err_set(err, ENOTSUP, "%s: only qcow2 images keep bitmaps, and this one is %s", b->name, b->drv->name);
}

static int merge(struct blk *b, const char *name, const struct bitmap_opts *o, struct err *err)
{
    struct img_open open = {.format = o->source_format, .allow = o->open.allow, .share = o->open.share};
    struct blk *from cleanup_blk = NULL;
    int rc = 0;

    if (o->source) {
        rc = img_open(o->source, &open, IMG_READ | IMG_ALONE | IMG_ABOUT, &from, err);
        if (!rc)
            rc = need_qcow2(from, err);
    }
    for (size_t i = 0; !rc && i < o->merge.n; i++)
        rc = qcow2_bitmap_merge(b, name, from ? from : b, o->merge.v[i], err);
    return rc;
}

static int change(struct blk *b, const char *name, const struct bitmap_opts *o, struct err *err)
{
    int rc = need_qcow2(b, err);

    if (!rc && o->remove)
        return qcow2_bitmap_remove(b, name, err);
    if (!rc && o->add)
        rc = qcow2_bitmap_add(b, name, (uint32_t)o->granularity, !o->disable, err);
    if (!rc && o->clear)
        rc = qcow2_bitmap_clear(b, name, err);
    if (!rc && o->merge.n)
        rc = merge(b, name, o, err);
    if (!rc && (o->enable || (o->disable && !o->add)))
        rc = qcow2_bitmap_enable(b, name, o->enable, err);
    return rc;
}

static int bitmap_run(struct cli_line *l, struct err *err)
{
    const struct bitmap_opts *o = l->opts;
    bool others = o->add || o->clear || o->enable || o->disable || o->merge.n;
    struct blk *b cleanup_blk = NULL;
    int rc = img_need(l, 2, err);

    if (!rc && !others && !o->remove)
        rc = err_set(err, EINVAL, "what is to be done? say --add, --remove, --clear, --enable, --disable or --merge");
    if (!rc && ((others && o->remove) || (o->enable && o->disable)))
        rc = err_set(err, EINVAL, "--remove stands alone, and --enable and --disable exclude each other");
    if (!rc && o->source && !o->merge.n)
        rc = err_set(err, EINVAL, "-b names the image for --merge, which is missing");
    if (!rc)
        rc = img_open(l->args[0], &o->open, IMG_WRITE | IMG_ALONE | IMG_ABOUT, &b, err);
    return rc ? rc : change(b, l->args[1], o, err);
}

const struct cli_verb img_bitmap = {
    .name = "img bitmap",
    .summary = "make, change and remove a disk's bitmaps of changed blocks",
    .args = "FILE BITMAP",
    .max_args = 2,
    .text = "Several things can be asked for at once; they are done in the order --add, --clear, --merge, --enable or "
            "--disable.  `bothy img info` lists what there is.",
    .opts = bitmap_opts,
    .size = sizeof(struct bitmap_opts),
    .run = bitmap_run,
    .fail_code = 1,
};
