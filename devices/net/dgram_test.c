#include "devices/net/test_nic.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

extern const struct net_class net_dgram;

static char dir[] = "/tmp/bothy-dgram.XXXXXX";
static struct loop *loop;
static struct test_nic a, b;
static const struct virtio_net_hdr_v1 plain;

static void nic_close(struct test_nic *t)
{
    test_nic_close(t, &net_dgram);
}

static void unix_sockets_carry_frames(void **s)
{
    static const size_t lens[] = {ETH_HLEN, 60, 1514, NET_FRAME_MAX};
    static uint8_t frame[NET_FRAME_MAX];
    char ab[128], ba[128];

    (void)s;
    snprintf(ab, sizeof(ab), "local=unix:%s/a,remote=unix:%s/b", dir, dir);
    snprintf(ba, sizeof(ba), "local=unix:%s/b,remote=unix:%s/a", dir, dir);
    for (size_t i = 0; i < sizeof(frame); i++)
        frame[i] = (uint8_t)(i * 7 + (i >> 8));
    test_nic_new(&a, loop, &net_dgram, ab);
    assert_int_equal(test_nic_send(&a, frame, 60, plain), 0); /* to nobody */
    assert_int_equal(net_dropped(a.n, NET_DROP_PEER), 1);
    test_nic_new(&b, loop, &net_dgram, ba);
    for (size_t i = 0; i < array_len(lens); i++) {
        assert_int_equal(test_nic_send(&a, frame, lens[i], plain), 0);
        loop_until(loop, b.got == i + 1);
        assert_int_equal(b.last_len, lens[i]);
        assert_memory_equal(b.last, frame, lens[i]);
    }
    nic_close(&b); /* comes back at the same address */
    test_nic_new(&b, loop, &net_dgram, ba);
    assert_int_equal(test_nic_send(&b, frame, 60, plain), 0);
    loop_until(loop, a.got == 1);
    assert_int_equal(test_nic_send(&a, frame, 60, plain), 0);
    loop_until(loop, b.got == 1);
    nic_close(&a);
    nic_close(&b);
}

/* Sends until there is no more room; how many it took. */
static unsigned fill(void)
{
    static const uint8_t frame[60];
    unsigned n = 0;

    while (!test_nic_send(&a, frame, sizeof(frame), plain))
        assert_true(++n < 10000);
    return n;
}

static void a_far_end_that_does_not_read_holds_the_sender_up_until_it_does_or_leaves(void **s)
{
    static const uint8_t frame[60];
    char ab[128], ba[128];
    unsigned sent;

    (void)s;
    snprintf(ab, sizeof(ab), "local=unix:%s/a,remote=unix:%s/b", dir, dir);
    snprintf(ba, sizeof(ba), "local=unix:%s/b,remote=unix:%s/a", dir, dir);
    test_nic_new(&a, loop, &net_dgram, ab);
    test_nic_new(&b, loop, &net_dgram, ba);
    b.deaf = true;
    sent = fill();
    loop_settle(loop);
    assert_int_equal(a.writable, 0);
    b.deaf = false;
    test_nic_read(&b);
    loop_until(loop, a.writable);
    assert_int_equal(b.got, sent);
    b.deaf = true;
    assert_true(fill() > 0);
    a.writable = 0;
    nic_close(&b);
    loop_until(loop, a.writable);
    assert_int_equal(net_dropped(a.n, NET_DROP_FULL) + net_dropped(a.n, NET_DROP_PEER), 0);
    assert_int_equal(test_nic_send(&a, frame, sizeof(frame), plain), 0);
    assert_int_equal(net_dropped(a.n, NET_DROP_PEER), 1);
    nic_close(&a);
}

static int udp_socket(struct sockaddr_in *addr)
{
    socklen_t len = sizeof(*addr);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    *addr = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_return_code(bind(fd, (struct sockaddr *)addr, sizeof(*addr)), errno);
    assert_int_equal(getsockname(fd, (struct sockaddr *)addr, &len), 0);
    return fd;
}

static void only_the_far_end_is_heard(void **s)
{
    struct sockaddr_in far, other, nic;
    int fd = udp_socket(&far), stranger = udp_socket(&other);
    static uint8_t frame[1514];
    socklen_t len = sizeof(nic);
    char options[128];

    (void)s;
    snprintf(options, sizeof(options), "local=127.0.0.1:0,remote=127.0.0.1:%u", ntohs(far.sin_port));
    test_nic_new(&a, loop, &net_dgram, options);
    assert_int_equal(test_nic_send(&a, frame, sizeof(frame), plain), 0);
    assert_int_equal(recvfrom(fd, frame, sizeof(frame), 0, (struct sockaddr *)&nic, &len), sizeof(frame));
    assert_int_equal(sendto(stranger, frame, 60, 0, (struct sockaddr *)&nic, len), 60);
    loop_until(loop, net_dropped(a.n, NET_DROP_MALFORMED) == 1);
    assert_int_equal(sendto(fd, frame, ETH_HLEN - 1, 0, (struct sockaddr *)&nic, len), ETH_HLEN - 1);
    assert_int_equal(sendto(fd, frame, 0, 0, (struct sockaddr *)&nic, len), 0);
    loop_until(loop, net_dropped(a.n, NET_DROP_MALFORMED) == 3);
    assert_int_equal(a.got, 0);
    assert_int_equal(sendto(fd, frame, 61, 0, (struct sockaddr *)&nic, len), 61);
    loop_until(loop, a.got == 1);
    assert_int_equal(a.last_len, 61);
    close(fd);
    /* Nobody is there any more: that is no reason to stop. */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(test_nic_send(&a, frame, 60, plain), 0);
        loop_settle(loop);
    }
    close(stranger);
    nic_close(&a);
}

static void options_are_checked(void **s)
{
    (void)s;
    test_nic_refused(loop, &net_dgram, "", EINVAL, "local=ADDRESS and remote=ADDRESS");
    test_nic_refused(loop, &net_dgram, "local=:0", EINVAL, "remote=ADDRESS");
    test_nic_refused(loop, &net_dgram, "local=x,remote=:1", EINVAL, "local=x");
    test_nic_refused(loop, &net_dgram, "local=:0,remote=x", EINVAL, "remote=x");
    test_nic_refused(loop, &net_dgram, "local=:0,remote=[::1]:1", EINVAL, "different kinds");
    test_nic_refused(loop, &net_dgram, "local=192.0.2.1:0,remote=192.0.2.2:1", EADDRNOTAVAIL, "choose another");
}

static int setup(void **s)
{
    (void)s;
    return test_nic_setup(dir, &loop);
}

static int teardown(void **s)
{
    (void)s;
    return test_nic_teardown(dir, loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unix_sockets_carry_frames),
        cmocka_unit_test(a_far_end_that_does_not_read_holds_the_sender_up_until_it_does_or_leaves),
        cmocka_unit_test(only_the_far_end_is_heard),
        cmocka_unit_test(options_are_checked),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
