/*
 * "lan,name=NAME": a switch between the VMs of one user on this machine, with nobody in the middle.  Each VM is a port
 * with a socket lan.NAME.NUMBER in a private directory.  Who joins connects to all that are there, so each pair has a
 * connection of its own (SOCK_SEQPACKET, one message a frame: struct virtio_net_hdr_v1, then the frame), and each VM
 * learns by itself which MAC address is behind which connection.  A VM that ends takes nothing with it but its
 * connections.
 *
 * The others' frames are checked as a guest's are.  A sender waits for a slow receiver a little, lest TCP loses whole
 * windows; for one that does not read it waits no more, and loses its frames.  Small frames to one VM leave together,
 * by one system call: with the first that is not one of them, or when the NIC has sent all it had.
 */
#include <fcntl.h>
#include <net/ethernet.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "devices/net/backend.h"
#include "devices/net/mac_table.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/base/opt.h"
#include "vmm/loop/acceptor.h"
#include "vmm/mem/iov.h"

enum {
    PORTS = MAC_PORTS, /* VMs of one lan */
    NAME_MAX_LEN = 31,
    BATCH = 16,                 /* frames taken from one port in a turn, and sent to one */
    SMALL = 2048,               /* bytes at most of a frame that leaves with others */
    FRAME_SPACE = 68 << 10,     /* NET_FRAME_MAX and one byte more, in pages */
    SEND_SPACE = 512 << 10,     /* bytes of frames under way to one receiver; the kernel doubles it */
    JOIN_TRIES = 500,           /* × JOIN_NAP_NS: others need a millisecond to join */
    JOIN_NAP_NS = 10 * 1000000, /* 10 ms */
};
#define PATIENCE_NS (50 * NS_PER_SEC / 1000) /* how long a sender waits for a receiver */
#define GRUDGE_NS   NS_PER_SEC               /* how long it does not, after one that was too slow */
static_assert((int)FRAME_SPACE > (int)NET_FRAME_MAX, "longer frames are seen to be so");

struct port {
    struct lan *lan; /* borrowed */
    int fd;          /* -1: nobody */
    struct watch watch;
    bool stuck;            /* has not read since a sender's patience ended */
    uint64_t grudge_until; /* ns */
};

struct lan {
    struct net net;
    char *name;
    int dir, fd; /* where the sockets are; our own */
    char self[NAME_MAX_LEN + 16];
    struct acceptor joiner;
    struct port ports[PORTS];
    uint64_t used, open, unread; /* bit sets of ports: with a descriptor; that take frames; that may have some for us */
    struct port *waits;          /* for room there; NULL: for nothing */
    struct timer patience;
    struct mac_table macs;
    /* small frames for `to`: out[sent] up to out[noted - 1] */
    struct port *to;
    unsigned sent, noted;
    struct work flush;
    struct mmsghdr out[BATCH];
    struct virtio_net_hdr_v1 out_hdrs[BATCH];
    struct iovec out_iovs[BATCH][2];
    uint8_t small[BATCH][SMALL];
    /* frames received: batch[next] up to batch[got - 1] */
    struct mmsghdr batch[BATCH];
    struct virtio_net_hdr_v1 hdrs[BATCH];
    struct iovec iovs[BATCH][2], frame;
    uint8_t *space;
    unsigned next, got, turn; /* turn: the port to ask first */
};

static struct lan *lan_of(struct net *n)
{
    return container_of(n, struct lan, net);
}

static unsigned port_number(const struct port *p)
{
    return (unsigned)(p - p->lan->ports);
}

static uint64_t port_bit(const struct port *p)
{
    return 1ull << port_number(p);
}

static uint32_t seconds(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
    return (uint32_t)ts.tv_sec;
}

/* Asks the loop for what there is to wait for.  A port that has frames for which the guest has no room is not asked
 * again, lest it keeps the loop busy. */
static void port_watch(struct port *p)
{
    struct lan *l = p->lan;
    uint32_t events = 0;

    if (!(l->unread & port_bit(p)))
        events |= EPOLLIN;
    if (l->open & port_bit(p) && (p->stuck || l->waits == p))
        events |= EPOLLOUT;
    if (p->watch.events != events)
        watch_set(&p->watch, events);
}

