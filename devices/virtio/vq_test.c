#include "devices/virtio/vq.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "devices/testing/vdriver.h"
#include "devices/testing/vtoy.h"
#include "vmm/base/test.h"

static const struct {
    const char *name;
    uint64_t features;
} kinds[] = {
    {"split", 1ull << VIRTIO_RING_F_INDIRECT_DESC},
    {"split, event index", 1ull << VIRTIO_RING_F_INDIRECT_DESC | 1ull << VIRTIO_RING_F_EVENT_IDX},
    {"packed", 1ull << VIRTIO_F_RING_PACKED | 1ull << VIRTIO_RING_F_INDIRECT_DESC},
    {"packed, event index",
     1ull << VIRTIO_F_RING_PACKED | 1ull << VIRTIO_RING_F_INDIRECT_DESC | 1ull << VIRTIO_RING_F_EVENT_IDX},
};

static struct vdriver d;
static struct vtoy *toy;

/* Runs `body` once for each kind of ring, on a device that is up. */
static void for_each_kind(void (*body)(void))
{
    for (size_t i = 0; i < array_len(kinds); i++) {
        print_message("# %s\n", kinds[i].name);
        vdriver_create(&d, &vdriver_mmio, &vtoy_class, "");
        toy = container_of(d.v, struct vtoy, v);
        vdriver_start(&d, kinds[i].features);
        body();
        vdriver_destroy(&d);
    }
}

static struct vq *queue0(void)
{
    return virtio_queue(d.v, 0);
}

static void lock(void)
{
    lane_lock(&d.v->dev.lane);
}

static void unlock(void)
{
    lane_unlock(&d.v->dev.lane);
}

/* Both rings of queue 0 as if `n` entries had gone through them. */
static void turn_to(unsigned n)
{
    struct vdriver_queue *q = &d.q[0];
    unsigned turns = n / q->size, slot = n % q->size;

    q->avail = q->used = (uint16_t)(d.packed ? slot | (turns % 2 ? 0 : 1 << 15) : n);
    q->slot = (uint16_t)slot;
    queue0()->s->avail = queue0()->s->used = q->avail;
}

/* Reads what the driver wrote, answers with its bytes reversed, as far as they fit. */
static void reverse(struct vtoy *t, struct vq *q)
{
    struct vq_chain c;

    (void)t;
    while (vq_pop(q, &c) > 0) {
        char text[64], back[64];
        size_t n = chain_read(&c, text, sizeof(text));

        for (size_t i = 0; i < n; i++)
            back[i] = text[n - 1 - i];
        chain_write(&c, back, n);
        vq_push(q, &c);
    }
    vq_flush(q);
}

static void hold(struct vtoy *t, struct vq *q)
{
    while (t->nheld < array_len(t->held) && vq_pop(q, &t->held[t->nheld]) > 0)
        t->nheld++;
}

static void put_text(gpa_t at, const char *text)
{
    assert_int_equal(gmem_write(d.e.env.mem, at, text, strlen(text)), 0);
}

static void expect_text(gpa_t at, const char *text)
{
    char got[64];

    assert_int_equal(gmem_read(d.e.env.mem, at, got, strlen(text)), 0);
    assert_memory_equal(got, text, strlen(text));
}

static void round_trip(bool indirect)
{
    gpa_t at = vdriver_alloc(&d, 64);
    const struct vdriver_buf bufs[] = {
        {at, 3, false}, {at + 8, 5, false}, {at + 16, 2, true}, {at + 24, 0, true}, {at + 32, 10, true}};
    uint32_t len;
    uint16_t id, got;

    put_text(at, "abc");
    put_text(at + 8, "defgh");
    id = vdriver_add(&d, 0, bufs, array_len(bufs), indirect);
    vdriver_kick(&d, 0);
    vdriver_run(&d);
    assert_true(vdriver_used(&d, 0, &got, &len));
    assert_int_equal(got, id);
    assert_int_equal(len, 8);
    expect_text(at + 16, "hg");
    expect_text(at + 32, "fedcba");
    assert_false(vdriver_used(&d, 0, &got, &len));
    assert_false(vdriver_broken(&d));
}

