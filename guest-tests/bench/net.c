/*
 * A small TCP/IPv4 for tools/bench: as much of RFC 9293 as bulk data, short questions and many connections need, with
 * the offloads that the NIC has.  op=send, receive: bytes=N on each of flows=N connections; op=echo: requests=N of one
 * byte, one after the other; op=connect: requests=N connections, one after the other; op=datagrams: requests=N of
 * block=BYTES to an echoing peer, depth=N under way; op=sink: waits for the connection that another guest's op=send
 * makes.  What is timed lies between "begin" and "end" on the debug port.
 */
#include "guest-tests/bench/slots.h"
#include "guest-tests/lib/cpu.h"
#include "guest-tests/lib/io.h"

enum {
    VIRTIO_NET = 1,
    F_CSUM = 0,
    F_GUEST_CSUM = 1,
    F_MTU = 3,
    F_MAC = 5,
    F_GUEST_TSO4 = 7,
    F_HOST_TSO4 = 11,
    NEEDS_CSUM = 1,
    DATA_VALID = 2,
    GSO_TCP4 = 1,

    ETHER_IP = 0x0800,
    ETHER_ARP = 0x0806,
    FIN = 1,
    SYN = 2,
    RST = 4,
    PSH = 8,
    ACK = 16,
    IP_TCP = 6,
    IP_UDP = 17,

    FLOWS = 64,
    PORT = 20000,   /* of the first flow, here */
    WINDOW = 65535, /* nobody scales it */
    SEGMENT_MAX = 61440,
    FRAME_MAX = 65536 + 64,
    RX_BUFFERS = 32 << 20, /* where they begin */
    PAYLOAD = 48 << 20,
};
static const uint64_t RETRY_TICKS = 600000000; /* some tenths of a second */

struct virtio_header {
    uint8_t flags, gso_type;
    uint16_t hdr_len, gso_size, csum_start, csum_offset, num_buffers;
} __attribute__((packed));

struct ether {
    uint8_t to[6], from[6];
    uint16_t type;
} __attribute__((packed));

struct arp {
    uint16_t hardware, protocol;
    uint8_t hlen, plen;
    uint16_t op;
    uint8_t sender[6];
    uint32_t sender_ip;
    uint8_t target[6];
    uint32_t target_ip;
} __attribute__((packed));

struct ip {
    uint8_t version, tos;
    uint16_t len, id, fragment;
    uint8_t ttl, protocol;
    uint16_t sum;
    uint32_t from, to;
} __attribute__((packed));

struct tcp {
    uint16_t from, to;
    uint32_t seq, ack;
    uint8_t offset, flags;
    uint16_t window, sum, urgent;
    uint8_t mss[4]; /* in a SYN only */
} __attribute__((packed));

struct udp {
    uint16_t from, to, len, sum;
} __attribute__((packed));

struct frame { /* as it lies in memory, what leaves and what arrives */
    struct virtio_header v;
    struct ether e;
    union {
        struct arp arp;
        struct {
            struct ip ip;
            union {
                struct tcp tcp;
                struct udp udp;
            };
        };
    };
} __attribute__((packed));

static const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

/* A connection.  Positions in the stream count from its SYN, which is 0; data begins at 1. */
struct flow {
    uint16_t port, peer_port, mss;
    uint64_t una, nxt, max; /* answered, to be sent next, sent at most */
    uint64_t size;          /* bytes to be sent so far */
    bool closing;           /* a FIN follows them */
    uint32_t rcv, window;
    uint64_t got;               /* bytes */
    bool heard, ended, ack_due; /* the peer's SYN, its FIN */
    uint64_t at;                /* of the last progress; ticks */
};

static struct nic {
    struct virtio v;
    struct slots rx, tx;
    struct frame frames[SLOTS]; /* that leave: headers */
    uint16_t idle[SLOTS];
    unsigned nidle;
    uint8_t mac[6], peer_mac[6];
    uint32_t ip, peer_ip; /* as on the wire */
    uint16_t mtu, ident;
    bool has_peer, csum, tso;
} nic;
static struct flow flows[FLOWS];

static uint16_t swap16(uint16_t v)
{
    return __builtin_bswap16(v);
}

static uint32_t swap32(uint32_t v)
{
    return __builtin_bswap32(v);
}

