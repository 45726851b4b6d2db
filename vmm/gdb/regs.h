/*
 * The registers as gdb numbers them, and the target description that tells it so [gdb manual, appendix G.5.8].  The
 * features "core", "sse" and "segments" are gdb's own; the system's registers go by the names that QEMU gave them,
 * which scripts know.
 */
#pragma once
#include "vmm/cpu/state.h"

struct gdb_reg {
    const char *name, *type, *group; /* group: NULL for gdb's choice */
    uint16_t off;                    /* in struct cpu_state */
    uint8_t len;                     /* bytes to gdb, from the lowest; struct cpu_state has as many or more */
};
enum { GDB_REGS = 66 };
extern const struct gdb_reg gdb_regs[GDB_REGS];
enum { GDB_REGS_BYTES = 16 * 8 + 8 + 4 + 6 * 4 + 8 * 10 + 8 * 4 + 16 * 16 + 4 + 2 * 8 + 7 * 8 };

/* The value as gdb has it: `len` bytes, little endian. */
void gdb_reg_get(unsigned n, const struct cpu_state *s, void *ret);
void gdb_reg_set(unsigned n, struct cpu_state *s, const void *value);

/* XML; the caller's to free. */
char *gdb_target_xml(void) must_check;
