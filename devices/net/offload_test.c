/* What the core makes of frames that one end does not take, against a reference that adds up bits one by one. */
#include <linux/if_ether.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>

#include "devices/net/offload.h"
#include "devices/testing/netscript.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"

enum {
    TSO4 = VIRTIO_NET_HDR_GSO_TCPV4,
    TSO6 = VIRTIO_NET_HDR_GSO_TCPV6,
    UFO = VIRTIO_NET_HDR_GSO_UDP,
    USO = VIRTIO_NET_HDR_GSO_UDP_L4,
    CSUM = VIRTIO_NET_HDR_F_NEEDS_CSUM,
    SEQ = 0xfffffe00,
    ALL_FLAGS = 0xff
};

/* ---- The reference. ---- */

/* A 16-bit ones' complement adder, a bit at a time. */
static unsigned add_bits(unsigned a, unsigned b)
{
    unsigned sum = 0, carry = 0;

    for (int round = 0; round < 2; round++) {
        sum = 0;
        for (unsigned i = 0; i < 16; i++) {
            unsigned x = a >> i & 1, y = b >> i & 1;

            sum |= (x ^ y ^ carry) << i;
            carry = (x & y) | (carry & (x ^ y));
        }
        a = sum;
        b = 0;
    }
    return sum;
}

static unsigned reference_sum(const uint8_t *p, size_t n, unsigned sum)
{
    for (size_t i = 0; i < n; i += 2)
        sum = add_bits(sum, p[i] << 8 | (i + 1 < n ? p[i + 1] : 0));
    return sum;
}

/* ---- Packets. ---- */

struct layout {
    bool v6;
    uint8_t proto;
    unsigned tags, extensions, options; /* VLAN; of IPv6, 8 bytes each; of IPv4 and TCP, 4 bytes each */
};

struct made {
    struct virtio_net_hdr_v1 hdr;
    unsigned ip, transport, payload, len;
    uint8_t data[NET_FRAME_MAX];
};

static struct made m;
static struct net *net;

static void make(const struct layout *l, uint8_t gso, unsigned size, unsigned payload)
{
    unsigned at = 2 * ETH_ALEN, tcp = l->proto == IPPROTO_TCP ? 20 + 4 * l->options : 8;

    memset(m.data, 0, 256);
    for (unsigned i = 0; i < l->tags; i++, at += 4)
        put_be16(m.data + at, ETH_P_8021Q);
    put_be16(m.data + at, l->v6 ? ETH_P_IPV6 : ETH_P_IP);
    m.ip = at + 2;
    m.transport = m.ip + (l->v6 ? 40 + 8 * l->extensions : 20 + 4 * l->options);
    m.payload = m.transport + tcp;
    m.len = m.payload + payload;
    for (unsigned i = 0; i < payload; i++)
        m.data[m.payload + i] = (uint8_t)(i * 5 + i / 251);
    if (l->v6) {
        uint8_t *next = m.data + m.ip + 6;

        m.data[m.ip] = 0x60;
        put_be16(m.data + m.ip + 4, (uint16_t)(m.len - m.ip - 40));
        for (unsigned i = 0; i < l->extensions; i++) {
            *next = IPPROTO_DSTOPTS;
            next = m.data + m.ip + 40 + 8 * i;
        }
        *next = l->proto;
        memset(m.data + m.ip + 8, 0xfe, 32);
    } else {
        m.data[m.ip] = (uint8_t)(0x45 + l->options);
        put_be16(m.data + m.ip + 2, (uint16_t)(m.len - m.ip));
        put_be16(m.data + m.ip + 4, 0xfffe);
        m.data[m.ip + 9] = l->proto;
        memset(m.data + m.ip + 12, 0x0a, 8);
    }
    put_be16(m.data + m.transport, 1234);
    if (l->proto == IPPROTO_TCP) {
        put_be32(m.data + m.transport + 4, SEQ);
        m.data[m.transport + 12] = (uint8_t)(tcp / 4 << 4);
        m.data[m.transport + 13] = ALL_FLAGS;
    } else {
        put_be16(m.data + m.transport + 4, (uint16_t)(8 + payload));
    }
    m.hdr = (struct virtio_net_hdr_v1){.flags = CSUM,
                                       .gso_type = gso,
                                       .gso_size = htole16((uint16_t)size),
                                       .csum_start = htole16((uint16_t)m.transport),
                                       .csum_offset = htole16(l->proto == IPPROTO_TCP ? 16 : 6)};
}

