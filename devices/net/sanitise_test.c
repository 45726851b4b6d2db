#include "devices/net/sanitise.h"

#include <arpa/inet.h>

#include "devices/net/frames.h"
#include "vmm/base/clock.h"
#include "vmm/base/test.h"

enum { NOW = 5, DATA = 1200 };

static struct san_rules rules(void)
{
    struct san_rules r = {.ipv4 = true, .ipv6 = true, .rate = 1000, .max = 100};

    assert_int_equal(inet_pton(AF_INET, "10.0.2.0", &r.net), 1);
    assert_int_equal(inet_pton(AF_INET, "255.255.255.0", &r.mask), 1);
    assert_int_equal(inet_pton(AF_INET, "10.0.2.2", &r.host), 1);
    assert_int_equal(inet_pton(AF_INET, "10.0.2.3", &r.dns), 1);
    assert_int_equal(inet_pton(AF_INET6, "fec0::2", &r.host6), 1);
    assert_int_equal(inet_pton(AF_INET6, "fec0::3", &r.dns6), 1);
    return r;
}

/* ---- Honest frames. ---- */

static void arp(struct frame *f)
{
    static const uint8_t request[] = {0, 1, 8, 0, 6, 4, 0, 1};

    ethernet(f, 0x806);
    memcpy(f->b + 14, request, sizeof(request));
    memcpy(f->b + 22, mac, 6);
    assert_int_equal(inet_pton(AF_INET, "10.0.2.15", f->b + 28), 1);
    assert_int_equal(inet_pton(AF_INET, "10.0.2.2", f->b + 38), 1);
    f->len = 60; /* padded */
}

static void tcp4(struct frame *f)
{
    ip4(f, "10.0.2.15", "192.0.2.1", 6, 40);
    tcp_header(f->b + 34, 0x18);
}

static void syn4(struct frame *f)
{
    static const uint8_t options[] = {2, 4, 5, 0xb4, 1, 3, 3, 7};

    ip4(f, "10.0.2.15", "192.0.2.1", 6, 28);
    tcp_header(f->b + 34, 2);
    f->b[46] = 0x70;
    memcpy(f->b + 54, options, sizeof(options));
}

static void tcp6(struct frame *f)
{
    ip6(f, "fec0::5054:ff:fe12:3456", "2001:db8::1", 6, 40);
    tcp_header(f->b + 54, 0x18);
}

static void syn6(struct frame *f)
{
    tcp6(f);
    f->b[54 + 13] = 2;
}

static void udp4(struct frame *f)
{
    ip4(f, "10.0.2.15", "10.0.2.3", 17, 48);
    udp_header(f->b + 34, 40000, 53, 48);
}

static void udp6(struct frame *f)
{
    ip6(f, "fec0::5054:ff:fe12:3456", "fec0::3", 17, 48);
    udp_header(f->b + 54, 40000, 53, 48);
}

static void ping4(struct frame *f)
{
    ip4(f, "10.0.2.15", "10.0.2.2", 1, 64);
    f->b[34] = 8;
}

static void ping6(struct frame *f)
{
    ip6(f, "fe80::1", "fe80::2", 58, 64);
    f->b[54] = 128;
}

static void dhcp(struct frame *f)
{
    static const uint8_t options[] = {0x63, 0x82, 0x53, 0x63, 53, 1, 1, 0, 12, 2, 'm', 'e', 255};

    ip4(f, "0.0.0.0", "255.255.255.255", 17, 8 + 300);
    udp_header(f->b + 34, 68, 67, 8 + 300);
    f->b[42] = f->b[43] = 1;
    f->b[44] = 6;
    memcpy(f->b + 42 + 28, mac, 6);
    memcpy(f->b + 42 + 236, options, sizeof(options));
}

static void bootp_cut_off(struct frame *f)
{
    dhcp(f);
    f->len = 42 + 240;
    put_be16(f->b + 16, 28 + 240 - 1);
    put_be16(f->b + 38, 8 + 240 - 1);
}

static void dhcp6(struct frame *f)
{
    static const uint8_t message[] = {11, 1, 2, 3, 0, 1, 0, 2, 'i', 'd', 0, 6, 0, 2, 0, 23};

    ip6(f, "fe80::1", "ff02::1:2", 17, 8 + sizeof(message));
    udp_header(f->b + 54, 546, 547, 8 + sizeof(message));
    memcpy(f->b + 62, message, sizeof(message));
}

static void tftp(struct frame *f)
{
    ip4(f, "10.0.2.15", "10.0.2.2", 17, 30);
    udp_header(f->b + 34, 40000, 69, 30);
    f->b[43] = 1;
}

static void solicit(struct frame *f)
{
    ip6(f, "fe80::1", "ff02::1:ff00:2", 58, 32);
    f->b[54] = 135;
    assert_int_equal(inet_pton(AF_INET6, "fec0::2", f->b + 62), 1);
    f->b[78] = f->b[79] = 1;
    memcpy(f->b + 80, mac, 6);
}

static void is_my_address_free(struct frame *f)
{
    solicit(f);
    f->len -= 8;
    put_be16(f->b + 18, 24);
    memset(f->b + 22, 0, 16);
}

