/* What user.c and user_forward.c share.  All of it is used in the NIC's lane, or before its loop runs. */
#pragma once
#include "devices/net/backend.h"
#include "devices/net/forward.h"
#include "devices/net/neighbour.h"
#include "devices/net/sanitise.h"
#include "devices/net/user_config.h"
#include "vmm/base/log.h"
#include "vmm/loop/loop.h"

struct socket {     /* one of libslirp's, by its descriptor */
    uint32_t set;   /* what the epoll set waits for */
    uint32_t ready; /* what it reported, until the end of the poll */
    unsigned round; /* of refill() in which libslirp last asked for it */
    bool listed;    /* in `waiting` */
    bool listens;   /* a forwarded TCP port or path */
    bool flow;      /* counts as a connection */
    bool datagrams; /* come one in each poll */
    bool read;      /* libslirp has asked to read from it */
};

struct user {
    struct net n;

    struct user_config c;
    const struct slirp_lib *lib;
    Slirp *slirp;
    struct san_rules rules;
    struct sanitiser san;
    struct neighbour speaker;
    json_t *forwards; /* as they are told */
    struct log_limit limit;
    net_offloads_t guest;
    bool inside;  /* libslirp */
    bool refused; /* a frame that came meanwhile */

    int epfd;
    struct watch watch;
    struct timer slow;  /* libslirp's timeouts */
    struct work refill; /* after frames from the guest */
    struct socket *sockets;
    unsigned nsockets;
    int *waiting; /* descriptors in the epoll set */
    unsigned nwaiting;
    unsigned round;
    bool knocked;        /* a listener was ready in this poll */
    int resume;          /* the socket at which the last poll broke off, or -1 */
    int newest;          /* that came into the epoll set */
    unsigned accepted;   /* sockets that came to be, ever */
    uint64_t rest_until; /* for listeners; ns */
    uint64_t polled_ns;  /* when libslirp last learnt the time */

    const uint8_t *offered; /* by libslirp at this moment */
    size_t offered_len;
    uint8_t *kept; /* each frame behind its length */
    size_t kept_from, kept_to;
    struct iovec iov; /* of the frame that the NIC looks at */
    uint8_t frame[NET_FRAME_MAX];
};

/* libslirp says what it waits for now. */
void user_refill(struct user *u);

/* Opens what the options ask for, when libslirp has been created. */
int user_open_forwards(struct user *u, struct err *err) must_check;
/* Removes the paths of forwarded unix sockets, which libslirp leaves behind. */
void user_remove_sockets(struct user *u);
