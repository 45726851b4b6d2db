/*
 * A Linux kernel seen from outside, with no help of its own: found by the note that it keeps for kdump, VMCOREINFO
 * [Documentation/admin-guide/kdump/vmcoreinfo.rst], which is text that names symbols, sizes and offsets.  All that it
 * says is the guest's word: numbers are checked where they are used.
 */
#pragma once
#include "vmm/inspect/paging.h"

enum { VMCOREINFO_MAX = 16 << 10 };

struct vmcoreinfo {
    struct gmem *mem;     /* borrowed */
    struct paging paging; /* the kernel's own tables */
    char *info;           /* VMCOREINFO's text, owned */
    size_t info_len;
    uint64_t kaslr; /* how far it was moved */
    uint64_t phys_base;
    char release[65];
};

/* -ENOENT: no kernel, or none that has come so far; it is past its first initcalls then.  Reads a bit of every page. */
int vmcoreinfo_find(struct gmem *mem, struct vmcoreinfo *ret) must_check;
/* The same in a guest that runs on: only in pages that the host has in memory, so that it takes none for the others,
 * and leaves them to become large ones. */
int vmcoreinfo_look(struct gmem *mem, struct vmcoreinfo *ret) must_check;
void vmcoreinfo_fini(struct vmcoreinfo *k); /* copes with one that is all zeroes */

/* What stands behind "KEY=": symbols in hexadecimal, all else in decimal.  False: it is not there. */
bool vmcoreinfo_symbol(const struct vmcoreinfo *k, const char *name, uint64_t *ret); /* "prb" for SYMBOL(prb) */
bool vmcoreinfo_number(const struct vmcoreinfo *k, const char *key, uint64_t *ret);  /* "OFFSET(prb_desc.state_var)" */
/* By the kernel's tables, as paging_read(). */
int vmcoreinfo_read(const struct vmcoreinfo *k, uint64_t addr, void *dst, size_t n) must_check;
