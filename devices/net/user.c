/*
 * The user network: a guest behind a NAT of this process's own, with no privilege and no daemon.  libslirp ends the
 * guest's TCP and UDP and speaks for it through ordinary sockets.  DHCP, a DNS proxy and IPv6 router advertisements
 * are libslirp's too; in front of it stands the sanitiser (sanitise.h).
 *
 * libslirp runs in the NIC's lane and is entered by slirp_enter() only.  It wants to be polled: told what is ready on
 * its sockets (pump), asked what to wait for next (refill).  Its sockets are in an epoll set of their own, which the
 * loop watches like any other descriptor; so whatever is ready costs one wake-up, and to pause them all is one call.
 *
 * A frame from libslirp is offered to the NIC at once, where it lies.  What the NIC has no room for is kept (`kept`),
 * and as long as there is such a frame no socket is read: data then waits in the hosts' sockets, and TCP slows its
 * senders down.  Nothing is dropped but what the guest itself sets off while it has no room.  The next poll goes on
 * with the socket at which the last one broke off, so that each has its turn.
 *
 * DNS: libslirp sends queries for the network's DNS server to the first server in /etc/resolv.conf, IPv4 and IPv6 each
 * for itself, and looks there anew when the file changes.  Without one, queries are answered by an ICMP error, and
 * IPv6's router advertisements name no server.
 *
 * Offloads: TCP segments of up to 64 KiB go into libslirp as they are.  Not so over IPv6, where it holds each packet
 * against the MTU.  To the guest go segments of up to 32 KiB, which say that they are several.
 *
 * Nothing of libslirp's is saved: after a load the guest's connections are gone, as after a cable was pulled.
 */
#include <net/ethernet.h>
#include <sys/resource.h>

#include "devices/net/csum.h"
#include "devices/net/dhcp.h"
#include "devices/net/user_private.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"

enum {
    MTU = 65520,        /* libslirp's own limit is 65521 */
    PORTIONS = 8,       /* of a large segment */
    TCP_MRU = 32806,    /* two segments fit in a window, or libslirp never tells that one is open again */
    KEPT_MAX = 1 << 20, /* bytes of frames that the NIC did not take */
    READY_MAX = 256,    /* sockets in one poll */
    DATAGRAMS = 16,     /* taken from a socket before others have their turn */
    FDS_MAX = 1 << 20,  /* highest descriptor that is polled */
    FDS_OTHERS = 256,   /* descriptors left to the rest of the process */
    STALE_MS = 100,     /* libslirp's idea of the time */
    SLOW_MS = 499,      /* its timeout when there is nothing but slow timers */
    REST_MS = 100,      /* for listeners when the host has no descriptor left */
};

static struct user *user_of(struct net *n)
{
    return container_of(n, struct user, n);
}

static uint64_t now(struct user *u)
{
    return loop_now(u->n.dev->lane.loop, CLK_HOST);
}

static bool keeps(const struct user *u)
{
    return u->kept_from != u->kept_to;
}

/* ---- Sockets. ---- */

static void wait_for(struct user *u, int fd, uint32_t events)
{
    struct socket *s = &u->sockets[fd];
    struct epoll_event ev = {.events = events, .data.fd = fd};
    int op = !events ? EPOLL_CTL_DEL : s->set ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

    if (events == s->set)
        return;
    /* A descriptor that was closed behind our back has left the set by itself. */
    if (epoll_ctl(u->epfd, op, fd, &ev) && op == EPOLL_CTL_MOD && errno == ENOENT)
        epoll_ctl(u->epfd, EPOLL_CTL_ADD, fd, &ev);
    if (!s->set)
        u->newest = fd;
    if (!s->listed)
        u->waiting[u->nwaiting++] = fd;
    s->listed = true;
    s->set = events;
}

