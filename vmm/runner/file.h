/* A whole file, of a size that is known to be bearable. */
#pragma once
#include "vmm/base/base.h"

/* With a NUL behind it; the caller's to free.  -1 and errno, EFBIG where it has more than `max` bytes. */
int file_read(const char *path, size_t max, char **ret, size_t *n) must_check;
