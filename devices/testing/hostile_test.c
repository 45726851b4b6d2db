/*
 * What hostile drivers have done to virtio devices elsewhere, done to every device of this build: on each transport, in
 * each ring layout.  A test ends well when the device either did what can be done or asks to be reset, works again
 * after a reset, and has nothing left in flight.
 */
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>

#include "devices/testing/vdriver.h"
#include "devices/virtio/mmio.h"
#include "devices/virtio/vq.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"

enum {
    IMAGE = 1 << 20,
    USED_RAM = 6 << 20,
    NEXT = VRING_DESC_F_NEXT,
    WRITE = VRING_DESC_F_WRITE,
    INDIRECT = VRING_DESC_F_INDIRECT
};
static const gpa_t ram_end = VDRIVER_RAM;

static struct vdriver d;
static uint64_t features; /* of the layout under test */
static uint64_t eager;    /* queues that take a chain as soon as it is there, a bit each */
static int image;         /* the disk's */
static void (*body)(unsigned queue);

/* ---- What the tests have in common. ---- */

static unsigned taken(unsigned queue)
{
    return d.v->core->qs[queue].avail;
}

/* Runs what was notified of; afterwards nothing may be in flight. */
static void settle(unsigned queue)
{
    vdriver_kick(&d, queue);
    vdriver_run(&d);
    assert_int_equal(d.v->dev.lane.inflight, 0);
}

/* A chain that makes sense to each device: a zeroed header (of a disk's read of sector 0), room for the reply. */
static void add_decent(unsigned queue)
{
    gpa_t at = vdriver_alloc(&d, 1024);
    const struct vdriver_buf bufs[] = {{at, 16, false}, {at + 64, 513, true}};

    vdriver_add(&d, queue, bufs, 2, false);
}

static void start(void)
{
    vdriver_start(&d, features);
}

/* After a reset the device is as good as new. */
static void expect_well(unsigned queue)
{
    unsigned before;

    start();
    before = taken(queue);
    add_decent(queue);
    settle(queue);
    assert_false(vdriver_broken(&d));
    assert_int_not_equal(taken(queue), before);
}

static void expect_broken(unsigned queue)
{
    settle(queue);
    assert_true(vdriver_broken(&d));
    expect_well(queue);
}

/* A chain of one descriptor, written to the next slot, made available. */
static void add_one(unsigned queue, gpa_t addr, uint32_t len, uint16_t flags)
{
    unsigned slot = vdriver_slot(&d, queue, 0);

    vdriver_desc(&d, queue, slot, addr, len, flags, (uint16_t)slot);
    vdriver_publish(&d, queue, (uint16_t)slot, 1);
}

static void put_bytes(gpa_t at, const void *src, size_t n)
{
    assert_int_equal(gmem_write(d.e.env.mem, at, src, n), 0);
}

static uint64_t dice(void)
{
    static uint64_t x = 88172645463325252;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return x;
}

static void find_eager(void)
{
    eager = 0;
    start();
    for (unsigned q = 0; q < d.v->nqueues; q++) {
        unsigned before = taken(q);

        add_decent(q);
        settle(q);
        if (taken(q) != before)
            eager |= 1ull << q;
    }
    assert_true(eager);
}

static const struct layout {
    const char *name;
    uint64_t features;
} layouts[] = {
    {"split", 1ull << VIRTIO_RING_F_INDIRECT_DESC},
    {"packed", 1ull << VIRTIO_RING_F_INDIRECT_DESC | 1ull << VIRTIO_F_RING_PACKED | 1ull << VIRTIO_RING_F_EVENT_IDX},
};

static void run_one(const struct device_class *cls, const struct vdriver_transport *t, const struct layout *l)
{
    char options[64];

    image = memfd_create("disk", MFD_CLOEXEC);
    assert_int_equal(ftruncate(image, IMAGE), 0);
    vdriver_create(&d, t, cls, test_env_options(cls, image, options, sizeof(options)));
    print_message("# %s, %s, %s\n", cls->name, t->name, l->name);
    features = l->features;
    find_eager();
    for (unsigned q = 0; q < d.v->nqueues; q++)
        if (eager >> q & 1) {
            start();
            body(q);
        }
    vdriver_destroy(&d);
    close(image);
}

