#include "vmm/bus/bus.h"

#include <inttypes.h>

#include "vmm/base/cleanup.h"
#include "vmm/loop/loop.h"

struct bus {
    const char *name;
    uint64_t limit;
    pthread_rwlock_t lock;                   /* the table, and base and bus of the regions in it */
    struct region *regions[BUS_REGIONS_MAX]; /* by address, never overlapping */
    unsigned n;
};

/* What an address meets: offset and room, since the region may be moved once the lock is gone. */
struct hit {
    struct region *region; /* NULL: a hole */
    uint64_t off, len;
};

struct bus *bus_create(const char *name, uint64_t limit)
{
    struct bus *b = xcalloc(1, sizeof(*b));

    b->name = name;
    b->limit = limit;
    pthread_rwlock_init(&b->lock, NULL);
    return b;
}

void bus_destroy(struct bus *b)
{
    if (!b)
        return;
    assert(!b->n);
    pthread_rwlock_destroy(&b->lock);
    free(b);
}

/* Index of the first region that starts above `addr`; the one before it is the only one that can hold `addr`. */
static unsigned upper(const struct bus *b, uint64_t addr)
{
    unsigned lo = 0, hi = b->n;

    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;

        if (b->regions[mid]->base <= addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

int bus_map(struct bus *b, struct region *r, uint64_t base, struct err *err)
{
    struct region *clash = NULL;
    unsigned at;
    int rc = 0;

    assert(r->len && !r->bus);
    if (!range_fits(base, r->len, b->limit))
        return err_set(err, ERANGE, "%s: %#" PRIx64 "+%#" PRIx64 " is beyond the end of %s at %#" PRIx64, r->name, base,
                       r->len, b->name, b->limit);
    pthread_rwlock_wrlock(&b->lock);
    at = upper(b, base);
    if (at && b->regions[at - 1]->len > base - b->regions[at - 1]->base)
        clash = b->regions[at - 1];
    else if (at < b->n && r->len > b->regions[at]->base - base)
        clash = b->regions[at];
    if (clash) {
        rc = err_set(err, EEXIST, "%s at %#" PRIx64 "+%#" PRIx64 " overlaps %s at %#" PRIx64 "+%#" PRIx64 " in %s",
                     r->name, base, r->len, clash->name, clash->base, clash->len, b->name);
    } else if (b->n == BUS_REGIONS_MAX) {
        rc = err_set(err, ENOSPC, "%s: more than %d regions in %s", r->name, BUS_REGIONS_MAX, b->name);
    } else {
        memmove(&b->regions[at + 1], &b->regions[at], (b->n - at) * sizeof(b->regions[0]));
        b->regions[at] = r;
        b->n++;
        r->base = base;
        r->bus = b;
    }
    pthread_rwlock_unlock(&b->lock);
    return rc;
}

void bus_unmap(struct region *r)
{
    struct bus *b = r->bus;
    unsigned at;

    if (!b)
        return;
    pthread_rwlock_wrlock(&b->lock);
    at = upper(b, r->base) - 1;
    assert(b->regions[at] == r);
    b->n--;
    memmove(&b->regions[at], &b->regions[at + 1], (b->n - at) * sizeof(b->regions[0]));
    r->bus = NULL;
    pthread_rwlock_unlock(&b->lock);
}

static struct hit find(struct bus *b, uint64_t addr)
{
    struct hit hit = {0};
    unsigned at;

    pthread_rwlock_rdlock(&b->lock);
    at = upper(b, addr);
    if (at) {
        struct region *r = b->regions[at - 1];

        if (addr - r->base < r->len)
            hit = (struct hit){.region = r, .off = addr - r->base, .len = r->len};
    }
    pthread_rwlock_unlock(&b->lock);
    return hit;
}

/* One access of a size that the region declares, naturally aligned: one call. */
static void access_one(struct region *r, uint64_t off, uint8_t *data, unsigned size, bool write)
{
    uint64_t v = 0;

    if (write) {
        memcpy(&v, data, size);
        v = le64toh(v);
    }
    if (r->lane)
        lane_lock(r->lane);
    if (write)
        r->ops->write(r, off, v, size);
    else
        v = r->ops->read(r, off, size);
    if (r->lane)
        lane_unlock(r->lane);
    if (!write) {
        v = htole64(v);
        memcpy(data, &v, size);
    }
}

/*
 * Serves the first bytes of an access; returns how many.  The largest declared size that fits is used, which is all of
 * an access that the region takes as it is; else, for reads, the smallest one that covers the first byte.
 */
static unsigned access_part(const struct hit *h, uint8_t *data, unsigned size, bool write)
{
    uint8_t word[8];
    unsigned n;

    for (unsigned s = 8; s; s /= 2)
        if (h->region->ops->sizes & s && s <= size && !(h->off & (s - 1)) && range_fits(h->off, s, h->len)) {
            access_one(h->region, h->off, data, s, write);
            return s;
        }
    for (unsigned s = 2; s <= 8; s *= 2) {
        uint64_t start = align_down(h->off, s);

        if (!(h->region->ops->sizes & s) || !range_fits(start, s, h->len))
            continue;
        n = (unsigned)min_u64(size, start + s - h->off);
        if (!write) {
            access_one(h->region, start, word, s, false);
            memcpy(data, word + (h->off - start), n);
        }
        return n;
    }
    if (!write)
        *data = 0xff;
    return 1;
}

void bus_access(struct bus *b, uint64_t addr, void *data, unsigned size, bool write)
{
    uint8_t *p = data;

    while (size) {
        struct hit h = addr < b->limit ? find(b, addr) : (struct hit){0};
        unsigned n = size;

        if (!h.region) {
            n = 1;
            if (!write)
                *p = 0xff;
        } else {
            n = access_part(&h, p, size, write);
        }
        if (__builtin_add_overflow(addr, n, &addr))
            addr = UINT64_MAX; /* nothing is mapped there: the rest does not wrap to address 0 */
        p += n;
        size -= n;
    }
}

void bus_each(struct bus *b, void (*fn)(const struct region *r, void *far), void *far)
{
    pthread_rwlock_rdlock(&b->lock);
    for (unsigned i = 0; i < b->n; i++)
        fn(b->regions[i], far);
    pthread_rwlock_unlock(&b->lock);
}
