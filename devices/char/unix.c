/* "unix:PATH": a listening socket that only its owner can use, for one client at a time. */
#include <sys/socket.h>
#include <unistd.h>

#include "devices/char/peer.h"
#include "vmm/base/listener.h"
#include "vmm/base/log.h"
#include "vmm/loop/acceptor.h"

struct unix_socket {
    struct chardev c;
    struct peer peer;
    struct listener listener;
    struct acceptor client;
};

static void client_gone(struct peer *p)
{
    close(p->fd);
}

static void accepted(struct acceptor *a, int fd)
{
    static const char busy[] = "bothy: another client is connected\r\n";
    struct unix_socket *u = container_of(a, struct unix_socket, client);

    if (!peer_listens(&u->peer)) {
        peer_connect(&u->peer, fd);
        return;
    }
    if (write(fd, busy, sizeof(busy) - 1) < 0)
        log_msg(LOG_DEBUG, "%s: second client left at once", u->c.dev->id);
    close(fd);
}

static int unix_open(struct chardev *c, const char *path, struct err *err)
{
    struct unix_socket *u = container_of(c, struct unix_socket, c);
    int r;

    r = listener_open(&u->listener, SOCK_STREAM, path, 1, err);
    if (r)
        return r;
    peer_init(&u->peer, c, client_gone);
    u->client = (struct acceptor){.name = c->dev->id, .accepted = accepted};
    acceptor_open(&u->client, &c->dev->lane, u->listener.fd);
    return 0;
}

static void unix_close(struct chardev *c)
{
    struct unix_socket *u = container_of(c, struct unix_socket, c);

    acceptor_close(&u->client);
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
