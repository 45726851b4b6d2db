#include "vmm/base/test.h"
#include "vmm/bus/bus.h"

#include <stdatomic.h>

#include "vmm/loop/loop.h"

/* A region that answers each byte with 0x10 + its offset and notes what it was asked. */
struct probe {
    struct region r;
    struct {
        uint64_t off, val;
        unsigned size;
        bool write;
    } calls[16];
    unsigned ncalls;
};

static void note(struct region *r, uint64_t off, uint64_t val, unsigned size, bool write)
{
    struct probe *p = container_of(r, struct probe, r);

    assert_true(p->ncalls < array_len(p->calls));
    p->calls[p->ncalls].off = off;
    p->calls[p->ncalls].val = val;
    p->calls[p->ncalls].size = size;
    p->calls[p->ncalls++].write = write;
}

static uint64_t probe_read(struct region *r, uint64_t off, unsigned size)
{
    uint64_t v = 0;

    note(r, off, 0, size, false);
    for (unsigned i = 0; i < size; i++)
        v |= (0x10 + off + i) << (8 * i);
    return v;
}

static void probe_write(struct region *r, uint64_t off, uint64_t val, unsigned size)
{
    note(r, off, val, size, true);
}

/* One table for each set of sizes that the tests use. */
static const struct region_ops ops_of[] = {
    [1] = {probe_read, probe_write, 1},     [2] = {probe_read, probe_write, 2}, [4] = {probe_read, probe_write, 4},
    [5] = {probe_read, probe_write, 1 | 4}, [7] = {probe_read, probe_write, 7}, [8] = {probe_read, probe_write, 8},
    [15] = {probe_read, probe_write, 15},
};

static struct probe probe(unsigned sizes, uint64_t len)
{
    return (struct probe){.r = {.name = "probe", .ops = &ops_of[sizes], .len = len}};
}

static uint64_t in(struct bus *b, uint64_t addr, unsigned size)
{
    uint8_t data[9] = {[8] = 0x5a};
    uint64_t v;

    memset(data + size, 0, 8 - size);
    bus_access(b, addr, data, size, false);
    assert_int_equal(data[8], 0x5a);
    memcpy(&v, data, 8);
    return le64toh(v);
}

static void out(struct bus *b, uint64_t addr, unsigned size, uint64_t v)
{
    v = htole64(v);
    bus_access(b, addr, &v, size, true);
}

static void map(struct bus *b, struct probe *p, uint64_t base)
{
    struct err err;

    if (bus_map(b, &p->r, base, &err))
        fail_msg("%s", err.msg);
}

#define assert_call(p, i, offset, bytes, value)      \
    do {                                             \
        assert_true((p)->ncalls > (i));              \
        assert_int_equal((p)->calls[i].off, offset); \
        assert_int_equal((p)->calls[i].size, bytes); \
        assert_int_equal((p)->calls[i].val, value);  \
    } while (0)

static void a_declared_aligned_size_is_one_call(void **s)
{
    struct bus *b = bus_create("mmio", 1 << 20);
    struct probe p = probe(15, 32);

    (void)s;
    map(b, &p, 0x1000);
    assert_int_equal(in(b, 0x1000, 1), 0x10);
    assert_int_equal(in(b, 0x1002, 2), 0x1312);
    assert_int_equal(in(b, 0x1004, 4), 0x17161514);
    assert_int_equal(in(b, 0x1018, 8), 0x2f2e2d2c2b2a2928);
    assert_int_equal(p.ncalls, 4);
    out(b, 0x1008, 8, 0x1122334455667788);
    assert_call(&p, 4, 8, 8, 0x1122334455667788);
    assert_int_equal(p.ncalls, 5);
    bus_unmap(&p.r);
    bus_destroy(b);
    bus_destroy(NULL);
}

