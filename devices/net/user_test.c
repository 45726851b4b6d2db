#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "devices/net/guest.h"

static void dhcp_gives_an_address_and_tells_the_rest(void **state)
{
    static const uint8_t discover[] = {0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255};
    struct guest *g = guest_new("hostname=box,domain=example.org,domain=example.net,dns=10.0.2.9");
    static struct frame f;
    const uint8_t *o, *end;
    unsigned seen = 0;

    (void)state;
    ip4(&f, "0.0.0.0", "255.255.255.255", 17, 8 + 300);
    udp_header(f.b + 34, 68, 67, 8 + 300);
    f.b[42] = f.b[43] = 1;
    f.b[44] = 6;
    memcpy(f.b + 42 + 28, mac, 6);
    memcpy(f.b + 42 + 236, discover, sizeof(discover));
    finish4(&f, 6);
    send_frame(g, &f);
    until(g, g->dhcp_len);
    assert_memory_equal(g->dhcp + 16, "\x0a\0\2\xf", 4);
    o = g->dhcp + 240;
    end = g->dhcp + g->dhcp_len;
    while (o < end && *o != 255) {
        if (!*o) {
            o++;
            continue;
        }
        if (o[0] == 53)
            assert_int_equal(o[2], 2);
        if (o[0] == 1)
            assert_memory_equal(o + 2, "\xff\xff\xff\0", 4);
        if (o[0] == 3)
            assert_memory_equal(o + 2, "\x0a\0\2\2", 4);
        if (o[0] == 6)
            assert_memory_equal(o + 2, "\x0a\0\2\x9", 4);
        if (o[0] == 12)
            assert_memory_equal(o + 2, "box", 3);
        if (o[0] == 15)
            assert_memory_equal(o + 2, "example.org", 11);
        if (o[0] == 26)
            assert_int_equal(get_be16(o + 2), 65520);
        seen +=
            o[0] == 53 || o[0] == 1 || o[0] == 3 || o[0] == 6 || o[0] == 12 || o[0] == 15 || o[0] == 26 || o[0] == 119;
        o += 2 + o[1];
    }
    assert_int_equal(seen, 8);
    assert_int_equal(net_limits(g->n)->mtu, 65520);
    guest_end(g);
}

static void tcp_goes_both_ways_and_ends_without_a_trace(void **state)
{
    unsigned fds = open_fds(), then;
    uint16_t port;
    int server = serve(AF_INET, SOCK_STREAM, &port), fd;
    struct guest *g = guest_new("host-loopback");
    uint8_t buf[3000], back[3000];
    struct conn *c;

    (void)state;
    then = open_fds();
    c = connected(g, gateway4, port);
    assert_true(c->open);
    fd = accepted(g, server);
    assert_int_equal(told(g, NULL, "connections"), 1);
    fill(buf, sizeof(buf), 1);
    tcp_send(g, c, ACK | PSH, buf, sizeof(buf));
    receive(g, fd, back, sizeof(back));
    assert_memory_equal(buf, back, sizeof(buf));
    fill(buf, sizeof(buf), 2);
    assert_int_equal(send(fd, buf, sizeof(buf), 0), sizeof(buf));
    until(g, c->in_len == sizeof(buf));
    assert_memory_equal(buf, c->in, sizeof(buf));
    close_both(g, c, fd);
    until(g, !told(g, NULL, "connections"));
    assert_int_equal(open_fds(), then);
    guest_end(g);
    close(server);
    assert_int_equal(open_fds(), fds);
}

static void a_large_segment_with_its_checksum_to_do_passes_whole(void **state)
{
    uint16_t port;
    int server = serve(AF_INET, SOCK_STREAM, &port), fd;
    struct guest *g = guest_new("host-loopback");
    static uint8_t data[60000], back[60000];
    static struct frame f;
    struct virtio_net_hdr_v1 hdr = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
                                    .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
                                    .gso_size = htole16(1460),
                                    .hdr_len = htole16(54),
                                    .csum_start = htole16(34),
                                    .csum_offset = htole16(16)};
    uint8_t pseudo[4] = {0, 6};
    struct conn *c;

    (void)state;
    c = connected(g, gateway4, port);
    fd = accepted(g, server);
    fill(data, sizeof(data), 3);
    tcp_frame(&f, c, ACK | PSH, data, sizeof(data));
    put_be16(pseudo + 2, (uint16_t)(f.len - 34));
    put_be16(f.b + 50, (uint16_t)~csum_fold(csum_add(csum_add(0, f.b + 26, 8), pseudo, 4)));
    send_as(g, &f, hdr);
    receive(g, fd, back, sizeof(back));
    assert_memory_equal(data, back, sizeof(data));
    until(g, c->acked == c->seq);
    close(fd);
    close(server);
    guest_end(g);
}

