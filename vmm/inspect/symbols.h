/*
 * The kernel's symbols, from the table that it keeps of itself, kallsyms [scripts/kallsyms.c; kernel/kallsyms.c], which
 * VMCOREINFO names since Linux 6.0; and back-traces by them.  Modules' symbols are not among them.
 */
#pragma once
#include <stdio.h>

#include "vmm/inspect/vmcoreinfo.h"

struct symbol {
    uint64_t addr;
    uint32_t name; /* in symbols.names */
    char type;     /* as nm(1) */
};

struct symbols {
    struct symbol *s; /* by address */
    size_t n;
    char *names;
    size_t names_len;
    uint64_t text, etext; /* where code is */
};

/* -ENOENT: the kernel does not say where; -EFAULT: its table is damaged. */
int symbols_read(const struct vmcoreinfo *k, struct symbols *ret) must_check;
void symbols_fini(struct symbols *s); /* copes with one that is all zeroes */
/* The address of the first symbol of that name. */
bool symbols_find(const struct symbols *s, const char *name, uint64_t *ret);
/* The code that `addr` is in: "panic+0x123", or the address alone. */
void symbols_name(const struct symbols *s, uint64_t addr, char *buf, size_t n);

enum { TRACE_MAX = 48 };
/*
 * Return addresses on the stack of a CPU at level 0, from the innermost on: words that point behind a call in the
 * kernel's code.  Without unwind tables some may be leftovers of calls that have returned.  The count.
 */
unsigned symbols_trace(const struct symbols *s, const struct vmcoreinfo *k, const struct cpu_state *cpu,
                       uint64_t ret[TRACE_MAX]);