static int add_poll(int fd, int events, void *opaque)
{
    struct user *u = opaque;
    struct socket *s;
    uint32_t want = 0;

    if (fd < 0 || (unsigned)fd >= u->nsockets)
        return -1;
    s = &u->sockets[fd];
    if (events & SLIRP_POLL_IN)
        want |= EPOLLIN;
    if (events & SLIRP_POLL_OUT)
        want |= EPOLLOUT;
    s->read |= want & EPOLLIN;
    s->round = u->round;
    if (s->listens && (u->san.open >= u->rules.max || u->rest_until))
        want = 0; /* who knocks has to wait */
    wait_for(u, fd, want);
    return fd;
}

/*
 * libslirp reads from a socket that has an error, and trusts that there is room to read into.  Where it did not ask to
 * read there may be none, but then it wants to write, and learns of the error by that.  Before a socket is connected
 * it never asks to read, and there is room.
 */
static int ready_events(const struct socket *s)
{
    int ret = 0;

    if (s->ready & EPOLLIN)
        ret |= SLIRP_POLL_IN;
    if (s->ready & EPOLLOUT)
        ret |= SLIRP_POLL_OUT;
    if (s->ready & (EPOLLERR | EPOLLHUP))
        ret |= s->set & EPOLLIN ? SLIRP_POLL_IN : s->read ? SLIRP_POLL_OUT : SLIRP_POLL_ERR;
    return ret;
}

/* Called for each of libslirp's sockets, always in the same order. */
static int get_ready(int fd, void *opaque)
{
    struct user *u = opaque;
    const struct socket *s;

    if (fd < 0)
        return 0;
    s = &u->sockets[fd];
    if (u->resume >= 0 && u->resume != fd)
        return 0;
    if (keeps(u)) {
        u->resume = fd;
        return 0;
    }
    u->resume = -1;
    u->knocked |= s->ready && s->listens;
    return ready_events(s);
}

static void new_socket(int fd, void *opaque)
{
    struct user *u = opaque;
    socklen_t len = sizeof(int);
    int type;

    u->accepted++;
    if (fd >= 0 && (unsigned)fd < u->nsockets && !u->sockets[fd].flow) {
        u->sockets[fd].flow = true;
        u->sockets[fd].datagrams = !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) && type == SOCK_DGRAM;
        u->san.open++;
    }
}

static void forget_socket(int fd, void *opaque)
{
    struct user *u = opaque;

    if (fd < 0 || (unsigned)fd >= u->nsockets)
        return;
    wait_for(u, fd, 0);
    u->san.open -= u->sockets[fd].flow;
    u->sockets[fd] = (struct socket){.listed = u->sockets[fd].listed};
    if (u->resume == fd)
        u->resume = -1;
}

/* ---- Into libslirp and out again. ---- */

static void enter(struct user *u)
{
    assert(!u->inside);
    u->inside = true;
}

static void leave(struct user *u)
{
    u->inside = false;
    if (u->refused) {
        u->refused = false;
        u->n.user->writable(u->n.user, 0);
    }
}

/* An earlier time-out than is asked for does no harm. */
static void arm_slow(struct user *u, uint32_t ms)
{
    uint64_t due = now(u) + ms * (NS_PER_SEC / 1000);

    if (!u->slow.armed || u->slow.due_ns > due)
        timer_arm(&u->slow, due);
}

void user_refill(struct user *u)
{
    uint32_t timeout = UINT32_MAX;
    unsigned kept = 0;

    u->round++;
    if (u->rest_until && u->rest_until <= now(u))
        u->rest_until = 0;
    enter(u);
    u->lib->pollfds_fill(u->slirp, &timeout, add_poll, u);
    leave(u);
    for (unsigned i = 0; i < u->nwaiting; i++) {
        int fd = u->waiting[i];

        if (u->sockets[fd].round != u->round)
            wait_for(u, fd, 0);
        u->sockets[fd].listed = u->sockets[fd].set;
        if (u->sockets[fd].listed)
            u->waiting[kept++] = fd;
    }
    u->nwaiting = kept;
    /* Without connections nothing in libslirp grows old that anybody would miss. */
    if (u->rest_until)
        arm_slow(u, REST_MS);
    else if (u->san.open || timeout < SLOW_MS)
        arm_slow(u, timeout);
    watch_set(&u->watch, keeps(u) ? 0 : EPOLLIN);
}

