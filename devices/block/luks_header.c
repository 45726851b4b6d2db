/* The header of LUKS version 1: read, made, and its key opened. */
#include <inttypes.h>
#include <nettle/pbkdf2.h>
#include <nettle/sha1.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <sys/random.h>
#include <time.h>

#include "devices/block/blkimg.h"
#include "devices/block/luks.h"
#include "vmm/base/cleanup.h"

enum { /* offsets, and what is there */
       AT_VERSION = 6,
       AT_CIPHER = 8,
       AT_MODE = 40,
       AT_HASH = 72,
       AT_PAYLOAD = 104, /* sectors */
       AT_KEY_BYTES = 108,
       AT_DIGEST = 112,
       AT_SALT = 132,
       AT_ROUNDS = 164,
       AT_UUID = 168,
       AT_SLOTS = 208,
       WORD = 32, /* bytes of a name */
       UUID = 40,
       SLOT = 48, /* bytes of a slot */
       SLOT_ROUNDS = 4,
       SLOT_SALT = 8,
       SLOT_OFF = 40, /* sectors */
       SLOT_STRIPES = 44,
       SLOT_ALIGN = 4096, /* of key material in a header that we make */
       ROUNDS_MIN = 1000,
};
#define SLOT_ON       0x00ac71f3u
#define SLOT_OFF_WORD 0x0000deadu

static const uint8_t magic[] = {'L', 'U', 'K', 'S', 0xba, 0xbe};

const char *const luks_ciphers[] = {"aes-128", "aes-192", "aes-256", NULL};
const char *const luks_modes[] = {[CRYPT_XTS] = "xts", [CRYPT_CBC] = "cbc", NULL};
const char *const luks_ivs[] = {[CRYPT_PLAIN64] = "plain64", [CRYPT_PLAIN] = "plain", [CRYPT_ESSIV] = "essiv", NULL};
const char *const luks_hashes[] = {"sha1", "sha256", "sha512", NULL};

static const struct hash {
    const struct nettle_hash *h;
    void (*pbkdf2)(size_t key_length, const uint8_t *key, unsigned iterations, size_t salt_length, const uint8_t *salt,
                   size_t length, uint8_t *dst);
} hashes[] = {
    {&nettle_sha1, pbkdf2_hmac_sha1}, {&nettle_sha256, pbkdf2_hmac_sha256}, {&nettle_sha512, pbkdf2_hmac_sha512}};

/* The header's words for a mode, as the Linux kernel has them. */
static const struct mode {
    const char *word;
    uint32_t mode, iv;
} modes[] = {
    {"xts-plain64", CRYPT_XTS, CRYPT_PLAIN64},    {"xts-plain", CRYPT_XTS, CRYPT_PLAIN},
    {"cbc-plain64", CRYPT_CBC, CRYPT_PLAIN64},    {"cbc-plain", CRYPT_CBC, CRYPT_PLAIN},
    {"cbc-essiv:sha256", CRYPT_CBC, CRYPT_ESSIV},
};

static void get_random(uint8_t *p, size_t n)
{
    for (size_t part; n; p += part, n -= part) {
        part = min_u64(n, 256); /* getrandom(2): up to 256 bytes never come short */
        if (getrandom(p, part, 0) != (ssize_t)part)
            abort(); /* a kernel without random numbers; there can be no key */
    }
}

/* ---- Reading. ---- */

static int refuse(const char *name, const char *what, const char *word, struct err *err)
{
    return err_set(err, ENOTSUP,
                   "%s is encrypted with the %s \"%.*s\", which is not supported; AES in the modes xts and "
                   "cbc is, with sha1, sha256 or sha512",
                   name, what, (int)strnlen(word, WORD), word);
}

static int bad(const char *name, const char *what, uint64_t value, struct err *err)
{
    return err_set(err, EINVAL, "%s is damaged: its LUKS header says %s %" PRIu64, name, what, value);
}

static bool is_word(const uint8_t *p, const char *word)
{
    return !strncmp((const char *)p, word, WORD);
}

/* Names may not garble the messages that have them. */
static void copy_text(char *ret, const uint8_t *p, size_t n)
{
    size_t i = 0;

    for (; i < n && p[i]; i++)
        ret[i] = p[i] < ' ' || p[i] > '~' ? '?' : (char)p[i];
    ret[i] = 0;
}

