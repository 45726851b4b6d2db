/*
 * Network backends: where a NIC's Ethernet frames go to and come from.  The NIC pulls: it looks at the backend's next
 * frame when the guest has room for it, so a slow guest is back-pressure, and nothing queues in between.
 *
 * A NIC, its backend and whatever the backend needs (libslirp, sockets) share one lane, on a loop of the NIC's own.
 *
 * Frames carry the offloads of virtio [VIRTIO-v1.2 5.1.6]: a checksum left to do, a TCP segment larger than the MTU.
 * Backends say what they take and what they may hand out; where the two ends differ the core checksums and segments.
 */
#pragma once
#include <linux/virtio_net.h>

#include "devices/core/device.h"
#include "devices/core/ring.h"
#include "vmm/mem/iov.h"

/* UDP segmentation [VIRTIO-v1.3 5.1.3], which the headers of older kernels lack. */
#ifndef VIRTIO_NET_F_GUEST_USO4
#define VIRTIO_NET_F_GUEST_USO4   54
#define VIRTIO_NET_F_GUEST_USO6   55
#define VIRTIO_NET_F_HOST_USO     56
#define VIRTIO_NET_HDR_GSO_UDP_L4 5
#endif

struct net;
struct net_class;

enum { NET_FRAME_MAX = 65535 + 18, NET_QUEUES_MAX = 64, NET_IOV_MAX = 64 };

struct net_frame {
    struct virtio_net_hdr_v1 hdr; /* little-endian; num_buffers means nothing here */
    struct iovec *iov;            /* `len` bytes from the Ethernet header on; perhaps a guest's memory: touched by
                                     system calls and iov_*() only.  May be used up. */
    unsigned niov;
    size_t len;
};

/* VIRTIO_NET_F_* bits of offloads, as seen from the guest: CSUM and HOST_* for what a backend takes from it,
 * GUEST_* for what a backend hands out. */
typedef uint64_t net_offloads_t;

/* The NIC, embedded in its device.  All in its lane. */
struct net_user {
    void (*readable)(struct net_user *u, unsigned queue); /* net_peek() may have a frame; may come in vain */
    void (*writable)(struct net_user *u, unsigned queue); /* net_send() may take frames again */
    void (*link)(struct net_user *u, bool up);            /* the far end came or went; NULL: does not care */
    void (*broken)(struct net_user *u, const char *why);  /* a ring that the backend serves is; NULL: it serves none */
};

/*
 * Takes a frame.  0: taken, or dropped and counted; -EAGAIN: no room now, writable() follows.  A frame that is not
 * what its header says is dropped and counted here.
 */
int net_send(struct net *n, unsigned queue, struct net_frame *f) must_check;
/* The frame that there was no room for will not come again: the next one of this queue is another. */
void net_give_up(struct net *n, unsigned queue);
/* The next frame for the guest, in the host's memory and valid until the next call of one of these; false: none,
 * readable() follows.  Asked again it answers the same. */
bool net_peek(struct net *n, unsigned queue, struct net_frame *ret) must_check;
/* The guest has the frame that net_peek() just gave. */
void net_next(struct net *n, unsigned queue);

struct net_limits {
    unsigned queues; /* pairs of them; 0, as it comes: one */
    uint16_t mtu;    /* what the guest is told, for VIRTIO_NET_F_MTU; 0: nothing special */
    uint64_t rings;  /* not 0: it serves the guest's rings itself where the driver has accepted none but these of
                        the features that concern rings and frames; of a card: which it may be lent with, 0: none */
};
/* What the backend can do; fixed from net_open() on. */
const struct net_limits *net_limits(const struct net *n);
/* Before the first frame and whenever the driver changes them: what the guest takes (GUEST_* bits), and in how many
 * queue pairs. */
void net_set(struct net *n, net_offloads_t guest, unsigned queues);

/* For backends that serve rings: `ring` is 2 × queue for what the guest receives, one more for what it sends.  Its
 * frames pass by all of the above, and only net_info() may have a count of them, until net_ring_stop(), which says what
 * chain is next.  -errno: it is still the NIC's. */
int net_ring_start(struct net *n, unsigned ring, const struct ring *r, uint64_t features) must_check;
uint16_t net_ring_stop(struct net *n, unsigned ring);

/* Why a frame was dropped. */
enum net_drop {
    NET_DROP_MALFORMED, /* not what its header says, or nothing that may be sent */
    NET_DROP_FULL,      /* no room at the far end, which takes what fits and says nothing */
    NET_DROP_PEER,      /* the far end did not want it */
    NET_DROP_DOWN,      /* no link */
    NET_DROP_TOO_LONG,  /* for the guest's buffers */
    NET_DROP_FILTERED,  /* the guest asked for no such frames */
    NET_DROPS
};
extern const char *const net_drop_names[NET_DROPS];
void net_drop(struct net *n, enum net_drop why);
/* Instead of net_next(): the guest does not get it. */
void net_refuse(struct net *n, unsigned queue, enum net_drop why);

struct net_traffic {
    uint64_t frames, bytes;
};
struct net_counters { /* from the guest's side */
    struct net_traffic rx, tx;
};
const struct net_counters *net_counters(const struct net *n, unsigned queue);
uint64_t net_dropped(const struct net *n, enum net_drop why);

/* What the backend has to say of itself, an object; the caller's.  In the lane. */
json_t *net_info(struct net *n) must_check;

/* What DHCP would tell the guest, in network byte order. */
struct net_lease {
    uint32_t address, mask, gateway, dns;
};
/* By the options alone, before net_open() or without it; false: nothing, or they are wrong, which net_open() tells. */
bool net_lease(const struct net_class *cls, struct net *n, struct net_lease *ret);

/* The classes of this build; NULL-terminated. */
extern const struct net_class *const net_classes[];
const struct net_class *net_class_find(const char *name);
struct opt_choice net_choice(unsigned i); /* the same for option tables */

/* From the init of `dev`, whose lane, loop and id the backend uses; `n` is what the class says in size, zeroed, and its
 * options are parsed.  `card` is what the NIC has; it looks at the limits whether the backend serves as many queues. */
int net_open(const struct net_class *cls, struct net *n, struct device *dev, struct net_user *user,
             const struct net_limits *card, struct err *err) must_check;
/* After net_open(): all frames also go to that file (pcap.h), `snap` bytes of each (0: all), `limit` at most in all. */
int net_capture(struct net *n, const char *path, uint32_t snap, uint64_t limit, struct err *err) must_check;
uint64_t net_missed(const struct net *n); /* frames that did not get into it */
/* In the lane or with no loop running; copes with half an open. */
void net_close(struct net *n);
