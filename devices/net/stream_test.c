#include "devices/net/test_nic.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "vmm/base/log.h"

extern const struct net_class net_stream, net_passt;

enum { PREFIX = 4 };

static char dir[] = "/tmp/bothy-stream.XXXXXX", path[64], listen_opt[80], connect_opt[80];
static struct loop *loop;
static struct test_nic nic;
static const struct virtio_net_hdr_v1 plain;

static int call(void)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    strcpy(addr.sun_path, path);
    assert_return_code(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), errno);
    return fd;
}

static int answer(int type, const struct sockaddr *addr, socklen_t len)
{
    int fd = socket(addr->sa_family, type | SOCK_CLOEXEC, 0);

    assert_return_code(bind(fd, addr, len), errno);
    assert_return_code(listen(fd, 1), errno);
    return fd;
}

/* Appends a frame of `len` bytes, prefix and all, which are `mark`. */
static size_t put(uint8_t *to, size_t len, uint8_t mark)
{
    put_be32(to, (uint32_t)len);
    memset(to + PREFIX, mark, len);
    return PREFIX + len;
}

static void say(int fd, const void *bytes, size_t len)
{
    assert_int_equal(write(fd, bytes, len), len);
    loop_settle(loop);
}

/* A NIC that waits, and a far end that has called. */
static int begin(void)
{
    int fd;

    test_nic_new(&nic, loop, &net_stream, listen_opt);
    assert_false(nic.up);
    fd = call();
    loop_until(loop, nic.up);
    return fd;
}

static void end(int fd)
{
    close(fd);
    test_nic_close(&nic, &net_stream);
    assert_int_equal(access(path, F_OK), -1);
}

static void frames_arrive_however_they_are_cut(void **s)
{
    static const size_t lens[] = {ETH_HLEN, 60, 15};
    uint8_t text[128];
    size_t len = 0;
    int fd = begin();

    (void)s;
    for (size_t i = 0; i < array_len(lens); i++)
        len += put(text + len, lens[i], (uint8_t)i);
    for (size_t cut = 0; cut <= len; cut++) {
        unsigned before = nic.got;

        if (cut)
            say(fd, text, cut);
        if (cut < len)
            say(fd, text + cut, len - cut);
        assert_int_equal(nic.got, before + 3);
        assert_int_equal(nic.last_len, 15);
        assert_int_equal(nic.last[14], 2);
        assert_memory_equal(&nic.hdr, &plain, sizeof(plain));
    }
    end(fd);
}

static void a_far_end_that_leaves_amid_a_frame_is_replaced(void **s)
{
    uint8_t text[64];
    size_t len = put(text, 20, 7);
    int fd = begin();

    (void)s;
    for (size_t cut = 0; cut <= len; cut++) {
        if (cut)
            say(fd, text, cut);
        assert_int_equal(nic.got, cut == len);
        close(fd);
        loop_until(loop, !nic.up);
        fd = call();
        loop_until(loop, nic.up);
    }
    say(fd, text, len); /* nothing is left of those before */
    assert_int_equal(nic.got, 2);
    end(fd);
}

static void what_cannot_be_a_frame_is_dropped_or_ends_it(void **s)
{
    static const uint32_t bad[] = {NET_FRAME_MAX + 1, 0x7fffffff, 0x80000000, 0xffffffff};
    static uint8_t text[PREFIX + NET_FRAME_MAX];
    int fd = begin();

    (void)s;
    for (size_t len = 0; len < ETH_HLEN; len++)
        say(fd, text, put(text, len, 0));
    assert_int_equal(net_dropped(nic.n, NET_DROP_MALFORMED), ETH_HLEN);
    assert_int_equal(nic.got, 0);
    say(fd, text, put(text, NET_FRAME_MAX, 5));
    loop_until(loop, nic.got == 1);
    assert_int_equal(nic.last_len, NET_FRAME_MAX);
    log_set_level(LOG_ERROR);
    for (size_t i = 0; i < array_len(bad); i++) {
        size_t len = put(text, 20, 1);

        put_be32(text + len, bad[i]);
        say(fd, text, len + PREFIX);
        assert_int_equal(nic.got, i + 2);
        assert_false(nic.up);
        assert_int_equal(read(fd, text, 1), 0);
        close(fd);
        fd = call();
        loop_until(loop, nic.up);
    }
    log_set_level(LOG_WARN);
    end(fd);
}

