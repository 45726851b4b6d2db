/*
 * Network card [VIRTIO-v1.2 5.1] in front of a backend of devices/net: up to 64 pairs of queues, buffers that are
 * merged for large frames, checksums and segmentation left to whoever is better at it, and filters on what the guest
 * receives.
 *
 * The card pulls: a frame stays with the backend until the guest has room for it, and one that the backend has no room
 * for stays in the guest's queue.  A backend that serves rings itself (vhost) is lent them while the link is up.  No
 * RSS and no hashes.
 */
#include <linux/if_ether.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <sys/random.h>

#include "devices/net/net.h"
#include "devices/virtio/virtio.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"

enum {
    QUEUE_SIZE = 256,
    MACS_MAX = 64,        /* of a filter table; a driver that has more gets all */
    MACS_SENT_MAX = 1024, /* what a driver may send us of them */
    VLANS = 4096,
    MTU_MIN = 68, /* [RFC 791 3.2], and what Linux wants */
    MTU_MAX = 65535,
    REFUSED_BATCH = 256, /* frames that nobody wanted, before others have their turn */
    HEADER = sizeof(struct virtio_net_hdr_v1),
};

#define BIT(feature) (1ull << (feature))
static const net_offloads_t guest_offloads = BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4) |
                                             BIT(VIRTIO_NET_F_GUEST_TSO6) | BIT(VIRTIO_NET_F_GUEST_ECN) |
                                             BIT(VIRTIO_NET_F_GUEST_UFO) | BIT(VIRTIO_NET_F_GUEST_USO4) |
                                             BIT(VIRTIO_NET_F_GUEST_USO6);

struct mac_table {
    uint8_t n;
    bool overflow; /* there were more */
    uint8_t macs[MACS_MAX][ETH_ALEN];
};

struct vnet_state {
    uint64_t refused; /* offloads that the driver negotiated and switched off */
    uint16_t pairs;   /* that the driver uses */
    uint8_t mac[ETH_ALEN];
    struct mac_table unicast, multicast;
    uint8_t vlans[VLANS / 8]; /* that pass, a bit each */
    uint16_t rx_mode;         /* 1 << VIRTIO_NET_CTRL_RX_* */
    bool announce;            /* the driver is to tell the network where it is */
    bool link;                /* as the driver knows it */
};

struct vnet {
    struct virtio v;
    struct opt_chosen backend;
    char *mac_text, *pcap;
    uint32_t mtu, queues, pcap_snap;
    uint64_t pcap_limit;
    struct net *net; /* borrowed from `backend` */
    struct net_user user;
    uint8_t mac[ETH_ALEN];
    bool unplugged, far_end_down; /* says the user; says the backend */
    bool lends;                   /* the backend serves rings itself */
    struct work again;            /* there may be more to receive */
    struct vq_chain chains[QUEUE_SIZE];
    struct vnet_state s;
};

static const struct opt vnet_opts[] = {
    O_CHOICE(struct vnet, backend, "backend", NULL, net_choice, "the network, with options of its own"),
    O_STR(struct vnet, mac_text, "mac", NULL, "the card's address, as in 52:54:00:12:34:56; by default one of its own",
          .arg = "MAC"),
    O_U32(struct vnet, mtu, "mtu", "0", 0, MTU_MAX,
          "what the guest is told of the largest packet; 0: the network knows"),
    O_U32(struct vnet, queues, "queues", "1", 1, NET_QUEUES_MAX, "pairs of queues; best one for each vCPU"),
    O_STR(struct vnet, pcap, "pcap", NULL, "captures all frames, for tcpdump and Wireshark; a FIFO can be read live",
          .arg = "FILE"),
    O_U32(struct vnet, pcap_snap, "pcap-snap", "0", 0, NET_FRAME_MAX, "bytes that are captured of a frame; 0: all"),
    O_SIZE(struct vnet, pcap_limit, "pcap-limit", "0", 0, 0, "the capture's size at most; 0: no limit"),
    O_END,
};