static uint64_t number(const char *name, uint64_t dflt)
{
    const char *text = word(name);

    return text ? parse_number(text, NULL) : dflt;
}

/* ---- Checksums [RFC 1071], in the order of the wire. ---- */

static uint64_t add(uint64_t sum, uint64_t v)
{
    bool carry = __builtin_add_overflow(sum, v, &sum);

    return sum + carry;
}

static uint64_t add_bytes(uint64_t sum, const void *data, size_t n)
{
    const uint8_t *p = data;
    uint64_t last = 0;

    for (; n >= 8; p += 8, n -= 8)
        sum = add(sum, read64(p));
    memcpy(&last, p, n);
    return add(sum, last);
}

static uint16_t fold(uint64_t sum)
{
    sum = (sum >> 32) + (uint32_t)sum;
    sum = (sum >> 32) + (uint32_t)sum;
    sum = (sum >> 16) + (uint16_t)sum;
    sum = (sum >> 16) + (uint16_t)sum;
    return (uint16_t)sum;
}

static uint64_t pseudo(const struct ip *ip, unsigned len)
{
    return (uint64_t)ip->from + ip->to + swap16(ip->protocol) + swap16((uint16_t)len);
}

/* ---- Frames. ---- */

static struct frame *frame_begin(uint16_t *slot, uint16_t type)
{
    struct frame *f;
    uint32_t len;

    while (slot_take(&nic.tx, slot, &len))
        nic.idle[nic.nidle++] = *slot;
    if (!nic.nidle)
        return NULL;
    *slot = nic.idle[--nic.nidle];
    f = &nic.frames[*slot];
    memset(f, 0, sizeof(*f));
    memcpy(f->e.from, nic.mac, 6);
    memcpy(f->e.to, nic.peer_mac, 6);
    f->e.type = swap16(type);
    return f;
}

static void frame_send(uint16_t slot, unsigned header, void *payload, unsigned n)
{
    const struct buffer b[] = {{&nic.frames[slot], offsetof(struct frame, arp) + header, false}, {payload, n, false}};

    slot_fill(&nic.tx, slot, b, n ? 2 : 1);
    slot_add(&nic.tx, slot);
}

static void arp_send(uint16_t op, const uint8_t *target)
{
    uint16_t slot;
    struct frame *f = frame_begin(&slot, ETHER_ARP);

    if (!f)
        return;
    memcpy(f->e.to, op == 1 ? broadcast : target, 6);
    f->arp = (struct arp){swap16(1), swap16(ETHER_IP), 6, 4, swap16(op)};
    memcpy(f->arp.sender, nic.mac, 6);
    f->arp.sender_ip = nic.ip;
    memcpy(f->arp.target, target, 6);
    f->arp.target_ip = nic.peer_ip;
    frame_send(slot, sizeof(struct arp), NULL, 0);
}

static void ip_fill(struct frame *f, uint8_t protocol, unsigned len)
{
    f->ip = (struct ip){.version = 0x45,
                        .len = swap16((uint16_t)(sizeof(struct ip) + len)),
                        .id = swap16(nic.ident++),
                        .ttl = 64,
                        .protocol = protocol,
                        .from = nic.ip,
                        .to = nic.peer_ip};
    f->ip.sum = (uint16_t)~fold(add_bytes(0, &f->ip, sizeof(f->ip)));
}

/* The checksum at `at` of the header behind IP's; leaves it to the device where that may be. */
static void l4_sum(struct frame *f, unsigned at, unsigned header, const void *payload, unsigned n)
{
    uint16_t sum = fold(pseudo(&f->ip, header + n));

    if (nic.csum) {
        f->v.flags = NEEDS_CSUM;
        f->v.csum_start = sizeof(struct ether) + sizeof(struct ip);
        f->v.csum_offset = (uint16_t)at;
    } else {
        sum = (uint16_t)~fold(add_bytes(add_bytes(sum, &f->tcp, header), payload, n));
    }
    memcpy((uint8_t *)&f->tcp + at, &sum, sizeof(sum));
}

/* ---- TCP. ---- */

