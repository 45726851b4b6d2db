/*
 * Where the time went from bothy's start to a command's first byte of output: by the kernel's log, with initcall_debug
 * (Documentation/admin-guide/kernel-parameters.txt), and what the machine says of itself.
 */
#pragma once
#include <stdio.h>

#include "vmm/runner/run.h"

struct boot;

/* Never fails. */
struct boot *boot_create(void);
void boot_destroy(struct boot *b); /* accepts NULL */
/* Of the kernel's log, as it comes; foreign bytes. */
void boot_feed(struct boot *b, const char *bytes, size_t n);
/* The run is over.  `begun_ns`: bothy's start, on CLOCK_MONOTONIC; `machine`: test_run's profile, or NULL. */
void boot_write(const struct boot *b, const struct test_result *r, uint64_t begun_ns, const char *machine, FILE *to);