static struct vnet *vnet_of(struct virtio *v)
{
    return container_of(v, struct vnet, v);
}

static struct virtio_net_config *config_of(struct vnet *n)
{
    return (struct virtio_net_config *)n->v.config;
}

static bool link_up(const struct vnet *n)
{
    return !n->unplugged && !n->far_end_down;
}

/* ---- Filters: what of the network's the guest wants [5.1.6.5.1, 5.1.6.5.4]. ---- */

static bool in_table(const struct mac_table *t, const uint8_t *mac)
{
    for (unsigned i = 0; i < t->n; i++)
        if (!memcmp(t->macs[i], mac, ETH_ALEN))
            return true;
    return t->overflow;
}

static bool wants_address(const struct vnet *n, const uint8_t *mac)
{
    static const uint8_t broadcast[ETH_ALEN] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    uint16_t mode = n->s.rx_mode;

    if (!virtio_has(&n->v, VIRTIO_NET_F_CTRL_RX) || mode & 1 << VIRTIO_NET_CTRL_RX_PROMISC)
        return true;
    if (!memcmp(mac, broadcast, ETH_ALEN))
        return !(mode & 1 << VIRTIO_NET_CTRL_RX_NOBCAST);
    if (mac[0] & 1)
        return !(mode & 1 << VIRTIO_NET_CTRL_RX_NOMULTI) &&
               (mode & 1 << VIRTIO_NET_CTRL_RX_ALLMULTI || in_table(&n->s.multicast, mac));
    return !(mode & 1 << VIRTIO_NET_CTRL_RX_NOUNI) &&
           (mode & 1 << VIRTIO_NET_CTRL_RX_ALLUNI || !memcmp(mac, n->s.mac, ETH_ALEN) || in_table(&n->s.unicast, mac));
}

static bool wants(const struct vnet *n, const struct net_frame *f)
{
    uint8_t head[ETH_HLEN + 2];

    if (f->len < sizeof(head))
        return false;
    iov_get(f->iov, 0, head, sizeof(head));
    if (virtio_has(&n->v, VIRTIO_NET_F_CTRL_VLAN) && get_be16(head + 2 * ETH_ALEN) == ETH_P_8021Q) {
        unsigned vlan = get_be16(head + ETH_HLEN) % VLANS;

        if (!(n->s.vlans[vlan / 8] >> vlan % 8 & 1))
            return false;
    }
    return wants_address(n, head);
}

/* ---- Frames. ---- */

/* What whoever moves the frames must know of. */
static const uint64_t ring_features =
    BIT(VIRTIO_F_RING_PACKED) | BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_RING_F_EVENT_IDX) |
    BIT(VIRTIO_NET_F_MRG_RXBUF) | BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_HOST_TSO4) | BIT(VIRTIO_NET_F_HOST_TSO6) |
    BIT(VIRTIO_NET_F_HOST_ECN) | BIT(VIRTIO_NET_F_HOST_UFO) | BIT(VIRTIO_NET_F_HOST_USO);

static unsigned pairs_in_use(const struct vnet *n)
{
    return virtio_has(&n->v, VIRTIO_NET_F_MQ) ? n->s.pairs : 1;
}

static struct vq *rx_queue(struct vnet *n, unsigned pair)
{
    return virtio_queue(&n->v, 2 * pair);
}

/*
 * Takes chains until `need` bytes fit, into n->chains; how many, 0 when the guest has not made enough available, -1
 * when it never can.
 */
static int take_room(struct vnet *n, struct vq *q, uint64_t need)
{
    bool merge = virtio_has(&n->v, VIRTIO_NET_F_MRG_RXBUF);
    uint64_t room = 0;
    unsigned count = 0, slots = 0;
    int rc = 0;

    while (room < need && (merge || !count) && slots < vq_size(q) && vq_pop(q, &n->chains[count]) > 0) {
        room += n->chains[count].in.left;
        slots += n->chains[count++].ndesc;
    }
    if (room >= need)
        return (int)count;
    if (count && (!merge || slots >= vq_size(q)))
        rc = -1;
    while (count)
        vq_unpop(q, &n->chains[--count]);
    return rc;
}

