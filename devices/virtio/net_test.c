#include <linux/if_ether.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

#include "devices/testing/netscript.h"
#include "devices/testing/vdriver.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"
#include "vmm/base/test.h"

enum { HEADER = sizeof(struct virtio_net_hdr_v1), RX = 0, TX = 1, CONTROL = 2, SIZE = 256 };

#define BIT(f) (1ull << (f))
static const uint64_t merge = BIT(VIRTIO_NET_F_MRG_RXBUF);
static const uint64_t with_control = BIT(VIRTIO_NET_F_CTRL_VQ) | BIT(VIRTIO_NET_F_STATUS);
static const uint8_t me[ETH_ALEN] = {0x52, 0x54, 0, 0x12, 0x34, 0x56};

static struct vdriver d;
static uint8_t pattern[NET_FRAME_MAX], got[NET_FRAME_MAX + HEADER];

static void plug_with(const char *options, uint64_t features)
{
    char text[128];

    snprintf(text, sizeof(text), "null,mac=52:54:00:12:34:56%s", options);
    for (size_t i = 0; i < sizeof(pattern); i++)
        pattern[i] = (uint8_t)(i * 7 + i / 256);
    memset(pattern, 0xff, ETH_ALEN);
    vdriver_create(&d, &vdriver_mmio, device_class_find("virtio-net"), text);
    vdriver_start(&d, features);
}

static void plug(uint64_t features)
{
    plug_with("", features);
}

static void unplug(void)
{
    vdriver_destroy(&d);
}

static void guest_write(gpa_t at, const void *src, size_t n)
{
    assert_int_equal(gmem_write(d.e.env.mem, at, src, n), 0);
}

static void guest_read(gpa_t at, void *dst, size_t n)
{
    assert_int_equal(gmem_read(d.e.env.mem, at, dst, n), 0);
}

/* ---- From the guest. ---- */

/* A chain of header and `len` bytes of pattern, in pieces of `piece` bytes. */
static void send_pieces(unsigned queue, struct virtio_net_hdr_v1 hdr, size_t len, size_t piece)
{
    gpa_t at = vdriver_alloc(&d, HEADER + len);
    struct vdriver_buf bufs[SIZE];
    unsigned n = 0;

    guest_write(at, &hdr, HEADER);
    guest_write(at + HEADER, pattern, len);
    for (size_t done = 0; done < HEADER + len; done += piece)
        bufs[n++] = (struct vdriver_buf){at + done, (uint32_t)min_u64(piece, HEADER + len - done), false};
    vdriver_add(&d, queue, bufs, n, false);
    vdriver_kick(&d, queue);
    vdriver_run(&d);
}

static void send_plain(unsigned queue, size_t len)
{
    send_pieces(queue, (struct virtio_net_hdr_v1){0}, len, HEADER + len);
}

static void expect_sent(unsigned i, size_t len)
{
    assert_int_equal(netscript->out[i].len, len);
    assert_memory_equal(netscript->out[i].data, pattern, len);
}

static unsigned count_used(unsigned queue)
{
    unsigned n = 0;
    uint16_t id;
    uint32_t len;

    while (vdriver_used(&d, queue, &id, &len))
        n++;
    return n;
}

static void frames_leave_however_they_are_cut(void **s)
{
    static const size_t pieces[] = {1, 5, HEADER - 1, HEADER, HEADER + 1, 26, 100, 2000};
    const struct virtio_net_hdr_v1 hdr = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 14, .csum_offset = 6};

    (void)s;
    plug(0);
    for (size_t i = 0; i < array_len(pieces); i++) {
        send_pieces(TX, hdr, 100, pieces[i]);
        assert_int_equal(netscript->nout, i + 1);
        expect_sent((unsigned)i, 100);
        assert_int_equal(netscript->out[i].hdr.csum_start, 14);
        assert_int_equal(count_used(TX), 1);
    }
    unplug();
}

