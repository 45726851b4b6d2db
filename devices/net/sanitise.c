/*
 * Ethernet [RFC 894], ARP [RFC 826], IPv4 [RFC 791], IPv6 [RFC 8200], TCP [RFC 9293], UDP [RFC 768], ICMP [RFC 792,
 * 4443], neighbour discovery [RFC 4861], DHCP [RFC 2131, 8415]: the rules that matter are in sanitise.h.
 */
#include "devices/net/sanitise.h"

#include <net/ethernet.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>

#include "devices/net/csum.h"
#include "vmm/base/clock.h"

enum {
    ETH = 14,
    IP4 = 20,
    IP6 = 40,
    CHATTER_RATE = 500,
    UDP_FORGET_S = 60, /* after this a flow counts as new once more; libslirp closes its socket after 240 */
    DATAGRAM_S = 2,    /* to be put together */
    PORT_DNS = 53,
    PORT_TFTP = 69,
    PORT_DHCP_SERVER = 67,
    PORT_DHCP_CLIENT = 68,
    PORT_DHCP6_SERVER = 547,
    BOOTP_FIXED = 236, /* before the options */
    DHCP_COOKIE = 0x63825363,
    DHCP_MESSAGE_TYPE = 53,
    DHCP6_INFORMATION_REQUEST = 11,
    MLD2_REPORT = 143,
};

const char *const san_reason_names[SAN_REASONS] = {
    [SAN_SHORT] = "short",
    [SAN_ETHERNET] = "ethernet-type",
    [SAN_MAC] = "mac",
    [SAN_ARP] = "arp",
    [SAN_LENGTH] = "length",
    [SAN_OPTION] = "ip-option",
    [SAN_EXTENSION] = "ip-extension",
    [SAN_FRAGMENT] = "fragment",
    [SAN_SOURCE] = "source",
    [SAN_DESTINATION] = "destination",
    [SAN_GROUP] = "group",
    [SAN_PROTOCOL] = "protocol",
    [SAN_TCP] = "tcp",
    [SAN_ORDER] = "tcp-order",
    [SAN_UDP] = "udp",
    [SAN_NDP] = "ndp",
    [SAN_DHCP] = "dhcp",
    [SAN_TFTP] = "tftp",
    [SAN_RESTRICTED] = "restricted",
    [SAN_RATE] = "connection-rate",
    [SAN_FULL] = "max-connections",
    [SAN_CHATTER] = "chatter",
};

/* A frame on its way through: everything up to `l4` is known to be there and right. */
struct packet {
    uint8_t *frame, *ip, *l4;
    size_t len;   /* of the frame */
    size_t l4len; /* up to the packet's end, which is the frame's */
    uint64_t now_ns;
    bool v6;
};

/* Each check answers with one of these. */
enum { OK = SAN_REASONS, WAIT };

void sanitiser_init(struct sanitiser *s, const struct san_rules *rules)
{
    memset(s, 0, offsetof(struct sanitiser, order));
    tcp_order_init(&s->order); /* flows of another seed are none, those of UDP too */
    for (unsigned i = 0; i < SAN_DATAGRAMS; i++)
        s->datagrams[i].used = false;
    s->rules = *rules;
    s->connections = (struct san_bucket){.rate = rules->rate, .left = rules->rate};
    s->chatter = (struct san_bucket){.rate = CHATTER_RATE, .left = CHATTER_RATE};
}

static bool take_token(struct san_bucket *b, uint64_t now_ns)
{
    uint64_t fresh;

    if (!b->rate)
        return true;
    if (!b->at_ns)
        b->at_ns = now_ns;
    if (now_ns - b->at_ns >= NS_PER_SEC) { /* first: the product below must not overflow */
        b->left = b->rate;
        b->at_ns = now_ns;
    }
    fresh = (now_ns - b->at_ns) * b->rate / NS_PER_SEC;
    if (fresh) {
        b->left = (uint32_t)min_u64(b->rate, b->left + fresh);
        b->at_ns += fresh * NS_PER_SEC / b->rate;
    }
    if (!b->left)
        return false;
    b->left--;
    return true;
}

static unsigned chatter(struct sanitiser *s, const struct packet *p)
{
    return take_token(&s->chatter, p->now_ns) ? OK : SAN_CHATTER;
}