static void round_trips(void)
{
    toy->queue = reverse;
    for (unsigned i = 0; i < 3 * VTOY_QUEUE_SIZE; i++)
        round_trip(i % 3 == 0);
    if (!d.packed)
        turn_to(65530); /* across the end of 16-bit indices */
    for (unsigned i = 0; i < 20; i++)
        round_trip(i % 3 == 0);
}

static void chains_go_round_on_and_on(void **s)
{
    (void)s;
    for_each_kind(round_trips);
}

static void return_in_another_order(void)
{
    static const unsigned order[] = {2, 0, 3, 1};
    gpa_t at = vdriver_alloc(&d, 64);
    uint16_t ids[4], id;
    uint32_t len;

    toy->queue = hold;
    for (unsigned turn = 0; turn < 20; turn++) {
        toy->nheld = 0;
        for (unsigned i = 0; i < 4; i++) {
            const struct vdriver_buf bufs[] = {{at, 4, false}, {at + 4, 4, false}, {at + 8, 4 + i, true}};

            ids[i] = vdriver_add(&d, 0, bufs, i == 1 ? 3 : 2 + i % 2, false);
        }
        vdriver_kick(&d, 0);
        vdriver_run(&d);
        assert_int_equal(toy->nheld, 4);
        lock();
        for (unsigned i = 0; i < 4; i++) {
            chain_write(&toy->held[order[i]], "xxxx", order[i]);
            vq_push(queue0(), &toy->held[order[i]]);
        }
        vq_flush(queue0());
        unlock();
        for (unsigned i = 0; i < 4; i++) {
            assert_true(vdriver_used(&d, 0, &id, &len));
            assert_int_equal(id, ids[order[i]]);
        }
        assert_false(vdriver_used(&d, 0, &id, &len));
    }
    assert_false(vdriver_broken(&d));
}

static void chains_return_in_any_order(void **s)
{
    (void)s;
    for_each_kind(return_in_another_order);
}

static void direct_then_table(void)
{
    gpa_t at = vdriver_alloc(&d, 64), table = vdriver_alloc(&d, 32);
    uint8_t desc[16] = {0};
    unsigned first = vdriver_slot(&d, 0, 0), second = vdriver_slot(&d, 0, 1);
    uint16_t id;
    uint32_t len;

    toy->queue = reverse;
    put_text(at, "abc");
    put_le64(desc, at + 8);
    put_le32(desc + 8, 3);
    put_le16(desc + (d.packed ? 14 : 12), VRING_DESC_F_WRITE);
    assert_int_equal(gmem_write(d.e.env.mem, table, desc, sizeof(desc)), 0);
    vdriver_desc(&d, 0, first, at, 3, VRING_DESC_F_NEXT, (uint16_t)second);
    vdriver_desc(&d, 0, second, table, 16, VRING_DESC_F_INDIRECT, 0);
    vdriver_publish(&d, 0, (uint16_t)first, 2);
    vdriver_kick(&d, 0);
    vdriver_run(&d);
    assert_true(vdriver_used(&d, 0, &id, &len));
    expect_text(at + 8, "cba");
}

static void a_chain_may_end_in_a_table(void **s)
{
    (void)s;
    for_each_kind(direct_then_table);
}

static void put_back(void)
{
    gpa_t at = vdriver_alloc(&d, 64);
    const struct vdriver_buf bufs[] = {{at, 4, false}, {at + 8, 4, true}};
    struct vq_chain c;
    char text[4];
    uint16_t id;
    uint32_t len;

    for (unsigned i = 0; i < 2 * VTOY_QUEUE_SIZE; i++) {
        put_text(at, "back");
        vdriver_add(&d, 0, bufs, 2, false);
        lock();
        assert_int_equal(vq_pop(queue0(), &c), 1);
        assert_int_equal(chain_read(&c, text, 3), 3);
        vq_unpop(queue0(), &c);
        assert_int_equal(vq_pop(queue0(), &c), 1);
        assert_int_equal(chain_read(&c, text, 8), 4);
        assert_memory_equal(text, "back", 4);
        vq_push(queue0(), &c);
        vq_flush(queue0());
        vq_dispatch(queue0()); /* a new budget */
        unlock();
        assert_true(vdriver_used(&d, 0, &id, &len));
    }
}

