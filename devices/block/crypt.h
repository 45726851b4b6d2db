/*
 * Sectors of 512 bytes, encrypted each by itself: AES in XTS [IEEE 1619] or CBC mode, with an initialisation vector
 * made of the sector's number as dm-crypt makes it (plain, plain64, essiv:sha256).
 */
#pragma once
#include <nettle/aes.h>
#include <nettle/nettle-meta.h>

#include "vmm/base/base.h"

enum { CRYPT_SECTOR = 512, CRYPT_KEY_MAX = 64 }; /* bytes */

enum crypt_mode { CRYPT_XTS, CRYPT_CBC };
enum crypt_iv { CRYPT_PLAIN64, CRYPT_PLAIN, CRYPT_ESSIV }; /* the last with SHA-256 */

struct crypt_kind {
    uint32_t aes; /* 0: 128, 1: 192, 2: 256 bits */
    uint32_t mode, iv;
};

union crypt_aes {
    struct aes128_ctx aes128;
    struct aes192_ctx aes192;
    struct aes256_ctx aes256;
};

struct crypt {
    const struct nettle_cipher *aes;
    struct crypt_kind kind;
    union crypt_aes enc, dec;
    union crypt_aes second; /* of XTS, for the tweaks; of essiv, for the sectors' numbers */
};

/* Bytes of the key. */
size_t crypt_key_size(const struct crypt_kind *k);
void crypt_init(struct crypt *c, const struct crypt_kind *k, const uint8_t *key);
void crypt_fini(struct crypt *c); /* wipes it; also one that is all zeroes */
/* In place, `n` bytes, whole sectors from number `sector` on.  Any thread, many at a time. */
void crypt_encrypt(const struct crypt *c, uint64_t sector, uint8_t *buf, size_t n);
void crypt_decrypt(const struct crypt *c, uint64_t sector, uint8_t *buf, size_t n);