static void half_headers_and_runts_are_dropped_and_counted(void **s)
{
    (void)s;
    plug(0);
    for (uint32_t len = 0; len < HEADER + ETH_HLEN; len++) {
        const struct vdriver_buf buf = {vdriver_alloc(&d, 64), len, false};

        vdriver_add(&d, TX, &buf, 1, false);
        vdriver_kick(&d, TX);
        vdriver_run(&d);
        assert_int_equal(count_used(TX), 1);
        assert_int_equal(net_dropped(&netscript->n, NET_DROP_MALFORMED), len + 1);
    }
    assert_int_equal(netscript->nout, 0);
    assert_false(vdriver_broken(&d));
    unplug();
}

static void what_the_network_has_no_room_for_waits_in_the_queue(void **s)
{
    (void)s;
    plug(0);
    netscript->room = 2;
    for (unsigned i = 0; i < 5; i++)
        send_plain(TX, 60 + i);
    assert_int_equal(count_used(TX), 2);
    netscript->room = UINT32_MAX;
    netscript->n.user->writable(netscript->n.user, 0);
    assert_int_equal(count_used(TX), 3);
    for (unsigned i = 0; i < 5; i++)
        expect_sent(i, 60 + i);
    unplug();
}

/* ---- To the guest. ---- */

static gpa_t room_at[VDRIVER_QUEUES][SIZE];

static void add_room(unsigned queue, unsigned n, uint32_t len)
{
    for (unsigned i = 0; i < n; i++) {
        const struct vdriver_buf buf = {vdriver_alloc(&d, len), len, true};

        room_at[queue][vdriver_add(&d, queue, &buf, 1, false)] = buf.addr;
    }
    vdriver_kick(&d, queue);
    vdriver_run(&d);
}

/* The next frame that the driver has, header and all, into `got`; its length, 0 for none. */
static size_t take_frame(unsigned queue, unsigned *buffers)
{
    struct virtio_net_hdr_v1 hdr;
    uint16_t id;
    uint32_t len;
    size_t total;

    if (!vdriver_used(&d, queue, &id, &len))
        return 0;
    guest_read(room_at[queue][id], got, len);
    memcpy(&hdr, got, HEADER);
    *buffers = le16toh(hdr.num_buffers);
    total = len;
    for (unsigned i = 1; i < *buffers; i++) {
        assert_true(vdriver_used(&d, queue, &id, &len));
        guest_read(room_at[queue][id], got + total, len);
        total += len;
    }
    return total;
}

static void put(unsigned queue, size_t len)
{
    netscript_put(queue, &(struct virtio_net_hdr_v1){0}, pattern, len);
    vdriver_run(&d);
}

static void expect_frame(unsigned queue, size_t len, unsigned buffers)
{
    unsigned n;

    assert_int_equal(take_frame(queue, &n), HEADER + len);
    assert_int_equal(n, buffers);
    assert_memory_equal(got + HEADER, pattern, len);
}

/* Every length around every number of buffers of some sizes. */
static void large_frames_are_spread_over_buffers(void **s)
{
    static const uint32_t sizes[] = {HEADER, HEADER + 1, 61, 1526, 4096};

    (void)s;
    for (size_t i = 0; i < array_len(sizes); i++)
        for (unsigned n = 1; n <= 6; n++)
            for (int slack = -2; slack <= 2; slack++) {
                uint32_t size = sizes[i];
                size_t len = (size_t)((int)(n * size) - HEADER + slack);

                if ((int)(n * size) - HEADER + slack < ETH_HLEN + 2)
                    continue;
                plug(merge);
                add_room(RX, 8, size);
                put(RX, len);
                expect_frame(RX, len, (unsigned)((HEADER + len + size - 1) / size));
                unplug();
            }
}

static void the_largest_frame_arrives(void **s)
{
    (void)s;
    plug(merge);
    add_room(RX, 50, 1526);
    put(RX, NET_FRAME_MAX);
    expect_frame(RX, NET_FRAME_MAX, 43);
    add_room(RX, 1, NET_FRAME_MAX + HEADER);
    unplug();
}