static void nonsense_does_not_hold_the_loop(void **s)
{
    static uint8_t zeroes[65536];
    uint64_t sent = 0;
    ssize_t r;
    int fd = begin();

    (void)s;
    for (int i = 0; i < 20; i++) {
        while ((r = send(fd, zeroes, sizeof(zeroes), MSG_DONTWAIT)) > 0)
            sent += (uint64_t)r;
        loop_once(loop, 1000);
    }
    loop_until(loop, net_dropped(nic.n, NET_DROP_MALFORMED) == sent / PREFIX);
    end(fd);
}

/* A guest without room: frames wait, the loop sleeps, and the far end's hanging up does not lose them. */
static void frames_wait_for_a_guest_that_does_not_read(void **s)
{
    uint8_t text[64];
    size_t len = put(text, 20, 7);
    int fd = begin();

    (void)s;
    nic.deaf = true;
    for (int i = 0; i < 3; i++)
        say(fd, text, len);
    assert_int_equal(nic.got, 0);
    close(fd);
    loop_settle(loop);
    nic.deaf = false;
    test_nic_read(&nic);
    assert_int_equal(nic.got, 3);
    assert_false(nic.up);
    fd = call();
    loop_until(loop, nic.up);
    end(fd);
}

static void frames_are_sent_as_qemu_has_them(void **s)
{
    static uint8_t frame[NET_FRAME_MAX], got[PREFIX + NET_FRAME_MAX];
    static const size_t lens[] = {ETH_HLEN, 60, 1514, NET_FRAME_MAX};
    int fd = begin();

    (void)s;
    for (size_t i = 0; i < sizeof(frame); i++)
        frame[i] = (uint8_t)(i * 7 + (i >> 8));
    for (size_t i = 0; i < array_len(lens); i++) {
        assert_int_equal(test_nic_send(&nic, frame, lens[i], plain), 0);
        assert_int_equal(recv(fd, got, PREFIX + lens[i], MSG_WAITALL), PREFIX + lens[i]);
        assert_int_equal(get_be32(got), lens[i]);
        assert_memory_equal(got + PREFIX, frame, lens[i]);
    }
    end(fd);
}

static void without_a_far_end_frames_are_dropped(void **s)
{
    static const uint8_t frame[60];

    (void)s;
    test_nic_new(&nic, loop, &net_stream, listen_opt);
    assert_int_equal(test_nic_send(&nic, frame, sizeof(frame), plain), 0);
    assert_int_equal(net_dropped(nic.n, NET_DROP_DOWN), 1);
    test_nic_close(&nic, &net_stream);
}

static void a_far_end_that_does_not_read_holds_the_sender_up_until_it_leaves(void **s)
{
    static uint8_t frame[NET_FRAME_MAX], got[PREFIX + NET_FRAME_MAX];
    unsigned sent = 0, read_back = 0;
    int fd = begin();

    (void)s;
    for (int round = 0; round < 3; round++) {
        for (frame[20] = (uint8_t)sent; !test_nic_send(&nic, frame, sizeof(frame), plain); frame[20] = (uint8_t)sent)
            sent++;
        nic.writable = 0;
        loop_settle(loop);
        assert_int_equal(nic.writable, 0);
        while (read_back < sent) {
            assert_int_equal(recv(fd, got, PREFIX, MSG_PEEK), PREFIX);
            for (size_t have = 0; have < sizeof(got);) {
                ssize_t r = recv(fd, got + have, sizeof(got) - have, 0);

                if (r < 0)
                    loop_once(loop, 1000);
                else
                    have += (size_t)r;
            }
            assert_int_equal(get_be32(got), sizeof(frame));
            assert_int_equal(got[PREFIX + 20], (uint8_t)read_back);
            read_back++;
        }
        assert_true(nic.writable > 0);
    }
    while (!test_nic_send(&nic, frame, sizeof(frame), plain))
        ;
    nic.writable = 0;
    close(fd);
    loop_until(loop, nic.writable && !nic.up);
    assert_int_equal(test_nic_send(&nic, frame, sizeof(frame), plain), 0);
    end(call());
}

