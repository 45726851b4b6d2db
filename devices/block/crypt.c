#include "devices/block/crypt.h"

#include <nettle/cbc.h>
#include <nettle/sha2.h>
#include <string.h>

enum { BLOCK = AES_BLOCK_SIZE, WORDS = CRYPT_SECTOR / sizeof(uint64_t) };

static const struct nettle_cipher *const ciphers[] = {&nettle_aes128, &nettle_aes192, &nettle_aes256};

size_t crypt_key_size(const struct crypt_kind *k)
{
    return ciphers[k->aes]->key_size * (k->mode == CRYPT_XTS ? 2 : 1);
}

void crypt_init(struct crypt *c, const struct crypt_kind *k, const uint8_t *key)
{
    *c = (struct crypt){.aes = ciphers[k->aes], .kind = *k};
    c->aes->set_encrypt_key(&c->enc, key);
    c->aes->set_decrypt_key(&c->dec, key);
    if (k->mode == CRYPT_XTS) {
        c->aes->set_encrypt_key(&c->second, key + c->aes->key_size);
    } else if (k->iv == CRYPT_ESSIV) {
        uint8_t digest[SHA256_DIGEST_SIZE];
        struct sha256_ctx sha;

        sha256_init(&sha);
        sha256_update(&sha, c->aes->key_size, key);
        sha256_digest(&sha, sizeof(digest), digest);
        aes256_set_encrypt_key(&c->second.aes256, digest);
        explicit_bzero(digest, sizeof(digest));
        explicit_bzero(&sha, sizeof(sha));
    }
}

void crypt_fini(struct crypt *c)
{
    explicit_bzero(c, sizeof(*c));
}

static void make_iv(const struct crypt *c, uint64_t sector, uint8_t iv[BLOCK])
{
    memset(iv, 0, BLOCK);
    put_le64(iv, c->kind.iv == CRYPT_PLAIN ? (uint32_t)sector : sector);
    if (c->kind.iv == CRYPT_ESSIV)
        aes256_encrypt(&c->second.aes256, BLOCK, iv, iv);
}

/* The library's own XTS calls the cipher block by block, which takes six times as long. */
static void xts(const struct crypt *c, const void *key, nettle_cipher_func *f, uint64_t sector, uint8_t *buf)
{
    uint64_t tweak[WORDS], data[WORDS];

    make_iv(c, sector, (uint8_t *)tweak);
    c->aes->encrypt(&c->second, BLOCK, (uint8_t *)tweak, (const uint8_t *)tweak);
    for (unsigned i = 2; i < WORDS; i += 2) {
        uint64_t lo = le64toh(tweak[i - 2]), hi = le64toh(tweak[i - 1]);

        tweak[i] = htole64(lo << 1 ^ (hi >> 63 ? 0x87 : 0));
        tweak[i + 1] = htole64(hi << 1 | lo >> 63);
    }
    memcpy(data, buf, CRYPT_SECTOR);
    for (unsigned i = 0; i < WORDS; i++)
        data[i] ^= tweak[i];
    f(key, CRYPT_SECTOR, (uint8_t *)data, (const uint8_t *)data);
    for (unsigned i = 0; i < WORDS; i++)
        data[i] ^= tweak[i];
    memcpy(buf, data, CRYPT_SECTOR);
}

void crypt_encrypt(const struct crypt *c, uint64_t sector, uint8_t *buf, size_t n)
{
    uint8_t iv[BLOCK];

    for (size_t at = 0; at < n; at += CRYPT_SECTOR, sector++) {
        if (c->kind.mode == CRYPT_XTS) {
            xts(c, &c->enc, c->aes->encrypt, sector, buf + at);
        } else {
            make_iv(c, sector, iv);
            cbc_encrypt(&c->enc, c->aes->encrypt, BLOCK, iv, CRYPT_SECTOR, buf + at, buf + at);
        }
    }
}

void crypt_decrypt(const struct crypt *c, uint64_t sector, uint8_t *buf, size_t n)
{
    uint8_t iv[BLOCK];

    for (size_t at = 0; at < n; at += CRYPT_SECTOR, sector++) {
        if (c->kind.mode == CRYPT_XTS) {
            xts(c, &c->dec, c->aes->decrypt, sector, buf + at);
        } else {
            make_iv(c, sector, iv);
            cbc_decrypt(&c->dec, c->aes->decrypt, BLOCK, iv, CRYPT_SECTOR, buf + at, buf + at);
        }
    }
}
