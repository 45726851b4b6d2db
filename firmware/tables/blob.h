/*
 * Bytes that grow: what tables are written into.  Integers are little endian.  Everything in them comes from the board,
 * not from a guest or a file, so growing aborts when the host has no memory.
 */
#pragma once
#include "vmm/base/base.h"

struct blob { /* owned bytes; zeroed is empty */
    uint8_t *data;
    size_t len, cap;
};
void blob_fini(struct blob *b);

/* `n` zero bytes at offset `at` (0 to len), what stood there moves up; returns where they are, until the next growth.
 */
uint8_t *blob_insert(struct blob *b, size_t at, size_t n);
void blob_put(struct blob *b, const void *p, size_t n);
void blob_zero(struct blob *b, size_t n);
/* Zero bytes up to a multiple of `align`, a power of two. */
void blob_align(struct blob *b, size_t align);
void blob_u8(struct blob *b, uint8_t v);
void blob_u16(struct blob *b, uint16_t v);
void blob_u32(struct blob *b, uint32_t v);
void blob_u64(struct blob *b, uint64_t v);
/* The byte that brings the sum of [at, at + n) to 0 modulo 256 when it is added to one that is 0 now. */
uint8_t blob_checksum(const struct blob *b, size_t at, size_t n);
