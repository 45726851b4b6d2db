/*
 * "dgram,local=ADDRESS,remote=ADDRESS": a cable to another VM, or to QEMU's "-netdev dgram", whose frames are datagrams
 * of Unix sockets or UDP.  A Unix socket has room for few, ten by default, so a sender waits for it.  What the far end
 * of UDP has no room for is lost, as on any network.
 */
#include <net/ethernet.h>
#include <sys/socket.h>

#include "devices/net/address.h"
#include "devices/net/backend.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/listener.h"
#include "vmm/base/opt.h"

enum { READS = 64 }; /* in a row, lest one that sends nonsense keeps us */

struct dgram {
    struct net net;
    char *local_text, *remote_text;
    struct address remote;
    struct listener listener; /* our socket */
    struct watch watch;
    /* Unix: another, connected to the far end while there is one, since only so it tells when there is room. */
    struct watch out; /* fd -1: none */
    uint8_t *in;
    size_t len; /* of the frame there; 0: none */
    struct iovec frame;
};

static struct dgram *dgram_of(struct net *n)
{
    return container_of(n, struct dgram, net);
}

static void ready(struct watch *w, uint32_t revents)
{
    struct dgram *d = container_of(w, struct dgram, watch);

    (void)revents;
    d->net.user->readable(d->net.user, 0);
    if (d->len)
        watch_set(w, 0); /* no room in the guest */
}

/* Who else sends to our port is nobody.  The file system says who may send to a Unix socket. */
static bool is_remote(const struct dgram *d, const struct address *from)
{
    const struct address *r = &d->remote;

    if (r->sa.sa_family == AF_INET)
        return from->in.sin_port == r->in.sin_port && from->in.sin_addr.s_addr == r->in.sin_addr.s_addr;
    if (r->sa.sa_family == AF_INET6)
        return from->in6.sin6_port == r->in6.sin6_port &&
               !memcmp(&from->in6.sin6_addr, &r->in6.sin6_addr, sizeof(r->in6.sin6_addr));
    return true;
}

static bool dgram_peek(struct net *n, unsigned queue, struct net_frame *ret)
{
    struct dgram *d = dgram_of(n);

    (void)queue;
    for (unsigned i = 0; !d->len && i < READS; i++) {
        struct address from = {.len = sizeof(from.un)};
        ssize_t r = recvfrom(d->listener.fd, d->in, NET_FRAME_MAX + 1, MSG_DONTWAIT, &from.sa, &from.len);

        /* Other errors are about a datagram that we sent and nobody wanted. */
        if (r < 0 && errno == EAGAIN)
            break;
        if (r >= ETH_HLEN && r <= NET_FRAME_MAX && is_remote(d, &from))
            d->len = (size_t)r;
        else if (r >= 0)
            net_drop(n, NET_DROP_MALFORMED);
    }
    if (!d->len) {
        if (!d->watch.events)
            watch_set(&d->watch, EPOLLIN);
        return false;
    }
    d->frame = (struct iovec){d->in, d->len};
    *ret = (struct net_frame){.iov = &d->frame, .niov = 1, .len = d->len};
    return true;
}

static void dgram_next(struct net *n, unsigned queue)
{
    (void)queue;
    dgram_of(n)->len = 0;
}

static void has_room(struct watch *w, uint32_t revents)
{
    struct net_user *u = container_of(w, struct dgram, out)->net.user;

    (void)revents;
    watch_set(w, 0);
    u->writable(u, 0);
}

static bool send_to(const struct dgram *d, const struct net_frame *f)
{
    struct msghdr m = {.msg_iov = f->iov, .msg_iovlen = f->niov};

    if (d->out.fd < 0) {
        m.msg_name = (void *)&d->remote.sa;
        m.msg_namelen = d->remote.len;
    }
    return sendmsg(d->out.fd < 0 ? d->listener.fd : d->out.fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0;
}

static int dgram_send(struct net *n, unsigned queue, struct net_frame *f)
{
    struct dgram *d = dgram_of(n);

    (void)queue;
    if (send_to(d, f))
        return 0;
    /* The far end has come, or come again. */
    if (d->out.fd >= 0 && (errno == ENOTCONN || errno == ECONNREFUSED) &&
        !connect(d->out.fd, &d->remote.sa, d->remote.len) && send_to(d, f))
        return 0;
    if (d->out.fd >= 0 && errno == EAGAIN) {
        watch_set(&d->out, EPOLLOUT);
        return -EAGAIN;
    }
    net_drop(n, errno == EAGAIN || errno == ENOBUFS ? NET_DROP_FULL : NET_DROP_PEER);
    return 0;
}

static int open_out(struct dgram *d, struct err *err)
{
    d->out.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (d->out.fd < 0)
        return err_set(err, errno, "remote=%s: %s", d->remote_text, strerror(errno));
    watch_add(&d->out);
    return 0;
}

static int bind_local(struct dgram *d, const struct address *local, struct err *err)
{
    if (local->sa.sa_family == AF_UNIX)
        return listener_open(&d->listener, SOCK_DGRAM, local->un.sun_path, 0, err);
    d->listener.fd = socket(local->sa.sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (d->listener.fd < 0 || bind(d->listener.fd, &local->sa, local->len))
        return err_set(err, errno, "local=%s: %s; choose another address or port", d->local_text, strerror(errno));
    return 0;
}

static int dgram_open(struct net *n, struct err *err)
{
    struct dgram *d = dgram_of(n);
    struct address local;
    int rc;

    d->listener.fd = -1;
    d->out = (struct watch){.lane = &n->dev->lane, .fd = -1, .ready = has_room};
    if (!d->local_text || !d->remote_text)
        return err_set(err, EINVAL, "dgram needs local=ADDRESS and remote=ADDRESS");
    rc = address_parse("local", d->local_text, &local, err);
    if (!rc)
        rc = address_parse("remote", d->remote_text, &d->remote, err);
    if (rc)
        return rc;
    if (local.sa.sa_family != d->remote.sa.sa_family)
        return err_set(err, EINVAL, "local=%s and remote=%s are addresses of different kinds; they must be of one",
                       d->local_text, d->remote_text);
    rc = bind_local(d, &local, err);
    if (!rc && local.sa.sa_family == AF_UNIX)
        rc = open_out(d, err);
    if (rc)
        return rc;
    d->in = xcalloc(1, NET_FRAME_MAX + 1);
    d->watch = (struct watch){.lane = &n->dev->lane, .fd = d->listener.fd, .events = EPOLLIN, .ready = ready};
    watch_add(&d->watch);
    return 0;
}

static void dgram_close(struct net *n)
{
    struct dgram *d = dgram_of(n);

    watch_del(&d->watch);
    watch_del(&d->out);
    if (d->out.fd >= 0)
        close(d->out.fd);
    listener_close(&d->listener);
    free(take_ptr(d->in));
}

static const struct opt dgram_opts[] = {
    O_STR(struct dgram, local_text, "local", NULL, "where frames come in: unix:PATH or ADDRESS:PORT", .arg = "ADDRESS"),
    O_STR(struct dgram, remote_text, "remote", NULL, "where they go to, and who may send any", .arg = "ADDRESS"),
    O_END,
};

const struct net_class net_dgram = {
    .name = "dgram",
    .summary = "a cable to another VM in Unix or UDP datagrams, as QEMU has it",
    .size = sizeof(struct dgram),
    .opts = dgram_opts,
    .peek = dgram_peek,
    .next = dgram_next,
    .send = dgram_send,
    .open = dgram_open,
    .close = dgram_close,
};
