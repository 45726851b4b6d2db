/*
 * A connection that carries frames, as QEMU and passt do it: in a stream of bytes each frame is preceded by its length,
 * 32 bits, big-endian.  It ends when the far end closes it or announces what cannot be a frame; then another may
 * follow.
 */
#pragma once
#include "devices/net/address.h"
#include "devices/net/backend.h"
#include "vmm/base/log.h"

struct conn {
    struct net *net;               /* borrowed */
    void (*ended)(struct conn *c); /* the far end is gone; NULL: does not care */
    int fd;                        /* -1: nobody there */
    struct watch watch;
    bool unread;         /* there is more to receive than was asked for */
    uint8_t *in, *out;   /* bytes received; the frame that the far end has not wholly taken */
    size_t at, end;      /* of `in`, what was not handed out */
    size_t sent, queued; /* of `out` */
    struct iovec frame;
    struct address to; /* of who is called */
    uint32_t redial_s; /* 0: once only */
    int dialing;       /* a socket not yet connected, or -1 */
    struct watch answer;
    struct timer redial;
    struct log_limit logs; /* of what the far end does wrong */
};

/* The link goes down: nobody is there. */
void conn_init(struct conn *c, struct net *n, void (*ended)(struct conn *c));
void conn_fini(struct conn *c); /* copes with one that is all zeroes; ended() is not called */
/* `fd` is a connected socket that does not block, and becomes the connection's.  The link goes up. */
void conn_start(struct conn *c, int fd);
/* Connects to `to`, and from then on again some seconds after each end or failure, unless these are 0.  0 or the first
 * failure. */
int conn_dial(struct conn *c, const struct address *to, uint32_t redial_s);
/* As the functions of struct net_class. */
bool conn_peek(struct conn *c, struct net_frame *ret);
void conn_next(struct conn *c);
int conn_send(struct conn *c, struct net_frame *f);
