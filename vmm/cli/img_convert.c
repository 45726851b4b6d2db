/*
 * `bothy img convert`: the contents of one or more images, one after the other, as a new image; `bothy img dd`: a part
 * of one.
 *
 * One thread at a time looks where the next data are; many copy.  What the sources leave out, or hold as zeroes, is
 * not written where the new image reads as zeroes by itself.  With -C the host's file system copies what lies byte by
 * byte in a file, until it first cannot.
 */
#include <inttypes.h>
#include <time.h>

#include "devices/block/qcow2.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/cli/img.h"

enum { SOURCES_MAX = 64, CHUNK = 1 << 20, PAGE = 4096, SECTOR = 512, SPARSE_MAX = 1 << 30, NS_PER_S = 1000000000 };

struct convert_opts {
    struct img_open open;
    char *out_format, *backing, *backing_format, *snapshot;
    struct opt_list options;
    struct img_say say;
    uint64_t sparse;
    uint64_t rate;
    uint32_t threads, out_cache;
    bool salvage, compress, offload, unordered, no_create, target_is_zero, bitmaps;
};

static const struct opt convert_opts[] = {
    IMG_OPEN_OPTIONS(struct convert_opts, open.),
    IMG_CACHE(struct convert_opts, open.cache, "source-cache", "writeback", 'T'),
    IMG_FORMAT(struct convert_opts, out_format, "out-format", 'O'),
    O_LIST(struct convert_opts, options, "options", "the new format's options, key=value,...; help lists them",
           .letter = 'o', .arg = "OPTIONS"),
    IMG_CACHE(struct convert_opts, out_cache, "cache", "unsafe", 't'),
    O_STR(struct convert_opts, backing, "backing", NULL,
          "new image's backing image, which has what the source's has: what lies there is not copied", .letter = 'B',
          .arg = "FILE"),
    O_STR(struct convert_opts, backing_format, "backing-format", NULL, "that image's format", .letter = 'F',
          .arg = "FORMAT"),
    O_STR(struct convert_opts, snapshot, "snapshot", NULL, "read the state of that ID or name", .letter = 'l',
          .arg = "SNAPSHOT"),
    O_BOOL(struct convert_opts, compress, "compress", "off", "compress", .letter = 'c'),
    O_BOOL(struct convert_opts, offload, "copy-offload", "off",
           "let the host's file system copy where it can; it copies zeroes, too", .letter = 'C'),
    O_SIZE(struct convert_opts, sparse, "sparse-size", "4K", 0, SPARSE_MAX,
           "bytes of zeroes in a row that are left out; 0: write all there is", .letter = 'S'),
    O_U32(struct convert_opts, threads, "threads", "0", 0, IMG_THREADS_MAX, "threads; 0: one for each core",
          .letter = 'm'),
    O_BOOL(struct convert_opts, unordered, "out-of-order", "off", "write in any order, as is done anyway",
           .letter = 'W'),
    O_BOOL(struct convert_opts, no_create, "no-create", "off", "write into an image that is there", .letter = 'n'),
    O_BOOL(struct convert_opts, target_is_zero, "target-is-zero", "off", "with -n: it reads as zeroes"),
    O_BOOL(struct convert_opts, salvage, "salvage", "off", "what cannot be read becomes zeroes, with a message"),
    O_SIZE(struct convert_opts, rate, "rate-limit", "0", 0, 0, "bytes a second at most; 0: no limit", .letter = 'r'),
    O_BOOL(struct convert_opts, bitmaps, "bitmaps", "off", "copy the bitmaps of changed blocks, too"),
    IMG_PROGRESS_OPTIONS(struct convert_opts, say.),
    O_END,
};

enum { COPY, ZERO, SKIP, OFFLOAD };

struct convert {
    struct img_task task;
    const struct convert_opts *o;
    struct blk *src[SOURCES_MAX];
    unsigned nsrc;
    uint64_t skip; /* bytes of all together that are left out at their beginning */
    uint64_t size; /* of what is copied */
    struct blk *dst;
    bool reads_zero;     /* dst does where nothing is written */
    atomic_bool offload; /* the host's file system has not failed yet */
    unsigned images;     /* of the source's chain that are copied; 0: all */
    uint32_t granule;    /* bytes that are left out or written together */
    uint64_t off;        /* where next() is */
    struct img_walk walk;
    uint64_t start_ns;      /* when copying began */
    _Atomic uint64_t paced; /* bytes, of those that the rate counts */
    struct img_progress progress;
    _Atomic(struct blk *) broken; /* whose error ended it */
};