/* The body once for each device class, transport, layout and queue that takes chains by itself. */
static void for_all(void (*b)(unsigned queue))
{
    body = b;
    for (const struct device_class *const *c = device_classes; *c; c++)
        for (const struct vdriver_transport *const *t = vdriver_transports; *t && !strncmp((*c)->name, "virtio-", 7);
             t++)
            for (size_t l = 0; l < array_len(layouts); l++)
                run_one(*c, *t, &layouts[l]);
}

/* ---- Chains. ---- */

static void loop_chains(unsigned queue)
{
    gpa_t at = vdriver_alloc(&d, 64);
    unsigned size = d.q[queue].size;

    for (unsigned length = 1; length <= 2 && !d.packed; length++) { /* to itself; to each other */
        for (unsigned i = 0; i < length; i++)
            vdriver_desc(&d, queue, i, at, 4, NEXT, (uint16_t)((i + 1) % length));
        vdriver_publish(&d, queue, 0, 1);
        expect_broken(queue);
    }
    for (unsigned i = 0; i < size; i++) /* all there are, and on */
        vdriver_desc(&d, queue, vdriver_slot(&d, queue, i), at, 4, NEXT,
                     d.packed ? 0 : (uint16_t)vdriver_slot(&d, queue, i + 1));
    vdriver_publish(&d, queue, (uint16_t)vdriver_slot(&d, queue, 0), size);
    expect_broken(queue);
}

static void a_chain_that_never_ends_breaks_the_device(void **s)
{
    (void)s;
    for_all(loop_chains);
}

static void bad_heads(unsigned queue)
{
    const uint16_t size = (uint16_t)d.q[queue].size, heads[] = {size, 0x7fff, 0x8000, 0xffff};
    gpa_t at = vdriver_alloc(&d, 64);

    for (size_t i = 0; i < array_len(heads); i++) {
        vdriver_desc(&d, queue, vdriver_slot(&d, queue, 0), at, 4, 0, heads[i]); /* the id of a packed one */
        vdriver_publish(&d, queue, heads[i], 1);
        expect_broken(queue);
        if (d.packed)
            continue;
        vdriver_desc(&d, queue, 5, at, 4, NEXT, heads[i]);
        vdriver_publish(&d, queue, 5, 1);
        expect_broken(queue);
    }
}

static void an_index_beyond_the_ring_breaks_the_device(void **s)
{
    (void)s;
    for_all(bad_heads);
}

static void last_head(unsigned queue)
{
    uint16_t last = (uint16_t)(d.q[queue].size - 1);
    unsigned before = taken(queue);
    gpa_t at = vdriver_alloc(&d, 1024);

    if (d.packed) {
        vdriver_desc(&d, queue, 0, at, 16, NEXT, 0);
        vdriver_desc(&d, queue, 1, at + 64, 513, WRITE, last);
        vdriver_publish(&d, queue, 0, 2);
    } else {
        vdriver_desc(&d, queue, last, at, 16, NEXT, 0);
        vdriver_desc(&d, queue, 0, at + 64, 513, WRITE, 0);
        vdriver_publish(&d, queue, last, 1);
    }
    settle(queue);
    assert_false(vdriver_broken(&d));
    assert_int_not_equal(taken(queue), before);
}

static void the_last_index_of_the_ring_is_fine(void **s)
{
    (void)s;
    for_all(last_head);
}

static void jump(unsigned queue)
{
    const uint16_t jumps[] = {(uint16_t)(d.q[queue].size + 1), 0x8000, 0xffff};

    if (d.packed)
        return; /* has no index */
    for (size_t i = 0; i < array_len(jumps); i++) {
        put_bytes(d.q[queue].driver + 2, &jumps[i], 2);
        expect_broken(queue);
    }
}

static void an_available_index_that_jumps_breaks_the_device(void **s)
{
    (void)s;
    for_all(jump);
}

static void flood(unsigned queue)
{
    size_t before = 0;

    for (unsigned round = 0; round < 8; round++) {
        start();
        for (unsigned i = 0; i < d.q[queue].size / 2; i++)
            add_decent(queue);
        for (unsigned i = 0; i < 3; i++)
            vdriver_kick(&d, queue);
        settle(queue);
        if (!round)
            before = mallinfo2().uordblks;
    }
    assert_in_range(mallinfo2().uordblks, 0, before + 4096);
}