static void told(struct net_user *u, unsigned queue)
{
    (void)u;
    (void)queue;
}

static void plug(net_offloads_t takes, net_offloads_t guest)
{
    static struct net_user user = {.readable = told, .writable = told};

    net = xcalloc(1, net_null.size);
    assert_int_equal(net_open(&net_null, net, NULL, &user, &(struct net_limits){0}, NULL), 0);
    netscript->cls.takes = takes;
    net_set(net, guest, 1);
}

static void unplug(void)
{
    net_close(net);
    free(net);
}

static int send_cut(size_t piece)
{
    static struct iovec iov[2048];
    struct net_frame f = {.hdr = m.hdr, .iov = iov, .len = m.len};

    for (size_t at = 0; at < m.len; at += piece)
        iov[f.niov++] = (struct iovec){m.data + at, min_u64(piece, m.len - at)};
    return net_send(net, 0, &f);
}

/* The frames that came out, from whichever end. */
static const struct netscript_frame *frame(unsigned i)
{
    return &netscript->out[i];
}

/* The guest takes all that there is; then it is where what it sent would be. */
static void receive(void)
{
    struct net_frame f, again;

    netscript_put(0, &m.hdr, m.data, m.len);
    while (net_peek(net, 0, &f)) {
        struct netscript_frame *to = &netscript->out[netscript->nout++];

        assert_true(net_peek(net, 0, &again));
        assert_int_equal(again.len, f.len);
        *to = (struct netscript_frame){.hdr = f.hdr, .data = xcalloc(1, f.len), .len = f.len};
        iov_get(f.iov, 0, to->data, f.len);
        net_next(net, 0);
    }
}

/* ---- Checks. ---- */

static void expect_transport_sum(const struct layout *l, const uint8_t *d, size_t len)
{
    unsigned n = (unsigned)len - m.transport, pseudo = add_bits(l->proto, n);

    pseudo = l->v6 ? reference_sum(d + m.ip + 8, 32, pseudo) : reference_sum(d + m.ip + 12, 8, pseudo);
    assert_int_equal(reference_sum(d + m.transport, n, pseudo), 0xffff);
}

static void expect_sums(const struct layout *l, const uint8_t *d, size_t len)
{
    expect_transport_sum(l, d, len);
    if (!l->v6)
        assert_int_equal(reference_sum(d + m.ip, m.transport - m.ip, 0), 0xffff);
}

static void expect_segment(const struct layout *l, unsigned i, unsigned n, unsigned at)
{
    const uint8_t *d = frame(i)->data;
    unsigned payload = (unsigned)frame(i)->len - m.payload;

    assert_memory_equal(&frame(i)->hdr, &(struct virtio_net_hdr_v1){0}, sizeof(struct virtio_net_hdr_v1));
    assert_memory_equal(d, m.data, m.ip);
    expect_sums(l, d, frame(i)->len);
    assert_memory_equal(d + m.payload, m.data + m.payload + at, payload);
    if (l->v6) {
        assert_int_equal(get_be16(d + m.ip + 4), frame(i)->len - m.ip - 40);
    } else {
        assert_int_equal(get_be16(d + m.ip + 2), frame(i)->len - m.ip);
        assert_int_equal(get_be16(d + m.ip + 4), (0xfffe + i) & 0xffff);
    }
    if (l->proto == IPPROTO_TCP) {
        assert_int_equal(get_be32(d + m.transport + 4), (uint32_t)(SEQ + at));
        assert_int_equal(d[m.transport + 13], ALL_FLAGS & ~(i + 1 < n ? 9 : 0) & ~(i ? 0x80 : 0));
    } else {
        assert_int_equal(get_be16(d + m.transport + 4), 8 + payload);
    }
}