/* Shall the sender wait for room there?  Only one waits: the guest's frames leave one after the other. */
static bool wait_for(struct port *p)
{
    struct lan *l = p->lan;
    uint64_t now = loop_now(l->net.dev->lane.loop, CLK_HOST);

    if (l->waits == p)
        return true;
    if (p->stuck || now < p->grudge_until)
        return false;
    l->waits = p;
    timer_arm(&l->patience, now + PATIENCE_NS);
    port_watch(p);
    return true;
}

/* sendmmsg() has failed: 0, and the frame is lost, or -EAGAIN: try again when writable() is due. */
static int not_sent(struct port *p, bool may_wait)
{
    if (errno == EAGAIN && may_wait && wait_for(p))
        return -EAGAIN;
    net_drop(&p->lan->net, errno == EAGAIN || errno == ENOBUFS ? NET_DROP_FULL : NET_DROP_PEER);
    return 0;
}

/* The small frames that were noted: 0 or -EAGAIN. */
static int flush(struct lan *l)
{
    while (l->sent < l->noted) {
        int n = sendmmsg(l->to->fd, l->out + l->sent, l->noted - l->sent, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && not_sent(l->to, true))
            return -EAGAIN;
        l->sent += n < 0 ? 1 : (unsigned)n;
    }
    l->sent = l->noted = 0;
    return 0;
}

static void flush_soon(struct work *w, int ret)
{
    (void)ret;
    flush(container_of(w, struct lan, flush));
}

static void stop_waiting(struct lan *l)
{
    l->waits = NULL;
    timer_disarm(&l->patience);
    if (!flush(l))
        l->net.user->writable(l->net.user, 0);
}

/* It takes no frames any more, but may have left some. */
static void port_hang_up(struct port *p)
{
    struct lan *l = p->lan;

    l->open &= ~port_bit(p);
    mac_forget(&l->macs, port_number(p));
    if (l->waits == p)
        stop_waiting(l);
}

static void port_close(struct port *p)
{
    struct lan *l = p->lan;

    watch_del(&p->watch);
    close(p->fd);
    p->fd = -1;
    if (l->to == p)
        flush(l); /* to nobody */
    l->used &= ~port_bit(p);
    l->unread &= ~port_bit(p);
    if (l->open & port_bit(p))
        port_hang_up(p);
}

static void port_ready(struct watch *w, uint32_t revents)
{
    struct port *p = container_of(w, struct port, watch);
    struct lan *l = p->lan;

    l->unread |= port_bit(p);
    if (revents & EPOLLOUT) {
        p->stuck = false;
        if (l->waits == p)
            stop_waiting(l);
    }
    if (revents & (EPOLLHUP | EPOLLERR) && l->open & port_bit(p))
        port_hang_up(p);
    l->net.user->readable(l->net.user, 0);
    if (p->fd >= 0)
        port_watch(p);
}

static bool is_ours(int fd)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);

    return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) && peer.uid == geteuid();
}

/* A connection to another VM; the descriptor becomes the port's. */
static void port_open(struct lan *l, int fd)
{
    static const int space = SEND_SPACE;
    struct port *p;

    if (!~l->used || !is_ours(fd) || setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &space, sizeof(space))) {
        log_msg(LOG_WARN, "%s: refused a connection on lan \"%s\": %s", l->net.dev->id, l->name,
                ~l->used ? "it is not by a VM of this user" : "there are too many");
        close(fd);
        return;
    }
    p = &l->ports[__builtin_ctzll(~l->used)];
    *p = (struct port){.lan = l, .fd = fd};
    p->watch = (struct watch){.lane = &l->net.dev->lane, .fd = fd, .events = EPOLLIN, .ready = port_ready};
    l->used |= port_bit(p);
    l->open |= port_bit(p);
    watch_add(&p->watch);
}

static void joined(struct acceptor *a, int fd)
{
    port_open(container_of(a, struct lan, joiner), fd);
}

static void patience_ends(struct timer *t)
{
    struct lan *l = container_of(t, struct lan, patience);
    struct port *p = l->waits;

    p->stuck = true;
    p->grudge_until = loop_now(t->lane->loop, CLK_HOST) + GRUDGE_NS;
    stop_waiting(l);
}