static void the_hosts_loopback_cannot_be_reached(void **state)
{
    static const char *const ways[] = {"10.0.2.2", "127.0.0.1", "0.0.0.0", "127.1.2.3"};
    uint16_t port, uport, port6;
    int server = serve(AF_INET, SOCK_STREAM, &port), userver = serve(AF_INET, SOCK_DGRAM, &uport);
    int server6 = serve(AF_INET6, SOCK_STREAM, &port6);
    struct guest *g = guest_new("");
    char byte;

    (void)state;
    for (unsigned i = 0; i < array_len(ways); i++) {
        struct conn *c = new_conn(g, ways[i], (uint16_t)(30000 + i), port);

        tcp_send(g, c, SYN, NULL, 0);
        udp_send(g, ways[i], (uint16_t)(30000 + i), uport, "x", 1);
        for (unsigned k = 0; k < 5; k++)
            step(g);
        assert_false(c->open);
    }
    until(g, g->unreachable == 2); /* by the gateway's address, TCP and UDP */
    assert_int_equal(told(g, "sanitiser-dropped", "destination"), 6);
    if (server6 >= 0) {
        struct conn *c = new_conn(g, "::1", 30100, port6);

        tcp_send(g, c, SYN, NULL, 0);
        c = new_conn(g, "fec0::2", 30101, port6);
        tcp_send(g, c, SYN, NULL, 0);
        for (unsigned k = 0; k < 5; k++)
            step(g);
        assert_false(c->open);
        assert_int_equal(accept(server6, NULL, NULL), -1);
        close(server6);
    }
    assert_int_equal(accept(server, NULL, NULL), -1);
    assert_int_equal(recv(userver, &byte, 1, 0), -1);
    close(server);
    close(userver);
    guest_end(g);
}

/* And so it keeps no answers for one who never says. */
static void libslirp_need_not_ask_who_speaks(void **state)
{
    struct guest *g = guest_new("host-loopback");

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct conn *c = new_conn(g, i == 2 ? gateway6 : gateway4, (uint16_t)(4000 + i), 80);

        tcp_send(g, c, ACK, NULL, 0); /* of no connection that it knows */
        assert_true(c->reset);
        assert_false(g->has_reply);
    }
    guest_end(g);
}

static void a_refused_connection_is_reset(void **state)
{
    uint16_t port;
    int server = serve(AF_INET, SOCK_STREAM, &port);
    struct guest *g = guest_new("host-loopback");

    (void)state;
    close(server);
    assert_true(connected(g, gateway4, port)->reset);
    assert_int_equal(told(g, NULL, "failed"), 1);
    until(g, !told(g, NULL, "connections"));
    guest_end(g);
}

static void udp_goes_both_ways_as_large_as_it_gets(void **state)
{
    static uint8_t data[60000], back[60000];
    struct sockaddr_in from;
    socklen_t len = sizeof(from);
    uint16_t port;
    int server = serve(AF_INET, SOCK_DGRAM, &port);
    struct guest *g = guest_new("host-loopback");

    (void)state;
    fill(data, sizeof(data), 4);
    udp_send(g, gateway4, 5000, port, data, sizeof(data));
    until(g, recvfrom(server, back, sizeof(back), 0, (struct sockaddr *)&from, &len) == sizeof(back));
    assert_memory_equal(data, back, sizeof(data));
    fill(data, sizeof(data), 5);
    assert_int_equal(sendto(server, data, sizeof(data), 0, (struct sockaddr *)&from, len), sizeof(data));
    until(g, g->udp_len == sizeof(data));
    assert_memory_equal(data, g->udp, sizeof(data));
    assert_int_equal(g->udp_from, port);
    assert_int_equal(g->udp_to, 5000);
    close(server);
    guest_end(g);
}

