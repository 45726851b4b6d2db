/* Sums are of words as they lie in memory; only the folded result is put into the right order [RFC 1071 2(B)]. */
#include "devices/net/csum.h"

static uint64_t word(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

uint64_t csum_add(uint64_t sum, const void *p, size_t n)
{
    const uint8_t *b = p;
    uint64_t a[4] = {0};

    for (; n >= 16; n -= 16, b += 16)
        for (unsigned i = 0; i < 4; i++)
            a[i] += word(b + 4 * i);
    for (; n >= 4; n -= 4, b += 4)
        a[0] += word(b);
    if (n) {
        uint8_t last[4] = {0};

        memcpy(last, b, n);
        a[1] += word(last);
    }
    for (unsigned i = 0; i < 4; i++)
        sum += (a[i] & 0xffffffff) + (a[i] >> 32);
    return (sum & 0xffffffff) + (sum >> 32);
}

static uint16_t fold(uint64_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

uint16_t csum_fold(uint64_t sum)
{
    return (uint16_t)~be16toh(fold(sum));
}

uint16_t csum_change(uint16_t sum, uint16_t from, uint16_t to)
{
    return (uint16_t)~fold((uint64_t)(uint16_t)~sum + (uint16_t)~from + to);
}
