#include "devices/net/neighbour.h"

#include "devices/net/frames.h"

static void each_speaker_is_introduced_once(void **state)
{
    static const uint8_t arp[] = {0, 1, 8, 0, 6, 4, 0, 2, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 10, 0, 2, 15};
    struct neighbour n = {0};
    static struct frame f;
    uint8_t said[NEIGHBOUR_FRAME];

    (void)state;
    ip4(&f, "10.0.2.15", "192.0.2.1", 6, 20);
    assert_int_equal(neighbour_speaks(&n, f.b, said), 42);
    assert_memory_equal(said + 6, mac, 6);
    assert_int_equal(get_be16(said + 12), 0x806);
    assert_memory_equal(said + 14, arp, sizeof(arp));
    assert_int_equal(neighbour_speaks(&n, f.b, said), 0);
    f.b[29] = 16;
    assert_int_equal(neighbour_speaks(&n, f.b, said), 42);
    assert_int_equal(said[31], 16);
    f.b[11]++; /* the same from another card */
    assert_int_equal(neighbour_speaks(&n, f.b, said), 42);
    assert_int_equal(said[27], mac[5] + 1);
    ip4(&f, "10.0.2.15", "192.0.2.1", 6, 20);
    assert_int_equal(neighbour_speaks(&n, f.b, said), 42);
}

static void so_it_is_over_ipv6(void **state)
{
    struct neighbour n = {0};
    static struct frame f, check;
    uint8_t said[NEIGHBOUR_FRAME];

    (void)state;
    ip6(&f, "fec0::15", "2001:db8::1", 6, 20);
    assert_int_equal(neighbour_speaks(&n, f.b, said), NEIGHBOUR_FRAME);
    ip6(&check, "fec0::15", "ff02::1", 58, 24);
    memset(check.b, 0, 6);
    check.b[54] = 136;
    memcpy(check.b + 62, check.b + 22, 16);
    finish6(&check, 2);
    assert_memory_equal(said, check.b, NEIGHBOUR_FRAME);
    assert_int_equal(neighbour_speaks(&n, f.b, said), 0);
    ip4(&f, "10.0.2.15", "192.0.2.1", 6, 20);
    assert_int_equal(neighbour_speaks(&n, f.b, said), 42);
    ip6(&f, "fec0::15", "2001:db8::1", 6, 20);
    assert_int_equal(neighbour_speaks(&n, f.b, said), 0);
}

static void nobody_is_not_introduced(void **state)
{
    struct neighbour n = {0};
    static struct frame f;
    uint8_t said[NEIGHBOUR_FRAME];

    (void)state;
    ip4(&f, "0.0.0.0", "255.255.255.255", 17, 300);
    assert_int_equal(neighbour_speaks(&n, f.b, said), 0);
    ip6(&f, "::", "ff02::2", 58, 8);
    assert_int_equal(neighbour_speaks(&n, f.b, said), 0);
    ethernet(&f, 0x806); /* speaks for himself */
    assert_int_equal(neighbour_speaks(&n, f.b, said), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_speaker_is_introduced_once),
        cmocka_unit_test(so_it_is_over_ipv6),
        cmocka_unit_test(nobody_is_not_introduced),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
