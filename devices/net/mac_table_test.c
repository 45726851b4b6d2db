#include "devices/net/mac_table.h"

#include "vmm/base/test.h"

static struct mac_table table;

static void reset(uint64_t seed)
{
    memset(&table, 0, sizeof(table));
    table.seed = seed;
}

static const uint8_t *mac(unsigned n)
{
    static uint8_t m[MAC_LEN];

    m[0] = 0x52;
    put_be32(m + 2, n);
    return m;
}

static void an_address_is_where_it_was_last_seen(void **s)
{
    (void)s;
    reset(1);
    assert_int_equal(mac_find(&table, mac(7), 0), -1);
    mac_learn(&table, mac(7), 3, 0);
    mac_learn(&table, mac(8), 63, 0);
    assert_int_equal(mac_find(&table, mac(7), 0), 3);
    assert_int_equal(mac_find(&table, mac(8), 0), 63);
    /* It moves, within the same second, to a port before and to one behind. */
    mac_learn(&table, mac(7), 0, 0);
    assert_int_equal(mac_find(&table, mac(7), 0), 0);
    mac_learn(&table, mac(7), 5, 0);
    assert_int_equal(mac_find(&table, mac(7), 0), 5);
}

static void addresses_age_unless_seen_again(void **s)
{
    uint32_t start = UINT32_MAX - 10; /* the clock wraps */

    (void)s;
    reset(2);
    mac_learn(&table, mac(1), 1, start);
    mac_learn(&table, mac(2), 2, start);
    mac_learn(&table, mac(2), 2, start + MAC_AGE / 2);
    assert_int_equal(mac_find(&table, mac(1), start + MAC_AGE - 1), 1);
    assert_int_equal(mac_find(&table, mac(1), start + MAC_AGE), -1);
    assert_int_equal(mac_find(&table, mac(2), start + MAC_AGE), 2);
}

static void group_and_null_addresses_are_nobodys(void **s)
{
    static const uint8_t broadcast[MAC_LEN] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, none[MAC_LEN];

    (void)s;
    reset(3);
    mac_learn(&table, broadcast, 1, 0);
    mac_learn(&table, none, 1, 0);
    assert_int_equal(mac_find(&table, broadcast, 0), -1);
    assert_int_equal(mac_find(&table, none, 0), -1);
}

static void a_flood_from_one_port_displaces_no_other(void **s)
{
    unsigned kept = 0;

    (void)s;
    reset(4);
    for (unsigned p = 1; p < MAC_PORTS; p++)
        mac_learn(&table, mac(p), p, 0);
    for (unsigned n = 1000; n < 101000; n++)
        mac_learn(&table, mac(n), 0, 0);
    for (unsigned p = 1; p < MAC_PORTS; p++)
        assert_int_equal(mac_find(&table, mac(p), 0), p);
    for (unsigned n = 1000; n < 101000; n++)
        kept += mac_find(&table, mac(n), 0) == 0;
    assert_int_equal(kept, MAC_ROWS);
}

static void what_was_learnt_of_a_port_is_forgotten_with_it(void **s)
{
    (void)s;
    reset(5);
    for (unsigned n = 0; n < 50; n++)
        mac_learn(&table, mac(n), n & 1, 0);
    mac_forget(&table, 1);
    for (unsigned n = 0; n < 50; n++)
        assert_in_range(mac_find(&table, mac(n), 0) + 1, 0, 1);
    mac_learn(&table, mac(1000), 0, 0);
    assert_int_equal(mac_find(&table, mac(1000), 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_address_is_where_it_was_last_seen),
        cmocka_unit_test(addresses_age_unless_seen_again),
        cmocka_unit_test(group_and_null_addresses_are_nobodys),
        cmocka_unit_test(a_flood_from_one_port_displaces_no_other),
        cmocka_unit_test(what_was_learnt_of_a_port_is_forgotten_with_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