static void a_flood_of_requests_takes_no_more_memory_than_one(void **s)
{
    (void)s;
    for_all(flood);
}

/* ---- Indirect tables. ---- */

static void write_table(gpa_t at, unsigned n, uint32_t len, uint16_t flags)
{
    for (unsigned i = 0; i < n; i++) {
        uint8_t desc[16] = {0};

        put_le64(desc, at);
        put_le32(desc + 8, len);
        put_le16(desc + (d.packed ? 14 : 12), flags);
        put_le16(desc + (d.packed ? 12 : 14), (uint16_t)(i + 1));
        put_bytes(at + i * 16, desc, sizeof(desc));
    }
}

static void abuse_tables(unsigned queue)
{
    enum { ROOM = 2048 };
    const struct {
        gpa_t addr; /* 0: where the table is */
        uint32_t len;
        uint16_t in_ring;
        uint32_t entry; /* length of each buffer in the table */
        uint16_t in_table;
    } rows[] = {
        {0, 0, INDIRECT, 1, 0},
        {0, 15, INDIRECT, 1, 0},
        {0, 17, INDIRECT, 1, 0},
        {0, 16 * (d.q[queue].size + 1), INDIRECT, 1, NEXT},
        {0, 16 * ROOM, INDIRECT, 1, NEXT},
        {0, 16 * ROOM, INDIRECT, 0, NEXT}, /* a long way to nothing */
        {0, 0xfffffff0, INDIRECT, 1, NEXT},
        {0, 32, INDIRECT | NEXT, 1, NEXT},
        {0, 32, INDIRECT, 1, INDIRECT},
        {ram_end - 16, 32, INDIRECT, 1, NEXT},
        {ram_end, 16, INDIRECT, 1, NEXT},
        {UINT64_MAX - 15, 32, INDIRECT, 1, NEXT},
    };

    for (size_t i = 0; i < array_len(rows); i++) {
        gpa_t at = vdriver_alloc(&d, ROOM * 16);

        write_table(at, ROOM, rows[i].entry, rows[i].in_table);
        add_one(queue, rows[i].addr ? rows[i].addr : at, rows[i].len, rows[i].in_ring);
        expect_broken(queue);
    }
    if (!d.packed) { /* links out of the table */
        gpa_t at = vdriver_alloc(&d, 64);

        write_table(at, 4, 1, NEXT);
        add_one(queue, at, 48, INDIRECT);
        expect_broken(queue);
    }
    features &= ~(1ull << VIRTIO_RING_F_INDIRECT_DESC);
    start();
    add_one(queue, vdriver_alloc(&d, 16), 16, INDIRECT);
    expect_broken(queue);
}

static void tables_against_the_rules_break_the_device(void **s)
{
    (void)s;
    for_all(abuse_tables);
}

/* ---- Addresses. ---- */

static void bad_addresses(unsigned queue)
{
    const struct {
        gpa_t addr;
        uint32_t len;
    } rows[] = {
        {UINT64_MAX, 1},       {UINT64_MAX, UINT32_MAX},
        {UINT64_MAX - 15, 32}, {ram_end, 1},
        {ram_end - 1, 2},      {ram_end - 4096, UINT32_MAX},
        {1ull << 63, 16},      {0, UINT32_MAX},
        {0xfee00000, 4},       {d.regs, 4}, /* its own registers: a device must never reach itself by DMA */
        {d.notify, 2},         {d.config, 8},
    };

    for (size_t i = 0; i < array_len(rows); i++)
        for (unsigned write = 0; write < 2; write++) {
            add_one(queue, rows[i].addr, rows[i].len, write ? WRITE : 0);
            expect_broken(queue);
        }
}

static void buffers_that_are_not_ram_break_the_device(void **s)
{
    (void)s;
    for_all(bad_addresses);
}

static void last_byte(unsigned queue)
{
    unsigned before = taken(queue);
    const struct vdriver_buf bufs[] = {{0, 16, false}, {0x1000, 512, true}, {ram_end - 1, 1, true}};
    const uint8_t zeroes[16] = {0};

    put_bytes(0, zeroes, sizeof(zeroes));
    vdriver_add(&d, queue, bufs, 3, false);
    settle(queue);
    assert_false(vdriver_broken(&d));
    assert_int_not_equal(taken(queue), before);
}