static struct convert *of(struct img_task *t)
{
    return container_of(t, struct convert, task);
}

/* The source that has the byte at *off, which becomes its offset there. */
static struct blk *source_at(const struct convert *c, uint64_t *off)
{
    unsigned i = 0;

    *off += c->skip;
    while (*off >= c->src[i]->lim.size)
        *off -= c->src[i++]->lim.size;
    return c->src[i];
}

/* What is to be done from `off` on, for ret->len bytes, which comes as what is left. */
static int look(struct convert *c, uint64_t off, struct img_item *ret)
{
    struct blk *b = source_at(c, &off);
    struct img_part part;
    int rc = img_walk(&c->walk, b, off, ret->len, c->images, &part);

    ret->kind = COPY;
    if (rc && c->o->salvage) { /* what is there shows when it is read */
        ret->len = min_u64(ret->len, c->granule);
        return 0;
    }
    if (rc) {
        c->broken = b;
        return rc;
    }
    ret->len = part.len;
    if (part.place == BLK_BACKING) {
        ret->kind = SKIP;
    } else if (part.place == BLK_ZEROES && c->o->sparse) {
        ret->kind = c->reads_zero ? SKIP : ZERO;
    } else if (part.place == BLK_AT && part.status.has_off && atomic_load(&c->offload)) {
        ret->kind = OFFLOAD;
        ret->blk = part.blk->file;
        ret->at = part.status.off;
    }
    return 0;
}

/*
 * Pieces begin and end at granules, so that no two threads write to one.  Data end where nothing but a hole of a
 * granule at least follows, or where the buffer does.
 */
static int next(struct img_task *t, struct img_item *ret)
{
    struct convert *c = of(t);
    uint64_t left = c->size - c->off, len, most = min_u64(left, t->buf_size - c->off % t->buf_size);
    int rc;

    if (!left)
        return 1;
    *ret = (struct img_item){.off = c->off, .len = left};
    rc = look(c, c->off, ret);
    if (rc)
        return rc;
    len = ret->len == left ? left : align_down(ret->len, c->granule);
    if (ret->kind == OFFLOAD)
        len = min_u64(len, most);
    if (ret->kind == COPY || !len) {
        ret->kind = COPY;
        len = min_u64(max_u64(len, c->granule), most);
        while (len < most) {
            struct img_item more = {.len = most - len};

            rc = look(c, c->off + len, &more);
            if (rc)
                return rc;
            if (more.kind != COPY && more.len >= c->granule)
                break;
            len = min_u64(align_up(len + more.len, c->granule), most);
        }
    }
    ret->len = len;
    c->off += len;
    return 0;
}

/* Sector by sector, zeroes for those that cannot be read. */
static void salvage(struct blk *b, char *buf, uint64_t n, uint64_t off)
{
    for (uint64_t at = 0, part; at < n; at += part) {
        int rc;

        part = min_u64(n - at, SECTOR - (off + at) % SECTOR);
        rc = blk_pread(b, buf + at, part, off + at);
        if (!rc)
            continue;
        memset(buf + at, 0, part);
        log_msg(LOG_WARN, "%s: byte %" PRIu64 ": %s; zeroes instead", b->name, off + at, strerror(-rc));
    }
}