static void fill_chains(struct vnet *n, struct net_frame *f, unsigned count)
{
    struct vq_chain *c = n->chains;

    f->hdr.num_buffers = htole16((uint16_t)count);
    for (const struct iovec *iov = &(struct iovec){&f->hdr, HEADER}; iov; iov = f->niov-- ? f->iov++ : NULL)
        for (size_t done = 0; done < iov->iov_len;) {
            size_t part = chain_write(c, (const char *)iov->iov_base + done, iov->iov_len - done);

            done += part;
            c += done < iov->iov_len;
        }
}

/* 1: the guest has it; 0: it has no room yet; -1: it never has. */
static int receive(struct vnet *n, struct vq *q, struct net_frame *f)
{
    int count = take_room(n, q, HEADER + f->len);

    if (count <= 0)
        return count;
    if (n->chains[0].in.left < HEADER) {
        virtio_broken(&n->v, "a buffer is too small for a frame's header");
        return 0;
    }
    fill_chains(n, f, (unsigned)count);
    for (int i = 0; i < count; i++)
        vq_push(q, &n->chains[i]);
    return 1;
}

static void to_guest(struct vnet *n, unsigned pair)
{
    struct vq *q = rx_queue(n, pair);
    unsigned refused = 0;
    struct net_frame f;

    if (vq_lent(q))
        return;
    while (refused < REFUSED_BATCH && net_peek(n->net, pair, &f)) {
        int rc;

        if (!link_up(n) || !wants(n, &f)) {
            net_refuse(n->net, pair, link_up(n) ? NET_DROP_FILTERED : NET_DROP_DOWN);
            refused++;
            continue;
        }
        rc = receive(n, q, &f);
        if (!rc)
            break;
        if (rc > 0)
            net_next(n->net, pair);
        else
            net_refuse(n->net, pair, NET_DROP_TOO_LONG);
    }
    if (refused == REFUSED_BATCH)
        work_post(&n->again);
    vq_flush(q);
}

static void from_guest(struct vnet *n, struct vq *q, unsigned pair)
{
    struct vq_chain c;

    while (vq_pop(q, &c) > 0) {
        struct net_frame f = {.hdr = {0}};

        if (chain_read(&c, &f.hdr, HEADER) < HEADER) {
            net_drop(n->net, NET_DROP_MALFORMED);
        } else if (!link_up(n)) {
            net_give_up(n->net, pair);
            net_drop(n->net, NET_DROP_DOWN);
        } else {
            f.iov = c.out.iov;
            f.niov = c.out.n;
            f.len = c.out.left;
            if (net_send(n->net, pair, &f)) {
                vq_unpop(q, &c);
                break;
            }
        }
        vq_push(q, &c);
    }
    vq_flush(q);
}

/* Gives a queue to a backend that serves rings itself, if there is one and it takes it. */
static bool lend(struct vnet *n, struct vq *q)
{
    unsigned ring = vq_index(q);
    struct ring r;
    int rc;

    if (!n->lends || !link_up(n) || ring / 2 >= pairs_in_use(n) || vq_lend(q, &r))
        return false;
    rc = net_ring_start(n->net, ring, &r, n->v.features);
    if (!rc)
        return true;
    vq_take_back(q, r.next);
    n->lends = false;
    log_msg(LOG_WARN, "%s: the network cannot serve the guest's rings itself (%s); they are served here", n->v.dev.id,
            strerror(-rc));
    return false;
}

static void vnet_recall(struct virtio *v, struct vq *q)
{
    vq_take_back(q, net_ring_stop(vnet_of(v)->net, vq_index(q)));
}