static bool tcp_send(struct flow *w, uint64_t at, uint8_t flags, unsigned n)
{
    unsigned header = flags & SYN ? 24 : 20;
    uint16_t slot;
    struct frame *f = frame_begin(&slot, ETHER_IP);
    void *payload = phys(PAYLOAD);

    if (!f)
        return false;
    ip_fill(f, IP_TCP, header + n);
    f->tcp = (struct tcp){.from = swap16(w->port),
                          .to = swap16(w->peer_port),
                          .seq = swap32((uint32_t)at),
                          .ack = swap32(w->heard ? w->rcv : 0),
                          .offset = (uint8_t)(header << 2),
                          .flags = flags | (w->heard ? ACK : 0),
                          .window = swap16(WINDOW),
                          .mss = {2, 4, (uint8_t)((nic.mtu - 40) >> 8), (uint8_t)(nic.mtu - 40)}};
    l4_sum(f, offsetof(struct tcp, sum), header, payload, n);
    if (n > w->mss) {
        f->v.gso_type = GSO_TCP4;
        f->v.gso_size = w->mss;
        f->v.hdr_len = sizeof(struct ether) + sizeof(struct ip) + (uint16_t)header;
    }
    frame_send(slot, sizeof(struct ip) + header, payload, n);
    w->ack_due = false;
    return true;
}

/* What may leave now does. */
static void flow_send(struct flow *w)
{
    uint64_t end = 1 + w->size, now = rdtsc();

    if (w->una && !w->window && w->una < end) {
        /* The peer need not tell that its window is open again: a byte beyond it asks. */
        if (now - w->at > RETRY_TICKS && tcp_send(w, w->una, PSH, 1)) {
            w->nxt = w->una + 1;
            w->at = now;
        }
    } else if (w->una == w->max) {
        w->at = now;
    } else if (now - w->at > RETRY_TICKS) {
        w->nxt = w->una;
        w->at = now;
    }
    if (!w->nxt && tcp_send(w, 0, SYN, 0))
        w->nxt = 1;
    while (w->una && w->nxt < end) {
        uint64_t under_way = w->nxt - w->una, n = end - w->nxt, most = nic.tso ? SEGMENT_MAX : w->mss;

        if (under_way >= w->window)
            break;
        if (most > WINDOW / 2) /* so that one can be under way while another is made */
            most = WINDOW / 2;
        if (n > most)
            n = most;
        if (n > w->window - under_way)
            n = w->window - under_way;
        if (under_way && n < w->mss && n < most && w->nxt + n < end) /* no small ones while others are on their way */
            break;
        if (!tcp_send(w, w->nxt, PSH, (unsigned)n))
            break;
        w->nxt += n;
    }
    if (w->una && w->closing && w->nxt == end && tcp_send(w, end, FIN, 0))
        w->nxt++;
    if (w->nxt > w->max)
        w->max = w->nxt;
    if (w->ack_due)
        tcp_send(w, w->nxt, 0, 0);
}

static bool flow_done(const struct flow *w)
{
    return w->closing && w->ended && w->una == w->size + 2;
}

static void flow_open(struct flow *w, uint16_t port, uint16_t peer_port)
{
    *w = (struct flow){.port = port, .peer_port = peer_port, .mss = 536, .window = 536};
}

static void tcp_receive(const struct frame *f, unsigned len)
{
    const struct tcp *t = &f->tcp;
    unsigned header = t->offset >> 4 << 2, index = (uint16_t)(swap16(t->to) - PORT) % FLOWS, n;
    struct flow *w = &flows[index];
    uint32_t acked = swap32(t->ack) - (uint32_t)w->una;

    if (w->port != swap16(t->to) || header < 20 || header > len)
        return;
    if (!w->peer_port && t->flags & SYN)
        w->peer_port = swap16(t->from);
    CHECK(!(t->flags & RST));
    n = len - header;
    if (t->flags & SYN) {
        if (header >= 24 && t->mss[0] == 2)
            w->mss = (uint16_t)(t->mss[2] << 8 | t->mss[3]);
        if (w->mss > nic.mtu - 40)
            w->mss = nic.mtu - 40;
        w->rcv = swap32(t->seq) + 1;
        w->heard = w->ack_due = true;
    } else if (n || t->flags & FIN) {
        w->ack_due = true;
        if (swap32(t->seq) == w->rcv) {
            w->rcv += n;
            w->got += n;
            if (t->flags & FIN) {
                w->rcv++;
                w->ended = true;
            }
        }
    }
    if (t->flags & ACK && acked <= w->max - w->una) {
        w->window = swap16(t->window);
        if (acked) {
            w->una += acked;
            w->at = rdtsc();
            if (w->nxt < w->una)
                w->nxt = w->una;
        }
    }
}

