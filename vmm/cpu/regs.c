/* [Intel SDM vol. 3A: control registers, descriptor types, memory type range registers; vol. 4: MSRs] */
#include "vmm/cpu/regs.h"

enum { SELECTOR_CODE = 0x10, SELECTOR_DATA = 0x18, GDT_LIMIT = 0x1f };
enum { TYPE_DATA_RW_ACCESSED = 3, TYPE_CODE_ER_ACCESSED = 11, TYPE_TSS_BUSY = 11 };
enum { CR0_PE = 1 << 0, CR0_ET = 1 << 4, CR4_PAE = 1 << 5, EFER_LME = 1 << 8, EFER_LMA = 1 << 10 };
#define CR0_PG 0x80000000u
enum { RFLAGS_ONE = 1 << 1 };

enum { MSR_MISC_ENABLE = 0x1a0, MISC_ENABLE_FAST_STRING = 1 << 0 };
enum { MSR_MTRR_DEF_TYPE = 0x2ff, MTRR_ENABLE = 1 << 11, MTRR_WRITE_BACK = 6 };

const struct cpu_msr_bits cpu_msr_defaults[CPU_MSR_DEFAULTS] = {
    {MSR_MISC_ENABLE, MISC_ENABLE_FAST_STRING},         /* Linux takes REP MOVS for slow without it */
    {MSR_MTRR_DEF_TYPE, MTRR_ENABLE | MTRR_WRITE_BACK}, /* and leaves the PAT alone while MTRRs are off */
};

void cpu_boot_regs(bool long_mode, uint64_t cr3, uint64_t gdt, struct cpu_boot_regs *ret)
{
    *ret = (struct cpu_boot_regs){
        .code = {.limit = UINT32_MAX,
                 .selector = SELECTOR_CODE,
                 .type = TYPE_CODE_ER_ACCESSED,
                 .wide = !long_mode,
                 .long_mode = long_mode},
        .data = {.limit = UINT32_MAX, .selector = SELECTOR_DATA, .type = TYPE_DATA_RW_ACCESSED, .wide = true},
        .task = {.limit = 0x67, .type = TYPE_TSS_BUSY, .system = true}, /* VMX refuses to run without one */
        .gdt_base = gdt,
        .gdt_limit = GDT_LIMIT,
        .cr0 = CR0_PE | CR0_ET | (long_mode ? CR0_PG : 0),
        .cr3 = long_mode ? cr3 : 0,
        .cr4 = long_mode ? CR4_PAE : 0,
        .efer = long_mode ? EFER_LME | EFER_LMA : 0,
        .rflags = RFLAGS_ONE,
    };
}