static int port_send(struct port *p, const struct net_frame *f, bool may_wait)
{
    struct iovec iov[NET_IOV_MAX + 1] = {{(void *)&f->hdr, sizeof(f->hdr)}};
    const struct msghdr m = {.msg_iov = iov, .msg_iovlen = f->niov + 1};

    memcpy(iov + 1, f->iov, f->niov * sizeof(*iov));
    return sendmsg(p->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? not_sent(p, may_wait) : 0;
}

static void note(struct port *p, const struct net_frame *f)
{
    struct lan *l = p->lan;
    unsigned i = l->noted++;

    l->to = p;
    l->out_hdrs[i] = f->hdr;
    iov_get(f->iov, 0, l->small[i], f->len);
    l->out_iovs[i][1].iov_len = f->len;
    if (!i)
        work_post(&l->flush);
}

static int lan_send(struct net *n, unsigned queue, struct net_frame *f)
{
    struct lan *l = lan_of(n);
    struct port *p = NULL;
    uint8_t to[ETH_ALEN];
    bool small;
    int port;

    (void)queue;
    assert(f->niov <= NET_IOV_MAX && f->len >= ETH_HLEN);
    iov_get(f->iov, 0, to, sizeof(to));
    port = mac_find(&l->macs, to, seconds());
    if (port >= 0 && l->open & 1ull << port)
        p = &l->ports[port];
    small = p && f->len <= SMALL;
    if ((!small || p != l->to || l->noted == BATCH) && flush(l))
        return -EAGAIN;
    if (small)
        note(p, f);
    else if (p)
        return port_send(p, f, true);
    else
        for (uint64_t left = l->open; left; left &= left - 1)
            port_send(&l->ports[__builtin_ctzll(left)], f, false);
    return 0;
}

/* Message `i` of the batch, as a frame: false when it is none. */
static bool to_frame(struct lan *l, unsigned i, struct net_frame *ret)
{
    size_t len = l->batch[i].msg_len;

    if (len < sizeof(ret->hdr))
        return false;
    l->frame = (struct iovec){l->iovs[i][1].iov_base, len - sizeof(ret->hdr)};
    *ret = (struct net_frame){l->hdrs[i], &l->frame, 1, l->frame.iov_len};
    return net_frame_ok(ret);
}

/* The next frames of a port, which then either has no more or is asked again when all others have had their turn. */
static void receive(struct port *p)
{
    struct lan *l = p->lan;
    int n = recvmmsg(p->fd, l->batch, BATCH, MSG_DONTWAIT, NULL);
    bool ended = n < 0 && errno != EAGAIN && errno != EINTR;
    uint32_t now = seconds();

    l->next = l->got = 0;
    for (; (int)l->got < n && !ended; l->got += !ended) {
        struct net_frame f;

        ended = !l->batch[l->got].msg_len;
        if (!ended && to_frame(l, l->got, &f))
            mac_learn(&l->macs, (uint8_t *)f.iov->iov_base + ETH_ALEN, port_number(p), now);
    }
    if (ended) {
        port_close(p);
    } else if (n < BATCH) {
        l->unread &= ~port_bit(p);
        port_watch(p);
    }
}

/* As if nothing were there: the loop will find that there is. */
static void ask_again(struct lan *l)
{
    uint64_t left = l->unread;

    for (l->unread = 0; left; left &= left - 1)
        port_watch(&l->ports[__builtin_ctzll(left)]);
}

static bool lan_peek(struct net *n, unsigned queue, struct net_frame *ret)
{
    struct lan *l = lan_of(n);

    (void)queue;
    /* As many turns as there are ports, lest one that sends nonsense keeps us here. */
    for (unsigned turns = 0;; turns++) {
        uint64_t from;

        for (; l->next < l->got; l->next++) {
            if (to_frame(l, l->next, ret))
                return true;
            net_drop(n, NET_DROP_MALFORMED);
        }
        from = l->unread >> l->turn << l->turn;
        from = from ? from : l->unread;
        if (!from)
            return false;
        if (turns == PORTS) {
            ask_again(l);
            return false;
        }
        l->turn = (unsigned)__builtin_ctzll(from);
        receive(&l->ports[l->turn]);
        l->turn = (l->turn + 1) % PORTS;
    }
}

static void lan_next(struct net *n, unsigned queue)
{
    (void)queue;
    lan_of(n)->next++;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(take_fd(fd));
}

/* A directory that only this user can look into, made when it is not there. */
static int private_dir(const char *parent, const char *name, int *ret, struct err *err)
{
    cleanup_fd int at = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC), fd = -1;
    struct stat st;

    if (at < 0 || (mkdirat(at, name, 0700) && errno != EEXIST))
        return err_file(err, errno, "directory for lans", parent);
    fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) || st.st_uid != geteuid() || st.st_mode & 077)
        return err_set(err, EACCES,
                       "directory for lans \"%s/%s\" is not one of this user's own with mode 0700; remove it, or set "
                       "XDG_RUNTIME_DIR to a directory of your own",
                       parent, name);
    *ret = take_fd(&fd);
    return 0;
}

