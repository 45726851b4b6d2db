/*
 * LUKS version 1 [LUKS On-Disk Format Specification 1.2.3]: a header with eight slots, in each of which one pass phrase
 * opens the key that the sectors are encrypted with.  QEMU puts it before a raw disk (format `luks`, what cryptsetup
 * makes, too), or into clusters of a qcow2 image.
 */
#pragma once
#include "devices/block/crypt.h"
#include "devices/block/driver.h"
#include "devices/block/key.h"

enum {
    LUKS_SLOTS = 8,
    LUKS_HEADER = 592, /* bytes of the header without key material */
    LUKS_SALT = 32,
    LUKS_DIGEST = 20,
    LUKS_STRIPES = 4000,
    /* Rounds of PBKDF2 that an image may ask for, all slots together: a minute or two.  Else an image could keep us
     * busy for days. */
    LUKS_ROUNDS_MAX = 1 << 26,
    LUKS_AREA_MAX = 32 << 20, /* bytes of header and key material in a qcow2 image */
};

struct luks_slot {
    bool active;
    uint32_t rounds;
    uint8_t salt[LUKS_SALT];
    uint64_t off; /* of its key material from the header on, bytes */
};

struct luks_header {
    struct crypt_kind kind;
    uint32_t hash;    /* index of luks_hashes */
    uint64_t payload; /* where sector 0 is, from the header on, bytes */
    uint8_t digest[LUKS_DIGEST], salt[LUKS_SALT];
    uint32_t rounds;
    char uuid[41];
    struct luks_slot slots[LUKS_SLOTS];
};

struct luks_create {
    char *secret; /* id of the key */
    struct crypt_kind kind;
    uint32_t hash, ms;
};

struct luks_amend { /* of the keys: one more, or one less */
    uint32_t state, slot /* LUKS_SLOTS: any */, ms;
    char *new_secret, *old_secret; /* ids of keys */
};

/* Words for options, and what info() says: NULL-terminated. */
extern const char *const luks_ciphers[], *const luks_modes[], *const luks_ivs[], *const luks_hashes[];
/* Rows of create_opts: `c` is a struct luks_create in T, with a dot behind, `p` what the names begin with. */
#define LUKS_CREATE_OPTIONS(T, c, p)                                                                                \
    O_STR(T, c secret, p "key-secret", NULL, "its key: the id of an --object secret", .arg = "ID"),                 \
        O_ENUM(T, c kind.aes, p "cipher-alg", "aes-256", luks_ciphers, "cipher"),                                   \
        O_ENUM(T, c kind.mode, p "cipher-mode", "xts", luks_modes, "how it goes from block to block"),              \
        O_ENUM(T, c kind.iv, p "ivgen-alg", "plain64", luks_ivs, "what makes each sector's first bytes different"), \
        O_ENUM(T, c hash, p "hash-alg", "sha256", luks_hashes, "hash that makes a key of the pass phrase"),         \
        O_U32(T, c ms, p "iter-time", "2000", 1, 60000, "milliseconds that this takes here, and those who guess it")

/* Likewise rows of amend_opts, of a struct luks_amend. */
extern const char *const luks_states[];
#define LUKS_AMEND_OPTIONS(T, c, p)                                                                                \
    O_ENUM(T, c state, p "state", "keep", luks_states, "active adds a key, inactive takes one out"),               \
        O_STR(T, c new_secret, p "new-secret", NULL, "the key to add: the id of an --object secret", .arg = "ID"), \
        O_STR(T, c old_secret, p "old-secret", NULL, "the key to take out, from wherever it is", .arg = "ID"),     \
        O_U32(T, c slot, p "keyslot", "8", 0, LUKS_SLOTS, "the slot, from 0 on; 8: any"),                          \
        O_U32(T, c ms, p "iter-time", "2000", 1, 60000, "milliseconds that it takes to open it with a new key")

/* ---- luks_header.c ---- */

/* From the first LUKS_HEADER bytes; `area`: bytes that header and key material may take.  -EINVAL, -ENOTSUP; the
 * message begins with `name`. */
int luks_parse(const uint8_t *p, uint64_t area, const char *name, struct luks_header *ret, struct err *err) must_check;
/* Tries each key in each slot of the header at `off`: the sectors' key.  -EACCES: none fits. */
int luks_unlock(struct blk *file, uint64_t off, const struct luks_header *h, const struct blk_keys *keys,
                uint8_t ret[CRYPT_KEY_MAX], struct err *err) must_check;
/* A new header with its first slot, h->payload bytes, and the sectors' key.  The caller frees it. */
uint8_t *luks_format(const struct luks_create *c, const struct blk_key *key, struct luks_header *h);
/* The bytes that takes. */
uint64_t luks_area(const struct crypt_kind *k);
uint64_t luks_material(const struct luks_header *h); /* bytes of a slot's key */
/* The slots of the header at `off` that the key opens, a bit each. */
int luks_slots_of(struct blk *file, uint64_t off, const struct luks_header *h, const struct blk_key *key, unsigned *ret)
    must_check;
/* A free slot, whose place is free, gets the sectors' key, which one of `keys` opens; key is its own from now on. */
int luks_fill(struct blk *file, uint64_t off, struct luks_header *h, unsigned slot, const struct blk_key *key,
              uint32_t ms, const struct blk_keys *keys, struct err *err) must_check;
int luks_erase(struct blk *file, uint64_t off, struct luks_header *h, unsigned slot) must_check;
/* Do they make sense?  And the key that they name; messages begin with `name`. */
int luks_create_check(const struct luks_create *c, const struct blk_keys *keys, const char *name,
                      const struct blk_key **ret, struct err *err) must_check;

/* ---- luks_slots.c ---- */

/* Changes the slots of the header at `off`, which takes `area` bytes.  The last key goes only with `force`. */
int luks_amend(struct blk *file, uint64_t off, uint64_t area, const struct luks_amend *a, const struct blk_keys *keys,
               bool force, struct err *err) must_check;

/* ---- luks.c ---- */

extern const struct blk_driver luks_driver;

/*
 * A node above `data`, which stays its owner's, that encrypts by the header at `off` of `file`, `area` bytes; sectors
 * are numbered from data's byte 0.  Without any key, where o->keyless allows that, it answers -ENOKEY.
 */
int luks_layer(struct blk *file, uint64_t off, uint64_t area, struct blk *data, const struct blk_open_opts *o,
               struct blk **ret, struct err *err) must_check;
void luks_layer_close(struct blk *b); /* accepts NULL */
json_t *luks_info(struct blk *b);     /* of a layer, or of a disk */
