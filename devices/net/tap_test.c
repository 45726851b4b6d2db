/* In a network namespace of its own, which needs some rights on this host: skipped without. */
#include "devices/net/test_nic.h"

#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

extern const struct net_class net_tap;

static struct loop *loop;
static bool lonely; /* in a namespace of our own, with tap interfaces */

static void open_tap(struct test_nic *t, const char *options)
{
    test_nic_new(t, loop, &net_tap, options);
}

static void expect_refused(const char *options, const char *why)
{
    struct err err = {0};
    struct test_nic t;

    assert_true(test_nic_open(&t, loop, &net_tap, options, &err) < 0);
    if (!strstr(err.msg, why))
        fail_msg("\"%s\" lacks \"%s\"", err.msg, why);
    test_nic_close(&t, &net_tap);
}

/* The host's end: what passes the interface. */
static int sniff(const char *ifname)
{
    struct sockaddr_ll a = {.sll_family = AF_PACKET, .sll_protocol = htobe16(ETH_P_ALL)};
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htobe16(ETH_P_ALL));

    assert_true(fd >= 0);
    a.sll_ifindex = (int)if_nametoindex(ifname);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

static uint8_t frame[200];

static void make_frame(uint8_t mark)
{
    memset(frame, mark, sizeof(frame));
    memset(frame, 0xff, ETH_ALEN);
    memset(frame + ETH_ALEN, 0x52, ETH_ALEN);
    put_be16(frame + 2 * ETH_ALEN, 0x88b5); /* for experiments */
}

/* The host may say something itself; all but our kind is skipped. */
static bool took(int fd, uint8_t mark)
{
    uint8_t buf[2000];
    ssize_t n;

    while ((n = recv(fd, buf, sizeof(buf), 0)) > 0)
        if (get_be16(buf + 2 * ETH_ALEN) == 0x88b5 && buf[ETH_HLEN] == mark)
            return n == sizeof(frame) && !memcmp(buf, frame, sizeof(frame));
    return false;
}

/* By the kernel. */
static json_int_t counted(struct test_nic *t, const char *what)
{
    json_t *info = net_info(t->n);
    json_int_t v = json_integer_value(json_object_get(json_object_get(info, "interface"), what));

    json_decref(info);
    return v;
}

static void frames_pass_both_ways(void **s)
{
    struct test_nic t;
    int fd;

    (void)s;
    if (!lonely)
        skip();
    open_tap(&t, "ifname=bothy0");
    assert_int_equal(net_limits(t.n)->mtu, 1500);
    fd = sniff("bothy0");
    make_frame(1);
    assert_int_equal(test_nic_send(&t, frame, sizeof(frame), (struct virtio_net_hdr_v1){0}), 0);
    assert_true(took(fd, 1));
    make_frame(2);
    assert_int_equal(send(fd, frame, sizeof(frame), 0), sizeof(frame));
    loop_until(loop, t.got && t.last[ETH_HLEN] == 2);
    assert_int_equal(t.last_len, sizeof(frame));
    assert_memory_equal(t.last, frame, sizeof(frame));
    assert_int_equal(counted(&t, "tx-frames"), 1);
    assert_int_equal(counted(&t, "tx-bytes"), sizeof(frame));
    assert_in_range(counted(&t, "rx-bytes"), sizeof(frame), 100000); /* the host may have said something itself */
    close(fd);
    test_nic_close(&t, &net_tap);
    assert_int_equal(if_nametoindex("bothy0"), 0); /* it went with us */
}

static void a_guest_without_room_leaves_frames_with_the_host(void **s)
{
    struct test_nic t;
    unsigned got;
    int fd;

    (void)s;
    if (!lonely)
        skip();
    open_tap(&t, "ifname=bothy0");
    fd = sniff("bothy0");
    loop_settle(loop);
    t.deaf = true;
    for (uint8_t i = 0; i < 10; i++) {
        make_frame(i);
        assert_int_equal(send(fd, frame, sizeof(frame), 0), sizeof(frame));
    }
    loop_settle(loop);
    got = t.got;
    t.deaf = false;
    test_nic_read(&t);
    assert_in_range(t.got, got + 10, got + 100); /* all of them at once, and what the host said itself */
    make_frame(77);
    assert_int_equal(send(fd, frame, sizeof(frame), 0), sizeof(frame));
    loop_until(loop, t.last[ETH_HLEN] == 77); /* and it listens again */
    close(fd);
    test_nic_close(&t, &net_tap);
}

static void an_interface_that_goes_takes_the_link_with_it(void **s)
{
    struct test_nic t;

    (void)s;
    if (!lonely || system("ip -V >/dev/null 2>&1"))
        skip();
    open_tap(&t, "ifname=bothy0");
    assert_int_equal(system("ip link delete bothy0"), 0);
    loop_until(loop, t.links);
    assert_false(t.up);
    make_frame(1);
    assert_int_equal(test_nic_send(&t, frame, sizeof(frame), (struct virtio_net_hdr_v1){0}), 0);
    assert_int_equal(net_dropped(t.n, NET_DROP_PEER), 1);
    test_nic_close(&t, &net_tap);
}

