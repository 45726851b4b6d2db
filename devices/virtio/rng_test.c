#include "devices/testing/vdriver.h"
#include "vmm/base/test.h"

static struct vdriver d;

static int setup(void **s)
{
    (void)s;
    vdriver_create(&d, &vdriver_mmio, device_class_find("virtio-rng"), "");
    vdriver_start(&d, 0);
    return 0;
}

static int teardown(void **s)
{
    (void)s;
    vdriver_destroy(&d);
    return 0;
}

/* The bytes that a buffer of `len` comes back with. */
static uint32_t fill(gpa_t at, uint32_t len, bool write)
{
    const struct vdriver_buf buf = {at, len, write};
    uint16_t id;
    uint32_t got;

    vdriver_add(&d, 0, &buf, 1, false);
    vdriver_kick(&d, 0);
    vdriver_run(&d);
    assert_true(vdriver_used(&d, 0, &id, &got));
    return got;
}

static void buffers_fill_with_different_bytes(void **s)
{
    gpa_t at = vdriver_alloc(&d, 256);
    uint8_t one[128], two[128];

    (void)s;
    assert_int_equal(fill(at, 128, true), 128);
    assert_int_equal(fill(at + 128, 128, true), 128);
    assert_int_equal(gmem_read(d.e.env.mem, at, one, sizeof(one)), 0);
    assert_int_equal(gmem_read(d.e.env.mem, at + 128, two, sizeof(two)), 0);
    assert_memory_not_equal(one, two, sizeof(one));
}

static void huge_buffers_get_a_bounded_number(void **s)
{
    (void)s;
    assert_in_range(fill(vdriver_alloc(&d, 1), MiB(8), true), 64, 4096);
}

static void buffers_to_read_from_get_nothing(void **s)
{
    (void)s;
    assert_int_equal(fill(vdriver_alloc(&d, 64), 64, false), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(buffers_fill_with_different_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(huge_buffers_get_a_bounded_number, setup, teardown),
        cmocka_unit_test_setup_teardown(buffers_to_read_from_get_nothing, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