static void two_nics_lose_nothing(void **s)
{
    static uint8_t frame[NET_FRAME_MAX];
    struct test_nic b;

    (void)s;
    test_nic_new(&nic, loop, &net_stream, listen_opt);
    test_nic_new(&b, loop, &net_stream, connect_opt);
    loop_until(loop, nic.up && b.up);
    for (unsigned i = 0; i < 100; i++)
        while (test_nic_send(&nic, frame, sizeof(frame) - i, plain))
            loop_once(loop, 1000);
    loop_until(loop, b.got == 100);
    test_nic_close(&nic, &net_stream);
    loop_until(loop, !b.up);
    test_nic_close(&b, &net_stream);
}

static void a_caller_calls_again(void **s)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int server, fd;

    (void)s;
    test_nic_refused(loop, &net_stream, "connect=unix:/nonexistent,reconnect=0", ENOENT, "start the far end");
    log_set_level(LOG_ERROR);
    test_nic_new(&nic, loop, &net_stream, connect_opt);
    log_set_level(LOG_WARN);
    assert_false(nic.up);
    strcpy(addr.sun_path, path);
    server = answer(SOCK_STREAM, (struct sockaddr *)&addr, sizeof(addr));
    loop_until(loop, nic.up);
    fd = accept(server, NULL, NULL);
    close(fd);
    loop_until(loop, !nic.up);
    test_nic_close(&nic, &net_stream);
    close(server);
    unlink(path);
}

/* The value of an option at the other end of a connection of this process. */
static int option_there(int fd, int level, int name)
{
    struct sockaddr_in there, at;
    socklen_t len = sizeof(there);
    int value = 0;

    assert_int_equal(getpeername(fd, (struct sockaddr *)&there, &len), 0);
    for (int i = 3; i < FD_SETSIZE; i++) {
        len = sizeof(at);
        if (!getsockname(i, (struct sockaddr *)&at, &len) && at.sin_family == AF_INET &&
            at.sin_port == there.sin_port) {
            len = sizeof(value);
            assert_int_equal(getsockopt(i, level, name, &value, &len), 0);
            return value;
        }
    }
    fail_msg("descriptor %d has no other end here", fd);
    return 0;
}

static void tcp_works_the_same(void **s)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(addr);
    uint8_t text[64], got[64];
    char options[64];
    int server, fd;

    (void)s;
    server = answer(SOCK_STREAM, (struct sockaddr *)&addr, sizeof(addr));
    assert_int_equal(getsockname(server, (struct sockaddr *)&addr, &len), 0);
    snprintf(options, sizeof(options), "connect=:%u,reconnect=0", ntohs(addr.sin_port));
    test_nic_new(&nic, loop, &net_stream, options);
    fd = accept(server, NULL, NULL);
    loop_until(loop, nic.up);
    assert_true(option_there(fd, IPPROTO_TCP, TCP_NODELAY));
    assert_true(option_there(fd, SOL_SOCKET, SO_KEEPALIVE)); /* a far end without power is missed some time */
    assert_int_equal(option_there(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 50000);
    assert_int_equal(write(fd, text, put(text, 20, 3)), 24);
    loop_until(loop, nic.got == 1);
    assert_int_equal(test_nic_send(&nic, text, 20, plain), 0);
    assert_int_equal(recv(fd, got, 24, MSG_WAITALL), 24);
    close(fd);
    loop_until(loop, !nic.up);
    test_nic_close(&nic, &net_stream);
    snprintf(options, sizeof(options), "listen=127.0.0.1:%u", ntohs(addr.sin_port));
    test_nic_refused(loop, &net_stream, options, EADDRINUSE, "choose another");
    close(server);
    snprintf(options, sizeof(options), "connect=127.0.0.1:%u,reconnect=0", ntohs(addr.sin_port));
    test_nic_new(&nic, loop, &net_stream, options); /* whose refusal comes later */
    loop_settle(loop);
    assert_false(nic.up);
    test_nic_close(&nic, &net_stream);
    test_nic_new(&nic, loop, &net_stream, "listen=[::1]:0");
    test_nic_close(&nic, &net_stream);
}

