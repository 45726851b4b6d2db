/*
 * A client that comes and goes, at the other end of a socket or pseudo-terminal.  The last PEER_REPLAY bytes of output
 * are kept, so that who comes late sees what went before; a client that reads slowly holds the guest up, an absent one
 * does not.
 */
#pragma once
#include "devices/char/backend.h"

enum { PEER_REPLAY = 64 << 10 };

struct peer {
    struct chardev *c;            /* borrowed */
    void (*gone)(struct peer *p); /* the client's descriptor is not used any more; may be NULL */
    int fd;                       /* borrowed, non-blocking; -1: nobody there */
    bool hung_up;                 /* it is gone, but may have left input that is not read yet */
    bool ended;                   /* it sends no more */
    uint64_t head, sent;          /* bytes of output: all there ever were, and those that the client has */
    char *ring;                   /* the last PEER_REPLAY of them */
    struct watch watch;
};

void peer_init(struct peer *p, struct chardev *c, void (*gone)(struct peer *p));
void peer_fini(struct peer *p); /* copes with a peer that is all zeroes */
/* Is a client there that takes what we write? */
static inline bool peer_listens(const struct peer *p)
{
    return p->fd >= 0 && !p->hung_up;
}
/* Replays to a client in place of one that listens no more.  Nobody must be listening. */
void peer_connect(struct peer *p, int fd);
/* As chardev_read() and chardev_write(). */
ssize_t peer_read(struct peer *p, void *buf, size_t n);
size_t peer_write(struct peer *p, const void *buf, size_t n);
