/* Files whole, of a size that is known to be bearable. */
#pragma once
#include "vmm/base/base.h"

/* A regular file, with a NUL behind it; the caller's to free.  -1 and errno, EFBIG where it has more than `max` bytes.
 */
int file_read(const char *path, size_t max, char **ret, size_t *n) must_check;
/* The same of a file of any kind, a pipe too, as a text. */
int file_drain(const char *path, size_t max, char **ret) must_check;
/* All of it, at the descriptor's place or at `off`; 0 or -errno. */
int file_write(int fd, const void *p, size_t n) must_check;
int file_write_at(int fd, uint64_t off, const void *p, size_t n) must_check;
