/* `bothy img map`: what lies where in an image and those that it is based on. */
#include <inttypes.h>

#include "vmm/base/cleanup.h"
#include "vmm/cli/img.h"

struct map_opts {
    struct img_open open;
    uint32_t output;
    uint64_t start, length;
};

static const struct opt map_opts[] = {
    IMG_OPEN_OPTIONS(struct map_opts, open.),
    IMG_OUTPUT(struct map_opts, output),
    O_SIZE(struct map_opts, start, "start-offset", "0", 0, 0, "byte to begin with", .letter = 's'),
    O_SIZE(struct map_opts, length, "max-length", "0", 0, 0, "bytes to look at; 0: all", .letter = 'l'),
    O_END,
};

struct extent {
    uint64_t off;
    struct img_part part;
};

/* Does `next` go on where `e` ends, in the same way? */
static bool joins(const struct extent *e, const struct img_part *next)
{
    const struct img_part *p = &e->part;

    return p->blk == next->blk && p->place == next->place && p->present == next->present && p->depth == next->depth &&
           p->status.compressed == next->status.compressed && p->status.has_off == next->status.has_off &&
           (!p->status.has_off || p->status.off + p->len == next->status.off);
}

static int print_human(const struct extent *e, struct err *err)
{
    const struct img_part *p = &e->part;

    if (p->place != BLK_AT)
        return 0;
    if (!p->status.has_off)
        return err_set(err, ENOTSUP,
                       "byte %" PRIu64 " is compressed, encrypted or in another file; --output=json shows such, too",
                       e->off);
    printf("%#-16" PRIx64 "%#-16" PRIx64 "%#-16" PRIx64 "%s\n", e->off, p->len, p->status.off, p->blk->name);
    return 0;
}

static void print_json(const struct extent *e, bool last)
{
    const struct img_part *p = &e->part;
    bool data = p->place == BLK_AT;

    printf("{ \"start\": %" PRIu64 ", \"length\": %" PRIu64
           ", \"depth\": %u, \"present\": %s, \"zero\": %s, \"data\": %s",
           e->off, p->len, p->depth, p->present ? "true" : "false", data ? "false" : "true", data ? "true" : "false");
    if (p->status.has_off)
        printf(", \"offset\": %" PRIu64, p->status.off);
    printf("}%s\n", last ? "]" : ",");
}

static int map(struct blk *b, uint64_t off, uint64_t end, enum img_output output, struct err *err)
{
    struct extent e = {.off = off};
    struct img_part part;

    printf("%s", output == IMG_JSON ? "[" : "Offset          Length          Mapped to       File\n");
    for (bool first = true; off < end; off += part.len, first = false) {
        int rc = img_part(b, off, end - off, 0, &part);

        if (rc)
            return img_io_failed(b, off, rc, err);
        if (!first && joins(&e, &part)) {
            e.part.len += part.len;
            continue;
        }
        if (!first && output == IMG_JSON)
            print_json(&e, false);
        else if (!first && (rc = print_human(&e, err)))
            return rc;
        e = (struct extent){.off = off, .part = part};
    }
    if (output == IMG_HUMAN)
        return e.part.len ? print_human(&e, err) : 0;
    if (e.part.len)
        print_json(&e, true);
    else
        puts("]");
    return 0;
}

static int map_run(struct cli_line *l, struct err *err)
{
    const struct map_opts *o = l->opts;
    struct blk *b cleanup_blk = NULL;
    uint64_t left;
    int rc = img_need(l, 1, err);

    if (!rc)
        rc = img_open(l->args[0], &o->open, IMG_READ | IMG_ABOUT, &b, err);
    if (rc)
        return rc;
    if (o->start > b->lim.size)
        return err_set(err, EINVAL, "start-offset is beyond the end of %s, which has %" PRIu64 " bytes", b->name,
                       b->lim.size);
    left = b->lim.size - o->start;
    return map(b, o->start, o->start + (o->length ? min_u64(o->length, left) : left), o->output, err);
}

const struct cli_verb img_map = {
    .name = "img map",
    .summary = "list what lies where in an image",
    .args = "FILE",
    .max_args = 1,
    .text = "As text only what holds data; --output=json lists holes and what other images lend it as well.",
    .opts = map_opts,
    .size = sizeof(struct map_opts),
    .run = map_run,
    .fail_code = 1,
};
