#include "devices/net/forward.h"

#include <arpa/inet.h>

#include "vmm/base/test.h"

static void assert_addr(const union forward_addr *a, const char *text)
{
    char buf[FORWARD_TEXT_MAX];

    assert_string_equal(forward_addr_text(a, buf), text);
}

static void host_forwards_are_read(void **state)
{
    static const struct {
        const char *text, *host, *guest;
        bool udp;
        unsigned count;
    } good[] = {
        {"tcp::2222-:22", "0.0.0.0:2222", "0.0.0.0:22", false, 1},
        {"udp::53-:53", "0.0.0.0:53", "0.0.0.0:53", true, 1},
        {"tcp:127.0.0.1:80-10.0.2.15:8080", "127.0.0.1:80", "10.0.2.15:8080", false, 1},
        {"tcp::8000-10.0.2.15:22", "0.0.0.0:8000", "10.0.2.15:22", false, 1},
        {"tcp::8000-8009-:9000-9009", "0.0.0.0:8000", "0.0.0.0:9000", false, 10},
        {"tcp::8000-8009-10.0.2.15:9000-9009", "0.0.0.0:8000", "10.0.2.15:9000", false, 10},
        {"tcp:[::1]:0-[fec0::15]:80", "[::1]:0", "[fec0::15]:80", false, 1},
        {"tcp:[]:80-:80", "[::]:80", "[::]:80", false, 1},
        {"udp:[::1]:80-[fec0::15]:80", "[::1]:80", "[fec0::15]:80", true, 1},
        {"unix:/run/my-vm/x-y-:22", "/run/my-vm/x-y", "0.0.0.0:22", false, 1},
        {"unix:s-10.0.2.16:22", "s", "10.0.2.16:22", false, 1},
    };

    (void)state;
    for (unsigned i = 0; i < array_len(good); i++) {
        struct host_forward f;
        struct err err = {0};

        if (host_forward_parse(good[i].text, &f, &err))
            fail_msg("%s", err.msg);
        assert_addr(&f.host, good[i].host);
        assert_addr(&f.guest, good[i].guest);
        assert_int_equal(f.udp, good[i].udp);
        assert_int_equal(f.count, good[i].count);
    }
}

static void wrong_host_forwards_are_refused_with_the_reason(void **state)
{
    static const struct {
        const char *text, *why;
    } bad[] = {
        {"", "write tcp:"},
        {"2222:22", "write tcp:"},
        {"sctp::1-:1", "write tcp:"},
        {"tcp:2222-:22", "write tcp:"},
        {"tcp::2222-22", "write tcp:"},
        {"tcp::2222", "write tcp:"},
        {"tcp::65536-:22", "write tcp:"},
        {"tcp::22222222222-:22", "write tcp:"},
        {"tcp::-1-:22", "write tcp:"},
        {"tcp:localhost:1-:22", "write tcp:"},
        {"tcp:1.2.3:1-:22", "write tcp:"},
        {"tcp:[::1:1-:22", "write tcp:"},
        {"tcp:::1:1-:22", "write tcp:"},
        {"tcp::1-:22x", "write tcp:"},
        {"tcp::9-5-:9-5", "write tcp:"},
        {"tcp::1-5-:22", "ranges of ports differ"},
        {"tcp::1-5-:1-6", "ranges of ports differ"},
        {"tcp::80-:0", "port 0 stands for any"},
        {"tcp::0-4-:1-5", "port 0 stands for any"},
        {"tcp:127.0.0.1:1-[fec0::15]:1", "one address is IPv4"},
        {"udp:[::1]:1-:1", "needs the guest's address"},
        {"unix:/x", "write tcp:"},
        {"unix:-:22", "write tcp:"},
        {"unix:/x-:22-23", "write tcp:"},
        {"unix:/x-[fec0::15]:22", "over IPv4"},
        {"unix:/0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
         "01234567-:22",
         "longer than 107"},
    };

    (void)state;
    for (unsigned i = 0; i < array_len(bad); i++) {
        struct host_forward f;
        struct err err = {0};

        if (host_forward_parse(bad[i].text, &f, &err) != -EINVAL || !strstr(err.msg, bad[i].why) ||
            !strstr(err.msg, bad[i].text))
            fail_msg("%s: %s", bad[i].text, err.msg);
    }
}

