/* What the backends share among themselves: the class table's rows and the struct that each of them embeds. */
#pragma once
#include "devices/char/chardev.h"

struct chardev_class {
    const char *name;
    const char *arg; /* what stands after "name:"; in brackets when it may be left out; NULL: nothing does */
    size_t size;     /* of the backend's struct, which starts with struct chardev */
    int (*open)(struct chardev *c, const char *arg, struct err *err); /* on failure close() follows.  NULL: no need */
    void (*close)(struct chardev *c);                                 /* copes with half an open.  NULL: no need */
    ssize_t (*read)(struct chardev *c, void *buf, size_t n);          /* NULL: nothing ever comes */
    size_t (*write)(struct chardev *c, const void *buf, size_t n);
};

extern const struct chardev_class chardev_stdio, chardev_null, chardev_file, chardev_pty, chardev_unix, chardev_fd;

enum chardev_event {
    CHARDEV_READABLE = 1 << 0,
    CHARDEV_WRITABLE = 1 << 1,
    CHARDEV_RESIZED = 1 << 2,   /* cols, rows */
    CHARDEV_CONNECTED = 1 << 3, /* connected */
};

struct chardev {
    const struct chardev_class *cls;
    struct device *dev;        /* borrowed, as is the next */
    struct chardev_user *user; /* NULL until attached */
    struct timer tell;         /* tells the user of `events`, from the loop */
    unsigned events;
    bool connected; /* true from the start unless open() says otherwise */
    uint16_t cols, rows;
};

/* The user hears of `events` soon, from the loop: so backends call this from wherever they are.  In the lane. */
void chardev_tell(struct chardev *c, unsigned events);