static unsigned new_connection(struct sanitiser *s, const struct packet *p)
{
    if (s->open >= s->rules.max)
        return SAN_FULL;
    return take_token(&s->connections, p->now_ns) ? OK : SAN_RATE;
}

/* ---- Ethernet and ARP. ---- */

static unsigned check_mac(struct sanitiser *s, const uint8_t *mac)
{
    static const uint8_t none[6];

    for (unsigned i = 0; i < s->nmacs; i++)
        if (!memcmp(s->macs[i], mac, 6))
            return OK;
    /* 52:55 and 52:56 are what libslirp's own addresses begin with. */
    if (mac[0] & 1 || !memcmp(mac, none, 6) || (mac[0] == 0x52 && (mac[1] == 0x55 || mac[1] == 0x56)) ||
        s->nmacs == SAN_MACS)
        return SAN_MAC;
    memcpy(s->macs[s->nmacs++], mac, 6);
    return OK;
}

static bool is_in(struct in_addr a, struct in_addr net, struct in_addr mask)
{
    return (a.s_addr & mask.s_addr) == net.s_addr;
}

static struct in_addr addr4(const uint8_t *p)
{
    struct in_addr a;

    memcpy(&a, p, sizeof(a));
    return a;
}

/* An address that the guest may have. */
static bool is_guest4(const struct sanitiser *s, struct in_addr a)
{
    const struct san_rules *r = &s->rules;
    uint32_t machine = a.s_addr & ~r->mask.s_addr;

    return is_in(a, r->net, r->mask) && machine && machine != ~r->mask.s_addr && a.s_addr != r->host.s_addr &&
           a.s_addr != r->dns.s_addr;
}

static unsigned check_arp(struct sanitiser *s, struct packet *p)
{
    const uint8_t *a = p->frame + ETH;
    uint16_t op;
    struct in_addr sender;

    if (p->len < ETH + 28)
        return SAN_SHORT;
    p->len = ETH + 28;
    op = get_be16(a + 6);
    sender = addr4(a + 14);
    if (get_be16(a) != 1 || get_be16(a + 2) != ETHERTYPE_IP || a[4] != 6 || a[5] != 4 || (op != 1 && op != 2) ||
        memcmp(a + 8, p->frame + 6, 6) || (sender.s_addr && !is_guest4(s, sender)))
        return SAN_ARP;
    return chatter(s, p);
}

/* ---- What both kinds of IP carry. ---- */

static bool is_net6(const uint8_t *a, const struct in6_addr *b)
{
    return !memcmp(a, b, 8);
}

/* An address that libslirp takes for the host's loopback. */
static bool is_loopback(const struct sanitiser *s, const struct packet *p)
{
    return p->v6 ? is_net6(p->ip + 24, &s->rules.host6) && memcmp(p->ip + 24, &s->rules.dns6, 16)
                 : addr4(p->ip + 16).s_addr == s->rules.host.s_addr;
}

static bool options_fit(const uint8_t *o, size_t n)
{
    while (n && *o != TCPOPT_EOL) {
        size_t len = 1;

        if (*o != TCPOPT_NOP) {
            if (n < 2 || o[1] < 2 || o[1] > n)
                return false;
            len = o[1];
        }
        o += len;
        n -= len;
    }
    return true;
}

/* Whatever urgent data means to the guest, it gets there with the rest of the stream. */
static void clear_urgent(struct sanitiser *s, uint8_t *t)
{
    uint16_t flags = get_be16(t + 12), pointer = get_be16(t + 18), calm = flags & (uint16_t)~TH_URG;

    if (!(flags & TH_URG) && !pointer)
        return;
    put_be16(t + 16, csum_change(csum_change(get_be16(t + 16), flags, calm), pointer, 0));
    put_be16(t + 12, calm);
    put_be16(t + 18, 0);
    s->urgent++;
}

static uint16_t tcp_sum(const struct packet *p)
{
    const uint8_t pseudo[4] = {0, IPPROTO_TCP, (uint8_t)(p->l4len >> 8), (uint8_t)p->l4len};
    uint64_t sum = csum_add(0, pseudo, sizeof(pseudo));

    sum = p->v6 ? csum_add(sum, p->ip + 8, 32) : csum_add(sum, p->ip + 12, 8);
    return csum_fold(csum_add(sum, p->l4, p->l4len));
}

