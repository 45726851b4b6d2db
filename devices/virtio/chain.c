/*
 * Descriptor chains: what a guest strings together becomes checked iovecs, or the device breaks.  And copying from and
 * to them.
 */
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "devices/virtio/vq.h"

int chain_begin(struct vq *q, struct vq_chain *c)
{
    struct iovec *iov;

    if (!q->nfree)
        return vq_broken(q, "more buffers made available than the queue has");
    *c = (struct vq_chain){.ndesc = 1, .life = q->life, .iovs = q->free_iovs[q->nfree - 1]};
    iov = q->iov + (size_t)c->iovs * q->v->ops->queue_size;
    c->out.iov = c->in.iov = iov;
    return 0;
}

int chain_add(struct vq *q, struct vq_chain *c, uint64_t addr, uint32_t len, bool write)
{
    struct vq_side *side = write ? &c->in : &c->out;
    struct gspan span;

    if (!len)
        return 0;
    if (!write && c->in.n)
        return vq_broken(q, "a readable buffer follows a writable one");
    if (c->out.n + c->in.n == q->v->ops->queue_size)
        return vq_broken(q, "a chain has more buffers than the queue's maximum size");
    if (gmem_span(q->v->dev.env->mem, addr, len, 1, write ? GMEM_WRITE : GMEM_READ, &span))
        return vq_broken(q, "a buffer is not in RAM");
    if (side->left + len > UINT32_MAX)
        return vq_broken(q, "a chain is longer than 4 GiB");
    if (write && !c->in.n)
        c->in.iov = c->out.iov + c->out.n;
    side->iov[side->n++] = gspan_iov(span);
    side->left += len;
    return 0;
}

int chain_table(struct vq *q, uint64_t addr, uint32_t len, uint16_t flags, struct gspan *ret)
{
    if (!virtio_has(q->v, VIRTIO_RING_F_INDIRECT_DESC))
        return vq_broken(q, "an indirect table was not negotiated");
    if (flags & VRING_DESC_F_NEXT)
        return vq_broken(q, "a chain goes on after an indirect table");
    if (!len || len % sizeof(struct vring_desc))
        return vq_broken(q, "an indirect table has half a descriptor");
    if (len / sizeof(struct vring_desc) > q->v->ops->queue_size)
        return vq_broken(q, "an indirect table is longer than the queue's maximum size");
    if (gmem_span(q->v->dev.env->mem, addr, len, 1, GMEM_READ, ret))
        return vq_broken(q, "an indirect table is not in RAM");
    return 0;
}

/* The first bytes of a side, `*n` at most, as a span; consumed. */
static struct gspan side_next(struct vq_side *s, size_t *n)
{
    struct gspan g = {.p = s->iov->iov_base, .len = min_u64(s->iov->iov_len, *n)};

    s->iov->iov_base = (char *)s->iov->iov_base + g.len;
    s->iov->iov_len -= g.len;
    s->left -= g.len;
    *n -= g.len;
    if (!s->iov->iov_len) {
        s->iov++;
        s->n--;
    }
    return g;
}

size_t chain_read(struct vq_chain *c, void *dst, size_t n)
{
    size_t left = n = min_u64(n, c->out.left);

    while (left) {
        char *at = (char *)dst + (n - left);
        struct gspan g = side_next(&c->out, &left);

        gspan_get(g, 0, at, g.len);
    }
    return n;
}

size_t chain_write(struct vq_chain *c, const void *src, size_t n)
{
    size_t left = n = min_u64(n, c->in.left);

    while (left) {
        const char *at = (const char *)src + (n - left);
        struct gspan g = side_next(&c->in, &left);

        gspan_put(g, 0, at, g.len);
    }
    chain_wrote(c, n);
    return n;
}

void chain_wrote(struct vq_chain *c, uint64_t n)
{
    assert(n <= UINT32_MAX - c->written); /* a chain is not longer */
    c->written += (uint32_t)n;
}

bool chain_take_last(struct vq_side *s, struct gspan *ret)
{
    struct iovec *last;

    if (!s->left)
        return false;
    last = &s->iov[s->n - 1];
    last->iov_len--;
    s->left--;
    *ret = (struct gspan){.p = (struct gbyte *)((char *)last->iov_base + last->iov_len), .len = 1};
    if (!last->iov_len)
        s->n--;
    return true;
}