/* The same for all VMs of the user, whether they were started in a session or not. */
static int open_dir(int *ret, struct err *err)
{
    const char *session = getenv("XDG_RUNTIME_DIR");
    char path[64], name[32];
    struct stat st;

    if (session && *session)
        return private_dir(session, "bothy", ret, err);
    snprintf(path, sizeof(path), "/run/user/%u", geteuid());
    if (!lstat(path, &st) && S_ISDIR(st.st_mode) && st.st_uid == geteuid())
        return private_dir(path, "bothy", ret, err);
    snprintf(name, sizeof(name), "bothy-%u", geteuid());
    return private_dir("/tmp", name, ret, err);
}

/* One joins at a time, so that any two VMs have exactly one connection. */
static int lock_dir(const struct lan *l, struct err *err)
{
    const struct timespec nap = {.tv_nsec = JOIN_NAP_NS};

    for (unsigned i = 0; flock(l->dir, LOCK_EX | LOCK_NB); i++) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return err_set(err, errno, "lan \"%s\": lock its directory: %s", l->name, strerror(errno));
        if (i == JOIN_TRIES)
            return err_set(err, EBUSY,
                           "lan \"%s\": another VM has begun to join and does not finish; continue it or end it",
                           l->name);
        nanosleep(&nap, NULL);
    }
    return 0;
}

/* By way of the descriptor: it is the directory that was checked, and its path may be of any length. */
static struct sockaddr_un address(const struct lan *l, const char *socket_name)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    snprintf(addr.sun_path, sizeof(addr.sun_path), "/proc/self/fd/%d/%s", l->dir, socket_name);
    return addr;
}