static void guest_forwards_are_read(void **state)
{
    struct guest_forward f;
    struct err err;

    (void)state;
    assert_int_equal(guest_forward_parse("tcp:10.0.2.100:80-cmd:cat -u x-y", &f, &err), 0);
    assert_int_equal(f.addr.s_addr, inet_addr("10.0.2.100"));
    assert_int_equal(f.port, 80);
    assert_false(f.is_path);
    assert_string_equal(f.target, "cat -u x-y");
    assert_int_equal(guest_forward_parse("tcp:10.0.2.100:80-unix:/run/a-b", &f, &err), 0);
    assert_true(f.is_path);
    assert_string_equal(f.target, "/run/a-b");
}

static void wrong_guest_forwards_are_refused(void **state)
{
    static const char *const bad[] = {"",
                                      "udp:10.0.2.100:80-cmd:cat",
                                      "tcp::80-cmd:cat",
                                      "tcp:10.0.2.100:0-cmd:cat",
                                      "tcp:10.0.2.100:80-cmd:",
                                      "tcp:10.0.2.100:80-cat",
                                      "tcp:10.0.2.100:80",
                                      "tcp:10.0.2.100:80-unix:",
                                      "tcp:[fec0::9]:80-cmd:cat",
                                      "tcp:10.0.2.100:80-90-cmd:cat"};

    (void)state;
    for (unsigned i = 0; i < array_len(bad); i++) {
        struct guest_forward f;
        struct err err = {0};

        assert_int_equal(guest_forward_parse(bad[i], &f, &err), -EINVAL);
        assert_non_null(strstr(err.msg, "write tcp:GUESTADDR"));
    }
}

static void networks_are_read(void **state)
{
    struct in_addr net, mask;
    struct in6_addr net6;
    struct err err;

    (void)state;
    assert_int_equal(net4_parse("192.168.64.0/20", 8, 27, &net, &mask, &err), 0);
    assert_int_equal(net.s_addr, inet_addr("192.168.64.0"));
    assert_int_equal(mask.s_addr, inet_addr("255.255.240.0"));
    assert_int_equal(net6_parse("fd00:1::/64", &net6, &err), 0);
    assert_int_equal(net6.s6_addr[3], 1);
}

static void wrong_networks_are_refused(void **state)
{
    static const char *const bad4[] = {"",
                                       "10.0.2.0",
                                       "10.0.2.0/",
                                       "10.0.2.0/24x",
                                       "10.0.2.0/33",
                                       "10.0.2/24",
                                       "10.0.2.0/28",
                                       "10.0.2.1/24",
                                       "10.0.0.0/7",
                                       "10.0.2.0/0",
                                       "10.0.2.0/-1",
                                       "10.0.2.0.0.0.0.0.0/24"};
    static const char *const bad6[] = {"",          "fec0::",    "fec0::/48", "fec0::1/64",
                                       "fe80::/64", "ff02::/64", "::/64",     "10.0.2.0/24"};

    (void)state;
    for (unsigned i = 0; i < array_len(bad4); i++) {
        struct in_addr net, mask;
        struct err err = {0};

        assert_int_equal(net4_parse(bad4[i], 8, 27, &net, &mask, &err), -EINVAL);
        assert_non_null(strstr(err.msg, "net="));
    }
    for (unsigned i = 0; i < array_len(bad6); i++) {
        struct in6_addr net;
        struct err err = {0};

        assert_int_equal(net6_parse(bad6[i], &net, &err), -EINVAL);
        assert_non_null(strstr(err.msg, "ipv6-net="));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(host_forwards_are_read),  cmocka_unit_test(wrong_host_forwards_are_refused_with_the_reason),
        cmocka_unit_test(guest_forwards_are_read), cmocka_unit_test(wrong_guest_forwards_are_refused),
        cmocka_unit_test(networks_are_read),       cmocka_unit_test(wrong_networks_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
