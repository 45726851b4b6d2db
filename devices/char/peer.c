#include "devices/char/peer.h"

#include <sys/ioctl.h>

#include "vmm/base/cleanup.h"

static void disconnect(struct peer *p)
{
    if (p->fd < 0)
        return;
    watch_del(&p->watch);
    if (p->gone)
        p->gone(p);
    p->fd = -1;
    p->c->connected = false;
    chardev_tell(p->c, CHARDEV_CONNECTED);
}

/* The client takes no more.  If it has left input that somebody will read, the end of that ends the connection. */
static void hang_up(struct peer *p)
{
    int unread = 0;

    p->hung_up = true;
    watch_set(&p->watch, 0);
    chardev_tell(p->c, CHARDEV_READABLE | CHARDEV_WRITABLE);
    if (ioctl(p->fd, FIONREAD, &unread) || !unread || !p->c->user || !p->c->user->readable)
        disconnect(p);
}

/* Sends what the client has not got yet; waits for room if there is none. */
static void flush(struct peer *p)
{
    while (peer_listens(p) && p->sent < p->head) {
        size_t at = p->sent % PEER_REPLAY;
        ssize_t r = write(p->fd, p->ring + at, min_u64(p->head - p->sent, PEER_REPLAY - at));

        if (r >= 0) {
            p->sent += (uint64_t)r;
        } else if (errno == EAGAIN) {
            watch_set(&p->watch, p->watch.events | EPOLLOUT);
            return;
        } else if (errno != EINTR) {
            hang_up(p);
        }
    }
}

/* Each wish is for once, lest a front end without room keeps the loop busy.  EPOLLHUP is watched all the time. */
static void ready(struct watch *w, uint32_t revents)
{
    struct peer *p = container_of(w, struct peer, watch);

    watch_set(w, w->events & ~(revents & (EPOLLIN | EPOLLOUT)));
    if (revents & EPOLLIN)
        chardev_tell(p->c, CHARDEV_READABLE);
    if (revents & EPOLLOUT) {
        flush(p);
        chardev_tell(p->c, CHARDEV_WRITABLE);
    }
    if (revents & (EPOLLHUP | EPOLLERR) && peer_listens(p))
        hang_up(p);
}

void peer_init(struct peer *p, struct chardev *c, void (*gone)(struct peer *p))
{
    *p = (struct peer){.c = c, .fd = -1, .ring = xcalloc(1, PEER_REPLAY), .gone = gone};
    c->connected = false;
}

void peer_fini(struct peer *p)
{
    if (!p->ring)
        return;
    disconnect(p);
    free(p->ring);
}

void peer_connect(struct peer *p, int fd)
{
    assert(!peer_listens(p));
    disconnect(p);
    p->fd = fd;
    p->hung_up = p->ended = false;
    p->sent = p->head - min_u64(p->head, PEER_REPLAY);
    p->watch = (struct watch){.lane = &p->c->dev->lane, .fd = fd, .events = EPOLLIN | EPOLLHUP, .ready = ready};
    watch_add(&p->watch);
    p->c->connected = true;
    chardev_tell(p->c, CHARDEV_CONNECTED);
    flush(p);
}

ssize_t peer_read(struct peer *p, void *buf, size_t n)
{
    ssize_t r;

    if (p->fd < 0 || p->ended)
        return -EPIPE;
    do
        r = read(p->fd, buf, n);
    while (r < 0 && errno == EINTR);
    if (r > 0)
        return r;
    if (r < 0 && errno == EAGAIN && !p->hung_up) {
        watch_set(&p->watch, p->watch.events | EPOLLIN);
        return 0;
    }
    p->ended = true; /* but who has closed half of a socket may still listen */
    if (r < 0 || p->hung_up)
        disconnect(p);
    return -EPIPE;
}

size_t peer_write(struct peer *p, const void *buf, size_t n)
{
    size_t done = 0;

    while (done < n) {
        size_t at = p->head % PEER_REPLAY;
        size_t room = peer_listens(p) ? PEER_REPLAY - (p->head - p->sent) : PEER_REPLAY;
        size_t take = min_u64(min_u64(n - done, room), PEER_REPLAY - at);

        if (!take)
            break; /* flush() waits for room */
        memcpy(p->ring + at, (const char *)buf + done, take);
        p->head += take;
        done += take;
        flush(p);
    }
    return done;
}
