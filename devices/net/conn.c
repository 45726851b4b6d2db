#include "devices/net/conn.h"

#include <net/ethernet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"

enum {
    PREFIX = 4,
    IN_SPACE = 256 << 10,
    FRAME_SPACE = PREFIX + NET_FRAME_MAX,
    READS = 4, /* in a row, lest one that sends nonsense keeps us */
};
static_assert(IN_SPACE >= 2 * FRAME_SPACE, "there is room to read into behind most of a frame");

static void close_it(struct conn *c)
{
    watch_del(&c->watch);
    close(take_fd(&c->fd));
    c->at = c->end = c->sent = c->queued = 0;
    c->unread = false;
}

static int dial(struct conn *c);

static void redial(struct timer *t)
{
    dial(container_of(t, struct conn, redial));
}

void conn_init(struct conn *c, struct net *n, void (*ended)(struct conn *c))
{
    *c = (struct conn){.net = n, .ended = ended, .fd = -1, .dialing = -1};
    c->in = xcalloc(1, IN_SPACE);
    c->out = xcalloc(1, FRAME_SPACE);
    c->redial = (struct timer){.lane = &n->dev->lane, .clk = CLK_HOST, .fire = redial};
    if (n->user->link)
        n->user->link(n->user, false);
}

void conn_fini(struct conn *c)
{
    if (!c->net)
        return;
    timer_disarm(&c->redial);
    watch_del(&c->answer);
    if (c->dialing >= 0)
        close(c->dialing);
    if (c->fd >= 0)
        close_it(c);
    free(take_ptr(c->in));
    free(take_ptr(c->out));
}

static void try_later(struct conn *c)
{
    if (c->redial_s)
        timer_arm(&c->redial, loop_now(c->net->dev->lane.loop, CLK_HOST) + c->redial_s * NS_PER_SEC);
}

static void hang_up(struct conn *c)
{
    struct net_user *u = c->net->user;

    close_it(c);
    if (u->link)
        u->link(u, false);
    u->writable(u, 0); /* frames are lost from now on, and none waits */
    try_later(c);
    if (c->ended)
        c->ended(c);
}

/* What we wait for.  Frames that the guest has no room for are not asked for again, lest they keep the loop busy. */
static void set_watch(struct conn *c)
{
    uint32_t events = (c->unread ? 0 : EPOLLIN) | (c->queued ? EPOLLOUT : 0);

    if (c->watch.events != events)
        watch_set(&c->watch, events);
}

/* Sends the rest of the frame before.  False: the far end still does not take it. */
static bool flush(struct conn *c)
{
    while (c->sent < c->queued) {
        ssize_t r = send(c->fd, c->out + c->sent, c->queued - c->sent, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0 && errno == EAGAIN)
            return false;
        if (r < 0)
            break; /* the reader learns of it, too, and ends the connection */
        c->sent += (size_t)r;
    }
    c->sent = c->queued = 0;
    return true;
}

static void ready(struct watch *w, uint32_t revents)
{
    struct conn *c = container_of(w, struct conn, watch);
    struct net_user *u = c->net->user;

    if (revents & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        c->unread = true;
        u->readable(u, 0);
    }
    if (c->fd >= 0 && revents & EPOLLOUT && flush(c))
        u->writable(u, 0);
    if (c->fd >= 0)
        set_watch(c);
}

/* Where it is TCP: nothing waits for more, and a machine that is gone without a word is missed within a minute. */
static void tune(int fd)
{
    static const struct {
        int level, name, value;
    } options[] = {
        {IPPROTO_TCP, TCP_NODELAY, 1},   {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, 20}, {IPPROTO_TCP, TCP_KEEPINTVL, 10},
        {IPPROTO_TCP, TCP_KEEPCNT, 3},   {IPPROTO_TCP, TCP_USER_TIMEOUT, 50000 /* ms */},
    };

    for (size_t i = 0; i < array_len(options); i++)
        setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof(options[i].value));
}

void conn_start(struct conn *c, int fd)
{
    struct net_user *u = c->net->user;

    assert(c->fd < 0);
    c->fd = fd;
    tune(fd);
    c->watch = (struct watch){.lane = &c->net->dev->lane, .fd = fd, .events = EPOLLIN, .ready = ready};
    watch_add(&c->watch);
    if (u->link)
        u->link(u, true);
}