/* Leaves a header that begins at `seq`. */
static void empty_segment(struct packet *p, size_t header, uint32_t seq)
{
    uint8_t *t = p->l4;

    p->len -= p->l4len - header;
    p->l4len = header;
    if (p->v6) {
        put_be16(p->ip + 4, (uint16_t)header);
    } else {
        uint16_t total = get_be16(p->ip + 2);

        put_be16(p->ip + 2, (uint16_t)(IP4 + header));
        put_be16(p->ip + 10, csum_change(get_be16(p->ip + 10), total, (uint16_t)(IP4 + header)));
    }
    t[13] &= (uint8_t) ~(TH_FIN | TH_PUSH);
    put_be32(t + 4, seq);
    put_be16(t + 16, 0);
    put_be16(t + 16, tcp_sum(p));
}

static void keep_order(struct sanitiser *s, struct packet *p, size_t header)
{
    const uint8_t *t = p->l4, *from = p->ip + (p->v6 ? 8 : 12);
    size_t n = p->v6 ? 16 : 4;
    uint32_t taken = (uint32_t)(p->l4len - header) + !!(t[13] & TH_FIN), seq = get_be32(t + 4);

    if (!taken || t[13] & (TH_SYN | TH_RST) ||
        tcp_order_pass(&s->order, tcp_order_key(&s->order, from, from + n, n, t, t + 2), seq, taken, &seq))
        return;
    s->drops[SAN_ORDER]++;
    empty_segment(p, header, seq);
}

static unsigned check_tcp(struct sanitiser *s, struct packet *p)
{
    uint8_t *t = p->l4;
    size_t header;

    if (p->l4len < 20)
        return SAN_SHORT;
    header = (t[12] >> 4) * 4u;
    if (header < 20 || header > p->l4len || !options_fit(t + 20, header - 20) ||
        (t[13] & TH_SYN && t[13] & (TH_FIN | TH_RST)))
        return SAN_TCP;
    clear_urgent(s, t);
    if ((t[13] & (TH_SYN | TH_ACK)) != TH_SYN) {
        keep_order(s, p, header);
        return OK;
    }
    /* libslirp itself looks at the port and four bytes of the address, and knows IPv4 only. */
    if (s->rules.restricted && p->v6)
        return SAN_RESTRICTED;
    return s->rules.answers_only && is_loopback(s, p) ? SAN_DESTINATION : new_connection(s, p);
}

static unsigned check_dhcp(struct sanitiser *s, const struct packet *p)
{
    const uint8_t *b = p->l4 + 8;
    size_t n = p->l4len - 8, at = BOOTP_FIXED + 4;
    bool has_type = false;

    if (n < at || b[0] != 1 || b[1] != 1 || b[2] != 6 || memcmp(b + 28, p->frame + 6, 6) ||
        get_be32(b + BOOTP_FIXED) != DHCP_COOKIE)
        return SAN_DHCP;
    while (at < n && b[at] != 255) {
        if (!b[at]) {
            at++;
            continue;
        }
        if (n - at < 2 || b[at + 1] > n - at - 2)
            return SAN_DHCP;
        has_type |= b[at] == DHCP_MESSAGE_TYPE && b[at + 1] >= 1;
        at += 2u + b[at + 1];
    }
    return has_type || s->rules.tftp ? chatter(s, p) : SAN_DHCP;
}

static unsigned check_dhcp6(struct sanitiser *s, const struct packet *p)
{
    const uint8_t *b = p->l4 + 8;
    size_t n = p->l4len - 8;

    if (n < 4 || b[0] != DHCP6_INFORMATION_REQUEST)
        return SAN_DHCP;
    for (b += 4, n -= 4; n;) {
        size_t len;

        if (n < 4 || (len = get_be16(b + 2)) > n - 4)
            return SAN_DHCP;
        b += 4 + len;
        n -= 4 + len;
    }
    return chatter(s, p);
}

static bool has_port(const struct san_ports *p, uint16_t port)
{
    return p->bits[port / 64] >> (port % 64) & 1;
}

static void add_port(struct san_ports *p, uint16_t port)
{
    p->bits[port / 64] |= 1ull << (port % 64);
}

static void forget_ports(struct sanitiser *s, uint64_t now_ns)
{
    if (now_ns - s->udp_at_ns < UDP_FORGET_S * NS_PER_SEC)
        return;
    s->udp_at_ns = now_ns;
    s->minute++;
    s->spoke_before = s->spoke;
    s->spoke = (struct san_ports){0};
}