static void frames_wait_for_room(void **s)
{
    (void)s;
    plug(merge);
    put(RX, 100);
    put(RX, 3000);
    assert_int_equal(netscript->nin, 2);
    add_room(RX, 1, 1526);
    expect_frame(RX, 100, 1);
    add_room(RX, 1, 1526);
    assert_int_equal(netscript->nin, 1); /* half of it does not do */
    assert_int_equal(count_used(RX), 0);
    add_room(RX, 1, 1526);
    expect_frame(RX, 3000, 2);
    unplug();
}

static void a_frame_that_can_never_fit_is_dropped(void **s)
{
    (void)s;
    plug(merge);
    add_room(RX, SIZE, 100);
    put(RX, SIZE * 100); /* with its header, 12 bytes too long */
    assert_int_equal(net_dropped(&netscript->n, NET_DROP_TOO_LONG), 1);
    put(RX, SIZE * 100 - HEADER);
    expect_frame(RX, SIZE * 100 - HEADER, SIZE);
    unplug();
    plug(0); /* and where buffers are not merged, one that is longer than the next */
    add_room(RX, 2, 100);
    put(RX, 100);
    assert_int_equal(net_dropped(&netscript->n, NET_DROP_TOO_LONG), 1);
    put(RX, 88);
    expect_frame(RX, 88, 1);
    unplug();
}

static void a_buffer_without_room_for_a_header_breaks_the_device(void **s)
{
    (void)s;
    plug(merge);
    add_room(RX, 8, HEADER - 1);
    put(RX, 60);
    assert_true(vdriver_broken(&d));
    unplug();
}

/* ---- Commands. ---- */

static uint8_t command(uint8_t class, uint8_t cmd, const void *data, uint32_t len)
{
    gpa_t at = vdriver_alloc(&d, 3 + len);
    const uint8_t head[3] = {class, cmd, 0xee};
    const struct vdriver_buf bufs[] = {{at, 2, false}, {at + 3, len, false}, {at + 2, 1, true}};
    unsigned queue = d.v->nqueues - 1;
    uint8_t ack;
    uint16_t id;
    uint32_t written;

    guest_write(at, head, 3);
    guest_write(at + 3, data, len);
    vdriver_add(&d, queue, bufs, 3, false);
    vdriver_kick(&d, queue);
    vdriver_run(&d);
    assert_true(vdriver_used(&d, queue, &id, &written));
    assert_int_equal(written, 1);
    guest_read(at + 2, &ack, 1);
    return ack;
}

static void command_byte(uint8_t class, uint8_t cmd, uint8_t byte)
{
    assert_int_equal(command(class, cmd, &byte, 1), VIRTIO_NET_OK);
}

/* Does a frame to that address arrive? */
static bool arrives(const uint8_t *mac, int vlan)
{
    uint8_t frame[64] = {0};
    unsigned n;
    size_t len;

    memcpy(frame, mac, ETH_ALEN);
    if (vlan >= 0) {
        put_be16(frame + 2 * ETH_ALEN, ETH_P_8021Q);
        put_be16(frame + ETH_HLEN, (uint16_t)(0xe000 | vlan));
    }
    add_room(RX, 1, 100);
    netscript_put(RX, &(struct virtio_net_hdr_v1){0}, frame, sizeof(frame));
    vdriver_run(&d);
    assert_int_equal(netscript->nin, 0);
    len = take_frame(RX, &n);
    return len == HEADER + sizeof(frame);
}

static const uint8_t all[ETH_ALEN] = {255, 255, 255, 255, 255, 255}, other[ETH_ALEN] = {0x52, 0x54, 0, 0, 0, 9},
                     group[ETH_ALEN] = {1, 0, 0x5e, 0, 0, 1};

