#include <linux/if_ether.h>

#include "devices/net/backend.h"
#include "vmm/base/test.h"

enum { TSO4 = VIRTIO_NET_HDR_GSO_TCPV4, CSUM = VIRTIO_NET_HDR_F_NEEDS_CSUM };

/* A backend that keeps what it is sent, and has one frame to hand out. */
struct script {
    struct net n;
    struct net_frame got, next;
    unsigned sent, left;
    int answer;
};

static bool script_peek(struct net *n, unsigned queue, struct net_frame *ret)
{
    struct script *s = container_of(n, struct script, n);

    (void)queue;
    *ret = s->next;
    return s->left;
}

static void script_next(struct net *n, unsigned queue)
{
    (void)queue;
    container_of(n, struct script, n)->left--;
}

static int script_send(struct net *n, unsigned queue, struct net_frame *f)
{
    struct script *s = container_of(n, struct script, n);

    (void)queue;
    s->got = *f;
    s->sent += !s->answer;
    return s->answer;
}

static int script_open(struct net *n, struct err *err)
{
    (void)n;
    (void)err;
    return 0;
}

static void script_close(struct net *n)
{
    (void)n;
}

static const struct net_class script_class = {
    .name = "script",
    .size = sizeof(struct script),
    .takes = ~0ull,
    .peek = script_peek,
    .next = script_next,
    .send = script_send,
    .open = script_open,
    .close = script_close,
};

static uint8_t bytes[NET_FRAME_MAX + 1];
static struct iovec iov;

static struct net_frame frame(size_t len, struct virtio_net_hdr_v1 hdr)
{
    iov = (struct iovec){bytes, len};
    return (struct net_frame){.hdr = hdr, .iov = &iov, .niov = 1, .len = len};
}

static void open_script(struct script *s)
{
    *s = (struct script){0};
    assert_int_equal(net_open(&script_class, &s->n, NULL, NULL, NULL), 0);
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
    struct script s;
    unsigned good = 0;

    (void)state;
    open_script(&s);
    for (size_t i = 0; i < array_len(rows); i++) {
        struct net_frame f = frame(rows[i].len, rows[i].hdr);

        good += rows[i].good;
        assert_int_equal(net_send(&s.n, 0, &f), 0);
        assert_int_equal(s.sent, good);
        assert_int_equal(net_dropped(&s.n, NET_DROP_MALFORMED), i + 1 - good);
    }
    assert_int_equal(net_counters(&s.n, 0)->tx.frames, good);
    net_close(&s.n);
}

static void a_header_says_no_more_than_what_matters(void **state)
{
    const struct virtio_net_hdr_v1 odd = {.flags = 0xfe, .csum_start = 14, .num_buffers = 9, .hdr_len = 5000};
    struct net_frame f = frame(60, odd);
    struct script s;

    (void)state;
    open_script(&s);
    assert_int_equal(net_send(&s.n, 0, &f), 0);
    assert_memory_equal(&s.got.hdr, &(struct virtio_net_hdr_v1){0}, sizeof(s.got.hdr));
    net_close(&s.n);
}

static void frames_count_when_they_are_through(void **state)
{
    struct net_frame f = frame(100, (struct virtio_net_hdr_v1){0});
    struct script s;

    (void)state;
    open_script(&s);
    s.answer = -EAGAIN;
    assert_int_equal(net_send(&s.n, 0, &f), -EAGAIN);
    assert_int_equal(net_counters(&s.n, 0)->tx.frames, 0);
    s.answer = 0;
    assert_int_equal(net_send(&s.n, 0, &f), 0);
    assert_int_equal(net_counters(&s.n, 0)->tx.bytes, 100);
    s.next = frame(70, (struct virtio_net_hdr_v1){0});
    s.left = 1;
    assert_true(net_peek(&s.n, 0, &f));
    assert_true(net_peek(&s.n, 0, &f));
    assert_int_equal(net_counters(&s.n, 0)->rx.frames, 0);
    net_next(&s.n, 0);
    assert_false(net_peek(&s.n, 0, &f));
    assert_int_equal(net_counters(&s.n, 0)->rx.bytes, 70);
    assert_int_equal(net_limits(&s.n)->queues, 1);
    net_close(&s.n);
}

static void backends_are_found_by_name(void **state)
{
    (void)state;
    assert_non_null(net_class_find("null"));
    assert_null(net_class_find("nul"));
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
