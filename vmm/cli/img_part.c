/* What a disk holds where, through its chain of backing images. */
#include "vmm/cli/img.h"

static int status_of(struct blk *b, uint64_t off, uint64_t len, struct blk_status *ret)
{
    *ret = (struct blk_status){.place = BLK_AT, .len = len};
    return b->drv->status ? b->drv->status(b, off, len, ret) : 0;
}

int img_part(struct blk *b, uint64_t off, uint64_t len, unsigned images, struct img_part *ret)
{
    *ret = (struct img_part){.len = len, .blk = b};
    for (;; b = b->backing, ret->depth++) {
        int rc;

        ret->blk = b;
        ret->len = min_u64(ret->len, b->lim.size - off);
        rc = status_of(b, off, ret->len, &ret->status);
        if (rc)
            return rc;
        ret->len = min_u64(ret->len, ret->status.len);
        ret->place = ret->status.place;
        if (ret->place != BLK_BACKING) {
            ret->present = true;
            return 0;
        }
        if (ret->depth + 1 == images)
            return 0;
        if (!b->backing || off >= b->backing->lim.size) {
            ret->place = BLK_ZEROES;
            return 0;
        }
    }
}

int img_walk(struct img_walk *w, struct blk *b, uint64_t off, uint64_t len, unsigned images, struct img_part *ret)
{
    uint64_t skip;

    if (w->blk != b || off < w->off || off - w->off >= w->part.len) {
        int rc = img_part(b, off, b->lim.size - off, images, &w->part);

        if (rc)
            return rc;
        w->blk = b;
        w->off = off;
    }
    skip = off - w->off;
    *ret = w->part;
    ret->len = min_u64(len, ret->len - skip);
    ret->status.off += skip;
    return 0;
}

bool img_is_zero(const void *buf, size_t n)
{
    const char *p = buf;

    return !n || (!p[0] && !p[n - 1] && !p[n / 2] && !memcmp(p, p + 1, n - 1));
}
