/*
 * A tap interface of this host [Documentation/networking/tuntap.rst]: one that exists, or one that is made and goes
 * with us, or one that somebody opened for us.  The kernel takes and hands out checksums and large segments as they
 * are, with the header of virtio in front.  Where the host has vhost-net, frames go between guest and interface without
 * passing here.
 */
#include <fcntl.h>
#include <limits.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "devices/net/backend.h"
#include "devices/net/vhost.h"
#include "vmm/base/cleanup.h"

enum { HEADER = sizeof(struct virtio_net_hdr_v1) };

enum { VHOST_AUTO, VHOST_ON, VHOST_OFF };
static const char *const vhost_words[] = {[VHOST_AUTO] = "auto", [VHOST_ON] = "on", [VHOST_OFF] = "off", NULL};

struct tap_queue {
    struct tap *tap;
    struct watch watch; /* for reading, while there is nothing to read; for writing, while there is no room */
    struct vhost vhost;
    bool blocked, gone;
    size_t held; /* bytes of a frame in buf, header and all */
    struct iovec iov;
    uint8_t buf[HEADER + NET_FRAME_MAX];
};

struct tap {
    struct net n;
    char *ifname;
    uint32_t fd, vhost;
    struct tap_queue *queues; /* n.queues of them */
};

static const struct opt tap_opts[] = {
    O_STR(struct tap, ifname, "ifname", NULL, "the interface; it is made if this user may", .arg = "NAME"),
    O_U32(struct tap, fd, "fd", "0", 0, INT_MAX, "an open descriptor of one instead, with IFF_VNET_HDR; 0: none"),
    O_ENUM(struct tap, vhost, "vhost", "auto", vhost_words,
           "the host's kernel moves the frames by itself, past this program; auto: where it can"),
    O_END,
};

static const net_offloads_t takes = 1ull << VIRTIO_NET_F_CSUM | 1ull << VIRTIO_NET_F_HOST_TSO4 |
                                    1ull << VIRTIO_NET_F_HOST_TSO6 | 1ull << VIRTIO_NET_F_HOST_ECN;
/* What may be handed out, and what the kernel calls it. */
static const struct {
    unsigned bit, tun;
} hands_out[] = {
    {VIRTIO_NET_F_GUEST_CSUM, TUN_F_CSUM},
    {VIRTIO_NET_F_GUEST_TSO4, TUN_F_TSO4},
    {VIRTIO_NET_F_GUEST_TSO6, TUN_F_TSO6},
    {VIRTIO_NET_F_GUEST_ECN, TUN_F_TSO_ECN},
};

static struct tap *tap_of(struct net *n)
{
    return container_of(n, struct tap, n);
}

static void wait_for(struct tap_queue *q)
{
    /* The last one never comes, but with it the news that the interface is gone. */
    uint32_t receive = vhost_runs(&q->vhost, VHOST_RECEIVE) ? EPOLLRDHUP : q->held ? 0 : EPOLLIN;

    watch_set(&q->watch, q->gone ? 0 : receive | (q->blocked ? EPOLLOUT : 0));
}

static bool tap_peek(struct net *n, unsigned queue, struct net_frame *ret)
{
    struct tap_queue *q = &tap_of(n)->queues[queue];
    ssize_t got = q->held ? (ssize_t)q->held : read(q->watch.fd, q->buf, sizeof(q->buf));

    if (got < HEADER + ETH_HLEN) {
        wait_for(q);
        return false;
    }
    q->held = (size_t)got;
    q->iov = (struct iovec){q->buf + HEADER, q->held - HEADER};
    *ret = (struct net_frame){.iov = &q->iov, .niov = 1, .len = q->held - HEADER};
    memcpy(&ret->hdr, q->buf, HEADER);
    return true;
}

static void tap_next(struct net *n, unsigned queue)
{
    tap_of(n)->queues[queue].held = 0;
}

static int tap_send(struct net *n, unsigned queue, struct net_frame *f)
{
    struct tap_queue *q = &tap_of(n)->queues[queue];
    struct iovec iov[1 + NET_IOV_MAX] = {{&f->hdr, HEADER}};

    memcpy(iov + 1, f->iov, f->niov * sizeof(*iov));
    if (writev(q->watch.fd, iov, (int)f->niov + 1) >= 0)
        return 0;
    if (errno == EAGAIN) {
        q->blocked = true;
        wait_for(q);
        return -EAGAIN;
    }
    net_drop(n, NET_DROP_PEER); /* the interface is down, or the kernel sees no sense in the frame */
    return 0;
}

