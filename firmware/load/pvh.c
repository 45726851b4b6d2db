/* hvm_start_info, version 1 [Xen docs/misc/pvh.pandoc; xen/include/public/arch-x86/hvm/start_info.h]. */
#include "firmware/load/elf.h"

enum { HVM_START_MAGIC = 0x336ec578, PVH_CMDLINE_MAX = 2047 };

struct hvm_start_info {
    uint32_t magic, version, flags, nr_modules;
    uint64_t modlist_paddr, cmdline_paddr, rsdp_paddr;
    uint64_t memmap_paddr; /* from version 1 */
    uint32_t memmap_entries, reserved;
};

struct hvm_modlist_entry {
    uint64_t paddr, size, cmdline_paddr, reserved;
};

struct hvm_memmap_table_entry {
    uint64_t addr, size;
    uint32_t type, reserved; /* types as in E820 */
};

static int put_memmap(struct load *ld, gpa_t *ret, struct err *err)
{
    const struct boot_params_in *in = ld->in;
    int rc = low_alloc(ld, in->ne820 * sizeof(struct hvm_memmap_table_entry), 8, ret, err);

    for (unsigned i = 0; rc == 0 && i < in->ne820; i++) {
        struct hvm_memmap_table_entry e = {
            .addr = in->e820[i].base, .size = in->e820[i].size, .type = in->e820[i].type};

        rc = low_write(ld, *ret + i * sizeof(e), &e, sizeof(e), err);
    }
    return rc;
}

int pvh_start(struct load *ld, uint32_t entry, uint64_t kernel_end, struct err *err)
{
    struct hvm_start_info info = {
        .magic = HVM_START_MAGIC, .version = 1, .rsdp_paddr = ld->in->rsdp, .memmap_entries = ld->in->ne820};
    struct blob_at initrd;
    gpa_t at, cmdline;
    int rc = initrd_load(ld, ld->initrds, ld->ninitrds, GiB(4), false, kernel_end, &initrd, err);

    if (rc < 0)
        return rc;
    if (initrd.size > 0) {
        struct hvm_modlist_entry mod = {.paddr = initrd.base, .size = initrd.size};

        rc = low_put(ld, &mod, sizeof(mod), 8, &at, err);
        if (rc < 0)
            return rc;
        info.nr_modules = 1;
        info.modlist_paddr = at;
    }
    rc = low_cmdline(ld, NULL, NULL, PVH_CMDLINE_MAX, &cmdline, err);
    if (rc < 0)
        return rc;
    info.cmdline_paddr = cmdline;
    rc = put_memmap(ld, &at, err);
    if (rc < 0)
        return rc;
    info.memmap_paddr = at;
    *ld->regs = (struct boot_regs){.entry = BOOT_PVH, .rip = entry};
    rc = low_put(ld, &info, sizeof(info), 8, &ld->regs->rbx, err);
    return rc < 0 ? rc : flat_gdt(ld, false, err);
}