static void the_guest_gets_what_it_asked_for(void **s)
{
    static const struct {
        uint8_t cmd;
        bool value, me, other, group, all; /* what arrives afterwards */
    } rows[] = {
        {VIRTIO_NET_CTRL_RX_PROMISC, false, true, false, false, true},
        {VIRTIO_NET_CTRL_RX_ALLMULTI, true, true, false, true, true},
        {VIRTIO_NET_CTRL_RX_ALLUNI, true, true, true, true, true},
        {VIRTIO_NET_CTRL_RX_NOMULTI, true, true, true, false, true},
        {VIRTIO_NET_CTRL_RX_NOUNI, true, false, false, false, true},
        {VIRTIO_NET_CTRL_RX_NOBCAST, true, false, false, false, false},
        {VIRTIO_NET_CTRL_RX_PROMISC, true, true, true, true, true},
    };

    (void)s;
    plug(merge | with_control | BIT(VIRTIO_NET_F_CTRL_RX) | BIT(VIRTIO_NET_F_CTRL_RX_EXTRA));
    assert_true(arrives(other, -1)); /* until the driver says */
    for (size_t i = 0; i < array_len(rows); i++) {
        command_byte(VIRTIO_NET_CTRL_RX, rows[i].cmd, rows[i].value);
        assert_int_equal(arrives(me, -1), rows[i].me);
        assert_int_equal(arrives(other, -1), rows[i].other);
        assert_int_equal(arrives(group, -1), rows[i].group);
        assert_int_equal(arrives(all, -1), rows[i].all);
    }
    unplug();
}

/* n addresses 52:54:00:00:00:00, …:01, … or groups of the like. */
static size_t put_table(uint8_t *to, uint32_t n, uint8_t first)
{
    put_le32(to, n);
    for (uint32_t i = 0; i < n; i++) {
        uint8_t *mac = to + 4 + (size_t)i * ETH_ALEN;

        memcpy(mac, (uint8_t[]){first, 0x54, 0, 0}, 4);
        put_be16(mac + 4, (uint16_t)i);
    }
    return 4 + (size_t)n * ETH_ALEN;
}

static uint8_t set_tables(uint32_t unicast, uint32_t multicast)
{
    cleanup_free uint8_t *t = xcalloc(1, 20000);
    size_t n = put_table(t, unicast, 0x52);

    n += put_table(t + n, multicast, 0x53);
    return command(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, t, (uint32_t)n);
}

static void address_tables_are_kept_as_far_as_they_go(void **s)
{
    const uint8_t in[ETH_ALEN] = {0x52, 0x54, 0, 0, 0, 9}, out[ETH_ALEN] = {0x52, 0x54, 0, 0, 9, 9};
    const uint8_t group_in[ETH_ALEN] = {0x53, 0x54, 0, 0, 0, 63}, group_out[ETH_ALEN] = {0x53, 0x54, 0, 0, 0, 64};

    (void)s;
    plug(merge | with_control | BIT(VIRTIO_NET_F_CTRL_RX));
    command_byte(VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 0);
    assert_int_equal(set_tables(10, 64), VIRTIO_NET_OK);
    assert_true(arrives(in, -1) && arrives(group_in, -1) && arrives(me, -1));
    assert_false(arrives(out, -1) || arrives(group_out, -1));
    assert_int_equal(set_tables(65, 1), VIRTIO_NET_OK); /* more than it can tell apart: all of that kind */
    assert_true(arrives(out, -1));
    assert_false(arrives(group_in, -1));
    assert_int_equal(set_tables(1025, 0), VIRTIO_NET_ERR);
    assert_true(arrives(out, -1)); /* as before */
    assert_int_equal(set_tables(0, 0), VIRTIO_NET_OK);
    assert_false(arrives(out, -1) || arrives(in, -1));
    unplug();
}

