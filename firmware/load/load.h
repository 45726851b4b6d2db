/*
 * Puts a kernel in guest RAM and says how to start it.  Formats: bzImage (payload decompressed here, or left to the
 * guest), vmlinux ELF, ELF with a PVH note, Multiboot-1 ELF, FIT.  Everything in a file is checked before it is
 * believed.
 */
#pragma once
#include "vmm/base/base.h"
#include "vmm/base/err.h"
#include "vmm/mem/gmem.h"

enum boot_entry {
    BOOT_LINUX64,   /* long mode, identity map, RSI = boot_params [Linux x86 boot protocol, 64-bit] */
    BOOT_PVH,       /* 32-bit flat protected mode, EBX = hvm_start_info [PVH boot ABI] */
    BOOT_MULTIBOOT, /* 32-bit flat protected mode, EAX = magic, EBX = multiboot_info [Multiboot 0.6.96, 3.2] */
};

enum { BOOT_INITRDS_MAX = 8 };

struct e820_entry {
    uint64_t base, size;
    uint32_t type; /* 1 RAM, 2 reserved, 3 ACPI, 4 NVS */
};

struct boot_params_in { /* what the board knows; all borrowed */
    const char *kernel;
    const char *initrds[BOOT_INITRDS_MAX]; /* one after the other for Linux, modules for Multiboot */
    unsigned ninitrds;
    const char *cmdline;
    bool kaslr; /* and the words do not say nokaslr */
    bool cache; /* keep and use decompressed kernels */
    const struct e820_entry *e820;
    unsigned ne820;
    gpa_t rsdp;      /* 0: no ACPI */
    const void *dtb; /* NULL: none; copied to low memory and passed in setup_data, so for Linux only */
    uint32_t dtb_len;
    /*
     * Conventional memory [low_free, low_end) is the loader's for what it tells the kernel: boot_params, command line,
     * page tables, GDT, device tree.  64 KiB and the device tree are always enough.
     */
    gpa_t low_free, low_end;
};

struct boot_regs { /* how the first vCPU starts */
    enum boot_entry entry;
    uint64_t rip, rsi, rbx, rax;
    uint64_t cr3; /* BOOT_LINUX64: page tables made here, identity-mapping the first 4 GiB with 2 MiB pages */
    gpa_t gdt;    /* four entries: 0x08 unused, 0x10 code (of the entry's width), 0x18 data; flat */
};

/*
 * The machine is stopped and guest RAM reads as zeroes.  On failure guest RAM holds rubbish and the message names file,
 * reason and remedy.
 */
int boot_load(struct gmem *mem, const struct boot_params_in *in, struct boot_regs *ret, struct err *err) must_check;
/* What a kernel was configured by, where it carries that: a text of the caller's to free.  -ENOENT: it does not.
 * `cache` as above. */
int boot_config(const char *kernel, bool cache, char **ret) must_check;
