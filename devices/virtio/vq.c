/* Virtqueues as devices see them, whatever their layout: pop, push, flush [VIRTIO-v1.2 2.6 to 2.8]. */
#include "devices/virtio/vq.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <sys/eventfd.h>

#include "vmm/base/cleanup.h"

int vq_broken(struct vq *q, const char *why)
{
    char text[128];

    snprintf(text, sizeof(text), "queue %u: %s", q->index, why);
    virtio_broken(q->v, text);
    return -EPROTO;
}

void vq_dispatch(struct vq *q)
{
    struct virtio *v = q->v;

    if (!q->layout || !v->core->running || v->core->draining || v->core->s.status & VIRTIO_CONFIG_S_NEEDS_RESET)
        return;
    if (vq_lent(q)) {
        eventfd_write(q->watch.fd, 1);
        return;
    }
    q->budget = q->s->size;
    if (v->ops->queue)
        v->ops->queue(v, q);
}

static void vq_again(struct work *w, int ret)
{
    struct vq *q = container_of(w, struct vq, again);

    (void)ret;
    vq_dispatch(q);
}

static void vq_rung(struct watch *w, uint32_t revents)
{
    struct vq *q = container_of(w, struct vq, watch);
    eventfd_t n;

    (void)revents;
    if (!eventfd_read(w->fd, &n))
        vq_dispatch(q);
}

void vq_init(struct vq *q, struct virtio *v, unsigned index)
{
    unsigned max = v->ops->queue_size;

    *q = (struct vq){.v = v, .s = &v->core->qs[index], .index = index};
    q->iov = v->core->iov + (size_t)index * max * max;
    q->free_iovs = xcalloc(max, sizeof(q->free_iovs[0]));
    q->inflight = xcalloc(max, sizeof(q->inflight[0]));
    q->again = (struct work){.lane = &v->dev.lane, .done = vq_again};
    q->watch.fd = q->call.fd = -1;
}

void vq_fini(struct vq *q)
{
    vq_stop(q);
    free(q->free_iovs);
    free(q->inflight);
}

static const struct vq_layout *layout_of(const struct virtio *v)
{
    return virtio_has(v, VIRTIO_F_RING_PACKED) ? &vq_packed : &vq_split;
}

void vq_fresh(struct vq *q)
{
    q->s->avail = q->s->used = layout_of(q->v)->start;
}

static int map_area(struct vq *q, const struct vq_area *a, uint64_t gpa, struct gspan *ret)
{
    return gmem_span(q->v->dev.env->mem, gpa, a->fixed + (uint64_t)a->entry * q->s->size, a->align, GMEM_WRITE, ret);
}

void vq_start(struct vq *q)
{
    const struct vq_layout *l = layout_of(q->v);
    struct vq_state *s = q->s;

    if (!s->size || s->size > q->v->ops->queue_size || (l->pow2 && !is_pow2(s->size))) {
        vq_broken(q, "bad size");
        return;
    }
    if (!l->position_ok(s)) {
        vq_broken(q, "bad position in the ring");
        return;
    }
    if (map_area(q, &l->desc, s->desc, &q->desc) || map_area(q, &l->driver, s->driver, &q->driver) ||
        map_area(q, &l->device, s->device, &q->device)) {
        vq_broken(q, "the ring is misaligned or not in RAM");
        return;
    }
    q->layout = l;
    q->event_idx = virtio_has(q->v, VIRTIO_RING_F_EVENT_IDX);
    q->armed = false;
    q->budget = s->size;
    q->unpublished = q->busy = 0;
    for (q->nfree = 0; q->nfree < s->size; q->nfree++) {
        q->free_iovs[q->nfree] = (uint16_t)q->nfree;
        q->inflight[q->nfree] = false;
    }
    vq_doorbell(q);
}

void vq_stop(struct vq *q)
{
    vq_recall(q);
    q->layout = NULL;
    q->life++;
    vq_doorbell(q);
}

void vq_doorbell(struct vq *q)
{
    struct device_env *env = q->v->dev.env;
    struct virtio_transport *t = q->v->transport;
    bool want = q->layout && q->v->core->notify_mapped && !q->v->ops->no_doorbells;
    cleanup_fd int fd = -1;

    if (want == (q->watch.fd >= 0))
        return;
    if (!want) {
        env->doorbell_del(env, &q->bell);
        watch_del(&q->watch);
        fd = take_fd(&q->watch.fd);
        return;
    }
    /* Without a doorbell the guest's writes arrive at the transport's region, which is slower and no less right. */
    fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        return;
    q->bell = t->notify_doorbell(t, q->index);
    q->bell.fd = fd;
    if (env->doorbell_add(env, &q->bell))
        return;
    q->watch = (struct watch){.lane = &q->v->dev.lane, .fd = take_fd(&fd), .events = EPOLLIN, .ready = vq_rung};
    watch_add(&q->watch);
}

/* 1, 0 or <0 as vq_pop(); what was taken is now in flight. */
static int take(struct vq *q, struct vq_chain *c)
{
    int rc = q->layout->take(q, c);

    if (rc <= 0)
        return rc;
    if (q->inflight[c->head])
        return vq_broken(q, "a buffer was made available twice");
    q->inflight[c->head] = true;
    q->nfree--;
    return 1;
}

static int pop(struct vq *q, struct vq_chain *ret, bool arm)
{
    int rc;

    if (!q->layout || !q->v->core->running || q->v->core->draining || vq_lent(q))
        return 0;
    if (q->v->core->s.status & VIRTIO_CONFIG_S_NEEDS_RESET)
        return -EPROTO;
    if (!q->budget) {
        /* A guest that adds chains as fast as the device takes them must not keep the lane from others. */
        work_post(&q->again);
        return 0;
    }
    rc = take(q, ret);
    if (!rc && arm && !q->armed) {
        q->layout->arm(q, true);
        q->armed = true;
        __sync_synchronize(); /* the driver adds a chain, then looks whether we want to know: one of us sees the other
                               */
        rc = take(q, ret);
    }
    if (rc > 0) {
        if (q->armed)
            q->layout->arm(q, false);
        q->armed = false;
        q->budget--;
    }
    return rc;
}

int vq_pop(struct vq *q, struct vq_chain *ret)
{
    return pop(q, ret, true);
}

int vq_try_pop(struct vq *q, struct vq_chain *ret)
{
    return pop(q, ret, false);
}

/* The chain is no longer in flight; false: it belongs to a life before a reset, so its heads mean nothing now. */
static bool give_up(struct vq *q, const struct vq_chain *c)
{
    if (!q->layout || c->life != q->life)
        return false;
    assert(q->inflight[c->head]);
    q->inflight[c->head] = false;
    q->free_iovs[q->nfree++] = c->iovs;
    return true;
}

void vq_unpop(struct vq *q, struct vq_chain *c)
{
    if (give_up(q, c))
        q->layout->untake(q, c);
}

void vq_push(struct vq *q, struct vq_chain *c)
{
    if (!give_up(q, c))
        return;
    q->layout->put(q, c);
    q->unpublished += c->ndesc;
}

void vq_flush(struct vq *q)
{
    unsigned n = q->unpublished;

    if (!q->layout || !n)
        return;
    q->unpublished = 0;
    if (q->layout->publish(q, n))
        q->v->transport->queue_interrupt(q->v->transport, q->index, q->s->vector);
}

unsigned vq_index(const struct vq *q)
{
    return q->index;
}

unsigned vq_size(const struct vq *q)
{
    return q->layout ? q->s->size : 0;
}
