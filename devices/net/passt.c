/*
 * "passt" or "passt,socket=PATH": the host's networks by way of a running passt(1), which has them in another process.
 * It speaks as QEMU's stream does.
 */
#include "devices/net/conn.h"
#include "vmm/base/opt.h"

enum {
    REDIAL_S = 1,
    MTU = 65520, /* what passt tells guests unless it is told otherwise */
};

struct passt {
    struct net net;
    char *socket;
    struct conn conn;
};

static struct passt *passt_of(struct net *n)
{
    return container_of(n, struct passt, net);
}

static int passt_open(struct net *n, struct err *err)
{
    struct passt *p = passt_of(n);
    struct address to;
    int rc;

    conn_init(&p->conn, n, NULL);
    n->lim.mtu = MTU;
    rc = address_of_path(p->socket, &to, err);
    if (rc)
        return rc;
    rc = conn_dial(&p->conn, &to, REDIAL_S);
    if (rc)
        return err_set(err, -rc, "passt does not answer at \"%s\": %s; start it (passt), or say socket=PATH", p->socket,
                       strerror(-rc));
    return 0;
}

static void passt_close(struct net *n)
{
    conn_fini(&passt_of(n)->conn);
}

static bool passt_peek(struct net *n, unsigned queue, struct net_frame *ret)
{
    (void)queue;
    return conn_peek(&passt_of(n)->conn, ret);
}

static void passt_next(struct net *n, unsigned queue)
{
    (void)queue;
    conn_next(&passt_of(n)->conn);
}

static int passt_send(struct net *n, unsigned queue, struct net_frame *f)
{
    (void)queue;
    return conn_send(&passt_of(n)->conn, f);
}

static const struct opt passt_opts[] = {
    O_STR(struct passt, socket, "socket", "/tmp/passt_1.socket", "where passt waits; the default is its own",
          .arg = "FILE"),
    O_END,
};

const struct net_class net_passt = {
    .name = "passt",
    .summary = "the host's networks by way of a running passt",
    .size = sizeof(struct passt),
    .opts = passt_opts,
    .peek = passt_peek,
    .next = passt_next,
    .send = passt_send,
    .open = passt_open,
    .close = passt_close,
};