static void wide_accesses_are_split(void **s)
{
    struct bus *b = bus_create("pio", 65536);
    struct probe p = probe(1, 16), q = probe(4, 16);

    (void)s;
    map(b, &p, 0x60);
    map(b, &q, 0x80);
    assert_int_equal(in(b, 0x60, 4), 0x13121110);
    assert_int_equal(p.ncalls, 4);
    p.ncalls = 0;
    out(b, 0x63, 2, 0xabcd);
    assert_call(&p, 0, 3, 1, 0xcd);
    assert_call(&p, 1, 4, 1, 0xab);
    assert_int_equal(in(b, 0x80, 8), 0x1716151413121110);
    assert_call(&q, 0, 0, 4, 0);
    assert_call(&q, 1, 4, 4, 0);
    assert_int_equal(q.ncalls, 2);
    bus_unmap(&p.r);
    bus_unmap(&q.r);
    bus_destroy(b);
}

static void an_odd_access_takes_the_largest_sizes_that_fit(void **s)
{
    struct bus *b = bus_create("mmio", 1 << 20);
    struct probe p = probe(7, 16);

    (void)s;
    map(b, &p, 0);
    assert_int_equal(in(b, 1, 7), 0x17161514131211);
    assert_call(&p, 0, 1, 1, 0);
    assert_call(&p, 1, 2, 2, 0);
    assert_call(&p, 2, 4, 4, 0);
    assert_int_equal(p.ncalls, 3);
    p.ncalls = 0;
    assert_int_equal(in(b, 0, 3), 0x121110);
    assert_int_equal(p.ncalls, 2);
    bus_unmap(&p.r);
    bus_destroy(b);
}

static void narrow_reads_are_widened(void **s)
{
    struct bus *b = bus_create("mmio", 1 << 20);
    struct probe p = probe(4, 8), q = probe(8, 8);

    (void)s;
    map(b, &p, 0x100);
    map(b, &q, 0x200);
    assert_int_equal(in(b, 0x102, 2), 0x1312);
    assert_call(&p, 0, 0, 4, 0);
    assert_int_equal(in(b, 0x103, 4), 0x16151413); /* over two words */
    assert_call(&p, 1, 0, 4, 0);
    assert_call(&p, 2, 4, 4, 0);
    assert_int_equal(p.ncalls, 3);
    assert_int_equal(in(b, 0x205, 1), 0x15);
    assert_call(&q, 0, 0, 8, 0);
    bus_unmap(&p.r);
    bus_unmap(&q.r);
    bus_destroy(b);
}

static void narrow_writes_are_dropped_not_invented(void **s)
{
    struct bus *b = bus_create("mmio", 1 << 20);
    struct probe p = probe(4, 16), q = probe(5, 16);

    (void)s;
    map(b, &p, 0x100);
    map(b, &q, 0x200);
    out(b, 0x100, 1, 1);
    out(b, 0x102, 2, 1);
    assert_int_equal(p.ncalls, 0);
    out(b, 0x102, 8, 0x1122334455667788); /* only its middle is a whole word */
    assert_call(&p, 0, 4, 4, 0x33445566);
    assert_int_equal(p.ncalls, 1);
    out(b, 0x200, 2, 0xbbaa);
    assert_call(&q, 0, 0, 1, 0xaa);
    assert_call(&q, 1, 1, 1, 0xbb);
    bus_unmap(&p.r);
    bus_unmap(&q.r);
    bus_destroy(b);
}

static void holes_answer_ones_and_swallow_writes(void **s)
{
    struct bus *b = bus_create("mmio", 1 << 20);
    struct probe p = probe(7, 4), q = probe(7, 4);

    (void)s;
    assert_int_equal(in(b, 0x100, 8), UINT64_MAX);
    map(b, &p, 0x100);
    map(b, &q, 0x106);
    assert_int_equal(in(b, 0xff, 1), 0xff);
    assert_int_equal(in(b, 0xfe, 4), 0x1110ffff);
    assert_int_equal(in(b, 0x102, 8), 0x13121110ffff1312);
    p.ncalls = 0;
    out(b, 0x102, 4, 0x44332211);
    assert_call(&p, 0, 2, 2, 0x2211);
    assert_int_equal(p.ncalls, 1);
    bus_unmap(&p.r);
    assert_int_equal(in(b, 0x100, 4), 0xffffffff);
    bus_unmap(&p.r); /* no-op */
    bus_unmap(&q.r);
    bus_destroy(b);
}

