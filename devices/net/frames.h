/* Frames as a guest makes them, for tests.  Addresses are text; what is not said is zero. */
#pragma once
#include <arpa/inet.h>

#include "devices/net/csum.h"
#include "devices/net/sanitise.h"
#include "vmm/base/test.h"

static const uint8_t mac[] = {0x52, 0x54, 0, 0x12, 0x34, 0x56};

struct frame {
    uint8_t b[SAN_FRAME_MAX];
    size_t len;
};

static inline void ethernet(struct frame *f, uint16_t type)
{
    memset(f, 0, sizeof(*f));
    memset(f->b, 0xff, 6);
    memcpy(f->b + 6, mac, 6);
    put_be16(f->b + 12, type);
}

static inline void ip4(struct frame *f, const char *src, const char *dst, uint8_t proto, size_t n)
{
    ethernet(f, 0x800);
    f->b[14] = 0x45;
    put_be16(f->b + 16, (uint16_t)(20 + n));
    put_be16(f->b + 20, 0x4000);
    f->b[22] = 64;
    f->b[23] = proto;
    assert_int_equal(inet_pton(AF_INET, src, f->b + 26), 1);
    assert_int_equal(inet_pton(AF_INET, dst, f->b + 30), 1);
    put_be16(f->b + 24, csum_fold(csum_add(0, f->b + 14, 20)));
    f->len = 34 + n;
}

static inline void ip6(struct frame *f, const char *src, const char *dst, uint8_t proto, size_t n)
{
    ethernet(f, 0x86dd);
    f->b[14] = 0x60;
    put_be16(f->b + 18, (uint16_t)n);
    f->b[20] = proto;
    f->b[21] = 255;
    assert_int_equal(inet_pton(AF_INET6, src, f->b + 22), 1);
    assert_int_equal(inet_pton(AF_INET6, dst, f->b + 38), 1);
    f->len = 54 + n;
}

static inline void tcp_header(uint8_t *t, uint8_t flags)
{
    put_be16(t, 40000);
    put_be16(t + 2, 80);
    t[12] = 0x50;
    t[13] = flags;
}

static inline void udp_header(uint8_t *u, uint16_t src, uint16_t dst, size_t n)
{
    put_be16(u, src);
    put_be16(u + 2, dst);
    put_be16(u + 4, (uint16_t)n);
    put_be16(u + 6, 0x1234);
}

/* The checksum of what the IP packet carries, at offset `at` there. */
static inline void finish4(struct frame *f, size_t at)
{
    uint8_t pseudo[4] = {0, f->b[23]};
    size_t n = f->len - 34;
    uint64_t sum;

    put_be16(pseudo + 2, (uint16_t)n);
    put_be16(f->b + 34 + at, 0);
    sum = csum_add(f->b[23] == 1 ? 0 : csum_add(csum_add(0, f->b + 26, 8), pseudo, 4), f->b + 34, n);
    put_be16(f->b + 34 + at, csum_fold(sum));
}

static inline void finish6(struct frame *f, size_t at)
{
    uint8_t pseudo[8] = {[7] = f->b[20]};
    size_t n = f->len - 54;

    put_be32(pseudo, (uint32_t)n);
    put_be16(f->b + 54 + at, 0);
    put_be16(f->b + 54 + at, csum_fold(csum_add(csum_add(csum_add(0, f->b + 22, 32), pseudo, 8), f->b + 54, n)));
}
