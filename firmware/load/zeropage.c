/*
 * What a Linux kernel finds when it is entered in long mode: boot_params ("zero page"), command line, setup_data and an
 * identity map [Linux Documentation/arch/x86/boot.rst "64-bit Boot Protocol"; zero-page.rst].
 */
#include "firmware/load/loader.h"

#include <inttypes.h>

static_assert(sizeof(struct boot_params) == 4096, "the zero page is a page");

enum {
    PTE_PRESENT = 1 << 0,
    PTE_WRITE = 1 << 1,
    PTE_LARGE = 1 << 7,
    IDENTITY_GIB = 4,
    LOADER_UNKNOWN = 0xff, /* type_of_loader: none of the registered ones */
};

#define SEG_DATA32 0x00cf93000000ffffull
#define SEG_CODE32 0x00cf9b000000ffffull
#define SEG_CODE64 0x00af9b000000ffffull

int flat_gdt(struct load *ld, bool code64, struct err *err)
{
    const uint64_t gdt[] = {0, 0, code64 ? SEG_CODE64 : SEG_CODE32, SEG_DATA32};

    return low_put(ld, gdt, sizeof(gdt), sizeof(gdt), &ld->regs->gdt, err);
}

/* 2 MiB pages: hosts need not have pages of 1 GiB. */
static int identity_map(struct load *ld, gpa_t *ret, struct err *err)
{
    uint64_t table[2 + IDENTITY_GIB][512] = {0}; /* level 4, level 3, level 2 */
    gpa_t at;
    int rc = low_alloc(ld, sizeof(table), 4096, &at, err);

    if (rc < 0)
        return rc;
    table[0][0] = (at + 4096) | PTE_PRESENT | PTE_WRITE;
    for (unsigned g = 0; g < IDENTITY_GIB; g++) {
        table[1][g] = (at + (2 + g) * 4096) | PTE_PRESENT | PTE_WRITE;
        for (unsigned i = 0; i < 512; i++)
            table[2 + g][i] = (GiB(g) + MiB(2) * i) | PTE_PRESENT | PTE_WRITE | PTE_LARGE;
    }
    *ret = at;
    return low_write(ld, at, table, sizeof(table), err);
}

static int put_dtb(struct load *ld, gpa_t *ret, struct err *err)
{
    struct setup_data head = {.type = SETUP_DTB, .len = ld->in->dtb_len};
    int rc;

    if (!ld->in->dtb) {
        *ret = 0;
        return 0;
    }
    rc = low_alloc(ld, sizeof(head) + head.len, 8, ret, err);
    if (rc < 0)
        return rc;
    rc = low_write(ld, *ret, &head, sizeof(head), err);
    return rc < 0 ? rc : low_write(ld, *ret + sizeof(head), ld->in->dtb, head.len, err);
}

int linux_start(struct load *ld, const struct setup_header *hdr, const char *extra_word, gpa_t entry,
                const struct blob_at *initrd, struct err *err)
{
    const struct boot_params_in *in = ld->in;
    struct boot_params bp = {.hdr = *hdr, .acpi_rsdp_addr = in->rsdp};
    gpa_t cmdline, dtb;
    int rc;

    if (in->ne820 > array_len(bp.e820_table))
        return err_set(err, E2BIG, "memory map of %u entries; Linux takes %zu", in->ne820, array_len(bp.e820_table));
    rc = low_cmdline(ld, NULL, extra_word, hdr->cmdline_size, &cmdline, err);
    if (rc < 0)
        return rc;
    rc = put_dtb(ld, &dtb, err);
    if (rc < 0)
        return rc;
    bp.hdr.type_of_loader = LOADER_UNKNOWN;
    bp.hdr.loadflags |= LOADED_HIGH;
    bp.hdr.cmd_line_ptr = (uint32_t)cmdline;
    bp.hdr.setup_data = dtb;
    bp.hdr.ramdisk_image = (uint32_t)initrd->base;
    bp.hdr.ramdisk_size = (uint32_t)initrd->size;
    bp.ext_ramdisk_image = (uint32_t)(initrd->base >> 32);
    bp.ext_ramdisk_size = (uint32_t)(initrd->size >> 32);
    bp.e820_entries = (uint8_t)in->ne820;
    for (unsigned i = 0; i < in->ne820; i++)
        bp.e820_table[i] =
            (struct boot_e820_entry){.addr = in->e820[i].base, .size = in->e820[i].size, .type = in->e820[i].type};
    *ld->regs = (struct boot_regs){.entry = BOOT_LINUX64, .rip = entry};
    rc = low_put(ld, &bp, sizeof(bp), 4096, &ld->regs->rsi, err);
    if (rc < 0)
        return rc;
    rc = identity_map(ld, &ld->regs->cr3, err);
    return rc < 0 ? rc : flat_gdt(ld, true, err);
}
