/* `bothy img compare`: do two images hold the same? */
#include <inttypes.h>

#include "vmm/base/cleanup.h"
#include "vmm/cli/img.h"

struct compare_opts {
    struct img_open open;
    char *other_format;
    bool strict;
    struct img_say say;
};

static const struct opt compare_opts[] = {
    IMG_OPEN_OPTIONS(struct compare_opts, open.),
    IMG_FORMAT(struct compare_opts, other_format, "other-format", 'F'),
    IMG_CACHE(struct compare_opts, open.cache, "source-cache", "writeback", 'T'),
    O_BOOL(struct compare_opts, strict, "strict", "off", "sizes and what is allocated must agree, too", .letter = 's'),
    IMG_PROGRESS_OPTIONS(struct compare_opts, say.),
    O_END,
};

enum { CHUNK = 256 << 10, SECTOR = 512 };
enum { EXIT_DIFFERENT = 1, EXIT_NOT_OPENED = 2, EXIT_NOT_READ = 4 }; /* qemu-img(1) */

struct compare {
    struct img_task task;
    struct blk *a, *b;
    struct img_walk walk_a, walk_b;
    bool strict;
    uint64_t off, size;           /* size: of the longer */
    _Atomic uint64_t differs;     /* the first such byte that was found; UINT64_MAX: none */
    uint64_t allocation;          /* strict: where that differs; UINT64_MAX: nowhere.  next()'s */
    _Atomic(struct blk *) broken; /* whose error ended it */
    struct img_progress progress;
};

static struct compare *of(struct img_task *t)
{
    return container_of(t, struct compare, task);
}

/* What is there, zeroes past the end. */
static int part_of(struct compare *c, struct blk *b, struct img_walk *w, uint64_t *len, struct img_part *ret)
{
    int rc;

    if (c->off >= b->lim.size) {
        *ret = (struct img_part){.place = BLK_ZEROES, .len = *len};
        return 0;
    }
    rc = img_walk(w, b, c->off, *len, 0, ret);
    if (rc)
        c->broken = b;
    else
        *len = ret->len;
    return rc;
}

static int next(struct img_task *t, struct img_item *ret)
{
    struct compare *c = of(t);

    while (c->off < c->size && c->differs == UINT64_MAX && c->allocation == UINT64_MAX) {
        uint64_t len = c->size - c->off;
        struct img_part a, b;
        int rc = part_of(c, c->a, &c->walk_a, &len, &a);

        *ret = (struct img_item){.off = c->off};
        if (!rc)
            rc = part_of(c, c->b, &c->walk_b, &len, &b);
        if (rc)
            return rc;
        if (c->strict && a.present != b.present) {
            c->allocation = c->off;
            break;
        }
        if (a.place == BLK_AT || b.place == BLK_AT) {
            ret->len = min_u64(len, CHUNK - c->off % CHUNK);
            c->off += ret->len;
            return 0;
        }
        img_progress_add(&c->progress, len);
        c->off += len;
    }
    return 1;
}

static int read_part(struct compare *c, struct blk *b, const struct img_item *item, char *buf)
{
    uint64_t has = item->off < b->lim.size ? min_u64(item->len, b->lim.size - item->off) : 0;
    int rc = has ? blk_pread(b, buf, has, item->off) : 0;

    if (rc)
        c->broken = b;
    memset(buf + has, 0, item->len - has);
    return rc;
}

static int run(struct img_task *t, const struct img_item *item, void *buf)
{
    struct compare *c = of(t);
    char *a = buf, *b = a + CHUNK;
    uint64_t at = item->off, lowest;
    int rc = read_part(c, c->a, item, a);

    if (!rc)
        rc = read_part(c, c->b, item, b);
    if (rc)
        return rc;
    img_progress_add(&c->progress, item->len);
    if (!memcmp(a, b, item->len))
        return 0;
    while (!memcmp(a, b, SECTOR)) {
        a += SECTOR;
        b += SECTOR;
        at += SECTOR;
    }
    lowest = c->differs;
    while (at < lowest && !atomic_compare_exchange_weak(&c->differs, &lowest, at))
        ;
    return 0;
}

static int compare(struct compare *c, const struct compare_opts *o, struct err *err)
{
    int rc;

    c->size = max_u64(c->a->lim.size, c->b->lim.size);
    if (c->a->lim.size != c->b->lim.size && o->strict) {
        if (!o->say.quiet)
            puts("Strict mode: Image size mismatch!");
        return EXIT_DIFFERENT;
    }
    if (c->a->lim.size != c->b->lim.size && !o->say.quiet)
        puts("Warning: Image size mismatch!");
    img_progress_init(&c->progress, c->size, o->say.progress, o->say.quiet);
    rc = img_task_run(&c->task);
    img_progress_fini(&c->progress);
    if (rc) {
        img_io_failed(c->broken, c->task.failed.off, rc, err);
        fprintf(stderr, "bothy img compare: %s\n", err->msg);
        return EXIT_NOT_READ;
    }
    if (c->differs != UINT64_MAX && !o->say.quiet)
        printf("Content mismatch at offset %" PRIu64 "!\n", c->differs);
    else if (c->allocation != UINT64_MAX && !o->say.quiet)
        printf("Strict mode: Offset %" PRIu64 " block status mismatch!\n", c->allocation);
    else if (!o->say.quiet)
        puts("Images are identical.");
    return c->differs != UINT64_MAX || c->allocation != UINT64_MAX ? EXIT_DIFFERENT : 0;
}

static int compare_run(struct cli_line *l, struct err *err)
{
    const struct compare_opts *o = l->opts;
    struct img_open other = o->open;
    struct compare c = {.task = {.next = next, .run = run, .buf_size = 2 * CHUNK},
                        .strict = o->strict,
                        .differs = UINT64_MAX,
                        .allocation = UINT64_MAX};
    int rc = img_need(l, 2, err);

    other.format = o->other_format;
    if (!rc)
        rc = img_open(l->args[0], &o->open, IMG_READ, &c.a, err);
    if (!rc)
        rc = img_open(l->args[1], &other, IMG_READ, &c.b, err);
    if (!rc)
        rc = compare(&c, o, err);
    blk_close(c.a);
    blk_close(c.b);
    return rc;
}

const struct cli_verb img_compare = {
    .name = "img compare",
    .summary = "tell whether two images hold the same",
    .args = "FILE FILE",
    .max_args = 2,
    .text = "What lies past the end of the shorter one must be zeroes in the longer.  Ends with 0 when they hold the "
            "same, 1 when they differ, 2 when one cannot be opened, 4 when one cannot be read.",
    .opts = compare_opts,
    .size = sizeof(struct compare_opts),
    .run = compare_run,
    .fail_code = EXIT_NOT_OPENED,
};