/* The guest's card takes packets of 1500 bytes: a larger datagram comes in fragments. */
static void what_the_card_takes_is_not_exceeded(void **state)
{
    static struct guest g;
    static uint8_t data[4000];
    struct sockaddr_in from;
    socklen_t len = sizeof(from);
    struct err err;
    uint16_t port;
    int server = serve(AF_INET, SOCK_DGRAM, &port);
    unsigned before;

    (void)state;
    assert_true(guest_try_card(&g, "host-loopback", &(struct net_limits){.mtu = 65521}, &err) < 0);
    assert_non_null(strstr(err.msg, "up to 65520 bytes"));
    guest_end(&g);
    assert_int_equal(guest_try_card(&g, "host-loopback", &(struct net_limits){.mtu = 1500}, &err), 0);
    udp_send(&g, gateway4, 5000, port, "x", 1);
    until(&g, recvfrom(server, data, sizeof(data), 0, (struct sockaddr *)&from, &len) == 1);
    before = g.frames;
    g.largest = 0;
    assert_int_equal(sendto(server, data, sizeof(data), 0, (struct sockaddr *)&from, len), sizeof(data));
    until(&g, g.frames == before + 3);
    assert_in_range(g.largest, 1400, 1514);
    close(server);
    guest_end(&g);
}

static void forwarded_tcp_reaches_the_guest(void **state)
{
    struct guest *g = guest_new("hostfwd=tcp:127.0.0.1:0-:22,hostfwd=tcp:127.0.0.1:0-10.0.2.15:23");
    int fd = client_of(SOCK_STREAM, forwarded(g, 0));
    struct conn *c;
    uint8_t buf[5];

    (void)state;
    g->listens = 22;
    c = called(g, 0);
    assert_string_equal(c->peer, gateway4);
    assert_int_equal(send(fd, "hello", 5, 0), 5);
    until(g, c->in_len == 5);
    assert_memory_equal(c->in, "hello", 5);
    tcp_send(g, c, ACK | PSH, "world", 5);
    receive(g, fd, buf, 5);
    assert_memory_equal(buf, "world", 5);
    close_both(g, c, fd);
    until(g, !told(g, NULL, "connections"));

    g->listens = 23;
    fd = client_of(SOCK_STREAM, forwarded(g, 1));
    c = called(g, 1);
    close_both(g, c, fd);
    guest_end(g);
}

static void forwarded_udp_reaches_the_guest(void **state)
{
    struct guest *g = guest_new("hostfwd=udp:127.0.0.1:0-:53");
    int fd = client_of(SOCK_DGRAM, forwarded(g, 0)), fd2 = client_of(SOCK_DGRAM, forwarded(g, 0));
    uint16_t first;
    uint8_t buf[4];

    (void)state;
    assert_int_equal(send(fd, "ask", 3, 0), 3);
    until(g, g->udp_len == 3);
    assert_int_equal(g->udp_to, 53);
    first = g->udp_from;
    assert_int_equal(send(fd2, "asks", 4, 0), 4);
    until(g, g->udp_len == 4);
    udp_send(g, gateway4, 53, first, "one", 3);
    udp_send(g, gateway4, 53, g->udp_from, "more", 4);
    receive(g, fd, buf, 3);
    assert_memory_equal(buf, "one", 3);
    receive(g, fd2, buf, 4);
    assert_memory_equal(buf, "more", 4);
    close(fd);
    close(fd2);
    guest_end(g);
}

