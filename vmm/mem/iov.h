/* Data in pieces: `n` bytes, from `skip` on, of iovecs that may be a guest's memory. */
#pragma once
#include "vmm/base/base.h"

void iov_put(const struct iovec *iov, uint64_t skip, const void *src, size_t n);
void iov_get(const struct iovec *iov, uint64_t skip, void *dst, size_t n);
void iov_zero(const struct iovec *iov, uint64_t skip, uint64_t n);
/* As much of them as fits into `max` iovecs of `ret`: the number of these, and of bytes in *len. */
unsigned iov_part(const struct iovec *iov, uint64_t skip, uint64_t n, struct iovec *ret, unsigned max, uint64_t *len);
