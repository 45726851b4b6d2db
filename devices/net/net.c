/* Between a NIC and its backend: every frame from the guest is checked here, every frame counted. */
#include <linux/if_ether.h>

#include "devices/net/backend.h"
#include "devices/net/offload.h"
#include "devices/net/pcap.h"
#include "vmm/base/cleanup.h"

/* A large frame on its way in segments. */
struct progress {
    unsigned done;
    uint32_t id; /* of the frame, for IPv6's fragments */
};

struct net_core {
    net_offloads_t guest;        /* what it takes */
    uint8_t bounce[SEGMENT_MAX]; /* a frame that had to be copied, or a segment of one */
    struct iovec whole;          /* all of it */
    struct net_frame peeked;     /* what net_next() and net_refuse() are about */
    bool more;                   /* there are more segments behind it */
    struct pcap *pcap;           /* or NULL; holds the guest's frame … */
    bool sending;                /* … that a backend is about to take, or has taken and now answers */
    struct progress rx[NET_QUEUES_MAX], tx[NET_QUEUES_MAX];
    struct net_counters counters[NET_QUEUES_MAX];
};

const char *const net_drop_names[NET_DROPS] = {
    [NET_DROP_MALFORMED] = "malformed", [NET_DROP_FULL] = "full",         [NET_DROP_PEER] = "refused",
    [NET_DROP_DOWN] = "link-down",      [NET_DROP_TOO_LONG] = "too-long", [NET_DROP_FILTERED] = "filtered",
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
    bool large = h.gso_type & ~VIRTIO_NET_HDR_GSO_ECN;
    struct packet p;

    if (f->len < ETH_HLEN || f->len > NET_FRAME_MAX)
        return false;
    f->hdr = (struct virtio_net_hdr_v1){0};
    if (!large && !(h.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
        return true;
    if (!(h.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) ||
        !range_fits((uint64_t)le16toh(h.csum_start) + le16toh(h.csum_offset), 2, f->len))
        return false;
    f->hdr.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    f->hdr.csum_start = h.csum_start;
    f->hdr.csum_offset = h.csum_offset;
    if (!large)
        return true;
    f->hdr.gso_type = h.gso_type;
    f->hdr.gso_size = h.gso_size;
    if (!packet_parse(f, &p))
        return false;
    f->hdr.hdr_len = htole16((uint16_t)p.payload);
    return true;
}

/* Copies a frame, so that it is one piece. */
static void gather(struct net_core *c, struct net_frame *f)
{
    iov_get(f->iov, 0, c->bounce, f->len);
    c->whole = (struct iovec){c->bounce, f->len};
    f->iov = &c->whole;
    f->niov = 1;
}

/* A frame that lies in the bounce buffer, and asks for nothing. */
static struct net_frame bounced(struct net_core *c, size_t len)
{
    c->whole = (struct iovec){c->bounce, len};
    return (struct net_frame){.iov = &c->whole, .niov = 1, .len = len};
}

/* What it takes to take a large frame as it is; guests and hosts have bits of their own. */
static const struct {
    uint8_t gso;
    net_offloads_t host, guest;
} large_kinds[] = {
    {VIRTIO_NET_HDR_GSO_TCPV4, 1ull << VIRTIO_NET_F_HOST_TSO4, 1ull << VIRTIO_NET_F_GUEST_TSO4},
    {VIRTIO_NET_HDR_GSO_TCPV6, 1ull << VIRTIO_NET_F_HOST_TSO6, 1ull << VIRTIO_NET_F_GUEST_TSO6},
    {VIRTIO_NET_HDR_GSO_UDP, 1ull << VIRTIO_NET_F_HOST_UFO, 1ull << VIRTIO_NET_F_GUEST_UFO},
    {VIRTIO_NET_HDR_GSO_UDP_L4, 1ull << VIRTIO_NET_F_HOST_USO,
     1ull << VIRTIO_NET_F_GUEST_USO4 | 1ull << VIRTIO_NET_F_GUEST_USO6},
};

static net_offloads_t needs(const struct net_frame *f, bool guest)
{
    uint8_t gso = f->hdr.gso_type & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;
    net_offloads_t ret = 0;

    if (f->hdr.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
        ret |= 1ull << (guest ? VIRTIO_NET_F_GUEST_CSUM : VIRTIO_NET_F_CSUM);
    if (f->hdr.gso_type & VIRTIO_NET_HDR_GSO_ECN)
        ret |= 1ull << (guest ? VIRTIO_NET_F_GUEST_ECN : VIRTIO_NET_F_HOST_ECN);
    for (size_t i = 0; gso && i < array_len(large_kinds); i++)
        if (large_kinds[i].gso == gso)
            ret |= guest ? large_kinds[i].guest : large_kinds[i].host;
    return ret;
}

/* From the segment on that there was no room for the last time. */
static int send_segments(struct net *n, unsigned queue, const struct net_frame *f)
{
    struct progress *tx = &n->core->tx[queue];
    struct packet p;

    if (!packet_parse(f, &p)) {
        net_drop(n, NET_DROP_MALFORMED); /* it was not a moment ago; a guest may do that to itself */
        return 0;
    }
    tx->id += !tx->done;
    for (; tx->done < p.segments; tx->done++) {
        struct net_frame segment = bounced(n->core, packet_segment(&p, f, tx->done, tx->id, n->core->bounce));
        int rc = n->cls->send(n, queue, &segment);

        if (rc)
            return rc;
    }
    tx->done = 0;
    return 0;
}

/* A backend may answer a frame while it takes it: what is answered comes first. */
static void capture_sent(struct net_core *c)
{
    if (c->sending)
        pcap_write(c->pcap);
    c->sending = false;
}

int net_send(struct net *n, unsigned queue, struct net_frame *f)
{
    size_t len = f->len;
    net_offloads_t missing;
    int rc;

    if (!net_frame_ok(f)) {
        net_drop(n, NET_DROP_MALFORMED);
        return 0;
    }
    if (n->core->pcap)
        pcap_hold(n->core->pcap, f);
    n->core->sending = n->core->pcap;
    missing = needs(f, false) & ~n->cls->takes;
    if (missing && f->hdr.gso_type) {
        rc = send_segments(n, queue, f);
    } else {
        if (missing || f->niov > NET_IOV_MAX)
            gather(n->core, f);
        if (missing)
            checksum_complete(f, n->core->bounce);
        rc = n->cls->send(n, queue, f);
    }
    if (!rc) {
        count(&n->core->counters[queue].tx, len);
        capture_sent(n->core);
    }
    n->core->sending = false;
    return rc;
}

void net_give_up(struct net *n, unsigned queue)
{
    n->core->tx[queue].done = 0;
}

/* Makes the backend's frame one that the guest takes; false: nothing can be made of it. */
static bool fit(struct net_core *c, struct progress *rx, struct net_frame *f)
{
    net_offloads_t missing = needs(f, true) & ~c->guest;
    struct packet p;

    c->more = false;
    if (!(c->guest & 1ull << VIRTIO_NET_F_GUEST_CSUM))
        f->hdr.flags &= (uint8_t)~VIRTIO_NET_HDR_F_DATA_VALID;
    if (missing && f->hdr.gso_type) {
        if (!packet_parse(f, &p) || rx->done >= p.segments)
            return false;
        rx->id += !rx->done;
        c->more = rx->done + 1 < p.segments;
        *f = bounced(c, packet_segment(&p, f, rx->done, rx->id, c->bounce));
    } else if (missing) {
        gather(c, f);
        checksum_complete(f, c->bounce);
    }
    return true;
}

bool net_peek(struct net *n, unsigned queue, struct net_frame *ret)
{
    struct net_core *c = n->core;

    while (n->cls->peek(n, queue, ret)) {
        if (fit(c, &c->rx[queue], ret)) {
            c->peeked = *ret;
            return true;
        }
        net_drop(n, NET_DROP_MALFORMED);
        c->rx[queue].done = 0;
        n->cls->next(n, queue);
    }
    return false;
}

/* Done with the frame that net_peek() just gave. */
static void next(struct net *n, unsigned queue)
{
    struct net_core *c = n->core;

    if (c->pcap) {
        capture_sent(c);
        pcap_hold(c->pcap, &c->peeked);
        pcap_write(c->pcap);
    }
    if (c->more) {
        c->rx[queue].done++;
        return;
    }
    c->rx[queue].done = 0;
    n->cls->next(n, queue);
}

void net_next(struct net *n, unsigned queue)
{
    count(&n->core->counters[queue].rx, n->core->peeked.len);
    next(n, queue);
}

void net_refuse(struct net *n, unsigned queue, enum net_drop why)
{
    net_drop(n, why);
    next(n, queue);
}

void net_set(struct net *n, net_offloads_t guest, unsigned queues)
{
    n->core->guest = guest;
    for (unsigned i = 0; i < NET_QUEUES_MAX; i++)
        n->core->rx[i].done = n->core->tx[i].done = 0;
    if (n->cls->set)
        n->cls->set(n, guest, queues);
}

int net_ring_start(struct net *n, unsigned ring, const struct ring *r, uint64_t features)
{
    return n->cls->ring_start(n, ring, r, features);
}

uint16_t net_ring_stop(struct net *n, unsigned ring)
{
    return n->cls->ring_stop(n, ring);
}

bool net_lease(const struct net_class *cls, struct net *n, struct net_lease *ret)
{
    return cls->lease && cls->lease(n, ret);
}

json_t *net_info(struct net *n)
{
    return n->cls->info ? n->cls->info(n) : json_object();
}

int net_open(const struct net_class *cls, struct net *n, struct device *dev, struct net_user *user,
             const struct net_limits *card, struct err *err)
{
    int rc;

    n->cls = cls;
    n->dev = dev;
    n->user = user;
    n->queues = card->queues ? card->queues : 1;
    n->mtu = card->mtu;
    n->lends = card->rings;
    n->core = xcalloc(1, sizeof(*n->core));
    rc = cls->open(n, err);
    n->lim.queues = n->lim.queues ? n->lim.queues : 1;
    assert(n->lim.queues <= NET_QUEUES_MAX);
    return rc;
}

int net_capture(struct net *n, const char *path, uint32_t snap, uint64_t limit, struct err *err)
{
    return pcap_create(path, snap, limit, &n->core->pcap, err);
}

uint64_t net_missed(const struct net *n)
{
    return n->core->pcap ? pcap_missed(n->core->pcap) : 0;
}

void net_close(struct net *n)
{
    if (!n->core)
        return;
    n->cls->close(n);
    pcap_destroy(n->core->pcap);
    free(take_ptr(n->core));
}
