/*
 * The core of the block layer: what every request passes on its way to a driver and back.
 *
 * A submitted request goes in parts, one at a time: as much as lies together.  route() walks down from the top node by
 * what the drivers' map() say, until a node takes the part (submit) or it has to run on a worker (rw).
 */
#include "devices/block/driver.h"
#include "vmm/base/cleanup.h"

struct blk *blk_node(const struct blk_driver *drv, const char *name, struct lane *lane)
{
    struct blk *b = xcalloc(1, drv->size);

    assert(drv->size >= sizeof(*b));
    b->drv = drv;
    b->name = xstrdup(name);
    b->lane = lane;
    return b;
}

void blk_close(struct blk *b)
{
    if (!b)
        return;
    if (b->drv->close)
        b->drv->close(b);
    blk_close(b->file);
    blk_close(b->backing);
    if (b->drv->opts)
        opts_clear(b->drv->opts, b);
    free(b->name);
    free(b);
}

static int check(const struct blk_limits *lim, const struct blk_io *io, uint32_t align)
{
    if (io->op == BLK_FLUSH)
        return 0;
    if (!io->len || (io->off | io->len) & (align - 1) ||
        !range_fits(io->off, io->len, lim->grows ? INT64_MAX : lim->size))
        return -EINVAL;
    return io->op != BLK_READ && lim->read_only ? -EROFS : 0;
}

/* ---- Blocking. ---- */

int blk_rw(struct blk *b, const struct blk_io *io)
{
    int rc = check(&b->lim, io, 1);

    if (!rc && io->op == BLK_COPY && !b->drv->copies)
        rc = -ENOTSUP;
    return rc ? rc : b->drv->rw(b, io);
}

int blk_rw_part(struct blk *b, const struct blk_io *io, uint64_t skip, uint64_t n, uint64_t off)
{
    struct iovec iov[64];
    struct blk_io part = {.op = io->op,
                          .unmap = io->unmap,
                          .off = off,
                          .len = n,
                          .iov = iov,
                          .from = io->from,
                          .from_off = io->from_off + skip};

    if (io->op != BLK_READ && io->op != BLK_WRITE)
        return blk_rw(b, &part);
    while (n) {
        int rc;

        part.niov = iov_part(io->iov, skip, n, iov, array_len(iov), &part.len);
        rc = blk_rw(b, &part);
        if (rc)
            return rc;
        skip += part.len;
        part.off += part.len;
        n -= part.len;
    }
    return 0;
}

int blk_pread(struct blk *b, void *buf, size_t n, uint64_t off)
{
    struct iovec iov = {.iov_base = buf, .iov_len = n};

    return blk_rw(b, &(struct blk_io){.op = BLK_READ, .off = off, .len = n, .iov = &iov, .niov = 1});
}

int blk_pwrite(struct blk *b, const void *buf, size_t n, uint64_t off)
{
    struct iovec iov = {.iov_base = (void *)buf, .iov_len = n};

    return blk_rw(b, &(struct blk_io){.op = BLK_WRITE, .off = off, .len = n, .iov = &iov, .niov = 1});
}

int blk_zero(struct blk *b, uint64_t off, uint64_t n, bool unmap)
{
    return blk_rw(b, &(struct blk_io){.op = BLK_ZERO, .unmap = unmap, .off = off, .len = n});
}

int blk_discard(struct blk *b, uint64_t off, uint64_t n)
{
    return blk_rw(b, &(struct blk_io){.op = BLK_DISCARD, .off = off, .len = n});
}

int blk_flush(struct blk *b)
{
    return blk_rw(b, &(struct blk_io){.op = BLK_FLUSH});
}

int blk_read_backing(struct blk *b, const struct blk_io *io, uint64_t skip, uint64_t n)
{
    uint64_t off = io->off + skip, has = b->backing && off < b->backing->lim.size ? b->backing->lim.size - off : 0;
    uint64_t there = min_u64(n, has);
    int rc = there ? blk_rw_part(b->backing, io, skip, there, off) : 0;

    if (!rc)
        iov_zero(io->iov, skip + there, n - there);
    return rc;
}

/* ---- In the lane. ---- */

static void route(struct blk_req *r, struct blk *b);

static void finish(struct blk_req *r, int ret)
{
    struct lane *lane = r->top->lane;

    r->done(r, ret); /* the owner may reuse it at once */
    lane_end(lane);
}

static void finish_later(struct work *w, int ret)
{
    struct blk_req *r = container_of(w, struct blk_req, work);
    struct blk *top = r->top;

    (void)ret;
    finish(r, r->ret);
    blk_batch(top);
}

static void answer_later(struct blk_req *r, int ret)
{
    r->ret = ret;
    r->work = (struct work){.lane = r->top->lane, .done = finish_later};
    work_post(&r->work);
}

static bool has_data(const struct blk_io *io)
{
    return io->op == BLK_READ || io->op == BLK_WRITE;
}

/* The part becomes the whole of what is left. */
static void whole(struct blk_req *r)
{
    r->again = true;
    r->io.off = r->off;
    r->io.len = r->left;
    r->io.niov = r->niov;
    r->cut = 0;
}

