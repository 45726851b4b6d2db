/*
 * A guest's memory and registers as an ELF core [elf(5)] that gdb and crash open: a note for each CPU, VMCOREINFO, and
 * memory where the kernel has it: in its direct map, in its image and modules, and under its stacks.  Pages of zeroes,
 * and those that are left out, are holes in the file.
 */
#pragma once
#include "vmm/inspect/spare.h"
#include "vmm/inspect/symbols.h"

/* The notes, for whoever puts them elsewhere; the caller's to free. */
void core_notes(const struct cpu_state *cpus, unsigned ncpus, const struct vmcoreinfo *k, uint8_t **ret, size_t *n);
/* Into an empty file, all but what is in `spare` (NULL: all).  `k` and `s` may be NULL: there is no kernel to be seen,
 * and memory stands at physical addresses. */
int core_write(int fd, const struct gmem *mem, const struct cpu_state *cpus, unsigned ncpus, const struct vmcoreinfo *k,
               const struct symbols *s, const struct spare *spare, struct err *err) must_check;