static void tap_ready(struct watch *w, uint32_t revents)
{
    struct tap_queue *q = container_of(w, struct tap_queue, watch);
    struct net_user *u = q->tap->n.user;
    unsigned i = (unsigned)(q - q->tap->queues);

    if (revents & EPOLLOUT && q->blocked) {
        q->blocked = false;
        u->writable(u, i);
    }
    if (revents & EPOLLIN)
        u->readable(u, i);
    if (revents & (EPOLLERR | EPOLLHUP)) { /* somebody removed the interface */
        q->gone = true;
        u->link(u, false);
    }
    wait_for(q);
}

/* What the guest takes, as far as this kernel can hand it out. */
static void tap_set(struct net *n, net_offloads_t guest, unsigned queues)
{
    struct tap *t = tap_of(n);
    unsigned long offloads = 0;

    for (size_t i = 0; i < array_len(hands_out); i++)
        if (guest >> hands_out[i].bit & 1)
            offloads |= hands_out[i].tun;
    if (!(offloads & TUN_F_CSUM))
        offloads = 0;
    for (unsigned i = 0; i < n->queues; i++) {
        struct ifreq r = {.ifr_flags = i < queues ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE};

        ioctl(t->queues[i].watch.fd, TUNSETOFFLOAD, offloads);
        if (n->queues > 1)
            ioctl(t->queues[i].watch.fd, TUNSETQUEUE, &r); /* fails where nothing changes */
        wait_for(&t->queues[i]);
    }
}

/* ---- Rings that the kernel serves. ---- */

static int tap_ring_start(struct net *n, unsigned ring, const struct ring *r, uint64_t features)
{
    struct tap_queue *q = &tap_of(n)->queues[ring / VHOST_RINGS];
    int rc = vhost_start(&q->vhost, ring % VHOST_RINGS, r, features, q->watch.fd);

    if (!rc && ring % VHOST_RINGS == VHOST_SEND)
        q->blocked = false;
    if (!rc && ring % VHOST_RINGS == VHOST_RECEIVE && q->held) {
        net_drop(n, NET_DROP_FULL);
        q->held = 0;
    }
    wait_for(q);
    return rc;
}

static uint16_t tap_ring_stop(struct net *n, unsigned ring)
{
    struct tap_queue *q = &tap_of(n)->queues[ring / VHOST_RINGS];
    uint16_t ret = vhost_stop(&q->vhost, ring % VHOST_RINGS);

    wait_for(q);
    return ret;
}

static void ring_failed(struct vhost *v, unsigned index)
{
    struct net_user *u = container_of(v, struct tap_queue, vhost)->tap->n.user;

    u->broken(u, index == VHOST_RECEIVE ? "vhost-net found the ring of received frames broken"
                                        : "vhost-net found the ring of frames to send broken");
}

/* ---- Opening. ---- */

static const char *user_name(void)
{
    const struct passwd *p = getpwuid(geteuid());

    return p ? p->pw_name : "$USER";
}

static int refused(const struct tap *t, int code, struct err *err)
{
    const char *multi = t->n.queues > 1 ? " multi_queue" : "";

    switch (code) {
    case EPERM:
        return err_set(err, EPERM,
                       "tap \"%s\": not this user's; as root: ip tuntap add %s mode tap%s user %s && ip link set %s up",
                       t->ifname, t->ifname, multi, user_name(), t->ifname);
    case EBUSY:
        return err_set(err, EBUSY, "tap \"%s\": another program has it; give this guest an interface of its own",
                       t->ifname);
    case EINVAL:
        return err_set(err, EINVAL,
                       "tap \"%s\": no tap, or not one for queues=%u; remove it and: ip tuntap add %s mode tap%s",
                       t->ifname, t->n.queues, t->ifname, multi);
    default:
        return err_set(err, code, "tap \"%s\": %s", t->ifname, strerror(code));
    }
}