void sanitiser_forwards(struct sanitiser *s, uint16_t port)
{
    add_port(&s->forwarded, port);
}

/*
 * libslirp keeps a socket for each address and port of the guest's.  Where it has one not yet, or might have closed it
 * again, which it soon does with one that has asked a name server, the frame begins a connection.
 */
static unsigned udp_flow(struct sanitiser *s, const struct packet *p)
{
    uint16_t from = get_be16(p->l4), to = get_be16(p->l4 + 2);
    const uint8_t *src = p->ip + (p->v6 ? 8 : 12);
    unsigned verdict = OK;
    uint32_t flow;

    if (s->rules.restricted)
        return SAN_RESTRICTED;
    forget_ports(s, p->now_ns);
    if (s->rules.answers_only && is_loopback(s, p) &&
        (!has_port(&s->forwarded, from) || (!has_port(&s->spoke, to) && !has_port(&s->spoke_before, to))))
        return SAN_DESTINATION;
    flow = (uint32_t)tcp_order_key(&s->order, src, src, p->v6 ? 16 : 4, p->l4, p->l4) ^ s->minute;
    if (s->udp_flows[from] != flow)
        verdict = new_connection(s, p);
    if (verdict == OK)
        s->udp_flows[from] = to == PORT_DNS ? 0 : flow;
    return verdict;
}

static bool is_udp(const struct packet *p)
{
    return p->l4len >= 8 && get_be16(p->l4 + 4) == p->l4len;
}

/* ---- IPv4. ---- */

static unsigned check_udp4(struct sanitiser *s, const struct packet *p)
{
    const struct san_rules *r = &s->rules;
    struct in_addr dst = addr4(p->ip + 16);
    uint16_t port;

    if (!is_udp(p))
        return SAN_UDP;
    port = get_be16(p->l4 + 2);
    if (port == PORT_DHCP_SERVER && (dst.s_addr == r->host.s_addr || dst.s_addr == INADDR_BROADCAST))
        return check_dhcp(s, p);
    if (dst.s_addr == INADDR_BROADCAST)
        return SAN_GROUP;
    if (port == PORT_TFTP && dst.s_addr == r->host.s_addr)
        return r->tftp ? chatter(s, p) : SAN_TFTP;
    return udp_flow(s, p);
}

static unsigned check_icmp4(struct sanitiser *s, const struct packet *p)
{
    if (p->l4len < 8)
        return SAN_SHORT;
    if (p->l4[0] != ICMP_ECHO || p->l4[1])
        return SAN_PROTOCOL;
    if (s->open >= s->rules.max)
        return SAN_FULL;
    return chatter(s, p);
}

static unsigned check_source4(const struct sanitiser *s, const struct packet *p)
{
    struct in_addr src = addr4(p->ip + 12), dst = addr4(p->ip + 16);

    if (is_guest4(s, src))
        return OK;
    return !src.s_addr && dst.s_addr == INADDR_BROADCAST && p->ip[9] == IPPROTO_UDP && p->l4len >= 8 &&
                   get_be16(p->l4) == PORT_DHCP_CLIENT && get_be16(p->l4 + 2) == PORT_DHCP_SERVER
               ? OK
               : SAN_SOURCE;
}

static unsigned check_destination4(const struct sanitiser *s, struct in_addr dst)
{
    uint32_t a = ntohl(dst.s_addr);

    if (a >> 24 == 0 || a >> 24 == 127 || a >> 16 == 0xa9fe || (a >> 28 == 15 && a != INADDR_BROADCAST))
        return SAN_DESTINATION;
    if (a >> 28 == 14 ||
        (is_in(dst, s->rules.net, s->rules.mask) && (dst.s_addr | s->rules.mask.s_addr) == INADDR_BROADCAST))
        return SAN_GROUP;
    return OK;
}

static unsigned check_carried4(struct sanitiser *s, struct packet *p)
{
    unsigned verdict = check_source4(s, p);

    if (verdict == OK)
        verdict = check_destination4(s, addr4(p->ip + 16));
    if (verdict != OK)
        return verdict;
    switch (p->ip[9]) {
    case IPPROTO_TCP:
        return addr4(p->ip + 16).s_addr == INADDR_BROADCAST ? SAN_GROUP : check_tcp(s, p);
    case IPPROTO_UDP:
        return check_udp4(s, p);
    case IPPROTO_ICMP:
        return addr4(p->ip + 16).s_addr == INADDR_BROADCAST ? SAN_GROUP : check_icmp4(s, p);
    default:
        return SAN_PROTOCOL;
    }
}