static int parse_words(const uint8_t *p, const char *name, struct luks_header *h, struct err *err)
{
    uint32_t key_bytes = get_be32(p + AT_KEY_BYTES);
    char word[WORD + 1];
    size_t i = 0;

    copy_text(word, p + AT_CIPHER, WORD);
    if (strcmp(word, "aes"))
        return refuse(name, "cipher", word, err);
    copy_text(word, p + AT_MODE, WORD);
    while (i < array_len(modes) && !is_word(p + AT_MODE, modes[i].word))
        i++;
    if (i == array_len(modes))
        return refuse(name, "mode", word, err);
    h->kind = (struct crypt_kind){.mode = modes[i].mode, .iv = modes[i].iv};
    copy_text(word, p + AT_HASH, WORD);
    while (luks_hashes[h->hash] && !is_word(p + AT_HASH, luks_hashes[h->hash]))
        h->hash++;
    if (!luks_hashes[h->hash])
        return refuse(name, "hash", word, err);
    while (luks_ciphers[h->kind.aes] && crypt_key_size(&h->kind) != key_bytes)
        if (!luks_ciphers[++h->kind.aes])
            return bad(name, "the key's bytes are", key_bytes, err);
    return 0;
}

static int parse_slot(const uint8_t *p, uint64_t area, uint64_t key_bytes, const char *name, struct luks_slot *s,
                      struct err *err)
{
    uint32_t state = get_be32(p), stripes = get_be32(p + SLOT_STRIPES);

    *s = (struct luks_slot){.active = state == SLOT_ON,
                            .rounds = get_be32(p + SLOT_ROUNDS),
                            .off = (uint64_t)get_be32(p + SLOT_OFF) * CRYPT_SECTOR};
    memcpy(s->salt, p + SLOT_SALT, LUKS_SALT);
    if (state != SLOT_ON && state != SLOT_OFF_WORD)
        return bad(name, "a key slot's state is", state, err);
    if (!s->active)
        return 0;
    if (stripes != LUKS_STRIPES)
        return bad(name, "a key slot's stripes are", stripes, err);
    if (s->off < LUKS_HEADER || !range_fits(s->off, align_up(key_bytes * LUKS_STRIPES, CRYPT_SECTOR), area))
        return bad(name, "a key is at", s->off, err);
    return s->rounds ? 0 : bad(name, "a key slot's rounds are", 0, err);
}

int luks_parse(const uint8_t *p, uint64_t area, const char *name, struct luks_header *ret, struct err *err)
{
    struct luks_header h = {.payload = (uint64_t)get_be32(p + AT_PAYLOAD) * CRYPT_SECTOR,
                            .rounds = get_be32(p + AT_ROUNDS)};
    uint64_t rounds = h.rounds;
    int rc;

    if (memcmp(p, magic, sizeof(magic)))
        return err_set(err, EINVAL, "%s has no LUKS header", name);
    if (get_be16(p + AT_VERSION) != 1)
        return err_set(err, ENOTSUP, "%s has a LUKS header of version %u; only version 1 is read", name,
                       get_be16(p + AT_VERSION));
    rc = parse_words(p, name, &h, err);
    if (rc)
        return rc;
    memcpy(h.digest, p + AT_DIGEST, LUKS_DIGEST);
    memcpy(h.salt, p + AT_SALT, LUKS_SALT);
    copy_text(h.uuid, p + AT_UUID, UUID);
    if (!h.rounds)
        return bad(name, "the key's rounds are", 0, err);
    for (unsigned i = 0; !rc && i < LUKS_SLOTS; i++) {
        rc = parse_slot(p + AT_SLOTS + i * SLOT, area, crypt_key_size(&h.kind), name, &h.slots[i], err);
        rounds += h.slots[i].active ? h.slots[i].rounds : 0;
    }
    if (!rc && rounds > LUKS_ROUNDS_MAX)
        rc = err_set(err, ENOTSUP, "%s asks for %" PRIu64 " rounds of hashing to open its keys; at most %d are done",
                     name, rounds, LUKS_ROUNDS_MAX);
    if (!rc)
        *ret = h;
    return rc;
}

/* ---- Keys. ---- */