static void passt_is_called_where_it_waits(void **s)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    char options[80];
    uint8_t text[64];
    int server, fd;

    (void)s;
    snprintf(options, sizeof(options), "socket=%s", path);
    test_nic_refused(loop, &net_passt, options, ENOENT, "start it");
    strcpy(addr.sun_path, path);
    server = answer(SOCK_STREAM, (struct sockaddr *)&addr, sizeof(addr));
    test_nic_new(&nic, loop, &net_passt, options);
    fd = accept(server, NULL, NULL);
    loop_until(loop, nic.up);
    assert_int_equal(net_limits(nic.n)->mtu, 65520);
    say(fd, text, put(text, 42, 3));
    assert_int_equal(nic.got, 1);
    assert_int_equal(test_nic_send(&nic, text, 20, plain), 0);
    assert_int_equal(recv(fd, text, sizeof(text), 0), 24);
    close(fd);
    close(server);
    test_nic_close(&nic, &net_passt);
    unlink(path);
}

static void options_are_checked(void **s)
{
    char options[128];

    (void)s;
    test_nic_refused(loop, &net_stream, "", EINVAL, "listen=ADDRESS or connect=ADDRESS");
    test_nic_refused(loop, &net_stream, "listen=:1,connect=:1", EINVAL, "one of the two");
    test_nic_refused(loop, &net_stream, "listen=nowhere", EINVAL, "127.0.0.1:1234");
    test_nic_refused(loop, &net_stream, "listen=host:80", EINVAL, "IP address");
    test_nic_refused(loop, &net_stream, "listen=127.0.0.1:65536", EINVAL, "port");
    test_nic_refused(loop, &net_stream, "listen=127.0.0.1:", EINVAL, "port");
    test_nic_refused(loop, &net_stream, "connect=[::1:80", EINVAL, "[::1]:1234");
    test_nic_refused(loop, &net_stream, "connect=unix:/nonexistent/x,reconnect=0", ENOENT, "unix:/nonexistent/x");
    snprintf(options, sizeof(options), "listen=unix:/%0107d", 0);
    test_nic_refused(loop, &net_stream, options, ENAMETOOLONG, "107");
}

static int setup(void **s)
{
    (void)s;
    if (test_nic_setup(dir, &loop))
        return -1;
    snprintf(path, sizeof(path), "%s/it", dir);
    snprintf(listen_opt, sizeof(listen_opt), "listen=unix:%s", path);
    snprintf(connect_opt, sizeof(connect_opt), "connect=unix:%s", path);
    return 0;
}

static int teardown(void **s)
{
    (void)s;
    return test_nic_teardown(dir, loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_arrive_however_they_are_cut),
        cmocka_unit_test(a_far_end_that_leaves_amid_a_frame_is_replaced),
        cmocka_unit_test(what_cannot_be_a_frame_is_dropped_or_ends_it),
        cmocka_unit_test(nonsense_does_not_hold_the_loop),
        cmocka_unit_test(frames_wait_for_a_guest_that_does_not_read),
        cmocka_unit_test(frames_are_sent_as_qemu_has_them),
        cmocka_unit_test(without_a_far_end_frames_are_dropped),
        cmocka_unit_test(a_far_end_that_does_not_read_holds_the_sender_up_until_it_leaves),
        cmocka_unit_test(two_nics_lose_nothing),
        cmocka_unit_test(a_caller_calls_again),
        cmocka_unit_test(tcp_works_the_same),
        cmocka_unit_test(passt_is_called_where_it_waits),
        cmocka_unit_test(options_are_checked),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
