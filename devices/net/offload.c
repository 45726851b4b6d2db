/* Checksums and segmentation in software: IPv4 and IPv6, TCP [RFC 9293], UDP and IP fragments of it. */
#include "devices/net/offload.h"

#include <linux/if_ether.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>

#include "devices/net/csum.h"

enum { TAGS_MAX = 2, EXTENSIONS_MAX = 8, CHUNK = 2048 };

/* ---- Checksums. ---- */

enum { UDP_SUM = offsetof(struct udphdr, check) };

/* In UDP never 0, which is none there [RFC 768]. */
static void put_sum(uint8_t *transport, size_t offset, uint64_t sum)
{
    uint16_t folded = csum_fold(sum);

    put_be16(transport + offset, !folded && offset == UDP_SUM ? 0xffff : folded);
}

void checksum_complete(struct net_frame *f, uint8_t *data)
{
    size_t start = le16toh(f->hdr.csum_start);

    put_sum(data + start, le16toh(f->hdr.csum_offset), csum_add(0, data + start, f->len - start));
    f->hdr = (struct virtio_net_hdr_v1){0};
}

/* ---- Parsing. ---- */

/* The transport's offset, or 0; what it is in *proto. */
static unsigned skip_ip4(const uint8_t *h, unsigned n, unsigned ip, uint8_t *proto)
{
    unsigned len;

    if (ip + sizeof(struct iphdr) > n || h[ip] >> 4 != 4)
        return 0;
    len = (h[ip] & 15) * 4;
    if (len < sizeof(struct iphdr) || get_be16(h + ip + offsetof(struct iphdr, frag_off)) & (IP_MF | IP_OFFMASK))
        return 0;
    *proto = h[ip + offsetof(struct iphdr, protocol)];
    return ip + len;
}

static unsigned skip_ip6(const uint8_t *h, unsigned n, unsigned ip, uint8_t *proto)
{
    unsigned at = ip + sizeof(struct ip6_hdr);

    if (at > n || h[ip] >> 4 != 6)
        return 0;
    *proto = h[ip + offsetof(struct ip6_hdr, ip6_nxt)];
    for (unsigned i = 0; i < EXTENSIONS_MAX; i++) {
        if (*proto != IPPROTO_HOPOPTS && *proto != IPPROTO_ROUTING && *proto != IPPROTO_DSTOPTS)
            return at;
        if (at + 8 > n)
            return 0;
        *proto = h[at];
        at += 8 * (h[at + 1] + 1u);
    }
    return 0;
}

static const struct kind {
    uint8_t gso, proto;
    unsigned checksum; /* offset in the transport's header */
} kinds[] = {
    {VIRTIO_NET_HDR_GSO_TCPV4, IPPROTO_TCP, offsetof(struct tcphdr, check)},
    {VIRTIO_NET_HDR_GSO_TCPV6, IPPROTO_TCP, offsetof(struct tcphdr, check)},
    {VIRTIO_NET_HDR_GSO_UDP, IPPROTO_UDP, UDP_SUM},
    {VIRTIO_NET_HDR_GSO_UDP_L4, IPPROTO_UDP, UDP_SUM},
};

static const struct kind *kind_of(uint8_t gso)
{
    for (const struct kind *k = kinds; k < kinds + array_len(kinds); k++)
        if (k->gso == gso)
            return k;
    return NULL;
}

/* The payload's offset, or 0. */
static unsigned skip_transport(const uint8_t *h, unsigned n, unsigned at, uint8_t proto)
{
    unsigned len = sizeof(struct udphdr);

    if (proto == IPPROTO_TCP) {
        if (at + sizeof(struct tcphdr) > n)
            return 0;
        len = (h[at + 12] >> 4) * 4;
        if (len < sizeof(struct tcphdr))
            return 0;
    }
    return at + len <= n ? at + len : 0;
}

bool packet_parse(const struct net_frame *f, struct packet *ret)
{
    unsigned n = (unsigned)min_u64(f->len, PACKET_HEADERS_MAX), type_at = 2 * ETH_ALEN;
    struct packet *p = ret;
    const struct kind *k;
    uint8_t proto = 0;
    uint16_t type;

    p->gso = f->hdr.gso_type & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;
    k = kind_of(p->gso);
    if (!k || f->len < ETH_HLEN)
        return false;
    iov_get(f->iov, 0, p->headers, n);
    type = get_be16(p->headers + type_at);
    for (unsigned i = 0; i < TAGS_MAX && (type == ETH_P_8021Q || type == ETH_P_8021AD) && type_at + 6 <= n; i++)
        type = get_be16(p->headers + (type_at += 4));
    p->ip = type_at + 2;
    p->v6 = type == ETH_P_IPV6;
    if (type != ETH_P_IP && type != ETH_P_IPV6)
        return false;
    if (p->gso == VIRTIO_NET_HDR_GSO_TCPV4 ? p->v6 : p->gso == VIRTIO_NET_HDR_GSO_TCPV6 && !p->v6)
        return false;
    p->transport = p->v6 ? skip_ip6(p->headers, n, p->ip, &proto) : skip_ip4(p->headers, n, p->ip, &proto);
    if (!p->transport || proto != k->proto)
        return false;
    p->payload = skip_transport(p->headers, n, p->transport, proto);
    if (!p->payload || le16toh(f->hdr.csum_start) != p->transport || le16toh(f->hdr.csum_offset) != k->checksum)
        return false;
    p->cut = p->gso == VIRTIO_NET_HDR_GSO_UDP ? p->transport : p->payload;
    p->size = le16toh(f->hdr.gso_size);
    if (p->gso == VIRTIO_NET_HDR_GSO_UDP)
        p->size &= ~7u; /* fragments' offsets count in eights */
    if (p->size < SEGMENT_SIZE_MIN)
        return false;
    p->segments = (unsigned)max_u64((f->len - p->cut + p->size - 1) / p->size, 1);
    return true;
}