/* Timers, and the sockets that are ready when there are any. */
static void poll_slirp(struct user *u, bool sockets)
{
    u->polled_ns = now(u);
    enter(u);
    u->lib->pollfds_poll(u->slirp, !sockets, get_ready, u);
    leave(u);
}

/* True: there may be more at once. */
static bool pump(struct user *u)
{
    struct epoll_event ev[READY_MAX];
    unsigned accepted = u->accepted;
    int n = keeps(u) ? 0 : epoll_wait(u->epfd, ev, READY_MAX, 0);
    bool more = false;

    for (int i = 0; i < n; i++) {
        u->sockets[ev[i].data.fd].ready = ev[i].events;
        more |= u->sockets[ev[i].data.fd].datagrams;
    }
    u->knocked = false;
    poll_slirp(u, n > 0);
    for (int i = 0; i < n; i++)
        u->sockets[ev[i].data.fd].ready = 0;
    if (!keeps(u))
        u->resume = -1; /* the socket asks for nothing any more */
    /* No descriptor left to accept with: to be told of it again and again would help nobody. */
    if (u->knocked && accepted == u->accepted)
        u->rest_until = now(u) + REST_MS * (NS_PER_SEC / 1000);
    user_refill(u);
    return more;
}

static void sockets_ready(struct watch *w, uint32_t revents)
{
    struct user *u = container_of(w, struct user, watch);

    (void)revents;
    for (unsigned i = 0; i < DATAGRAMS && pump(u); i++)
        ;
}

static void slow_timeout(struct timer *t)
{
    struct user *u = container_of(t, struct user, slow);

    if (!keeps(u))
        pump(u);
}

static void refill_soon(struct work *w, int ret)
{
    struct user *u = container_of(w, struct user, refill);

    (void)ret;
    if (keeps(u))
        u->n.user->readable(u->n.user, 0);
    user_refill(u);
}

/* ---- What libslirp asks for. ---- */

struct slirp_timer {
    struct timer t;
    struct user *u;
    SlirpTimerCb fire;
    void *arg;
};

static void slirp_timer_fired(struct timer *t)
{
    struct slirp_timer *s = container_of(t, struct slirp_timer, t);
    struct user *u = s->u;

    enter(u);
    s->fire(s->arg);
    leave(u);
    user_refill(u);
}

static void *timer_new(SlirpTimerCb cb, void *arg, void *opaque)
{
    struct user *u = opaque;
    struct slirp_timer *s = xcalloc(1, sizeof(*s));

    *s = (struct slirp_timer){
        .t = {.lane = &u->n.dev->lane, .clk = CLK_HOST, .fire = slirp_timer_fired}, .u = u, .fire = cb, .arg = arg};
    return s;
}

static void timer_free(void *timer, void *opaque)
{
    struct slirp_timer *s = timer;

    (void)opaque;
    if (s)
        timer_disarm(&s->t);
    free(s);
}

static void timer_mod(void *timer, int64_t ms, void *opaque)
{
    struct slirp_timer *s = timer;

    (void)opaque;
    timer_arm(&s->t, (uint64_t)ms * (NS_PER_SEC / 1000));
}

static int64_t clock_get_ns(void *opaque)
{
    return (int64_t)now(opaque);
}

static void guest_error(const char *msg, void *opaque)
{
    struct user *u = opaque;

    log_guest(&u->limit, "%s: %s", u->n.dev->id, msg);
}

static void notify(void *opaque)
{
    struct user *u = opaque;

    work_post(&u->refill);
}

/* ---- Frames to the guest. ---- */

