/* What libslirp's DHCP server does not tell: the network's MTU [RFC 2132 5.1]. */
#pragma once
#include "vmm/base/base.h"

enum { DHCP_OFFER_MAX = 1024 };

/* Is that frame of `len` bytes to the guest an offer or acknowledgement of libslirp's, with room for one more option?
 * Then *ret is the same with that MTU in it. */
bool dhcp_tells_mtu(const uint8_t *frame, size_t len, uint16_t mtu, uint8_t *ret);
