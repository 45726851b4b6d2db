/*
 * An address space of device registers: port I/O or MMIO.  Devices see offsets and the access sizes they declared; the
 * bus splits wider accesses, widens narrower ones (read-modify-write is never invented: a narrow write to a region that
 * lacks the size is dropped), and answers holes with ones.
 */
#pragma once
#include <pthread.h>

#include "vmm/base/base.h"
#include "vmm/base/err.h"

struct bus;
struct lane;
struct region;

struct region_ops {
    uint64_t (*read)(struct region *r, uint64_t off, unsigned size);
    void (*write)(struct region *r, uint64_t off, uint64_t val, unsigned size);
    uint8_t sizes; /* OR of 1, 2, 4, 8 */
};

struct region { /* embedded in its device */
    const char *name;
    const struct region_ops *ops;
    struct lane *lane; /* held during ops; NULL: a forwarder, which takes the target's lane itself */
    uint64_t base, len;
    struct bus *bus;   /* NULL while unmapped */
    uint64_t accesses; /* so far; bus_accesses() */
};

enum { BUS_REGIONS_MAX = 512 };

/* `limit` is one past the highest address (65536 for ports).  Aborts without memory, as all set-up does. */
struct bus *bus_create(const char *name, uint64_t limit);
void bus_destroy(struct bus *b); /* accepts NULL; regions must be unmapped */

/* -EEXIST (naming both) on overlap, -ERANGE past the limit.  Any thread, any lane held. */
int bus_map(struct bus *b, struct region *r, uint64_t base, struct err *err) must_check;
/* No-op when unmapped.  An access that found the region just before may still reach it: its memory must outlive the
 * machine's run, as devices do. */
void bus_unmap(struct region *r);

/* `size` is 1 to 8, any alignment.  `data` is little endian, as the guest sees it.  No lane held. */
void bus_access(struct bus *b, uint64_t addr, void *data, unsigned size, bool write);

/* How often regions were accessed, for people: name and count of the `at`-th in order of address; false: there is none.
 * Any thread. */
bool bus_accesses(struct bus *b, unsigned at, const char **name, uint64_t *n);

/* A write that need not stop a vCPU: `fd` is signalled instead of the region's write().  Length 0 matches any width. */
struct doorbell {
    struct region *region; /* borrowed, mapped; its bus tells port I/O from MMIO */
    uint64_t off;
    unsigned len;
    bool match; /* only writes of `value` */
    uint64_t value;
    int fd; /* borrowed eventfd */
};