static int new_socket(void)
{
    return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

/* Connects to the VM with that socket, if there is one.  True when the name is free. */
static bool meet(struct lan *l, const char *socket_name)
{
    struct sockaddr_un addr = address(l, socket_name);
    cleanup_fd int fd = -1;
    struct stat st;

    if (fstatat(l->dir, socket_name, &st, AT_SYMLINK_NOFOLLOW))
        return errno == ENOENT;
    fd = S_ISSOCK(st.st_mode) ? new_socket() : -1;
    if (fd >= 0 && !connect(fd, (struct sockaddr *)&addr, sizeof(addr))) {
        port_open(l, take_fd(&fd));
        return false;
    }
    if (fd >= 0 && errno == ECONNREFUSED)
        return !unlinkat(l->dir, socket_name, 0); /* its VM was killed */
    log_msg(LOG_WARN, "%s: lan \"%s\": \"%s\" in its directory is not the socket of a VM that answers", l->net.dev->id,
            l->name, socket_name);
    return false;
}

static int listen_on(struct lan *l, const char *socket_name)
{
    struct sockaddr_un addr = address(l, socket_name);

    l->fd = new_socket();
    if (l->fd < 0 || fchmod(l->fd, 0600) || bind(l->fd, (struct sockaddr *)&addr, sizeof(addr)))
        return -errno;
    strcpy(l->self, socket_name);
    return listen(l->fd, PORTS) ? -errno : 0;
}

static int join(struct lan *l, struct err *err)
{
    char free_name[sizeof(l->self)] = "", socket_name[sizeof(l->self)];
    int rc = lock_dir(l, err);

    if (rc)
        return rc;
    for (unsigned i = 0; i < PORTS; i++) {
        snprintf(socket_name, sizeof(socket_name), "lan.%.*s.%u", NAME_MAX_LEN, l->name, i);
        if (meet(l, socket_name) && !*free_name)
            strcpy(free_name, socket_name);
    }
    if (!*free_name)
        rc = err_set(err, EUSERS, "lan \"%s\" has %d VMs, as many as a lan can have; end one or choose another name",
                     l->name, PORTS);
    else if ((rc = listen_on(l, free_name)))
        err_set(err, -rc, "lan \"%s\": listen for other VMs: %s", l->name, strerror(-rc));
    flock(l->dir, LOCK_UN);
    return rc;
}

static int check_name(const char *name, struct err *err)
{
    size_t len = name ? strlen(name) : 0;

    if (!name)
        return err_set(err, EINVAL, "lan needs a name, the same for all VMs that are to be on it: name=NAME");
    if (!len || len > NAME_MAX_LEN ||
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != len)
        return err_set(err, EINVAL, "lan \"%s\": a name is 1 to %d letters, digits, - and _", name, NAME_MAX_LEN);
    return 0;
}

static int lan_open(struct net *n, struct err *err)
{
    struct lan *l = lan_of(n);
    int rc;

    l->dir = l->fd = -1;
    if (getrandom(&l->macs.seed, sizeof(l->macs.seed), 0) < 0)
        return err_set(err, errno, "lan: random numbers: %s", strerror(errno));
    l->space = xcalloc(BATCH, FRAME_SPACE);
    l->flush = (struct work){.lane = &n->dev->lane, .done = flush_soon};
    for (unsigned i = 0; i < BATCH; i++) {
        l->out_iovs[i][0] = (struct iovec){&l->out_hdrs[i], sizeof(l->out_hdrs[i])};
        l->out_iovs[i][1] = (struct iovec){.iov_base = l->small[i]};
        l->out[i].msg_hdr = (struct msghdr){.msg_iov = l->out_iovs[i], .msg_iovlen = 2};
        l->iovs[i][0] = (struct iovec){&l->hdrs[i], sizeof(l->hdrs[i])};
        l->iovs[i][1] = (struct iovec){l->space + i * FRAME_SPACE, FRAME_SPACE};
        l->batch[i].msg_hdr = (struct msghdr){.msg_iov = l->iovs[i], .msg_iovlen = 2};
    }
    l->patience = (struct timer){.lane = &n->dev->lane, .clk = CLK_HOST, .fire = patience_ends};
    rc = check_name(l->name, err);
    if (!rc)
        rc = open_dir(&l->dir, err);
    if (!rc)
        rc = join(l, err);
    if (rc)
        return rc;
    l->joiner = (struct acceptor){.name = n->dev->id, .accepted = joined};
    acceptor_open(&l->joiner, &n->dev->lane, l->fd);
    return 0;
}

static void lan_close(struct net *n)
{
    struct lan *l = lan_of(n);

    acceptor_close(&l->joiner);
    timer_disarm(&l->patience);
    l->waits = NULL;
    for (uint64_t left = l->used; left; left &= left - 1)
        port_close(&l->ports[__builtin_ctzll(left)]);
    if (*l->self)
        unlinkat(l->dir, l->self, 0);
    close_fd(&l->fd);
    close_fd(&l->dir);
    free(take_ptr(l->space));
}

static const struct opt lan_opts[] = {
    O_STR(struct lan, name, "name", NULL, "the VMs of this user that name the same are connected", .arg = "NAME"),
    O_END,
};

const struct net_class net_lan = {
    .name = "lan",
    .summary = "a switch between the VMs of this user that name the same one",
    .size = sizeof(struct lan),
    .opts = lan_opts,
    .first = "name",
    .takes = ~0ull,
    .peek = lan_peek,
    .next = lan_next,
    .send = lan_send,
    .open = lan_open,
    .close = lan_close,
};
