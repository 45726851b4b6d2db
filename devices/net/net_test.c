#include <linux/if_ether.h>

#include "devices/testing/netscript.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"

enum { TSO4 = VIRTIO_NET_HDR_GSO_TCPV4, CSUM = VIRTIO_NET_HDR_F_NEEDS_CSUM };

static struct net *net;
static uint8_t bytes[NET_FRAME_MAX + 1];
static struct iovec iov;

static void told(struct net_user *u, unsigned queue)
{
    (void)u;
    (void)queue;
}

static void plug(void)
{
    static struct net_user user = {.readable = told, .writable = told};

    net = xcalloc(1, net_null.size);
    assert_int_equal(net_open(&net_null, net, NULL, &user, &(struct net_limits){0}, NULL), 0);
}

static void unplug(void)
{
    net_close(net);
    free(net);
}

static struct net_frame frame(size_t len, struct virtio_net_hdr_v1 hdr)
{
    iov = (struct iovec){bytes, len};
    return (struct net_frame){.hdr = hdr, .iov = &iov, .niov = 1, .len = len};
}

static void frames_that_are_not_what_their_headers_say_are_dropped(void **state)
{
    static const struct {
        size_t len;
        struct virtio_net_hdr_v1 hdr;
        bool good;
    } rows[] = {
        {ETH_HLEN, {0}, true},
        {NET_FRAME_MAX, {0}, true},
        {0, {0}, false},
        {ETH_HLEN - 1, {0}, false},
        {NET_FRAME_MAX + 1, {0}, false},
        {60, {.flags = CSUM, .csum_start = 34, .csum_offset = 24}, true},
        {60, {.flags = CSUM, .csum_start = 34, .csum_offset = 25}, false},
        {60, {.flags = CSUM, .csum_start = UINT16_MAX, .csum_offset = UINT16_MAX}, false},
        {60, {.csum_start = UINT16_MAX}, true}, /* means nothing */
        {60, {.gso_type = TSO4, .gso_size = 1000}, false},
        {60, {.flags = CSUM, .gso_type = TSO4}, false},
        {60, {.flags = CSUM, .gso_type = 2, .gso_size = 1000}, false},
    };
    unsigned good = 0;

    (void)state;
    plug();
    for (size_t i = 0; i < array_len(rows); i++) {
        struct net_frame f = frame(rows[i].len, rows[i].hdr);

        good += rows[i].good;
        assert_int_equal(net_send(net, 0, &f), 0);
        assert_int_equal(netscript->nout, good);
        assert_int_equal(net_dropped(net, NET_DROP_MALFORMED), i + 1 - good);
    }
    assert_int_equal(net_counters(net, 0)->tx.frames, good);
    unplug();
}

static void a_header_says_no_more_than_what_matters(void **state)
{
    const struct virtio_net_hdr_v1 odd = {.flags = 0xfe, .csum_start = 14, .num_buffers = 9, .hdr_len = 5000};
    struct net_frame f = frame(60, odd);

    (void)state;
    plug();
    assert_int_equal(net_send(net, 0, &f), 0);
    assert_memory_equal(&netscript->out[0].hdr, &(struct virtio_net_hdr_v1){0}, sizeof(f.hdr));
    unplug();
}

static void frames_count_when_they_are_through(void **state)
{
    struct net_frame f = frame(100, (struct virtio_net_hdr_v1){0});

    (void)state;
    plug();
    netscript->room = 0;
    assert_int_equal(net_send(net, 3, &f), -EAGAIN);
    assert_int_equal(net_counters(net, 3)->tx.frames, 0);
    netscript->room = 1;
    assert_int_equal(net_send(net, 3, &f), 0);
    assert_int_equal(net_counters(net, 3)->tx.bytes, 100);
    netscript_put(0, &f.hdr, bytes, 70);
    assert_true(net_peek(net, 0, &f));
    assert_true(net_peek(net, 0, &f));
    assert_int_equal(net_counters(net, 0)->rx.frames, 0);
    net_next(net, 0);
    assert_false(net_peek(net, 0, &f));
    assert_int_equal(net_counters(net, 0)->rx.bytes, 70);
    netscript_put(0, &(struct virtio_net_hdr_v1){0}, bytes, 70);
    assert_true(net_peek(net, 0, &f));
    net_refuse(net, 0, NET_DROP_FILTERED);
    assert_false(net_peek(net, 0, &f));
    assert_int_equal(net_counters(net, 0)->rx.frames, 1);
    assert_int_equal(net_dropped(net, NET_DROP_FILTERED), 1);
    unplug();
}

static void backends_are_found_by_name(void **state)
{
    unsigned n = 0;

    (void)state;
    assert_ptr_equal(net_class_find("null"), &net_null);
    assert_null(net_class_find("nul"));
    for (; net_choice(n).name; n++)
        assert_ptr_equal(net_class_find(net_choice(n).name), net_classes[n]);
    assert_null(net_classes[n]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_that_are_not_what_their_headers_say_are_dropped),
        cmocka_unit_test(a_header_says_no_more_than_what_matters),
        cmocka_unit_test(frames_count_when_they_are_through),
        cmocka_unit_test(backends_are_found_by_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
