#include "devices/virtio/virtio.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "devices/testing/vdriver.h"
#include "devices/testing/vtoy.h"
#include "devices/virtio/vq.h"
#include "vmm/base/test.h"

static struct vdriver d;
static struct vtoy *toy;

/* Runs `body` once for each transport, on a device fresh from power-on. */
static void for_each_transport(void (*body)(void))
{
    for (const struct vdriver_transport *const *t = vdriver_transports; *t; t++) {
        print_message("# %s\n", (*t)->name);
        vdriver_create(&d, *t, &vtoy_class, "");
        toy = container_of(d.v, struct vtoy, v);
        body();
        vdriver_destroy(&d);
    }
}

enum {
    ACK = VIRTIO_CONFIG_S_ACKNOWLEDGE,
    DRIVER = VIRTIO_CONFIG_S_DRIVER,
    FEATURES_OK = VIRTIO_CONFIG_S_FEATURES_OK,
    DRIVER_OK = VIRTIO_CONFIG_S_DRIVER_OK,
    NEEDS_RESET = VIRTIO_CONFIG_S_NEEDS_RESET,
};
static const uint64_t version_1 = 1ull << VIRTIO_F_VERSION_1, toy_feature = 1ull << VTOY_FEATURE;

static bool lives(unsigned queue)
{
    return virtio_queue(d.v, queue)->layout;
}

static unsigned status(void)
{
    return (unsigned)vdriver_get(&d, VDR_STATUS);
}