static void an_unpopped_chain_comes_again_whole(void **s)
{
    (void)s;
    for_each_kind(put_back);
}

static void last_byte(void)
{
    gpa_t at = vdriver_alloc(&d, 64);
    const struct vdriver_buf bufs[] = {{at, 4, true}, {at + 8, 1, true}};
    struct vq_chain c;
    struct gspan b;

    assert_int_equal(gmem_zero(d.e.env.mem, at, 64), 0);
    vdriver_add(&d, 0, bufs, 2, false);
    lock();
    assert_int_equal(vq_pop(queue0(), &c), 1);
    for (unsigned i = 0; i < 5; i++) {
        assert_true(chain_take_last(&c.in, &b));
        gspan_put(b, 0, &"edcba"[i], 1);
        assert_int_equal(c.in.left, 4 - i);
    }
    assert_false(chain_take_last(&c.in, &b));
    assert_int_equal(chain_write(&c, "x", 1), 0);
    unlock();
    expect_text(at, "abcd");
    expect_text(at + 8, "e");
}

static void the_last_byte_comes_off_a_side(void **s)
{
    (void)s;
    for_each_kind(last_byte);
}

/* A driver need not notify while the device is at it, and must once it has seen the queue empty. */
static void arming(void)
{
    gpa_t at = vdriver_alloc(&d, 64);
    const struct vdriver_buf buf = {at, 4, false};
    struct vq_chain c[4];

    lock();
    assert_int_equal(vq_pop(queue0(), &c[0]), 0);
    unlock();
    for (unsigned turn = 0; turn < 2 * VTOY_QUEUE_SIZE; turn++) {
        vdriver_add(&d, 0, &buf, 1, false);
        lock();
        vq_dispatch(queue0()); /* a new budget; the toy leaves the chain */
        assert_int_equal(vq_pop(queue0(), &c[0]), 1);
        vdriver_add(&d, 0, &buf, 1, false);
        assert_false(vdriver_wanted(&d, 0, 1));
        assert_int_equal(vq_pop(queue0(), &c[1]), 1);
        assert_int_equal(vq_try_pop(queue0(), &c[2]), 0);
        vdriver_add(&d, 0, &buf, 1, false);
        assert_false(vdriver_wanted(&d, 0, 1));
        assert_int_equal(vq_try_pop(queue0(), &c[2]), 1);
        assert_int_equal(vq_pop(queue0(), &c[3]), 0);
        vdriver_add(&d, 0, &buf, 1, false);
        assert_true(vdriver_wanted(&d, 0, 1));
        assert_int_equal(vq_pop(queue0(), &c[3]), 1);
        for (unsigned i = 0; i < 4; i++) {
            uint16_t id;
            uint32_t len;

            vq_push(queue0(), &c[i]);
            vq_flush(queue0());
            assert_true(vdriver_used(&d, 0, &id, &len));
        }
        assert_int_equal(vq_pop(queue0(), &c[0]), 0);
        unlock();
    }
}

static void notifications_are_asked_for_when_the_queue_ran_empty(void **s)
{
    (void)s;
    for_each_kind(arming);
}

/* Adds `n` chains and lets the device return them in one go; whether that interrupted. */
static bool interrupts_for(unsigned n)
{
    const struct vdriver_buf buf = {MiB(8), 4, false};
    uint16_t id;
    uint32_t len;

    assert_int_equal(d.t->interrupts(&d), 0);
    for (unsigned i = 0; i < n; i++)
        vdriver_add(&d, 0, &buf, 1, false);
    vdriver_kick(&d, 0);
    vdriver_run(&d);
    for (unsigned i = 0; i < n; i++)
        assert_true(vdriver_used(&d, 0, &id, &len));
    return d.t->interrupts(&d);
}

