/* "unix:PATH": a listening socket that only its owner can use, for one client at a time. */
#include <sys/socket.h>
#include <unistd.h>

#include "devices/char/peer.h"
#include "vmm/base/clock.h"
#include "vmm/base/listener.h"
#include "vmm/base/log.h"

struct unix_socket {
    struct chardev c;
    struct peer peer;
    struct listener listener;
    struct watch client;
    struct timer retry; /* when the host had no descriptor left to accept with */
};

static void client_gone(struct peer *p)
{
    close(p->fd);
}

static void accept_client(struct watch *w, uint32_t revents)
{
    static const char busy[] = "bothy: another client is connected\r\n";
    struct unix_socket *u = container_of(w, struct unix_socket, client);
    int fd = accept4(u->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    (void)revents;
    if (fd >= 0 && !peer_listens(&u->peer)) {
        peer_connect(&u->peer, fd);
    } else if (fd >= 0) {
        if (write(fd, busy, sizeof(busy) - 1) < 0)
            log_msg(LOG_DEBUG, "%s: second client left at once", u->c.dev->id);
        close(fd);
    } else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
        log_msg(LOG_WARN, "%s: accept a client: %s", u->c.dev->id, strerror(errno));
        watch_set(w, 0);
        timer_arm(&u->retry, loop_now(u->c.dev->lane.loop, CLK_HOST) + NS_PER_SEC);
    }
}

static void retry(struct timer *t)
{
    watch_set(&container_of(t, struct unix_socket, retry)->client, EPOLLIN);
}

static int unix_open(struct chardev *c, const char *path, struct err *err)
{
    struct unix_socket *u = container_of(c, struct unix_socket, c);
    int r;

    r = listener_open(&u->listener, SOCK_STREAM, path, 1, err);
    if (r)
        return r;
    peer_init(&u->peer, c, client_gone);
    u->client = (struct watch){.lane = &c->dev->lane, .fd = u->listener.fd, .events = EPOLLIN, .ready = accept_client};
    u->retry = (struct timer){.lane = &c->dev->lane, .clk = CLK_HOST, .fire = retry};
    watch_add(&u->client);
    return 0;
}

static void unix_close(struct chardev *c)
{
    struct unix_socket *u = container_of(c, struct unix_socket, c);

    watch_del(&u->client);
    timer_disarm(&u->retry);
    peer_fini(&u->peer);
    listener_close(&u->listener);
}

static ssize_t unix_read(struct chardev *c, void *buf, size_t n)
{
    return peer_read(&container_of(c, struct unix_socket, c)->peer, buf, n);
}

static size_t unix_write(struct chardev *c, const void *buf, size_t n)
{
    return peer_write(&container_of(c, struct unix_socket, c)->peer, buf, n);
}

const struct chardev_class chardev_unix = {
    .name = "unix",
    .arg = "PATH",
    .size = sizeof(struct unix_socket),
    .open = unix_open,
    .close = unix_close,
    .read = unix_read,
    .write = unix_write,
};