static void check_features(void)
{
    uint64_t offered = vdriver_offered(&d);

    assert_true(offered & toy_feature);
    assert_true(offered & version_1);
    assert_true(offered & 1ull << VIRTIO_RING_F_INDIRECT_DESC && offered & 1ull << VIRTIO_RING_F_EVENT_IDX &&
                offered & 1ull << VIRTIO_F_RING_PACKED);
    assert_false(offered & 1ull << VIRTIO_F_ACCESS_PLATFORM);
    vdriver_set(&d, VDR_OFFERED_PAGE, 2);
    assert_int_equal(vdriver_get(&d, VDR_OFFERED), 0);

    assert_false(vdriver_negotiate(&d, toy_feature)); /* no legacy drivers */
    vdriver_reset(&d);
    assert_false(vdriver_negotiate(&d, version_1 | 1ull << 50)); /* not offered */
    vdriver_set(&d, VDR_STATUS, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
    assert_int_equal(status(), ACK | DRIVER);
    assert_int_equal(toy->activations, 0);
    vdriver_reset(&d);
    assert_true(vdriver_negotiate(&d, version_1 | toy_feature));
    vdriver_set(&d, VDR_ACCEPTED_PAGE, 0);
    vdriver_set(&d, VDR_ACCEPTED, 0); /* too late */
    vdriver_set(&d, VDR_STATUS, status() | DRIVER_OK);
    assert_int_equal(toy->activations, 1);
    assert_true(virtio_has(d.v, VTOY_FEATURE));
    assert_false(virtio_has(d.v, VIRTIO_RING_F_EVENT_IDX));
}

static void only_offered_features_are_negotiated(void **s)
{
    (void)s;
    for_each_transport(check_features);
}

static void check_status(void)
{
    assert_int_equal(status(), 0);
    vdriver_start(&d, 0);
    vdriver_set(&d, VDR_STATUS, ACK); /* takes nothing back */
    assert_int_equal(status(), ACK | DRIVER | FEATURES_OK | DRIVER_OK);
    vdriver_set(&d, VDR_STATUS, NEEDS_RESET | 0x30);
    assert_int_equal(status(), ACK | DRIVER | FEATURES_OK | DRIVER_OK);
    vdriver_set(&d, VDR_STATUS, status() | VIRTIO_CONFIG_S_FAILED);
    assert_true(status() & VIRTIO_CONFIG_S_FAILED);
    assert_int_equal(toy->activations, 1);
    vdriver_reset(&d);
    assert_int_equal(toy->resets, 3); /* power-on, before the start, now */
    assert_int_equal(d.v->features, 0);
    vdriver_set(&d, VDR_QUEUE, 0);
    assert_int_equal(vdriver_get(&d, VDR_QUEUE_ENABLE), 0);
    assert_int_equal(vdriver_get(&d, VDR_QUEUE_MAX), VTOY_QUEUE_SIZE);
}

static void status_bits_only_add_up_until_a_reset(void **s)
{
    (void)s;
    for_each_transport(check_status);
}

static void check_config(void)
{
    uint64_t generation = vdriver_get(&d, VDR_GENERATION);

    assert_int_equal(vdriver_config(&d, 0, 1), 0x11);
    assert_int_equal(vdriver_config(&d, 2, 2), 0x4433);
    assert_int_equal(vdriver_config(&d, 4, 4), 0x88776655);
    assert_true(vdriver_config(&d, 0, 8) == 0x8877665544332211);
    assert_int_equal(vdriver_config(&d, 6, 4), 0x8877); /* zeroes behind the end */
    assert_int_equal(vdriver_config(&d, 8, 4), 0);
    assert_int_equal(vdriver_config(&d, 0xfc, 4), 0);

    vdriver_set_config(&d, 2, 0xeeeeeeee, 4); /* two bytes of it may be written */
    assert_true(vdriver_config(&d, 0, 8) == 0x8877eeee44332211);
    assert_int_equal(toy->config_writes, 1);
    vdriver_set_config(&d, 0, 0, 4);
    vdriver_set_config(&d, 8, 0xff, 1);
    vdriver_set_config(&d, 0x80, 0xffffffff, 4);
    assert_true(vdriver_config(&d, 0, 8) == 0x8877eeee44332211);
    assert_int_equal(toy->config_writes, 1);
    assert_int_equal(vdriver_get(&d, VDR_GENERATION), generation);
}

static void configuration_is_bytes_of_which_some_can_be_written(void **s)
{
    (void)s;
    for_each_transport(check_config);
}

static void change_config(void)
{
    lane_lock(&d.v->dev.lane);
    d.v->config[0]++;
    virtio_config_changed(d.v);
    lane_unlock(&d.v->dev.lane);
}

static void check_change(void)
{
    uint64_t generation;

    change_config();
    assert_int_equal(d.t->interrupts(&d), 0); /* nobody to tell yet */
    vdriver_start(&d, 0);
    generation = vdriver_get(&d, VDR_GENERATION);
    change_config();
    assert_int_not_equal(vdriver_get(&d, VDR_GENERATION), generation);
    assert_int_equal(d.t->interrupts(&d), 2);
    assert_int_equal(d.t->interrupts(&d), 0);
}

static void a_change_of_configuration_is_told(void **s)
{
    (void)s;
    for_each_transport(check_change);
}

static void break_device(void)
{
    lane_lock(&d.v->dev.lane);
    virtio_broken(d.v, "as the test wants");
    lane_unlock(&d.v->dev.lane);
}

static void check_broken(void)
{
    const struct vdriver_buf buf = {MiB(8), 4, true};
    struct vq_chain c;
    unsigned calls;

    vdriver_start(&d, 0);
    calls = toy->dispatches;
    vdriver_add(&d, 0, &buf, 1, false);
    break_device();
    assert_true(vdriver_broken(&d));
    assert_int_equal(d.t->interrupts(&d), 2);
    break_device();
    assert_int_equal(d.t->interrupts(&d), 0); /* once is enough */
    vdriver_kick(&d, 0);
    vdriver_run(&d);
    assert_int_equal(toy->dispatches, calls);
    lane_lock(&d.v->dev.lane);
    assert_int_equal(vq_pop(virtio_queue(d.v, 0), &c), -EPROTO);
    lane_unlock(&d.v->dev.lane);
    vdriver_start(&d, 0);
    assert_false(vdriver_broken(&d));
}

static void a_broken_device_rests_until_it_is_reset(void **s)
{
    (void)s;
    for_each_transport(check_broken);
}

static void check_queue_registers(void)
{
    vdriver_reset(&d);
    assert_true(vdriver_negotiate(&d, version_1));
    vdriver_set(&d, VDR_QUEUE, 1);
    vdriver_set(&d, VDR_QUEUE_SIZE, 0);
    vdriver_set(&d, VDR_QUEUE_SIZE, VTOY_QUEUE_SIZE + 1);
    vdriver_set(&d, VDR_QUEUE_SIZE, 8);
    vdriver_set_queue(&d, 1, 16);
    vdriver_set(&d, VDR_QUEUE_SIZE, 8); /* too late */
    vdriver_set(&d, VDR_DESC_LOW, 0xdead0000);
    assert_int_equal(virtio_queue(d.v, 1)->s->size, 16);
    vdriver_set(&d, VDR_STATUS, status() | DRIVER_OK);
    assert_true(lives(1));
    assert_false(lives(0));
    vdriver_set_queue(&d, 0, 16); /* and this too */
    assert_false(lives(0));
    assert_false(vdriver_broken(&d));
}

static void queues_are_set_up_before_the_driver_is_ready(void **s)
{
    (void)s;
    for_each_transport(check_queue_registers);
}

static void hold(struct vtoy *t, struct vq *q)
{
    while (t->nheld < array_len(t->held) && vq_pop(q, &t->held[t->nheld]) > 0)
        t->nheld++;
}

static void check_queue_reset(void)
{
    const struct vdriver_buf buf = {MiB(8), 4, true};
    uint16_t id;
    uint32_t len;

    toy->queue = hold;
    vdriver_start(&d, 1ull << VIRTIO_F_RING_RESET);
    vdriver_add(&d, 0, &buf, 1, false);
    vdriver_kick(&d, 0);
    vdriver_run(&d);
    assert_int_equal(toy->nheld, 1);
    vdriver_set(&d, VDR_QUEUE, 0);
    vdriver_set(&d, VDR_QUEUE_RESET, 1);
    assert_int_equal(vdriver_get(&d, VDR_QUEUE_RESET), 0);
    assert_int_equal(vdriver_get(&d, VDR_QUEUE_ENABLE), 0);
    assert_false(lives(0));
    assert_true(lives(1));
    vdriver_set_queue(&d, 0, 8);
    assert_true(lives(0));
    vdriver_add(&d, 0, &buf, 1, false);
    vdriver_kick(&d, 0);
    vdriver_run(&d);
    assert_int_equal(toy->nheld, 2);
    lane_lock(&d.v->dev.lane);
    vq_push(virtio_queue(d.v, 0), &toy->held[0]); /* of the life before */
    vq_push(virtio_queue(d.v, 0), &toy->held[1]);
    vq_flush(virtio_queue(d.v, 0));
    lane_unlock(&d.v->dev.lane);
    assert_true(vdriver_used(&d, 0, &id, &len));
    assert_false(vdriver_used(&d, 0, &id, &len));
}

static void one_queue_can_be_reset_alone(void **s)
{
    (void)s;
    for_each_transport(check_queue_reset);
}

static void check_doorbells(void)
{
    const struct vdriver_buf buf = {MiB(8), 4, true};

    assert_int_equal(d.e.ndoorbells, 0);
    toy->queue = hold;
    vdriver_start(&d, 0);
    assert_int_equal(d.e.ndoorbells, 2);
    vdriver_add(&d, 1, &buf, 1, false);
    vdriver_kick(&d, 1);
    assert_int_equal(toy->nheld, 0); /* the loop's business */
    vdriver_run(&d);
    assert_int_equal(toy->nheld, 1);
    vdriver_reset(&d);
    assert_int_equal(d.e.ndoorbells, 0);

    d.e.no_doorbells = true;
    vdriver_start(&d, 0);
    vdriver_add(&d, 1, &buf, 1, false);
    vdriver_kick(&d, 1);
    assert_int_equal(toy->nheld, 2);
}

static void queues_that_live_have_doorbells_where_the_host_has(void **s)
{
    (void)s;
    for_each_transport(check_doorbells);
}

/* A request that finishes on a worker, after the device was told to reset. */
struct slow {
    struct work w;
    struct vtoy *t;
    bool finished;
};
static struct slow slow;

static int slow_run(struct work *w)
{
    (void)w;
    return 0;
}

static void slow_done(struct work *w, int ret)
{
    struct vq *q = virtio_queue(d.v, 0);

    (void)w;
    (void)ret;
    slow.finished = true;
    assert_int_equal(slow.t->resets, 2); /* of this life, not of the next */
    vq_push(q, &slow.t->held[0]);
    vq_flush(q);
}

static void start_slow(struct vtoy *t, struct vq *q)
{
    if (vq_pop(q, &t->held[0]) <= 0)
        return;
    slow = (struct slow){.w = {.lane = &t->v.dev.lane, .run = slow_run, .done = slow_done}, .t = t};
    work_submit(&slow.w);
}

static void check_drain(void)
{
    const struct vdriver_buf buf = {MiB(8), 4, true};

    toy->queue = start_slow;
    d.e.no_doorbells = true;
    vdriver_start(&d, 0);
    vdriver_add(&d, 0, &buf, 1, false);
    vdriver_kick(&d, 0);
    assert_false(slow.finished);
    vdriver_set(&d, VDR_STATUS, 0);
    assert_true(slow.finished);
    slow.finished = false;
    assert_int_equal(d.v->dev.lane.inflight, 0);
}

static void a_reset_waits_for_what_is_in_flight(void **s)
{
    (void)s;
    for_each_transport(check_drain);
}

static void check_move(void)
{
    vdriver_start(&d, toy_feature);
    vdriver_move(&d, "");
    assert_true(virtio_has(d.v, VTOY_FEATURE));
    assert_true(lives(0));
    assert_int_equal(status(), ACK | DRIVER | FEATURES_OK | DRIVER_OK);
    vdriver_reset(&d);
    vdriver_move(&d, "");
    assert_false(lives(0));
}

static void snapshots_keep_what_was_negotiated(void **s)
{
    (void)s;
    for_each_transport(check_move);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_offered_features_are_negotiated),
        cmocka_unit_test(status_bits_only_add_up_until_a_reset),
        cmocka_unit_test(configuration_is_bytes_of_which_some_can_be_written),
        cmocka_unit_test(a_change_of_configuration_is_told),
        cmocka_unit_test(a_broken_device_rests_until_it_is_reset),
        cmocka_unit_test(queues_are_set_up_before_the_driver_is_ready),
        cmocka_unit_test(one_queue_can_be_reset_alone),
        cmocka_unit_test(queues_that_live_have_doorbells_where_the_host_has),
        cmocka_unit_test(a_reset_waits_for_what_is_in_flight),
        cmocka_unit_test(snapshots_keep_what_was_negotiated),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