static void router_solicit(struct frame *f)
{
    ip6(f, "fe80::1", "ff02::2", 58, 16);
    f->b[54] = 133;
    f->b[62] = f->b[63] = 1;
    memcpy(f->b + 64, mac, 6);
}

static void mld(struct frame *f)
{
    static const uint8_t alert[] = {58, 0, 5, 2, 0, 0, 1, 0, 143};

    ip6(f, "::", "ff02::16", 0, 36);
    memcpy(f->b + 54, alert, sizeof(alert));
}

static void (*const honest[])(struct frame *f) = {
    arp, tcp4, syn4, tcp6, syn6, udp4, udp6, ping4, ping6, dhcp, dhcp6, solicit, is_my_address_free, router_solicit};

/* libslirp has taken all before `next` of the connection to which tcp4() or tcp6() belongs. */
static void told(struct sanitiser *s, bool v6, uint32_t next)
{
    struct frame f;
    uint8_t *t = f.b + (v6 ? 54 : 34);

    if (v6)
        ip6(&f, "2001:db8::1", "fec0::5054:ff:fe12:3456", 6, 20);
    else
        ip4(&f, "192.0.2.1", "10.0.2.15", 6, 20);
    tcp_header(t, 0x10);
    put_be16(t, 80);
    put_be16(t + 2, 40000);
    put_be32(t + 8, next);
    sanitiser_sent(s, f.b, f.len);
}

/* ---- ---- */

static void honest_frames_pass_and_lose_their_padding(void **state)
{
    static struct sanitiser s;
    static struct frame f, sent;
    const struct san_rules r = rules();

    (void)state;
    sanitiser_init(&s, &r);
    told(&s, false, 0);
    told(&s, true, 0);
    for (unsigned i = 0; i < array_len(honest); i++) {
        uint8_t *out = NULL;
        size_t len;

        honest[i](&f);
        sent = f;
        len = f.len + 20;
        assert_true(sanitise(&s, f.b, &len, NOW, &out));
        assert_ptr_equal(out, f.b);
        assert_int_equal(len, f.len == 60 ? 42 : f.len);
        assert_memory_equal(out, sent.b, len);
    }
    for (unsigned i = 0; i < SAN_REASONS; i++)
        assert_int_equal(s.drops[i], 0);
    assert_int_equal(s.urgent, 0);
}

/* What is done to an honest frame, and why it is dropped then. */
struct attack {
    const char *name;
    void (*make)(struct frame *f);
    enum san_reason reason;
    size_t off, n;
    uint8_t bytes[16];
    size_t len; /* of the frame; 0: as it was */
};

