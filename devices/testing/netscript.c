#include "devices/testing/netscript.h"

#include <stdlib.h>

#include "vmm/base/cleanup.h"

struct netscript *netscript;
uint64_t netscript_rings;

static struct netscript *script_of(struct net *n)
{
    return container_of(n, struct netscript, n);
}

static struct netscript_frame make(unsigned queue, const struct virtio_net_hdr_v1 *hdr, size_t len)
{
    return (struct netscript_frame){.hdr = *hdr, .queue = queue, .data = xcalloc(1, len), .len = len};
}

void netscript_put(unsigned queue, const struct virtio_net_hdr_v1 *hdr, const void *data, size_t len)
{
    struct netscript_frame *f = &netscript->in[netscript->nin++];

    assert(netscript->nin <= NETSCRIPT_MAX);
    *f = make(queue, hdr, len);
    memcpy(f->data, data, len);
    netscript->n.user->readable(netscript->n.user, queue);
}

void netscript_clear(void)
{
    for (unsigned i = 0; i < netscript->nout && i < NETSCRIPT_MAX; i++)
        free(netscript->out[i].data);
    netscript->nout = 0;
}

void netscript_empty(void)
{
    netscript_clear();
    while (netscript->nin)
        free(netscript->in[--netscript->nin].data);
}

static struct netscript_frame *first_of(struct netscript *s, unsigned queue)
{
    for (unsigned i = 0; i < s->nin; i++)
        if (s->in[i].queue == queue)
            return &s->in[i];
    return NULL;
}

static bool script_peek(struct net *n, unsigned queue, struct net_frame *ret)
{
    struct netscript *s = script_of(n);
    struct netscript_frame *f = first_of(s, queue);

    if (!f)
        return false;
    s->iov = (struct iovec){f->data, f->len};
    *ret = (struct net_frame){.hdr = f->hdr, .iov = &s->iov, .niov = 1, .len = f->len};
    return true;
}

static void script_next(struct net *n, unsigned queue)
{
    struct netscript *s = script_of(n);
    struct netscript_frame *f = first_of(s, queue);

    free(f->data);
    memmove(f, f + 1, (size_t)(&s->in[--s->nin] - f) * sizeof(*f));
}

static int script_send(struct net *n, unsigned queue, struct net_frame *f)
{
    struct netscript *s = script_of(n);
    struct netscript_frame *to;

    assert(f->niov <= NET_IOV_MAX);
    if (!s->room)
        return -EAGAIN;
    s->room--;
    if (s->nout++ >= NETSCRIPT_MAX)
        return 0;
    to = &s->out[s->nout - 1];
    *to = make(queue, &f->hdr, f->len);
    iov_get(f->iov, 0, to->data, f->len);
    return 0;
}

static void script_set(struct net *n, net_offloads_t guest, unsigned queues)
{
    script_of(n)->guest = guest;
    script_of(n)->queues = queues;
}

static int script_ring_start(struct net *n, unsigned ring, const struct ring *r, uint64_t features)
{
    struct netscript *s = script_of(n);

    assert(ring < NETSCRIPT_RINGS && !s->rings[ring].size);
    if (s->refuses)
        return -EIO;
    s->rings[ring] = *r;
    s->ring_features = features;
    return 0;
}

static uint16_t script_ring_stop(struct net *n, unsigned ring)
{
    struct netscript *s = script_of(n);

    assert(s->rings[ring].size);
    s->rings[ring] = (struct ring){0};
    return s->next;
}

static int script_open(struct net *n, struct err *err)
{
    (void)err;
    netscript = script_of(n);
    netscript->room = UINT32_MAX;
    netscript->cls = *n->cls;
    n->cls = &netscript->cls;
    n->lim = (struct net_limits){.queues = NET_QUEUES_MAX, .mtu = 9000, .rings = netscript_rings};
    return 0;
}

static void script_close(struct net *n)
{
    netscript = script_of(n);
    netscript_empty();
}

const struct net_class net_null = {
    .name = "null",
    .summary = "under the test's control",
    .size = sizeof(struct netscript),
    .takes = ~0ull,
    .peek = script_peek,
    .next = script_next,
    .send = script_send,
    .set = script_set,
    .ring_start = script_ring_start,
    .ring_stop = script_ring_stop,
    .open = script_open,
    .close = script_close,
};
