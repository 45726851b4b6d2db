/* What `bothy run` and `bothy test` take about guests that die. */
#pragma once
#include "vmm/base/opt.h"

struct crash_opts {
    char *bundle, *fail_on;
    bool core, lean, packed;
};

/* Rows of an option table, for a struct crash_opts at T's member `m` (with its dot). */
#define CRASH_OPTIONS(T, m)                                                                                      \
    O_STR(T, m bundle, "bundle", NULL, "when the guest crashes, write there what is known of it", .arg = "DIR"), \
        O_BOOL(T, m core, "core", "off", "in the bundle, the guest's memory as an ELF core, too"),               \
        O_BOOL(T, m lean, "lean-core", "off", "such a core without pages that are free, or programs' own"),      \
        O_BOOL(T, m packed, "packed-core", "off", "such a core compressed as kdump's are, for crash and drgn"),  \
        O_STR(T, m fail_on, "fail-on", NULL,                                                                     \
              "end the guest as crashed when its kernel's log has one of these: panic, oops, bug, warn, kasan, " \
              "ubsan, lockdep, lockup, hung, rcu, or all; panic with --bundle",                                  \
              .arg = "KIND,...")

/* Whether they are sound and the bundle can be made, and in *kinds (may be NULL) what to look for in the kernel's log,
 * 1 << enum splat_kind; 0: nothing. */
int crash_opts_check(const struct crash_opts *o, uint32_t *kinds, struct err *err) must_check;