static void expect_segments(const struct layout *l, unsigned size)
{
    unsigned total = m.len - m.payload, at = 0, n = total ? (total + size - 1) / size : 1;

    assert_int_equal(netscript->nout, n);
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(frame(i)->len, m.payload + (total - at < size ? total - at : size));
        expect_segment(l, i, n, at);
        at += (unsigned)frame(i)->len - m.payload;
    }
    assert_int_equal(at, total);
}

static const struct {
    uint8_t gso;
    struct layout l;
} kinds[] = {
    {TSO4, {.proto = IPPROTO_TCP}},
    {TSO4, {.proto = IPPROTO_TCP, .options = 10, .tags = 2}},
    {TSO6, {.v6 = true, .proto = IPPROTO_TCP}},
    {TSO6, {.v6 = true, .proto = IPPROTO_TCP, .options = 3, .tags = 1, .extensions = 2}},
    {USO, {.proto = IPPROTO_UDP}},
    {USO, {.v6 = true, .proto = IPPROTO_UDP, .extensions = 1}},
};
static const unsigned sizes[] = {48, 536, 1460, 9000}, payloads[] = {0, 1, 47, 48, 49, 1459, 1460, 1461, 20001};

static void large_frames_are_cut_both_ways(void **s)
{
    (void)s;
    for (size_t k = 0; k < array_len(kinds); k++)
        for (size_t i = 0; i < array_len(sizes); i++)
            for (size_t j = 0; j < array_len(payloads); j++) {
                make(&kinds[k].l, kinds[k].gso, sizes[i], payloads[j]);
                plug(0, 0);
                assert_int_equal(send_cut(i % 2 ? 97 : 65536), 0);
                expect_segments(&kinds[k].l, sizes[i]);
                netscript_clear();
                receive();
                expect_segments(&kinds[k].l, sizes[i]);
                unplug();
            }
}

static void the_largest_frame_is_cut(void **s)
{
    (void)s;
    make(&kinds[0].l, TSO4, 1460, NET_FRAME_MAX - 54);
    plug(0, 0);
    assert_int_equal(send_cut(4096), 0);
    expect_segments(&kinds[0].l, 1460);
    unplug();
}

static void what_an_end_takes_passes_as_it_is(void **s)
{
    static const struct {
        uint8_t gso;
        unsigned kind;
        net_offloads_t host, guest;
    } rows[] = {
        {TSO4, 0, 1ull << VIRTIO_NET_F_HOST_TSO4, 1ull << VIRTIO_NET_F_GUEST_TSO4},
        {TSO6, 2, 1ull << VIRTIO_NET_F_HOST_TSO6, 1ull << VIRTIO_NET_F_GUEST_TSO6},
        {UFO, 4, 1ull << VIRTIO_NET_F_HOST_UFO, 1ull << VIRTIO_NET_F_GUEST_UFO},
        {USO, 4, 1ull << VIRTIO_NET_F_HOST_USO, 1ull << VIRTIO_NET_F_GUEST_USO4 | 1ull << VIRTIO_NET_F_GUEST_USO6},
    };

    (void)s;
    for (size_t i = 0; i < array_len(rows); i++)
        for (unsigned has = 0; has < 8; has++) { /* the checksum, the large frame, ECN */
            bool ecn = i < 2, whole = (has & 3) == 3 && (has & 4 || !ecn);
            net_offloads_t host = (has & 1 ? 1ull << VIRTIO_NET_F_CSUM : 0) | (has & 2 ? rows[i].host : 0) |
                                  (has & 4 ? 1ull << VIRTIO_NET_F_HOST_ECN : 0);
            net_offloads_t guest = (has & 1 ? 1ull << VIRTIO_NET_F_GUEST_CSUM : 0) | (has & 2 ? rows[i].guest : 0) |
                                   (has & 4 ? 1ull << VIRTIO_NET_F_GUEST_ECN : 0);

            make(&kinds[rows[i].kind].l, rows[i].gso, 1000, 5000);
            if (ecn)
                m.hdr.gso_type |= VIRTIO_NET_HDR_GSO_ECN;
            plug(host, guest);
            assert_int_equal(send_cut(1000), 0);
            assert_int_equal(netscript->nout == 1, whole);
            assert_int_equal(frame(0)->hdr.gso_type, whole ? m.hdr.gso_type : 0);
            netscript_clear();
            receive();
            assert_int_equal(netscript->nout == 1, whole);
            assert_int_equal(frame(0)->hdr.gso_type, whole ? m.hdr.gso_type : 0);
            unplug();
        }
}

