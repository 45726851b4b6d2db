/*
 * A guest's memory and registers in the form that makedumpfile(8) gives to dumps, kdump-compressed of version 6
 * [makedumpfile's IMPLEMENTATION; diskdump_mod.h]: crash and drgn open it, gdb does not.  A header, the notes of an ELF
 * core, two bitmaps of pages (what there is, what is in the file), a descriptor for each page in the file, and the
 * pages, each compressed by zlib where that makes it smaller.
 */
#pragma once
#include "vmm/inspect/core.h"

/* Into an empty file, all but what is in `spare` (NULL: all). */
int kdump_write(int fd, const struct gmem *mem, const struct cpu_state *cpus, unsigned ncpus,
                const struct vmcoreinfo *k, const struct spare *spare, struct err *err) must_check;