static void buffers_may_end_where_ram_does(void **s)
{
    (void)s;
    for_all(last_byte);
}

static void wrong_order(unsigned queue)
{
    gpa_t at = vdriver_alloc(&d, 64);
    const struct vdriver_buf bufs[] = {{at, 16, true}, {at + 16, 16, false}};

    vdriver_add(&d, queue, bufs, 2, false);
    expect_broken(queue);
    vdriver_add(&d, queue, bufs, 2, true);
    expect_broken(queue);
}

static void readable_after_writable_breaks_the_device(void **s)
{
    (void)s;
    for_all(wrong_order);
}

/* As much as can be described: the whole of RAM, over and over. */
static void describe_all_of_it(unsigned queue)
{
    size_t before = mallinfo2().uordblks;
    unsigned n = d.q[queue].size;

    for (unsigned write = 0; write < 2; write++) {
        start();
        for (unsigned i = 0; i < n; i++)
            vdriver_desc(&d, queue, vdriver_slot(&d, queue, i), 0, VDRIVER_RAM,
                         (write ? WRITE : 0) | (i + 1 < n ? NEXT : 0),
                         d.packed ? 0 : (uint16_t)vdriver_slot(&d, queue, i + 1));
        vdriver_publish(&d, queue, (uint16_t)vdriver_slot(&d, queue, 0), n);
        settle(queue);
        if ((uint64_t)n * VDRIVER_RAM > UINT32_MAX) /* no used length could tell */
            assert_true(vdriver_broken(&d));
    }
    assert_in_range(mallinfo2().uordblks, 0, before + 4096);
    expect_well(queue);
}

static void chains_of_gigabytes_take_neither_time_nor_memory(void **s)
{
    (void)s;
    for_all(describe_all_of_it);
}

/* ---- Races. ---- */

struct flipper {
    volatile uint64_t *addr, *rest; /* of a descriptor in guest RAM */
    uint64_t addrs[2], rests[4];
    atomic_bool stop;
};

/* Another of the guest's processors, which writes as it likes. */
__attribute__((no_sanitize("thread"))) static void *flip(void *arg)
{
    struct flipper *f = arg;

    for (unsigned i = 0; !atomic_load(&f->stop); i++) {
        *f->addr = f->addrs[i % 2];
        *f->rest = f->rests[i % 4];
    }
    return NULL;
}

/* Length, address and flags change while the device looks: no pair of old and new may get through unchecked. */
static void race_descriptor(unsigned queue)
{
    enum { ROUNDS = 40 };
    const struct gmem_range *r;
    struct flipper f = {.addrs = {0x1000, VDRIVER_RAM - 64}};
    unsigned flags_at = d.packed ? 48 : 32;
    pthread_t thread;

    gmem_ranges(d.e.env.mem, &r);
    f.addr = (volatile uint64_t *)((char *)r->host + d.q[queue].desc);
    f.rest = f.addr + 1;
    f.rests[0] = 64;
    f.rests[1] = 0x100000 | (uint64_t)WRITE << flags_at;
    f.rests[2] = 48 | (uint64_t)INDIRECT << flags_at;
    f.rests[3] = UINT32_MAX | (uint64_t)NEXT << flags_at;
    for (unsigned i = 0; i < 4 && d.packed; i++)
        f.rests[i] |= (uint64_t)1 << VRING_PACKED_DESC_F_AVAIL << flags_at;
    assert_int_equal(pthread_create(&thread, NULL, flip, &f), 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        start();
        vdriver_publish(&d, queue, 0, 1);
        settle(queue);
    }
    atomic_store(&f.stop, true);
    pthread_join(thread, NULL);
    expect_well(queue);
}

static void descriptors_that_change_under_the_devices_eyes(void **s)
{
    (void)s;
    for_all(race_descriptor);
}

/* ---- Registers. ---- */