/* Shortens the part to `len` bytes. */
static void shorten(struct blk_req *r, uint64_t len)
{
    struct blk_io *io = &r->io;
    unsigned i = 0;

    if (len == io->len)
        return;
    io->len = len;
    if (!has_data(io))
        return;
    if (r->cut) /* a second time */
        io->iov[io->niov - 1].iov_len += r->cut;
    while (io->iov[i].iov_len < len)
        len -= io->iov[i++].iov_len;
    r->cut = io->iov[i].iov_len - len;
    io->iov[i].iov_len = len;
    io->niov = i + 1;
}

/* `n` bytes of the part are done. */
static void advance(struct blk_req *r, uint64_t n)
{
    struct blk_io *io = &r->io;

    r->off += n;
    r->left -= n;
    if (!has_data(io))
        return;
    if (r->cut)
        io->iov[io->niov - 1].iov_len += r->cut;
    while (r->niov && n >= io->iov->iov_len) {
        n -= io->iov->iov_len;
        io->iov++;
        r->niov--;
    }
    if (r->niov) {
        io->iov->iov_base = (char *)io->iov->iov_base + n;
        io->iov->iov_len -= n;
    }
}

static void work_done(struct work *w, int ret)
{
    struct blk_req *r = container_of(w, struct blk_req, work);
    struct blk *top = r->top;

    blk_complete(r, ret ? ret : r->io.op == BLK_FLUSH ? 0 : (int64_t)r->io.len);
    blk_batch(top);
}

static int run_rw(struct work *w)
{
    struct blk_req *r = container_of(w, struct blk_req, work);

    return r->blk->drv->rw(r->blk, &r->io);
}

void blk_to_worker(struct blk_req *r)
{
    r->work = (struct work){.lane = r->top->lane, .run = run_rw, .done = work_done};
    work_submit(&r->work);
}

void blk_forward(struct blk_req *r)
{
    route(r, r->blk->file);
}

/* What a node reads as where it has nothing. */
static struct blk *below(struct blk_req *r, struct blk *b)
{
    b = b->backing;
    if (!b || r->io.off >= b->lim.size)
        return NULL;
    shorten(r, min_u64(r->io.len, b->lim.size - r->io.off));
    return b;
}

/* One step down by what the driver says: the next node, NULL for zeroes, or the same when it is to do it itself. */
static struct blk *step(struct blk_req *r, struct blk *b)
{
    struct blk_map m = {.place = BLK_BUSY, .off = r->io.off, .len = r->io.len, .in = b->file};

    if (!b->drv->map || r->io.op == BLK_DISCARD || r->io.op == BLK_ZERO)
        return b;
    b->drv->map(b, &r->io, &m);
    if (r->io.op != BLK_FLUSH)
        shorten(r, m.len);
    switch (m.place) {
    case BLK_AT:
        if (m.held) {
            assert(!r->holder);
            r->holder = b;
            r->hold = m.hold;
        }
        r->io.off = m.off;
        return m.in;
    case BLK_ZEROES:
        return NULL;
    case BLK_BACKING:
        return below(r, b);
    case BLK_BUSY:
        break;
    }
    return b;
}

static void route(struct blk_req *r, struct blk *b)
{
    for (;;) {
        struct blk *next = step(r, b);

        if (!next) {
            uint64_t n = r->io.len;

            iov_zero(r->io.iov, 0, n);
            advance(r, n);
            if (!r->left) {
                answer_later(r, 0);
                return;
            }
            whole(r);
            b = r->top;
        } else if (next == b) {
            break;
        } else {
            b = next;
        }
    }
    r->blk = b;
    if (b->drv->submit)
        b->drv->submit(b, r);
    else
        blk_to_worker(r);
}

void blk_submit(struct blk *b, struct blk_req *r)
{
    int rc = check(&b->lim, &r->io, b->lim.align);

    r->top = b;
    r->holder = NULL;
    r->again = false;
    r->off = r->io.off;
    r->left = r->io.len;
    r->niov = r->io.niov;
    r->cut = 0;
    lane_begin(b->lane);
    if (rc)
        answer_later(r, rc);
    else
        route(r, b);
}

void blk_retry(struct blk_req *r)
{
    lane_begin(r->top->lane);
    if (r->cut)
        r->io.iov[r->io.niov - 1].iov_len += r->cut;
    whole(r);
    route(r, r->top);
}

void blk_kick(struct blk *b)
{
    for (; b; b = b->file) {
        if (b->drv->kick)
            b->drv->kick(b);
        if (b->backing)
            blk_kick(b->backing);
    }
}

void blk_batch(struct blk *b)
{
    while (b->parent)
        b = b->parent;
    if (b->user && b->user->batch)
        b->user->batch(b->user);
}

void blk_complete(struct blk_req *r, int64_t ret)
{
    if (r->holder) {
        r->holder->drv->release(r->holder, r->hold);
        r->holder = NULL;
    }
    if (r->io.op == BLK_FLUSH || ret < 0) {
        finish(r, (int)ret);
        return;
    }
    assert((uint64_t)ret <= r->io.len);
    if (!ret) {
        finish(r, -EIO); /* no progress, so there will be none */
        return;
    }
    advance(r, (uint64_t)ret);
    if (!r->left) {
        finish(r, 0);
        return;
    }
    whole(r);
    route(r, r->top);
    blk_kick(r->top);
}