static void keep(struct user *u, const uint8_t *frame, uint32_t len)
{
    size_t n = align_up(sizeof(len) + len, sizeof(len));

    if (KEPT_MAX - u->kept_to < n && u->kept_from) {
        memmove(u->kept, u->kept + u->kept_from, u->kept_to - u->kept_from);
        u->kept_to -= u->kept_from;
        u->kept_from = 0;
    }
    if (KEPT_MAX - u->kept_to < n) {
        net_drop(&u->n, NET_DROP_FULL);
        return;
    }
    memcpy(u->kept + u->kept_to, &len, sizeof(len));
    memcpy(u->kept + u->kept_to + sizeof(len), frame, len);
    u->kept_to += n;
    watch_set(&u->watch, 0);
}

static ssize_t send_packet(const void *frame, size_t len, void *opaque)
{
    uint8_t offer[DHCP_OFFER_MAX];
    struct user *u = opaque;

    if (len > NET_FRAME_MAX)
        return (ssize_t)len;
    if (dhcp_tells_mtu(frame, len, u->n.lim.mtu, offer))
        frame = offer;
    sanitiser_sent(&u->san, frame, len);
    if (!keeps(u) && u->slirp) { /* while it is made, the NIC is too */
        u->offered = frame;
        u->offered_len = len;
        u->n.user->readable(u->n.user, 0);
        if (!u->offered)
            return (ssize_t)len;
        u->offered = NULL;
    }
    keep(u, frame, (uint32_t)len);
    return (ssize_t)len;
}

/*
 * A large TCP segment is one of several portions, says its header.  libslirp does not scale windows, so that with a
 * large MTU a segment is half of one: a guest slow to read then leaves a window just below that, which a sender spares
 * [RFC 1122 4.2.3.4], and tells of a larger one when it has grown by a segment [4.2.3.3].  Both would wait for the
 * other until libslirp's timer of 5 s; by portions it has grown enough.
 */
static void in_portions(const struct user *u, struct net_frame *f)
{
    uint8_t *frame = f->iov->iov_base, *t, len[4] = {0};
    bool v6 = get_be16(frame + 2 * ETH_ALEN) == ETHERTYPE_IPV6;
    size_t transport = ETH_HLEN + (v6 ? 40 : 20), mss = u->n.lim.mtu - (transport - ETH_HLEN) - 20, payload;
    uint64_t sum;

    if (mss <= UINT16_MAX / 3 || f->len <= mss / PORTIONS || frame[ETH_HLEN + (v6 ? 6 : 9)] != IPPROTO_TCP)
        return;
    t = frame + transport;
    payload = transport + (t[12] >> 4) * 4u;
    if (f->len <= payload + mss / PORTIONS)
        return;
    put_be32(len, (uint32_t)(f->len - transport) + IPPROTO_TCP);
    sum = csum_add(csum_add(0, len, sizeof(len)), frame + (v6 ? 22 : 26), v6 ? 32 : 8);
    put_be16(t + 16, (uint16_t)~csum_fold(sum)); /* the rest is left to do */
    f->hdr = (struct virtio_net_hdr_v1){
        .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
        .gso_type = v6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4,
        .hdr_len = htole16((uint16_t)payload),
        .gso_size = htole16((uint16_t)(mss / PORTIONS)),
        .csum_start = htole16((uint16_t)transport),
        .csum_offset = htole16(16),
    };
}

static bool user_peek(struct net *n, unsigned queue, struct net_frame *ret)
{
    struct user *u = user_of(n);
    uint32_t len;

    (void)queue;
    if (keeps(u)) {
        memcpy(&len, u->kept + u->kept_from, sizeof(len));
        u->iov = (struct iovec){u->kept + u->kept_from + sizeof(len), len};
    } else if (u->offered) {
        u->iov = (struct iovec){(void *)u->offered, u->offered_len};
    } else {
        return false;
    }
    *ret = (struct net_frame){.iov = &u->iov, .niov = 1, .len = u->iov.iov_len};
    if (u->guest & (1ull << VIRTIO_NET_F_GUEST_CSUM))
        ret->hdr.flags = VIRTIO_NET_HDR_F_DATA_VALID; /* libslirp has just made it */
    in_portions(u, ret);
    return true;
}

