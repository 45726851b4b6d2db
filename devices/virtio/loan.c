/*
 * Lending a ring to someone who serves it without us (devices/core/ring.h).  He waits for the doorbell's eventfd in our
 * place, and signals another when the driver wants an interrupt: the transport has the host's kernel turn that one into
 * messages where it can, and what the kernel leaves of it (a vector that is masked, a line) arrives here.
 */
#include <linux/virtio_config.h>
#include <sys/eventfd.h>

#include "devices/virtio/vq.h"
#include "vmm/base/cleanup.h"

static void called(struct watch *w, uint32_t revents)
{
    struct vq *q = container_of(w, struct vq, call);
    struct virtio_transport *t = q->v->transport;
    eventfd_t n;

    (void)revents;
    if (!eventfd_read(w->fd, &n))
        t->queue_interrupt(t, q->index, q->s->vector);
}

static void wire(struct vq *q, bool on)
{
    struct virtio_transport *t = q->v->transport;

    if (t->queue_wire)
        t->queue_wire(t, q->s->vector, q->call.fd, on);
}

int vq_lend(struct vq *q, struct ring *ret)
{
    const struct virtio_core *c = q->v->core;
    int fd;

    if (q->layout != &vq_split || q->watch.fd < 0 || vq_lent(q))
        return -EOPNOTSUPP;
    if (!c->running || c->draining || c->s.status & VIRTIO_CONFIG_S_NEEDS_RESET)
        return -EBUSY;
    assert(q->nfree == q->s->size && !q->unpublished);
    fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        return -errno;
    q->call = (struct watch){.lane = &q->v->dev.lane, .fd = fd, .events = EPOLLIN, .ready = called};
    watch_add(&q->call);
    wire(q, true);
    watch_set(&q->watch, 0);
    *ret = (struct ring){
        .size = q->s->size,
        .next = (uint16_t)q->s->avail,
        .desc = q->desc.p,
        .driver = q->driver.p,
        .device = q->device.p,
        .kick = q->watch.fd,
        .call = fd,
    };
    return 0;
}

void vq_take_back(struct vq *q, uint16_t next)
{
    assert(vq_lent(q));
    q->s->avail = q->s->used = next;
    q->armed = false;
    wire(q, false);
    called(&q->call, 0); /* what nobody has heard yet */
    watch_del(&q->call);
    close(q->call.fd);
    q->call.fd = -1;
    watch_set(&q->watch, EPOLLIN);
}

bool vq_lent(const struct vq *q)
{
    return q->call.fd >= 0;
}

void vq_rewire(struct vq *q, uint16_t vector)
{
    if (vq_lent(q))
        wire(q, false);
    q->s->vector = vector;
    if (vq_lent(q))
        wire(q, true);
}

void vq_recall(struct vq *q)
{
    if (vq_lent(q))
        q->v->ops->recall(q->v, q);
    assert(!vq_lent(q));
}
