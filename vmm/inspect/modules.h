/*
 * The kernel's modules: where their code is, and its symbols, from the list that the kernel keeps
 * [include/linux/module.h, kernel/module/kallsyms.c].  Where that has its members, BTF tells.
 */
#pragma once
#include "vmm/inspect/symbols.h"

/*
 * Adds their code and its symbols to *s.  How many modules there are; -ENOENT: the kernel does not say where (no BTF,
 * or no CONFIG_MODULES); -EFAULT: what it says is damaged.  What was read until then has been added.
 */
int symbols_add_modules(const struct vmcoreinfo *k, struct symbols *s);