static void vlans_pass_when_they_were_asked_for(void **s)
{
    const uint8_t vlan[2] = {0xff, 0x0f}, beyond[2] = {0, 0x10};

    (void)s;
    plug(merge | with_control | BIT(VIRTIO_NET_F_CTRL_VLAN));
    assert_true(arrives(all, -1));
    assert_false(arrives(all, 0xfff));
    assert_int_equal(command(VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, vlan, 2), VIRTIO_NET_OK);
    assert_true(arrives(all, 0xfff));
    assert_false(arrives(all, 0xffe));
    assert_int_equal(command(VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, beyond, 2), VIRTIO_NET_ERR);
    assert_int_equal(command(VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_DEL, vlan, 2), VIRTIO_NET_OK);
    assert_false(arrives(all, 0xfff));
    unplug();
    plug(merge); /* without the feature all do */
    assert_true(arrives(all, 7));
    unplug();
}

static uint64_t config_mac(void)
{
    uint8_t b[8] = {0};

    for (unsigned i = 0; i < ETH_ALEN; i++)
        b[i] = (uint8_t)vdriver_config(&d, i, 1);
    return get_be64(b) >> 16;
}

static void the_guest_may_change_its_address(void **s)
{
    (void)s;
    plug(merge | with_control | BIT(VIRTIO_NET_F_CTRL_RX) | BIT(VIRTIO_NET_F_CTRL_MAC_ADDR));
    command_byte(VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 0);
    assert_int_equal(config_mac(), 0x525400123456);
    assert_int_equal(command(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, other, 5), VIRTIO_NET_ERR);
    assert_int_equal(command(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, other, 6), VIRTIO_NET_OK);
    assert_int_equal(config_mac(), 0x525400000009);
    assert_true(arrives(other, -1));
    assert_false(arrives(me, -1));
    vdriver_reset(&d);
    assert_int_equal(config_mac(), 0x525400123456);
    unplug();
}

static void offloads_are_what_was_negotiated_and_not_refused(void **s)
{
    const uint64_t tso = BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4);
    uint8_t b[8];

    (void)s;
    plug(merge | with_control | tso | BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS));
    assert_int_equal(netscript->guest, tso);
    put_le64(b, BIT(VIRTIO_NET_F_GUEST_CSUM));
    assert_int_equal(command(VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, b, 8), VIRTIO_NET_OK);
    assert_int_equal(netscript->guest, BIT(VIRTIO_NET_F_GUEST_CSUM));
    put_le64(b, BIT(VIRTIO_NET_F_GUEST_TSO6));
    assert_int_equal(command(VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, b, 8), VIRTIO_NET_ERR);
    vdriver_move(&d, "null,mac=52:54:00:12:34:56");
    assert_int_equal(netscript->guest, BIT(VIRTIO_NET_F_GUEST_CSUM));
    vdriver_reset(&d);
    assert_int_equal(netscript->guest, 0);
    unplug();
}

static void unknown_and_unnegotiated_commands_are_refused(void **s)
{
    const uint8_t zeroes[8] = {0};

    (void)s;
    plug(merge | with_control);
    for (unsigned class = 0; class < 10; class ++)
        for (unsigned cmd = 0; cmd < 8; cmd++)
            for (uint32_t len = 0; len <= 8; len += 4)
                assert_int_equal(command((uint8_t) class, (uint8_t)cmd, zeroes, len), VIRTIO_NET_ERR);
    assert_false(vdriver_broken(&d));
    unplug();
}

/* ---- Many queues. ---- */

static uint8_t set_pairs(uint16_t n)
{
    uint8_t b[2];

    put_le16(b, n);
    return command(VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, b, 2);
}