static void a_region_shorter_than_its_words_reads_ones(void **s)
{
    struct bus *b = bus_create("mmio", 1 << 20);
    struct probe p = probe(4, 6);

    (void)s;
    map(b, &p, 0x100);
    assert_int_equal(in(b, 0x104, 4), 0xffffffff);
    out(b, 0x104, 4, 0);
    assert_int_equal(p.ncalls, 0);
    bus_unmap(&p.r);
    bus_destroy(b);
}

static void the_end_of_the_bus_does_not_wrap(void **s)
{
    struct bus *pio = bus_create("pio", 65536), *all = bus_create("all", UINT64_MAX);
    struct probe lo = probe(7, 4), hi = probe(7, 1), zero = probe(7, 8);
    struct err err;

    (void)s;
    map(pio, &lo, 0);
    map(pio, &hi, 0xffff);
    assert_int_equal(in(pio, 0xffff, 4), 0xffffff10);
    assert_int_equal(lo.ncalls, 0);
    map(all, &zero, 0);
    assert_int_equal(in(all, UINT64_MAX - 1, 8), UINT64_MAX);
    out(all, UINT64_MAX - 1, 8, 0);
    assert_int_equal(zero.ncalls, 0);
    bus_unmap(&lo.r);
    assert_int_equal(bus_map(pio, &lo.r, 0xfffd, &err), -ERANGE);
    assert_int_equal(bus_map(pio, &lo.r, UINT64_MAX - 1, &err), -ERANGE);
    bus_unmap(&hi.r);
    bus_unmap(&zero.r);
    bus_destroy(pio);
    bus_destroy(all);
}

static void overlap_is_refused_and_names_both(void **s)
{
    struct bus *b = bus_create("mmio", 1 << 20);
    struct probe p = probe(1, 16), q = probe(1, 16);
    struct err err;

    (void)s;
    p.r.name = "uart";
    q.r.name = "rtc";
    map(b, &p, 0x100);
    for (uint64_t at = 0xf1; at <= 0x10f; at++)
        assert_int_equal(bus_map(b, &q.r, at, &err), -EEXIST);
    assert_non_null(strstr(err.msg, "uart"));
    assert_non_null(strstr(err.msg, "rtc"));
    assert_null(q.r.bus);
    map(b, &q, 0xf0);
    bus_unmap(&q.r);
    map(b, &q, 0x110);
    bus_unmap(&p.r);
    bus_unmap(&q.r);
    bus_destroy(b);
}

static void the_table_stays_sorted_and_bounded(void **s)
{
    struct bus *b = bus_create("mmio", 1 << 20);
    static struct probe p[BUS_REGIONS_MAX + 1];
    struct err err;

    (void)s;
    for (unsigned i = 0; i <= BUS_REGIONS_MAX; i++)
        p[i] = probe(1, 4);
    for (unsigned i = 0; i < BUS_REGIONS_MAX; i++) /* 7 is odd: all places once, in a mixed order */
        map(b, &p[i], i * 7 % BUS_REGIONS_MAX * 8);
    assert_int_equal(bus_map(b, &p[BUS_REGIONS_MAX].r, 0x10000, &err), -ENOSPC);
    for (unsigned i = 0; i < BUS_REGIONS_MAX; i++) {
        in(b, i * 7 % BUS_REGIONS_MAX * 8 + 3, 1);
        assert_int_equal(p[i].ncalls, 1);
    }
    for (unsigned i = 0; i < BUS_REGIONS_MAX; i++)
        bus_unmap(&p[i].r);
    bus_destroy(b);
}

struct guarded {
    struct region r;
    struct lane lane;
    bool held;
};

static uint64_t guarded_read(struct region *r, uint64_t off, unsigned size)
{
    struct guarded *g = container_of(r, struct guarded, r);

    (void)off;
    (void)size;
    g->held = pthread_mutex_trylock(&g->lane.lock) == EBUSY;
    return 0;
}

