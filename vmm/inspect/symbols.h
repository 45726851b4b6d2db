/*
 * The kernel's symbols, from the table that it keeps of itself, kallsyms [scripts/kallsyms.c; kernel/kallsyms.c], which
 * VMCOREINFO names since Linux 6.0; those of its modules when somebody adds them; and back-traces by them.
 */
#pragma once
#include <stdio.h>

#include "vmm/inspect/vmcoreinfo.h"

enum { SYMBOL_NAME_MAX = 512, CODE_NAME_MAX = 64 };

struct symbol {
    uint64_t addr;
    uint32_t name; /* in symbols.names */
};

struct code {
    uint64_t start, end;
    char module[CODE_NAME_MAX]; /* "": the kernel's own */
};

struct symbols {
    struct symbol *s; /* by address */
    size_t n, room;
    char *names;
    size_t names_len, names_room;
    struct code *code; /* where it is; the kernel's first */
    unsigned ncode;
};

/* -ENOENT: the kernel does not say where; -EFAULT: its table is damaged. */
int symbols_read(const struct vmcoreinfo *k, struct symbols *ret) must_check;
void symbols_fini(struct symbols *s); /* copes with one that is all zeroes */

/* For who knows of more: -EFAULT, there is too much of it.  symbols_sort() comes before anything is asked. */
int symbols_add(struct symbols *s, uint64_t addr, const char *name) must_check;
int symbols_add_code(struct symbols *s, uint64_t start, uint64_t size, const char *module) must_check;
void symbols_sort(struct symbols *s);

/* The address of the first symbol of that name. */
bool symbols_find(const struct symbols *s, const char *name, uint64_t *ret);
/* The code that `addr` is in; NULL: in none.  Needs no order. */
const struct code *symbols_code(const struct symbols *s, uint64_t addr);
/* "panic+0x123/0x2f0", "f+0x1/0x20 [module]", or the address alone where no code is; symbols_function: "panic". */
void symbols_name(const struct symbols *s, uint64_t addr, char *buf, size_t n);
void symbols_function(const struct symbols *s, uint64_t addr, char *buf, size_t n);

enum { TRACE_MAX = 48 };
/*
 * Return addresses on the stack of a CPU at level 0, from the innermost on: words that point behind a call in the
 * kernel's code.  Without unwind tables some may be leftovers of calls that have returned.  The count; 0 without
 * symbols.
 */
unsigned symbols_trace(const struct symbols *s, const struct vmcoreinfo *k, const struct cpu_state *cpu,
                       uint64_t ret[TRACE_MAX]);
