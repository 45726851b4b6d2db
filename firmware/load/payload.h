/* Decompresses what kernels come in, recognised by its magic number. */
#pragma once
#include "firmware/load/loader.h"

/*
 * At most `max` bytes come out; `ret` owns a mapping of that size and `len` says how many they were.  -ENOTSUP: no
 * format that this build knows; -EINVAL: damaged; -EFBIG: more than `max`; -ENOMEM.  Bytes behind the compressed
 * stream are ignored.
 */
int payload_decompress(const uint8_t *in, size_t n, size_t max, struct buf *ret, size_t *len) must_check;