/* ---- The receive ring. ---- */

static uint64_t datagrams; /* that came back */

static struct frame *rx_frame(uint16_t slot)
{
    return phys(RX_BUFFERS + (uint64_t)slot * FRAME_MAX);
}

static void ip_receive(const struct frame *f, uint32_t len)
{
    unsigned total = swap16(f->ip.len);

    if (f->ip.version != 0x45 || f->ip.to != nic.ip || total < 40 - 12 || total > len - offsetof(struct frame, ip))
        return;
    if (!(f->v.flags & (NEEDS_CSUM | DATA_VALID)))
        CHECK_EQ(fold(add_bytes(pseudo(&f->ip, total - sizeof(struct ip)), &f->tcp, total - sizeof(struct ip))),
                 0xffff);
    if (f->ip.protocol == IP_TCP)
        tcp_receive(f, total - sizeof(struct ip));
    else if (f->ip.protocol == IP_UDP)
        datagrams++;
}

static void arp_receive(const struct frame *f)
{
    if (f->arp.sender_ip != nic.peer_ip)
        return;
    memcpy(nic.peer_mac, f->arp.sender, 6);
    nic.has_peer = true;
    if (swap16(f->arp.op) == 1 && f->arp.target_ip == nic.ip)
        arp_send(2, f->arp.sender);
}

static void receive(void)
{
    uint16_t slot;
    uint32_t len;

    while (slot_take(&nic.rx, &slot, &len)) {
        const struct frame *f = rx_frame(slot);

        if (len >= offsetof(struct frame, tcp) && swap16(f->e.type) == ETHER_IP)
            ip_receive(f, len);
        else if (len >= offsetof(struct frame, arp) + sizeof(struct arp) && swap16(f->e.type) == ETHER_ARP)
            arp_receive(f);
        slot_add(&nic.rx, slot);
    }
}

static void turn(unsigned n)
{
    receive();
    for (unsigned i = 0; i < n; i++)
        flow_send(&flows[i]);
    slots_kick(&nic.tx);
    slots_kick(&nic.rx);
    asm volatile("pause");
}

static void nic_open(void)
{
    const uint64_t want = slots_features | 1 << F_CSUM | 1 << F_GUEST_CSUM | 1 << F_MTU | 1 << F_MAC |
                          1 << F_GUEST_TSO4 | 1 << F_HOST_TSO4;

    virtio_open(&nic.v, VIRTIO_NET, want);
    nic.csum = virtio_has(&nic.v, F_CSUM);
    nic.tso = nic.csum && virtio_has(&nic.v, F_HOST_TSO4);
    nic.mtu = virtio_has(&nic.v, F_MTU) ? read16(nic.v.config + 10) : 1500;
    for (unsigned i = 0; i < 6; i++)
        nic.mac[i] = read8(nic.v.config + i);
    slots_init(&nic.rx, &nic.v, 0);
    slots_init(&nic.tx, &nic.v, 1);
    virtio_go(&nic.v);
    for (uint16_t i = 0; i < SLOTS; i++) {
        const struct buffer b = {rx_frame(i), FRAME_MAX, true};

        slot_fill(&nic.rx, i, &b, 1);
        slot_add(&nic.rx, i);
        nic.idle[nic.nidle++] = i;
    }
    slots_kick(&nic.rx);
    memset(phys(PAYLOAD), 'b', SEGMENT_MAX);
}

static void find_peer(void)
{
    static const uint8_t nobody[6];
    uint64_t at = rdtsc() - RETRY_TICKS;

    while (!nic.has_peer) {
        if (rdtsc() - at >= RETRY_TICKS) {
            arp_send(1, nobody);
            at = rdtsc();
        }
        turn(0);
    }
}

/* ---- What is measured. ---- */

static uint16_t port;
static unsigned nflows, depth, block;
static uint64_t bytes, requests;

/* The first `n` connections, until all are through. */
static void finish(unsigned n)
{
    bool done = false;

    while (!done) {
        turn(n);
        done = true;
        for (unsigned i = 0; i < n; i++)
            done &= flow_done(&flows[i]);
    }
}