static struct san_datagram *find_datagram(struct sanitiser *s, const uint8_t *ip)
{
    for (unsigned i = 0; i < SAN_DATAGRAMS; i++) {
        struct san_datagram *d = &s->datagrams[i];

        if (d->used && d->id == get_be16(ip + 4) && d->proto == ip[9] && d->src.s_addr == addr4(ip + 12).s_addr &&
            d->dst.s_addr == addr4(ip + 16).s_addr)
            return d;
    }
    return NULL;
}

/* A free one, or the oldest, which has had its chance. */
static struct san_datagram *new_datagram(struct sanitiser *s, const struct packet *p)
{
    struct san_datagram *d = &s->datagrams[0];

    for (unsigned i = 0; i < SAN_DATAGRAMS && d->used; i++)
        if (!s->datagrams[i].used || s->datagrams[i].since_ns < d->since_ns)
            d = &s->datagrams[i];
    if (d->used)
        s->drops[SAN_FRAGMENT]++;
    d->used = true;
    d->proto = p->ip[9];
    d->id = get_be16(p->ip + 4);
    d->src = addr4(p->ip + 12);
    d->dst = addr4(p->ip + 16);
    d->since_ns = p->now_ns;
    d->len = 0;
    memcpy(d->frame, p->frame, ETH + IP4);
    return d;
}

/* Makes `p` the whole datagram when this was its last fragment. */
static unsigned add_fragment(struct sanitiser *s, struct packet *p)
{
    uint16_t field = get_be16(p->ip + 6);
    size_t off = (field & 0x1fff) * 8u;
    bool more = field & 0x2000;
    struct san_datagram *d = find_datagram(s, p->ip);

    if (d && p->now_ns - d->since_ns >= DATAGRAM_S * NS_PER_SEC) {
        d->used = false;
        d = NULL;
    }
    if (!d && !off && more && (p->ip[9] == IPPROTO_UDP || p->ip[9] == IPPROTO_ICMP))
        d = new_datagram(s, p);
    if (!d)
        return SAN_FRAGMENT;
    if (field & 0x8000 || off != d->len || !p->l4len || (more && p->l4len % 8) ||
        p->l4len > (size_t)SAN_DATAGRAM_MAX - IP4 - d->len) {
        d->used = false;
        return SAN_FRAGMENT;
    }
    memcpy(d->frame + ETH + IP4 + off, p->l4, p->l4len);
    d->len += p->l4len;
    if (more)
        return WAIT;
    d->used = false;
    *p = (struct packet){.frame = d->frame,
                         .ip = d->frame + ETH,
                         .l4 = d->frame + ETH + IP4,
                         .len = ETH + IP4 + d->len,
                         .l4len = d->len,
                         .now_ns = p->now_ns};
    put_be16(p->ip + 2, (uint16_t)(IP4 + d->len));
    put_be16(p->ip + 6, 0);
    put_be16(p->ip + 10, 0);
    put_be16(p->ip + 10, csum_fold(csum_add(0, p->ip, IP4)));
    return OK;
}

static unsigned check_ip4(struct sanitiser *s, struct packet *p)
{
    size_t header, total;
    unsigned verdict;

    if (p->len < ETH + IP4)
        return SAN_SHORT;
    header = (p->ip[0] & 15) * 4u;
    total = get_be16(p->ip + 2);
    if (p->ip[0] >> 4 != 4 || header < IP4 || total < header || total > p->len - ETH)
        return SAN_LENGTH;
    if (p->ip[9] == IPPROTO_IGMP)
        return SAN_GROUP;
    if (header != IP4)
        return SAN_OPTION;
    p->len = ETH + total;
    p->l4 = p->ip + IP4;
    p->l4len = total - IP4;
    if (get_be16(p->ip + 6) & (uint16_t)~0x4000) {
        verdict = add_fragment(s, p);
        if (verdict != OK)
            return verdict;
    }
    return check_carried4(s, p);
}

/* ---- IPv6. ---- */

static bool is_link_local(const uint8_t *a)
{
    return a[0] == 0xfe && (a[1] & 0xc0) == 0x80;
}