static void pairs_work_when_the_driver_uses_them(void **s)
{
    (void)s;
    plug_with(",queues=8", merge | with_control | BIT(VIRTIO_NET_F_MQ));
    assert_int_equal(vdriver_config(&d, offsetof(struct virtio_net_config, max_virtqueue_pairs), 2), 8);
    assert_int_equal(netscript->queues, 1);
    for (unsigned i = 0; i < 8; i++)
        add_room(2 * i, 4, 1526);
    put(3, 100); /* for a pair that is not in use yet */
    assert_int_equal(netscript->nin, 1);
    assert_int_equal(set_pairs(8), VIRTIO_NET_OK);
    assert_int_equal(netscript->queues, 8);
    expect_frame(6, 100, 1);
    for (unsigned i = 0; i < 8; i++) {
        put(i, 200 + i);
        expect_frame(2 * i, 200 + i, 1);
        send_plain(2 * i + 1, 300 + i);
        expect_sent(i, 300 + i);
        assert_int_equal(netscript->out[i].queue, i);
    }
    assert_int_equal(set_pairs(0), VIRTIO_NET_ERR);
    assert_int_equal(set_pairs(9), VIRTIO_NET_ERR);
    assert_int_equal(set_pairs(1), VIRTIO_NET_OK);
    assert_int_equal(netscript->queues, 1);
    unplug();
}

static void without_mq_the_third_queue_is_for_control(void **s)
{
    const struct vdriver_buf reply = {0x100000, 1, true}, ask = {0x100000, 2, false};
    const struct vdriver_buf bufs[] = {ask, reply};

    (void)s;
    plug_with(",queues=2", merge | with_control);
    vdriver_add(&d, CONTROL, bufs, 2, false);
    vdriver_kick(&d, CONTROL);
    vdriver_run(&d);
    assert_int_equal(count_used(CONTROL), 1);
    unplug();
}

/* ---- Link, MTU, snapshots, options. ---- */

static unsigned status(void)
{
    return (unsigned)vdriver_config(&d, offsetof(struct virtio_net_config, status), 2);
}

static void a_lost_link_is_told_and_nothing_passes(void **s)
{
    (void)s;
    plug(merge | with_control);
    assert_int_equal(status(), VIRTIO_NET_S_LINK_UP);
    d.t->interrupts(&d);
    netscript->n.user->link(netscript->n.user, false);
    assert_int_equal(status(), 0);
    assert_int_equal(d.t->interrupts(&d) & 2, 2);
    send_plain(TX, 60);
    assert_int_equal(netscript->nout, 0);
    assert_false(arrives(all, -1));
    assert_int_equal(net_dropped(&netscript->n, NET_DROP_DOWN), 2);
    netscript->n.user->link(netscript->n.user, true);
    assert_int_equal(status(), VIRTIO_NET_S_LINK_UP);
    send_plain(TX, 60);
    assert_int_equal(netscript->nout, 1);
    unplug();
}

/* Sends what its card's network must take in four segments. */
static void send_large(void)
{
    enum { TRANSPORT = 34, PAYLOAD = TRANSPORT + 20, SEGMENT = 100 };

    memset(pattern, 0, PAYLOAD);
    put_be16(pattern + 12, ETH_P_IP);
    pattern[14] = 0x45;
    pattern[23] = IPPROTO_TCP;
    pattern[TRANSPORT + 12] = 0x50;
    send_pieces(TX,
                (struct virtio_net_hdr_v1){.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
                                           .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
                                           .gso_size = htole16(SEGMENT),
                                           .csum_start = htole16(TRANSPORT),
                                           .csum_offset = htole16(16)},
                PAYLOAD + 4 * SEGMENT, 1000);
}

/* How many segments leave of a frame that follows one of which there was room for a part. */
static unsigned segments_after(void (*loses_it)(void))
{
    unsigned before;

    plug(BIT(VIRTIO_F_RING_RESET) | with_control);
    netscript->cls.takes = 0;
    netscript->room = 3;
    send_large();
    loses_it();
    before = netscript->nout;
    netscript->room = UINT32_MAX;
    send_large();
    before = netscript->nout - before;
    unplug();
    return before;
}

static void lose_the_link(void)
{
    netscript->n.user->link(netscript->n.user, false);
    netscript->n.user->link(netscript->n.user, true);
}

static void reset_the_queue(void)
{
    vdriver_set(&d, VDR_QUEUE, TX);
    vdriver_set(&d, VDR_QUEUE_RESET, 1);
    vdriver_set_queue(&d, TX, SIZE);
}

