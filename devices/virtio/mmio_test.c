#include "devices/virtio/mmio.h"

#include <linux/virtio_mmio.h>

#include "devices/testing/vdriver.h"
#include "devices/testing/vtoy.h"
#include "devices/virtio/transport.h"
#include "vmm/base/test.h"

static struct vdriver d;

static int setup(void **s)
{
    (void)s;
    vdriver_create(&d, &vdriver_mmio, &vtoy_class, "");
    return 0;
}

static int teardown(void **s)
{
    (void)s;
    vdriver_destroy(&d);
    return 0;
}

static uint32_t get(unsigned off)
{
    return (uint32_t)test_env_read(&d.e, d.e.env.mmio, d.regs + off, 4);
}

static void set(unsigned off, uint32_t val)
{
    test_env_write(&d.e, d.e.env.mmio, d.regs + off, val, 4);
}

static void the_window_says_what_it_is(void **s)
{
    (void)s;
    assert_int_equal(get(VIRTIO_MMIO_MAGIC_VALUE), 0x74726976);
    assert_int_equal(get(VIRTIO_MMIO_VERSION), 2);
    assert_int_equal(get(VIRTIO_MMIO_DEVICE_ID), 63);
    assert_int_equal(get(VIRTIO_MMIO_SHM_LEN_LOW), UINT32_MAX);
    assert_int_equal(get(VIRTIO_MMIO_SHM_LEN_HIGH), UINT32_MAX);
    assert_int_equal(get(VIRTIO_MMIO_SHM_BASE_LOW), UINT32_MAX);
    assert_int_equal(get(VIRTIO_MMIO_SHM_BASE_HIGH), UINT32_MAX);
    assert_int_equal(test_env_read(&d.e, d.e.env.mmio, d.regs + VIRTIO_MMIO_WINDOW, 4), UINT32_MAX); /* nobody there */
}

static void registers_have_one_width(void **s)
{
    (void)s;
    assert_int_equal(test_env_read(&d.e, d.e.env.mmio, d.regs, 1), 0);
    assert_int_equal(test_env_read(&d.e, d.e.env.mmio, d.regs, 2), 0);
    test_env_write(&d.e, d.e.env.mmio, d.regs + VIRTIO_MMIO_STATUS, 1, 1);
    assert_int_equal(get(VIRTIO_MMIO_STATUS), 0);
    set(VIRTIO_MMIO_STATUS, 1);
    assert_int_equal(get(VIRTIO_MMIO_STATUS), 1);
}

static void the_line_is_up_until_all_is_acknowledged(void **s)
{
    const struct test_line *line = &d.e.lines[5];

    (void)s;
    vdriver_start(&d, 0);
    assert_false(line->level);
    lane_lock(&d.v->dev.lane);
    d.v->transport->queue_interrupt(d.v->transport, 0, 0);
    virtio_config_changed(d.v);
    lane_unlock(&d.v->dev.lane);
    assert_true(line->level);
    assert_int_equal(get(VIRTIO_MMIO_INTERRUPT_STATUS), 3);
    set(VIRTIO_MMIO_INTERRUPT_ACK, 1);
    assert_true(line->level);
    assert_int_equal(line->rises, 1);
    vdriver_move(&d, "");
    assert_true(line->level);
    assert_int_equal(get(VIRTIO_MMIO_INTERRUPT_STATUS), 2);
    set(VIRTIO_MMIO_INTERRUPT_ACK, 0xfffffffe);
    assert_false(line->level);
}

static void a_reset_takes_the_interrupt_back(void **s)
{
    (void)s;
    vdriver_start(&d, 0);
    lane_lock(&d.v->dev.lane);
    d.v->transport->queue_interrupt(d.v->transport, 0, 0);
    lane_unlock(&d.v->dev.lane);
    assert_true(d.e.lines[5].level);
    set(VIRTIO_MMIO_STATUS, 0);
    assert_false(d.e.lines[5].level);
    assert_int_equal(get(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}

static void addresses_are_written_in_halves(void **s)
{
    (void)s;
    set(VIRTIO_MMIO_QUEUE_SEL, 1);
    set(VIRTIO_MMIO_QUEUE_DESC_HIGH, 0x11111111);
    set(VIRTIO_MMIO_QUEUE_DESC_LOW, 0x22222222);
    assert_true(virtio_queue_get(d.v, 1, VQ_DESC) == 0x1111111122222222);
    set(VIRTIO_MMIO_QUEUE_DESC_HIGH, 0x33333333);
    assert_true(virtio_queue_get(d.v, 1, VQ_DESC) == 0x3333333322222222);
    assert_int_equal(virtio_queue_get(d.v, 0, VQ_DESC), 0);
}

static void a_selector_beyond_16_bits_is_no_queue(void **s)
{
    (void)s;
    set(VIRTIO_MMIO_QUEUE_SEL, 0x10000); /* not queue 0 */
    assert_int_equal(get(VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
    set(VIRTIO_MMIO_QUEUE_DESC_LOW, 0x1000);
    assert_int_equal(virtio_queue_get(d.v, 0, VQ_DESC), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_window_says_what_it_is, setup, teardown),
        cmocka_unit_test_setup_teardown(registers_have_one_width, setup, teardown),
        cmocka_unit_test_setup_teardown(the_line_is_up_until_all_is_acknowledged, setup, teardown),
        cmocka_unit_test_setup_teardown(a_reset_takes_the_interrupt_back, setup, teardown),
        cmocka_unit_test_setup_teardown(addresses_are_written_in_halves, setup, teardown),
        cmocka_unit_test_setup_teardown(a_selector_beyond_16_bits_is_no_queue, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