static int open_queue(const struct tap *t, int *ret, struct err *err)
{
    struct ifreq r = {.ifr_flags =
                          (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (t->n.queues > 1 ? IFF_MULTI_QUEUE : 0))};
    int fd cleanup_fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0 && (errno == ENOENT || errno == ENODEV || errno == ENXIO))
        return err_set(err, errno, "tap \"%s\": this host has no /dev/net/tun; load the module tun", t->ifname);
    if (fd < 0)
        return err_set(err, errno, "tap \"%s\": /dev/net/tun: %s; as root: chmod 666 /dev/net/tun", t->ifname,
                       strerror(errno));
    strcpy(r.ifr_name, t->ifname);
    if (ioctl(fd, TUNSETIFF, &r) < 0)
        return refused(t, errno, err);
    *ret = take_fd(&fd);
    return 0;
}

/* A descriptor that was opened by somebody else: it must be what ours would be. */
static int check_fd(const struct tap *t, struct err *err)
{
    int fd = (int)t->fd;
    struct ifreq r = {.ifr_flags = 0};

    if (t->n.queues > 1)
        return err_set(err, EINVAL, "tap fd=%d has one pair of queues, not queues=%u; give ifname=NAME for more", fd,
                       t->n.queues);
    if (ioctl(fd, TUNGETIFF, &r) < 0)
        return err_set(err, errno, "tap fd=%d is no open tap interface: %s", fd, strerror(errno));
    if ((r.ifr_flags & (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)) != (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
        return err_set(err, EINVAL, "tap fd=%d was not opened with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR", fd);
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
        return err_set(err, errno, "tap fd=%d: %s", fd, strerror(errno));
    return 0;
}

/* Up, if this user may do that; an interface that was made for this user is up. */
static void raise_interface(int tap)
{
    int fd cleanup_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq r = {.ifr_flags = 0};

    if (fd < 0 || ioctl(tap, TUNGETIFF, &r) < 0 || ioctl(fd, SIOCGIFFLAGS, &r) < 0 || r.ifr_flags & IFF_UP)
        return;
    r.ifr_flags |= IFF_UP;
    ioctl(fd, SIOCSIFFLAGS, &r);
}

static uint16_t mtu_of(int tap)
{
    int fd cleanup_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq r = {.ifr_flags = 0};

    if (fd < 0 || ioctl(tap, TUNGETIFF, &r) < 0 || ioctl(fd, SIOCGIFMTU, &r) < 0)
        return 0;
    return (uint16_t)min_u64((uint64_t)r.ifr_mtu, UINT16_MAX);
}

static int check_options(const struct tap *t, struct err *err)
{
    if (!t->ifname == !t->fd)
        return err_set(err, EINVAL, "a tap needs either ifname=NAME or fd=NUMBER");
    if (t->ifname && (!*t->ifname || strlen(t->ifname) >= IFNAMSIZ || strpbrk(t->ifname, "/:% ")))
        return err_set(err, EINVAL, "ifname=%s: a name has 1 to %d letters, and no /, :, %% or space", t->ifname,
                       IFNAMSIZ - 1);
    return t->ifname ? 0 : check_fd(t, err);
}

/* All queues or none. */
static int open_vhost(struct tap *t, struct err *err)
{
    uint64_t rings = takes;
    int rc = 0;

    if (t->vhost == VHOST_OFF || (t->vhost == VHOST_AUTO && !t->n.lends))
        return 0;
    if (!t->n.lends)
        return err_set(err, EINVAL,
                       "vhost=on: frames do not come by for pcap= to capture; leave one of them out, and "
                       "capture on the host's interface instead");
    for (unsigned i = 0; !rc && i < t->n.queues; i++)
        rc = vhost_open(&t->queues[i].vhost, t->n.dev->env->mem, err);
    if (rc) {
        for (unsigned i = 0; i < t->n.queues; i++)
            vhost_close(&t->queues[i].vhost);
        return t->vhost == VHOST_ON ? err_wrap(err, "vhost=on") : 0;
    }
    for (size_t i = 0; i < array_len(hands_out); i++)
        rings |= 1ull << hands_out[i].bit;
    t->n.lim.rings = rings | t->queues[0].vhost.features;
    return 0;
}

static int tap_open(struct net *n, struct err *err)
{
    struct tap *t = tap_of(n);
    int rc = check_options(t, err), header = HEADER;

    if (rc)
        return rc;
    t->queues = xcalloc(n->queues, sizeof(*t->queues));
    for (unsigned i = 0; i < n->queues; i++) {
        t->queues[i] = (struct tap_queue){
            .tap = t, .watch = {.lane = &n->dev->lane, .fd = -1, .events = EPOLLIN, .ready = tap_ready}};
        vhost_init(&t->queues[i].vhost, &n->dev->lane, ring_failed);
    }
    for (unsigned i = 0; i < n->queues; i++) {
        struct tap_queue *q = &t->queues[i];

        rc = t->ifname ? open_queue(t, &q->watch.fd, err) : 0;
        if (rc)
            return rc;
        if (!t->ifname)
            q->watch.fd = (int)t->fd;
        if (ioctl(q->watch.fd, TUNSETVNETHDRSZ, &header) < 0)
            return err_set(err, errno, "tap: this kernel has no headers of %d bytes: %s", header, strerror(errno));
        watch_add(&q->watch);
    }
    raise_interface(t->queues[0].watch.fd);
    n->lim = (struct net_limits){.queues = n->queues, .mtu = mtu_of(t->queues[0].watch.fd)};
    return open_vhost(t, err);
}

static void tap_close(struct net *n)
{
    struct tap *t = tap_of(n);

    for (unsigned i = 0; t->queues && i < n->queues; i++) {
        vhost_close(&t->queues[i].vhost);
        watch_del(&t->queues[i].watch);
        if (t->queues[i].watch.fd >= 0)
            close(t->queues[i].watch.fd);
    }
    free(take_ptr(t->queues));
}

/*
 * All that has passed the interface since it was made, as its guest sees it: the kernel's own count, for which it does
 * not matter who moves the frames [rtnetlink(7), RTM_GETSTATS].  NULL: it does not say.
 */
static json_t *interface_info(int tap)
{
    struct {
        struct nlmsghdr h;
        struct if_stats_msg m;
    } ask = {.h = {.nlmsg_len = sizeof(ask), .nlmsg_type = RTM_GETSTATS, .nlmsg_flags = NLM_F_REQUEST},
             .m.filter_mask = IFLA_STATS_FILTER_BIT(IFLA_STATS_LINK_64)};
    struct {
        struct nlmsghdr h;
        struct if_stats_msg m;
        struct nlattr a;
        uint64_t rx_packets, tx_packets, rx_bytes, tx_bytes; /* struct rtnl_link_stats64 begins so */
    } said;
    int fd cleanup_fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    struct ifreq r = {.ifr_flags = 0};

    if (fd < 0 || ioctl(tap, TUNGETIFF, &r) < 0)
        return NULL;
    ask.m.ifindex = if_nametoindex(r.ifr_name);
    if (!ask.m.ifindex || send(fd, &ask, sizeof(ask), 0) < 0 ||
        recv(fd, &said, sizeof(said), MSG_DONTWAIT) != sizeof(said) || said.h.nlmsg_type != RTM_NEWSTATS ||
        said.a.nla_type != IFLA_STATS_LINK_64)
        return NULL;
    return json_pack("{s:I, s:I, s:I, s:I}", "rx-frames", (json_int_t)said.tx_packets, "rx-bytes",
                     (json_int_t)said.tx_bytes, "tx-frames", (json_int_t)said.rx_packets, "tx-bytes",
                     (json_int_t)said.rx_bytes);
}

/* How many rings are the kernel's now, and what it has counted. */
static json_t *tap_info(struct net *n)
{
    const struct tap *t = tap_of(n);
    json_int_t rings = 0;

    for (unsigned i = 0; i < 2 * n->queues; i++)
        rings += vhost_runs(&t->queues[i / 2].vhost, i % 2);
    return json_pack("{s:I, s:o*}", "vhost-rings", rings, "interface", interface_info(t->queues[0].watch.fd));
}

const struct net_class net_tap = {
    .name = "tap",
    .summary = "a tap interface of this host",
    .size = sizeof(struct tap),
    .opts = tap_opts,
    .first = "ifname",
    .takes = takes,
    .peek = tap_peek,
    .next = tap_next,
    .send = tap_send,
    .set = tap_set,
    .ring_start = tap_ring_start,
    .ring_stop = tap_ring_stop,
    .open = tap_open,
    .close = tap_close,
    .info = tap_info,
};