/* A queue may have chains. */
static void serve(struct vnet *n, struct vq *q)
{
    unsigned pair = vq_index(q) / 2;

    if (lend(n, q))
        return;
    if (vq_index(q) % 2)
        from_guest(n, q, pair);
    else if (pair < pairs_in_use(n))
        to_guest(n, pair);
}

/* Those that should not be lent any more are taken back. */
static void recall_from(struct vnet *n, unsigned pair)
{
    for (unsigned i = 2 * pair; i < 2 * n->queues; i++)
        if (vq_lent(virtio_queue(&n->v, i)))
            vnet_recall(&n->v, virtio_queue(&n->v, i));
}

static void receive_all(struct vnet *n)
{
    for (unsigned i = 0; i < pairs_in_use(n); i++)
        serve(n, rx_queue(n, i));
}

static void vnet_again(struct work *w, int ret)
{
    (void)ret;
    receive_all(container_of(w, struct vnet, again));
}

static void vnet_readable(struct net_user *u, unsigned queue)
{
    struct vnet *n = container_of(u, struct vnet, user);

    if (queue < pairs_in_use(n))
        to_guest(n, queue);
}

static void vnet_writable(struct net_user *u, unsigned queue)
{
    struct vnet *n = container_of(u, struct vnet, user);

    from_guest(n, virtio_queue(&n->v, 2 * queue + 1), queue);
}

/* ---- Commands [5.1.6.5]: each takes its data off the chain; false: refused. ---- */

/* What the driver takes and in how many pairs, for the backend. */
static void tell_backend(struct vnet *n)
{
    net_set(n->net, n->v.features & guest_offloads & ~n->s.refused, pairs_in_use(n));
}

static bool read_le16(struct vq_chain *c, uint16_t *ret)
{
    uint8_t b[2];

    if (chain_read(c, b, sizeof(b)) < sizeof(b))
        return false;
    *ret = get_le16(b);
    return true;
}

static bool set_rx_mode(struct vnet *n, uint8_t cmd, struct vq_chain *c)
{
    uint8_t on;

    if (chain_read(c, &on, 1) < 1)
        return false;
    n->s.rx_mode = (uint16_t)((n->s.rx_mode & ~(1 << cmd)) | !!on << cmd);
    return true;
}

static bool read_table(struct vq_chain *c, struct mac_table *ret)
{
    uint8_t count[4], mac[ETH_ALEN];
    uint32_t n;

    *ret = (struct mac_table){0};
    if (chain_read(c, count, sizeof(count)) < sizeof(count) || (n = get_le32(count)) > MACS_SENT_MAX)
        return false;
    ret->overflow = n > MACS_MAX;
    for (uint32_t i = 0; i < n; i++) {
        if (chain_read(c, mac, ETH_ALEN) < ETH_ALEN)
            return false;
        if (i < MACS_MAX)
            memcpy(ret->macs[ret->n++], mac, ETH_ALEN);
    }
    return true;
}

static bool set_macs(struct vnet *n, uint8_t cmd, struct vq_chain *c)
{
    struct mac_table unicast, multicast;

    (void)cmd;
    if (!read_table(c, &unicast) || !read_table(c, &multicast))
        return false;
    n->s.unicast = unicast;
    n->s.multicast = multicast;
    return true;
}

static bool set_mac(struct vnet *n, uint8_t cmd, struct vq_chain *c)
{
    uint8_t mac[ETH_ALEN];

    (void)cmd;
    if (chain_read(c, mac, ETH_ALEN) < ETH_ALEN)
        return false;
    memcpy(n->s.mac, mac, ETH_ALEN);
    memcpy(config_of(n)->mac, mac, ETH_ALEN);
    return true;
}