static void a_frame_that_is_lost_in_part_costs_the_next_one_nothing(void **s)
{
    (void)s;
    assert_int_equal(segments_after(lose_the_link), 4);
    assert_int_equal(segments_after(reset_the_queue), 4);
}

static void set_link(const char *args)
{
    struct err err;

    assert_int_equal(device_command_run(&d.v->dev, device_command_find(&d.v->dev, "link"), args, NULL, &err), 0);
}

static void the_cable_can_be_pulled(void **s)
{
    (void)s;
    plug(merge | with_control);
    set_link("state=down");
    assert_int_equal(status(), 0);
    netscript->n.user->link(netscript->n.user, false);
    set_link("state=up"); /* and there is still nobody at the other end */
    assert_int_equal(status(), 0);
    netscript->n.user->link(netscript->n.user, true);
    assert_int_equal(status(), VIRTIO_NET_S_LINK_UP);
    unplug();
}

static void information_has_traffic_and_drops(void **s)
{
    json_t *info, *pair, *drops;

    (void)s;
    plug_with(",queues=2", merge | with_control | BIT(VIRTIO_NET_F_CTRL_RX) | BIT(VIRTIO_NET_F_MQ));
    send_plain(TX, 100);
    send_plain(TX, 5);
    command_byte(VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, false);
    assert_true(arrives(me, -1));
    assert_false(arrives(other, -1));
    info = device_info(&d.v->dev);
    assert_int_equal(json_array_size(json_object_get(info, "pairs")), 2);
    pair = json_array_get(json_object_get(info, "pairs"), 0);
    assert_int_equal(json_integer_value(json_object_get(pair, "tx-bytes")), 100);
    assert_int_equal(json_integer_value(json_object_get(pair, "rx-frames")), 1);
    drops = json_object_get(info, "drops");
    assert_int_equal(json_integer_value(json_object_get(drops, "malformed")), 1);
    assert_int_equal(json_integer_value(json_object_get(drops, "filtered")), 1);
    assert_string_equal(json_string_value(json_object_get(info, "link")), "up");
    json_decref(info);
    unplug();
}

static void the_guest_is_told_the_mtu(void **s)
{
    (void)s;
    plug(0);
    assert_true(vdriver_offered(&d) & BIT(VIRTIO_NET_F_MTU));
    assert_int_equal(vdriver_config(&d, offsetof(struct virtio_net_config, mtu), 2), 9000); /* the network's own */
    unplug();
    plug_with(",mtu=1400", 0);
    assert_int_equal(vdriver_config(&d, offsetof(struct virtio_net_config, mtu), 2), 1400);
    unplug();
}

