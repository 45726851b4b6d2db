/* A guest's kernel with all that names its code, as far as it can be found in memory. */
#pragma once
#include "vmm/inspect/symbols.h"

struct guest_kernel {
    bool found; /* `info` is there */
    bool has_symbols;
    struct vmcoreinfo info;
    struct symbols symbols; /* empty, when there are none */
    int modules;            /* how many have their symbols among them, or -errno of symbols_add_modules() */
};

/* Looks for it; the guest stands still. */
void guest_kernel_init(struct guest_kernel *k, struct gmem *mem);
void guest_kernel_fini(struct guest_kernel *k);
