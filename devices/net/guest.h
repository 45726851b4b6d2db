/*
 * A guest's side of the user network, by hand, for tests: just enough of ARP, neighbour discovery, TCP and UDP to talk
 * to servers and clients on the host's loopback.
 */
#pragma once
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>

#include "devices/net/backend.h"
#include "devices/net/frames.h"
#include "vmm/base/cleanup.h"

extern const struct net_class net_user;

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };
enum { CONNS = 1100, STEPS = 100, IN_MAX = 1 << 20, WINDOW = 65535, PATTERN = 253 * 256 };

struct conn { /* of TCP, from the guest's side */
    bool v6, used, open, fin, reset, needs_syn, needs_ack;
    char peer[INET6_ADDRSTRLEN];
    uint16_t sport, dport;
    uint32_t seq, acked, ack;
    bool patterned; /* what comes is pattern(), and is not kept */
    uint8_t *in;
    size_t in_len;
};

struct guest {
    struct device dev;
    struct loop *loop;
    struct net *n;
    struct net_user user;
    bool deaf;        /* takes no frames */
    unsigned room;    /* frames it has room for; 0: no limit */
    uint16_t listens; /* TCP port at which it answers */
    struct conn conns[CONNS];
    struct frame last[1], reply;
    bool has_reply;
    unsigned arps, unreachable, routers, neighbours, pongs;
    uint8_t dhcp[1024]; /* the last reply, from the BOOTP header on */
    size_t dhcp_len;
    uint8_t udp[65536];
    size_t udp_len;
    uint16_t udp_from, udp_to;
    size_t largest;                 /* frame that came */
    struct virtio_net_hdr_v1 large; /* of the last that said it is several */
    unsigned frames;
};

/* ---- What arrives. ---- */

static const char me4[] = "10.0.2.15", gateway4[] = "10.0.2.2";
static const char me6[] = "fec0::15", gateway6[] = "fec0::2";

static inline struct conn *conn_of(struct guest *g, uint16_t sport, uint16_t dport)
{
    for (unsigned i = 0; i < CONNS; i++)
        if (g->conns[i].used && g->conns[i].sport == sport && g->conns[i].dport == dport)
            return &g->conns[i];
    return NULL;
}

static inline struct conn *new_conn(struct guest *g, const char *peer, uint16_t sport, uint16_t dport)
{
    for (unsigned i = 0; i < CONNS; i++) {
        struct conn *c = &g->conns[i];

        if (c->used)
            continue;
        *c = (struct conn){.used = true, .v6 = strchr(peer, ':'), .sport = sport, .dport = dport, .seq = 1000 * sport};
        c->acked = c->seq;
        strcpy(c->peer, peer);
        return c;
    }
    fail_msg("too many connections");
    return NULL;
}

static inline void fill(uint8_t *p, size_t n, unsigned salt)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(i * 31 + i / 253 + salt);
}

/* At least PATTERN bytes of a stream, which repeats after so many, from its nth on. */
static inline const uint8_t *pattern(size_t nth)
{
    static uint8_t p[2 * PATTERN];

    if (!p[1])
        fill(p, sizeof(p), 0);
    return p + nth % PATTERN;
}

/* Data that comes in order. */
static inline void take_in(struct conn *c, const uint8_t *p, size_t n)
{
    if (c->patterned) {
        assert_memory_equal(p, pattern(c->in_len), n);
    } else if (n) {
        assert_true(c->in_len + n <= IN_MAX);
        c->in = realloc(c->in, c->in_len + n);
        assert_non_null(c->in);
        memcpy(c->in + c->in_len, p, n);
    }
    c->in_len += n;
    c->ack += (uint32_t)n;
}

static inline void tcp_came(struct guest *g, const char *from, const uint8_t *t, size_t len)
{
    uint16_t sport = get_be16(t + 2), dport = get_be16(t);
    size_t header = (t[12] >> 4) * 4u, n = len - header;
    struct conn *c = conn_of(g, sport, dport);
    uint32_t seq = get_be32(t + 4);

    if (!c && t[13] == SYN && sport == g->listens)
        c = new_conn(g, from, sport, dport);
    if (!c)
        return;
    if (t[13] & RST) {
        c->reset = true;
        return;
    }
    if (t[13] & ACK && (int32_t)(get_be32(t + 8) - c->acked) > 0)
        c->acked = get_be32(t + 8);
    if (t[13] & SYN) {
        c->ack = seq + 1;
        c->needs_syn = !(t[13] & ACK);
        c->needs_ack = !c->needs_syn;
        c->open = true;
        return;
    }
    if (n || t[13] & FIN)
        c->needs_ack = true;
    if (seq != c->ack)
        return;
    take_in(c, t + header, n);
    if (t[13] & FIN && !c->fin) {
        c->ack++;
        c->fin = true;
    }
}

