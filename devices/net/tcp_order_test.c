#include "devices/net/tcp_order.h"

#include "vmm/base/test.h"

static struct tcp_order o;

static uint64_t key(uint16_t port)
{
    static const uint8_t guest[] = {10, 0, 2, 15}, far_end[] = {192, 0, 2, 1}, http[] = {0, 80};
    uint8_t p[2];

    put_be16(p, port);
    return tcp_order_key(&o, guest, far_end, sizeof(guest), p, http);
}

static void what_is_wanted_passes_and_what_was_there_before(void **state)
{
    uint32_t ret = 1;

    (void)state;
    tcp_order_init(&o);
    tcp_order_told(&o, key(1), 1000);
    assert_true(tcp_order_pass(&o, key(1), 1000, 500, &ret));
    assert_true(tcp_order_pass(&o, key(1), 1500, 1, &ret)); /* without waiting for an answer */
    assert_true(tcp_order_pass(&o, key(1), 900, 601, &ret));
    assert_true(tcp_order_pass(&o, key(1), 1501, 1, &ret));
    assert_int_equal(ret, 1);
}

static void what_comes_behind_a_gap_does_not(void **state)
{
    uint32_t ret = 0;

    (void)state;
    tcp_order_init(&o);
    tcp_order_told(&o, key(1), 1000);
    assert_false(tcp_order_pass(&o, key(1), 1001, 1, &ret));
    assert_int_equal(ret, 999);
    assert_true(tcp_order_pass(&o, key(1), 1000, 5000, &ret));
    tcp_order_told(&o, key(1), 3000); /* it had no room for all */
    assert_false(tcp_order_pass(&o, key(1), 6000, 1, &ret));
    assert_int_equal(ret, 2999);
    assert_false(tcp_order_pass(&o, key(2), 77, 1, &ret)); /* nothing is known of that one */
    assert_int_equal(ret, 76);
}

static void numbers_may_wrap(void **state)
{
    uint32_t ret = 0;

    (void)state;
    tcp_order_init(&o);
    tcp_order_told(&o, key(1), UINT32_MAX - 10);
    assert_true(tcp_order_pass(&o, key(1), UINT32_MAX - 10, 20, &ret));
    assert_true(tcp_order_pass(&o, key(1), 9, 1, &ret));
    assert_false(tcp_order_pass(&o, key(1), 11, 1, &ret));
    assert_int_equal(ret, 9);
}

static void flows_of_thousands_are_kept_apart(void **state)
{
    unsigned known = 0;
    uint32_t ret;

    (void)state;
    tcp_order_init(&o);
    for (uint16_t i = 0; i < 4096; i++)
        tcp_order_told(&o, key(i), i * 100000u);
    for (uint16_t i = 0; i < 4096; i++) {
        assert_false(tcp_order_pass(&o, key(i), i * 100000u + 2, 1, &ret));
        known += tcp_order_pass(&o, key(i), i * 100000u, 1, &ret);
    }
    assert_in_range(known, 4000, 4096); /* where more of them share a row than it has room for, it is one or two */
}

/* However many connections there are, the one in use is not forgotten. */
static void the_flow_in_use_stays(void **state)
{
    uint32_t ret;

    (void)state;
    tcp_order_init(&o);
    tcp_order_told(&o, key(0), 5);
    for (unsigned i = 1; i < 65536; i++) {
        tcp_order_told(&o, key((uint16_t)i), 7);
        assert_true(tcp_order_pass(&o, key(0), 5, 1, &ret));
    }
}

static void flows_are_forgotten_at_the_beginning(void **state)
{
    uint32_t ret;

    (void)state;
    tcp_order_init(&o);
    tcp_order_told(&o, key(1), 5);
    tcp_order_init(&o);
    assert_false(tcp_order_pass(&o, key(1), 5, 1, &ret));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_wanted_passes_and_what_was_there_before),
        cmocka_unit_test(what_comes_behind_a_gap_does_not),
        cmocka_unit_test(numbers_may_wrap),
        cmocka_unit_test(flows_of_thousands_are_kept_apart),
        cmocka_unit_test(the_flow_in_use_stays),
        cmocka_unit_test(flows_are_forgotten_at_the_beginning),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