static void user_next(struct net *n, unsigned queue)
{
    struct user *u = user_of(n);
    uint32_t len;

    (void)queue;
    if (!keeps(u)) {
        u->offered = NULL;
        return;
    }
    memcpy(&len, u->kept + u->kept_from, sizeof(len));
    u->kept_from += align_up(sizeof(len) + len, sizeof(len));
    if (keeps(u))
        return;
    u->kept_from = u->kept_to = 0;
    work_post(&u->refill);
}

static void user_set(struct net *n, net_offloads_t guest, unsigned queues)
{
    (void)queues;
    user_of(n)->guest = guest;
}

/* ---- Frames from the guest. ---- */

/* What the guest left to do [VIRTIO-v1.2 5.1.6.2].  IPv4 lets UDP go without, which saves libslirp to look. */
static void complete_checksum(uint8_t *frame, size_t len, const struct virtio_net_hdr_v1 *h)
{
    size_t start = le16toh(h->csum_start), at = start + le16toh(h->csum_offset);
    uint16_t sum;

    if (len > 23 && get_be16(frame + 12) == ETHERTYPE_IP && frame[23] == IPPROTO_UDP) {
        put_be16(frame + at, 0);
        return;
    }
    sum = csum_fold(csum_add(0, frame + start, len - start));
    put_be16(frame + at, sum ? sum : 0xffff);
}

/* What libslirp has for a neighbour whose address it had to ask for goes out with the next poll only. */
static bool tells_address(const uint8_t *frame)
{
    uint16_t type = get_be16(frame + 12);

    return type == ETHERTYPE_ARP || (type == ETHERTYPE_IPV6 && frame[20] == IPPROTO_ICMPV6);
}

