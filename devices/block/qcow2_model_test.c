/*
 * The qcow2 engine against a model: random writes, zeroes, discards, flushes and reopening from several threads, then
 * every sector compared; the same with the power failing, and with writes failing, at every point.
 *
 * A write fills its sectors with a stamp that is never used twice, so the model is a stamp for each sector.
 */
#include <stdio.h>

#include "devices/block/qcow2_rig.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"

enum { SECTOR = 512, THREADS_MAX = 8, RUN_MAX = 64 };

static const struct shape {
    const char *options;
    uint64_t size;
    bool based;
} shapes[] = {
    {"cluster_size=512", KiB(768), false},
    {"cluster_size=4K", MiB(2), false},
    {"cluster_size=64K", MiB(4), false},
    {"cluster_size=64K,extended_l2=on", MiB(4), false},
    {"cluster_size=4K,compat=0.10", MiB(2), false},
    {"cluster_size=4K,refcount_bits=1", MiB(2), false},
    {"cluster_size=512,refcount_bits=64", KiB(700), false},
    {"cluster_size=4K,refcount_bits=8,backing_file=base", MiB(2), true},
    {"cluster_size=16K,extended_l2=on,backing_file=base", MiB(2), true},
    {"cluster_size=4K,compat=0.10,backing_file=base", MiB(2), true},
    {"cluster_size=2M", MiB(16), false},
    {"cluster_size=4K,preallocation=metadata", MiB(2), false},
};

struct model {
    struct mem *m, *base;
    struct blk *b;
    uint64_t sectors, *stamps;
};

struct worker {
    pthread_t thread;
    struct model *model;
    uint64_t rng, stamp;
    unsigned index, count, stripe, ops; /* stripe: sectors; every count-th is ours */
};

static uint64_t next_random(uint64_t *rng)
{
    *rng ^= *rng << 13;
    *rng ^= *rng >> 7;
    *rng ^= *rng << 17;
    return *rng;
}

static void fill(uint64_t *buf, uint64_t sectors, uint64_t stamp)
{
    for (uint64_t i = 0; i < sectors * SECTOR / 8; i++)
        buf[i] = stamp;
}

/* The stamp of a sector, which must be whole. */
static uint64_t stamp_of(const uint64_t *sector)
{
    for (unsigned i = 1; i < SECTOR / 8; i++)
        assert_int_equal(sector[i], sector[0]);
    return sector[0];
}

static void model_init(struct model *d, const struct shape *shape)
{
    *d = (struct model){.m = mem_create(0), .sectors = shape->size / SECTOR};
    d->stamps = xcalloc(d->sectors, 8);
    rig_create(d->m, shape->size, shape->options);
    if (shape->based) { /* shorter than the disk */
        uint64_t n = d->sectors * 2 / 3;

        d->base = mem_create(n * SECTOR);
        for (uint64_t i = 0; i < n; i++) {
            d->stamps[i] = i % 3 ? ~i : 0;
            fill((uint64_t *)(d->base->bytes + i * SECTOR), 1, d->stamps[i]);
        }
    }
    d->b = rig_open(d->m, d->base ? &d->base->b : NULL);
}

static void model_fini(struct model *d)
{
    if (d->b)
        rig_close(d->b);
    mem_destroy(d->m);
    mem_destroy(d->base);
    free(d->stamps);
}

static void reopen(struct model *d)
{
    rig_close(d->b);
    d->b = rig_open(d->m, d->base ? &d->base->b : NULL);
}

static void compare(struct model *d)
{
    cleanup_free uint64_t *buf = malloc(d->sectors * SECTOR);

    assert_int_equal(blk_pread(d->b, buf, d->sectors * SECTOR, 0), 0);
    for (uint64_t i = 0; i < d->sectors; i++)
        if (stamp_of(buf + i * SECTOR / 8) != d->stamps[i])
            fail_msg("sector %lu: %lx, not %lx", (unsigned long)i, (unsigned long)buf[i * SECTOR / 8],
                     (unsigned long)d->stamps[i]);
}

