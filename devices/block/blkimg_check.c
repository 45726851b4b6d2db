/* Whether the tables of an image make sense: each block lies within the file, and no two in the same place. */
#include <inttypes.h>
#include <stdio.h>

#include "devices/block/blkimg.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"

enum { TOLD = 20 /* messages */ };

struct places { /* of blocks, in the file */
    uint64_t *v;
    size_t n, room;
};

__attribute__((format(printf, 3, 4))) static void corrupt(struct blkimg *im, struct blk_check *found, const char *fmt,
                                                          ...)
{
    char why[200];
    va_list ap;

    if (++found->corruptions > TOLD)
        return;
    va_start(ap, fmt);
    vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    log_msg(LOG_WARN, "%s: %s%s", im->b.name, why, found->corruptions == TOLD ? " (and so on)" : "");
}

static int add_place(struct places *p, uint64_t off)
{
    if (p->n == p->room) {
        size_t room = p->room * 2 + 1024;
        uint64_t *v = realloc(p->v, room * sizeof(*v));

        if (!v)
            return -ENOMEM;
        p->v = v;
        p->room = room;
    }
    p->v[p->n++] = off;
    return 0;
}

static int look(struct blkimg *im, uint32_t block, struct places *places, struct blk_check *found)
{
    uint64_t size = im->b.lim.size;

    for (uint64_t off = 0; off < size; off += min_u64(block, size - off)) {
        struct blkimg_at at = {.len = min_u64(block, size - off)};
        int rc = im->ops->find(im, off, true, &at);

        if (rc == -ENOMEM)
            return rc;
        if (rc) {
            corrupt(im, found, "where the block at %#" PRIx64 " lies cannot be told", off);
        } else if (at.place == BLK_AT) {
            if (!blkimg_fits(im, at.file, at.off, at.len))
                corrupt(im, found, "the block at %#" PRIx64 " lies at %#" PRIx64 ", beyond the file's end", off,
                        at.off);
            if (add_place(places, at.off))
                return -ENOMEM;
        }
    }
    return 0;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

int blkimg_check(struct blk *b, enum blk_fix fix, struct blk_check *ret, struct err *err)
{
    struct blkimg *im = container_of(b, struct blkimg, b);
    uint32_t block = b->drv->cluster(b);
    struct places places = {0};
    const char *flaw;
    int rc;

    *ret = (struct blk_check){0};
    if (fix != BLK_FIX_NONE)
        return err_set(err, ENOTSUP, "%s images can be looked at, but not mended; convert what can be read of it",
                       b->drv->name);
    rc = look(im, block, &places, ret);
    if (places.n)
        qsort(places.v, places.n, sizeof(places.v[0]), compare);
    for (size_t i = 1; i < places.n; i++)
        if (places.v[i] - places.v[i - 1] < block)
            corrupt(im, ret, "two blocks lie at %#" PRIx64, places.v[i]);
    free(places.v);
    flaw = !rc && im->ops->flaw ? im->ops->flaw(im, places.n) : NULL;
    if (flaw)
        corrupt(im, ret, "%s", flaw);
    return rc ? err_set(err, -rc, "%s: no memory for the check", b->name) : 0;
}
