/* ARP replies [RFC 826] and unsolicited neighbour advertisements [RFC 4861 4.4, 7.2.6]. */
#include "devices/net/neighbour.h"

#include <net/ethernet.h>
#include <netinet/icmp6.h>

#include "devices/net/csum.h"

enum { ETH = 14, IP4_SOURCE = ETH + 12, IP6 = 40, IP6_SOURCE = ETH + 8 };
static_assert(ETH + IP6 + sizeof(struct nd_neighbor_advert) == NEIGHBOUR_FRAME, "has room for either");

static bool is_zero(const uint8_t *p, size_t n)
{
    return !p[0] && !memcmp(p, p + 1, n - 1);
}

static size_t introduce4(const uint8_t *who, uint8_t *ret)
{
    static const uint8_t reply[] = {0, 1, 8, 0, 6, 4, 0, 2};

    put_be16(ret + 12, ETHERTYPE_ARP);
    memcpy(ret + ETH, reply, sizeof(reply));
    memcpy(ret + ETH + sizeof(reply), who, 6 + 4);
    return ETH + 28;
}

static size_t introduce6(const uint8_t *who, uint8_t *ret)
{
    static const uint8_t everybody[16] = {0xff, 2, [15] = 1};
    const uint16_t n = sizeof(struct nd_neighbor_advert);
    const uint8_t pseudo[4] = {0, n, 0, IPPROTO_ICMPV6};
    uint8_t *ip = ret + ETH, *icmp = ip + IP6;

    put_be16(ret + 12, ETHERTYPE_IPV6);
    ip[0] = 0x60;
    put_be16(ip + 4, n);
    ip[6] = IPPROTO_ICMPV6;
    ip[7] = 255;
    memcpy(ip + 8, who + 6, 16);
    memcpy(ip + 24, everybody, 16);
    icmp[0] = ND_NEIGHBOR_ADVERT;
    memcpy(icmp + 8, who + 6, 16);
    put_be16(icmp + 2, csum_fold(csum_add(csum_add(csum_add(0, pseudo, 4), ip + 8, 32), icmp, n)));
    return NEIGHBOUR_FRAME;
}

size_t neighbour_speaks(struct neighbour *n, const uint8_t *frame, uint8_t *ret)
{
    bool v6 = get_be16(frame + 12) == ETHERTYPE_IPV6;
    size_t size = v6 ? sizeof(n->v6) : sizeof(n->v4);
    uint8_t who[sizeof(n->v6)], *last = v6 ? n->v6 : n->v4;

    if (!v6 && get_be16(frame + 12) != ETHERTYPE_IP)
        return 0;
    memcpy(who, frame + 6, 6);
    memcpy(who + 6, frame + (v6 ? IP6_SOURCE : IP4_SOURCE), size - 6);
    if (!memcmp(who, last, size) || is_zero(who + 6, size - 6))
        return 0;
    memcpy(last, who, size);
    memset(ret, 0, NEIGHBOUR_FRAME);
    memcpy(ret + 6, who, 6);
    return v6 ? introduce6(who, ret) : introduce4(who, ret);
}
