/*
 * "stream,listen=ADDRESS" or "stream,connect=ADDRESS": a cable between two VMs, or a VM and QEMU's "-netdev stream" or
 * "-netdev socket", over a Unix or TCP connection.  Whoever can connect there is on the network.
 */
#include <stdio.h>
#include <sys/socket.h>

#include "devices/net/conn.h"
#include "vmm/base/listener.h"
#include "vmm/base/log.h"
#include "vmm/base/opt.h"
#include "vmm/loop/acceptor.h"

struct net_socket {
    struct net net;
    char *listen, *connect;
    uint32_t reconnect;
    struct conn conn;
    struct listener listener;
    struct acceptor caller;
};

static struct net_socket *socket_of(struct net *n)
{
    return container_of(n, struct net_socket, net);
}

static void accepted(struct acceptor *a, int fd)
{
    acceptor_listen(a, false); /* the next one waits for this one's end */
    conn_start(&container_of(a, struct net_socket, caller)->conn, fd);
}

static void conn_ended(struct conn *c)
{
    struct net_socket *s = container_of(c, struct net_socket, conn);

    if (s->listen)
        acceptor_listen(&s->caller, true);
}

static int listen_at(struct net_socket *s, const struct address *at, struct err *err)
{
    struct listener *l = &s->listener;
    int on = 1, rc = 0;

    if (at->sa.sa_family == AF_UNIX) {
        rc = listener_open(l, SOCK_STREAM, at->un.sun_path, 1, err);
    } else {
        l->fd = socket(at->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (l->fd < 0 || setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
            bind(l->fd, &at->sa, at->len) || listen(l->fd, 1))
            rc = err_set(err, errno, "listen=%s: %s; choose another address or port", s->listen, strerror(errno));
    }
    if (rc)
        return rc;
    s->caller = (struct acceptor){.name = s->net.dev->id, .accepted = accepted};
    acceptor_open(&s->caller, &s->net.dev->lane, l->fd);
    return 0;
}

static int connect_to(struct net_socket *s, const struct address *to, struct err *err)
{
    int rc = conn_dial(&s->conn, to, s->reconnect);

    if (!rc)
        return 0;
    if (!s->reconnect)
        return err_set(err, -rc, "connect=%s: %s; start the far end first, or let reconnect=SECONDS try again",
                       s->connect, strerror(-rc));
    log_msg(LOG_WARN, "%s: connect=%s: %s; the link is down until the far end is there", s->net.dev->id, s->connect,
            strerror(-rc));
    return 0;
}

static int socket_open(struct net *n, struct err *err)
{
    struct net_socket *s = socket_of(n);
    struct address a;
    int rc;

    s->listener.fd = -1;
    conn_init(&s->conn, n, conn_ended);
    if (!s->listen == !s->connect)
        return err_set(err, EINVAL, "stream needs listen=ADDRESS or connect=ADDRESS, one of the two");
    rc = address_parse(s->listen ? "listen" : "connect", s->listen ? s->listen : s->connect, &a, err);
    if (rc)
        return rc;
    return s->listen ? listen_at(s, &a, err) : connect_to(s, &a, err);
}

static void socket_close(struct net *n)
{
    struct net_socket *s = socket_of(n);

    acceptor_close(&s->caller);
    conn_fini(&s->conn);
    listener_close(&s->listener);
}

static bool socket_peek(struct net *n, unsigned queue, struct net_frame *ret)
{
    (void)queue;
    return conn_peek(&socket_of(n)->conn, ret);
}

static void socket_next(struct net *n, unsigned queue)
{
    (void)queue;
    conn_next(&socket_of(n)->conn);
}

static int socket_send(struct net *n, unsigned queue, struct net_frame *f)
{
    (void)queue;
    return conn_send(&socket_of(n)->conn, f);
}

static const struct opt socket_opts[] = {
    O_STR(struct net_socket, listen, "listen", NULL, "wait here for the far end", .arg = "ADDRESS"),
    O_STR(struct net_socket, connect, "connect", NULL, "the far end, which waits there: unix:PATH or ADDRESS:PORT",
          .arg = "ADDRESS"),
    O_U32(struct net_socket, reconnect, "reconnect", "1", 0, 86400,
          "seconds after which a lost far end is tried again; 0: not again"),
    O_END,
};

const struct net_class net_stream = {
    .name = "stream",
    .summary = "a cable to another VM over a Unix or TCP connection, as QEMU has it",
    .size = sizeof(struct net_socket),
    .opts = socket_opts,
    .peek = socket_peek,
    .next = socket_next,
    .send = socket_send,
    .open = socket_open,
    .close = socket_close,
};