static void checksums_are_completed_for_who_takes_none(void **s)
{
    (void)s;
    for (size_t k = 0; k < array_len(kinds); k++)
        for (unsigned payload = 0; payload < 70; payload++) {
            unsigned pseudo, at;

            make(&kinds[k].l, 0, 0, payload);
            at = m.transport + le16toh(m.hdr.csum_offset);
            pseudo = add_bits(kinds[k].l.proto, m.len - m.transport);
            pseudo = kinds[k].l.v6 ? reference_sum(m.data + m.ip + 8, 32, pseudo)
                                   : reference_sum(m.data + m.ip + 12, 8, pseudo);
            put_be16(m.data + at, (uint16_t)pseudo);
            plug(0, 0);
            assert_int_equal(send_cut(7), 0);
            expect_transport_sum(&kinds[k].l, frame(0)->data, m.len);
            netscript_clear();
            receive();
            assert_int_equal(netscript->nout, 1);
            assert_int_equal(frame(0)->hdr.flags, 0);
            expect_transport_sum(&kinds[k].l, frame(0)->data, m.len);
            unplug();
        }
}

/* Puts the fragments together again: what comes out is the datagram, and its checksum is right. */
static void expect_fragments(const struct layout *l, unsigned size)
{
    static uint8_t whole[NET_FRAME_MAX];
    unsigned n = netscript->nout, extra = l->v6 && n > 1 ? 8 : 0, at = 0;
    uint32_t id = 0;

    assert_int_equal(n, (m.len - m.transport + size - 1) / size);
    for (unsigned i = 0; i < n; i++) {
        const uint8_t *d = frame(i)->data;
        unsigned len = (unsigned)frame(i)->len - m.transport - extra;
        unsigned field = extra ? get_be16(d + m.transport + 2) : l->v6 ? 0 : get_be16(d + m.ip + 6);

        if (extra) {
            assert_int_equal(d[m.transport], IPPROTO_UDP);
            assert_int_equal(field & ~7u, at);
            assert_int_equal(field & 1, i + 1 < n);
            if (i)
                assert_int_equal(get_be32(d + m.transport + 4), id);
            id = get_be32(d + m.transport + 4);
            assert_int_equal(l->extensions ? d[m.ip + 40 + 8 * (l->extensions - 1)] : d[m.ip + 6], IPPROTO_FRAGMENT);
        } else if (!l->v6) {
            assert_int_equal((field & IP_OFFMASK) * 8, at);
            assert_int_equal(!!(field & IP_MF), i + 1 < n);
            assert_int_equal(get_be16(d + m.ip + 4), 0xfffe);
            assert_int_equal(get_be16(d + m.ip + 2), frame(i)->len - m.ip);
            assert_int_equal(reference_sum(d + m.ip, m.transport - m.ip, 0), 0xffff);
        }
        if (l->v6)
            assert_int_equal(get_be16(d + m.ip + 4), frame(i)->len - m.ip - 40);
        if (!i)
            memcpy(whole, d, m.transport);
        memcpy(whole + m.transport + at, d + m.transport + extra, len);
        at += len;
    }
    assert_int_equal(m.transport + at, m.len);
    assert_memory_equal(whole + m.payload, m.data + m.payload, m.len - m.payload);
    if (!l->v6) /* the fragment's own length and flags are in there */
        memcpy(whole + m.ip, m.data + m.ip, 10);
    {
        unsigned sum = add_bits(IPPROTO_UDP, at);

        sum = l->v6 ? reference_sum(whole + m.ip + 8, 32, sum) : reference_sum(whole + m.ip + 12, 8, sum);
        assert_int_equal(reference_sum(whole + m.transport, at, sum), 0xffff);
    }
}