static inline void udp_came(struct guest *g, const uint8_t *u, size_t len)
{
    size_t n = len - 8;

    g->udp_from = get_be16(u);
    g->udp_to = get_be16(u + 2);
    if (g->udp_to == 68) {
        assert_true(n <= sizeof(g->dhcp));
        memcpy(g->dhcp, u + 8, n);
        g->dhcp_len = n;
        return;
    }
    memcpy(g->udp, u + 8, n);
    g->udp_len = n;
}

static inline void arp_came(struct guest *g, const struct frame *f)
{
    static const uint8_t reply[] = {0, 1, 8, 0, 6, 4, 0, 2};

    g->arps++;
    if (get_be16(f->b + 20) != 1 || memcmp(f->b + 38, "\x0a\0\2\xf", 4))
        return;
    ethernet(&g->reply, 0x806);
    memcpy(g->reply.b, f->b + 6, 6);
    memcpy(g->reply.b + 14, reply, sizeof(reply));
    memcpy(g->reply.b + 22, mac, 6);
    memcpy(g->reply.b + 28, f->b + 38, 4);
    memcpy(g->reply.b + 32, f->b + 22, 10);
    g->reply.len = 42;
    g->has_reply = true;
}

static inline void icmp6_came(struct guest *g, const struct frame *f)
{
    const uint8_t *i = f->b + 54;
    char peer[INET6_ADDRSTRLEN], target[INET6_ADDRSTRLEN];

    g->routers += i[0] == 134;
    g->neighbours += i[0] == 136;
    g->pongs += i[0] == 129;
    g->unreachable += i[0] == 1;
    if (i[0] != 135)
        return;
    inet_ntop(AF_INET6, f->b + 22, peer, sizeof(peer));
    inet_ntop(AF_INET6, i + 8, target, sizeof(target));
    ip6(&g->reply, target, peer, 58, 32);
    g->reply.b[54] = 136;
    g->reply.b[58] = 0x60;
    memcpy(g->reply.b + 62, i + 8, 16);
    g->reply.b[78] = 2;
    g->reply.b[79] = 1;
    memcpy(g->reply.b + 80, mac, 6);
    finish6(&g->reply, 2);
    g->has_reply = true;
}

static inline void frame_came(struct guest *g, struct frame *f)
{
    char from[INET6_ADDRSTRLEN];

    g->frames++;
    g->largest = f->len > g->largest ? f->len : g->largest;
    switch (get_be16(f->b + 12)) {
    case 0x806:
        arp_came(g, f);
        break;
    case 0x800:
        assert_int_equal(csum_fold(csum_add(0, f->b + 14, 20)), 0);
        assert_int_equal(get_be16(f->b + 16), f->len - 14);
        inet_ntop(AF_INET, f->b + 26, from, sizeof(from));
        if (f->b[23] == 6)
            tcp_came(g, from, f->b + 34, f->len - 34);
        else if (f->b[23] == 17)
            udp_came(g, f->b + 34, f->len - 34);
        else if (f->b[23] == 1)
            f->b[34] == 3 ? g->unreachable++ : g->pongs++;
        break;
    case 0x86dd:
        inet_ntop(AF_INET6, f->b + 22, from, sizeof(from));
        if (f->b[20] == 6)
            tcp_came(g, from, f->b + 54, f->len - 54);
        else if (f->b[20] == 17)
            udp_came(g, f->b + 54, f->len - 54);
        else
            icmp6_came(g, f);
        break;
    }
}

/* What was left to do gives the checksum that it should. */
static inline void complete(struct frame *f, const struct virtio_net_hdr_v1 *h)
{
    size_t start = le16toh(h->csum_start), at = start + le16toh(h->csum_offset);
    uint16_t sum = csum_fold(csum_add(0, f->b + start, f->len - start));

    if (get_be16(f->b + 12) == 0x800)
        finish4(f, at - 34);
    else
        finish6(f, at - 54);
    assert_int_equal(get_be16(f->b + at), sum);
}

