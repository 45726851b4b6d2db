/*
 * A unix socket that others connect to, at a path that the user gave.  Only its owner can connect; the path is taken
 * when nothing is there but the socket of a process of ours that has ended, and free again afterwards.
 */
#pragma once
#include <sys/stat.h>
#include <sys/un.h>

#include "vmm/base/base.h"
#include "vmm/base/err.h"

struct listener {
    int fd; /* non-blocking; -1: none */
    struct sockaddr_un addr;
    struct stat made; /* what we may remove; st_ino is 0 as long as there is nothing */
};

/* `type` is SOCK_STREAM, or SOCK_DGRAM, which has no use for `backlog`.  On failure listener_close() may follow, and
 * need not. */
int listener_open(struct listener *l, int type, const char *path, int backlog, struct err *err) must_check;
/* Is that a socket which a process of ours left behind that ended without tidying up? */
bool listener_is_stale(const struct sockaddr_un *addr, int type);
/* Copes with one that is all zeroes but for fd, -1. */
void listener_close(struct listener *l);
