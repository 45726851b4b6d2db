/* `bothy img replay`: does to an image what the `log` filter wrote down, up to any flush. */
#include <inttypes.h>

#include "devices/block/filter.h"
#include "vmm/base/cleanup.h"
#include "vmm/cli/img.h"

struct replay_opts {
    struct img_open open;
    uint64_t flushes;
    bool list, quiet;
};

static const struct opt replay_opts[] = {
    IMG_OPEN_OPTIONS(struct replay_opts, open.),
    O_U64(struct replay_opts, flushes, "flush", "0", 0, 0, "the flush to end with; 0: all there is", .letter = 'n'),
    O_BOOL(struct replay_opts, list, "list", "off", "only tell what the log has", .letter = 'l'),
    O_BOOL(struct replay_opts, quiet, "quiet", "off", "say nothing but errors", .letter = 'q'),
    O_END,
};

static int replay_run(struct cli_line *l, struct err *err)
{
    const struct replay_opts *o = l->opts;
    struct blk *b cleanup_blk = NULL;
    struct log_summary sum;
    int rc = img_need(l, o->list ? 1 : 2, err);

    if (!rc && o->list && l->nargs == 2)
        rc = err_set(err, EINVAL, "--list tells about the log alone; leave the image out");
    if (!rc && !o->list)
        rc = img_open(l->args[1], &o->open, IMG_WRITE, &b, err);
    if (!rc)
        rc = log_replay(l->args[0], o->flushes ? o->flushes : UINT64_MAX, b, &sum, err);
    if (!rc && b && (rc = blk_flush(b)))
        img_io_failed(b, 0, rc, err);
    if (!rc && !o->quiet)
        printf("%" PRIu64 " changes with %" PRIu64 " bytes, %" PRIu64 " flushes, disk of %" PRIu64 " bytes\n",
               sum.changes, sum.bytes, sum.flushes, sum.size);
    return rc;
}

const struct cli_verb img_replay = {
    .name = "img replay",
    .summary = "do to an image what a log of writes has",
    .args = "LOG [IMAGE]",
    .max_args = 2,
    .text = "  bothy run -d disk.raw,filter=log:file=writes.log ...\n"
            "  bothy img replay --flush 3 writes.log copy.raw\n\n"
            "The image is a copy of the disk as it was when the log began.  What it becomes is what a power cut right "
            "after "
            "that flush may have left.",
    .opts = replay_opts,
    .size = sizeof(struct replay_opts),
    .run = replay_run,
    .fail_code = 1,
};