static const struct attack attacks[] = {
    {"no Ethernet header", tcp4, SAN_SHORT, .len = 13},
    {"VLAN", tcp4, SAN_ETHERNET, 12, 2, {0x81, 0}},
    {"NC-SI (CVE-2020-29129)", tcp4, SAN_ETHERNET, 12, 2, {0x88, 0xf8}},
    {"a group's MAC", tcp4, SAN_MAC, 6, 1, {0x53}},
    {"no MAC", tcp4, SAN_MAC, 6, 6, {0}},
    {"the gateway's MAC", tcp4, SAN_MAC, 6, 2, {0x52, 0x55}},
    {"short ARP (CVE-2020-29130)", arp, SAN_SHORT, .len = 41},
    {"ARP: lengths of addresses", arp, SAN_ARP, 18, 1, {8}},
    {"ARP: protocol", arp, SAN_ARP, 16, 2, {0x86, 0xdd}},
    {"ARP: operation", arp, SAN_ARP, 20, 2, {0, 3}},
    {"ARP: another's MAC", arp, SAN_ARP, 22, 1, {0x54}},
    {"ARP: the gateway's address", arp, SAN_ARP, 28, 4, {10, 0, 2, 2}},
    {"ARP: an address from elsewhere", arp, SAN_ARP, 28, 4, {10, 0, 3, 2}},

    {"short IPv4 header", tcp4, SAN_SHORT, .len = 33},
    {"IPv4 header of 4 words", tcp4, SAN_LENGTH, 14, 1, {0x44}},
    {"version 6 under IPv4's type", tcp4, SAN_LENGTH, 14, 1, {0x65}},
    {"total length below the header", tcp4, SAN_LENGTH, 16, 2, {0, 19}},
    {"total length beyond the frame", tcp4, SAN_LENGTH, 16, 2, {0, 61}},
    {"IPv4 option", tcp4, SAN_OPTION, 14, 1, {0x46}},
    {"IGMP with router alert", tcp4, SAN_GROUP, 14, 10, {0x46, 0, 0, 60, 0, 0, 0x40, 0, 1, 2}},
    {"reserved bit", tcp4, SAN_FRAGMENT, 20, 2, {0x80, 0}},
    {"fragment of TCP (CVE-2019-14378)", tcp4, SAN_FRAGMENT, 20, 2, {0x20, 0}},
    {"last fragment of nothing (CVE-2020-1983)", udp4, SAN_FRAGMENT, 20, 2, {0, 100}},
    {"protocol", tcp4, SAN_PROTOCOL, 23, 1, {132}},
    {"source 0.0.0.0 for TCP", tcp4, SAN_SOURCE, 26, 4, {0}},
    {"source of another network", tcp4, SAN_SOURCE, 26, 4, {192, 168, 1, 1}},
    {"source: the gateway", tcp4, SAN_SOURCE, 26, 4, {10, 0, 2, 2}},
    {"source: the DNS server", tcp4, SAN_SOURCE, 26, 4, {10, 0, 2, 3}},
    {"source: the network", tcp4, SAN_SOURCE, 26, 4, {10, 0, 2, 0}},
    {"source: everybody", tcp4, SAN_SOURCE, 26, 4, {10, 0, 2, 255}},
    {"the host's loopback", tcp4, SAN_DESTINATION, 30, 4, {127, 0, 0, 1}},
    {"the host itself as 0.0.0.0", tcp4, SAN_DESTINATION, 30, 4, {0, 0, 0, 0}},
    {"the host's link: cloud metadata", tcp4, SAN_DESTINATION, 30, 4, {169, 254, 169, 254}},
    {"class E", tcp4, SAN_DESTINATION, 30, 4, {240, 0, 0, 1}},
    {"multicast", udp4, SAN_GROUP, 30, 4, {224, 0, 0, 251}},
    {"broadcast", udp4, SAN_GROUP, 30, 4, {255, 255, 255, 255}},
    {"broadcast in TCP", tcp4, SAN_GROUP, 30, 4, {255, 255, 255, 255}},
    {"the network's broadcast", udp4, SAN_GROUP, 30, 4, {10, 0, 2, 255}},

    {"short TCP header", tcp4, SAN_SHORT, 16, 2, {0, 39}},
    {"TCP header of 4 words", tcp4, SAN_TCP, 46, 1, {0x40}},
    {"TCP header longer than the segment", tcp4, SAN_TCP, 46, 1, {0xb0}},
    {"SYN and FIN", syn4, SAN_TCP, 47, 1, {3}},
    {"SYN and RST", syn4, SAN_TCP, 47, 1, {6}},
    {"TCP option of length 0", syn4, SAN_TCP, 55, 1, {0}},
    {"TCP option of length 1", syn4, SAN_TCP, 55, 1, {1}},
    {"TCP option beyond the header", syn4, SAN_TCP, 55, 1, {9}},
    {"TCP option cut off", syn4, SAN_TCP, 54, 8, {1, 1, 1, 1, 1, 1, 1, 2}},
    {"UDP length below its header", udp4, SAN_UDP, 38, 2, {0, 7}},
    {"UDP length beyond the packet", udp4, SAN_UDP, 38, 2, {0, 49}},
    {"UDP length below the packet's", udp4, SAN_UDP, 38, 2, {0, 47}},
    {"short UDP header", udp4, SAN_UDP, 16, 2, {0, 27}},
    {"short ICMP header", ping4, SAN_SHORT, 16, 2, {0, 27}},
    {"ICMP redirect", ping4, SAN_PROTOCOL, 34, 1, {5}},
    {"BOOTP cut off (CVE-2021-3592)", bootp_cut_off, SAN_DHCP},
    {"DHCP reply", dhcp, SAN_DHCP, 42, 1, {2}},
    {"DHCP: another's address", dhcp, SAN_DHCP, 42 + 28, 1, {0x54}},
    {"DHCP: no cookie", dhcp, SAN_DHCP, 42 + 236, 1, {0}},
    {"DHCP: no message type", dhcp, SAN_DHCP, 42 + 240, 1, {54}},
    {"DHCP: option beyond the packet", dhcp, SAN_DHCP, 42 + 241, 1, {255}},
    {"TFTP (CVE-2021-3595)", tftp, SAN_TFTP},

    {"short IPv6 header", tcp6, SAN_SHORT, .len = 53},
    {"version 4 under IPv6's type", tcp6, SAN_LENGTH, 14, 1, {0x45}},
    {"jumbogram", tcp6, SAN_LENGTH, 18, 2, {0, 0}},
    {"payload beyond the frame", tcp6, SAN_LENGTH, 18, 2, {0, 41}},
    {"hop-by-hop options", tcp6, SAN_EXTENSION, 20, 1, {0}},
    {"routing header", tcp6, SAN_EXTENSION, 20, 1, {43}},
    {"IPv6 fragment", tcp6, SAN_EXTENSION, 20, 1, {44}},
    {"destination options", tcp6, SAN_EXTENSION, 20, 1, {60}},
    {"SCTP", tcp6, SAN_PROTOCOL, 20, 1, {132}},
    {"no source", tcp6, SAN_SOURCE, 22, 16, {0}},
    {"no source for a ping", ping6, SAN_SOURCE, 22, 16, {0}},
    {"source of another network", tcp6, SAN_SOURCE, 22, 2, {0x20, 1}},
    {"source: the gateway", tcp6, SAN_SOURCE, 30, 8, {0, 0, 0, 0, 0, 0, 0, 2}},
    {"source: the gateway on the link", ping6, SAN_SOURCE, 37, 1, {2}},
    {"the host's loopback", tcp6, SAN_DESTINATION, 38, 16, {[15] = 1}},
    {"the host itself as ::", tcp6, SAN_DESTINATION, 38, 16, {0}},
    {"127.0.0.1 in IPv6's clothes", tcp6, SAN_DESTINATION, 38, 16, {[10] = 0xff, 0xff, 127, 0, 0, 1}},
    {"the host's link", tcp6, SAN_DESTINATION, 38, 2, {0xfe, 0x80}},
    {"multicast TCP", tcp6, SAN_GROUP, 38, 2, {0xff, 2}},
    {"multicast DNS", udp6, SAN_GROUP, 38, 16, {0xff, 2, [15] = 0xfb}},
    {"MLD", mld, SAN_GROUP},
    {"UDP over IPv6 without checksum", udp6, SAN_UDP, 60, 2, {0, 0}},
    {"UDP length lies (CVE-2021-3593)", udp6, SAN_UDP, 58, 2, {0, 200}},
    {"short ICMPv6", ping6, SAN_SHORT, 18, 2, {0, 7}},
    {"ping to afar", ping6, SAN_PROTOCOL, 38, 2, {0x20, 1}},
    {"router advertisement", solicit, SAN_NDP, 54, 1, {134}},
    {"redirect", solicit, SAN_NDP, 54, 1, {137}},
    {"solicitation cut off (CVE-2021-3594)", solicit, SAN_NDP, 18, 2, {0, 23}},
    {"solicitation through a router", solicit, SAN_NDP, 21, 1, {254}},
    {"solicitation's code", solicit, SAN_NDP, 55, 1, {1}},
    {"solicitation of a group", solicit, SAN_NDP, 62, 1, {0xff}},
    {"option of length 0", solicit, SAN_NDP, 79, 1, {0}},
    {"option beyond the packet", solicit, SAN_NDP, 79, 1, {2}},
    {"router solicitation cut off", router_solicit, SAN_SHORT, 18, 2, {0, 7}},
    {"DHCPv6 solicitation", dhcp6, SAN_DHCP, 62, 1, {1}},
    {"DHCPv6 option beyond the packet", dhcp6, SAN_DHCP, 75, 1, {3}},
    {"DHCPv6 option cut off", dhcp6, SAN_DHCP, 69, 1, {7}},
};

