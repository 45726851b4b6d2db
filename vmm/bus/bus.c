#include "vmm/bus/bus.h"

#include <inttypes.h>

#include "vmm/base/cleanup.h"
#include "vmm/loop/loop.h"

/* Readers meet slots in the midst of a change, so every member is loaded and stored atomically. */
struct slot {
    uint64_t base, len;
    struct region *region;
};

struct bus {
    const char *name;
    uint64_t limit;
    pthread_mutex_t lock; /* whoever changes the table, and base and bus of the regions in it */
    /* Odd while the table changes.  Look-ups take no lock: when this has moved meanwhile they look again. */
    unsigned seq;
    unsigned n;
    unsigned recent;                    /* slot of the last hit: guests talk to one device for a while */
    struct slot slots[BUS_REGIONS_MAX]; /* by address, never overlapping */
};

/* What an address meets: offset and room, since the region may be moved at any moment. */
struct hit {
    struct region *region; /* NULL: a hole, in which `len` bytes follow the address */
    uint64_t off, len;
};

/* Acquire: what is loaded after (seq) is no older. */
#define LOAD(x)     __atomic_load_n(&(x), __ATOMIC_ACQUIRE)
#define STORE(x, v) __atomic_store_n(&(x), v, __ATOMIC_RELEASE)

struct bus *bus_create(const char *name, uint64_t limit)
{
    struct bus *b = xcalloc(1, sizeof(*b));

    b->name = name;
    b->limit = limit;
    pthread_mutex_init(&b->lock, NULL);
    return b;
}

