/* What a network backend is: one file, one line in meson.build's net_list, one const table.  For backends only. */
#pragma once
#include "devices/net/net.h"

struct net_class {
    const char *name, *summary; /* "user" */
    size_t size;                /* of the backend's struct, which starts with struct net */
    const struct opt *opts;     /* its own keys; the NIC's stand beside them on the command line */
    const char *first;          /* the one that "lan=NAME" sets, or NULL */
    net_offloads_t takes;       /* CSUM and HOST_*: what send() takes as it is; the core does the rest before */
    bool (*peek)(struct net *n, unsigned queue, struct net_frame *ret); /* as net_peek() */
    void (*next)(struct net *n, unsigned queue);
    int (*send)(struct net *n, unsigned queue, struct net_frame *f);   /* as net_send(), header checked by the core */
    void (*set)(struct net *n, net_offloads_t guest, unsigned queues); /* as net_set(); NULL: does not care.  What it
                                                                          hands out beyond this the core takes apart */
    int (*ring_start)(struct net *n, unsigned ring, const struct ring *r, uint64_t features); /* as net_ring_start() */
    uint16_t (*ring_stop)(struct net *n, unsigned ring); /* these may be NULL where lim.rings stays 0 */
    int (*open)(struct net *n, struct err *err);         /* fills n->lim; on failure close() follows */
    void (*close)(struct net *n);                        /* copes with half an open */
    json_t *(*info)(struct net *n);                      /* as net_info(); may be NULL */
    bool (*lease)(struct net *n, struct net_lease *ret); /* as net_lease(); NULL: there is no DHCP */
};

/* Is what the header says possible?  Makes it say no more than what matters [VIRTIO-v1.2 5.1.6.2].  Backends ask this
 * of frames that come with a header from someone else. */
bool net_frame_ok(struct net_frame *f) must_check;

struct net_core; /* the core's own */

struct net { /* first member of a backend's own struct */
    const struct net_class *cls;
    struct device *dev;    /* borrowed, as is the next */
    struct net_user *user; /* what backends call back */
    unsigned queues;       /* pairs of them that the NIC has */
    uint16_t mtu;          /* that the NIC tells the guest; 0: the backend's own */
    bool lends;            /* the NIC lends its rings to a backend that serves them */
    struct net_limits lim;
    struct net_core *core;
    uint64_t drops[NET_DROPS]; /* a backend with more reasons counts those itself */
};
