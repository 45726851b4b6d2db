/*
 * Output to a descriptor that nobody may come back to, such as standard output or a file.  It never waits: what has no
 * room is left to the caller.  When the other end is gone or the disk is full that is logged once, and all after is
 * dropped.
 */
#pragma once
#include "devices/char/backend.h"

struct sink {
    struct chardev *c; /* borrowed; hears of room (CHARDEV_WRITABLE) */
    int fd;            /* owned */
    struct watch room;
    bool dead;
};

void sink_init(struct sink *s, struct chardev *c, int fd);
void sink_fini(struct sink *s);
/* Bytes taken, as chardev_write(). */
size_t sink_write(struct sink *s, const void *buf, size_t n);
