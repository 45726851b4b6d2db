/* Which file a user means by a kernel, and where its modules are. */
#pragma once
#include "vmm/base/base.h"
#include "vmm/base/err.h"

struct kernel_place {
    char *file;        /* bzImage or vmlinux; owned */
    char *modules;     /* lib/modules/VERSION or a build tree; NULL: none found.  Owned */
    char *config;      /* the file that it was configured by; NULL: none found.  Owned */
    char version[128]; /* empty: the file does not say */
    int hold;          /* keeps both where they were unpacked to; -1: there is no need */
};

/*
 * `what`: a file, a kernel's build tree, a Debian package, the version of an installed kernel, or NULL: the running
 * kernel's file, else the newest that is installed.
 */
int kernel_find(const char *what, struct kernel_place *ret, struct err *err) must_check;
/*
 * What it was configured by, a text of the caller's to free: from that file, else from the kernel itself, where it
 * carries that (CONFIG_IKCONFIG).  NULL: unknown.  `cache`: the kernel may be kept unpacked.
 */
char *kernel_config(const struct kernel_place *k, bool cache);
void kernel_place_fini(struct kernel_place *k);