static bool set_vlan(struct vnet *n, uint8_t cmd, struct vq_chain *c)
{
    uint16_t vlan;
    uint8_t bit;

    if (!read_le16(c, &vlan) || vlan >= VLANS)
        return false;
    bit = (uint8_t)(1 << vlan % 8);
    if (cmd == VIRTIO_NET_CTRL_VLAN_ADD)
        n->s.vlans[vlan / 8] |= bit;
    else
        n->s.vlans[vlan / 8] &= (uint8_t)~bit;
    return true;
}

static void show_status(struct vnet *n)
{
    n->s.link = link_up(n);
    config_of(n)->status =
        htole16((n->s.link ? VIRTIO_NET_S_LINK_UP : 0) | (n->s.announce ? VIRTIO_NET_S_ANNOUNCE : 0));
}

static bool announced(struct vnet *n, uint8_t cmd, struct vq_chain *c)
{
    (void)cmd;
    (void)c;
    n->s.announce = false;
    show_status(n);
    return true;
}

static bool set_pairs(struct vnet *n, uint8_t cmd, struct vq_chain *c)
{
    uint16_t pairs;

    (void)cmd;
    if (!read_le16(c, &pairs) || !pairs || pairs > n->queues)
        return false;
    n->s.pairs = pairs;
    recall_from(n, pairs);
    tell_backend(n);
    receive_all(n);
    return true;
}

static bool set_offloads(struct vnet *n, uint8_t cmd, struct vq_chain *c)
{
    uint64_t negotiated = n->v.features & guest_offloads;
    uint8_t b[8];

    (void)cmd;
    if (chain_read(c, b, sizeof(b)) < sizeof(b) || get_le64(b) & ~negotiated)
        return false;
    n->s.refused = negotiated & ~get_le64(b);
    tell_backend(n);
    return true;
}

static const struct command {
    uint8_t class, cmd, feature;
    bool (*run)(struct vnet *n, uint8_t cmd, struct vq_chain *c);
} commands[] = {
    {VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, VIRTIO_NET_F_CTRL_RX, set_rx_mode},
    {VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLMULTI, VIRTIO_NET_F_CTRL_RX, set_rx_mode},
    {VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLUNI, VIRTIO_NET_F_CTRL_RX_EXTRA, set_rx_mode},
    {VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_NOMULTI, VIRTIO_NET_F_CTRL_RX_EXTRA, set_rx_mode},
    {VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_NOUNI, VIRTIO_NET_F_CTRL_RX_EXTRA, set_rx_mode},
    {VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_NOBCAST, VIRTIO_NET_F_CTRL_RX_EXTRA, set_rx_mode},
    {VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, VIRTIO_NET_F_CTRL_RX, set_macs},
    {VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, VIRTIO_NET_F_CTRL_MAC_ADDR, set_mac},
    {VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, VIRTIO_NET_F_CTRL_VLAN, set_vlan},
    {VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_DEL, VIRTIO_NET_F_CTRL_VLAN, set_vlan},
    {VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, VIRTIO_NET_F_GUEST_ANNOUNCE, announced},
    {VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_F_MQ, set_pairs},
    {VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
     set_offloads},
};

static bool run_command(struct vnet *n, struct vq_chain *c)
{
    struct virtio_net_ctrl_hdr h;

    if (chain_read(c, &h, sizeof(h)) < sizeof(h))
        return false;
    for (const struct command *k = commands; k < commands + array_len(commands); k++)
        if (k->class == h.class && k->cmd == h.cmd)
            return virtio_has(&n->v, k->feature) && k->run(n, h.cmd, c);
    return false;
}

static void control(struct vnet *n, struct vq *q)
{
    struct vq_chain c;

    while (vq_pop(q, &c) > 0) {
        virtio_net_ctrl_ack ack = run_command(n, &c) ? VIRTIO_NET_OK : VIRTIO_NET_ERR;

        chain_write(&c, &ack, 1);
        vq_push(q, &c);
    }
    vq_flush(q);
}

/* ---- Life. ---- */