static void poke_live_queue(unsigned queue)
{
    static const uint32_t sizes[] = {0, 1, 3, 0x8000, 0xffff};
    struct vq_state before = d.v->core->qs[queue];

    for (size_t i = 0; i < array_len(sizes); i++) {
        vdriver_set(&d, VDR_QUEUE, queue);
        vdriver_set(&d, VDR_QUEUE_SIZE, sizes[i]);
        vdriver_set(&d, VDR_QUEUE_ENABLE, 1);
        for (unsigned r = VDR_DESC_LOW; r <= VDR_DEVICE_HIGH; r++)
            vdriver_set(&d, r, 0xfffffff0);
        vdriver_set(&d, VDR_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE); /* clears bits */
        vdriver_set(&d, VDR_ACCEPTED, 0);
    }
    assert_memory_equal(&d.v->core->qs[queue], &before, sizeof(before));
    add_decent(queue);
    settle(queue);
    assert_false(vdriver_broken(&d));
    assert_int_not_equal(taken(queue), before.avail);
}

static void a_live_queue_cannot_be_changed(void **s)
{
    (void)s;
    for_all(poke_live_queue);
}

static void disable_live_queue(unsigned queue)
{
    add_decent(queue);
    vdriver_kick(&d, queue);
    vdriver_set(&d, VDR_QUEUE, queue);
    vdriver_set(&d, VDR_QUEUE_ENABLE, 0);
    vdriver_set(&d, VDR_QUEUE_RESET, 1);
    settle(queue);
    expect_well(queue);
}

static void a_live_queue_can_be_switched_off(void **s)
{
    (void)s;
    for_all(disable_live_queue);
}

/* Rings set up in bad places, or with bad sizes. */
static void bad_rings(unsigned queue)
{
    const struct {
        enum vdriver_reg low;
        uint64_t val;
    } rows[] = {
        {VDR_DESC_LOW, d.q[queue].desc + 8},
        {VDR_DESC_LOW, ram_end - 16},
        {VDR_DESC_LOW, UINT64_MAX - 15},
        {VDR_DESC_LOW, d.regs & ~15ull},
        {VDR_DRIVER_LOW, d.q[queue].driver + 1},
        {VDR_DRIVER_LOW, ram_end},
        {VDR_DRIVER_LOW, UINT64_MAX - 3},
        {VDR_DEVICE_LOW, d.q[queue].device + 2},
        {VDR_DEVICE_LOW, 1ull << 63},
        {VDR_QUEUE_SIZE, 3},
    };

    for (size_t i = 0; i < array_len(rows); i++) {
        bool size = rows[i].low == VDR_QUEUE_SIZE;

        if (size && d.packed)
            continue; /* any size will do */
        vdriver_reset(&d);
        assert_true(vdriver_negotiate(&d, features | 1ull << VIRTIO_F_VERSION_1));
        vdriver_set_queue(&d, queue, 0);
        vdriver_set(&d, VDR_QUEUE_ENABLE, 0);
        vdriver_set(&d, VDR_QUEUE_RESET, 1);
        vdriver_set(&d, VDR_DESC_LOW, d.q[queue].desc);
        vdriver_set(&d, VDR_DRIVER_LOW, d.q[queue].driver);
        vdriver_set(&d, VDR_DEVICE_LOW, d.q[queue].device);
        vdriver_set(&d, rows[i].low, (uint32_t)rows[i].val);
        if (!size)
            vdriver_set(&d, rows[i].low + 1, rows[i].val >> 32);
        vdriver_set(&d, VDR_QUEUE_ENABLE, 1);
        vdriver_set(&d, VDR_STATUS, vdriver_get(&d, VDR_STATUS) | VIRTIO_CONFIG_S_DRIVER_OK);
        expect_broken(queue);
    }
}

static void rings_in_bad_places_break_the_device(void **s)
{
    (void)s;
    for_all(bad_rings);
}

static void select_nothing(unsigned queue)
{
    const uint32_t selectors[] = {d.v->nqueues, 0x7fff, 0xffff, 0x10000, UINT32_MAX};
    struct vq_state before = d.v->core->qs[queue];

    for (size_t i = 0; i < array_len(selectors); i++) {
        if (!(selectors[i] & 0xffff))
            continue;
        vdriver_set(&d, VDR_QUEUE, selectors[i]);
        assert_int_equal(vdriver_get(&d, VDR_QUEUE_MAX), 0);
        for (unsigned r = VDR_QUEUE_SIZE; r < VDR_REGS; r++) {
            vdriver_set(&d, r, UINT64_MAX);
            assert_int_equal(vdriver_get(&d, r), 0);
        }
        if (d.t == &vdriver_mmio)
            test_env_write(&d.e, d.e.env.mmio, d.notify, selectors[i], 4);
        else if (selectors[i] < 0x400)
            vdriver_kick(&d, selectors[i]);
    }
    assert_memory_equal(&d.v->core->qs[queue], &before, sizeof(before));
    assert_false(vdriver_broken(&d));
    expect_well(queue);
}

