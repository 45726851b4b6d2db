#include "devices/net/dhcp.h"

#include <net/ethernet.h>
#include <netinet/in.h>

enum {
    IP = 14,
    UDP = IP + 20,
    BOOTP = UDP + 8,
    OPTIONS = BOOTP + 236 + 4, /* behind the cookie */
    COOKIE = 0x63825363,
    SERVER = 67,
    CLIENT = 68,
    OPT_PAD = 0,
    OPT_MTU = 26,
    OPT_MESSAGE_TYPE = 53,
    OPT_END = 255,
    OFFER = 2,
    ACK = 5,
};

/* Where the options end; 0: nowhere, or it is another message. */
static size_t find_end(const uint8_t *f, size_t len)
{
    size_t at = OPTIONS;
    bool wanted = false;

    while (at < len && f[at] != OPT_END) {
        if (f[at] == OPT_PAD) {
            at++;
            continue;
        }
        if (len - at < 3 || f[at + 1] > len - at - 2)
            return 0;
        wanted |= f[at] == OPT_MESSAGE_TYPE && (f[at + 2] == OFFER || f[at + 2] == ACK);
        at += 2u + f[at + 1];
    }
    return wanted && at < len ? at : 0;
}

bool dhcp_tells_mtu(const uint8_t *frame, size_t len, uint16_t mtu, uint8_t *ret)
{
    const uint8_t option[] = {OPT_MTU, 2, (uint8_t)(mtu >> 8), (uint8_t)mtu, OPT_END};
    size_t at;

    if (len < OPTIONS || len > DHCP_OFFER_MAX || get_be16(frame + 12) != ETHERTYPE_IP || frame[IP] != 0x45 ||
        frame[IP + 9] != IPPROTO_UDP || get_be16(frame + UDP) != SERVER || get_be16(frame + UDP + 2) != CLIENT ||
        get_be32(frame + OPTIONS - 4) != COOKIE)
        return false;
    at = find_end(frame, len);
    if (!at || len - at < sizeof(option))
        return false;
    memcpy(ret, frame, len);
    memcpy(ret + at, option, sizeof(option));
    put_be16(ret + UDP + 6, 0); /* without a checksum [RFC 768] */
    return true;
}
