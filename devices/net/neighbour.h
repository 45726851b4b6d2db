/*
 * Says who speaks: libslirp is told the MAC address of each of the guest's IP addresses before a frame comes from it,
 * so that it has not to ask, and to keep for a second whatever it would answer meanwhile.
 */
#pragma once
#include "vmm/base/base.h"

enum { NEIGHBOUR_FRAME = 78 }; /* bytes at most */

struct neighbour { /* who spoke last: a MAC address, then an IP address */
    uint8_t v4[6 + 4], v6[6 + 16];
};

/* A frame that has passed the sanitiser.  If the last one of its kind was by somebody else, makes the frame that
 * introduces the new one, in `ret`, and returns its length; else 0. */
size_t neighbour_speaks(struct neighbour *n, const uint8_t *frame, uint8_t *ret);