/* ---- Segmenting. ---- */

/* Of source, destination, length and protocol. */
static uint64_t pseudo_header(const struct packet *p, const uint8_t *ip, size_t len)
{
    uint8_t tail[4] = {0, kind_of(p->gso)->proto};
    uint64_t sum;

    put_be16(tail + 2, (uint16_t)len);
    sum = csum_add(0, tail, sizeof(tail));
    return p->v6 ? csum_add(sum, ip + offsetof(struct ip6_hdr, ip6_src), 2 * sizeof(struct in6_addr))
                 : csum_add(sum, ip + offsetof(struct iphdr, saddr), 2 * sizeof(struct in_addr));
}

/* The IP header says what the segment is; `len` bytes follow the IP headers. */
static void finish_ip4(const struct packet *p, uint8_t *ip, unsigned i, size_t len)
{
    unsigned header = p->transport - p->ip;

    put_be16(ip + offsetof(struct iphdr, tot_len), (uint16_t)(header + len));
    if (p->gso != VIRTIO_NET_HDR_GSO_UDP)
        put_be16(ip + offsetof(struct iphdr, id), (uint16_t)(get_be16(ip + offsetof(struct iphdr, id)) + i));
    else
        put_be16(ip + offsetof(struct iphdr, frag_off),
                 (uint16_t)(i * p->size / 8 | (i + 1 < p->segments ? IP_MF : 0)));
    put_be16(ip + offsetof(struct iphdr, check), 0);
    put_be16(ip + offsetof(struct iphdr, check), csum_fold(csum_add(0, ip, header)));
}

/* Makes room for a fragment header in front of the transport's; `len` bytes follow it. */
static void add_fragment_header(const struct packet *p, uint8_t *frame, unsigned i, uint32_t id)
{
    struct ip6_frag h = {.ip6f_nxt = IPPROTO_UDP,
                         .ip6f_offlg = htobe16((uint16_t)(i * p->size | (i + 1 < p->segments))),
                         .ip6f_ident = htobe32(id)};
    unsigned at = p->ip + offsetof(struct ip6_hdr, ip6_nxt);

    /* The last of the headers before it leads to it now. */
    for (unsigned next = p->ip + sizeof(struct ip6_hdr); next < p->transport; next += 8 * (frame[next + 1] + 1u))
        at = next;
    frame[at] = IPPROTO_FRAGMENT;
    memcpy(frame + p->transport, &h, sizeof(h));
}

static void finish_tcp(const struct packet *p, uint8_t *tcp, unsigned i)
{
    enum { FLAGS = 13, FIN = 0x01, PSH = 0x08, CWR = 0x80 };

    put_be32(tcp + offsetof(struct tcphdr, seq), get_be32(tcp + offsetof(struct tcphdr, seq)) + i * p->size);
    if (i + 1 < p->segments)
        tcp[FLAGS] &= (uint8_t) ~(FIN | PSH);
    if (i)
        tcp[FLAGS] &= (uint8_t)~CWR;
}

/* Of the whole datagram, whose data is still where it was. */
static uint64_t sum_payload(const struct packet *p, const struct net_frame *f)
{
    uint8_t chunk[CHUNK];
    uint64_t sum = 0;

    for (size_t at = p->payload, n; at < f->len; at += n) {
        n = min_u64(CHUNK, f->len - at);
        iov_get(f->iov, at, chunk, n);
        sum = csum_add(sum, chunk, n);
    }
    return sum;
}

static void put_checksum(const struct packet *p, uint8_t *transport, uint64_t sum)
{
    unsigned offset = kind_of(p->gso)->checksum;

    put_be16(transport + offset, 0);
    put_sum(transport, offset, csum_add(sum, transport, p->payload - p->transport));
}

size_t packet_segment(const struct packet *p, const struct net_frame *f, unsigned i, uint32_t id, uint8_t *buf)
{
    bool fragment = p->gso == VIRTIO_NET_HDR_GSO_UDP;
    unsigned extra = fragment && p->v6 && p->segments > 1 ? sizeof(struct ip6_frag) : 0;
    size_t from = p->cut + (size_t)i * p->size, n = min_u64(p->size, f->len - from);
    uint8_t *ip = buf + p->ip, *transport = buf + p->transport;
    size_t len = p->cut - p->transport + extra + n; /* after the IP headers */

    memcpy(buf, p->headers, p->cut);
    if (extra)
        add_fragment_header(p, buf, i, id);
    iov_get(f->iov, from, buf + p->cut + extra, n);
    if (p->v6)
        put_be16(ip + offsetof(struct ip6_hdr, ip6_plen),
                 (uint16_t)(p->transport - p->ip - sizeof(struct ip6_hdr) + len));
    else
        finish_ip4(p, ip, i, len);
    if (fragment) {
        size_t whole = f->len - p->transport;

        if (!i) {
            put_be16(transport + extra + offsetof(struct udphdr, len), (uint16_t)whole);
            put_checksum(p, transport + extra, sum_payload(p, f) + pseudo_header(p, ip, whole));
        }
    } else {
        if (kind_of(p->gso)->proto == IPPROTO_TCP)
            finish_tcp(p, transport, i);
        else
            put_be16(transport + offsetof(struct udphdr, len), (uint16_t)len);
        put_checksum(p, transport, csum_add(pseudo_header(p, ip, len), buf + p->cut, n));
    }
    return p->cut + extra + n;
}