static inline void readable(struct net_user *u, unsigned queue)
{
    struct guest *g = container_of(u, struct guest, user);
    struct net_frame nf;

    while (!g->deaf && net_peek(g->n, queue, &nf)) {
        struct frame *f = g->last;

        assert_true(nf.len <= sizeof(f->b));
        iov_get(nf.iov, 0, f->b, nf.len);
        f->len = nf.len;
        if (nf.hdr.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
            complete(f, &nf.hdr);
        if (nf.hdr.gso_type)
            g->large = nf.hdr;
        net_next(g->n, queue);
        frame_came(g, f);
        if (g->room && !--g->room)
            g->deaf = true;
    }
}

static inline void writable(struct net_user *u, unsigned queue)
{
    (void)u;
    (void)queue;
}

/* ---- What is sent. ---- */

static inline void send_as(struct guest *g, struct frame *f, struct virtio_net_hdr_v1 hdr)
{
    struct iovec iov = {f->b, f->len};
    struct net_frame nf = {.hdr = hdr, .iov = &iov, .niov = 1, .len = f->len};

    assert_int_equal(net_send(g->n, 0, &nf), 0);
}

static inline void send_frame(struct guest *g, struct frame *f)
{
    send_as(g, f, (struct virtio_net_hdr_v1){0});
}

static inline void tcp_frame(struct frame *f, struct conn *c, uint8_t flags, const void *data, size_t n)
{
    uint8_t *t;

    if (c->v6)
        ip6(f, me6, c->peer, 6, 20 + n);
    else
        ip4(f, me4, c->peer, 6, 20 + n);
    t = f->b + (c->v6 ? 54 : 34);
    tcp_header(t, flags);
    put_be16(t, c->sport);
    put_be16(t + 2, c->dport);
    put_be32(t + 4, c->seq);
    put_be32(t + 8, flags & ACK ? c->ack : 0);
    put_be16(t + 14, WINDOW);
    if (n)
        memcpy(t + 20, data, n);
    if (c->v6)
        finish6(f, 16);
    else
        finish4(f, 16);
    c->seq += (uint32_t)n + !!(flags & (SYN | FIN));
}

static inline void tcp_send(struct guest *g, struct conn *c, uint8_t flags, const void *data, size_t n)
{
    static struct frame f;

    tcp_frame(&f, c, flags, data, n);
    send_frame(g, &f);
}

static inline void udp_send(struct guest *g, const char *to, uint16_t sport, uint16_t dport, const void *data, size_t n)
{
    static struct frame f;

    if (strchr(to, ':'))
        ip6(&f, me6, to, 17, 8 + n);
    else
        ip4(&f, me4, to, 17, 8 + n);
    udp_header(f.b + f.len - n - 8, sport, dport, 8 + n);
    memcpy(f.b + f.len - n, data, n);
    if (strchr(to, ':'))
        finish6(&f, 6);
    else
        finish4(&f, 6);
    send_frame(g, &f);
}

/* One round of the loop, and what the guest owes after it. */
static inline void step(struct guest *g)
{
    loop_once(g->loop, 20);
    if (g->has_reply) {
        g->has_reply = false;
        send_frame(g, &g->reply);
    }
    for (unsigned i = 0; i < CONNS; i++) {
        struct conn *c = &g->conns[i];
        uint8_t flags = c->needs_syn ? SYN | ACK : c->needs_ack ? ACK : 0;

        c->needs_ack = c->needs_syn = false; /* more may come at once */
        if (c->used && flags)
            tcp_send(g, c, flags, NULL, 0);
    }
}

#define until(g, condition)                        \
    do {                                           \
        unsigned steps_ = 0;                       \
        while (!(condition)) {                     \
            if (++steps_ > STEPS)                  \
                fail_msg("never: %s", #condition); \
            step(g);                               \
        }                                          \
    } while (0)

static inline void hear(struct guest *g, unsigned room)
{
    g->deaf = false;
    g->room = room;
    readable(&g->user, 0);
}

/* ---- The guest's network, and what it says of itself. ---- */

static inline int guest_try_card(struct guest *g, const char *options, const struct net_limits *card, struct err *err)
{
    memset(g, 0, sizeof(*g));
    g->user = (struct net_user){.readable = readable, .writable = writable};
    assert_int_equal(loop_create("test", &g->loop, err), 0);
    strcpy(g->dev.id, "net0");
    lane_init(&g->dev.lane, g->loop);
    g->n = xcalloc(1, net_user.size);
    opts_default(net_user.opts, g->n);
    assert_int_equal(opts_parse(net_user.opts, g->n, NULL, options, err), 0);
    return net_open(&net_user, g->n, &g->dev, &g->user, card, err);
}

static inline int guest_try(struct guest *g, const char *options, struct err *err)
{
    return guest_try_card(g, options, &(struct net_limits){0}, err);
}

static inline struct guest *guest_new(const char *options)
{
    static struct guest g;
    struct err err;

    if (guest_try(&g, options, &err))
        fail_msg("%s", err.msg);
    return &g;
}

static inline void guest_end(struct guest *g)
{
    lane_lock(&g->dev.lane);
    lane_drain(&g->dev.lane);
    net_close(g->n);
    opts_clear(net_user.opts, g->n);
    free(g->n);
    for (unsigned i = 0; i < CONNS; i++)
        free(g->conns[i].in);
    lane_unlock(&g->dev.lane);
    lane_fini(&g->dev.lane);
    loop_destroy(g->loop);
}

/* A number of the backend's information, in `object` there unless that is NULL; 0 when there is none. */
static inline json_int_t told(struct guest *g, const char *object, const char *name)
{
    json_t *info = net_info(g->n);
    json_int_t v = json_integer_value(json_object_get(object ? json_object_get(info, object) : info, name));

    json_decref(info);
    return v;
}

/* The host's port of the nth forward. */
static inline uint16_t forwarded(struct guest *g, size_t n)
{
    json_t *info = net_info(g->n);
    const char *host = json_string_value(json_object_get(json_array_get(json_object_get(info, "forwards"), n), "host"));
    uint16_t port;

    assert_non_null(host);
    port = (uint16_t)atoi(strrchr(host, ':') + 1);
    json_decref(info);
    return port;
}

static inline unsigned open_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    unsigned n = 0;

    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

/* ---- The host's side. ---- */

static inline int serve(int family, int type, uint16_t *port)
{
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr *a = family == AF_INET6 ? (struct sockaddr *)&in6 : (struct sockaddr *)&in;
    socklen_t len = family == AF_INET6 ? sizeof(in6) : sizeof(in);
    int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, a, len)) {
        if (fd >= 0)
            close(fd);
        *port = 0;
        return -1; /* a host without IPv6 */
    }
    assert_int_equal(type == SOCK_STREAM ? listen(fd, 100) : 0, 0);
    assert_int_equal(getsockname(fd, a, &len), 0);
    *port = ntohs(family == AF_INET6 ? in6.sin6_port : in.sin_port);
    return fd;
}