static void a_moved_guest_goes_on_and_announces_itself(void **s)
{
    (void)s;
    plug(merge | with_control | BIT(VIRTIO_NET_F_CTRL_RX) | BIT(VIRTIO_NET_F_GUEST_ANNOUNCE));
    command_byte(VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 0);
    assert_int_equal(set_tables(1, 0), VIRTIO_NET_OK);
    vdriver_move(&d, "null,mac=52:54:00:00:00:07");
    assert_int_equal(config_mac(), 0x525400123456); /* the guest's, not the new card's */
    assert_int_equal(status(), VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
    assert_true(arrives(me, -1));
    assert_false(arrives(other, -1));
    assert_int_equal(command(VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, me, 0), VIRTIO_NET_OK);
    assert_int_equal(status(), VIRTIO_NET_S_LINK_UP);
    unplug();
}

static void deaf(struct net_user *u, unsigned queue)
{
    (void)u;
    (void)queue;
}

static void frames_for_strangers_do_not_keep_the_lane(void **s)
{
    const uint8_t frame[64] = {0x52, 0x54, 0, 0, 0, 9};
    struct net_user *u;

    (void)s;
    plug(merge | with_control | BIT(VIRTIO_NET_F_CTRL_RX));
    command_byte(VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 0);
    u = netscript->n.user;
    netscript->n.user = &(struct net_user){.readable = deaf};
    for (unsigned i = 0; i < NETSCRIPT_MAX; i++)
        netscript_put(0, &(struct virtio_net_hdr_v1){0}, frame, sizeof(frame));
    u->readable(u, 0);
    assert_in_range(netscript->nin, 1, NETSCRIPT_MAX - 1);
    vdriver_run(&d); /* it comes back to them by itself */
    assert_int_equal(netscript->nin, 0);
    unplug();
}

static void options_that_cannot_be_are_refused(void **s)
{
    static const struct {
        const char *options, *why;
    } rows[] = {
        {"null,mac=52:54:00:12:34", "mac=52:54:00:12:34 is no MAC address; write one as in 52:54:00:12:34:56"},
        {"null,mac=52:54:00:12:34:5", "mac=52:54:00:12:34:5 is no MAC address; write one as in 52:54:00:12:34:56"},
        {"null,mac=52:54:00:12:34:567", "mac=52:54:00:12:34:567 is no MAC address; write one as in 52:54:00:12:34:56"},
        {"null,mac=52:54:+1: 2:34:56", "mac=52:54:+1: 2:34:56 is no MAC address; write one as in 52:54:00:12:34:56"},
        {"null,mac=53:54:00:12:34:56", "mac=53:54:00:12:34:56 is the address of a group; make its first byte even"},
        {"null,mtu=67", "mtu=67 is too small; it is 68 to 65535"},
    };
    struct test_env t;
    struct device *dev;
    struct err err;

    (void)s;
    test_env_init(&t, 4 << 20);
    for (size_t i = 0; i < array_len(rows); i++) {
        assert_int_equal(device_create(device_class_find("virtio-net"), "net0", rows[i].options, &dev, &err), 0);
        assert_true(device_init(dev, &t.env, t.env.loop, &err) < 0);
        assert_string_equal(err.msg, rows[i].why);
        device_destroy(dev);
    }
    test_env_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_leave_however_they_are_cut),
        cmocka_unit_test(half_headers_and_runts_are_dropped_and_counted),
        cmocka_unit_test(what_the_network_has_no_room_for_waits_in_the_queue),
        cmocka_unit_test(large_frames_are_spread_over_buffers),
        cmocka_unit_test(the_largest_frame_arrives),
        cmocka_unit_test(frames_wait_for_room),
        cmocka_unit_test(a_frame_that_can_never_fit_is_dropped),
        cmocka_unit_test(a_buffer_without_room_for_a_header_breaks_the_device),
        cmocka_unit_test(the_guest_gets_what_it_asked_for),
        cmocka_unit_test(address_tables_are_kept_as_far_as_they_go),
        cmocka_unit_test(vlans_pass_when_they_were_asked_for),
        cmocka_unit_test(the_guest_may_change_its_address),
        cmocka_unit_test(offloads_are_what_was_negotiated_and_not_refused),
        cmocka_unit_test(unknown_and_unnegotiated_commands_are_refused),
        cmocka_unit_test(pairs_work_when_the_driver_uses_them),
        cmocka_unit_test(without_mq_the_third_queue_is_for_control),
        cmocka_unit_test(a_lost_link_is_told_and_nothing_passes),
        cmocka_unit_test(a_frame_that_is_lost_in_part_costs_the_next_one_nothing),
        cmocka_unit_test(the_cable_can_be_pulled),
        cmocka_unit_test(information_has_traffic_and_drops),
        cmocka_unit_test(the_guest_is_told_the_mtu),
        cmocka_unit_test(a_moved_guest_goes_on_and_announces_itself),
        cmocka_unit_test(frames_for_strangers_do_not_keep_the_lane),
        cmocka_unit_test(options_that_cannot_be_are_refused),
    };

    log_set_level(LOG_ERROR); /* the guest's mistakes are meant */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