/* The control queue follows the pairs that the driver knows of. */
static void vnet_queue(struct virtio *v, struct vq *q)
{
    struct vnet *n = vnet_of(v);
    unsigned i = vq_index(q), data = virtio_has(v, VIRTIO_NET_F_MQ) ? 2 * n->queues : 2;

    if (i == data && virtio_has(v, VIRTIO_NET_F_CTRL_VQ))
        control(n, q);
    else if (i < data)
        serve(n, q);
}

static void vnet_queue_reset(struct virtio *v, struct vq *q)
{
    if (vq_index(q) % 2)
        net_give_up(vnet_of(v)->net, vq_index(q) / 2);
}

static void vnet_reset(struct virtio *v)
{
    struct vnet *n = vnet_of(v);

    n->s = (struct vnet_state){.pairs = 1, .rx_mode = 1 << VIRTIO_NET_CTRL_RX_PROMISC};
    memcpy(n->s.mac, n->mac, ETH_ALEN);
    *config_of(n) = (struct virtio_net_config){
        .max_virtqueue_pairs = htole16((uint16_t)n->queues),
        .mtu = htole16((uint16_t)n->mtu),
    };
    memcpy(config_of(n)->mac, n->mac, ETH_ALEN);
    show_status(n);
    tell_backend(n);
}

static void vnet_activate(struct virtio *v)
{
    tell_backend(vnet_of(v));
}

static const struct virtio_ops vnet_ops = {
    .id = VIRTIO_ID_NET,
    .queue_size = QUEUE_SIZE,
    .features = BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_MAC) | BIT(VIRTIO_NET_F_HOST_TSO4) |
                BIT(VIRTIO_NET_F_HOST_TSO6) | BIT(VIRTIO_NET_F_HOST_ECN) | BIT(VIRTIO_NET_F_HOST_UFO) |
                BIT(VIRTIO_NET_F_HOST_USO) | BIT(VIRTIO_NET_F_MRG_RXBUF) | BIT(VIRTIO_NET_F_STATUS) |
                BIT(VIRTIO_NET_F_CTRL_VQ) | BIT(VIRTIO_NET_F_CTRL_RX) | BIT(VIRTIO_NET_F_CTRL_RX_EXTRA) |
                BIT(VIRTIO_NET_F_CTRL_MAC_ADDR) | BIT(VIRTIO_NET_F_CTRL_VLAN) | BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) |
                BIT(VIRTIO_NET_F_GUEST_ANNOUNCE),
    .config_size = sizeof(struct virtio_net_config),
    .reset = vnet_reset,
    .activate = vnet_activate,
    .queue = vnet_queue,
    .queue_reset = vnet_queue_reset,
    .recall = vnet_recall,
};

/* In the lane: the link may have changed. */
static void link_changed(struct vnet *n)
{
    if (n->s.link == link_up(n))
        return;
    show_status(n);
    virtio_config_changed(&n->v);
    if (!link_up(n))
        recall_from(n, 0);
    for (unsigned i = 0; i < 2 * pairs_in_use(n); i++)
        serve(n, virtio_queue(&n->v, i));
}

static void vnet_broken(struct net_user *u, const char *why)
{
    virtio_broken(&container_of(u, struct vnet, user)->v, why);
}

static void vnet_link(struct net_user *u, bool up)
{
    struct vnet *n = container_of(u, struct vnet, user);

    n->far_end_down = !up;
    if (n->v.config)
        link_changed(n);
}

static int parse_mac(const char *text, uint8_t ret[ETH_ALEN], struct err *err)
{
    int len = 0;

    if (sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &ret[0], &ret[1], &ret[2], &ret[3], &ret[4], &ret[5],
               &len) < ETH_ALEN ||
        text[len] || strspn(text, "0123456789abcdefABCDEF:") != 17)
        return err_set(err, EINVAL, "mac=%s is no MAC address; write one as in 52:54:00:12:34:56", text);
    if (ret[0] & 1)
        return err_set(err, EINVAL, "mac=%s is the address of a group; make its first byte even", text);
    return 0;
}

