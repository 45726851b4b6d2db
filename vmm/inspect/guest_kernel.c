#include "vmm/inspect/guest_kernel.h"

#include <errno.h>

#include "vmm/inspect/modules.h"

void guest_kernel_init(struct guest_kernel *k, struct gmem *mem)
{
    *k = (struct guest_kernel){.modules = -ENOENT};
    k->found = vmcoreinfo_find(mem, &k->info) == 0;
    k->has_symbols = k->found && symbols_read(&k->info, &k->symbols) == 0;
    if (k->has_symbols)
        k->modules = symbols_add_modules(&k->info, &k->symbols);
}

void guest_kernel_fini(struct guest_kernel *k)
{
    symbols_fini(&k->symbols);
    vmcoreinfo_fini(&k->info);
}
