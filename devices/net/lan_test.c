#include "devices/net/test_nic.h"

#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "vmm/base/log.h"

extern const struct net_class net_lan;

enum { PORTS = 64, HDR = sizeof(struct virtio_net_hdr_v1) };
enum { TSO4 = VIRTIO_NET_HDR_GSO_TCPV4, CSUM = VIRTIO_NET_HDR_F_NEEDS_CSUM };

static char root[] = "/tmp/bothy-lan.XXXXXX";
static struct loop *loop;
static const struct virtio_net_hdr_v1 plain;

static const char *in_dir(const char *name)
{
    static char path[128];

    snprintf(path, sizeof(path), "%s/bothy/%s", root, name);
    return path;
}

static void nic_open(struct test_nic *t, const char *options)
{
    test_nic_new(t, loop, &net_lan, options);
    loop_settle(loop); /* the others accept it */
}

static void nic_close(struct test_nic *t)
{
    test_nic_close(t, &net_lan);
}

/* A frame from VM `from` to VM `to`; 0 is everybody.  Its last byte is `mark`. */
static size_t make(uint8_t *frame, uint8_t from, uint8_t to, uint8_t mark)
{
    memset(frame, 0, 60);
    memset(frame, to ? 0x52 : 0xff, ETH_ALEN);
    memset(frame + ETH_ALEN, 0x52, ETH_ALEN);
    if (to)
        frame[5] = to;
    frame[11] = from;
    frame[59] = mark;
    return 60;
}

static void send_to(struct test_nic *t, uint8_t from, uint8_t to, uint8_t mark)
{
    uint8_t frame[60];

    assert_int_equal(test_nic_send(t, frame, make(frame, from, to, mark), plain), 0);
    loop_settle(loop);
}

static void assert_got(const struct test_nic *t, unsigned n, uint8_t mark)
{
    assert_int_equal(t->got, n);
    if (n)
        assert_int_equal(t->last[59], mark);
}

static void frames_go_to_all_until_their_receiver_is_known(void **s)
{
    struct test_nic a, b, c, other;

    (void)s;
    nic_open(&a, "name=one");
    nic_open(&b, "name=one");
    nic_open(&c, "name=one");
    nic_open(&other, "name=two");
    assert_int_equal(net_limits(a.n)->queues, 1);
    send_to(&a, 1, 0, 1); /* to everybody */
    assert_got(&b, 1, 1);
    assert_got(&c, 1, 1);
    send_to(&b, 2, 1, 2); /* the first has been seen */
    assert_got(&a, 1, 2);
    assert_got(&c, 1, 1);
    send_to(&b, 2, 3, 3); /* the third has not */
    assert_got(&a, 2, 3);
    assert_got(&c, 2, 3);
    send_to(&c, 3, 2, 4);
    send_to(&b, 2, 3, 5);
    assert_got(&a, 2, 3);
    assert_got(&b, 2, 4);
    assert_got(&c, 3, 5);
    assert_int_equal(other.got, 0);
    send_to(&other, 9, 0, 6);
    assert_got(&a, 2, 3);
    nic_close(&a);
    nic_close(&b);
    nic_close(&c);
    nic_close(&other);
}

static void an_address_moves_with_its_owner(void **s)
{
    struct test_nic a, b, c;

    (void)s;
    nic_open(&a, "name=one");
    nic_open(&b, "name=one");
    nic_open(&c, "name=one");
    send_to(&b, 7, 0, 1);
    send_to(&a, 1, 7, 2);
    assert_got(&b, 1, 2);
    send_to(&c, 7, 0, 3);
    send_to(&a, 1, 7, 4);
    assert_got(&b, 2, 3);
    assert_got(&c, 2, 4); /* and the broadcast of b */
    nic_close(&a);
    nic_close(&b);
    nic_close(&c);
}