static void what_no_honest_guest_sends_is_dropped_and_counted(void **state)
{
    static struct frame f;

    (void)state;
    for (unsigned i = 0; i < array_len(attacks); i++) {
        const struct attack *a = &attacks[i];
        static struct sanitiser s;
        const struct san_rules r = rules();
        uint8_t *out;
        size_t len;

        sanitiser_init(&s, &r);
        a->make(&f);
        memcpy(f.b + a->off, a->bytes, a->n < sizeof(a->bytes) ? a->n : sizeof(a->bytes));
        len = a->len ? a->len : f.len;
        if (sanitise(&s, f.b, &len, NOW, &out) || s.drops[a->reason] != 1) {
            print_error("%s\n", a->name);
            for (unsigned k = 0; k < SAN_REASONS; k++)
                if (s.drops[k])
                    print_error("  %s\n", san_reason_names[k]);
            fail();
        }
    }
}

static void every_reason_has_a_name(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SAN_REASONS; i++)
        assert_non_null(san_reason_names[i]);
}

static uint16_t tcp_sum(const uint8_t *ip, size_t n)
{
    uint8_t pseudo[12] = {[9] = 6};

    memcpy(pseudo, ip + 12, 8);
    put_be16(pseudo + 10, (uint16_t)n);
    return csum_fold(csum_add(csum_add(0, pseudo, 12), ip + 20, n));
}

static void urgent_data_becomes_ordinary(void **state)
{
    static struct sanitiser s;
    static struct frame f;
    const struct san_rules r = rules();
    uint8_t *out, *t = f.b + 34;
    size_t len;

    (void)state;
    sanitiser_init(&s, &r);
    told(&s, false, 0);
    for (unsigned pointer = 1; pointer < 65536; pointer += 997) {
        tcp4(&f);
        t[13] |= 0x20; /* CVE-2026-9539 */
        put_be16(t + 18, (uint16_t)pointer);
        put_be16(t + 16, tcp_sum(f.b + 14, 40));
        assert_int_equal(tcp_sum(f.b + 14, 40), 0);
        len = f.len;
        assert_true(sanitise(&s, f.b, &len, NOW, &out));
        assert_int_equal(t[13], 0x18);
        assert_int_equal(get_be16(t + 18), 0);
        assert_int_equal(tcp_sum(f.b + 14, 40), 0);
    }
    assert_int_equal(s.urgent, 66);
}

