/*
 * A guest's memory and registers as an ELF core [elf(5)] that gdb and crash open: a note for each CPU, VMCOREINFO, and
 * memory where the kernel has it: in its direct map, in its image, and under its stacks.  Pages of zeroes are holes in
 * the file.
 */
#pragma once
#include "vmm/inspect/symbols.h"

/* Into an empty file.  `k` and `s` may be NULL: there is no kernel to be seen, and memory stands at physical addresses.
 */
int core_write(int fd, const struct gmem *mem, const struct cpu_state *cpus, unsigned ncpus, const struct vmcoreinfo *k,
               const struct symbols *s, struct err *err) must_check;