static void queues_that_do_not_exist_do_nothing(void **s)
{
    (void)s;
    for_all(select_nothing);
}

/* Every offset in every width, read and written. */
static void poke_everywhere(unsigned queue)
{
    static const unsigned widths[] = {1, 2, 3, 4, 8};
    uint64_t len = d.t == &vdriver_mmio ? VIRTIO_MMIO_WINDOW : 0x4000;

    for (uint64_t off = 0; off < len; off++)
        for (size_t w = 0; w < array_len(widths); w++) {
            test_env_read(&d.e, d.e.env.mmio, d.regs + off, widths[w]);
            test_env_write(&d.e, d.e.env.mmio, d.regs + off, dice(), widths[w]);
        }
    vdriver_run(&d);
    expect_well(queue);
}

static void registers_take_any_access(void **s)
{
    (void)s;
    for_all(poke_everywhere);
}

/* ---- Requests. ---- */

/* `out` bytes of a random request of a probable kind, `in` bytes for the reply, in two pieces each. */
static void odd_request(unsigned queue, uint32_t out, uint32_t in, bool indirect)
{
    enum { AT = 8 << 20, ROOM = 1 << 20 };
    const uint32_t o = out / 3, n = in / 3;
    const struct vdriver_buf bufs[] = {
        {AT, o, false}, {AT + o, out - o, false}, {AT + ROOM, n, true}, {AT + 2 * ROOM, in - n, true}};
    uint64_t header[8];

    for (size_t i = 0; i < array_len(header); i++)
        header[i] = dice();
    header[0] &= 0xffffffff0000000f;
    put_bytes(AT, header, sizeof(header));
    vdriver_add(&d, queue, bufs, 4, indirect);
    settle(queue);
    if (vdriver_broken(&d))
        start();
}

static void odd_requests(unsigned queue)
{
    static const uint32_t sizes[] = {0, 1, 7, 15, 16, 17, 33, 4096, 100000};

    for (size_t out = 0; out < array_len(sizes); out++)
        for (size_t in = 0; in < array_len(sizes); in++) {
            odd_request(queue, sizes[out], sizes[in], false);
            odd_request(queue, sizes[out], sizes[in], true);
        }
    expect_well(queue);
}

static void headers_short_long_and_in_pieces(void **s)
{
    (void)s;
    for_all(odd_requests);
}

static void fail_often(unsigned queue)
{
    uint16_t id;
    uint32_t len;

    assert_int_equal(ftruncate(image, 0), 0); /* a disk's reads fail from now on */
    for (unsigned i = 0; i < 3 * d.q[queue].size; i++) {
        unsigned before = taken(queue);

        add_decent(queue);
        settle(queue);
        assert_false(vdriver_broken(&d));
        assert_int_not_equal(taken(queue), before);
        if (!vdriver_used(&d, queue, &id, &len))
            break; /* a device that keeps its chain */
    }
    assert_int_equal(ftruncate(image, IMAGE), 0);
}

static void failed_requests_leak_nothing(void **s)
{
    (void)s;
    for_all(fail_often);
}

/* ---- Reset and the end. ---- */

static void copy_ram(uint8_t *to)
{
    assert_int_equal(gmem_read(d.e.env.mem, 0, to, USED_RAM), 0);
}

static void reset_in_flight(unsigned queue)
{
    cleanup_free uint8_t *before = xcalloc(1, USED_RAM), *after = xcalloc(1, USED_RAM);

    d.e.no_doorbells = true; /* so that requests start at once, and the loop comes later */
    start();
    for (unsigned i = 0; i < d.q[queue].size / 2; i++)
        add_decent(queue);
    assert_in_range(d.ram, 0, USED_RAM);
    vdriver_kick(&d, queue);
    vdriver_set(&d, VDR_STATUS, 0);
    assert_int_equal(d.v->dev.lane.inflight, 0);
    copy_ram(before);
    vdriver_kick(&d, queue);
    vdriver_run(&d);
    copy_ram(after);
    assert_int_equal(memcmp(before, after, USED_RAM), 0);
    d.e.no_doorbells = false;
    expect_well(queue);
}