static int user_send(struct net *n, unsigned queue, struct net_frame *f)
{
    struct user *u = user_of(n);
    size_t len = f->len;
    uint8_t *frame, introduction[NEIGHBOUR_FRAME];
    size_t introduced;

    (void)queue;
    if (u->inside) {
        u->refused = true;
        return -EAGAIN;
    }
    iov_get(f->iov, 0, u->frame, len);
    if (f->hdr.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
        complete_checksum(u->frame, len, &f->hdr);
    if (!sanitise(&u->san, u->frame, &len, now(u), &frame))
        return 0;
    /* libslirp learns the time by polls only, and may not have had any for long. */
    if (now(u) - u->polled_ns >= STALE_MS * (NS_PER_SEC / 1000))
        poll_slirp(u, false);
    introduced = neighbour_speaks(&u->speaker, frame, introduction);
    enter(u);
    if (introduced)
        u->lib->input(u->slirp, introduction, (int)introduced);
    u->lib->input(u->slirp, frame, (int)len);
    leave(u);
    if (tells_address(frame))
        poll_slirp(u, false);
    work_post(&u->refill);
    return 0;
}

/* ---- ---- */

/* Each connection takes one descriptor, or two when it came by a socket of a forward. */
static void limit_connections(struct user *u)
{
    const uint64_t want = 2ull * u->c.max + FDS_OTHERS;
    struct rlimit lim;

    u->rules.max = u->c.max;
    if (getrlimit(RLIMIT_NOFILE, &lim))
        return;
    if (lim.rlim_cur < want && lim.rlim_cur < lim.rlim_max) {
        lim.rlim_cur = min_u64(want, lim.rlim_max);
        if (setrlimit(RLIMIT_NOFILE, &lim) && getrlimit(RLIMIT_NOFILE, &lim))
            return;
    }
    if (lim.rlim_cur < want)
        u->rules.max = lim.rlim_cur > 2 * FDS_OTHERS ? (uint32_t)(lim.rlim_cur - FDS_OTHERS) / 2 : FDS_OTHERS / 4;
    u->nsockets = (unsigned)min_u64(lim.rlim_cur, FDS_MAX);
}

/* ---- ---- */

static void start_slirp(struct user *u, SlirpConfig *cfg)
{
    static const SlirpCb callbacks = {
        .send_packet = send_packet,
        .guest_error = guest_error,
        .clock_get_ns = clock_get_ns,
        .timer_new = timer_new,
        .timer_free = timer_free,
        .timer_mod = timer_mod,
        .register_poll_fd = new_socket,
        .unregister_poll_fd = forget_socket,
        .notify = notify,
    };
    cfg->version = 2;
    cfg->if_mtu = u->n.lim.mtu;
    cfg->if_mru = min_u64(u->n.lim.mtu, TCP_MRU);
    u->slirp = u->lib->new (cfg, &callbacks, u);
}

static int user_open(struct net *n, struct err *err)
{
    struct user *u = user_of(n);
    SlirpConfig cfg = {0};
    int rc;

    u->epfd = -1;
    u->resume = u->newest = -1;
    u->watch = (struct watch){.lane = &n->dev->lane, .events = EPOLLIN, .ready = sockets_ready};
    u->slow = (struct timer){.lane = &n->dev->lane, .clk = CLK_HOST, .fire = slow_timeout};
    u->refill = (struct work){.lane = &n->dev->lane, .done = refill_soon};
    rc = user_config_resolve(&u->c, &cfg, &u->rules, err);
    if (!rc)
        rc = slirp_load(&u->lib, err);
    if (rc)
        return rc;
    if (n->mtu > MTU)
        return err_set(err, EINVAL, "mtu=%u: the user network carries packets of up to %d bytes; choose fewer", n->mtu,
                       MTU);
    n->lim.mtu = n->mtu ? n->mtu : MTU;
    limit_connections(u);
    sanitiser_init(&u->san, &u->rules);
    u->sockets = xcalloc(u->nsockets, sizeof(*u->sockets));
    u->waiting = xcalloc(u->nsockets, sizeof(*u->waiting));
    u->kept = xcalloc(1, KEPT_MAX);
    u->forwards = json_array();
    u->epfd = epoll_create1(EPOLL_CLOEXEC);
    if (u->epfd < 0)
        return err_set(err, errno, "user network: %s", strerror(errno));
    start_slirp(u, &cfg);
    if (!u->slirp)
        return err_set(err, EINVAL, "user network: libslirp %s refused its configuration", u->lib->version_string());
    rc = user_open_forwards(u, err);
    if (rc)
        return rc;
    u->watch.fd = u->epfd;
    watch_add(&u->watch);
    work_post(&u->refill);
    return 0;
}

static void user_close(struct net *n)
{
    struct user *u = user_of(n);

    watch_del(&u->watch);
    if (u->slirp)
        u->lib->cleanup(u->slirp);
    timer_disarm(&u->slow);
    user_remove_sockets(u);
    if (u->epfd >= 0)
        close(u->epfd);
    free(u->sockets);
    free(u->waiting);
    free(u->kept);
    json_decref(u->forwards);
    user_config_fini(&u->c);
}

static json_t *user_info(struct net *n)
{
    struct user *u = user_of(n);
    json_t *dropped = json_object();

    for (unsigned i = 0; i < SAN_REASONS; i++)
        if (u->san.drops[i])
            json_object_set_new(dropped, san_reason_names[i], json_integer((json_int_t)u->san.drops[i]));
    return json_pack("{s:s,s:I,s:I,s:I,s:O,s:I,s:o}", "libslirp", u->lib->version_string(), "connections",
                     (json_int_t)u->san.open, "max-connections", (json_int_t)u->rules.max, "failed",
                     (json_int_t)u->san.failed, "forwards", u->forwards, "urgent-cleared", (json_int_t)u->san.urgent,
                     "sanitiser-dropped", dropped);
}

static bool user_lease(struct net *n, struct net_lease *ret)
{
    struct user_config *c = &user_of(n)->c;
    struct san_rules r = {0};
    SlirpConfig cfg = {0};

    if (!c->ipv4 || user_config_addresses(c, &cfg, &r, NULL) < 0)
        return false;
    *ret = (struct net_lease){
        .address = cfg.vdhcp_start.s_addr,
        .mask = r.mask.s_addr,
        .gateway = r.host.s_addr,
        .dns = r.dns.s_addr,
    };
    return true;
}

static const struct opt user_opts[] = {
    O_BOOL(struct user, c.ipv4, "ipv4", "on", "give the guest IPv4"),
    O_STR(struct user, c.net, "net", "10.0.2.0/24", "the guest's network", .arg = "NET/BITS"),
    O_STR(struct user, c.host, "host", NULL, "address of the gateway; 2 in the network", .arg = "ADDR"),
    O_STR(struct user, c.dns, "dns", NULL, "address of the DNS proxy; 3 in the network", .arg = "ADDR"),
    O_STR(struct user, c.dhcp, "dhcpstart", NULL, "first address that DHCP gives away; 15 in the network",
          .arg = "ADDR"),
    O_BOOL(struct user, c.ipv6, "ipv6", "on", "give the guest IPv6"),
    O_STR(struct user, c.net6, "ipv6-net", "fec0::/64", "the guest's IPv6 network", .arg = "NET/64"),
    O_STR(struct user, c.host6, "ipv6-host", NULL, "address of the gateway; 2 in the network", .arg = "ADDR"),
    O_STR(struct user, c.dns6, "ipv6-dns", NULL, "address of the DNS proxy; 3 in the network", .arg = "ADDR"),
    O_STR(struct user, c.hostname, "hostname", NULL, "name that DHCP gives the guest", .arg = "NAME"),
    O_LIST(struct user, c.domains, "domain", "domain that DHCP tells to search; the first is the guest's own",
           .arg = "NAME"),
    O_LIST(struct user, c.hostfwd, "hostfwd",
           "forward to the guest: tcp:[HOSTADDR]:PORT-[GUESTADDR]:PORT, the same with udp, unix:PATH-[GUESTADDR]:PORT; "
           "port ranges as 80-89, port 0 for any, IPv6 addresses in []",
           .arg = "FORWARD"),
    O_LIST(struct user, c.guestfwd, "guestfwd",
           "serve the guest at an address of its network: tcp:ADDR:PORT-cmd:COMMAND or tcp:ADDR:PORT-unix:PATH",
           .arg = "FORWARD"),
    O_BOOL(struct user, c.restricted, "restrict", "off", "let nothing out but through forwards"),
    O_BOOL(struct user, c.host_loopback, "host-loopback", "off",
           "let the guest reach the host's 127.0.0.1 at the gateway's address"),
    O_STR(struct user, c.tftp, "tftp", NULL, "serve this directory's files by TFTP, and BOOTP", .arg = "DIR"),
    O_STR(struct user, c.bootfile, "bootfile", NULL, "file that DHCP tells the guest to boot", .arg = "FILE"),
    O_STR(struct user, c.outbound, "outbound", NULL, "the host's address to send from", .arg = "ADDR"),
    O_STR(struct user, c.outbound6, "ipv6-outbound", NULL, "the same for IPv6", .arg = "ADDR"),
    O_U32(struct user, c.max, "max-connections", "4096", 1, 65536, "the guest may have at a time"),
    O_U32(struct user, c.rate, "connection-rate", "10000", 0, 1000000, "new connections in a second; 0 for no limit"),
    O_END,
};

const struct net_class net_user = {
    .name = "user",
    .summary = "the host's networks through a NAT, with DHCP and DNS; needs no privilege",
    .size = sizeof(struct user),
    .opts = user_opts,
    .takes = 1ull << VIRTIO_NET_F_CSUM | 1ull << VIRTIO_NET_F_HOST_TSO4 | 1ull << VIRTIO_NET_F_HOST_ECN,
    .peek = user_peek,
    .next = user_next,
    .send = user_send,
    .set = user_set,
    .open = user_open,
    .close = user_close,
    .info = user_info,
    .lease = user_lease,
};