static int choose_mac(struct vnet *n, struct err *err)
{
    if (n->mac_text)
        return parse_mac(n->mac_text, n->mac, err);
    if (getrandom(n->mac, ETH_ALEN, 0) != ETH_ALEN)
        return err_set(err, errno, "getrandom: %s", strerror(errno));
    n->mac[0] = (uint8_t)((n->mac[0] & ~1) | 2); /* one station's, locally administered */
    return 0;
}

static int check_state(void *obj, struct err *err)
{
    struct vnet *n = container_of((struct vnet_state *)obj, struct vnet, s);

    if (!n->s.pairs || n->s.pairs > n->queues)
        return err_set(err, EBADMSG, "%u pairs of queues in use, of %u", n->s.pairs, n->queues);
    if (n->s.unicast.n > MACS_MAX || n->s.multicast.n > MACS_MAX)
        return err_set(err, EBADMSG, "more addresses than fit in a filter");
    return 0;
}

static const struct field mac_table_fields[] = {
    F_U8(struct mac_table, n),
    F_BOOL(struct mac_table, overflow),
    F_BYTES(struct mac_table, macs),
    F_END,
};
static const struct state_desc mac_table_desc = {
    .name = "mac-table", .version = 1, .size = sizeof(struct mac_table), .fields = mac_table_fields};
static const struct field vnet_fields[] = {
    F_U64(struct vnet_state, refused),
    F_U16(struct vnet_state, pairs),
    F_BYTES(struct vnet_state, mac),
    F_STRUCT(struct vnet_state, unicast, &mac_table_desc),
    F_STRUCT(struct vnet_state, multicast, &mac_table_desc),
    F_BYTES(struct vnet_state, vlans),
    F_U16(struct vnet_state, rx_mode),
    F_BOOL(struct vnet_state, announce),
    F_BOOL(struct vnet_state, link),
    F_END,
};
static const struct state_desc vnet_desc = {
    .name = "virtio-net", .version = 1, .size = sizeof(struct vnet_state), .fields = vnet_fields, .check = check_state};

static int open_backend(struct vnet *n, struct err *err)
{
    const struct net_class *cls = net_class_find(n->backend.is.name);
    struct net_limits card;
    int rc;

    n->user = (struct net_user){vnet_readable, vnet_writable, vnet_link, vnet_broken};
    n->net = n->backend.obj;
    if (n->mtu && n->mtu < MTU_MIN)
        return err_set(err, EINVAL, "mtu=%u is too small; it is %d to %d", n->mtu, MTU_MIN, MTU_MAX);
    card = (struct net_limits){n->queues, (uint16_t)n->mtu, n->pcap ? 0 : ring_features | guest_offloads};
    rc = net_open(cls, n->net, &n->v.dev, &n->user, &card, err);
    if (rc)
        return rc;
    if (n->queues > net_limits(n->net)->queues)
        return err_set(err, EINVAL, "queues=%u: the %s network serves at most %u", n->queues, n->backend.is.name,
                       net_limits(n->net)->queues);
    n->mtu = n->mtu ? n->mtu : net_limits(n->net)->mtu;
    return n->pcap ? net_capture(n->net, n->pcap, n->pcap_snap, n->pcap_limit, err) : 0;
}

static int vnet_init(struct device *d, struct err *err)
{
    struct vnet *n = container_of(d, struct vnet, v.dev);
    int rc = choose_mac(n, err);

    n->again = (struct work){.lane = &d->lane, .done = vnet_again};
    if (!rc)
        rc = open_backend(n, err);
    if (rc)
        return rc;
    n->v.nqueues = 2 * n->queues + 1;
    n->v.offered = vnet_ops.features | guest_offloads;
    if (n->queues > 1)
        n->v.offered |= BIT(VIRTIO_NET_F_MQ);
    if (n->mtu)
        n->v.offered |= BIT(VIRTIO_NET_F_MTU);
    device_add_state(d, "", &vnet_desc, &n->s, 1);
    rc = virtio_init(&n->v, &vnet_ops, err);
    n->lends = net_limits(n->net)->rings;
    if (n->lends)
        n->v.offered &= ~(ring_features | guest_offloads) | net_limits(n->net)->rings;
    return rc;
}

