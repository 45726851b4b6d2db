/*
 * A network under the test's control.  It takes the place of the null network: the linker finds this net_null first in
 * whatever uses what is declared here.
 */
#pragma once
#include "devices/net/backend.h"

enum { NETSCRIPT_MAX = 600, NETSCRIPT_RINGS = 8 };

struct netscript_frame {
    struct virtio_net_hdr_v1 hdr;
    unsigned queue;
    uint8_t *data;
    size_t len;
};

struct netscript {
    struct net n;
    struct net_class cls;                      /* the test may change what it takes */
    struct netscript_frame in[NETSCRIPT_MAX];  /* for the guest, of any queue */
    struct netscript_frame out[NETSCRIPT_MAX]; /* from it; those beyond are counted only */
    unsigned nin, nout;
    unsigned room;                      /* frames that it takes, then -EAGAIN */
    struct ring rings[NETSCRIPT_RINGS]; /* that it serves, by doing nothing; size 0: it does not */
    uint64_t ring_features;
    uint16_t next;        /* where it stops */
    bool refuses;         /* rings */
    net_offloads_t guest; /* as told by set() */
    unsigned queues;
    struct iovec iov;
};

extern const struct net_class net_null;
/* The one that was opened last. */
extern struct netscript *netscript;
/* Whether the next ones serve rings, for what features; 0: they do not. */
extern uint64_t netscript_rings;

/* A frame for the guest: copied; says so to the NIC. */
void netscript_put(unsigned queue, const struct virtio_net_hdr_v1 *hdr, const void *data, size_t len);
/* Forgets what the guest sent; and what is there for it. */
void netscript_clear(void);
void netscript_empty(void);