/* Waits until `n` bytes more are within the rate. */
static void pace(struct convert *c, uint64_t n)
{
    struct timespec t;
    uint64_t due;

    if (!c->o->rate)
        return;
    n += atomic_fetch_add(&c->paced, n);
    due = c->start_ns + (uint64_t)((double)n * NS_PER_S / (double)c->o->rate);
    t = (struct timespec){.tv_sec = (time_t)(due / NS_PER_S), .tv_nsec = (long)(due % NS_PER_S)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

static int read_sources(struct convert *c, char *buf, uint64_t off, uint64_t len)
{
    while (len) {
        uint64_t at = off, n;
        struct blk *b = source_at(c, &at);
        int rc;

        n = min_u64(len, b->lim.size - at);
        rc = blk_pread(b, buf, n, at);
        if (rc && c->o->salvage) {
            salvage(b, buf, n, at);
        } else if (rc) {
            c->broken = b;
            return rc;
        }
        buf += n;
        off += n;
        len -= n;
    }
    return 0;
}

/* `n` bytes that are all zero, or all to be written. */
static int put(struct convert *c, const char *buf, size_t n, uint64_t off, bool zero)
{
    const struct blk_driver *drv = c->dst->drv;
    uint32_t cluster;
    int rc = 0;

    if (zero)
        return c->reads_zero ? 0 : blk_zero(c->dst, off, n, true);
    if (!c->o->compress)
        return blk_pwrite(c->dst, buf, n, off);
    cluster = drv->cluster(c->dst);
    for (size_t at = 0; !rc && at < n; at += cluster)
        rc = drv->write_compressed(c->dst, off + at, buf + at, min_u64(cluster, n - at));
    return rc;
}

/* What was read, in runs of granules that are zero or are not. */
static int write_runs(struct convert *c, const char *buf, uint64_t off, size_t len)
{
    size_t start = 0;
    bool was = false;

    for (size_t at = 0; at < len; at += c->granule) {
        bool zero = c->o->sparse && img_is_zero(buf + at, min_u64(c->granule, len - at));
        int rc = at && zero != was ? put(c, buf + start, at - start, off + start, was) : 0;

        if (rc)
            return rc;
        if (zero != was)
            start = at;
        was = zero;
    }
    return put(c, buf + start, len - start, off + start, was);
}

/* Did the host copy it?  Where it fails, reading and writing says why, or does it. */
static bool offloaded(struct convert *c, const struct img_item *item)
{
    const struct blk_io io = {
        .op = BLK_COPY, .off = item->off, .len = item->len, .from = item->blk, .from_off = item->at};

    if (item->kind != OFFLOAD || !atomic_load(&c->offload))
        return false;
    if (!blk_rw(c->dst, &io))
        return true;
    atomic_store(&c->offload, false);
    return false;
}

static int run(struct img_task *t, const struct img_item *item, void *buf)
{
    struct convert *c = of(t);
    bool data = item->kind == COPY || item->kind == OFFLOAD;
    int rc = 0;

    if (data)
        pace(c, item->len);
    if (data && !offloaded(c, item)) {
        rc = read_sources(c, buf, item->off, item->len);
        if (rc)
            return rc;
        rc = write_runs(c, buf, item->off, item->len);
    } else if (item->kind == ZERO) {
        rc = blk_zero(c->dst, item->off, item->len, true);
    }
    if (rc)
        c->broken = c->dst;
    else
        img_progress_add(&c->progress, item->len);
    return rc;
}

static int copy(struct convert *c, struct err *err)
{
    const struct convert_opts *o = c->o;
    uint32_t cluster = c->dst->drv->cluster ? c->dst->drv->cluster(c->dst) : 0;
    int rc;

    if (o->compress && (!c->dst->drv->write_compressed || !cluster))
        return err_set(err, ENOTSUP, "images of format %s hold nothing compressed; leave -c out, or write qcow2",
                       c->dst->drv->name);
    c->granule = (uint32_t)max_u64(cluster, PAGE);
    while (!o->compress && c->granule * 2ull <= o->sparse)
        c->granule *= 2;
    c->task =
        (struct img_task){.next = next, .run = run, .threads = o->threads, .buf_size = align_up(CHUNK, c->granule)};
    atomic_store(&c->offload, o->offload);
    c->start_ns = clock_now_ns();
    img_progress_init(&c->progress, c->size, o->say.progress, o->say.quiet);
    rc = img_task_run(&c->task);
    if (!rc) {
        rc = blk_flush(c->dst); /* completes what a format writes last */
        c->broken = c->dst;
    }
    img_progress_fini(&c->progress);
    return rc ? img_io_failed(c->broken, c->task.failed.off, rc, err) : 0;
}

/* ---- Before and after. ---- */

static int copy_bitmaps(struct blk *from, struct blk *to, struct err *err)
{
    struct qcow2_bitmap_info m;
    int rc = 0;

    if (from->drv != &qcow2_driver || to->drv != &qcow2_driver)
        return err_set(err, ENOTSUP, "bitmaps are copied from qcow2 to qcow2 only; leave --bitmaps out");
    for (unsigned i = 0; !rc && qcow2_bitmap_get(from, i, &m); i++) {
        rc = qcow2_bitmap_add(to, m.name, (uint32_t)m.granularity, false, err);
        if (!rc)
            rc = qcow2_bitmap_merge(to, m.name, from, m.name, err);
        if (!rc && m.enabled)
            rc = qcow2_bitmap_enable(to, m.name, true, err);
    }
    return rc;
}

static int open_sources(struct convert *c, struct cli_line *l, struct err *err)
{
    const struct convert_opts *o = c->o;
    struct img_open open = o->open;
    cleanup_free char *options = NULL;
    int rc = 0;

    if (o->snapshot)
        open.options = options = img_option("snapshot-name", o->snapshot);
    for (unsigned i = 0; !rc && i + 1 < l->nargs; i++) {
        rc = img_open(l->args[i], &open, IMG_READ, &c->src[i], err);
        if (rc)
            return rc;
        c->nsrc++;
        if (__builtin_add_overflow(c->size, c->src[i]->lim.size, &c->size))
            return err_set(err, EFBIG, "the images are too large together");
    }
    if ((o->backing || o->bitmaps) && c->nsrc > 1)
        return err_set(err, EINVAL, "%s needs a single source", o->backing ? "-B" : "--bitmaps");
    return 0;
}

static int copy_into(struct convert *c, const char *path, const char *format, unsigned mode, struct err *err)
{
    struct img_open open = {
        .format = (char *)format, .allow = c->o->open.allow, .objects = c->o->open.objects, .cache = c->o->out_cache};
    int rc = img_open(path, &open, IMG_WRITE | mode, &c->dst, err);

    if (!rc && c->dst->lim.size < c->size)
        rc = err_set(err, ENOSPC, "%s has %" PRIu64 " bytes, the source %" PRIu64 "; enlarge it with: bothy img resize",
                     path, c->dst->lim.size, c->size);
    if (!rc)
        rc = copy(c, err);
    if (!rc && c->o->bitmaps)
        rc = copy_bitmaps(c->src[0], c->dst, err);
    blk_close(take_ptr(c->dst));
    return rc;
}

static int make(struct convert *c, const char *path, struct img_new *n, struct err *err)
{
    const struct convert_opts *o = c->o;
    char buf[IMG_VALUE];
    const char *encrypt;
    struct img_target t;
    int rc = 0;

    if (o->backing)
        rc = img_new_backing(n, o->backing, o->backing_format, err);
    if (rc)
        return rc;
    if (o->compress && !n->drv->write_compressed)
        return err_set(err, ENOTSUP, "images of format %s hold nothing compressed; leave -c out, or write qcow2",
                       n->drv->name);
    encrypt = img_new_option(n, "encrypt.format", buf);
    if (o->compress && encrypt && strcmp(encrypt, "none"))
        return err_set(err, ENOTSUP, "encrypted images hold nothing compressed; leave -c or encrypt.format out");
    c->images = o->backing ? 1 : 0;
    rc = img_target_create(&t, path, n, &o->open.objects, c->size, err);
    if (!rc) {
        c->reads_zero = t.temp && !n->drv->noise && !img_new_option(n, "backing_file", buf);
        rc = copy_into(c, img_target_name(&t), n->drv->name, IMG_FRESH, err);
    }
    if (!rc)
        rc = img_target_done(&t, err);
    img_target_fini(&t);
    return rc;
}

static int convert_run(struct cli_line *l, struct err *err)
{
    struct convert c = {.o = l->opts};
    const struct convert_opts *o = c.o;
    struct img_new n = {0};
    const char *path;
    int rc = img_need(l, 2, err);

    if (rc)
        return rc;
    path = l->args[l->nargs - 1];
    if (o->no_create && (o->options.n || o->backing))
        return err_set(err, EINVAL, "-n writes into an image that is there, so -o and -B have no place");
    if (o->offload && (o->compress || o->salvage || o->sparse != PAGE))
        return err_set(err, EINVAL, "-C has the host copy, which does not %s; leave one of them out",
                       o->compress  ? "compress (-c)"
                       : o->salvage ? "go on past errors (--salvage)"
                                    : "look for zeroes (-S)");
    if (!o->no_create) {
        rc = img_new_init(&n, o->out_format, path, err);
        if (!rc)
            rc = img_new_options(&n, &o->options, err);
    }
    if (!rc)
        rc = open_sources(&c, l, err);
    if (!rc && o->no_create) {
        c.reads_zero = o->target_is_zero;
        rc = copy_into(&c, path, o->out_format, 0, err);
    } else if (!rc) {
        rc = make(&c, path, &n, err);
    }
    for (unsigned i = 0; i < c.nsrc; i++)
        blk_close(c.src[i]);
    img_new_fini(&n);
    return rc > 0 ? 0 : rc; /* help was asked for */
}

const struct cli_verb img_convert = {
    .name = "img convert",
    .summary = "copy images into a new one, of another format perhaps",
    .args = "SOURCE... TARGET",
    .max_args = SOURCES_MAX,
    .text =
        "  bothy img convert disk.vmdk disk.qcow2\n"
        "  bothy img convert -c -o compression_type=zstd disk.raw disk.qcow2\n\n"
        "The new image gets its name when it is whole: neither Ctrl-C nor a full disk leaves half of it, and what had "
        "the name before is there until then.  Holes and zeroes are left out.",
    .opts = convert_opts,
    .size = sizeof(struct convert_opts),
    .run = convert_run,
    .fail_code = 1,
};

/* ---- dd ---- */

struct dd_words { /* its arguments */
    char *in, *out;
    uint64_t bs, count, skip;
};

static const struct opt dd_words[] = {
    O_STR(struct dd_words, in, "if", NULL, "image to read"),
    O_STR(struct dd_words, out, "of", NULL, "image to make"),
    O_SIZE(struct dd_words, bs, "bs", "512", 1, INT64_MAX, "bytes of a block"),
    O_U64(struct dd_words, count, "count", "0", 0, 0, "blocks of the source to go by"),
    O_U64(struct dd_words, skip, "skip", "0", 0, 0, "blocks of these to leave out first"),
    O_END,
};

static const struct opt dd_opts[] = {
    IMG_OPEN_OPTIONS(struct convert_opts, open.),
    IMG_FORMAT(struct convert_opts, out_format, "out-format", 'O'),
    O_END,
};

static int set_words(struct dd_words *w, struct cli_line *l, struct err *err)
{
    uint64_t bytes;

    opts_default(dd_words, w);
    for (unsigned i = 0; i < l->nargs; i++) {
        int rc = opts_parse(dd_words, w, "if", l->args[i], err);

        if (rc)
            return rc;
    }
    if (!w->in || !w->out)
        return err_set(err, EINVAL, "%s is missing; write: bothy %s %s", w->in ? "of=FILE" : "if=FILE", l->verb->name,
                       l->verb->args);
    if (__builtin_mul_overflow(w->bs, w->count, &bytes) || __builtin_mul_overflow(w->bs, w->skip, &bytes))
        return err_set(err, EINVAL, "blocks of %" PRIu64 " bytes are more than any disk has", w->bs);
    return 0;
}

static int dd(struct convert *c, const struct dd_words *w, struct img_new *n, struct err *err)
{
    const struct convert_opts *o = c->o;
    uint64_t end;
    int rc = img_new_init(n, o->out_format, w->out, err);

    if (!rc)
        rc = img_open(w->in, &o->open, IMG_READ, &c->src[0], err);
    if (rc)
        return rc;
    c->nsrc = 1;
    end = w->count ? min_u64(w->bs * w->count, c->src[0]->lim.size) : c->src[0]->lim.size;
    c->skip = w->bs * w->skip;
    if (c->skip >= end)
        return err_set(err, EINVAL, "skip=%" PRIu64 " is past the end of what there is to copy, %" PRIu64 " bytes",
                       w->skip, end);
    c->size = align_up(end - c->skip, SECTOR);
    if (c->size > c->src[0]->lim.size - c->skip)
        return err_set(err, EINVAL, "skip=%" PRIu64 " blocks of %" PRIu64 " bytes do not end with a sector of 512",
                       w->skip, w->bs);
    return make(c, w->out, n, err);
}

static int dd_run(struct cli_line *l, struct err *err)
{
    struct convert_opts *o = l->opts;
    struct convert c = {.o = o};
    struct dd_words w = {0};
    struct img_new n = {0};
    int rc;

    o->sparse = PAGE;
    o->out_cache = BLK_CACHE_UNSAFE;
    rc = set_words(&w, l, err);
    if (!rc)
        rc = dd(&c, &w, &n, err);
    blk_close(c.src[0]);
    img_new_fini(&n);
    opts_clear(dd_words, &w);
    return rc;
}

const struct cli_verb img_dd = {
    .name = "img dd",
    .summary = "copy a part of an image into a new one",
    .args = "[bs=SIZE] [count=BLOCKS] [skip=BLOCKS] if=FILE of=FILE",
    .max_args = 5,
    .text =
        "Reads up to the end of block `count`, without the first `skip` blocks.  The new image gets its name when it "
        "is whole.",
    .opts = dd_opts,
    .size = sizeof(struct convert_opts),
    .run = dd_run,
    .fail_code = 1,
};
