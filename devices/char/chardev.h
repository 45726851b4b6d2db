/*
 * Character backends: where a serial port's or a console's bytes come from and go to.  The front end pulls: it reads
 * when it has room, so a slow guest is back-pressure and never loss.  The process must ignore SIGPIPE.
 *
 * Text form, as after --console and --serial: "stdio", "null", "file:PATH", "pty", "pty:LINK", "unix:PATH", "fd:N".
 */
#pragma once
#include "devices/core/device.h"

/* For the `arg` of options that take one. */
#define CHARDEV_ARG "stdio|null|file:PATH|pty[:LINK]|unix:PATH|fd:N"

struct chardev;

/*
 * The front end, embedded in its device.  All in the device's lane.  readable() and writable() come after a read or
 * write that could not have all it wanted; both may come in vain.
 */
struct chardev_user {
    void (*readable)(struct chardev_user *u);                              /* read may have bytes; NULL: never reads */
    void (*writable)(struct chardev_user *u);                              /* write may take bytes again */
    void (*resized)(struct chardev_user *u, uint16_t cols, uint16_t rows); /* NULL: does not care */
    void (*connected)(struct chardev_user *u, bool yes);                   /* a client came or went; NULL: as above */
};

/* From the init of `dev`, whose lane and environment it uses and whose id it names in messages. */
int chardev_open(const char *spec, struct device *dev, struct chardev **ret, struct err *err) must_check;
/* In the lane or with no loop running.  Accepts NULL. */
void chardev_close(struct chardev *c);
/*
 * Once, before any read or write; `u` outlives `c`.  readable() follows when there are bytes already, as do resized()
 * and connected() with how things stand; never from inside.
 */
void chardev_attach(struct chardev *c, struct chardev_user *u);
/* Bytes read; 0: none now, readable() follows; -EPIPE: none until connected() or, for files and pipes, for ever. */
ssize_t chardev_read(struct chardev *c, void *buf, size_t n);
/* Bytes taken; less than n: no room now, writable() follows.  With nobody there all are taken, kept to be replayed
 * where the backend does that, and dropped elsewhere. */
size_t chardev_write(struct chardev *c, const void *buf, size_t n);
