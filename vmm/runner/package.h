/*
 * Kernels in Debian packages, unpacked once: in $XDG_CACHE_HOME/bothy/packages each has a folder named by the SHA-256
 * of the package, which appears when it is whole, and a link from what tells the package's file from others, so that it
 * is read once only.  The last few that were used are kept.
 */
#pragma once
#include "vmm/base/base.h"
#include "vmm/base/err.h"

/* The kernel's file, which lies in boot/ beside lib/modules/; the caller's to free.  All of that stays as long as
 * *hold, a descriptor, is open. */
int package_kernel(const char *path, char **ret, int *hold, struct err *err) must_check;
