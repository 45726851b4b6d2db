/*
 * How far each of the guest's TCP connections has got in libslirp, so that nothing comes to it out of order.  It keeps
 * such segments, each in a buffer of 64 KiB, as many as its window has bytes.  On the way from a guest to libslirp
 * nothing is lost or overtaken, so what an honest guest sends behind a gap follows a segment that libslirp did not
 * take.
 */
#pragma once
#include "vmm/base/base.h"

enum { TCP_ORDER_ROWS = 2048, TCP_ORDER_WAYS = 8 };

struct tcp_flow {
    uint64_t key;  /* 0: free */
    uint32_t next; /* sequence number of the byte that is wanted */
};

struct tcp_order {
    uint64_t seed;
    struct tcp_flow flows[TCP_ORDER_ROWS][TCP_ORDER_WAYS]; /* of a row, the one that was in use last comes first */
};

/* All flows are forgotten. */
void tcp_order_init(struct tcp_order *o);
/* Of a connection: the guest's address, the far end's, each `n` bytes, and the ports as they are in a header. */
uint64_t tcp_order_key(const struct tcp_order *o, const uint8_t *guest, const uint8_t *far_end, size_t n,
                       const uint8_t *guest_port, const uint8_t *far_port);
/* libslirp says that it has all before `next`.  This alone makes a flow known; another may be forgotten for it. */
void tcp_order_told(struct tcp_order *o, uint64_t key, uint32_t next);
/* May libslirp have a segment that takes `n` sequence numbers from `seq` on?  If not, *ret is a number before what it
 * wants, which will make it say so. */
bool tcp_order_pass(struct tcp_order *o, uint64_t key, uint32_t seq, uint32_t n, uint32_t *ret) must_check;