/* A BAR that moves itself while it is being written. */
static void moving_write(struct region *r, uint64_t off, uint64_t val, unsigned size)
{
    struct bus *b = r->bus;
    struct err err;

    (void)off;
    (void)size;
    bus_unmap(r);
    if (bus_map(b, r, val, &err))
        fail_msg("%s", err.msg);
}

static void the_lane_is_held_and_the_table_is_not(void **s)
{
    static const struct region_ops ops = {guarded_read, moving_write, 4};
    struct bus *b = bus_create("mmio", 1 << 20);
    struct guarded g = {.r = {.name = "guarded", .ops = &ops, .lane = &g.lane, .len = 16}};
    struct err err;

    (void)s;
    lane_init(&g.lane, NULL);
    assert_int_equal(bus_map(b, &g.r, 0x100, &err), 0);
    in(b, 0x100, 4);
    assert_true(g.held);
    out(b, 0x100, 4, 0x200);
    assert_int_equal(g.r.base, 0x200);
    g.held = false;
    in(b, 0x200, 4);
    assert_true(g.held);
    bus_unmap(&g.r);
    lane_fini(&g.lane);
    bus_destroy(b);
}

static uint64_t constant_read(struct region *r, uint64_t off, unsigned size)
{
    (void)r;
    (void)size;
    return off;
}

static void nothing_write(struct region *r, uint64_t off, uint64_t val, unsigned size)
{
    (void)r;
    (void)off;
    (void)val;
    (void)size;
}

enum { MOVES = 3000 };

struct mover {
    struct bus *b;
    struct region r;
    atomic_bool over;
};

static void *move_about(void *arg)
{
    struct mover *m = arg;
    struct err err;

    for (unsigned i = 0; i < MOVES; i++) {
        assert_int_equal(bus_map(m->b, &m->r, i & 1 ? 0x0 : 0x2000, &err), 0);
        bus_unmap(&m->r);
    }
    atomic_store(&m->over, true);
    return NULL;
}

static void accesses_meet_the_right_region_while_others_move(void **s)
{
    static const struct region_ops ops = {constant_read, nothing_write, 7};
    struct region still = {.name = "still", .ops = &ops, .len = 16};
    struct mover m = {.r = {.name = "moving", .ops = &ops, .len = 16}};
    bool torn = false, strayed = false;
    pthread_t t;
    struct err err;

    (void)s;
    m.b = bus_create("mmio", 1 << 20);
    assert_int_equal(bus_map(m.b, &still, 0x1000, &err), 0);
    assert_int_equal(pthread_create(&t, NULL, move_about, &m), 0);
    while (!atomic_load(&m.over)) {
        uint64_t moving = in(m.b, 0x2004, 4);

        torn |= moving != 4 && moving != UINT32_MAX; /* judged when the other thread is gone */
        strayed |= in(m.b, 0x1004, 4) != 4;
    }
    pthread_join(t, NULL);
    assert_false(torn);
    assert_false(strayed);
    bus_unmap(&still);
    bus_destroy(m.b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_declared_aligned_size_is_one_call),
        cmocka_unit_test(wide_accesses_are_split),
        cmocka_unit_test(an_odd_access_takes_the_largest_sizes_that_fit),
        cmocka_unit_test(narrow_reads_are_widened),
        cmocka_unit_test(narrow_writes_are_dropped_not_invented),
        cmocka_unit_test(holes_answer_ones_and_swallow_writes),
        cmocka_unit_test(a_region_shorter_than_its_words_reads_ones),
        cmocka_unit_test(the_end_of_the_bus_does_not_wrap),
        cmocka_unit_test(overlap_is_refused_and_names_both),
        cmocka_unit_test(the_table_stays_sorted_and_bounded),
        cmocka_unit_test(the_lane_is_held_and_the_table_is_not),
        cmocka_unit_test(accesses_meet_the_right_region_while_others_move),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
