/* The initramfs that a run brings along: the guest's first process, its orders, and the modules that it loads. */
#pragma once
#include "vmm/runner/run.h"

extern const unsigned char guest_init[]; /* firmware/init, linked */
extern const size_t guest_init_size;

/* For a config that is resolved.  A memfd, the caller's to close. */
int pack_initrd(const struct test_spec *s, int *ret, struct err *err) must_check;