static void a_descriptor_may_come_from_elsewhere(void **s)
{
    struct ifreq r = {.ifr_name = "bothy1", .ifr_flags = IFF_TAP | IFF_NO_PI};
    char options[32];
    struct test_nic t;
    int fd, host;

    (void)s;
    if (!lonely)
        skip();
    fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    assert_int_equal(ioctl(fd, TUNSETIFF, &r), 0);
    snprintf(options, sizeof(options), "fd=%d", fd);
    expect_refused(options, "was not opened with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR");
    close(fd);
    r.ifr_flags |= IFF_VNET_HDR;
    fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    assert_int_equal(ioctl(fd, TUNSETIFF, &r), 0);
    snprintf(options, sizeof(options), "fd=%d", fd);
    open_tap(&t, options);
    host = sniff("bothy1");
    make_frame(3);
    assert_int_equal(test_nic_send(&t, frame, sizeof(frame), (struct virtio_net_hdr_v1){0}), 0);
    assert_true(took(host, 3));
    expect_refused("ifname=bothy1", "another program has it");
    close(host);
    test_nic_close(&t, &net_tap);
    expect_refused("fd=999", "fd=999 is no open tap interface");
}

/* With a card that has more. */
static int open_card(struct test_nic *t, const char *options, const struct net_limits *card, struct err *err)
{
    static struct device_env env;

    *t = (struct test_nic){.loop = loop, .user = {test_nic_readable, test_nic_writable, test_nic_link}};
    t->dev.env = &env;
    lane_init(&t->dev.lane, loop);
    t->n = xcalloc(1, net_tap.size);
    assert_int_equal(opts_parse(net_tap.opts, t->n, NULL, options, err), 0);
    return net_open(&net_tap, t->n, &t->dev, &t->user, card, err);
}

static void many_queues_are_opened(void **s)
{
    struct err err = {0};
    struct test_nic t;

    (void)s;
    if (!lonely)
        skip();
    assert_int_equal(open_card(&t, "ifname=bothy2", &(struct net_limits){.queues = 4}, &err), 0);
    assert_int_equal(net_limits(t.n)->queues, 4);
    for (unsigned queues = 1; queues <= 4; queues++)
        net_set(t.n, 0, queues);
    test_nic_close(&t, &net_tap);
}

static void without_vhost_the_rings_stay_with_the_card(void **s)
{
    const struct net_limits lends = {.queues = 1, .rings = ~0ull};
    struct err err = {0};
    struct test_nic t;

    (void)s;
    if (!lonely)
        skip();
    expect_refused("ifname=bothy4,vhost=on", "vhost=on: frames do not come by for pcap= to capture");
    assert_int_equal(open_card(&t, "ifname=bothy4,vhost=off", &lends, &err), 0);
    assert_int_equal(net_limits(t.n)->rings, 0);
    test_nic_close(&t, &net_tap);
    if (!access("/dev/vhost-net", F_OK))
        return;
    assert_int_equal(open_card(&t, "ifname=bothy4", &lends, &err), 0);
    assert_int_equal(net_limits(t.n)->rings, 0);
    test_nic_close(&t, &net_tap);
    assert_int_equal(open_card(&t, "ifname=bothy4,vhost=on", &lends, &err), -ENOENT);
    assert_string_equal(err.msg, "vhost=on: /dev/vhost-net: No such file or directory; as root: modprobe vhost_net");
    test_nic_close(&t, &net_tap);
}

static void what_is_wrong_is_told_with_its_remedy(void **s)
{
    (void)s;
    expect_refused("", "either ifname=NAME or fd=NUMBER");
    expect_refused("ifname=a,fd=3", "either ifname=NAME or fd=NUMBER");
    expect_refused("ifname=a-name-that-is-too-long", "1 to 15 letters");
    expect_refused("ifname=tap%d", "no /, :, % or space"); /* of which the kernel would make a name for each queue */
}

/* Who may not, is told how to be allowed. */
static void missing_rights_are_told_with_the_remedy(void **s)
{
    pid_t child;
    int status;

    (void)s;
    if (!lonely || access("/dev/net/tun", R_OK | W_OK))
        skip();
    child = fork();
    if (!child) {
        struct err err = {0};
        struct test_nic t;

        if (setresuid(65534, 65534, 65534))
            _exit(0);
        test_nic_open(&t, loop, &net_tap, "ifname=bothy3", &err);
        _exit(!strstr(err.msg, "ip tuntap add bothy3 mode tap user") && !strstr(err.msg, "/dev/net/tun"));
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static int alone(void **s)
{
    struct ifreq r = {.ifr_name = "try", .ifr_flags = IFF_TAP};
    struct err err;
    int fd;

    (void)s;
    assert_int_equal(loop_create("test", &loop, &err), 0);
    if (unshare(CLONE_NEWNET) && unshare(CLONE_NEWUSER | CLONE_NEWNET))
        return 0;
    fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    lonely = fd >= 0 && !ioctl(fd, TUNSETIFF, &r);
    close(fd);
    return 0;
}

static int done(void **s)
{
    (void)s;
    loop_destroy(loop);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_pass_both_ways),
        cmocka_unit_test(a_guest_without_room_leaves_frames_with_the_host),
        cmocka_unit_test(an_interface_that_goes_takes_the_link_with_it),
        cmocka_unit_test(a_descriptor_may_come_from_elsewhere),
        cmocka_unit_test(many_queues_are_opened),
        cmocka_unit_test(without_vhost_the_rings_stay_with_the_card),
        cmocka_unit_test(what_is_wrong_is_told_with_its_remedy),
        cmocka_unit_test(missing_rights_are_told_with_the_remedy),
    };

    return cmocka_run_group_tests(tests, alone, done);
}