static inline int client_of(int type, uint16_t port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

static inline int accepted(struct guest *g, int server)
{
    int fd = -1;

    until(g, (fd = accept4(server, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0);
    return fd;
}

/* The nth connection, once the guest has answered it. */
static inline struct conn *called(struct guest *g, unsigned nth)
{
    until(g, g->conns[nth].open);
    return &g->conns[nth];
}

/* So many bytes, all of them. */
static inline void receive(struct guest *g, int fd, uint8_t *buf, size_t n)
{
    size_t got = 0;

    until(g, ({
              ssize_t r = recv(fd, buf + got, n - got, 0);
              got += r > 0 ? (size_t)r : 0;
              got == n;
          }));
}

static inline struct conn *connected(struct guest *g, const char *to, uint16_t port)
{
    static uint16_t next = 20000;
    struct conn *c = new_conn(g, to, next++, port);

    tcp_send(g, c, SYN, NULL, 0);
    until(g, c->open || c->reset);
    return c;
}

static inline void forget(struct conn *c)
{
    free(c->in);
    *c = (struct conn){0};
}

static inline void close_both(struct guest *g, struct conn *c, int fd)
{
    char byte;

    tcp_send(g, c, FIN | ACK, NULL, 0);
    until(g, recv(fd, &byte, 1, 0) == 0);
    close(fd);
    until(g, c->fin && c->acked == c->seq);
}