/* Neither data nor an end that libslirp would have to keep until what is before it comes. */
static void segments_out_of_order_are_emptied(void **state)
{
    static struct sanitiser s;
    static struct frame f;
    const struct san_rules r = rules();

    (void)state;
    sanitiser_init(&s, &r);
    for (unsigned i = 0; i < 8; i++) {
        bool v6 = i & 1, fin = i & 2, known = i & 4;
        uint8_t *t = f.b + (v6 ? 54 : 34), *out;
        size_t len, header = (v6 ? 54 : 34) + 20;

        if (known)
            told(&s, v6, 1000);
        (v6 ? tcp6 : tcp4)(&f);
        t[13] |= fin ? 1 : 0;
        put_be32(t + 4, 1001);
        if (v6)
            finish6(&f, 16);
        else
            finish4(&f, 16);
        len = f.len;
        assert_true(sanitise(&s, f.b, &len, NOW, &out));
        assert_int_equal(len, header);
        assert_int_equal(get_be16(out + (v6 ? 18 : 16)), v6 ? 20 : 40);
        assert_int_equal(t[13], 0x10);
        assert_int_equal(get_be32(t + 4), known ? 999 : 1000);
        assert_int_equal(s.drops[SAN_ORDER], i + 1);
        f.len = len;
        if (v6) {
            uint16_t sum = get_be16(t + 16);

            finish6(&f, 16);
            assert_int_equal(get_be16(t + 16), sum);
        } else {
            assert_int_equal(csum_fold(csum_add(0, f.b + 14, 20)), 0);
            assert_int_equal(tcp_sum(f.b + 14, 20), 0);
        }
    }
}

/* The commands that libslirp would rewrite are nothing but data as long as its emulation is off, so they pass: what is
 * checked is that a frame with them is not mistaken for anything else (CVE-2020-7039). */
static void protocols_that_libslirp_once_rewrote_are_just_data(void **state)
{
    static struct sanitiser s;
    static struct frame f;
    const struct san_rules r = rules();
    uint8_t *out;
    size_t len;

    (void)state;
    sanitiser_init(&s, &r);
    told(&s, false, 0);
    tcp4(&f);
    memcpy(f.b + 54, "DCC CHAT chat 1 1\r\n", 20);
    len = f.len;
    assert_true(sanitise(&s, f.b, &len, NOW, &out));
    assert_memory_equal(out + 54, "DCC CHAT chat 1 1\r\n", 20);
}

/* ---- Fragments. ---- */

static bool fragment(struct sanitiser *s, uint16_t id, size_t off, size_t n, bool more, uint64_t now, size_t *ret)
{
    static struct frame f;
    uint8_t *out;
    bool whole;

    ip4(&f, "10.0.2.15", "192.0.2.1", 17, n);
    put_be16(f.b + 18, id);
    put_be16(f.b + 20, (uint16_t)(off / 8 | (more ? 0x2000 : 0)));
    for (size_t i = 0; i < n; i++)
        f.b[34 + i] = (uint8_t)((off + i) % 251);
    if (!off)
        udp_header(f.b + 34, 40000, 9999, DATA);
    whole = sanitise(s, f.b, &f.len, now, &out);
    if (!whole)
        return false;
    *ret = f.len;
    assert_int_equal(get_be16(out + 16), f.len - 14);
    assert_int_equal(get_be16(out + 20), 0);
    assert_int_equal(csum_fold(csum_add(0, out + 14, 20)), 0);
    for (size_t i = 8; i < f.len - 34; i++)
        assert_int_equal(out[34 + i], i % 251);
    return true;
}

static void fragments_in_order_become_one_datagram(void **state)
{
    static struct sanitiser s;
    const struct san_rules r = rules();
    size_t len = 0;

    (void)state;
    sanitiser_init(&s, &r);
    /* Two at a time. */
    assert_false(fragment(&s, 1, 0, 400, true, NOW, &len));
    assert_false(fragment(&s, 2, 0, 800, true, NOW, &len));
    assert_false(fragment(&s, 1, 400, 400, true, NOW, &len));
    assert_true(fragment(&s, 2, 800, DATA - 800, false, NOW, &len));
    assert_int_equal(len, 34 + DATA);
    assert_true(fragment(&s, 1, 800, DATA - 800, false, NOW, &len));
    assert_int_equal(len, 34 + DATA);
    assert_int_equal(s.drops[SAN_FRAGMENT], 0);
}

static void a_gap_an_overlap_or_an_odd_length_costs_the_datagram(void **state)
{
    static const struct {
        size_t off, n;
        bool more;
    } second[] = {{408, 400, true}, {392, 400, true}, {0, 400, true},
                  {400, 401, true}, {400, 0, false},  {400, 0, true}};
    const struct san_rules r = rules();
    size_t len;

    (void)state;
    for (unsigned i = 0; i < array_len(second); i++) {
        static struct sanitiser s;

        sanitiser_init(&s, &r);
        assert_false(fragment(&s, 1, 0, 400, true, NOW, &len));
        assert_false(fragment(&s, 1, second[i].off, second[i].n, second[i].more, NOW, &len));
        assert_int_equal(s.drops[SAN_FRAGMENT], 1);
        assert_false(fragment(&s, 1, 400, 800, false, NOW, &len));
        assert_int_equal(s.drops[SAN_FRAGMENT], 2);
    }
}

