/* The core of the block layer: what every request passes on its way to a driver and back. */
#include "devices/block/block.h"

void blk_close(struct blk *b)
{
    if (b)
        b->drv->close(b);
}

static void finish(struct blk_req *r, int ret)
{
    struct lane *lane = r->blk->lane;

    r->done(r, ret); /* the owner may reuse it at once */
    lane_end(lane);
}

static void refused(struct work *w, int ret)
{
    struct blk_req *r = container_of(w, struct blk_req, work);
    struct blk *b = r->blk;

    (void)ret;
    finish(r, r->ret);
    blk_batch(b);
}

static int check(const struct blk_limits *lim, const struct blk_req *r)
{
    if (r->op == BLK_FLUSH)
        return 0;
    if (!r->len || (r->off | r->len) & (lim->align - 1) || !range_fits(r->off, r->len, lim->size))
        return -EINVAL;
    return r->op != BLK_READ && lim->read_only ? -EROFS : 0;
}

void blk_submit(struct blk *b, struct blk_req *r)
{
    r->blk = b;
    r->ret = check(&b->lim, r);
    lane_begin(b->lane);
    if (!r->ret) {
        b->drv->submit(b, r);
        return;
    }
    r->work = (struct work){.lane = b->lane, .done = refused};
    work_post(&r->work);
}

void blk_kick(struct blk *b)
{
    if (b->drv->kick)
        b->drv->kick(b);
}

void blk_batch(struct blk *b)
{
    if (b->user && b->user->batch)
        b->user->batch(b->user);
}

static void advance(struct blk_req *r, uint64_t n)
{
    r->off += n;
    r->len -= n;
    while (r->niov && n >= r->iov->iov_len) {
        n -= r->iov->iov_len;
        r->iov++;
        r->niov--;
    }
    if (r->niov) {
        r->iov->iov_base = (char *)r->iov->iov_base + n;
        r->iov->iov_len -= n;
    }
}

void blk_complete(struct blk_req *r, int64_t ret)
{
    struct blk *b = r->blk;

    if (r->op == BLK_FLUSH || ret < 0) {
        finish(r, (int)ret);
        return;
    }
    assert((uint64_t)ret <= r->len);
    if ((uint64_t)ret == r->len) {
        finish(r, 0);
    } else if (!ret) {
        finish(r, -EIO); /* no progress, so there will be none */
    } else {
        advance(r, (uint64_t)ret);
        b->drv->submit(b, r);
        blk_kick(b);
    }
}
