#include "devices/net/dhcp.h"

#include "devices/net/frames.h"

enum { OPTIONS = 42 + 236 + 4, LEN = 42 + 300 };

/* As libslirp makes them: the rest is zeroes. */
static void reply(struct frame *f, uint8_t type, size_t name)
{
    uint8_t *o = f->b + OPTIONS;

    ip4(f, "10.0.2.2", "255.255.255.255", 17, LEN - 34);
    udp_header(f->b + 34, 67, 68, LEN - 34);
    put_be32(o - 4, 0x63825363);
    memcpy(o, (const uint8_t[]){0, 53, 1, type, 12, (uint8_t)name}, 6);
    memset(o + 6, 'n', name);
    o[6 + name] = 255;
}

static void an_offer_tells_the_mtu(void **state)
{
    static const uint8_t types[] = {2, 5}, told[] = {26, 2, 0xff, 0xf0, 255};
    static struct frame f;
    uint8_t out[DHCP_OFFER_MAX];

    (void)state;
    for (size_t i = 0; i < array_len(types); i++) {
        reply(&f, types[i], 4);
        assert_true(dhcp_tells_mtu(f.b, f.len, 65520, out));
        assert_memory_equal(out, f.b, 40);
        assert_int_equal(get_be16(out + 40), 0);
        assert_memory_equal(out + 42, f.b + 42, OPTIONS + 10 - 42);
        assert_memory_equal(out + OPTIONS + 10, told, sizeof(told));
        assert_int_equal(out[OPTIONS + 10 + sizeof(told)], 0);
    }
}

static void what_has_no_room_or_is_something_else_stays(void **state)
{
    static struct frame f;
    uint8_t out[DHCP_OFFER_MAX];

    (void)state;
    reply(&f, 6, 4); /* a refusal */
    assert_false(dhcp_tells_mtu(f.b, f.len, 65520, out));
    reply(&f, 2, LEN - OPTIONS - 7 - 4);
    assert_true(dhcp_tells_mtu(f.b, f.len, 65520, out));
    reply(&f, 2, LEN - OPTIONS - 7 - 3);
    assert_false(dhcp_tells_mtu(f.b, f.len, 65520, out));
    reply(&f, 2, 4);
    f.b[OPTIONS + 10] = 0; /* no end */
    assert_false(dhcp_tells_mtu(f.b, f.len, 65520, out));
    reply(&f, 2, 4);
    f.b[OPTIONS + 5] = 255; /* beyond the frame */
    assert_false(dhcp_tells_mtu(f.b, f.len, 65520, out));
    reply(&f, 2, 4);
    put_be16(f.b + 36, 53);
    assert_false(dhcp_tells_mtu(f.b, f.len, 65520, out));
    reply(&f, 2, 4);
    for (size_t len = 0; len < OPTIONS + 11; len++)
        assert_false(dhcp_tells_mtu(f.b, len, 65520, out));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_offer_tells_the_mtu),
        cmocka_unit_test(what_has_no_room_or_is_something_else_stays),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