static int client6_of(int type, uint16_t port)
{
    const struct sockaddr_in6 to = {
        .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT, .sin6_port = htons(port)};
    int fd = socket(AF_INET6, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    assert_true(!connect(fd, (const struct sockaddr *)&to, sizeof(to)) || errno == EINPROGRESS);
    return fd;
}

static void forwards_work_over_ipv6(void **state)
{
    uint16_t port;
    int fd = serve(AF_INET6, SOCK_STREAM, &port), datagrams;
    struct guest *g;
    struct conn *c;
    uint8_t buf[4];

    (void)state;
    if (fd < 0)
        skip();
    close(fd);
    g = guest_new("hostfwd=tcp:[::1]:0-[fec0::15]:22,hostfwd=udp:[::1]:0-[fec0::15]:53");
    g->listens = 22;
    fd = client6_of(SOCK_STREAM, forwarded(g, 0));
    c = called(g, 0);
    assert_true(c->v6);
    tcp_send(g, c, ACK | PSH, "hi", 2);
    receive(g, fd, buf, 2);
    assert_memory_equal(buf, "hi", 2);
    close_both(g, c, fd);
    datagrams = client6_of(SOCK_DGRAM, forwarded(g, 1));
    assert_int_equal(send(datagrams, "ask", 3, 0), 3);
    until(g, g->udp_len == 3);
    udp_send(g, gateway6, 53, g->udp_from, "told", 4);
    receive(g, datagrams, buf, 4);
    assert_memory_equal(buf, "told", 4);
    close(datagrams);
    guest_end(g);
}

struct dir {
    char dir[32], path[48], options[128];
};

static void dir_init(struct dir *d, const char *options)
{
    strcpy(d->dir, "/tmp/bothy-net.XXXXXX");
    assert_non_null(mkdtemp(d->dir));
    snprintf(d->path, sizeof(d->path), "%s/it", d->dir);
    snprintf(d->options, sizeof(d->options), options, d->path);
}

static void dir_fini(struct dir *d)
{
    unlink(d->path);
    assert_int_equal(rmdir(d->dir), 0);
}

static int at_path(const char *path, bool listens)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(un.sun_path, path);
    assert_int_equal(listens ? bind(fd, (struct sockaddr *)&un, sizeof(un)) : 0, 0);
    assert_int_equal(listens ? listen(fd, 5) : connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

static void a_forwarded_socket_reaches_the_guest_and_is_tidied_up(void **state)
{
    struct guest *g;
    struct stat st;
    struct conn *c;
    struct dir d;
    uint8_t buf[2];
    int fd;

    (void)state;
    dir_init(&d, "hostfwd=unix:%s-:22");
    close(at_path(d.path, true)); /* left behind by one who died */
    g = guest_new(d.options);
    assert_int_equal(lstat(d.path, &st), 0);
    assert_int_equal(st.st_mode, S_IFSOCK | 0600);
    g->listens = 22;
    fd = at_path(d.path, false);
    c = called(g, 0);
    tcp_send(g, c, ACK | PSH, "hi", 2);
    receive(g, fd, buf, 2);
    assert_memory_equal(buf, "hi", 2);
    close_both(g, c, fd);
    guest_end(g);
    assert_int_equal(lstat(d.path, &st), -1);
    dir_fini(&d);
}

static void tftp_serves_the_files_of_its_directory_only(void **state)
{
    enum { READ = 1, ERROR = 5 };
    uint8_t ask[64] = {0, READ};
    struct guest *g;
    struct dir d;
    FILE *f;

    (void)state;
    dir_init(&d, "%s");
    snprintf(d.options, sizeof(d.options), "tftp=%s", d.dir);
    f = fopen(d.path, "w");
    assert_non_null(f);
    assert_true(fputs("content", f) >= 0 && !fclose(f));
    g = guest_new(d.options);
    memcpy(ask + 2, "it\0octet", 9);
    udp_send(g, gateway4, 4000, 69, ask, 11);
    until(g, g->udp_len);
    assert_int_equal(g->udp_to, 4000);
    assert_int_equal(g->udp_len, 4 + 7);
    assert_memory_equal(g->udp, "\0\3\0\1content", g->udp_len);
    g->udp_len = 0;
    snprintf((char *)ask + 2, sizeof(ask) - 2, "../%s/it%coctet", strrchr(d.dir, '/') + 1, 0);
    udp_send(g, gateway4, 4001, 69, ask, sizeof(ask));
    until(g, g->udp_len);
    assert_int_equal(g->udp[1], ERROR);
    guest_end(g);
    dir_fini(&d);
}

static void the_guest_is_served_by_a_command(void **state)
{
    struct guest *g = guest_new("guestfwd=tcp:10.0.2.100:7-cmd:cat,restrict");
    unsigned fds = open_fds();
    struct conn *c = connected(g, "10.0.2.100", 7);

    (void)state;
    assert_true(c->open);
    tcp_send(g, c, ACK | PSH, "echo", 4);
    until(g, c->in_len == 4);
    assert_memory_equal(c->in, "echo", 4);
    tcp_send(g, c, FIN | ACK, NULL, 0);
    until(g, c->fin);
    until(g, open_fds() == fds);
    guest_end(g);
}

static void the_guest_is_served_by_a_socket(void **state)
{
    struct guest *g;
    struct conn *c;
    struct dir d;
    int server, fd;

    (void)state;
    dir_init(&d, "guestfwd=tcp:10.0.2.100:7-unix:%s");
    server = at_path(d.path, true);
    g = guest_new(d.options);
    c = connected(g, "10.0.2.100", 7);
    fd = accepted(g, server);
    assert_int_equal(send(fd, "served", 6, 0), 6);
    until(g, c->in_len == 6);
    close_both(g, c, fd);
    close(server);
    /* Nobody there: that connection fails, and no other. */
    unlink(d.path);
    c = connected(g, "10.0.2.100", 7);
    until(g, c->reset || c->fin);
    guest_end(g);
    dir_fini(&d);
}

static void a_restricted_guest_gets_nowhere_but_through_forwards(void **state)
{
    uint16_t port, uport;
    int server = serve(AF_INET, SOCK_STREAM, &port), userver = serve(AF_INET, SOCK_DGRAM, &uport), fd;
    struct guest *g = guest_new("restrict,host-loopback,hostfwd=tcp:127.0.0.1:0-:22");
    struct conn *c;
    uint8_t buf[2];

    (void)state;
    assert_true(connected(g, gateway4, port)->reset);
    assert_true(connected(g, "192.0.2.1", port)->reset);
    udp_send(g, gateway4, 5000, uport, "x", 1);
    udp_send(g, "10.0.2.3", 5000, 53, "x", 1);
    tcp_send(g, new_conn(g, gateway6, 5001, port), SYN, NULL, 0);
    assert_int_equal(told(g, "sanitiser-dropped", "restricted"), 3);

    g->listens = 22;
    fd = client_of(SOCK_STREAM, forwarded(g, 0));
    c = called(g, 3);
    tcp_send(g, c, ACK | PSH, "in", 2);
    receive(g, fd, buf, 2);
    close(fd);
    assert_int_equal(accept(server, NULL, NULL), -1);
    assert_int_equal(recv(userver, buf, 1, 0), -1);
    close(server);
    close(userver);
    guest_end(g);
}

static void ipv6_has_a_router_neighbours_and_tcp(void **state)
{
    uint16_t port;
    int server = serve(AF_INET6, SOCK_STREAM, &port), fd;
    struct guest *g = guest_new("host-loopback");
    static struct frame f;
    static uint8_t data[60000];
    struct conn *c;
    uint8_t buf[3];

    (void)state;
    net_set(g->n, ~0ull, 1);
    ip6(&f, "fe80::15", "ff02::2", 58, 16);
    f.b[54] = 133;
    f.b[62] = f.b[63] = 1;
    memcpy(f.b + 64, mac, 6);
    finish6(&f, 2);
    send_frame(g, &f);
    until(g, g->routers >= 1);

    ip6(&f, me6, "ff02::1:ff00:2", 58, 32);
    f.b[54] = 135;
    assert_int_equal(inet_pton(AF_INET6, gateway6, f.b + 62), 1);
    f.b[78] = f.b[79] = 1;
    memcpy(f.b + 80, mac, 6);
    finish6(&f, 2);
    send_frame(g, &f);
    until(g, g->neighbours == 1);

    ip6(&f, me6, gateway6, 58, 16);
    f.b[54] = 128;
    finish6(&f, 2);
    send_frame(g, &f);
    until(g, g->pongs == 1);

    if (server >= 0) {
        c = connected(g, gateway6, port);
        assert_true(c->open);
        fd = accepted(g, server);
        tcp_send(g, c, ACK | PSH, "six", 3);
        receive(g, fd, buf, 3);
        assert_memory_equal(buf, "six", 3);
        fill(data, sizeof(data), 6);
        assert_int_equal(send(fd, data, sizeof(data), 0), sizeof(data));
        until(g, c->in_len == sizeof(data));
        assert_memory_equal(c->in, data, sizeof(data));
        assert_int_equal(g->large.gso_type, VIRTIO_NET_HDR_GSO_TCPV6);
        assert_int_equal(le16toh(g->large.gso_size), (65520 - 60) / 8);
        close_both(g, c, fd);
        close(server);
    }
    guest_end(g);
}

/* ---- Load. ---- */

static void a_guest_without_room_loses_nothing(void **state)
{
    static uint8_t data[IN_MAX];
    uint16_t port;
    int server = serve(AF_INET, SOCK_STREAM, &port), fds[3];
    struct guest *g = guest_new("host-loopback");
    struct conn *c[3];
    size_t sent[3] = {0}, total = 300000;

    (void)state;
    net_set(g->n, ~0ull, 1);
    fill(data, sizeof(data), 6);
    for (unsigned i = 0; i < 3; i++) {
        c[i] = connected(g, gateway4, port);
        fds[i] = accepted(g, server);
    }
    for (unsigned round = 0; c[0]->in_len + c[1]->in_len + c[2]->in_len < 3 * total; round++) {
        if (round > 100000)
            fail_msg("stuck");
        for (unsigned i = 0; i < 3; i++) {
            ssize_t r = sent[i] < total ? send(fds[i], data + sent[i], total - sent[i], 0) : 0;

            sent[i] += r > 0 ? (size_t)r : 0;
        }
        loop_once(g->loop, 0);
        hear(g, 1 + round % 5);
        step(g);
    }
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(c[i]->in_len, total);
        assert_memory_equal(c[i]->in, data, total);
        close(fds[i]);
    }
    assert_int_equal(net_dropped(g->n, NET_DROP_FULL), 0);
    assert_true(g->largest > 30000);
    assert_int_equal(g->large.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
    assert_int_equal(le16toh(g->large.gso_size), (65520 - 40) / 8);
    assert_int_equal(le16toh(g->large.hdr_len), 54);
    g->deaf = false;
    g->room = 0;
    close(server);
    guest_end(g);
}

static void a_guest_that_takes_nothing_costs_no_more_than_so_much(void **state)
{
    struct guest *g = guest_new("");
    static struct frame f;

    (void)state;
    ethernet(&f, 0x806); /* here I am */
    memcpy(f.b + 14, "\0\1\x8\0\6\4\0\2", 8);
    memcpy(f.b + 22, mac, 6);
    assert_int_equal(inet_pton(AF_INET, me4, f.b + 28), 1);
    f.len = 42;
    send_frame(g, &f);
    g->deaf = true;
    ip4(&f, me4, gateway4, 1, 30000);
    f.b[34] = 8;
    finish4(&f, 2);
    for (unsigned i = 0; i < 100; i++) {
        struct frame again = f;

        send_frame(g, &again);
    }
    assert_true(net_dropped(g->n, NET_DROP_FULL) > 50);
    hear(g, 0);
    assert_true(g->pongs > 10);
    assert_int_equal(g->pongs + net_dropped(g->n, NET_DROP_FULL), 100);
    guest_end(g);
}

/* libslirp would keep a segment of one byte in a buffer of 64 KiB, as many as its window has bytes. */
static void segments_out_of_order_are_not_kept(void **state)
{
    uint16_t port;
    int server = serve(AF_INET, SOCK_STREAM, &port), fd;
    struct guest *g = guest_new("host-loopback");
    struct conn *c = connected(g, gateway4, port);
    const uint32_t first = c->seq;
    uint8_t buf[3];

    (void)state;
    fd = accepted(g, server);
    for (unsigned i = 0; i < 1000; i++) {
        c->seq = first + 1 + 2 * i;
        tcp_send(g, c, i % 10 ? ACK | PSH : ACK | FIN, "x", 1);
        assert_int_equal(c->acked, first);
    }
    assert_int_equal(told(g, "sanitiser-dropped", "tcp-order"), 1000);
    c->seq = first;
    tcp_send(g, c, ACK | PSH, "a", 1);
    assert_int_equal(c->acked, first + 1);
    tcp_send(g, c, ACK | PSH, "bc", 2);
    receive(g, fd, buf, 3);
    assert_memory_equal(buf, "abc", 3);
    close_both(g, c, fd);
    close(server);
    guest_end(g);
}

static void no_more_connections_than_allowed(void **state)
{
    struct guest *g = guest_new("hostfwd=tcp:127.0.0.1:0-:22,max-connections=4");
    int fd[6];

    (void)state;
    g->listens = 22;
    for (unsigned i = 0; i < 6; i++)
        fd[i] = client_of(SOCK_STREAM, forwarded(g, 0));
    for (unsigned i = 0; i < 4; i++)
        called(g, i);
    for (unsigned i = 0; i < 5; i++)
        step(g);
    assert_false(g->conns[4].used);
    assert_int_equal(told(g, NULL, "connections"), 4);
    tcp_send(g, new_conn(g, "192.0.2.1", 999, 80), SYN, NULL, 0);
    assert_int_equal(told(g, "sanitiser-dropped", "max-connections"), 1);
    close_both(g, &g->conns[0], fd[0]);
    close_both(g, &g->conns[1], fd[1]);
    until(g, g->conns[5].open && g->conns[6].open); /* those who waited */
    for (unsigned i = 2; i < 6; i++)
        close(fd[i]);
    guest_end(g);
}

/* Each address of the guest's has a socket of its own in libslirp. */
static void speaking_from_many_addresses_gets_no_further(void **state)
{
    uint16_t port;
    int server = serve(AF_INET, SOCK_DGRAM, &port);
    struct guest *g = guest_new("host-loopback,max-connections=4");
    static struct frame f;
    char from[INET_ADDRSTRLEN];

    (void)state;
    for (unsigned i = 0; i < 100; i++) {
        snprintf(from, sizeof(from), "10.0.2.%u", 100 + i);
        ip4(&f, from, gateway4, 17, 9);
        udp_header(f.b + 34, 5000, port, 9);
        finish4(&f, 6);
        send_frame(g, &f);
    }
    assert_int_equal(told(g, NULL, "connections"), 4);
    assert_int_equal(told(g, "sanitiser-dropped", "max-connections"), 96);
    close(server);
    guest_end(g);
}

static void a_host_without_descriptors_refuses_new_connections_only(void **state)
{
    uint16_t port;
    int server = serve(AF_INET, SOCK_STREAM, &port), fd, more;
    struct guest *g = guest_new("host-loopback,hostfwd=tcp:127.0.0.1:0-:22");
    struct rlimit before, none;
    struct conn *c = connected(g, gateway4, port);
    uint8_t buf[2];
    unsigned rounds;

    (void)state;
    fd = accepted(g, server);
    more = client_of(SOCK_STREAM, forwarded(g, 0));
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){.rlim_cur = 3, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    g->listens = 22;
    tcp_send(g, new_conn(g, gateway4, 998, port), SYN, NULL, 0);
    until(g, g->unreachable);
    assert_int_equal(told(g, NULL, "failed"), 1);
    tcp_send(g, c, ACK | PSH, "ok", 2);
    receive(g, fd, buf, 2);
    /* Neither does the loop spin on the client that cannot be accepted. */
    for (rounds = 0; rounds < 5; rounds++)
        loop_once(g->loop, 5);
    assert_false(g->conns[2].used);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    until(g, g->conns[2].open);
    close(fd);
    close(more);
    close(server);
    guest_end(g);
}

static void a_capture_has_the_question_before_the_answer(void **state)
{
    enum { FILE_HEADER = 24, RECORD = 16 };
    struct guest *g = guest_new("");
    int fd = memfd_create("capture", MFD_CLOEXEC);
    uint8_t got[1024];
    static struct frame f;
    char path[32];
    struct err err;

    (void)state;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    assert_int_equal(net_capture(g->n, path, 0, 0, &err), 0);
    ip4(&f, me4, gateway4, 1, 16);
    f.b[34] = 8;
    finish4(&f, 2);
    send_frame(g, &f);
    until(g, g->pongs == 1);
    assert_int_equal(pread(fd, got, sizeof(got), 0), FILE_HEADER + 2 * (RECORD + f.len));
    assert_int_equal(got[FILE_HEADER + RECORD + 34], 8);
    assert_int_equal(got[FILE_HEADER + 2 * RECORD + f.len + 34], 0);
    assert_int_equal(net_missed(g->n), 0);
    close(fd);
    guest_end(g);
}

/* ---- Options. ---- */

static void wrong_options_are_refused_with_thing_and_remedy(void **state)
{
    static const char *const bad[][2] = {
        {"ipv4=off,ipv6=off", "turn one on"},
        {"net=10.0.2.0", "write it as 10.0.2.0/24"},
        {"host=10.0.3.2", "host=10.0.3.2: not an address of the network"},
        {"host=10.0.2.255", "not an address of the network"},
        {"host=gateway", "not an IPv4 address"},
        {"dns=10.0.2.2", "is the host's address too"},
        {"dhcpstart=10.0.2.250", "fewer than 16"},
        {"dhcpstart=10.0.2.2", "from 10.0.2.2 on have the host's or the DNS proxy's among them"},
        {"dns=10.0.2.30", "from 10.0.2.15 on have the host's or the DNS proxy's among them"},
        {"ipv6-net=fec0::/48", "write it as fec0::/64"},
        {"ipv6-host=fec1::2", "not an address of the network"},
        {"ipv6-dns=fec0::2", "is the host's address too"},
        {"outbound=x", "outbound=x: not an IPv4 address"},
        {"ipv6-outbound=x", "ipv6-outbound=x: not an IPv6 address"},
        {"hostname=a23456789a23456789a23456789a23456789", "longer than 32"},
        {"tftp=/nonexistent", "/nonexistent"},
        {"tftp=/dev/null", "not a directory"},
        {"hostfwd=2222", "write tcp:"},
        {"hostfwd=tcp:192.0.2.77:0-:22", "not an address of this host"},
        {"hostfwd=tcp:[::1]:0-[fec0::15]:22,ipv6=off", "no IPv6; turn it on"},
        {"hostfwd=tcp::0-:22,ipv4=off", "no IPv4; turn it on"},
        {"hostfwd=udp::0-:22,restrict", "could not answer over UDP"},
        {"guestfwd=tcp:10.0.3.100:7-cmd:cat", "must be of the guest's network"},
        {"guestfwd=tcp:10.0.2.2:7-cmd:cat", "must be of the guest's network"},
        {"guestfwd=tcp:10.0.2.100:7-cmd:cat,guestfwd=tcp:10.0.2.100:7-cmd:cat", "there twice"},
        {"hostfwd=unix:/nonexistent/x-:22", "/nonexistent/x"},
    };
    unsigned fds = open_fds();

    (void)state;
    for (unsigned i = 0; i < array_len(bad); i++) {
        static struct guest g;
        struct err err = {0};

        if (guest_try(&g, bad[i][0], &err) >= 0 || !strstr(err.msg, bad[i][1]))
            fail_msg("%s: \"%s\"", bad[i][0], err.msg);
        guest_end(&g);
        assert_int_equal(open_fds(), fds);
    }
}

static void a_port_that_is_taken_is_named(void **state)
{
    static struct guest g;
    char options[64];
    struct err err = {0};
    uint16_t port;
    int server = serve(AF_INET, SOCK_STREAM, &port);

    (void)state;
    snprintf(options, sizeof(options), "hostfwd=tcp:127.0.0.1:%u-:22", port);
    assert_int_equal(guest_try(&g, options, &err), -EADDRINUSE);
    assert_non_null(strstr(err.msg, "is in use; choose another port"));
    guest_end(&g);
    close(server);
}

static void a_range_of_ports_is_forwarded_one_by_one(void **state)
{
    static struct guest g;
    char options[64];
    struct err err = {0};
    uint16_t port;
    int rc = -EADDRINUSE;

    (void)state;
    for (unsigned tries = 0; rc == -EADDRINUSE && tries < 20; tries++) {
        int probe = serve(AF_INET, SOCK_STREAM, &port);

        close(probe);
        if (port > 65000)
            continue;
        snprintf(options, sizeof(options), "hostfwd=tcp:127.0.0.1:%u-%u-:100-102", port, port + 2);
        rc = guest_try(&g, options, &err);
        if (rc)
            guest_end(&g);
    }
    assert_int_equal(rc, 0);
    for (uint16_t i = 0; i < 3; i++) {
        int fd = client_of(SOCK_STREAM, (uint16_t)(port + i));

        assert_int_equal(forwarded(&g, i), port + i);
        g.listens = 100 + i;
        assert_int_equal(called(&g, i)->sport, 100 + i);
        close(fd);
    }
    guest_end(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dhcp_gives_an_address_and_tells_the_rest),
        cmocka_unit_test(tcp_goes_both_ways_and_ends_without_a_trace),
        cmocka_unit_test(a_large_segment_with_its_checksum_to_do_passes_whole),
        cmocka_unit_test(the_hosts_loopback_cannot_be_reached),
        cmocka_unit_test(libslirp_need_not_ask_who_speaks),
        cmocka_unit_test(a_refused_connection_is_reset),
        cmocka_unit_test(udp_goes_both_ways_as_large_as_it_gets),
        cmocka_unit_test(what_the_card_takes_is_not_exceeded),
        cmocka_unit_test(forwarded_tcp_reaches_the_guest),
        cmocka_unit_test(forwarded_udp_reaches_the_guest),
        cmocka_unit_test(forwards_work_over_ipv6),
        cmocka_unit_test(a_forwarded_socket_reaches_the_guest_and_is_tidied_up),
        cmocka_unit_test(tftp_serves_the_files_of_its_directory_only),
        cmocka_unit_test(the_guest_is_served_by_a_command),
        cmocka_unit_test(the_guest_is_served_by_a_socket),
        cmocka_unit_test(a_restricted_guest_gets_nowhere_but_through_forwards),
        cmocka_unit_test(ipv6_has_a_router_neighbours_and_tcp),
        cmocka_unit_test(a_guest_without_room_loses_nothing),
        cmocka_unit_test(a_guest_that_takes_nothing_costs_no_more_than_so_much),
        cmocka_unit_test(segments_out_of_order_are_not_kept),
        cmocka_unit_test(no_more_connections_than_allowed),
        cmocka_unit_test(speaking_from_many_addresses_gets_no_further),
        cmocka_unit_test(a_host_without_descriptors_refuses_new_connections_only),
        cmocka_unit_test(a_capture_has_the_question_before_the_answer),
        cmocka_unit_test(wrong_options_are_refused_with_thing_and_remedy),
        cmocka_unit_test(a_port_that_is_taken_is_named),
        cmocka_unit_test(a_range_of_ports_is_forwarded_one_by_one),
    };

    signal(SIGPIPE, SIG_IGN); /* as in bothy */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
