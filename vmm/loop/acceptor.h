/*
 * Who comes to a listening socket, in a lane.  Where the host has no descriptor left, that is told, and tried again in
 * a second: epoll would report the one who waits for ever.
 */
#pragma once
#include "vmm/loop/loop.h"

/* Embedded in its owner, which sets the first two.  All calls in the lane, or before its loop runs. */
struct acceptor {
    const char *name;                             /* borrowed: whose socket it is, for the log */
    void (*accepted)(struct acceptor *a, int fd); /* `fd` does not block, and is the owner's */

    struct watch watch; /* private, as all below */
    struct timer retry;
};

/* `fd` listens and does not block; borrowed. */
void acceptor_open(struct acceptor *a, struct lane *lane, int fd);
/* Whether the next one may come in, or has to wait. */
void acceptor_listen(struct acceptor *a, bool on);
/* accepted() will not be called again.  Copes with one that is all zeroes. */
void acceptor_close(struct acceptor *a);
