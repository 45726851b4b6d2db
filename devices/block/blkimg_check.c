/* Whether the tables of an image make sense: each block lies within its file, and no two, nor a table, in the same
 * place. */
#include <inttypes.h>
#include <stdio.h>

#include "devices/block/blkimg.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"

enum { TOLD = 20 /* messages */ };

struct place {
    const struct blk *file;
    uint64_t off, len; /* there */
};

struct blkimg_check {
    struct blkimg *im;
    struct blk_check *found;
    struct place *places;
    size_t n, room;
};

void blkimg_check_corrupt(struct blkimg_check *c, const char *fmt, ...)
{
    char why[200];
    va_list ap;

    if (++c->found->corruptions > TOLD)
        return;
    va_start(ap, fmt);
    vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    log_msg(LOG_WARN, "%s: %s%s", c->im->b.name, why, c->found->corruptions == TOLD ? " (and so on)" : "");
}

static int take(struct blkimg_check *c, const struct blk *file, uint64_t off, uint64_t len)
{
    if (c->n == c->room) {
        size_t room = c->room * 2 + 1024;
        struct place *places = realloc(c->places, room * sizeof(*places));

        if (!places)
            return -ENOMEM;
        c->places = places;
        c->room = room;
    }
    c->places[c->n++] = (struct place){file, off, len};
    return 0;
}

int blkimg_check_use(struct blkimg_check *c, struct blk *file, uint64_t off, uint64_t len, const char *what)
{
    if (!blkimg_fits(c->im, file, off, len))
        blkimg_check_corrupt(c, "%s lies at %#" PRIx64 ", beyond the file's end", what, off);
    return take(c, file, off, len);
}

static int block_at(struct blkimg *im, uint64_t off, struct blkimg_at *at, uint64_t *len)
{
    uint64_t most = min_u64(im->b.drv->cluster(&im->b), at->len);
    int rc;

    if (im->ops->block)
        return im->ops->block(im, off, at, len);
    at->len = *len = most;
    rc = im->ops->find(im, off, true, at);
    if (!rc)
        *len = at->len;
    return rc;
}

static int look(struct blkimg_check *c)
{
    uint64_t size = c->im->b.lim.size, len;
    int rc = 0;

    for (uint64_t off = 0; off < size && rc != -ENOMEM; off += len) {
        struct blkimg_at at = {.len = size - off};

        rc = block_at(c->im, off, &at, &len);
        if (rc && rc != -ENOMEM)
            blkimg_check_corrupt(c, "where the block at %#" PRIx64 " lies cannot be told", off);
        if (rc || at.place != BLK_AT)
            continue;
        if (!blkimg_fits(c->im, at.file, at.off, at.len))
            blkimg_check_corrupt(c, "the block at %#" PRIx64 " lies at %#" PRIx64 ", beyond the file's end", off,
                                 at.off);
        rc = take(c, at.file, at.off, at.len);
    }
    return rc == -ENOMEM ? rc : 0;
}

static int compare(const void *a, const void *b)
{
    const struct place *x = a, *y = b;

    if (x->file != y->file)
        return (uintptr_t)x->file < (uintptr_t)y->file ? -1 : 1;
    return x->off < y->off ? -1 : x->off > y->off;
}

/* Whether any two have bytes in common. */
static bool overlaps(struct blkimg_check *c)
{
    const struct place *last = c->places;
    bool ret = false;

    if (!c->n)
        return false;
    qsort(c->places, c->n, sizeof(*c->places), compare);
    for (const struct place *p = c->places + 1; p < c->places + c->n; p++) {
        if (p->file == last->file && p->off - last->off < last->len) {
            blkimg_check_corrupt(c, "two blocks or tables lie at %#" PRIx64, p->off);
            ret = true;
        }
        if (p->file != last->file || p->off + p->len > last->off + last->len)
            last = p;
    }
    return ret;
}

/* Where tables lie on each other, their blocks would be as many times the same as the image likes. */
static int check(struct blkimg_check *c)
{
    const struct blkimg_ops *ops = c->im->ops;
    int rc = ops->tables ? ops->tables(c->im, c) : 0;
    size_t ntables = c->n;
    const char *flaw;

    if (rc || overlaps(c))
        return rc;
    rc = look(c);
    overlaps(c);
    flaw = !rc && ops->flaw ? ops->flaw(c->im, c->n - ntables) : NULL;
    if (flaw)
        blkimg_check_corrupt(c, "%s", flaw);
    return rc;
}

int blkimg_check(struct blk *b, enum blk_fix fix, struct blk_check *ret, struct err *err)
{
    struct blkimg_check c = {.im = container_of(b, struct blkimg, b), .found = ret};
    int rc;

    *ret = (struct blk_check){0};
    if (fix != BLK_FIX_NONE)
        return err_set(err, ENOTSUP, "%s images can be looked at, but not mended; convert what can be read of it",
                       b->drv->name);
    rc = check(&c);
    free(c.places);
    return rc ? err_set(err, -rc, "%s: %s", b->name, strerror(-rc)) : 0;
}