static void segments_go_whole_with_their_header(void **s)
{
    static const struct virtio_net_hdr_v1 tso = {
        .flags = CSUM, .gso_type = TSO4, .hdr_len = 54, .gso_size = 1448, .csum_start = 34, .csum_offset = 16};
    static const size_t lens[] = {ETH_HLEN, 60, 1514, 4096, 65535, NET_FRAME_MAX - 1, NET_FRAME_MAX};
    static uint8_t frame[NET_FRAME_MAX];
    struct test_nic a, b;

    (void)s;
    for (size_t i = 0; i < sizeof(frame); i++)
        frame[i] = (uint8_t)(i * 7 + (i >> 8));
    make(frame, 1, 2, 0);
    put_be16(frame + 12, ETH_P_IP);
    frame[14] = 0x45;
    frame[23] = IPPROTO_TCP;
    frame[46] = 5 << 4;
    nic_open(&a, "name=one");
    nic_open(&b, "name=one");
    for (size_t i = 0; i < array_len(lens); i++) {
        const struct virtio_net_hdr_v1 *h = lens[i] < 60 ? &plain : &tso;

        assert_int_equal(test_nic_send(&a, frame, lens[i], *h), 0);
        loop_until(loop, b.got == i + 1);
        assert_int_equal(b.last_len, lens[i]);
        assert_memory_equal(b.last, frame, lens[i]);
        assert_memory_equal(&b.hdr, h, sizeof(*h));
    }
    nic_close(&a);
    nic_close(&b);
}

static void vms_come_and_go_and_the_first_is_not_special(void **s)
{
    struct test_nic a, b, c;

    (void)s;
    nic_open(&a, "name=one");
    nic_open(&b, "name=one");
    send_to(&a, 1, 0, 1);
    assert_got(&b, 1, 1);
    nic_close(&a);
    assert_int_equal(access(in_dir("lan.one.0"), F_OK), -1);
    loop_settle(loop);
    send_to(&b, 2, 1, 2); /* to nobody */
    nic_open(&c, "name=one");
    assert_int_equal(access(in_dir("lan.one.0"), F_OK), 0);
    send_to(&c, 3, 0, 3);
    assert_got(&b, 2, 3);
    nic_open(&a, "name=one");
    send_to(&a, 1, 0, 4);
    assert_got(&b, 3, 4);
    assert_got(&c, 1, 4);
    send_to(&b, 2, 1, 5);
    assert_got(&a, 1, 5);
    nic_close(&a);
    nic_close(&b);
    nic_close(&c);
}

/* What is sent and not read yet when a VM ends arrives all the same, and then its port is free for another. */
static void the_last_frames_of_a_vm_arrive(void **s)
{
    struct test_nic a, b;

    (void)s;
    nic_open(&a, "name=one");
    a.deaf = true;
    for (unsigned i = 0; i < 3 * PORTS; i++) {
        nic_open(&b, "name=one");
        send_to(&b, 2, 1, (uint8_t)i);
        nic_close(&b);
        loop_settle(loop); /* must not spin: b has hung up and is not read */
        a.deaf = false;
        test_nic_read(&a);
        loop_settle(loop);
        assert_got(&a, i + 1, (uint8_t)i);
        a.deaf = true;
    }
    nic_close(&a);
}

static struct sockaddr_un address(const char *name)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    strcpy(addr.sun_path, in_dir(name));
    return addr;
}

static int raw_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    assert_return_code(fd, errno);
    return fd;
}

/* A peer that follows no rules. */
static int raw_connect(const char *name)
{
    struct sockaddr_un addr = address(name);
    int fd = raw_socket();

    assert_return_code(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), errno);
    loop_settle(loop);
    return fd;
}

static int raw_bind(const char *name)
{
    struct sockaddr_un addr = address(name);
    int fd = raw_socket();

    assert_return_code(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), errno);
    return fd;
}

static void a_killed_vm_leaves_its_place_to_the_next(void **s)
{
    struct test_nic a, b;

    (void)s;
    close(raw_bind("lan.one.0"));
    close(raw_bind("lan.one.1"));
    nic_open(&a, "name=one");
    assert_int_equal(access(in_dir("lan.one.0"), F_OK), 0);
    assert_int_equal(access(in_dir("lan.one.1"), F_OK), -1);
    nic_open(&b, "name=one");
    send_to(&b, 2, 0, 1);
    assert_got(&a, 1, 1);
    nic_close(&a);
    nic_close(&b);
}