/* The gateway's: its two addresses, with the network's prefix or that of the link. */
static bool is_gateway6(const struct sanitiser *s, const uint8_t *a)
{
    const struct san_rules *r = &s->rules;

    return (is_net6(a, &r->host6) || is_link_local(a)) &&
           (!memcmp(a + 8, r->host6.s6_addr + 8, 8) || !memcmp(a + 8, r->dns6.s6_addr + 8, 8));
}

static unsigned check_ndp(struct sanitiser *s, const struct packet *p)
{
    static const uint8_t fixed[] = {[ND_ROUTER_SOLICIT - ND_ROUTER_SOLICIT] = 8,
                                    [ND_NEIGHBOR_SOLICIT - ND_ROUTER_SOLICIT] = 24,
                                    [ND_NEIGHBOR_ADVERT - ND_ROUTER_SOLICIT] = 24};
    unsigned kind = p->l4[0] - ND_ROUTER_SOLICIT;
    size_t at = kind < array_len(fixed) ? fixed[kind] : 0;

    if (!at || p->l4len < at || p->ip[7] != 255 || p->l4[1] || (at == 24 && p->l4[8] == 0xff))
        return SAN_NDP;
    while (at < p->l4len) {
        if (p->l4len - at < 8 || !p->l4[at + 1] || p->l4[at + 1] * 8u > p->l4len - at)
            return SAN_NDP;
        at += p->l4[at + 1] * 8u;
    }
    return chatter(s, p);
}

static unsigned check_icmp6(struct sanitiser *s, const struct packet *p)
{
    if (p->l4len < 8)
        return SAN_SHORT;
    if (p->l4[0] >= ND_ROUTER_SOLICIT && p->l4[0] <= ND_REDIRECT)
        return check_ndp(s, p);
    if ((p->l4[0] >= MLD_LISTENER_QUERY && p->l4[0] <= MLD_LISTENER_REDUCTION) || p->l4[0] == MLD2_REPORT)
        return SAN_GROUP;
    /* libslirp cannot ping beyond itself. */
    return p->l4[0] == ICMP6_ECHO_REQUEST && !p->l4[1] && is_gateway6(s, p->ip + 24) ? chatter(s, p) : SAN_PROTOCOL;
}

static unsigned check_udp6(struct sanitiser *s, const struct packet *p)
{
    static const uint8_t dhcp_servers[16] = {0xff, 2, [13] = 1, [15] = 2};
    const uint8_t *dst = p->ip + 24;
    uint16_t port;

    if (!is_udp(p) || !get_be16(p->l4 + 6))
        return SAN_UDP;
    port = get_be16(p->l4 + 2);
    if (port == PORT_DHCP6_SERVER && (!memcmp(dst, dhcp_servers, 16) || is_gateway6(s, dst)))
        return check_dhcp6(s, p);
    if (dst[0] == 0xff)
        return SAN_GROUP;
    if (port == PORT_TFTP && is_gateway6(s, dst))
        return s->rules.tftp ? chatter(s, p) : SAN_TFTP;
    return udp_flow(s, p);
}

static unsigned check_addresses6(const struct sanitiser *s, const struct packet *p)
{
    static const uint8_t nothing[16];
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    const uint8_t *src = p->ip + 8, *dst = p->ip + 24;
    bool icmp = p->ip[6] == IPPROTO_ICMPV6;

    if (!memcmp(src, nothing, 16)) { /* has none yet */
        if (!icmp || (p->l4[0] != ND_ROUTER_SOLICIT && p->l4[0] != ND_NEIGHBOR_SOLICIT))
            return SAN_SOURCE;
    } else if ((!is_link_local(src) && !is_net6(src, &s->rules.host6)) || is_gateway6(s, src)) {
        return SAN_SOURCE;
    }
    if (!memcmp(dst, nothing, 12) || !memcmp(dst, mapped, 12) || (is_link_local(dst) && !icmp))
        return SAN_DESTINATION;
    return OK;
}

/* Behind a router alert, as it has to be [RFC 3810 5]. */
static bool is_mld(const struct packet *p)
{
    return p->ip[6] == IPPROTO_HOPOPTS && p->l4len >= 8 && p->l4[0] == IPPROTO_ICMPV6 && !p->l4[1] && p->l4[2] == 5;
}

