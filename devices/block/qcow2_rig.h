/* For tests of the qcow2 driver: a file in memory that remembers what was written in which order and fails when asked,
 * and images on it. */
#pragma once
#include <pthread.h>

#include "devices/block/qcow2_int.h"

struct mem_op {
    enum blk_op op;
    uint64_t off, len;
    uint8_t *data; /* of a write; owned */
};

struct mem {
    struct blk b;
    pthread_mutex_t lock;
    uint8_t *bytes;
    uint64_t size, room; /* room: bytes that are allocated, at least `size` */
    bool keep;           /* a log of operations */
    struct mem_op *log;
    size_t nlog;
    uint64_t changes; /* writes, zeroes, discards and flushes so far */
    uint64_t fail_at; /* the number of the first that fails; 0: none does */
    int fail_with;
};

struct mem *mem_create(uint64_t size);
void mem_destroy(struct mem *m);
void mem_forget(struct mem *m); /* its log */
void mem_apply(struct mem *m, const struct mem_op *op);

/* What opens encrypted images here: a key called "key". */
#define RIG_KEY "not a secret"
const struct blk_keys *rig_keys(void);
/* A new image on `m`; options as of bothy img create -o. */
void rig_create(struct mem *m, uint64_t size, const char *options);
/* Opens the image; `base`, when not NULL, is put below it.  NULL: refused, with the reason in *err. */
struct blk *rig_try(struct mem *m, struct blk *base, const char *options, bool read_only, struct err *err);
struct blk *rig_open(struct mem *m, struct blk *base);
/* Leaves m and the base as they are. */
void rig_close(struct blk *b);
/* The image has neither corruption nor, if `leaks` is false, leaks. */
void rig_check(struct mem *m, bool leaks);
/* The same by qemu-img, where it is installed; its other verbs too. */
void rig_qemu_check(struct mem *m, bool leaks);
/* Runs a shell command with $IMAGE, a file with m's bytes, which are then read back.  -1: there is no qemu-img. */
int rig_shell(struct mem *m, const char *command);
