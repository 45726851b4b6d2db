/*
 * On which port a MAC address was last seen, as a switch learns it.  An address hashes to a row with one entry for each
 * port, so a port that floods the table with addresses displaces none but its own.
 */
#pragma once
#include "vmm/base/base.h"

enum {
    MAC_LEN = 6,
    MAC_PORTS = 64,
    MAC_ROWS = 128,
    MAC_AGE = 300, /* seconds; [IEEE 802.1Q-2018 8.8.3], the recommended value */
};

struct mac_entry {
    uint64_t mac;  /* its six bytes; 0: none */
    uint32_t seen; /* seconds */
};

struct mac_table { /* all zeroes: nothing learnt */
    uint64_t seed; /* a number that the others do not know, lest they choose addresses of one row */
    struct mac_entry rows[MAC_ROWS][MAC_PORTS];
};

/* A frame from `mac` came in on `port`; `now` is in seconds of a clock that goes forward.  Group addresses are
 * nobody's. */
void mac_learn(struct mac_table *t, const uint8_t *mac, unsigned port, uint32_t now);
/* Its port, or -1 where that is not known (any more). */
int mac_find(const struct mac_table *t, const uint8_t *mac, uint32_t now);
/* All that was learnt of the port. */
void mac_forget(struct mac_table *t, unsigned port);

static inline bool mac_is_group(const uint8_t *mac)
{
    return mac[0] & 1;
}