/* One random operation in sectors that are the worker's own. */
static int one_op(struct worker *w)
{
    struct model *d = w->model;
    uint64_t stripes = d->sectors / w->stripe, first, n, buf[RUN_MAX * SECTOR / 8], stamp = 0;
    unsigned what = next_random(&w->rng) % 16;
    int rc;

    if (what == 15)
        return blk_flush(d->b);
    first = next_random(&w->rng) % (stripes / w->count) * w->count + w->index;
    first *= w->stripe;
    n = 1 + next_random(&w->rng) % min_u64(w->stripe, RUN_MAX);
    first += next_random(&w->rng) % (w->stripe - n + 1);
    if (what < 8) {
        stamp = (w->stamp += THREADS_MAX);
        fill(buf, n, stamp);
        rc = blk_pwrite(d->b, buf, n * SECTOR, first * SECTOR);
    } else if (what < 11) {
        rc = blk_zero(d->b, first * SECTOR, n * SECTOR, what & 1);
    } else {
        int drop = what < 13 ? blk_discard(d->b, first * SECTOR, n * SECTOR) : 0;

        /* What was discarded is as it was, or zeroes. */
        rc = drop ? drop : blk_pread(d->b, buf, n * SECTOR, first * SECTOR);
        for (uint64_t i = 0; !rc && i < n; i++) {
            stamp = stamp_of(buf + i * SECTOR / 8);
            if (stamp && stamp != d->stamps[first + i])
                return -EILSEQ;
            if (!stamp && what >= 13 && d->stamps[first + i])
                return -EILSEQ;
            d->stamps[first + i] = stamp;
        }
        return rc;
    }
    for (uint64_t i = 0; !rc && i < n; i++)
        d->stamps[first + i] = stamp;
    return rc;
}

static void *work(void *arg)
{
    struct worker *w = arg;
    long rc = 0;

    for (unsigned i = 0; !rc && i < w->ops; i++)
        rc = one_op(w);
    return (void *)rc;
}

static void round_of(struct model *d, unsigned count, unsigned stripe, unsigned ops, uint64_t *seed)
{
    struct worker w[THREADS_MAX];

    for (unsigned i = 0; i < count; i++) {
        w[i] = (struct worker){.model = d,
                               .rng = next_random(seed),
                               .stamp = (next_random(seed) & ~(uint64_t)(THREADS_MAX - 1) & INT64_MAX) + i,
                               .index = i,
                               .count = count,
                               .stripe = stripe,
                               .ops = ops};
        assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
    }
    for (unsigned i = 0; i < count; i++) {
        void *ret;

        pthread_join(w[i].thread, &ret);
        assert_int_equal((long)ret, 0);
    }
}

static unsigned factor(void)
{
    const char *s = getenv("BOTHY_TEST_FACTOR");

    return s ? (unsigned)strtoul(s, NULL, 10) : 1;
}

static void random_operations_leave_what_was_written(void **s)
{
    static const unsigned stripes[] = {1, 8, 128, 512};

    (void)s;
    for (size_t i = 0; i < array_len(shapes); i++) {
        uint64_t seed = 0x9e3779b97f4a7c15 + i;
        struct model d;

        model_init(&d, &shapes[i]);
        for (unsigned round = 0; round < 8 * factor(); round++) {
            unsigned count = 1u << next_random(&seed) % 4;

            round_of(&d, count, stripes[next_random(&seed) % (d.sectors > 8192 ? 4 : 3)], 60, &seed);
            compare(&d);
            if (round % 2)
                reopen(&d);
        }
        compare(&d);
        rig_close(take_ptr(d.b));
        rig_check(d.m, false);
        rig_qemu_check(d.m, false);
        model_fini(&d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_operations_leave_what_was_written),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
