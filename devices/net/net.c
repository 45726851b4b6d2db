/* Between a NIC and its backend: every frame from the guest is checked here, every frame counted. */
#include <linux/if_ether.h>

#include "devices/net/backend.h"
#include "vmm/base/cleanup.h"

struct net_core {
    uint8_t bounce[NET_FRAME_MAX]; /* a frame of the guest's that lies in too many pieces */
    struct iovec whole;
    size_t peeked; /* bytes of the frame that net_next() is about */
    struct net_counters counters[NET_QUEUES_MAX];
};

const char *const net_drop_names[NET_DROPS] = {
    [NET_DROP_MALFORMED] = "malformed", [NET_DROP_FULL] = "full",         [NET_DROP_PEER] = "refused",
    [NET_DROP_DOWN] = "link-down",      [NET_DROP_TOO_LONG] = "too-long",
};

void net_drop(struct net *n, enum net_drop why)
{
    n->drops[why]++;
}

uint64_t net_dropped(const struct net *n, enum net_drop why)
{
    return n->drops[why];
}

const struct net_counters *net_counters(const struct net *n, unsigned queue)
{
    return &n->core->counters[queue];
}

const struct net_limits *net_limits(const struct net *n)
{
    return &n->lim;
}

static void count(struct net_traffic *t, size_t len)
{
    t->frames++;
    t->bytes += len;
}

bool net_frame_ok(struct net_frame *f)
{
    const struct virtio_net_hdr_v1 h = f->hdr;
    uint8_t gso = h.gso_type & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;

    if (f->len < ETH_HLEN || f->len > NET_FRAME_MAX)
        return false;
    f->hdr = (struct virtio_net_hdr_v1){0};
    if (gso == VIRTIO_NET_HDR_GSO_NONE && !(h.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
        return true;
    if (!(h.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) ||
        !range_fits((uint64_t)le16toh(h.csum_start) + le16toh(h.csum_offset), 2, f->len))
        return false;
    f->hdr.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    f->hdr.csum_start = h.csum_start;
    f->hdr.csum_offset = h.csum_offset;
    if (gso == VIRTIO_NET_HDR_GSO_NONE)
        return true;
    f->hdr.gso_type = h.gso_type;
    f->hdr.gso_size = h.gso_size;
    f->hdr.hdr_len = htole16((uint16_t)min_u64(le16toh(h.hdr_len), f->len));
    return h.gso_size && (gso == VIRTIO_NET_HDR_GSO_TCPV4 || gso == VIRTIO_NET_HDR_GSO_TCPV6 ||
                          gso == VIRTIO_NET_HDR_GSO_UDP || gso == VIRTIO_NET_HDR_GSO_UDP_L4);
}

/* Copies a frame, so that it is one piece. */
static void gather(struct net_core *c, struct net_frame *f)
{
    iov_get(f->iov, 0, c->bounce, f->len);
    c->whole = (struct iovec){c->bounce, f->len};
    f->iov = &c->whole;
    f->niov = 1;
}

int net_send(struct net *n, unsigned queue, struct net_frame *f)
{
    size_t len = f->len;
    int rc;

    if (!net_frame_ok(f)) {
        net_drop(n, NET_DROP_MALFORMED);
        return 0;
    }
    if (f->niov > NET_IOV_MAX)
        gather(n->core, f);
    rc = n->cls->send(n, queue, f);
    if (!rc)
        count(&n->core->counters[queue].tx, len);
    return rc;
}

bool net_peek(struct net *n, unsigned queue, struct net_frame *ret)
{
    if (!n->cls->peek(n, queue, ret))
        return false;
    n->core->peeked = ret->len;
    return true;
}

void net_next(struct net *n, unsigned queue)
{
    count(&n->core->counters[queue].rx, n->core->peeked);
    n->cls->next(n, queue);
}

void net_set(struct net *n, net_offloads_t guest, unsigned queues)
{
    if (n->cls->set)
        n->cls->set(n, guest, queues);
}

int net_open(const struct net_class *cls, struct net *n, struct device *dev, struct net_user *user, struct err *err)
{
    int rc;

    n->cls = cls;
    n->dev = dev;
    n->user = user;
    n->core = xcalloc(1, sizeof(*n->core));
    rc = cls->open(n, err);
    n->lim.queues = n->lim.queues ? n->lim.queues : 1;
    assert(n->lim.queues <= NET_QUEUES_MAX);
    return rc;
}

void net_close(struct net *n)
{
    if (!n->core)
        return;
    n->cls->close(n);
    free(take_ptr(n->core));
}
