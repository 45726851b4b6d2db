/* The Internet checksum [RFC 1071]. */
#pragma once
#include "vmm/base/base.h"

/* `n` bytes from `p` on, on top of `sum`, which is 0 to begin with.  Only the last of several pieces may be odd. */
uint64_t csum_add(uint64_t sum, const void *p, size_t n);
/* What stands in a header for it, as a number; to be written big-endian. */
uint16_t csum_fold(uint64_t sum);
/* The checksum `sum` (as a number) of something in which a 16-bit field changes [RFC 1624, eqn. 3]. */
uint16_t csum_change(uint16_t sum, uint16_t from, uint16_t to);
