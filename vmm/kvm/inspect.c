/*
 * A debugger's hands in the guest's CPUs: their registers, and KVM_SET_GUEST_DEBUG [Documentation/virt/kvm/api.rst,
 * 4.87]. What is to be watched for is kept here and told to KVM whenever the CPUs start, since a reset makes new ones.
 *
 * KVM takes all breakpoint exceptions from the guest while it is debugged.  Those that the debugger did not ask for are
 * the guest's own, as Linux patches its code by them, and are given back.
 */
#include <stdlib.h>
#include <sys/ioctl.h>

#include "vmm/kvm/engine.h"

enum { MSR_KERNEL_GS_BASE = 0xc0000102, EXCEPTION_DEBUG = 1, EXCEPTION_BREAKPOINT = 3 };
enum { DR6_SINGLE_STEP = 1 << 14 };
enum { DR7_EXACT = 3 << 8 | 1 << 10 }; /* LE and GE; bit 10 is always set */

union one_msr {
    struct kvm_msrs head;
    uint8_t room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
};

static struct kvm_segment *segment_of(struct kvm_sregs *s, enum cpu_segment_name name)
{
    struct kvm_segment *const all[] = {
        [CPU_CS] = &s->cs, [CPU_SS] = &s->ss, [CPU_DS] = &s->ds,
        [CPU_ES] = &s->es, [CPU_FS] = &s->fs, [CPU_GS] = &s->gs,
    };

    return all[name];
}

/* Where KVM keeps the registers of cpu_state.gpr. */
static const size_t gpr_offsets[CPU_GPRS] = {
    offsetof(struct kvm_regs, rax), offsetof(struct kvm_regs, rbx), offsetof(struct kvm_regs, rcx),
    offsetof(struct kvm_regs, rdx), offsetof(struct kvm_regs, rsi), offsetof(struct kvm_regs, rdi),
    offsetof(struct kvm_regs, rbp), offsetof(struct kvm_regs, rsp), offsetof(struct kvm_regs, r8),
    offsetof(struct kvm_regs, r9),  offsetof(struct kvm_regs, r10), offsetof(struct kvm_regs, r11),
    offsetof(struct kvm_regs, r12), offsetof(struct kvm_regs, r13), offsetof(struct kvm_regs, r14),
    offsetof(struct kvm_regs, r15),
};

static void get_system(struct kvm_sregs *s, struct cpu_state *ret)
{
    for (unsigned i = 0; i < CPU_SEGMENTS; i++) {
        ret->selector[i] = segment_of(s, i)->selector;
        ret->base[i] = segment_of(s, i)->base;
    }
    ret->cr0 = s->cr0;
    ret->cr2 = s->cr2;
    ret->cr3 = s->cr3;
    ret->cr4 = s->cr4;
    ret->cr8 = s->cr8;
    ret->efer = s->efer;
    ret->gdt_base = s->gdt.base;
    ret->gdt_limit = s->gdt.limit;
    ret->idt_base = s->idt.base;
    ret->idt_limit = s->idt.limit;
    ret->tr_base = s->tr.base;
    ret->level = s->ss.dpl;
}

static void get_fpu(const struct kvm_fpu *f, struct cpu_state *ret)
{
    static_assert(sizeof(f->fpr) == sizeof(ret->st) && sizeof(f->xmm) == sizeof(ret->xmm), "the same registers");
    memcpy(ret->st, f->fpr, sizeof(ret->st));
    memcpy(ret->xmm, f->xmm, sizeof(ret->xmm));
    ret->fcw = f->fcw;
    ret->fsw = f->fsw;
    ret->ftw = f->ftwx;
    ret->fop = f->last_opcode;
    ret->fiseg = (uint32_t)(f->last_ip >> 32);
    ret->fioff = (uint32_t)f->last_ip;
    ret->foseg = (uint32_t)(f->last_dp >> 32);
    ret->fooff = (uint32_t)f->last_dp;
    ret->mxcsr = f->mxcsr;
}