/* Reads what fits behind the part of a frame that is there.  False: there is nothing, or nobody any more. */
static bool receive(struct conn *c)
{
    ssize_t r;

    if (c->at == c->end)
        c->at = c->end = 0;
    if (c->at && IN_SPACE - c->at < FRAME_SPACE) {
        memmove(c->in, c->in + c->at, c->end - c->at);
        c->end -= c->at;
        c->at = 0;
    }
    do
        r = recv(c->fd, c->in + c->end, IN_SPACE - c->end, MSG_DONTWAIT);
    while (r < 0 && errno == EINTR);
    if (r > 0) {
        c->end += (size_t)r;
        return true;
    }
    if (r == 0 || errno != EAGAIN)
        hang_up(c);
    return false;
}

bool conn_peek(struct conn *c, struct net_frame *ret)
{
    unsigned reads = 0;

    while (c->fd >= 0) {
        size_t there = c->end - c->at;
        uint32_t len = there < PREFIX ? 0 : get_be32(c->in + c->at);

        if (len > NET_FRAME_MAX) {
            log_guest(&c->logs, "%s: the far end of %s announced a frame of %u bytes; disconnected it", c->net->dev->id,
                      c->net->cls->name, len);
            hang_up(c);
        } else if (there < PREFIX || there - PREFIX < len) {
            if (reads++ == READS || !receive(c))
                break;
        } else if (len < ETH_HLEN) {
            net_drop(c->net, NET_DROP_MALFORMED);
            c->at += PREFIX + len;
        } else {
            c->frame = (struct iovec){c->in + c->at + PREFIX, len};
            *ret = (struct net_frame){.iov = &c->frame, .niov = 1, .len = len};
            return true;
        }
    }
    if (c->fd >= 0) { /* if there is more all the same, the loop says so */
        c->unread = false;
        set_watch(c);
    }
    return false;
}

void conn_next(struct conn *c)
{
    c->at += PREFIX + get_be32(c->in + c->at);
}

int conn_send(struct conn *c, struct net_frame *f)
{
    uint8_t prefix[PREFIX];
    struct iovec iov[NET_IOV_MAX + 1] = {{prefix, PREFIX}};
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = f->niov + 1};
    ssize_t r;

    if (c->fd < 0) {
        net_drop(c->net, NET_DROP_DOWN);
        return 0;
    }
    if (!flush(c))
        return -EAGAIN;
    put_be32(prefix, (uint32_t)f->len);
    memcpy(iov + 1, f->iov, f->niov * sizeof(*iov));
    r = sendmsg(c->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (r < 0 && errno != EAGAIN) {
        net_drop(c->net, NET_DROP_PEER);
        return 0;
    }
    if (r < (ssize_t)(PREFIX + f->len)) {
        /* The far end has no room: what it has not taken of one frame waits here, the next one waits in the NIC. */
        iov_get(iov, 0, c->out, PREFIX + f->len);
        c->sent = r < 0 ? 0 : (size_t)r;
        c->queued = PREFIX + f->len;
        set_watch(c);
    }
    return 0;
}

static void answered(struct watch *w, uint32_t revents)
{
    struct conn *c = container_of(w, struct conn, answer);
    int fd = take_fd(&c->dialing), code = 0;
    socklen_t len = sizeof(code);

    (void)revents;
    watch_del(w);
    if (!getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &len) && !code) {
        conn_start(c, fd);
    } else {
        close(fd);
        try_later(c);
    }
}

/* 0: connected, or will be; else it is tried again. */
static int dial(struct conn *c)
{
    cleanup_fd int fd = socket(c->to.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd >= 0 && !connect(fd, &c->to.sa, c->to.len)) {
        conn_start(c, take_fd(&fd));
        return 0;
    }
    if (fd < 0 || errno != EINPROGRESS) {
        int code = errno;

        try_later(c);
        return -code;
    }
    c->dialing = take_fd(&fd);
    c->answer = (struct watch){.lane = &c->net->dev->lane, .fd = c->dialing, .events = EPOLLOUT, .ready = answered};
    watch_add(&c->answer);
    return 0;
}

int conn_dial(struct conn *c, const struct address *to, uint32_t redial_s)
{
    c->to = *to;
    c->redial_s = redial_s;
    return dial(c);
}
