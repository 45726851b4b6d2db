/*
 * Unpacked kernels kept in $XDG_CACHE_HOME/bothy/kernels.  A file is named by the SHA-256 of what it was made from; a
 * symbolic link named by the identity of a bzImage (device, inode, size, times) leads to it, so that an unchanged
 * bzImage is not even read.  A cache that cannot be read or written is no error: the kernel is unpacked again.
 */
#pragma once
#include "firmware/load/kernel.h"

#define CACHE_MAX GiB(1) /* of all files; the least recently used go first */

enum { CACHE_KEY_LEN = 64, CACHE_NAME_MAX = 160 };

struct cache {
    int dir;                      /* -1: do without */
    char link[CACHE_NAME_MAX];    /* this bzImage's; empty: it has no identity, or changed just now */
    char name[CACHE_KEY_LEN + 1]; /* of this content; set by cache_find_content() */
};

/* `im`: the bzImage that will be asked for. */
void cache_open(struct cache *c, bool use, const struct image *im);
void cache_close(struct cache *c);
/* 0 and the kernel, or -ENOENT. */
int cache_find_file(struct cache *c, struct kernel *ret) must_check;
int cache_find_content(struct cache *c, const struct setup_header *hdr, const struct buf *payload, struct kernel *ret)
    must_check;
/* Keeps it, after cache_find_content() did not find it.  `k` is then what the cache has. */
void cache_put(struct cache *c, struct kernel *k);

/* For others who keep something in a folder beside that: its descriptor, or -errno.  It is ours alone. */
int cache_folder(const char *name) must_check;
/* What tells a file from all others, and from itself after a change; false: it changed just now. */
bool cache_identity(int fd, char ret[CACHE_NAME_MAX]) must_check;
/* The name of what has these bytes. */
void cache_digest(const struct iovec *parts, unsigned n, char ret[CACHE_KEY_LEN + 1]);
/* From an identity to such a name; false: there is no link. */
bool cache_follow(int dir, const char *link, char ret[CACHE_KEY_LEN + 1]) must_check;
void cache_link(int dir, const char *link, const char *name);
