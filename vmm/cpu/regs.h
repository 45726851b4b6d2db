/* The registers with which a kernel is entered, and the MSRs that firmware would have set.  Pure; vmm/kvm applies them.
 */
#pragma once
#include "vmm/base/base.h"

struct cpu_segment {
    uint64_t base;
    uint32_t limit; /* in bytes */
    uint16_t selector;
    uint8_t type;                 /* [Intel SDM vol. 3A, segment and system descriptor types] */
    bool system, wide, long_mode; /* S clear, D/B, L */
};

struct cpu_boot_regs {
    struct cpu_segment code, data, task; /* data: DS, ES, FS, GS, SS */
    uint64_t gdt_base;
    uint16_t gdt_limit;
    uint64_t cr0, cr3, cr4, efer, rflags;
};

/*
 * Flat segments from a GDT at `gdt` with code at 0x10 and data at 0x18; interrupts off.  Long mode on the page tables
 * at `cr3` [Linux x86 boot protocol, 64-bit], else 32-bit protected mode without paging [PVH boot ABI; Multiboot 1
 * §3.2].
 */
void cpu_boot_regs(bool long_mode, uint64_t cr3, uint64_t gdt, struct cpu_boot_regs *ret);

/* Bits that firmware sets in an MSR before it starts a kernel. */
struct cpu_msr_bits {
    uint32_t index;
    uint64_t set;
};
enum { CPU_MSR_DEFAULTS = 2 };
extern const struct cpu_msr_bits cpu_msr_defaults[CPU_MSR_DEFAULTS];
