/*
 * The way of bytes from a port to a character backend.  They are gathered and handed over by the loop soon after, so
 * that a guest that prints a line pays for one system call and not for one a character; when the buffer is full the
 * port's write hands them over itself.
 *
 * No state of the device: a byte that was taken is out, as far as the guest can tell.
 */
#pragma once
#include "devices/char/chardev.h"

enum { TX_SIZE = 512 };

struct tx {
    struct chardev *to; /* borrowed */
    struct work handover;
    struct timer patience;
    bool posted, finishing;
    unsigned len;
    uint8_t buf[TX_SIZE];
};

void tx_init(struct tx *t, struct device *d, struct chardev *to);
/* In the lane, as all below.  False: no room, the byte is not taken. */
bool tx_put(struct tx *t, uint8_t byte);
bool tx_full(const struct tx *t);
/* Gives the backend what it takes now: when that can take bytes again. */
void tx_flush(struct tx *t);
/* At the device's stop: the drain that follows lasts until the backend has all, or has taken nothing for two seconds.
 */
void tx_finish(struct tx *t);