/* Each piece of a hash's size is replaced by its hash. */
static void diffuse(const struct nettle_hash *h, uint8_t *buf, size_t n)
{
    union {
        struct sha1_ctx sha1;
        struct sha256_ctx sha256;
        struct sha512_ctx sha512;
    } ctx;
    uint8_t number[4];

    for (size_t at = 0, i = 0; at < n; at += h->digest_size, i++) {
        size_t part = min_u64(n - at, h->digest_size);

        put_be32(number, (uint32_t)i);
        h->init(&ctx);
        h->update(&ctx, sizeof(number), number);
        h->update(&ctx, part, buf + at);
        h->digest(&ctx, part, buf + at);
    }
    explicit_bzero(&ctx, sizeof(ctx));
}

/* All stripes but the last, folded into `ret`: the last is this, mixed with the key. */
static void fold(const struct nettle_hash *h, const uint8_t *stripes, size_t n, uint8_t *ret)
{
    memset(ret, 0, n);
    for (unsigned i = 0; i < LUKS_STRIPES - 1; i++) {
        for (size_t k = 0; k < n; k++)
            ret[k] ^= stripes[i * n + k];
        diffuse(h, ret, n);
    }
}

static void mix(uint8_t *dst, const uint8_t *a, const uint8_t *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dst[i] = a[i] ^ b[i];
}

static void make_digest(const struct luks_header *h, const uint8_t *key, uint8_t ret[LUKS_DIGEST])
{
    hashes[h->hash].pbkdf2(crypt_key_size(&h->kind), key, h->rounds, LUKS_SALT, h->salt, LUKS_DIGEST, ret);
}

/* The cipher that a slot's key material is encrypted with. */
static void slot_cipher(const struct luks_header *h, const struct luks_slot *s, const struct blk_key *k,
                        struct crypt *ret)
{
    uint8_t key[CRYPT_KEY_MAX];

    hashes[h->hash].pbkdf2(k->len, k->data, s->rounds, LUKS_SALT, s->salt, crypt_key_size(&h->kind), key);
    crypt_init(ret, &h->kind, key);
    explicit_bzero(key, sizeof(key));
}

/* Does the key open the slot whose material is `enc`?  `buf` has room for as much. */
static bool try_slot(const struct luks_header *h, const struct luks_slot *s, const struct blk_key *k,
                     const uint8_t *enc, uint8_t *buf, uint8_t ret[CRYPT_KEY_MAX])
{
    size_t n = crypt_key_size(&h->kind), size = align_up(n * LUKS_STRIPES, CRYPT_SECTOR);
    uint8_t digest[LUKS_DIGEST];
    struct crypt c;

    memcpy(buf, enc, size);
    slot_cipher(h, s, k, &c);
    crypt_decrypt(&c, 0, buf, size);
    crypt_fini(&c);
    fold(hashes[h->hash].h, buf, n, ret);
    mix(ret, ret, buf + n * (LUKS_STRIPES - 1), n);
    explicit_bzero(buf, size);
    make_digest(h, ret, digest);
    return !memcmp(digest, h->digest, LUKS_DIGEST);
}

uint64_t luks_material(const struct luks_header *h)
{
    return align_up(crypt_key_size(&h->kind) * LUKS_STRIPES, CRYPT_SECTOR);
}

int luks_slots_of(struct blk *file, uint64_t off, const struct luks_header *h, const struct blk_key *key, unsigned *ret)
{
    size_t size = luks_material(h);
    cleanup_free uint8_t *buf = xcalloc(2, size);
    uint8_t found[CRYPT_KEY_MAX] = {0};
    int rc = 0;

    *ret = 0;
    for (unsigned i = 0; !rc && i < LUKS_SLOTS; i++) {
        if (!h->slots[i].active)
            continue;
        rc = blk_pread(file, buf, size, off + h->slots[i].off);
        if (!rc && try_slot(h, &h->slots[i], key, buf, buf + size, found))
            *ret |= 1u << i;
    }
    explicit_bzero(found, sizeof(found));
    return rc;
}

static int none_fits(const char *name, const struct blk_keys *keys, struct err *err)
{
    for (unsigned i = 0; i < keys->n; i++)
        if (keys->v[i].data[keys->v[i].len - 1] == '\n')
            return err_set(err, EACCES,
                           "%s: wrong key; mind that %s ends with a line's end, which is a part of the key", name,
                           keys->v[i].id);
    if (keys->n > 1)
        return err_set(err, EACCES, "%s: none of the %u keys opens it", name, keys->n);
    return err_set(err, EACCES, "%s: wrong key: %s does not open it", name, keys->v[0].id);
}