static void send(void)
{
    for (unsigned i = 0; i < nflows; i++) {
        flow_open(&flows[i], (uint16_t)(PORT + i), port);
        flows[i].size = bytes;
        flows[i].closing = true;
    }
    finish(nflows);
}

static void receive_all(void)
{
    unsigned ended = 0;

    for (unsigned i = 0; i < nflows; i++)
        flow_open(&flows[i], (uint16_t)(PORT + i), port);
    while (ended < nflows) {
        turn(nflows);
        ended = 0;
        for (unsigned i = 0; i < nflows; i++)
            ended += flows[i].closing = flows[i].ended;
    }
    finish(nflows);
    for (unsigned i = 0; i < nflows; i++)
        CHECK_EQ(flows[i].got, bytes);
}

static void echo(void)
{
    struct flow *w = &flows[0];

    flow_open(w, PORT, port);
    while (w->got < requests) {
        w->size = w->got + 1;
        turn(1);
    }
    w->closing = true;
    finish(1);
}

static void connect(void)
{
    for (uint64_t i = 0; i < requests; i++) {
        flow_open(&flows[0], (uint16_t)(PORT + i * FLOWS % (65536 - PORT) / FLOWS * FLOWS), port);
        flows[0].closing = true;
        finish(1);
    }
}

static void echo_datagrams(void)
{
    uint64_t sent = 0, lost = 0, last = 0, at = rdtsc();

    while (datagrams < requests) {
        uint16_t slot;
        struct frame *f;

        if (datagrams != last) {
            last = datagrams;
            at = rdtsc();
        } else if (rdtsc() - at > RETRY_TICKS / 8) { /* nobody says when one is lost */
            lost = sent - datagrams;
            at = rdtsc();
        }
        while (sent - lost - datagrams < depth && (f = frame_begin(&slot, ETHER_IP))) {
            ip_fill(f, IP_UDP, sizeof(struct udp) + block);
            f->udp = (struct udp){swap16(PORT), swap16(port), swap16((uint16_t)(sizeof(struct udp) + block)), 0};
            l4_sum(f, offsetof(struct udp, sum), sizeof(struct udp), phys(PAYLOAD), block);
            frame_send(slot, sizeof(struct ip) + sizeof(struct udp), phys(PAYLOAD), block);
            sent++;
        }
        turn(0);
    }
}

static void sink(void)
{
    struct flow *w = &flows[0];

    flow_open(w, port, 0);
    printf("ready\n");
    while (!w->heard)
        turn(0);
    /* The peer may be gone before it has answered our FIN. */
    for (uint64_t at = 0; !flow_done(w) && (!at || rdtsc() - at < 2 * RETRY_TICKS);) {
        w->closing = w->ended;
        if (w->ended && !at)
            at = rdtsc();
        turn(1);
    }
    CHECK_EQ(w->got, bytes);
}

static const struct {
    const char *name;
    void (*run)(void);
    bool waits; /* for the peer */
} ops[] = {
    {"send", send, false},       {"receive", receive_all, false},      {"echo", echo, false},
    {"connect", connect, false}, {"datagrams", echo_datagrams, false}, {"sink", sink, true},
};

static bool is(const char *text, const char *name)
{
    size_t n = strlen(name);

    return !memcmp(text, name, n) && (!text[n] || text[n] == ' ');
}

int main(void)
{
    const char *op = word("op");
    bool found = false;

    CHECK(op);
    port = (uint16_t)number("port", 0);
    nflows = (unsigned)number("flows", 1);
    depth = (unsigned)number("depth", 32);
    block = (unsigned)number("block", 64);
    bytes = number("bytes", 0);
    requests = number("requests", 0);
    CHECK(port && nflows <= FLOWS && block <= 1400 && depth <= SLOTS / 2);
    nic.ip = swap32((uint32_t)number("ip", 0x0a00020f));
    nic.peer_ip = swap32((uint32_t)number("peer", 0x0a000202));
    nic_open();
    for (unsigned i = 0; i < array_len(ops); i++) {
        if (!is(op, ops[i].name))
            continue;
        found = true;
        if (!ops[i].waits)
            find_peer();
        printf("begin\n");
        ops[i].run();
        printf("end\n");
    }
    CHECK(found);
    return EXIT_PASSED;
}
