/*
 * A harness feeds one parser with bytes from nowhere.  With -Dfuzz=true it is built for libFuzzer; in every build its
 * corpus is replayed as a test (replay.c).  What must not happen is a sanitizer's report or a failed assert.
 */
#pragma once
#include "vmm/base/base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An input that is read bit by bit as what a harness does. */
struct bytes {
    const uint8_t *p;
    size_t left;
};

/* The next `n` bytes as a number; zeroes when they run out. */
static inline uint64_t bytes_take(struct bytes *b, unsigned n)
{
    uint8_t raw[8] = {0};

    n = (unsigned)min_u64(n, b->left);
    memcpy(raw, b->p, n);
    b->p += n;
    b->left -= n;
    return get_le64(raw);
}