int luks_unlock(struct blk *file, uint64_t off, const struct luks_header *h, const struct blk_keys *keys,
                uint8_t ret[CRYPT_KEY_MAX], struct err *err)
{
    size_t size = luks_material(h);
    cleanup_free uint8_t *buf = xcalloc(2, size);

    for (unsigned i = 0; i < LUKS_SLOTS; i++) {
        int rc = h->slots[i].active ? blk_pread(file, buf, size, off + h->slots[i].off) : 0;

        if (rc)
            return err_set(err, -rc, "%s: read its keys: %s", file->name, strerror(-rc));
        for (unsigned k = 0; h->slots[i].active && k < keys->n; k++)
            if (try_slot(h, &h->slots[i], &keys->v[k], buf, buf + size, ret))
                return 0;
    }
    explicit_bzero(ret, CRYPT_KEY_MAX);
    return none_fits(file->name, keys, err);
}

/* ---- Making. ---- */

static double cpu_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* Rounds that take `ms` here. */
static uint32_t count_rounds(uint32_t hash, size_t key_bytes, uint32_t ms)
{
    enum { MOST = LUKS_ROUNDS_MAX / (LUKS_SLOTS + 1), ENOUGH_MS = 20 };
    uint8_t key[CRYPT_KEY_MAX];
    double took = 0;
    uint32_t n = ROUNDS_MIN;

    for (; took < ENOUGH_MS && n < MOST / 2; n *= 2) {
        double start = cpu_ms();

        hashes[hash].pbkdf2(1, magic, 2 * n, sizeof(magic), magic, key_bytes, key);
        took = cpu_ms() - start;
    }
    took = took > 0 ? n * (double)ms / took : ROUNDS_MIN;
    return took < ROUNDS_MIN ? ROUNDS_MIN : took > MOST ? MOST : (uint32_t)took;
}

static uint64_t material_size(const struct crypt_kind *k)
{
    return align_up(crypt_key_size(k) * LUKS_STRIPES, SLOT_ALIGN);
}

uint64_t luks_area(const struct crypt_kind *k)
{
    return SLOT_ALIGN + LUKS_SLOTS * material_size(k);
}

int luks_create_check(const struct luks_create *c, const struct blk_keys *keys, const char *name,
                      const struct blk_key **ret, struct err *err)
{
    if (c->kind.mode == CRYPT_XTS && c->kind.iv == CRYPT_ESSIV)
        return err_set(err, EINVAL, "%s: ivgen-alg=essiv goes with cipher-mode=cbc only", name);
    if (!c->secret)
        return err_set(err, EINVAL,
                       "%s: an encrypted image needs a key: --object secret,id=ID,file=FILE and "
                       "key-secret=ID",
                       name);
    *ret = blk_keys_find(keys, c->secret);
    if (!*ret)
        return err_set(err, EINVAL, "%s: no key has the id \"%s\"; give it by --object secret,id=%s,file=FILE", name,
                       c->secret, c->secret);
    return 0;
}

/* The sectors' key into slot `s`, whose material is at `p`. */
static void fill_slot(const struct luks_header *h, const struct luks_slot *s, const struct blk_key *k,
                      const uint8_t *key, uint8_t *p)
{
    size_t n = crypt_key_size(&h->kind);
    uint8_t *last = p + n * (LUKS_STRIPES - 1);
    struct crypt c;

    get_random(p, n * (LUKS_STRIPES - 1));
    fold(hashes[h->hash].h, p, n, last);
    mix(last, last, key, n);
    slot_cipher(h, s, k, &c);
    crypt_encrypt(&c, 0, p, align_up(n * LUKS_STRIPES, CRYPT_SECTOR));
    crypt_fini(&c);
}

static void put_uuid(char *ret)
{
    uint8_t u[16];

    blkimg_uuid(u);
    for (unsigned i = 0; i < sizeof(u); i++)
        ret += sprintf(ret, "%02x%s", u[i], i == 3 || i == 5 || i == 7 || i == 9 ? "-" : "");
}

static void put_slot(const struct luks_slot *s, uint8_t p[SLOT])
{
    put_be32(p, s->active ? SLOT_ON : SLOT_OFF_WORD);
    put_be32(p + SLOT_ROUNDS, s->rounds);
    memcpy(p + SLOT_SALT, s->salt, LUKS_SALT);
    put_be32(p + SLOT_OFF, (uint32_t)(s->off / CRYPT_SECTOR));
    put_be32(p + SLOT_STRIPES, LUKS_STRIPES);
}

