/*
 * Character backends: where a serial port's or a console's bytes come from and go to.  The front end pulls: it asks for
 * bytes when it has room, so a slow guest is back-pressure and never loss.
 *
 * Text form, as after --console and --serial: "stdio", "null", "file:PATH", "pty", "unix:PATH".
 */
#pragma once
#include "devices/core/device.h"

struct chardev;

struct chardev_user {
    void (*readable)(struct chardev_user *u);                              /* chardev_read may have bytes */
    void (*writable)(struct chardev_user *u);                              /* chardev_write may take bytes again */
    void (*resized)(struct chardev_user *u, uint16_t cols, uint16_t rows); /* may be NULL */
};

/* `lane` is the front end's: callbacks come in it.  The user is attached with chardev_attach, once, and outlives it. */
int chardev_open(const char *spec, struct lane *lane, struct chardev **ret, struct err *err) must_check;
void chardev_close(struct chardev *c); /* accepts NULL; in the lane or with no loop running */
void chardev_attach(struct chardev *c, struct chardev_user *u);
/* Bytes read, 0 for none now (readable() follows), -EPIPE when nobody is there.  In the lane, as write. */
ssize_t chardev_read(struct chardev *c, void *buf, size_t n);
/* Bytes taken, 0 for none now (writable() follows). With nobody connected all are taken and dropped. */
ssize_t chardev_write(struct chardev *c, const void *buf, size_t n);
