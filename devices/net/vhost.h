/*
 * vhost-net: the host's kernel serves the rings of a pair of queues, between guest memory and a tap interface
 * [<linux/vhost.h>].  Frames then pass by this process altogether.
 */
#pragma once
#include "devices/core/ring.h"
#include "vmm/loop/loop.h"

enum { VHOST_RECEIVE, VHOST_SEND, VHOST_RINGS };

struct vhost {                                       /* one pair */
    int fd;                                          /* -1: none */
    uint64_t features;                               /* of VIRTIO_RING_F_*, VIRTIO_NET_F_MRG_RXBUF */
    void (*failed)(struct vhost *v, unsigned index); /* the guest broke the ring; in the lane */
    struct vhost_ring {
        struct vhost *v;
        struct watch broken; /* fd -1: not running */
    } rings[VHOST_RINGS];
};

/* `lane` is where `failed` is called. */
void vhost_init(struct vhost *v, struct lane *lane, void (*failed)(struct vhost *v, unsigned index));
/* 0 or -errno, with the remedy in `err`. */
int vhost_open(struct vhost *v, const struct gmem *mem, struct err *err) must_check;
void vhost_close(struct vhost *v); /* opened, half opened or not; no ring runs */
/* Serves the ring from now on; `backend` is a tap's descriptor, whose frames have headers of 12 bytes. */
int vhost_start(struct vhost *v, unsigned index, const struct ring *r, uint64_t features, int backend) must_check;
/* When it returns the kernel touches the ring no more; the chain that would have been next. */
uint16_t vhost_stop(struct vhost *v, unsigned index);
static inline bool vhost_runs(const struct vhost *v, unsigned index)
{
    return v->rings[index].broken.fd >= 0;
}