static void no_datagram_grows_beyond_what_a_length_can_say(void **state)
{
    static struct sanitiser s;
    const struct san_rules r = rules();
    size_t off = 0, len;

    (void)state;
    sanitiser_init(&s, &r);
    while (off + 1480 <= SAN_DATAGRAM_MAX - 20) {
        assert_false(fragment(&s, 1, off, 1480, true, NOW, &len));
        off += 1480;
    }
    assert_int_equal(s.drops[SAN_FRAGMENT], 0);
    assert_false(fragment(&s, 1, off, 1480, false, NOW, &len)); /* the ping of death */
    assert_int_equal(s.drops[SAN_FRAGMENT], 1);
}

static void unfinished_datagrams_make_room_for_others(void **state)
{
    static struct sanitiser s;
    const struct san_rules r = rules();
    size_t len;

    (void)state;
    sanitiser_init(&s, &r);
    for (uint16_t id = 0; id < 1000; id++)
        assert_false(fragment(&s, id, 0, 400, true, NOW + id, &len));
    assert_int_equal(s.drops[SAN_FRAGMENT], 1000 - SAN_DATAGRAMS);
    assert_true(fragment(&s, 999, 400, 800, false, NOW + 1000, &len));
    assert_false(fragment(&s, 998, 400, 800, false, NOW + 3 * NS_PER_SEC, &len)); /* too late */
    assert_int_equal(s.drops[SAN_FRAGMENT], 1000 - SAN_DATAGRAMS + 1);
}

/* ---- Limits. ---- */

static unsigned passed(struct sanitiser *s, void (*make)(struct frame *f), unsigned n, uint64_t now)
{
    static struct frame f;
    unsigned ok = 0;

    for (unsigned i = 0; i < n; i++) {
        uint8_t *out;

        make(&f);
        ok += sanitise(s, f.b, &f.len, now, &out);
    }
    return ok;
}

static void udp_elsewhere(struct frame *f)
{
    udp4(f);
    put_be16(f->b + 36, 9999);
}

static void new_connections_are_limited_and_old_ones_are_not(void **state)
{
    static struct sanitiser s;
    struct san_rules r = rules();

    (void)state;
    r.rate = 10;
    sanitiser_init(&s, &r);
    assert_int_equal(passed(&s, syn4, 50, NOW), 10);
    assert_int_equal(s.drops[SAN_RATE], 40);
    assert_int_equal(passed(&s, tcp4, 50, NOW), 50);
    assert_int_equal(passed(&s, udp4, 50, NOW), 0);
    assert_int_equal(passed(&s, syn6, 50, NOW + NS_PER_SEC / 2), 5);
    assert_int_equal(passed(&s, udp_elsewhere, 50, NOW + NS_PER_SEC), 50); /* one socket for all of them */
    assert_int_equal(passed(&s, syn4, 50, NOW + NS_PER_SEC), 4);
    assert_int_equal(passed(&s, syn4, 50, NOW + 1000 * NS_PER_SEC), 10);

    r.rate = 0;
    sanitiser_init(&s, &r);
    assert_int_equal(passed(&s, syn4, 5000, NOW), 5000);
}

static void no_more_connections_than_allowed_at_a_time(void **state)
{
    static struct sanitiser s;
    const struct san_rules r = rules();

    (void)state;
    sanitiser_init(&s, &r);
    s.open = r.max - 1;
    assert_int_equal(passed(&s, syn4, 1, NOW), 1);
    s.open = r.max;
    assert_int_equal(passed(&s, syn4, 1, NOW), 0);
    assert_int_equal(passed(&s, udp6, 1, NOW), 0);
    assert_int_equal(passed(&s, ping4, 1, NOW), 0);
    assert_int_equal(s.drops[SAN_FULL], 3);
    assert_int_equal(passed(&s, tcp4, 1, NOW), 1);
}

static void udp_of_a_neighbour(struct frame *f)
{
    udp_elsewhere(f);
    f->b[14 + 15] = 16;
}

static void udp6_elsewhere(struct frame *f)
{
    udp6(f);
    put_be16(f->b + 56, 9999);
}

/* libslirp has a socket for each, and closes those that have asked a name server. */
static void datagrams_of_another_address_or_long_after_are_another_connection(void **state)
{
    static struct sanitiser s;
    const struct san_rules r = rules();

    (void)state;
    sanitiser_init(&s, &r);
    assert_int_equal(passed(&s, udp_elsewhere, 1, NOW), 1);
    s.open = r.max;
    assert_int_equal(passed(&s, udp_elsewhere, 5, NOW), 5);
    assert_int_equal(passed(&s, udp_of_a_neighbour, 1, NOW), 0);
    assert_int_equal(passed(&s, udp6_elsewhere, 1, NOW), 0);
    assert_int_equal(passed(&s, udp_elsewhere, 1, NOW + 61 * NS_PER_SEC), 0);
    s.open = 0;
    assert_int_equal(passed(&s, udp_elsewhere, 1, NOW + 61 * NS_PER_SEC), 1);
    s.open = r.max;
    assert_int_equal(passed(&s, udp4, 2, NOW + 61 * NS_PER_SEC), 1);
    assert_int_equal(passed(&s, udp_elsewhere, 1, NOW + 61 * NS_PER_SEC), 0);
    assert_int_equal(s.drops[SAN_FULL], 5);
}

