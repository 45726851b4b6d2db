/* What a debugger sees of a processor that stands still: plain values, whichever engine runs it. */
#pragma once
#include "vmm/base/base.h"

enum { CPU_GPRS = 16, CPU_RSP = 7, CPU_RBP = 6 }; /* in gdb's order: rax rbx rcx rdx rsi rdi rbp rsp r8 to r15 */
enum cpu_segment_name { CPU_CS, CPU_SS, CPU_DS, CPU_ES, CPU_FS, CPU_GS, CPU_SEGMENTS };
enum cpu_activity { CPU_RUNS, CPU_HALTED, CPU_WAITS /* for another to start it */ };

struct cpu_state {
    uint64_t gpr[CPU_GPRS], rip, rflags;
    uint32_t selector[CPU_SEGMENTS];
    uint64_t base[CPU_SEGMENTS], kernel_gs_base;
    uint64_t cr0, cr2, cr3, cr4, cr8, efer;
    uint64_t gdt_base, idt_base, tr_base;
    uint32_t gdt_limit, idt_limit;
    uint8_t st[8][16], xmm[16][16];              /* st: 10 bytes each */
    uint32_t fcw, fsw, ftw, fiseg, fooff, foseg; /* ftw: a bit for each register that is in use */
    uint32_t fioff, fop, mxcsr;
    uint32_t level; /* of privilege; not to be set */
    enum cpu_activity activity;
};
