/* The configuration that a kernel with CONFIG_IKCONFIG=y carries with it: packed, between two marks. */
#pragma once
#include "vmm/base/base.h"

/* The first among these bytes of a kernel, which need not be whole nor honest: a text of the caller's to free. -ENOENT:
 * there is none that can be read. */
int ikconfig_find(const uint8_t *p, size_t n, char **ret) must_check;
