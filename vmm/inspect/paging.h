/*
 * From a guest's linear addresses to physical ones, by its own page tables, without its help.  The tables are the
 * guest's: each entry is copied once, and a walk has as many steps as the mode has levels, whatever they say.
 */
#pragma once
#include "vmm/cpu/state.h"
#include "vmm/mem/gmem.h"

struct paging {
    struct gmem *mem; /* borrowed */
    uint64_t cr0, cr3, cr4, efer;
};

/* As this CPU translates at this moment. */
struct paging paging_of(struct gmem *mem, const struct cpu_state *s);
/* Where `addr` lies, and how many bytes from there on follow each other in *left.  -EFAULT: it is not mapped. */
int paging_walk(const struct paging *p, uint64_t addr, gpa_t *ret, uint64_t *left) must_check;
/* All or nothing of *dst is meant; -EFAULT when any byte is not mapped, or not to RAM. */
int paging_read(const struct paging *p, uint64_t addr, void *dst, size_t n) must_check;
/* Whether the guest may write there or not.  -EFAULT: what comes before the byte that is not there was written. */
int paging_write(const struct paging *p, uint64_t addr, const void *src, size_t n) must_check;
