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
