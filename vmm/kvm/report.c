/* What a CPU was doing when it could not go on, for people. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "vmm/kvm/decode.h"
#include "vmm/kvm/engine.h"

enum { INSN_MAX = 15, PAGE_SIZE = 4096 };

static void report_cause(const struct vcpu *c, FILE *f)
{
    static const char *const suberrors[] = {
        [KVM_INTERNAL_ERROR_EMULATION] = "KVM has to emulate an instruction here and cannot",
        [KVM_INTERNAL_ERROR_SIMUL_EX] = "exceptions at the same time",
        [KVM_INTERNAL_ERROR_DELIVERY_EV] = "a fault while delivering an interrupt or exception",
        [KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON] = "an exit of the processor that KVM does not know",
    };
    const struct kvm_run *run = c->run;
    const char *name = kvm_exit_name(run->exit_reason);
    uint32_t suberror = run->internal.suberror;

    fprintf(f, "CPU %u: ", c->index);
    if (c->error) {
        fprintf(f, "KVM_RUN failed: %s\n", strerror(c->error));
        return;
    }
    switch (run->exit_reason) {
    case KVM_EXIT_SHUTDOWN:
        fprintf(f, "triple fault\n");
        break;
    case KVM_EXIT_FAIL_ENTRY:
        fprintf(f, "the processor refused to enter the guest, reason %#" PRIx64 "\n",
                (uint64_t)run->fail_entry.hardware_entry_failure_reason);
        break;
    case KVM_EXIT_INTERNAL_ERROR:
        fprintf(f, "internal error %u of KVM: %s\n", suberror,
                suberror < array_len(suberrors) && suberrors[suberror] ? suberrors[suberror] : "unknown");
        if (suberror == KVM_INTERNAL_ERROR_EMULATION)
            break;
        for (unsigned i = 0; i < run->internal.ndata && i < array_len(run->internal.data); i++)
            fprintf(f, "  data %u: %#" PRIx64 "\n", i, (uint64_t)run->internal.data[i]);
        break;
    default:
        fprintf(f, "exit %u (%s)\n", run->exit_reason, name ? name : "unknown");
    }
}

/* The bytes that KVM failed on, when it says; else those in memory.  Returns how many. */
static size_t instruction_bytes(const struct vcpu *c, uint64_t addr, uint8_t *ret)
{
    const struct kvm_run *run = c->run;
    size_t n = 0;

    if (run->exit_reason == KVM_EXIT_INTERNAL_ERROR && run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION &&
        run->emulation_failure.ndata >= 3 &&
        run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) {
        n = min_u64(run->emulation_failure.insn_size, INSN_MAX);
        memcpy(ret, run->emulation_failure.insn_bytes, n);
    }
    while (n < INSN_MAX) {
        struct kvm_translation t = {.linear_address = addr + n};
        size_t part = min_u64(INSN_MAX - n, PAGE_SIZE - (addr + n) % PAGE_SIZE);

        if (ioctl(c->fd, KVM_TRANSLATE, &t) < 0 || !t.valid || gmem_read(c->vm->mem, t.physical_address, ret + n, part))
            break;
        n += part;
    }
    return n;
}

static void report_instruction(const struct vcpu *c, const struct kvm_regs *r, const struct kvm_sregs *s, FILE *f)
{
    unsigned bits = s->cs.l ? 64 : s->cs.db ? 32 : 16;
    uint64_t addr = s->cs.l ? r->rip : (uint32_t)(s->cs.base + r->rip);
    uint8_t code[INSN_MAX];
    size_t n = instruction_bytes(c, addr, code);
    char text[96];

    fprintf(f, "  at %" PRIx64 ", level %u, %u-bit:", (uint64_t)r->rip, s->ss.dpl, bits);
    for (size_t i = 0; i < n; i++)
        fprintf(f, " %02x", code[i]);
    if (decode_instruction(bits, r->rip, code, n, text, sizeof(text)))
        fprintf(f, "\n  which is: %s\n", text);
    else
        fprintf(f, n ? "\n" : " no memory there\n");
}

