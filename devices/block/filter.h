/* What filters share, and what tests ask of them.  Options are in each filter's table. */
#pragma once
#include "devices/block/driver.h"

int filter_resize(struct blk *b, uint64_t size, struct err *err) must_check;

/* ---- Of `fault`. ---- */

struct fault_hook { /* embedded in a test's own */
    /* Before each request that the filter's op, off and len select, any thread, one at a time: 0, or -errno to fail. */
    int (*call)(struct fault_hook *h, const struct blk_io *io);
};
void fault_set_hook(struct blk *b, struct fault_hook *h); /* NULL: none; nothing in flight */
uint64_t fault_seen(struct blk *b);                       /* requests selected so far */

/* ---- Of `throttle`. ---- */

enum { THROTTLE_BURST_MAX_MS = 3600 * 1000 };

struct throttle_limits {
    uint64_t iops, bps; /* 0: none */
    uint32_t burst_ms;
};
/* The topmost one of a tree; NULL: there is none. */
struct blk *throttle_find(struct blk *b);
/* In the lane; what waits is let through by the new limits. */
void throttle_set(struct blk *b, const struct throttle_limits *l);
/* In the lane: lets all that waits through, ahead of its time, so that nobody has to wait for it. */
void throttle_release(struct blk *b);
struct throttle_limits throttle_get(struct blk *b);

struct rate {
    uint64_t per_sec;  /* 0: no limit */
    uint64_t burst_ns; /* what was not used that long ago may still be used */
    uint64_t next_ns;  /* when all that was let through is paid for */
};
/* When the next may start: `now` or later. */
uint64_t rate_start(const struct rate *r, uint64_t now);
/* `n` units start then. */
void rate_charge(struct rate *r, uint64_t start, uint64_t n);

/* ---- Of `log`. ---- */

struct log_summary {
    uint64_t size; /* of the disk when its log began */
    uint64_t changes, flushes, bytes;
};
/*
 * Does to `to` what the log at `path` has, up to and with its `flushes`-th flush.  `to` NULL: nothing is done but
 * counting.  -ERANGE when `to` is too small, or the log has not so many flushes (UINT64_MAX: all there are).
 */
int log_replay(const char *path, uint64_t flushes, struct blk *to, struct log_summary *ret, struct err *err) must_check;
