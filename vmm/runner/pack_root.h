/* A directory as the guest's root, in its initramfs: for kernels that could not mount it. */
#pragma once
#include "vmm/runner/run.h"

/* Adds it to the cpio archive at `f`; too large for the guest's memory is an error that says what would do. */
int pack_root(FILE *f, const struct test_spec *s, struct err *err) must_check;