static void what_is_no_socket_stays_and_is_passed_by(void **s)
{
    static const char *const names[] = {"lan.one.0", "lan.one.1", "lan.one.2", "lan.one.3"};
    struct test_nic a;
    struct stat st;
    int fd;

    (void)s;
    log_set_level(LOG_ERROR);
    fd = open(in_dir(names[0]), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_return_code(fd, errno);
    close(fd);
    assert_int_equal(mkfifo(in_dir(names[1]), 0600), 0);
    assert_int_equal(symlink("nowhere", in_dir(names[2])), 0);
    assert_int_equal(symlink("lan.one.1", in_dir(names[3])), 0);
    nic_open(&a, "name=one");
    log_set_level(LOG_WARN);
    assert_int_equal(access(in_dir("lan.one.4"), F_OK), 0);
    nic_close(&a);
    for (size_t i = 0; i < array_len(names); i++) {
        assert_int_equal(lstat(in_dir(names[i]), &st), 0);
        assert_int_equal(unlink(in_dir(names[i])), 0);
    }
}

static void a_lan_has_a_limit(void **s)
{
    struct test_nic a;
    int fds[PORTS - 1];
    char name[32];

    (void)s;
    for (unsigned i = 0; i < array_len(fds); i++) {
        snprintf(name, sizeof(name), "lan.one.%u", i);
        fds[i] = raw_bind(name);
        assert_int_equal(listen(fds[i], PORTS), 0);
    }
    nic_open(&a, "name=one");
    assert_int_equal(access(in_dir("lan.one.63"), F_OK), 0);
    test_nic_refused(loop, &net_lan, "name=one", EUSERS, "end one");
    log_set_level(LOG_ERROR);
    close(raw_connect("lan.one.63")); /* a 64th connection */
    log_set_level(LOG_WARN);
    for (unsigned i = 0; i < array_len(fds); i++) {
        snprintf(name, sizeof(name), "lan.one.%u", i);
        close(fds[i]);
        assert_int_equal(unlink(in_dir(name)), 0);
    }
    nic_close(&a);
}

static void a_second_joiner_waits_for_the_first(void **s)
{
    struct test_nic a;
    int fd, status;
    char c;
    int pipes[2];
    pid_t child;

    (void)s;
    fd = open(in_dir("."), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_return_code(fd, errno);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    child = fork();
    if (!child) { /* holds the lock as well until it ends, which is when it is told to */
        close(pipes[1]);
        _exit(read(pipes[0], &c, 1) != 0);
    }
    close(fd);
    close(pipes[0]);
    close(pipes[1]);
    nic_open(&a, "name=one");
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    nic_close(&a);
}

static void bad_messages_are_dropped_and_counted(void **s)
{
    static const struct virtio_net_hdr_v1 bad[] = {
        {.flags = CSUM, .csum_start = 59, .csum_offset = 0},
        {.flags = CSUM, .csum_start = 0xffff, .csum_offset = 0xffff},
        {.gso_type = TSO4, .gso_size = 1448},
        {.flags = CSUM, .gso_type = TSO4, .csum_start = 34},
        {.flags = CSUM, .gso_type = 0x7f, .gso_size = 1448, .csum_start = 34},
    };
    static uint8_t message[HDR + NET_FRAME_MAX + 8192];
    unsigned count = 0;
    struct test_nic a;
    int fd;

    (void)s;
    nic_open(&a, "name=one");
    fd = raw_connect("lan.one.0");
    for (size_t len = 1; len < HDR + ETH_HLEN; len++, count++)
        assert_int_equal(send(fd, message, len, 0), len);
    loop_until(loop, net_dropped(a.n, NET_DROP_MALFORMED) == count);
    for (size_t i = 1; i < 8192; i += 911, count++) {
        assert_int_equal(send(fd, message, HDR + NET_FRAME_MAX + i, 0), HDR + NET_FRAME_MAX + i);
        loop_until(loop, net_dropped(a.n, NET_DROP_MALFORMED) == count + 1);
    }
    make(message + HDR, 5, 0, 0);
    for (size_t i = 0; i < array_len(bad); i++, count++) {
        memcpy(message, &bad[i], HDR);
        assert_int_equal(send(fd, message, HDR + 60, 0), HDR + 60);
    }
    loop_until(loop, net_dropped(a.n, NET_DROP_MALFORMED) == count);
    assert_int_equal(a.got, 0);
    /* The connection stands, and the sender of nonsense was not learnt from it. */
    memset(message, 0, HDR);
    make(message + HDR, 5, 0, 9);
    assert_int_equal(send(fd, message, HDR + 60, 0), HDR + 60);
    loop_until(loop, a.got == 1);
    assert_got(&a, 1, 9);
    assert_int_equal(net_dropped(a.n, NET_DROP_MALFORMED), count);
    /* An empty message is an end. */
    assert_int_equal(send(fd, message, 0, 0), 0);
    loop_settle(loop);
    assert_int_equal(recv(fd, message, 1, 0), 0);
    close(fd);
    nic_close(&a);
}

/* Those that only ever send nonsense do not keep the NIC from what others send, nor the loop from running. */
static void nonsense_does_not_starve_the_others(void **s)
{
    struct test_nic a, b;
    int fds[8];

    (void)s;
    nic_open(&a, "name=one");
    nic_open(&b, "name=one");
    for (size_t i = 0; i < array_len(fds); i++)
        fds[i] = raw_connect("lan.one.0");
    for (unsigned i = 0; i < 5; i++) {
        unsigned sent = 0;

        for (size_t j = 0; j < array_len(fds); j++)
            while (send(fds[j], "?", 1, 0) == 1)
                sent++;
        assert_in_range(sent, 1025, UINT_MAX); /* more than one call looks at */
        send_to(&b, 2, 0, (uint8_t)i);
        assert_got(&a, i + 1, (uint8_t)i);
        loop_until(loop, net_dropped(a.n, NET_DROP_MALFORMED) >= sent);
    }
    for (size_t i = 0; i < array_len(fds); i++)
        close(fds[i]);
    nic_close(&a);
    nic_close(&b);
}

static void a_vm_that_does_not_read_loses_its_own_frames_only(void **s)
{
    static uint8_t frame[NET_FRAME_MAX];
    struct test_nic a, b;
    unsigned waits = 0, sent = 0;
    uint64_t dropped;
    int fd, rc;

    (void)s;
    nic_open(&a, "name=one");
    nic_open(&b, "name=one");
    send_to(&b, 2, 0, 0);
    fd = raw_connect("lan.one.0");
    memset(frame, 0, HDR);
    make(frame + HDR, 3, 0, 0);
    assert_int_equal(send(fd, frame, HDR + 60, 0), HDR + 60);
    loop_until(loop, a.got == 2);
    make(frame, 1, 3, 0);
    /* The sender waits once; then frames are lost, and it has never waited for the broadcasts. */
    while (!net_dropped(a.n, NET_DROP_FULL)) {
        rc = test_nic_send(&a, frame, sizeof(frame), plain);
        if (rc) {
            assert_int_equal(rc, -EAGAIN);
            assert_int_equal(test_nic_send(&a, frame, sizeof(frame), plain), -EAGAIN);
            a.writable = 0;
            loop_until(loop, a.writable);
            waits++;
        } else {
            sent++;
        }
    }
    assert_int_equal(waits, 1);
    assert_in_range(sent, 4, 100);
    dropped = net_dropped(a.n, NET_DROP_FULL);
    send_to(&a, 1, 2, 7);
    assert_got(&b, 1, 7);
    send_to(&a, 1, 0, 8);
    assert_got(&b, 2, 8);
    assert_int_equal(net_dropped(a.n, NET_DROP_FULL), dropped + 1);
    /* When it reads again it gets frames again. */
    while (recv(fd, frame, sizeof(frame), 0) > 0)
        ;
    loop_settle(loop);
    send_to(&a, 1, 3, 9);
    assert_int_equal(recv(fd, frame, sizeof(frame), 0), HDR + 60);
    assert_int_equal(frame[HDR + 59], 9);
    close(fd);
    nic_close(&a);
    nic_close(&b);
}

/* Many frames to a VM that reads: none is lost, though its socket fills up again and again. */
static void nothing_is_lost_to_a_vm_that_reads(void **s)
{
    static uint8_t frame[NET_FRAME_MAX];
    struct test_nic a, b;
    unsigned waits = 0;

    (void)s;
    nic_open(&a, "name=one");
    nic_open(&b, "name=one");
    send_to(&b, 2, 0, 0);
    make(frame, 1, 2, 0);
    for (unsigned i = 0; i < 200; i++)
        while (test_nic_send(&a, frame, sizeof(frame), plain)) {
            a.writable = 0;
            loop_until(loop, a.writable);
            waits++;
        }
    loop_until(loop, b.got == 200);
    assert_in_range(waits, 1, 199);
    assert_int_equal(net_dropped(a.n, NET_DROP_FULL), 0);
    nic_close(&a);
    nic_close(&b);
}

/* Small ones leave together, but none overtakes another, nor a large one. */
static void small_frames_keep_their_order(void **s)
{
    static uint8_t frame[NET_FRAME_MAX], message[HDR + NET_FRAME_MAX];
    static const size_t lens[] = {60, 61, 2048, 2049, 62, 1514};
    struct test_nic a;
    unsigned n = 0;
    int fds[2];

    (void)s;
    nic_open(&a, "name=one");
    for (uint8_t i = 0; i < 2; i++) {
        fds[i] = raw_connect("lan.one.0");
        make(message + HDR, 3 + i, 0, 0);
        assert_int_equal(send(fds[i], message, HDR + 60, 0), HDR + 60);
        loop_until(loop, a.got == i + 1u);
    }
    for (; n < 60; n++) {
        make(frame, 1, n % 20 < 17 ? 3 : 4, (uint8_t)n);
        assert_int_equal(test_nic_send(&a, frame, lens[n % array_len(lens)], plain), 0);
    }
    loop_settle(loop);
    for (unsigned i = 0; i < n; i++) {
        size_t len = HDR + lens[i % array_len(lens)];

        assert_int_equal(recv(fds[i % 20 >= 17], message, sizeof(message), 0), len);
        assert_int_equal(message[HDR + 59], (uint8_t)i);
    }
    assert_int_equal(recv(fds[0], message, sizeof(message), 0), -1);
    close(fds[0]);
    close(fds[1]);
    nic_close(&a);
}

/* One that connects as VM 3, and whom `a` has heard of then. */
static int heard_of(const struct test_nic *a)
{
    uint8_t frame[HDR + 60] = {0};
    int fd = raw_connect("lan.one.0");

    make(frame + HDR, 3, 0, 0);
    assert_int_equal(send(fd, frame, sizeof(frame), 0), (ssize_t)sizeof(frame));
    loop_until(loop, a->got == 1);
    return fd;
}

/* What has been taken from the guest and not sent when the receiver goes is lost, and counted. */
static void small_frames_for_a_vm_that_goes_are_counted(void **s)
{
    uint8_t frame[60] = {0};
    struct test_nic a;
    int fd;

    (void)s;
    nic_open(&a, "name=one");
    fd = heard_of(&a);
    make(frame, 1, 3, 0);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(test_nic_send(&a, frame, 60, plain), 0);
    close(fd);
    loop_settle(loop);
    assert_int_equal(net_dropped(a.n, NET_DROP_PEER), 5);
    nic_close(&a);
}

static void a_vm_killed_while_awaited_ends_the_wait(void **s)
{
    static uint8_t frame[NET_FRAME_MAX];
    struct test_nic a;
    int fd;

    (void)s;
    nic_open(&a, "name=one");
    fd = heard_of(&a);
    make(frame, 1, 3, 0);
    while (!test_nic_send(&a, frame, sizeof(frame), plain))
        ;
    a.writable = 0;
    close(fd);
    loop_until(loop, a.writable);
    assert_int_equal(test_nic_send(&a, frame, sizeof(frame), plain), 0);
    nic_close(&a);
}

static void names_are_checked(void **s)
{
    (void)s;
    test_nic_refused(loop, &net_lan, "", EINVAL, "name=NAME");
    test_nic_refused(loop, &net_lan, "name=", EINVAL, "letters");
    test_nic_refused(loop, &net_lan, "name=../x", EINVAL, "letters");
    test_nic_refused(loop, &net_lan, "name=a.b", EINVAL, "letters");
    test_nic_refused(loop, &net_lan, "name=a23456789012345678901234567890123", EINVAL, "1 to 31");
}

static void the_directory_must_be_the_users_own(void **s)
{
    char there[64], elsewhere[64];

    (void)s;
    snprintf(there, sizeof(there), "%s/bothy", root);
    snprintf(elsewhere, sizeof(elsewhere), "%s/elsewhere", root);
    assert_int_equal(chmod(there, 0755), 0);
    test_nic_refused(loop, &net_lan, "name=one", EACCES, "XDG_RUNTIME_DIR");
    assert_int_equal(chmod(there, 0700), 0);
    if (!geteuid()) {
        assert_int_equal(chown(there, 1, 1), 0);
        test_nic_refused(loop, &net_lan, "name=one", EACCES, "this user's own");
        assert_int_equal(chown(there, 0, 0), 0);
    }
    assert_int_equal(rename(there, elsewhere), 0);
    assert_int_equal(symlink("elsewhere", there), 0);
    test_nic_refused(loop, &net_lan, "name=one", EACCES, "this user's own");
    assert_int_equal(unlink(there), 0);
    assert_int_equal(mkfifo(there, 0700), 0);
    test_nic_refused(loop, &net_lan, "name=one", EACCES, "this user's own");
    assert_int_equal(unlink(there), 0);
    assert_int_equal(rename(elsewhere, there), 0);
    setenv("XDG_RUNTIME_DIR", "/nonexistent", 1);
    test_nic_refused(loop, &net_lan, "name=one", ENOENT, "/nonexistent");
    setenv("XDG_RUNTIME_DIR", root, 1);
}

static int setup(void **s)
{
    struct test_nic t;
    struct err err;

    (void)s;
    if (!mkdtemp(root) || setenv("XDG_RUNTIME_DIR", root, 1) || loop_create("test", &loop, &err))
        return -1;
    nic_open(&t, "name=one"); /* makes the directory */
    nic_close(&t);
    return 0;
}

static int teardown(void **s)
{
    (void)s;
    loop_destroy(loop);
    return rmdir(in_dir("")) || rmdir(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_go_to_all_until_their_receiver_is_known),
        cmocka_unit_test(an_address_moves_with_its_owner),
        cmocka_unit_test(segments_go_whole_with_their_header),
        cmocka_unit_test(vms_come_and_go_and_the_first_is_not_special),
        cmocka_unit_test(the_last_frames_of_a_vm_arrive),
        cmocka_unit_test(a_killed_vm_leaves_its_place_to_the_next),
        cmocka_unit_test(what_is_no_socket_stays_and_is_passed_by),
        cmocka_unit_test(a_lan_has_a_limit),
        cmocka_unit_test(a_second_joiner_waits_for_the_first),
        cmocka_unit_test(bad_messages_are_dropped_and_counted),
        cmocka_unit_test(nonsense_does_not_starve_the_others),
        cmocka_unit_test(a_vm_that_does_not_read_loses_its_own_frames_only),
        cmocka_unit_test(nothing_is_lost_to_a_vm_that_reads),
        cmocka_unit_test(small_frames_keep_their_order),
        cmocka_unit_test(small_frames_for_a_vm_that_goes_are_counted),
        cmocka_unit_test(a_vm_killed_while_awaited_ends_the_wait),
        cmocka_unit_test(names_are_checked),
        cmocka_unit_test(the_directory_must_be_the_users_own),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