static void put_header(const struct luks_header *h, uint8_t *p)
{
    const struct mode *m = modes;

    while (m->mode != h->kind.mode || m->iv != h->kind.iv)
        m++;
    memcpy(p, magic, sizeof(magic));
    put_be16(p + AT_VERSION, 1);
    strcpy((char *)p + AT_CIPHER, "aes");
    strcpy((char *)p + AT_MODE, m->word);
    strcpy((char *)p + AT_HASH, luks_hashes[h->hash]);
    put_be32(p + AT_PAYLOAD, (uint32_t)(h->payload / CRYPT_SECTOR));
    put_be32(p + AT_KEY_BYTES, (uint32_t)crypt_key_size(&h->kind));
    memcpy(p + AT_DIGEST, h->digest, LUKS_DIGEST);
    memcpy(p + AT_SALT, h->salt, LUKS_SALT);
    put_be32(p + AT_ROUNDS, h->rounds);
    memcpy(p + AT_UUID, h->uuid, UUID);
    for (unsigned i = 0; i < LUKS_SLOTS; i++)
        put_slot(&h->slots[i], p + AT_SLOTS + i * SLOT);
}

uint8_t *luks_format(const struct luks_create *c, const struct blk_key *k, struct luks_header *h)
{
    uint8_t *p, key[CRYPT_KEY_MAX];
    uint32_t rounds = count_rounds(c->hash, crypt_key_size(&c->kind), c->ms);

    *h = (struct luks_header){.kind = c->kind, .hash = c->hash, .payload = luks_area(&c->kind)};
    /* QEMU's and cryptsetup's part of it, too. */
    h->rounds = (uint32_t)max_u64(rounds / 8, ROUNDS_MIN);
    get_random(key, sizeof(key));
    get_random(h->salt, LUKS_SALT);
    put_uuid(h->uuid);
    make_digest(h, key, h->digest);
    for (unsigned i = 0; i < LUKS_SLOTS; i++)
        h->slots[i].off = SLOT_ALIGN + i * material_size(&c->kind);
    h->slots[0].active = true;
    h->slots[0].rounds = rounds;
    get_random(h->slots[0].salt, LUKS_SALT);
    p = xcalloc(1, h->payload);
    put_header(h, p);
    fill_slot(h, &h->slots[0], k, key, p + h->slots[0].off);
    explicit_bzero(key, sizeof(key));
    return p;
}

/* ---- Changing. ---- */

static int write_slot(struct blk *file, uint64_t off, const struct luks_header *h, unsigned slot)
{
    uint8_t p[SLOT];
    int rc;

    put_slot(&h->slots[slot], p);
    rc = blk_pwrite(file, p, sizeof(p), off + AT_SLOTS + slot * SLOT);
    return rc ? rc : blk_flush(file);
}

static int write_material(struct blk *file, uint64_t off, const struct luks_header *h, unsigned slot, const uint8_t *p)
{
    int rc = blk_pwrite(file, p, luks_material(h), off + h->slots[slot].off);

    return rc ? rc : blk_flush(file);
}

int luks_fill(struct blk *file, uint64_t off, struct luks_header *h, unsigned slot, const struct blk_key *k,
              uint32_t ms, const struct blk_keys *keys, struct err *err)
{
    cleanup_free uint8_t *p = xcalloc(1, luks_material(h));
    struct luks_slot *s = &h->slots[slot];
    uint8_t key[CRYPT_KEY_MAX];
    int rc = luks_unlock(file, off, h, keys, key, err);

    if (rc)
        return rc;
    s->active = true;
    s->rounds = count_rounds(h->hash, crypt_key_size(&h->kind), ms);
    get_random(s->salt, LUKS_SALT);
    fill_slot(h, s, k, key, p);
    explicit_bzero(key, sizeof(key));
    rc = write_material(file, off, h, slot, p); /* before the header says that it is there */
    if (!rc)
        rc = write_slot(file, off, h, slot);
    return rc ? err_set(err, -rc, "%s: write its keys: %s", file->name, strerror(-rc)) : 0;
}

int luks_erase(struct blk *file, uint64_t off, struct luks_header *h, unsigned slot)
{
    cleanup_free uint8_t *p = xcalloc(1, luks_material(h));
    int rc;

    get_random(p, luks_material(h));
    h->slots[slot].active = false;
    rc = write_slot(file, off, h, slot);
    return rc ? rc : write_material(file, off, h, slot, p);
}
