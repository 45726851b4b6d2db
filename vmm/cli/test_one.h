/* A run whose command has bothy's own standard streams, or its terminal. */
#pragma once
#include "vmm/runner/run.h"

/*
 * Runs it and tells of what went wrong on standard error.  `log`: where the kernel's log goes besides, a descriptor, or
 * -1.  Returns the exit code, or -errno.
 */
int test_one(struct test_spec *s, int log, struct err *err) must_check;