int vm_cpu_get(struct vm *vm, unsigned cpu, struct cpu_state *ret)
{
    int fd = vm->cpus[cpu].fd;
    union one_msr msr = {.head.nmsrs = 1};
    struct cpu_state state = {0};
    struct kvm_mp_state mp;
    struct kvm_sregs sregs;
    struct kvm_regs regs;
    struct kvm_fpu fpu;

    assert(cpu < vm->ncpus && !vm->running);
    if (ioctl(fd, KVM_GET_REGS, &regs) < 0 || ioctl(fd, KVM_GET_SREGS, &sregs) < 0 ||
        ioctl(fd, KVM_GET_FPU, &fpu) < 0 || ioctl(fd, KVM_GET_MP_STATE, &mp) < 0)
        return -errno;
    for (unsigned i = 0; i < CPU_GPRS; i++)
        memcpy(&state.gpr[i], (uint8_t *)&regs + gpr_offsets[i], sizeof(state.gpr[i]));
    state.rip = regs.rip;
    state.rflags = regs.rflags;
    get_system(&sregs, &state);
    get_fpu(&fpu, &state);
    msr.head.entries[0].index = MSR_KERNEL_GS_BASE;
    if (ioctl(fd, KVM_GET_MSRS, &msr) == 1) /* not there on a 32-bit processor */
        state.kernel_gs_base = msr.head.entries[0].data;
    state.activity = mp.mp_state == KVM_MP_STATE_HALTED     ? CPU_HALTED
                     : mp.mp_state == KVM_MP_STATE_RUNNABLE ? CPU_RUNS
                                                            : CPU_WAITS;
    *ret = state;
    return 0;
}

/* Those of the system's that differ: KVM looks closely at a whole set, and all of them are seldom meant. */
static int set_system(int fd, const struct cpu_state *s)
{
    struct kvm_sregs sregs;
    struct cpu_state was = {0};

    if (ioctl(fd, KVM_GET_SREGS, &sregs) < 0)
        return -errno;
    get_system(&sregs, &was);
    if (!memcmp(was.selector, s->selector, sizeof(was.selector)) && !memcmp(was.base, s->base, sizeof(was.base)) &&
        was.cr0 == s->cr0 && was.cr2 == s->cr2 && was.cr3 == s->cr3 && was.cr4 == s->cr4 && was.cr8 == s->cr8 &&
        was.efer == s->efer)
        return 0;
    for (unsigned i = 0; i < CPU_SEGMENTS; i++) {
        segment_of(&sregs, i)->selector = (uint16_t)s->selector[i];
        segment_of(&sregs, i)->base = s->base[i];
    }
    sregs.cr0 = s->cr0;
    sregs.cr2 = s->cr2;
    sregs.cr3 = s->cr3;
    sregs.cr4 = s->cr4;
    sregs.cr8 = s->cr8;
    sregs.efer = s->efer;
    return ioctl(fd, KVM_SET_SREGS, &sregs) < 0 ? -errno : 0;
}

static int set_fpu(int fd, const struct cpu_state *s)
{
    struct kvm_fpu fpu;

    if (ioctl(fd, KVM_GET_FPU, &fpu) < 0)
        return -errno;
    memcpy(fpu.fpr, s->st, sizeof(fpu.fpr));
    memcpy(fpu.xmm, s->xmm, sizeof(fpu.xmm));
    fpu.fcw = (uint16_t)s->fcw;
    fpu.fsw = (uint16_t)s->fsw;
    fpu.ftwx = (uint8_t)s->ftw;
    fpu.last_opcode = (uint16_t)s->fop;
    fpu.last_ip = (uint64_t)s->fiseg << 32 | s->fioff;
    fpu.last_dp = (uint64_t)s->foseg << 32 | s->fooff;
    fpu.mxcsr = s->mxcsr;
    return ioctl(fd, KVM_SET_FPU, &fpu) < 0 ? -errno : 0;
}

int vm_cpu_set(struct vm *vm, unsigned cpu, const struct cpu_state *s)
{
    int fd = vm->cpus[cpu].fd, rc;
    union one_msr msr = {.head.nmsrs = 1};
    struct kvm_regs regs;

    assert(cpu < vm->ncpus && !vm->running);
    rc = set_system(fd, s);
    if (!rc)
        rc = set_fpu(fd, s);
    if (rc)
        return rc;
    for (unsigned i = 0; i < CPU_GPRS; i++)
        memcpy((uint8_t *)&regs + gpr_offsets[i], &s->gpr[i], sizeof(s->gpr[i]));
    regs.rip = s->rip;
    regs.rflags = s->rflags;
    msr.head.entries[0] = (struct kvm_msr_entry){.index = MSR_KERNEL_GS_BASE, .data = s->kernel_gs_base};
    ioctl(fd, KVM_SET_MSRS, &msr); /* not there on a 32-bit processor */
    return ioctl(fd, KVM_SET_REGS, &regs) < 0 ? -errno : 0;
}

/* --- breakpoints --- */

