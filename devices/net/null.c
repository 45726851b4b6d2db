/* A network that nobody else is on: the link is up, what is sent is gone, nothing arrives. */
#include "devices/net/backend.h"

static bool null_peek(struct net *n, unsigned queue, struct net_frame *ret)
{
    (void)n;
    (void)queue;
    (void)ret;
    return false;
}

static void null_next(struct net *n, unsigned queue)
{
    (void)n;
    (void)queue;
}

static int null_send(struct net *n, unsigned queue, struct net_frame *f)
{
    (void)n;
    (void)queue;
    (void)f;
    return 0;
}

static int null_open(struct net *n, struct err *err)
{
    (void)err;
    n->lim.queues = NET_QUEUES_MAX;
    return 0;
}

static void null_close(struct net *n)
{
    (void)n;
}

const struct net_class net_null = {
    .name = "null",
    .summary = "a network that nobody else is on",
    .size = sizeof(struct net),
    .takes = ~0ull,
    .peek = null_peek,
    .next = null_next,
    .send = null_send,
    .open = null_open,
    .close = null_close,
};
