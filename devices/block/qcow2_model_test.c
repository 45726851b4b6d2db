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
    bool slow; /* to be opened: power fails at its every point only in long runs */
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
    {"cluster_size=4K,encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=1,encrypt.cipher-alg=aes-128,"
     "encrypt.cipher-mode=cbc,backing_file=base",
     MiB(2), true, true},
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

static void random_operations_leave_what_was_written(void **s)
{
    static const unsigned stripes[] = {1, 8, 128, 512};

    (void)s;
    for (size_t i = 0; i < array_len(shapes); i++) {
        uint64_t seed = 0x9e3779b97f4a7c15 + i;
        struct model d;

        model_init(&d, &shapes[i]);
        for (unsigned round = 0; round < 4 * test_factor(); round++) {
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

/* ---- The power fails. ---- */

enum { CRASH_OPS = 12, HISTORY_MAX = 64 };

/* What a sector may be after the power failed: what it was at the last flush, or what was written since. */
struct history {
    uint64_t flushed;
    uint64_t later[HISTORY_MAX];
    unsigned n;
};

struct crash {
    struct model d;
    struct history *sectors;
    size_t flushed_at; /* operations on the file until the guest's last flush was answered */
};

static void crash_write(struct crash *c, uint64_t first, uint64_t n, uint64_t stamp)
{
    for (uint64_t i = first; i < first + n; i++) {
        struct history *h = &c->sectors[i];

        assert_true(h->n < HISTORY_MAX);
        h->later[h->n++] = stamp;
        c->d.stamps[i] = stamp;
    }
}

static void crash_flushed(struct crash *c)
{
    for (uint64_t i = 0; i < c->d.sectors; i++) {
        c->sectors[i].flushed = c->d.stamps[i];
        c->sectors[i].n = 0;
    }
    c->flushed_at = c->d.m->nlog;
}

/* The file when the power fails after `upto` operations: all until the last sync, and of those since each or not, in
 * any order. */
static struct mem *crashed_file(const struct mem *from, const struct mem *m, size_t upto, bool lose, uint64_t *rng)
{
    struct mem *f = mem_create(0);
    size_t synced = 0, n = 0, order[1024];

    mem_apply(f, &(struct mem_op){.op = BLK_WRITE, .len = from->size, .data = from->bytes});
    for (size_t i = 0; i < upto; i++)
        if (m->log[i].op == BLK_FLUSH)
            synced = i;
    for (size_t i = 0; i < upto; i++) {
        if (!lose || i < synced)
            mem_apply(f, &m->log[i]);
        else if (next_random(rng) % 2 && n < array_len(order))
            order[n++] = i;
    }
    for (; n; n--) {
        size_t pick = next_random(rng) % n;

        mem_apply(f, &m->log[order[pick]]);
        order[pick] = order[n - 1];
    }
    return f;
}

static void expect_survival(struct crash *c, struct mem *f)
{
    cleanup_free uint64_t *buf = malloc(c->d.sectors * SECTOR);
    struct blk *b;

    rig_check(f, true);
    b = rig_open(f, c->d.base ? &c->d.base->b : NULL);
    assert_int_equal(blk_pread(b, buf, c->d.sectors * SECTOR, 0), 0);
    for (uint64_t i = 0; i < c->d.sectors; i++) {
        const struct history *h = &c->sectors[i];
        uint64_t is = stamp_of(buf + i * SECTOR / 8);
        bool fine = is == h->flushed;

        for (unsigned k = 0; k < h->n && !fine; k++)
            fine = is == h->later[k];
        if (!fine)
            fail_msg("sector %lu is %lx; it was %lx when it was flushed", (unsigned long)i, (unsigned long)is,
                     (unsigned long)h->flushed);
    }
    rig_close(b);
}

/* True: that was a flush. */
static bool crash_op(struct crash *c, uint64_t *rng, uint64_t *stamp)
{
    struct model *d = &c->d;
    uint64_t n = 1 + next_random(rng) % RUN_MAX, first = next_random(rng) % (d->sectors - n);
    unsigned what = next_random(rng) % 8;
    uint64_t buf[RUN_MAX * SECTOR / 8];

    if (what == 7) {
        assert_int_equal(blk_flush(d->b), 0);
    } else if (what == 6 && !d->base) {
        assert_int_equal(blk_discard(d->b, first * SECTOR, n * SECTOR), 0);
        for (uint64_t i = first; i < first + n; i++) {
            assert_int_equal(blk_pread(d->b, buf, SECTOR, i * SECTOR), 0);
            if (buf[0] != d->stamps[i])
                crash_write(c, i, 1, buf[0]);
        }
    } else if (what >= 5) {
        crash_write(c, first, n, 0);
        assert_int_equal(blk_zero(d->b, first * SECTOR, n * SECTOR, true), 0);
    } else {
        fill(buf, n, ++*stamp);
        crash_write(c, first, n, *stamp);
        assert_int_equal(blk_pwrite(d->b, buf, n * SECTOR, first * SECTOR), 0);
    }
    return what == 7;
}

static bool too_slow(const struct shape *shape)
{
    return shape->slow && test_factor() == 1;
}

/* Runs operations; after each the power fails at every point since the one before.  How often it did. */
static unsigned crash_shape(const struct shape *shape, uint64_t seed)
{
    struct mem *from = mem_create(0);
    uint64_t rng = seed, stamp = 1ull << 32;
    unsigned points = 0;
    struct crash c;

    model_init(&c.d, shape);
    c.sectors = xcalloc(c.d.sectors, sizeof(*c.sectors));
    crash_flushed(&c);
    mem_apply(from, &(struct mem_op){.op = BLK_WRITE, .len = c.d.m->size, .data = c.d.m->bytes});
    c.d.m->keep = true;
    for (unsigned i = 0; i < CRASH_OPS; i++) {
        size_t was = c.d.m->nlog;
        bool flushed = crash_op(&c, &rng, &stamp);

        if (i % 8 == 7) {
            reopen(&c.d);
            flushed = true;
        }
        for (size_t k = max_u64(was, c.flushed_at); k <= c.d.m->nlog; k++, points++) {
            struct mem *f = crashed_file(from, c.d.m, k, k % 2, &rng);

            expect_survival(&c, f);
            mem_destroy(f);
        }
        if (flushed)
            crash_flushed(&c);
    }
    free(c.sectors);
    mem_destroy(from);
    model_fini(&c.d);
    return points;
}

static void power_fails_at_every_point(void **s)
{
    unsigned points = 0;

    (void)s;
    for (size_t i = 0; i < array_len(shapes); i++)
        for (unsigned k = 0; k < test_factor() && !too_slow(&shapes[i]); k++) {
            struct shape small = shapes[i];

            small.size = min_u64(small.size, KiB(256));
            points += crash_shape(&small, 0x123456789abcdef + i + k * 1000);
        }
    print_message("# the power failed %u times\n", points);
}

/* ---- Writes fail. ---- */

enum { FAIL_OPS = 16 };

/* What was acknowledged stays; what was not may or may not be there. */
static bool failing_op(struct model *d, struct history *sectors, uint64_t *rng, uint64_t *stamp)
{
    uint64_t n = 1 + next_random(rng) % RUN_MAX, first = next_random(rng) % (d->sectors - n), now = 0;
    unsigned what = next_random(rng) % 6;
    uint64_t buf[RUN_MAX * SECTOR / 8];
    int rc;

    if (what == 5)
        return blk_flush(d->b);
    if (what == 4) {
        rc = blk_zero(d->b, first * SECTOR, n * SECTOR, true);
    } else {
        now = ++*stamp;
        fill(buf, n, now);
        rc = blk_pwrite(d->b, buf, n * SECTOR, first * SECTOR);
    }
    for (uint64_t i = first; i < first + n; i++) {
        struct history *h = &sectors[i];

        if (!rc) {
            h->flushed = now;
            h->n = 0;
        } else {
            assert_true(h->n < HISTORY_MAX);
            h->later[h->n++] = now;
        }
    }
    return rc;
}

/* From the `at`-th change of the file on, `times` fail, then the host has room again.  False: there were not so many.
 */
static bool fail_run(const struct shape *shape, uint64_t at, uint64_t times, int with)
{
    uint64_t rng = 0xfedcba987654321, stamp = 1ull << 32;
    struct crash c;
    bool failed = false;

    model_init(&c.d, shape);
    c.sectors = xcalloc(c.d.sectors, sizeof(*c.sectors));
    for (uint64_t i = 0; i < c.d.sectors; i++)
        c.sectors[i].flushed = c.d.stamps[i];
    c.d.m->changes = 0;
    c.d.m->fail_at = at;
    c.d.m->fail_with = with;
    for (unsigned i = 0; i < FAIL_OPS; i++) {
        if (failing_op(&c.d, c.sectors, &rng, &stamp))
            failed = true;
        if (c.d.m->changes >= at + times)
            c.d.m->fail_at = 0;
    }
    c.d.m->fail_at = 0;
    assert_int_equal(blk_flush(c.d.b), 0);
    rig_close(take_ptr(c.d.b));
    expect_survival(&c, c.d.m);
    rig_check(c.d.m, false);
    free(c.sectors);
    model_fini(&c.d);
    return failed;
}

static void writes_fail_at_every_point(void **s)
{
    unsigned step = test_factor() == 1 ? 3 : 1; /* at every third point, if time matters */
    unsigned runs = 0;

    (void)s;
    for (size_t i = 0; i < array_len(shapes); i++) {
        struct shape small = shapes[i];

        small.size = min_u64(small.size, KiB(256));
        for (uint64_t at = 1; !too_slow(&small) && fail_run(&small, at, 1 + at % 5, at % 2 ? -ENOSPC : -EIO);
             at += step)
            runs++;
    }
    print_message("# %u runs with failing writes\n", runs);
}

/* ---- By the asynchronous road, while threads go the blocking one. ---- */

enum { SLOTS = 6, LANE_THREADS = 2, LANE_OPS = 150 };

struct slot { /* one request after the other */
    struct blk_req r;
    struct worker w;
    struct iovec iov;
    uint64_t first, n, stamp, buf[RUN_MAX * SECTOR / 8];
};

static void slot_done(struct blk_req *r, int ret);

static void slot_start(struct slot *o)
{
    static const enum blk_op ops[] = {BLK_WRITE, BLK_WRITE, BLK_READ, BLK_READ, BLK_ZERO, BLK_FLUSH};
    struct worker *w = &o->w;
    enum blk_op op = ops[next_random(&w->rng) % array_len(ops)];

    o->n = 1 + next_random(&w->rng) % min_u64(w->stripe, RUN_MAX);
    o->first = next_random(&w->rng) % (w->model->sectors / w->stripe / w->count) * w->count + w->index;
    o->first = o->first * w->stripe + next_random(&w->rng) % (w->stripe - o->n + 1);
    o->stamp = op == BLK_WRITE ? (w->stamp += THREADS_MAX) : 0;
    fill(o->buf, o->n, o->stamp);
    o->iov = (struct iovec){o->buf, o->n * SECTOR};
    o->r = (struct blk_req){.io = {.op = op, .unmap = true, .iov = &o->iov, .niov = 1}, .done = slot_done};
    if (op != BLK_FLUSH) {
        o->r.io.off = o->first * SECTOR;
        o->r.io.len = o->n * SECTOR;
    }
    blk_submit(w->model->b, &o->r);
}

static void slot_done(struct blk_req *r, int ret)
{
    struct slot *o = container_of(r, struct slot, r);
    uint64_t *stamps = o->w.model->stamps + o->first;

    assert_int_equal(ret, 0);
    for (uint64_t i = 0; i < o->n; i++)
        if (r->io.op == BLK_READ)
            assert_int_equal(stamp_of(o->buf + i * SECTOR / 8), stamps[i]);
        else if (r->io.op != BLK_FLUSH)
            stamps[i] = o->stamp;
    if (o->w.ops-- > 1)
        slot_start(o);
    blk_kick(o->w.model->b);
}

static void lane_and_threads(struct model *d, struct lane *lane, unsigned stripe, uint64_t *seed)
{
    static struct slot slots[SLOTS];
    struct worker w[THREADS_MAX];

    for (unsigned i = 0; i < THREADS_MAX; i++) {
        w[i] = (struct worker){.model = d,
                               .rng = next_random(seed),
                               .stamp = (next_random(seed) & ~(uint64_t)(THREADS_MAX - 1) & INT64_MAX) + i,
                               .index = i,
                               .count = THREADS_MAX,
                               .stripe = stripe,
                               .ops = LANE_OPS};
        if (i < LANE_THREADS)
            assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
        else
            slots[i - LANE_THREADS].w = w[i];
    }
    for (unsigned i = 0; i < SLOTS; i++)
        slot_start(&slots[i]);
    blk_kick(d->b);
    lane_drain(lane);
    for (unsigned i = 0; i < LANE_THREADS; i++) {
        void *ret;

        pthread_join(w[i].thread, &ret);
        assert_int_equal((long)ret, 0);
    }
    compare(d);
}

static void lane_and_threads_share_an_image(void **s)
{
    static const char *const options[] = {"cluster_size=4K", "", "extended_l2=on,cluster_size=16K"};
    char dir[] = "/tmp/qcow2-test-XXXXXX", path[64];
    uint64_t seed = 0x1357924680abcdef;

    (void)s;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/disk.qcow2", dir);
    for (size_t i = 0; i < array_len(options); i++) {
        struct mem *m = mem_create(0);
        struct model d = {.sectors = MiB(4) / SECTOR};
        const struct blk_open_opts o = {.cache = BLK_CACHE_UNSAFE}; /* the host lives on */
        struct err err = {0};
        struct loop *loop;
        struct lane lane;
        FILE *f;

        rig_create(m, MiB(4), options[i]);
        f = fopen(path, "w");
        assert_non_null(f);
        assert_int_equal(fwrite(m->bytes, 1, m->size, f), m->size);
        fclose(f);
        d.stamps = xcalloc(d.sectors, 8);
        if (loop_create("test", &loop, &err))
            fail_msg("%s", err.msg);
        lane_init(&lane, loop);
        lane_lock(&lane);
        if (blk_open(path, &o, &lane, NULL, &d.b, &err))
            fail_msg("%s", err.msg);
        for (unsigned stripe = 1; stripe <= 64; stripe *= 8)
            lane_and_threads(&d, &lane, stripe, &seed);
        blk_close(d.b);
        lane_unlock(&lane);
        lane_fini(&lane);
        loop_destroy(loop);
        if (blk_open(path, &o, NULL, NULL, &d.b, &err))
            fail_msg("%s", err.msg);
        compare(&d);
        blk_close(d.b);
        f = fopen(path, "r");
        m->size = fread(m->bytes = realloc(m->bytes, MiB(16)), 1, MiB(16), f);
        fclose(f);
        rig_check(m, false);
        free(d.stamps);
        mem_destroy(m);
    }
    unlink(path);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_operations_leave_what_was_written),
        cmocka_unit_test(power_fails_at_every_point),
        cmocka_unit_test(writes_fail_at_every_point),
        cmocka_unit_test(lane_and_threads_share_an_image),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