static void a_sum_of_nothing_is_none_but_in_udp(void **s)
{
    static const struct {
        size_t offset;
        uint16_t want;
    } cases[] = {{offsetof(struct tcphdr, check), 0}, {offsetof(struct udphdr, check), 0xffff}};

    (void)s;
    for (size_t i = 0; i < array_len(cases); i++) {
        uint8_t data[ETH_HLEN + 40] = {[ETH_HLEN] = 0xff, [ETH_HLEN + 1] = 0xff};
        struct net_frame f = {.len = sizeof(data)};

        f.hdr.csum_start = htole16(ETH_HLEN);
        f.hdr.csum_offset = htole16(cases[i].offset);
        checksum_complete(&f, data);
        assert_int_equal(get_be16(data + ETH_HLEN + cases[i].offset), cases[i].want);
    }
}

static void datagrams_are_fragmented(void **s)
{
    static const struct layout layouts[] = {
        {.proto = IPPROTO_UDP},
        {.proto = IPPROTO_UDP, .options = 2, .tags = 1},
        {.v6 = true, .proto = IPPROTO_UDP},
        {.v6 = true, .proto = IPPROTO_UDP, .extensions = 2},
    };

    (void)s;
    for (size_t l = 0; l < array_len(layouts); l++)
        for (size_t j = 0; j < array_len(payloads); j++) {
            make(&layouts[l], UFO, 1487, payloads[j]);
            plug(0, 0);
            assert_int_equal(send_cut(1000), 0);
            expect_fragments(&layouts[l], 1480);
            netscript_clear();
            receive();
            expect_fragments(&layouts[l], 1480);
            unplug();
        }
}

static void a_frame_goes_on_where_there_was_no_room(void **s)
{
    (void)s;
    make(&kinds[0].l, TSO4, 100, 1000);
    plug(0, 0);
    netscript->room = 3;
    for (unsigned tries = 0; tries < 3; tries++) {
        assert_int_equal(send_cut(500), -EAGAIN);
        netscript->room = 3;
    }
    assert_int_equal(send_cut(500), 0);
    expect_segments(&kinds[0].l, 100);
    assert_int_equal(net_counters(net, 0)->tx.frames, 1);
    netscript->room = 1; /* but not across a reset */
    assert_int_equal(send_cut(500), -EAGAIN);
    net_set(net, 0, 1);
    netscript_clear();
    netscript->room = UINT32_MAX;
    assert_int_equal(send_cut(500), 0);
    expect_segments(&kinds[0].l, 100);
    unplug();
}

/* Changes one byte or field of a good frame. */
static void large_frames_that_are_not_are_dropped(void **s)
{
    static const struct {
        unsigned kind, at;
        uint8_t value;
    } rows[] = {
        {0, 12, 0x81},           /* a tag, and then no IP */
        {0, 13, 0xdd},           /* IPv6 */
        {0, 14, 0x65},           /* version 6 */
        {0, 14, 0x44},           /* a short header */
        {0, 14, 0x4f},           /* TCP where there is data */
        {0, 20, 0x20},           /* a fragment */
        {0, 21, 0x01},           /* likewise */
        {0, 23, IPPROTO_UDP},    /* not TCP */
        {0, 14 + 20 + 12, 0x40}, /* a short TCP header */
        {2, 14, 0x45},           /* version 4 */
        {2, 20, IPPROTO_UDP},    {2, 20, IPPROTO_AH}, {2, 20, IPPROTO_HOPOPTS}, {4, 23, IPPROTO_TCP},
    };

    (void)s;
    for (size_t i = 0; i < array_len(rows); i++) {
        make(&kinds[rows[i].kind].l, kinds[rows[i].kind].gso, 1000, 3000);
        m.data[rows[i].at] = rows[i].value;
        plug(~0ull, 0);
        assert_int_equal(send_cut(65536), 0);
        assert_int_equal(netscript->nout, 0);
        assert_int_equal(net_dropped(net, NET_DROP_MALFORMED), 1);
        unplug();
    }
}