static void report_registers(const struct kvm_regs *r, const struct kvm_sregs *s, FILE *f)
{
    const struct {
        const char *name;
        uint64_t v;
    } regs[] = {
        {"rax", r->rax},      {"rbx", r->rbx},        {"rcx", r->rcx},       {"rdx", r->rdx},   {"rsi", r->rsi},
        {"rdi", r->rdi},      {"rbp", r->rbp},        {"rsp", r->rsp},       {"r8", r->r8},     {"r9", r->r9},
        {"r10", r->r10},      {"r11", r->r11},        {"r12", r->r12},       {"r13", r->r13},   {"r14", r->r14},
        {"r15", r->r15},      {"rip", r->rip},        {"rflags", r->rflags}, {"cr0", s->cr0},   {"cr2", s->cr2},
        {"cr3", s->cr3},      {"cr4", s->cr4},        {"cr8", s->cr8},       {"efer", s->efer}, {"gdt", s->gdt.base},
        {"idt", s->idt.base}, {"apic", s->apic_base},
    };
    const struct {
        const char *name;
        const struct kvm_segment *s;
    } segments[] = {
        {"cs", &s->cs}, {"ds", &s->ds}, {"es", &s->es}, {"fs", &s->fs},
        {"gs", &s->gs}, {"ss", &s->ss}, {"tr", &s->tr}, {"ldt", &s->ldt},
    };

    for (size_t i = 0; i < array_len(regs); i++)
        fprintf(f, "%s%6s %016" PRIx64, i % 4 ? " " : i ? "\n " : " ", regs[i].name, regs[i].v);
    fprintf(f, "\n");
    for (size_t i = 0; i < array_len(segments); i++)
        fprintf(f, "  %6s %04x base %016" PRIx64 " limit %08x type %x%s%s%s\n", segments[i].name,
                segments[i].s->selector, (uint64_t)segments[i].s->base, segments[i].s->limit, segments[i].s->type,
                segments[i].s->l    ? " 64-bit"
                : segments[i].s->db ? " 32-bit"
                                    : "",
                segments[i].s->present ? "" : " absent", segments[i].s->unusable ? " unusable" : "");
}

static void report_exits(const struct vcpu *c, FILE *f)
{
    unsigned n = c->nexits < EXIT_RECORDS ? c->nexits : EXIT_RECORDS;

    fprintf(f, "  last exits of %u, oldest first:\n", c->nexits);
    for (unsigned i = c->nexits - n; i != c->nexits; i++) {
        const struct exit_record *e = &c->exits[i % EXIT_RECORDS];
        const char *name = kvm_exit_name(e->reason);

        fprintf(f, "    %s", name ? name : "?");
        if (e->size)
            fprintf(f, " %s%u %#" PRIx64 " %s %#" PRIx64, e->write ? "write" : "read", e->size * 8, e->addr,
                    e->write ? "<-" : "->", mask_bytes(e->data, e->size));
        if (e->size && e->count > 1)
            fprintf(f, " (first of %u)", e->count);
        fprintf(f, "\n");
    }
}

char *vm_report(struct vm *vm, unsigned cpu)
{
    const struct vcpu *c = &vm->cpus[cpu];
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);

    assert(cpu < vm->ncpus && !vm->running);
    if (!f)
        abort();
    report_cause(c, f);
    if (ioctl(c->fd, KVM_GET_REGS, &regs) < 0 || ioctl(c->fd, KVM_GET_SREGS, &sregs) < 0) {
        fprintf(f, "  its registers cannot be read: %s\n", strerror(errno));
    } else {
        report_instruction(c, &regs, &sregs, f);
        report_registers(&regs, &sregs, f);
    }
    report_exits(c, f);
    fclose(f);
    return text;
}