static void interrupt_flags(void)
{
    uint16_t off = d.packed ? VRING_PACKED_EVENT_FLAG_DISABLE : VRING_AVAIL_F_NO_INTERRUPT;

    toy->queue = reverse;
    vdriver_want(&d, 0, 0, 0);
    assert_true(interrupts_for(1));
    if (d.event_idx && !d.packed)
        return; /* flags mean nothing there */
    vdriver_want(&d, 0, off, 0);
    assert_false(interrupts_for(1));
    assert_false(interrupts_for(VTOY_QUEUE_SIZE));
    vdriver_want(&d, 0, 0, 0);
    assert_true(interrupts_for(2));
}

static void interrupts_can_be_turned_off(void **s)
{
    (void)s;
    for_each_kind(interrupt_flags);
}

/* Every place in a small ring × every place asked for × every number returned at once, against plain counting. */
static void interrupt_events(void)
{
    enum { SIZE = 8 };

    if (!d.event_idx)
        return;
    vdriver_reset(&d);
    vdriver_negotiate(&d, 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_EVENT_IDX |
                              (uint64_t)d.packed << VIRTIO_F_RING_PACKED);
    vdriver_set_queue(&d, 0, SIZE);
    vdriver_set(&d, VDR_STATUS, vdriver_get(&d, VDR_STATUS) | VIRTIO_CONFIG_S_DRIVER_OK);
    toy->queue = reverse;
    for (unsigned start = 2 * SIZE; start < 4 * SIZE; start++)
        for (int ahead = -SIZE + 1; ahead <= SIZE; ahead++)
            for (unsigned n = 1; n <= SIZE; n++) {
                unsigned event = start + (unsigned)ahead;
                unsigned off_wrap = event % SIZE | (event / SIZE % 2 ? 0 : 1 << 15);

                turn_to(start);
                for (unsigned i = 0; i < SIZE && d.packed; i++)
                    vdriver_desc(&d, 0, i, 0, 0, /* used, or not available yet, at this turn */
                                 (i < start % SIZE) == (start / SIZE % 2 == 0) ? 0x8080 : 0, 0);
                if (!d.packed)
                    assert_int_equal(gmem_write(d.e.env.mem, d.q[0].driver + 2, &(uint16_t){(uint16_t)start}, 2), 0);
                vdriver_want(&d, 0, d.packed ? VRING_PACKED_EVENT_FLAG_DESC : 0,
                             (uint16_t)(d.packed ? off_wrap : event));
                if (interrupts_for(n) != (ahead >= 0 && ahead < (int)n))
                    fail_msg("at %u, event %d ahead, %u returned", start, ahead, n);
            }
}

static void interrupts_come_at_the_place_asked_for(void **s)
{
    (void)s;
    for_each_kind(interrupt_events);
}

static void stale_chains(void)
{
    const struct vdriver_buf buf = {MiB(8), 4, true};
    struct vq_chain stale;
    uint16_t id;
    uint32_t len;

    toy->queue = hold;
    vdriver_add(&d, 0, &buf, 1, false);
    vdriver_kick(&d, 0);
    vdriver_run(&d);
    assert_int_equal(toy->nheld, 1);
    stale = toy->held[0];
    vdriver_start(&d, kinds[d.packed ? 2 : 0].features);
    vdriver_add(&d, 0, &buf, 1, false); /* the same head again */
    vdriver_kick(&d, 0);
    vdriver_run(&d);
    assert_int_equal(toy->nheld, 2);
    lock();
    vq_push(queue0(), &stale);
    vq_unpop(queue0(), &stale);
    vq_flush(queue0());
    unlock();
    assert_false(vdriver_used(&d, 0, &id, &len));
    lock();
    vq_push(queue0(), &toy->held[1]);
    vq_flush(queue0());
    unlock();
    assert_true(vdriver_used(&d, 0, &id, &len));
}

static void chains_from_before_a_reset_are_void(void **s)
{
    (void)s;
    for_each_kind(stale_chains);
}