static void large_headers_that_contradict_are_dropped(void **s)
{
    static const struct virtio_net_hdr_v1 good = {
        .flags = CSUM, .gso_type = TSO4, .gso_size = 1000, .csum_start = 34, .csum_offset = 16};
    struct virtio_net_hdr_v1 rows[7];

    (void)s;
    for (size_t i = 0; i < array_len(rows); i++)
        rows[i] = good;
    rows[0].csum_start = 35;
    rows[1].csum_offset = 6;
    rows[2].gso_size = 47;
    rows[3].gso_size = 0;
    rows[4].flags = 0;
    rows[5].gso_type = TSO6;
    rows[6].gso_type = USO;
    for (size_t i = 0; i < array_len(rows); i++) {
        make(&kinds[0].l, TSO4, 1000, 3000);
        m.hdr = rows[i];
        plug(~0ull, 0);
        assert_int_equal(send_cut(65536), 0);
        assert_int_equal(netscript->nout, 0);
        unplug();
    }
    for (unsigned len = 0; len < 54; len++) { /* cut short */
        make(&kinds[0].l, TSO4, 1000, 3000);
        m.len = len;
        plug(~0ull, 0);
        assert_int_equal(send_cut(65536), 0);
        assert_int_equal(netscript->nout, 0);
        unplug();
    }
}

static void a_checked_frame_is_no_word_to_who_does_not_listen(void **s)
{
    struct net_frame f;

    (void)s;
    make(&kinds[0].l, 0, 0, 10);
    m.hdr = (struct virtio_net_hdr_v1){.flags = VIRTIO_NET_HDR_F_DATA_VALID};
    for (unsigned csum = 0; csum < 2; csum++) {
        plug(0, csum ? 1ull << VIRTIO_NET_F_GUEST_CSUM : 0);
        netscript_put(0, &m.hdr, m.data, m.len);
        assert_true(net_peek(net, 0, &f));
        assert_int_equal(f.hdr.flags, csum ? VIRTIO_NET_HDR_F_DATA_VALID : 0);
        unplug();
    }
}

static void what_cannot_be_cut_for_the_guest_is_dropped(void **s)
{
    struct net_frame f;

    (void)s;
    make(&kinds[0].l, TSO4, 1000, 3000);
    m.data[23] = IPPROTO_UDP;
    plug(0, 0);
    netscript_put(0, &m.hdr, m.data, m.len);
    m.data[23] = IPPROTO_TCP;
    netscript_put(0, &m.hdr, m.data, m.len);
    assert_true(net_peek(net, 0, &f));
    assert_int_equal(net_dropped(net, NET_DROP_MALFORMED), 1);
    assert_int_equal(f.len, 1054);
    unplug();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_frames_are_cut_both_ways),
        cmocka_unit_test(the_largest_frame_is_cut),
        cmocka_unit_test(what_an_end_takes_passes_as_it_is),
        cmocka_unit_test(checksums_are_completed_for_who_takes_none),
        cmocka_unit_test(a_sum_of_nothing_is_none_but_in_udp),
        cmocka_unit_test(datagrams_are_fragmented),
        cmocka_unit_test(a_frame_goes_on_where_there_was_no_room),
        cmocka_unit_test(large_frames_that_are_not_are_dropped),
        cmocka_unit_test(large_headers_that_contradict_are_dropped),
        cmocka_unit_test(a_checked_frame_is_no_word_to_who_does_not_listen),
        cmocka_unit_test(what_cannot_be_cut_for_the_guest_is_dropped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