/* What a snapshot's driver knew of the link may be wrong by now, and the network does not know where the guest is. */
static void vnet_settle(struct device *d)
{
    struct vnet *n = container_of(d, struct vnet, v.dev);
    bool loaded = n->v.features, link = n->s.link;

    n->s.announce |= loaded && virtio_has(&n->v, VIRTIO_NET_F_GUEST_ANNOUNCE);
    memcpy(config_of(n)->mac, n->s.mac, ETH_ALEN);
    show_status(n);
    if (loaded && (n->s.announce || link != n->s.link))
        virtio_config_changed(&n->v);
}

static void vnet_fini(struct device *d)
{
    struct vnet *n = container_of(d, struct vnet, v.dev);

    if (n->net)
        net_close(n->net);
    virtio_fini(&n->v);
}

enum { LINK_UP, LINK_DOWN };
static const char *const link_words[] = {[LINK_UP] = "up", [LINK_DOWN] = "down", NULL};

struct link_args {
    uint32_t state;
};
static const struct opt link_opts[] = {
    O_ENUM(struct link_args, state, "state", NULL, link_words, "down: as if the cable were pulled"),
    O_END,
};

static int link_run(struct device *d, const void *args, json_t *reply, struct err *err)
{
    struct vnet *n = container_of(d, struct vnet, v.dev);
    const struct link_args *a = args;

    (void)reply;
    (void)err;
    n->unplugged = a->state == LINK_DOWN;
    link_changed(n);
    return 0;
}

static const struct device_command vnet_commands[] = {
    {.name = "link",
     .help = "plug the cable in, or pull it",
     .opts = link_opts,
     .size = sizeof(struct link_args),
     .run = link_run},
    {.name = NULL},
};

static json_t *traffic_info(const struct net_counters *c)
{
    return json_pack("{s:I, s:I, s:I, s:I}", "rx-frames", (json_int_t)c->rx.frames, "rx-bytes", (json_int_t)c->rx.bytes,
                     "tx-frames", (json_int_t)c->tx.frames, "tx-bytes", (json_int_t)c->tx.bytes);
}

static json_t *vnet_info(struct device *d)
{
    struct vnet *n = container_of(d, struct vnet, v.dev);
    json_t *pairs = json_array(), *drops = json_object(), *ret;

    for (unsigned i = 0; i < n->queues; i++)
        json_array_append_new(pairs, traffic_info(net_counters(n->net, i)));
    for (unsigned i = 0; i < NET_DROPS; i++)
        json_object_set_new(drops, net_drop_names[i], json_integer((json_int_t)net_dropped(n->net, i)));
    ret = json_pack("{s:s, s:s, s:o, s:o, s:o}", "network", n->backend.is.name, "link",
                    link_words[link_up(n) ? LINK_UP : LINK_DOWN], "pairs", pairs, "drops", drops, "details",
                    net_info(n->net));
    if (n->pcap)
        json_object_set_new(ret, "pcap-missed", json_integer((json_int_t)net_missed(n->net)));
    return ret;
}

const struct device_class virtio_net = {
    .name = "virtio-net",
    .summary = "a network card",
    .size = DEVICE_SIZE(struct vnet, v.dev),
    .opts = vnet_opts,
    .first = "backend",
    .loop = LOOP_OWN,
    .init = vnet_init,
    .fini = vnet_fini,
    .settle = vnet_settle,
    .commands = vnet_commands,
    .info = vnet_info,
};
