/*
 * What stands between a guest and libslirp: a parser of single Ethernet frames with no loop that a guest can stretch,
 * which lets through only what an honest guest sends and libslirp has a use for.  All else is dropped, and counted by
 * reason.
 *
 * The rules, where the standards leave a choice:
 * - IPv4 options and IPv6 extension headers: none.  (IGMP and MLD come with a router alert, but libslirp has no use for
 *   them, so they are dropped by themselves.)
 * - IPv4 fragments: of UDP and ICMP, in order and without gap or overlap, as every stack sends them; up to
 * SAN_DATAGRAMS datagrams at a time are put together here, so that libslirp never sees a fragment.  A fragment that
 * does not fit costs its datagram.
 * - Sources: addresses of the guest's network that are not the gateway's; 0.0.0.0 for DHCP, :: and link-local ones for
 *   neighbour discovery.  MAC addresses: the first SAN_MACS that are seen, so that a guest may bridge a little.
 * - Destinations: nothing that only means something on the host itself or its own wire (0/8, 127/8, 169.254/16, ::1,
 *   fe80::/10, IPv4 addresses dressed as IPv6) and no groups, but for DHCP and neighbour discovery.
 * - The gateway's addresses, where they stand for the host's loopback and the guest must not reach that: only UDP, from
 *   a port that is forwarded, to who has spoken to a forwarded port in the last minute.  (libslirp itself can only
 *   forbid all of it, and so does when no UDP is forwarded.)
 * - TCP: no segment that libslirp would keep until those before it come (tcp_order.h).  It is emptied, so that libslirp
 *   answers it by what it waits for.
 */
#pragma once
#include <netinet/in.h>

#include "devices/net/tcp_order.h"

enum { SAN_DATAGRAMS = 4, SAN_DATAGRAM_MAX = 65535, SAN_MACS = 8, SAN_FRAME_MAX = 14 + SAN_DATAGRAM_MAX };

enum san_reason {
    SAN_SHORT,       /* a header is cut off */
    SAN_ETHERNET,    /* neither IPv4, IPv6 nor ARP */
    SAN_MAC,         /* source address: a group's, the gateway's, or one too many */
    SAN_ARP,         /* malformed, or of somebody else */
    SAN_LENGTH,      /* an IP header that lies about lengths */
    SAN_OPTION,      /* IPv4 options */
    SAN_EXTENSION,   /* IPv6 extension headers */
    SAN_FRAGMENT,    /* out of order, overlapping, too long */
    SAN_SOURCE,      /* IP address */
    SAN_DESTINATION, /* IP address */
    SAN_GROUP,       /* multicast and subnet broadcast, which honest guests send too */
    SAN_PROTOCOL,    /* neither TCP, UDP nor ICMP; ICMP that libslirp has no use for */
    SAN_TCP,         /* header, options or flags */
    SAN_ORDER,       /* a segment's data, which came out of order */
    SAN_UDP,         /* length, or no checksum in IPv6 */
    SAN_NDP,         /* neighbour discovery: malformed, or what only routers say */
    SAN_DHCP,        /* malformed, or of somebody else; BOOTP without TFTP */
    SAN_TFTP,        /* is not on */
    SAN_RESTRICTED,  /* a new connection */
    SAN_RATE,        /* too many new connections in a second */
    SAN_FULL,        /* too many connections at a time */
    SAN_CHATTER,     /* too many of ARP, neighbour discovery, DHCP or ping in a second */
    SAN_REASONS
};
extern const char *const san_reason_names[SAN_REASONS];

struct san_rules { /* addresses in network order */
    bool ipv4, ipv6;
    struct in_addr net, mask, host, dns;
    struct in6_addr host6, dns6; /* both in the guest's /64 */
    bool restricted, tftp;
    bool answers_only; /* at the gateway's addresses */
    uint32_t rate;     /* new connections in a second; 0: no limit */
    uint32_t max;      /* connections at a time */
};

struct san_bucket { /* of tokens: `rate` in a second, as many at once */
    uint32_t rate, left;
    uint64_t at_ns;
};

struct san_datagram { /* being put together */
    bool used;
    uint8_t proto;
    uint16_t id;
    struct in_addr src, dst;
    uint64_t since_ns;
    size_t len; /* of what is here behind the IPv4 header */
    uint8_t frame[SAN_FRAME_MAX];
};

struct san_ports { /* a bit each */
    uint64_t bits[65536 / 64];
};

struct sanitiser {
    struct san_rules rules;
    uint32_t open; /* connections that there are; the caller keeps it */
    uint64_t drops[SAN_REASONS];
    uint64_t urgent; /* frames that lost their urgent pointer */
    uint64_t failed; /* resets and "unreachable" that libslirp sent the guest */
    struct san_bucket connections, chatter;
    uint8_t macs[SAN_MACS][6];
    unsigned nmacs;
    uint64_t udp_at_ns; /* since when it is … */
    uint32_t minute;    /* this one */
    struct san_ports spoke,
        spoke_before;           /* ports at the gateway that have spoken to the guest, and the minute before */
    struct san_ports forwarded; /* the guest's UDP ports that are */
    /* The rest is large, and touched where it is used only. */
    struct tcp_order order;
    /* By the guest's port: a hash of the address that has a socket there, and of the minute. */
    uint32_t udp_flows[65536];
    struct san_datagram datagrams[SAN_DATAGRAMS];
};

/* *s is all zeroes, or was used before. */
void sanitiser_init(struct sanitiser *s, const struct san_rules *rules);
/*
 * A frame of `len` bytes, the caller's own copy, which may be changed; its checksums are complete.  True: hand on
 * *len bytes from *ret on, which is `frame` or a datagram of several frames that is good until the next call.  False:
 * dropped and counted, or waiting for the rest of its datagram.  `now_ns` is of a clock that never goes back.
 */
bool sanitise(struct sanitiser *s, uint8_t *frame, size_t *len, uint64_t now_ns, uint8_t **ret) must_check;
/* UDP to that port of the guest is forwarded. */
void sanitiser_forwards(struct sanitiser *s, uint16_t port);
/* A frame that libslirp sends to the guest. */
void sanitiser_sent(struct sanitiser *s, const uint8_t *frame, size_t len);
