/* `bothy img bench`: how long a series of reads or writes takes. */
#include <inttypes.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/cli/img.h"

struct bench_opts {
    struct img_open open;
    uint64_t count, size, step, off, flush;
    uint32_t depth, pattern;
    bool write, quiet;
};

static const struct opt bench_opts[] = {
    IMG_OPEN_OPTIONS(struct bench_opts, open.),
    IMG_CACHE(struct bench_opts, open.cache, "cache", "writeback", 't'),
    O_U64(struct bench_opts, count, "count", "75000", 1, UINT32_MAX, "requests", .letter = 'c'),
    O_U32(struct bench_opts, depth, "depth", "64", 1, IMG_THREADS_MAX, "requests at a time", .letter = 'd'),
    O_SIZE(struct bench_opts, size, "buffer-size", "4K", 512, MiB(64), "bytes of one", .letter = 's'),
    O_SIZE(struct bench_opts, step, "step-size", "0", 0, 0, "bytes from one to the next; 0: as many as one has",
           .letter = 'S'),
    O_SIZE(struct bench_opts, off, "offset", "0", 0, 0, "where the first one is", .letter = 'o'),
    O_BOOL(struct bench_opts, write, "write", "off", "write, and lose what the image holds", .letter = 'w'),
    O_U32(struct bench_opts, pattern, "pattern", "0", 0, 255, "byte to write"),
    O_U64(struct bench_opts, flush, "flush-interval", "0", 0, 0, "writes between two flushes; 0: none"),
    O_BOOL(struct bench_opts, quiet, "quiet", "off", "say nothing but errors", .letter = 'q'),
    O_END,
};

struct bench {
    struct img_task task;
    const struct bench_opts *o;
    struct blk *blk;
    uint64_t off, step, issued;
    _Atomic uint64_t written;
};

static int next(struct img_task *t, struct img_item *ret)
{
    struct bench *b = container_of(t, struct bench, task);

    if (b->issued == b->o->count)
        return 1;
    if (b->off + b->o->size > b->blk->lim.size)
        b->off = 0;
    *ret = (struct img_item){.off = b->off, .len = b->o->size};
    b->off += b->step;
    b->issued++;
    return 0;
}

static int run(struct img_task *t, const struct img_item *item, void *buf)
{
    struct bench *b = container_of(t, struct bench, task);
    int rc;

    if (!b->o->write)
        return blk_pread(b->blk, buf, item->len, item->off);
    memset(buf, (int)b->o->pattern, item->len);
    rc = blk_pwrite(b->blk, buf, item->len, item->off);
    if (!rc && b->o->flush && !(++b->written % b->o->flush))
        rc = blk_flush(b->blk);
    return rc;
}

static int bench_run(struct cli_line *l, struct err *err)
{
    const struct bench_opts *o = l->opts;
    struct bench b = {.o = o,
                      .off = o->off,
                      .step = o->step ? o->step : o->size,
                      .task = {.next = next, .run = run, .threads = o->depth, .buf_size = o->size}};
    struct blk *blk cleanup_blk = NULL;
    uint64_t start;
    int rc = img_need(l, 1, err);

    if (!rc && o->flush && !o->write)
        rc = err_set(err, EINVAL, "--flush-interval is of writes; say -w");
    if (!rc)
        rc = img_open(l->args[0], &o->open, o->write ? IMG_WRITE : IMG_READ, &blk, err);
    if (rc)
        return rc;
    if (!range_fits(o->off, o->size, blk->lim.size))
        return err_set(err, EINVAL, "%s has only %" PRIu64 " bytes; take a smaller offset or buffer", blk->name,
                       blk->lim.size);
    b.blk = blk;
    if (!o->quiet)
        printf("Sending %" PRIu64 " %s requests, %" PRIu64 " bytes each, %u in parallel (starting at offset %" PRIu64
               ", step size %" PRIu64 ")\n",
               o->count, o->write ? "write" : "read", o->size, o->depth, o->off, b.step);
    start = clock_now_ns();
    rc = img_task_run(&b.task);
    if (rc)
        return img_io_failed(blk, b.task.failed.off, rc, err);
    if (!o->quiet)
        printf("Run completed in %.3f seconds.\n", (double)(clock_now_ns() - start) / 1e9);
    return 0;
}

const struct cli_verb img_bench = {
    .name = "img bench",
    .summary = "measure reads or writes of an image",
    .args = "FILE",
    .max_args = 1,
    .opts = bench_opts,
    .size = sizeof(struct bench_opts),
    .run = bench_run,
    .fail_code = 1,
};