static unsigned check_ip6(struct sanitiser *s, struct packet *p)
{
    unsigned verdict;
    size_t payload;

    if (p->len < ETH + IP6)
        return SAN_SHORT;
    payload = get_be16(p->ip + 4);
    if (p->ip[0] >> 4 != 6 || !payload || payload > p->len - ETH - IP6)
        return SAN_LENGTH;
    p->v6 = true;
    p->len = ETH + IP6 + payload;
    p->l4 = p->ip + IP6;
    p->l4len = payload;
    if (is_mld(p))
        return SAN_GROUP;
    verdict = check_addresses6(s, p);
    if (verdict != OK)
        return verdict;
    switch (p->ip[6]) {
    case IPPROTO_TCP:
        return p->ip[24] == 0xff ? SAN_GROUP : check_tcp(s, p);
    case IPPROTO_UDP:
        return check_udp6(s, p);
    case IPPROTO_ICMPV6:
        return check_icmp6(s, p);
    case IPPROTO_HOPOPTS:
    case IPPROTO_ROUTING:
    case IPPROTO_FRAGMENT:
    case IPPROTO_DSTOPTS:
    case IPPROTO_AH:
    case IPPROTO_ESP:
    case IPPROTO_NONE:
        return SAN_EXTENSION;
    default:
        return SAN_PROTOCOL;
    }
}

static unsigned check(struct sanitiser *s, struct packet *p)
{
    unsigned verdict;

    if (p->len < ETH)
        return SAN_SHORT;
    verdict = check_mac(s, p->frame + 6);
    if (verdict != OK)
        return verdict;
    switch (get_be16(p->frame + 12)) {
    case ETHERTYPE_ARP:
        return s->rules.ipv4 ? check_arp(s, p) : SAN_ETHERNET;
    case ETHERTYPE_IP:
        return s->rules.ipv4 ? check_ip4(s, p) : SAN_ETHERNET;
    case ETHERTYPE_IPV6:
        return s->rules.ipv6 ? check_ip6(s, p) : SAN_ETHERNET;
    default:
        return SAN_ETHERNET;
    }
}

/* A UDP port at the gateway that speaks to a forwarded one. */
static void udp_sent(struct sanitiser *s, const uint8_t *ip, bool v6, const uint8_t *udp)
{
    if ((v6 ? is_net6(ip + 8, &s->rules.host6) : addr4(ip + 12).s_addr == s->rules.host.s_addr) &&
        has_port(&s->forwarded, get_be16(udp + 2)))
        add_port(&s->spoke, get_be16(udp));
}

static void tcp_sent(struct sanitiser *s, const uint8_t *ip, bool v6, const uint8_t *t)
{
    size_t n = v6 ? 16 : 4;
    const uint8_t *from = ip + (v6 ? 8 : 12);

    s->failed += !!(t[13] & TH_RST);
    if ((t[13] & (TH_ACK | TH_RST)) == TH_ACK)
        tcp_order_told(&s->order, tcp_order_key(&s->order, from + n, from, n, t + 2, t), get_be32(t + 8));
}

void sanitiser_sent(struct sanitiser *s, const uint8_t *frame, size_t len)
{
    bool v6 = len >= ETH && get_be16(frame + 12) == ETHERTYPE_IPV6;
    const uint8_t *ip = frame + ETH;
    size_t l4 = ETH + (v6 ? IP6 : IP4);

    if (len < l4 + 8 || (!v6 && get_be16(frame + 12) != ETHERTYPE_IP))
        return;
    switch (ip[v6 ? 6 : 9]) {
    case IPPROTO_UDP:
        udp_sent(s, ip, v6, frame + l4);
        break;
    case IPPROTO_TCP:
        if (len >= l4 + 20)
            tcp_sent(s, ip, v6, frame + l4);
        break;
    case IPPROTO_ICMP:
    case IPPROTO_ICMPV6:
        s->failed += frame[l4] == (v6 ? ICMP6_DST_UNREACH : ICMP_UNREACH);
        break;
    default:
        break;
    }
}

bool sanitise(struct sanitiser *s, uint8_t *frame, size_t *len, uint64_t now_ns, uint8_t **ret)
{
    struct packet p = {.frame = frame, .ip = frame + ETH, .len = *len, .now_ns = now_ns};
    unsigned verdict = check(s, &p);

    if (verdict < SAN_REASONS)
        s->drops[verdict]++;
    if (verdict != OK)
        return false;
    *len = p.len;
    *ret = p.frame;
    return true;
}
