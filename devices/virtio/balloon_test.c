#include <linux/virtio_balloon.h>

#include "devices/testing/vdriver.h"
#include "vmm/base/test.h"

enum { INFLATE, DEFLATE, PAGE = 4096, PAGES = 8 << 20 }; /* where pages to play with are */

static struct vdriver d;

static void inflate_device(const char *options)
{
    vdriver_create(&d, &vdriver_mmio, device_class_find("virtio-balloon"), options);
}

static bool is_zero(gpa_t at)
{
    uint8_t got[PAGE], zeroes[PAGE] = {0};

    assert_int_equal(gmem_read(d.e.env.mem, at, got, sizeof(got)), 0);
    return !memcmp(got, zeroes, sizeof(got));
}

/* Writes on the `n` pages from PAGES on. */
static void dirty(unsigned n)
{
    uint8_t ones[PAGE];

    memset(ones, 1, sizeof(ones));
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(gmem_write(d.e.env.mem, PAGES + (gpa_t)i * PAGE, ones, sizeof(ones)), 0);
}

static void send(unsigned queue, const struct vdriver_buf *bufs, unsigned n)
{
    uint16_t id;
    uint32_t len;

    vdriver_add(&d, queue, bufs, n, false);
    vdriver_kick(&d, queue);
    vdriver_run(&d);
    assert_true(vdriver_used(&d, queue, &id, &len));
    assert_int_equal(len, 0);
}

static void send_pfns(unsigned queue, const uint32_t *pfns, unsigned n)
{
    gpa_t at = vdriver_alloc(&d, n * sizeof(*pfns));
    const struct vdriver_buf buf = {at, n * (uint32_t)sizeof(*pfns), false};

    assert_int_equal(gmem_write(d.e.env.mem, at, pfns, n * sizeof(*pfns)), 0);
    send(queue, &buf, 1);
}

static void inflated_pages_go_back_in_whatever_order(void **s)
{
    const uint32_t first = PAGES / PAGE, pfns[] = {first + 5, first + 4, first + 3, first, first + 1, first + 7};

    (void)s;
    inflate_device("");
    vdriver_start(&d, 0);
    dirty(10);
    send_pfns(INFLATE, pfns, array_len(pfns));
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(is_zero(PAGES + i * PAGE), i != 2 && i != 6 && i < 8);
    vdriver_destroy(&d);
}

static void deflating_and_pages_twice_do_no_harm(void **s)
{
    const uint32_t first = PAGES / PAGE, pfns[] = {first, first, first + 100};

    (void)s;
    inflate_device("");
    vdriver_start(&d, 0);
    dirty(2);
    send_pfns(DEFLATE, pfns, array_len(pfns));
    assert_false(is_zero(PAGES));
    send_pfns(INFLATE, pfns, array_len(pfns));
    assert_true(is_zero(PAGES));
    assert_false(is_zero(PAGES + PAGE));
    send_pfns(DEFLATE, pfns, array_len(pfns));
    vdriver_destroy(&d);
}

static void pages_that_are_not_ram_are_left_alone(void **s)
{
    const uint32_t ram = VDRIVER_RAM / PAGE, first = PAGES / PAGE;
    const uint32_t pfns[] = {ram, 0xfee00, UINT32_MAX, 0, UINT32_MAX, ram - 1, ram, first};

    (void)s;
    inflate_device("");
    vdriver_start(&d, 0);
    dirty(2);
    send_pfns(INFLATE, pfns, array_len(pfns));
    assert_true(is_zero(PAGES)); /* the others still count */
    assert_false(is_zero(PAGES + PAGE));
    assert_false(vdriver_broken(&d));
    vdriver_destroy(&d);
}

static void a_list_without_end_breaks_the_device(void **s)
{
    const struct vdriver_buf buf = {0, VDRIVER_RAM, false};

    (void)s;
    inflate_device("");
    vdriver_start(&d, 0);
    vdriver_add(&d, INFLATE, &buf, 1, false);
    vdriver_kick(&d, INFLATE);
    vdriver_run(&d);
    assert_true(vdriver_broken(&d));
    vdriver_destroy(&d);
}

static void reported_pages_go_back(void **s)
{
    const struct vdriver_buf bufs[] = {{PAGES, 2 * PAGE, true}, {PAGES + 4 * PAGE, PAGE, true}};

    (void)s;
    inflate_device("");
    assert_true(vdriver_offered(&d) & 1 << VIRTIO_BALLOON_F_REPORTING);
    assert_false(vdriver_offered(&d) & 1 << VIRTIO_BALLOON_F_STATS_VQ);
    vdriver_start(&d, 1 << VIRTIO_BALLOON_F_REPORTING);
    dirty(6);
    send(2, bufs, 2); /* the first queue after the two, as there are no statistics */
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(is_zero(PAGES + i * PAGE), i < 2 || i == 4);
    vdriver_destroy(&d);
}

