/* Keys that the user gives for encrypted images: pass phrases, or whatever bytes a file has. */
#pragma once
#include "vmm/base/base.h"
#include "vmm/base/err.h"

enum { BLK_KEYS_MAX = 64, BLK_KEY_MAX = 64 << 10 }; /* keys; bytes of one */

struct blk_key {
    char *id; /* what messages and options call it: a name, or the file's */
    uint8_t *data;
    size_t len;
};

struct blk_keys { /* all zeroes: none */
    struct blk_key v[BLK_KEYS_MAX];
    unsigned n;
};

/* -EINVAL: the id is taken, the key is empty or too long, or there are too many. */
int blk_keys_add(struct blk_keys *k, const char *id, const void *data, size_t len, struct err *err) must_check;
/* The whole of a file, a line's end with it. */
int blk_keys_add_file(struct blk_keys *k, const char *id, const char *path, struct err *err) must_check;
const struct blk_key *blk_keys_find(const struct blk_keys *k, const char *id); /* NULL: none; `k` may be NULL */
void blk_keys_fini(struct blk_keys *k);                                        /* wipes them */