static void nothing_touches_ram_after_a_reset(void **s)
{
    (void)s;
    for_all(reset_in_flight);
}

/* run_one() ends the device next. */
static void leave_in_flight(unsigned queue)
{
    d.e.no_doorbells = true;
    start();
    for (unsigned q = 0; q <= queue; q++)
        if (eager >> q & 1) {
            for (unsigned i = 0; i < d.q[q].size / 2; i++)
                add_decent(q);
            vdriver_kick(&d, q);
        }
}

static void a_device_may_end_with_requests_in_flight(void **s)
{
    (void)s;
    for_all(leave_in_flight);
}

static void same_head_twice(unsigned queue)
{
    gpa_t at = vdriver_alloc(&d, 1024);
    bool slow = d.v->ops->id == VIRTIO_ID_BLOCK; /* has both in flight at once */

    for (unsigned i = 0; i < 2; i++) {
        unsigned first = d.packed ? vdriver_slot(&d, queue, 0) : 0, second = d.packed ? vdriver_slot(&d, queue, 1) : 1;

        vdriver_desc(&d, queue, first, at, 16, NEXT, d.packed ? 0 : 1);
        vdriver_desc(&d, queue, second, at + 64, 513, WRITE, 0);
        vdriver_publish(&d, queue, 0, d.packed ? 2 : 1);
    }
    settle(queue);
    if (slow)
        assert_true(vdriver_broken(&d));
    expect_well(queue);
}

static void a_head_in_flight_twice_breaks_the_device(void **s)
{
    (void)s;
    for_all(same_head_twice);
}

static void pass_through(unsigned queue)
{
    (void)queue;
    if (d.v->ops->id == VIRTIO_ID_BLOCK)
        assert_false(vdriver_offered(&d) & 1ull << VIRTIO_BLK_F_SCSI);
    assert_false(vdriver_offered(&d) & 1ull << VIRTIO_F_ACCESS_PLATFORM);
    assert_false(vdriver_offered(&d) & 1ull << VIRTIO_F_NOTIFY_ON_EMPTY);
}

static void what_is_not_there_is_never_offered(void **s)
{
    (void)s;
    for_all(pass_through);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chain_that_never_ends_breaks_the_device),
        cmocka_unit_test(an_index_beyond_the_ring_breaks_the_device),
        cmocka_unit_test(the_last_index_of_the_ring_is_fine),
        cmocka_unit_test(an_available_index_that_jumps_breaks_the_device),
        cmocka_unit_test(a_flood_of_requests_takes_no_more_memory_than_one),
        cmocka_unit_test(tables_against_the_rules_break_the_device),
        cmocka_unit_test(buffers_that_are_not_ram_break_the_device),
        cmocka_unit_test(buffers_may_end_where_ram_does),
        cmocka_unit_test(readable_after_writable_breaks_the_device),
        cmocka_unit_test(chains_of_gigabytes_take_neither_time_nor_memory),
        cmocka_unit_test(descriptors_that_change_under_the_devices_eyes),
        cmocka_unit_test(a_live_queue_cannot_be_changed),
        cmocka_unit_test(a_live_queue_can_be_switched_off),
        cmocka_unit_test(rings_in_bad_places_break_the_device),
        cmocka_unit_test(queues_that_do_not_exist_do_nothing),
        cmocka_unit_test(registers_take_any_access),
        cmocka_unit_test(headers_short_long_and_in_pieces),
        cmocka_unit_test(failed_requests_leak_nothing),
        cmocka_unit_test(nothing_touches_ram_after_a_reset),
        cmocka_unit_test(a_device_may_end_with_requests_in_flight),
        cmocka_unit_test(a_head_in_flight_twice_breaks_the_device),
        cmocka_unit_test(what_is_not_there_is_never_offered),
    };

    log_set_level(LOG_ERROR); /* the guest's mistakes are many here */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