static void the_wanted_size_is_told_and_the_actual_kept(void **s)
{
    (void)s;
    inflate_device("size=4M");
    assert_int_equal(vdriver_config(&d, 0, 4), 4 << 20 >> 12);
    vdriver_start(&d, 0);
    vdriver_set_config(&d, 0, 0, 4); /* not the driver's */
    vdriver_set_config(&d, 4, 1000, 4);
    vdriver_move(&d, "size=4M");
    assert_int_equal(vdriver_config(&d, 0, 4), 4 << 20 >> 12);
    assert_int_equal(vdriver_config(&d, 4, 4), 1000);
    vdriver_reset(&d);
    assert_int_equal(vdriver_config(&d, 4, 4), 0);
    vdriver_destroy(&d);
}

static int take(const char *args, struct err *err)
{
    json_t *reply = json_object();
    int rc = device_command_run(&d.v->dev, device_command_find(&d.v->dev, "take"), args, reply, err);

    json_decref(reply);
    return rc;
}

static void the_wanted_size_changes_while_the_guest_runs(void **s)
{
    struct err err;
    json_t *info;

    (void)s;
    inflate_device("size=4M");
    vdriver_start(&d, 0);
    assert_int_equal(d.t->interrupts(&d), 0);
    assert_int_equal(take("size=8M", &err), 0);
    assert_int_equal(vdriver_config(&d, 0, 4), 8 << 20 >> 12);
    assert_int_equal(d.t->interrupts(&d), 2);
    assert_int_equal(take("size=17M", &err), -EINVAL); /* all it has are 16 */
    assert_int_equal(vdriver_config(&d, 0, 4), 8 << 20 >> 12);
    vdriver_set_config(&d, 4, 1024, 4);
    info = device_info(&d.v->dev);
    assert_int_equal(json_integer_value(json_object_get(info, "wanted")), 8 << 20);
    assert_int_equal(json_integer_value(json_object_get(info, "taken")), 4 << 20);
    json_decref(info);
    vdriver_reset(&d); /* a reboot changes nothing */
    assert_int_equal(vdriver_config(&d, 0, 4), 8 << 20 >> 12);
    vdriver_destroy(&d);
}

static void a_balloon_larger_than_the_guest_is_refused(void **s)
{
    struct test_env e;
    struct device *dev;
    struct err err;

    (void)s;
    test_env_init(&e, MiB(4));
    assert_int_equal(device_create(device_class_find("virtio-balloon"), "b0", "size=5M", &dev, &err), 0);
    assert_int_equal(device_init(dev, &e.env, e.env.loop, &err), -EINVAL);
    device_destroy(dev);
    test_env_fini(&e);
}

/* The driver sends statistics and gets the buffer back when new ones are wanted. */
static void the_statistics_buffer_is_held_and_returned(void **s)
{
    const uint64_t features = 1 << VIRTIO_BALLOON_F_STATS_VQ | 1 << VIRTIO_BALLOON_F_REPORTING;
    const struct virtio_balloon_stat stat = {.tag = VIRTIO_BALLOON_S_MEMFREE, .val = 12345};
    struct vdriver_buf buf = {.len = sizeof(stat)};
    uint16_t id;
    uint32_t len;

    (void)s;
    inflate_device("stats=3600000");
    vdriver_start(&d, features);
    buf.addr = vdriver_alloc(&d, sizeof(stat));
    assert_int_equal(gmem_write(d.e.env.mem, buf.addr, &stat, sizeof(stat)), 0);
    vdriver_add(&d, 2, &buf, 1, false);
    vdriver_kick(&d, 2);
    vdriver_run(&d);
    assert_false(vdriver_used(&d, 2, &id, &len));
    vdriver_move(&d, "stats=1");            /* in a snapshot it is available again, so that it can be held again */
    while (!vdriver_used(&d, 2, &id, &len)) /* until the time has come */
        loop_once(d.e.env.loop, -1);
    assert_int_equal(len, 0);
    vdriver_destroy(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inflated_pages_go_back_in_whatever_order),
        cmocka_unit_test(deflating_and_pages_twice_do_no_harm),
        cmocka_unit_test(pages_that_are_not_ram_are_left_alone),
        cmocka_unit_test(a_list_without_end_breaks_the_device),
        cmocka_unit_test(reported_pages_go_back),
        cmocka_unit_test(the_wanted_size_is_told_and_the_actual_kept),
        cmocka_unit_test(the_wanted_size_changes_while_the_guest_runs),
        cmocka_unit_test(a_balloon_larger_than_the_guest_is_refused),
        cmocka_unit_test(the_statistics_buffer_is_held_and_returned),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