void bus_destroy(struct bus *b)
{
    if (!b)
        return;
    assert(!b->n);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

/* Index of the first region that starts above `addr`; the one before it is the only one that can hold `addr`. */
static unsigned upper(const struct bus *b, uint64_t addr)
{
    unsigned lo = 0, hi = LOAD(b->n);

    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;

        if (LOAD(b->slots[mid].base) <= addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* The lock is held. */
static void put_slot(struct bus *b, unsigned at, struct slot s)
{
    STORE(b->slots[at].base, s.base);
    STORE(b->slots[at].len, s.len);
    STORE(b->slots[at].region, s.region);
}

static void insert(struct bus *b, unsigned at, struct slot s)
{
    STORE(b->seq, b->seq + 1);
    for (unsigned i = b->n; i > at; i--)
        put_slot(b, i, b->slots[i - 1]);
    put_slot(b, at, s);
    STORE(b->n, b->n + 1);
    STORE(b->seq, b->seq + 1);
}

static void delete (struct bus *b, unsigned at)
{
    STORE(b->seq, b->seq + 1);
    for (unsigned i = at; i + 1 < b->n; i++)
        put_slot(b, i, b->slots[i + 1]);
    STORE(b->n, b->n - 1);
    STORE(b->seq, b->seq + 1);
}

int bus_map(struct bus *b, struct region *r, uint64_t base, struct err *err)
{
    const struct slot *clash = NULL, *s = b->slots;
    unsigned at;
    int rc = 0;

    assert(r->len && !r->bus);
    if (!range_fits(base, r->len, b->limit))
        return err_set(err, ERANGE, "%s: %#" PRIx64 "+%#" PRIx64 " is beyond the end of %s at %#" PRIx64, r->name, base,
                       r->len, b->name, b->limit);
    pthread_mutex_lock(&b->lock);
    at = upper(b, base);
    if (at && s[at - 1].len > base - s[at - 1].base)
        clash = &s[at - 1];
    else if (at < b->n && r->len > s[at].base - base)
        clash = &s[at];
    if (clash) {
        rc = err_set(err, EEXIST, "%s at %#" PRIx64 "+%#" PRIx64 " overlaps %s at %#" PRIx64 "+%#" PRIx64 " in %s",
                     r->name, base, r->len, clash->region->name, clash->base, clash->len, b->name);
    } else if (b->n == BUS_REGIONS_MAX) {
        rc = err_set(err, ENOSPC, "%s: more than %d regions in %s", r->name, BUS_REGIONS_MAX, b->name);
    } else {
        insert(b, at, (struct slot){.base = base, .len = r->len, .region = r});
        r->base = base;
        r->bus = b;
    }
    pthread_mutex_unlock(&b->lock);
    return rc;
}

void bus_unmap(struct region *r)
{
    struct bus *b = r->bus;
    unsigned at;

    if (!b)
        return;
    pthread_mutex_lock(&b->lock);
    at = upper(b, r->base) - 1;
    assert(b->slots[at].region == r);
    delete (b, at);
    r->bus = NULL;
    pthread_mutex_unlock(&b->lock);
}

bool bus_accesses(struct bus *b, unsigned at, const char **name, uint64_t *n)
{
    bool there;

    pthread_mutex_lock(&b->lock);
    there = at < b->n;
    if (there) {
        *name = b->slots[at].region->name;
        *n = __atomic_load_n(&b->slots[at].region->accesses, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&b->lock);
    return there;
}

static struct hit look_at(const struct bus *b, unsigned at, uint64_t addr)
{
    const struct slot *s;
    uint64_t off, len;

    if (at >= LOAD(b->n))
        return (struct hit){0};
    s = &b->slots[at];
    off = addr - LOAD(s->base);
    len = LOAD(s->len);
    return off < len ? (struct hit){.region = LOAD(s->region), .off = off, .len = len} : (struct hit){0};
}

/* Whether the table stood still since `seq` was loaded, so that what was seen of it holds. */
static bool steady(const struct bus *b, unsigned seq)
{
    return !(seq & 1) && LOAD(b->seq) == seq;
}

static struct hit find(struct bus *b, uint64_t addr)
{
    for (;;) {
        unsigned seq = LOAD(b->seq), next = upper(b, addr);
        struct hit hit = look_at(b, next - 1, addr); /* of none: beyond any */

        if (!hit.region)
            hit.len = (next < LOAD(b->n) ? LOAD(b->slots[next].base) : b->limit) - addr;
        STORE(b->recent, next - 1);
        if (steady(b, seq))
            return hit;
        pthread_mutex_lock(&b->lock); /* until the change is over */
        pthread_mutex_unlock(&b->lock);
    }
}

/* Little endian, as guests are; `size` is 1, 2, 4 or 8. */
static uint64_t load(const uint8_t *p, unsigned size)
{
    switch (size) {
    case 1:
        return *p;
    case 2:
        return get_le16(p);
    case 4:
        return get_le32(p);
    default:
        return get_le64(p);
    }
}

static void store(uint8_t *p, uint64_t v, unsigned size)
{
    switch (size) {
    case 1:
        *p = (uint8_t)v;
        break;
    case 2:
        put_le16(p, (uint16_t)v);
        break;
    case 4:
        put_le32(p, (uint32_t)v);
        break;
    default:
        put_le64(p, v);
    }
}

/* One access of a size that the region declares, naturally aligned: one call. */
static void access_one(struct region *r, uint64_t off, uint8_t *data, unsigned size, bool write)
{
    uint64_t v = write ? load(data, size) : 0;

    if (r->lane)
        lane_lock(r->lane);
    /* The lane makes it exact; where there is none two CPUs may be counted as one, which is cheap, and good enough. */
    __atomic_store_n(&r->accesses, __atomic_load_n(&r->accesses, __ATOMIC_RELAXED) + 1, __ATOMIC_RELAXED);
    if (write)
        r->ops->write(r, off, v, size);
    else
        v = r->ops->read(r, off, size);
    if (r->lane)
        lane_unlock(r->lane);
    if (!write)
        store(data, v, size);
}

/*
 * Serves the first bytes of an access; returns how many.  The largest declared size that fits is used, which is all of
 * an access that the region takes as it is; else, for reads, the smallest one that covers the first byte.
 */
static unsigned access_part(const struct hit *h, uint8_t *data, unsigned size, bool write)
{
    uint8_t word[8];
    unsigned n;

    for (unsigned s = 1u << (31 - __builtin_clz(size)); s; s /= 2)
        if (h->region->ops->sizes & s && !(h->off & (s - 1)) && range_fits(h->off, s, h->len)) {
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

/* Any access, in parts. */
static __attribute__((noinline)) void access_parts(struct bus *b, uint64_t addr, uint8_t *p, unsigned size, bool write)
{
    while (size) {
        struct hit h = addr < b->limit ? find(b, addr) : (struct hit){.len = UINT64_MAX};
        unsigned n;

        if (h.region) {
            n = access_part(&h, p, size, write);
        } else {
            n = (unsigned)min_u64(size, h.len);
            if (!write)
                memset(p, 0xff, n);
        }
        if (__builtin_add_overflow(addr, n, &addr))
            addr = UINT64_MAX; /* nothing is mapped there: the rest does not wrap to address 0 */
        p += n;
        size -= n;
    }
}

void bus_access(struct bus *b, uint64_t addr, void *data, unsigned size, bool write)
{
    unsigned seq = LOAD(b->seq);
    struct hit h = look_at(b, LOAD(b->recent), addr);

    if (h.region && steady(b, seq) && h.region->ops->sizes & size && !(size & (size - 1)) && !(h.off & (size - 1)) &&
        range_fits(h.off, size, h.len))
        access_one(h.region, h.off, data, size, write); /* as nearly all are */
    else
        access_parts(b, addr, data, size, write);
}