/* Returns each chain and, as a driver on another CPU would, has it available again at once. */
static void feed(struct vtoy *t, struct vq *q)
{
    const struct vdriver_buf buf = {MiB(8), 4, false};
    struct vq_chain c;
    unsigned n = 0;
    uint16_t id;
    uint32_t len;

    while (t->nheld < 5 * VTOY_QUEUE_SIZE && vq_pop(q, &c) > 0) {
        vq_push(q, &c);
        vq_flush(q);
        vdriver_used(&d, 0, &id, &len);
        vdriver_add(&d, 0, &buf, 1, false);
        t->nheld++;
        n++;
    }
    assert_true(n <= VTOY_QUEUE_SIZE);
}

static void endless_work(void)
{
    const struct vdriver_buf buf = {MiB(8), 4, false};

    toy->queue = feed;
    toy->nheld = 0;
    vdriver_add(&d, 0, &buf, 1, false);
    vdriver_kick(&d, 0);
    vdriver_run(&d);
    assert_int_equal(toy->nheld, 5 * VTOY_QUEUE_SIZE); /* nothing is forgotten, with no further notification */
    assert_true(toy->dispatches >= 5);
}

static void a_full_queue_is_served_in_turns(void **s)
{
    (void)s;
    for_each_kind(endless_work);
}

static void snapshots(void)
{
    gpa_t at = vdriver_alloc(&d, 16);
    const struct vdriver_buf bufs[] = {{at, 3, false}, {at + 8, 3, true}};
    uint16_t id;
    uint32_t len;

    toy->queue = reverse;
    for (unsigned i = 0; i < VTOY_QUEUE_SIZE / 2 + 5; i++)
        round_trip(false);
    put_text(at, "xyz");
    vdriver_add(&d, 0, bufs, 2, false); /* and nobody says so */
    vdriver_move(&d, "");
    toy = container_of(d.v, struct vtoy, v);
    assert_int_equal(toy->activations, 1);
    toy->queue = reverse;
    lock();
    vq_dispatch(queue0()); /* as start did, before the toy knew what to do */
    unlock();
    assert_true(vdriver_used(&d, 0, &id, &len));
    expect_text(at + 8, "zyx");
    for (unsigned i = 0; i < VTOY_QUEUE_SIZE; i++)
        round_trip(false);
}

static void queues_go_on_after_a_snapshot(void **s)
{
    (void)s;
    for_each_kind(snapshots);
}

/* Two chains that together have more descriptors than there are, while the device holds the first. */
static void overfull(void)
{
    struct vdriver_buf bufs[VTOY_QUEUE_SIZE / 2 + 1];

    if (!d.packed)
        return; /* chains of a split ring may share descriptors, which harms nobody but them */
    for (size_t i = 0; i < array_len(bufs); i++)
        bufs[i] = (struct vdriver_buf){MiB(8), 4, false};
    toy->queue = hold;
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(toy->nheld, i);
        vdriver_add(&d, 0, bufs, array_len(bufs), false);
        vdriver_kick(&d, 0);
        vdriver_run(&d);
    }
    assert_int_equal(toy->nheld, 1);
    assert_true(vdriver_broken(&d));
}

static void a_ring_does_not_hold_more_than_it_has(void **s)
{
    (void)s;
    for_each_kind(overfull);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chains_go_round_on_and_on),
        cmocka_unit_test(chains_return_in_any_order),
        cmocka_unit_test(a_chain_may_end_in_a_table),
        cmocka_unit_test(an_unpopped_chain_comes_again_whole),
        cmocka_unit_test(the_last_byte_comes_off_a_side),
        cmocka_unit_test(notifications_are_asked_for_when_the_queue_ran_empty),
        cmocka_unit_test(interrupts_can_be_turned_off),
        cmocka_unit_test(interrupts_come_at_the_place_asked_for),
        cmocka_unit_test(chains_from_before_a_reset_are_void),
        cmocka_unit_test(a_full_queue_is_served_in_turns),
        cmocka_unit_test(queues_go_on_after_a_snapshot),
        cmocka_unit_test(a_ring_does_not_hold_more_than_it_has),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