void vm_debug(struct vm *vm, const struct vm_debug *d)
{
    assert(!vm->running && d->nhw <= VM_HW_BREAKS);
    vm->debug = *d;
}

void vm_cpu_plan(struct vm *vm, unsigned cpu, enum vm_plan plan)
{
    assert(!vm->running && cpu < vm->ncpus);
    vm->cpus[cpu].plan = plan;
}

/* [Intel SDM vol. 3B, 18.2.4 Debug Control Register (DR7)] */
static void set_debug_registers(const struct vm_debug *d, __u64 ret[8])
{
    static const uint8_t kinds[] = {[VM_BREAK_EXECUTE] = 0, [VM_BREAK_WRITE] = 1, [VM_BREAK_ACCESS] = 3};
    static const uint8_t lengths[] = {[1] = 0, [2] = 1, [4] = 3, [8] = 2};

    for (unsigned i = 0; i < d->nhw; i++) {
        uint64_t control = kinds[d->hw[i].kind] | lengths[d->hw[i].len] << 2;

        ret[i] = d->hw[i].addr;
        ret[7] |= 2ull << (2 * i) | control << (16 + 4 * i);
    }
    ret[7] |= d->nhw ? DR7_EXACT : 0;
}

int vcpu_set_debug(struct vcpu *c, uint32_t give_back)
{
    const struct vm_debug *d = &c->vm->debug;
    struct kvm_guest_debug arg = {.control = give_back};
    struct kvm_mp_state mp;

    if (d->on)
        arg.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP;
    if (d->nhw) {
        arg.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
        set_debug_registers(d, arg.arch.debugreg);
    }
    if (c->plan == VM_STEP) /* without BLOCKIRQ a step leads into the handler of an interrupt that waits */
        arg.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP |
                       (KVM_GUESTDBG_BLOCKIRQ & (uint32_t)kvm_cap(c->vm->kvm, KVM_CAP_SET_GUEST_DEBUG2));
    if (!arg.control && !c->debugged)
        return 0;
    if (c->plan == VM_STEP && ioctl(c->fd, KVM_GET_MP_STATE, &mp) == 0 && mp.mp_state == KVM_MP_STATE_HALTED) {
        mp.mp_state = KVM_MP_STATE_RUNNABLE; /* it steps out of its HLT, as with an interrupt */
        if (ioctl(c->fd, KVM_SET_MP_STATE, &mp) < 0)
            return -errno;
    }
    if (ioctl(c->fd, KVM_SET_GUEST_DEBUG, &arg) < 0)
        return -errno;
    c->debugged = arg.control;
    return 0;
}

static bool is_ours(const struct vcpu *c, uint64_t addr)
{
    const struct vm_debug *d = &c->vm->debug;

    for (unsigned i = 0; i < d->nbreaks; i++)
        if (d->breaks[i] == addr)
            return true;
    return false;
}

static struct vm_hit what_was_hit(const struct vcpu *c, const struct kvm_debug_exit_arch *e)
{
    const struct vm_debug *d = &c->vm->debug;

    if (e->exception == EXCEPTION_BREAKPOINT)
        return (struct vm_hit){.what = is_ours(c, e->pc) ? VM_HIT_BREAK : VM_HIT_NONE};
    for (unsigned i = 0; i < d->nhw; i++)
        if (e->dr6 & 1u << i)
            return (struct vm_hit){.what = VM_HIT_HW, .hw = i};
    return (struct vm_hit){.what = e->dr6 & DR6_SINGLE_STEP && c->plan == VM_STEP ? VM_HIT_STEP : VM_HIT_NONE};
}

bool vcpu_serve_debug(struct vcpu *c, enum vm_event *ret)
{
    const struct kvm_debug_exit_arch e = c->run->debug.arch;

    c->hit = what_was_hit(c, &e);
    *ret = c->hit.what == VM_HIT_NONE ? VM_ENGINE_ERROR : VM_DEBUG;
    if (c->hit.what != VM_HIT_NONE)
        return false;
    return vcpu_set_debug(c, e.exception == EXCEPTION_BREAKPOINT ? KVM_GUESTDBG_INJECT_BP : KVM_GUESTDBG_INJECT_DB) ==
           0;
}

struct vm_hit vm_cpu_hit(struct vm *vm, unsigned cpu)
{
    struct vm_hit hit = vm->cpus[cpu].hit;

    assert(!vm->running && cpu < vm->ncpus);
    vm->cpus[cpu].hit = (struct vm_hit){.what = VM_HIT_NONE};
    return hit;
}