static void what_fails_is_counted(void **state)
{
    static struct sanitiser s;
    static struct frame f;
    const struct san_rules r = rules();

    (void)state;
    sanitiser_init(&s, &r);
    ip4(&f, "192.0.2.1", "10.0.2.15", 6, 20);
    tcp_header(f.b + 34, 0x14);
    sanitiser_sent(&s, f.b, f.len);
    tcp_header(f.b + 34, 0x10);
    sanitiser_sent(&s, f.b, f.len);
    assert_int_equal(s.failed, 1);
    ip4(&f, "10.0.2.2", "10.0.2.15", 1, 36);
    f.b[34] = 3;
    sanitiser_sent(&s, f.b, f.len);
    f.b[34] = 0; /* a ping's answer */
    sanitiser_sent(&s, f.b, f.len);
    assert_int_equal(s.failed, 2);
    ip6(&f, "fec0::2", "fec0::15", 58, 48);
    f.b[54] = 1;
    sanitiser_sent(&s, f.b, f.len);
    assert_int_equal(s.failed, 3);
}

static void chatter_is_limited(void **state)
{
    static struct sanitiser s;
    const struct san_rules r = rules();
    unsigned ok = 0;

    (void)state;
    sanitiser_init(&s, &r);
    for (unsigned i = 0; i < 300; i++)
        ok += passed(&s, arp, 1, NOW) + passed(&s, solicit, 1, NOW) + passed(&s, dhcp, 1, NOW) +
              passed(&s, ping4, 1, NOW);
    assert_int_equal(ok, 500);
    assert_int_equal(s.drops[SAN_CHATTER], 700);
    assert_int_equal(passed(&s, syn4, 1, NOW), 1);
}

static void a_restricted_guest_begins_nothing_over_ipv6_or_udp(void **state)
{
    static struct sanitiser s;
    struct san_rules r = rules();

    (void)state;
    r.restricted = true;
    sanitiser_init(&s, &r);
    assert_int_equal(passed(&s, syn6, 1, NOW) + passed(&s, udp4, 1, NOW) + passed(&s, udp6, 1, NOW), 0);
    assert_int_equal(s.drops[SAN_RESTRICTED], 3);
    assert_int_equal(passed(&s, dhcp, 1, NOW) + passed(&s, arp, 1, NOW) + passed(&s, tcp6, 1, NOW), 3);
}

static bool udp_from_to(struct sanitiser *s, const char *dst, uint16_t from, uint16_t to, uint64_t now)
{
    static struct frame f;
    uint8_t *out;

    if (strchr(dst, ':'))
        ip6(&f, "fec0::15", dst, 17, 9);
    else
        ip4(&f, "10.0.2.15", dst, 17, 9);
    udp_header(f.b + f.len - 9, from, to, 9);
    return sanitise(s, f.b, &f.len, now, &out);
}

static void the_gateway_may_be_for_answers_only(void **state)
{
    static struct sanitiser s;
    static struct frame f;
    struct san_rules r = rules();
    uint8_t *out;

    (void)state;
    r.answers_only = true;
    sanitiser_init(&s, &r);
    sanitiser_forwards(&s, 53);
    assert_false(udp_from_to(&s, "10.0.2.2", 53, 6000, NOW));
    ip4(&f, "10.0.2.2", "10.0.2.15", 17, 9);
    udp_header(f.b + 34, 6000, 54, 9);
    sanitiser_sent(&s, f.b, f.len); /* to a port that is not forwarded */
    assert_false(udp_from_to(&s, "10.0.2.2", 53, 6000, NOW));
    udp_header(f.b + 34, 6000, 53, 9);
    sanitiser_sent(&s, f.b, f.len);
    assert_true(udp_from_to(&s, "10.0.2.2", 53, 6000, NOW));
    assert_false(udp_from_to(&s, "10.0.2.2", 53, 6001, NOW));
    assert_false(udp_from_to(&s, "10.0.2.2", 52, 6000, NOW));
    ip6(&f, "fec0::2", "fec0::15", 17, 9);
    udp_header(f.b + 54, 7000, 53, 9);
    sanitiser_sent(&s, f.b, f.len);
    assert_true(udp_from_to(&s, "fec0::2", 53, 7000, NOW));
    assert_false(udp_from_to(&s, "fec0::99", 53, 7001, NOW)); /* is the loopback to libslirp, too */
    assert_int_equal(s.drops[SAN_DESTINATION], 5);
    /* The DNS server and the world are not the gateway. */
    assert_true(udp_from_to(&s, "10.0.2.3", 5000, 53, NOW));
    assert_true(udp_from_to(&s, "fec0::3", 5000, 53, NOW));
    assert_true(udp_from_to(&s, "192.0.2.1", 5000, 53, NOW));
    /* A minute later it may still answer, two minutes later not. */
    assert_true(udp_from_to(&s, "10.0.2.2", 53, 6000, NOW + 61 * NS_PER_SEC));
    assert_false(udp_from_to(&s, "10.0.2.2", 53, 6000, NOW + 125 * NS_PER_SEC));
    syn4(&f);
    assert_int_equal(inet_pton(AF_INET, "10.0.2.2", f.b + 30), 1);
    assert_false(sanitise(&s, f.b, &f.len, NOW, &out));
    assert_int_equal(s.drops[SAN_DESTINATION], 7);
}

static void tftp_and_bootp_pass_when_they_are_on(void **state)
{
    static struct sanitiser s;
    static struct frame f;
    struct san_rules r = rules();
    uint8_t *out;

    (void)state;
    r.tftp = true;
    sanitiser_init(&s, &r);
    assert_int_equal(passed(&s, tftp, 1, NOW), 1);
    dhcp(&f);
    f.b[42 + 240] = 54; /* no message type: BOOTP */
    assert_true(sanitise(&s, f.b, &f.len, NOW, &out));
}

static void a_family_that_is_off_does_not_pass(void **state)
{
    static struct sanitiser s;
    struct san_rules r = rules();

    (void)state;
    r.ipv6 = false;
    sanitiser_init(&s, &r);
    assert_int_equal(passed(&s, tcp6, 1, NOW), 0);
    assert_int_equal(passed(&s, tcp4, 1, NOW), 1);
    r = rules();
    r.ipv4 = false;
    sanitiser_init(&s, &r);
    assert_int_equal(passed(&s, tcp4, 1, NOW) + passed(&s, arp, 1, NOW), 0);
    assert_int_equal(passed(&s, tcp6, 1, NOW), 1);
    assert_int_equal(s.drops[SAN_ETHERNET], 2);
}

static void only_so_many_mac_addresses(void **state)
{
    static struct sanitiser s;
    static struct frame f;
    const struct san_rules r = rules();
    uint8_t *out;

    (void)state;
    sanitiser_init(&s, &r);
    for (unsigned i = 0; i < 20; i++) {
        tcp4(&f);
        f.b[11] = (uint8_t)i;
        assert_int_equal(sanitise(&s, f.b, &f.len, NOW, &out), i < SAN_MACS);
    }
    assert_int_equal(s.drops[SAN_MAC], 20 - SAN_MACS);
    tcp4(&f);
    f.b[11] = 0;
    assert_true(sanitise(&s, f.b, &f.len, NOW, &out));
}

/* Under ASan: whatever the bytes, nothing beyond them is looked at. */
static void damaged_frames_are_read_within_their_bounds(void **state)
{
    static struct sanitiser s;
    static struct frame f;
    const struct san_rules r = rules();
    uint32_t seed = 1;

    (void)state;
    sanitiser_init(&s, &r);
    for (unsigned i = 0; i < 20000; i++) {
        uint8_t *exact, *out;
        size_t len;

        honest[i % array_len(honest)](&f);
        for (unsigned k = 0; k < 1 + i % 4; k++) {
            seed = seed * 1664525 + 1013904223;
            f.b[12 + (seed >> 8) % (f.len - 12)] = (uint8_t)(seed >> 24);
        }
        seed = seed * 1664525 + 1013904223;
        len = i % 3 ? f.len : (seed >> 8) % f.len;
        exact = malloc(len ? len : 1);
        assert_non_null(exact);
        memcpy(exact, f.b, len);
        if (sanitise(&s, exact, &len, NOW + i, &out))
            assert_true(len >= 42);
        free(exact);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(honest_frames_pass_and_lose_their_padding),
        cmocka_unit_test(what_no_honest_guest_sends_is_dropped_and_counted),
        cmocka_unit_test(every_reason_has_a_name),
        cmocka_unit_test(urgent_data_becomes_ordinary),
        cmocka_unit_test(segments_out_of_order_are_emptied),
        cmocka_unit_test(protocols_that_libslirp_once_rewrote_are_just_data),
        cmocka_unit_test(fragments_in_order_become_one_datagram),
        cmocka_unit_test(a_gap_an_overlap_or_an_odd_length_costs_the_datagram),
        cmocka_unit_test(no_datagram_grows_beyond_what_a_length_can_say),
        cmocka_unit_test(unfinished_datagrams_make_room_for_others),
        cmocka_unit_test(new_connections_are_limited_and_old_ones_are_not),
        cmocka_unit_test(no_more_connections_than_allowed_at_a_time),
        cmocka_unit_test(datagrams_of_another_address_or_long_after_are_another_connection),
        cmocka_unit_test(what_fails_is_counted),
        cmocka_unit_test(chatter_is_limited),
        cmocka_unit_test(a_restricted_guest_begins_nothing_over_ipv6_or_udp),
        cmocka_unit_test(the_gateway_may_be_for_answers_only),
        cmocka_unit_test(tftp_and_bootp_pass_when_they_are_on),
        cmocka_unit_test(a_family_that_is_off_does_not_pass),
        cmocka_unit_test(only_so_many_mac_addresses),
        cmocka_unit_test(damaged_frames_are_read_within_their_bounds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
