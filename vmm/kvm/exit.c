/* What KVM_RUN returned for [Documentation/virt/kvm/api.rst, section 5, the kvm_run structure]. */
#include "vmm/kvm/engine.h"

#define EXIT(name) [KVM_EXIT_##name] = #name
static const char *const names[] = {
    EXIT(UNKNOWN),      EXIT(EXCEPTION),    EXIT(IO),       EXIT(HYPERCALL),  EXIT(DEBUG),
    EXIT(HLT),          EXIT(MMIO),         EXIT(SHUTDOWN), EXIT(FAIL_ENTRY), EXIT(INTR),
    EXIT(SET_TPR),      EXIT(TPR_ACCESS),   EXIT(NMI),      EXIT(IOAPIC_EOI), EXIT(INTERNAL_ERROR),
    EXIT(X86_RDMSR),    EXIT(X86_WRMSR),    EXIT(HYPERV),   EXIT(XEN),        EXIT(DIRTY_RING_FULL),
    EXIT(SYSTEM_EVENT), EXIT(X86_BUS_LOCK), EXIT(NOTIFY),
};

static_assert(array_len(names) <= EXIT_REASONS, "each is counted");

const char *kvm_exit_name(uint32_t reason)
{
    return reason < array_len(names) ? names[reason] : NULL;
}

bool vm_exits(const struct vm *vm, unsigned reason, const char **name, uint64_t *n)
{
    if (reason >= array_len(names))
        return false;
    *name = reason == KVM_EXIT_IO || reason == KVM_EXIT_MMIO ? NULL : names[reason];
    *n = 0;
    for (unsigned i = 0; i < vm->ncpus; i++)
        *n += __atomic_load_n(&vm->cpus[i].reasons[reason], __ATOMIC_RELAXED);
    return true;
}

/*
 * The accesses of one port instruction: one, or a string's.  The data lies in the run mapping, which must hold it, and
 * 8 bytes for the record.
 */
static bool serve_io(struct vcpu *c, struct exit_record *rec)
{
    struct kvm_run *run = c->run;
    uint8_t *data = (uint8_t *)run + run->io.data_offset, *p = data;
    bool write = run->io.direction == KVM_EXIT_IO_OUT;
    unsigned size = run->io.size;
    uint32_t count = run->io.count;
    uint64_t bytes = (uint64_t)size * count;

    if (!range_fits(run->io.data_offset, max_u64(bytes, sizeof(rec->data)), c->vm->run_len) || !bytes || size > 4)
        return false;
    do {
        bus_access(c->vm->pio, run->io.port, p, size, write);
        p += size;
    } while (p < data + bytes);
    rec->addr = run->io.port;
    rec->size = (uint8_t)size;
    rec->count = count;
    rec->write = write;
    memcpy(&rec->data, data, sizeof(rec->data));
    return true;
}

static bool serve_mmio(struct vcpu *c, struct exit_record *rec)
{
    struct kvm_run *run = c->run;

    if (!run->mmio.len || run->mmio.len > sizeof(run->mmio.data))
        return false;
    bus_access(c->vm->mmio, run->mmio.phys_addr, run->mmio.data, run->mmio.len, run->mmio.is_write);
    rec->addr = run->mmio.phys_addr;
    rec->size = (uint8_t)run->mmio.len;
    rec->count = 1;
    rec->write = run->mmio.is_write;
    memcpy(&rec->data, run->mmio.data, sizeof(rec->data));
    return true;
}

static enum vm_event system_event(uint32_t type)
{
    switch (type) {
    case KVM_SYSTEM_EVENT_SHUTDOWN:
        return VM_POWEROFF;
    case KVM_SYSTEM_EVENT_RESET:
        return VM_RESET;
    default:
        return VM_CRASH;
    }
}

bool vcpu_serve_exit(struct vcpu *c, enum vm_event *ret)
{
    struct exit_record *rec = &c->exits[c->nexits++ % EXIT_RECORDS];

    *ret = VM_ENGINE_ERROR;
    rec->reason = c->run->exit_reason;
    __atomic_fetch_add(&c->reasons[rec->reason % EXIT_REASONS], 1, __ATOMIC_RELAXED);
    rec->size = 0; /* no access */
    switch (c->run->exit_reason) {
    case KVM_EXIT_IO:
        return serve_io(c, rec);
    case KVM_EXIT_MMIO:
        return serve_mmio(c, rec);
    case KVM_EXIT_IOAPIC_EOI:
        ioapic_eoi(&c->vm->ioapic, c->run->eoi.vector);
        return true;
    case KVM_EXIT_INTR: /* a signal */
        return true;
    case KVM_EXIT_DEBUG:
        return vcpu_serve_debug(c, ret);
    case KVM_EXIT_SHUTDOWN:
        *ret = VM_TRIPLE_FAULT;
        return false;
    case KVM_EXIT_SYSTEM_EVENT:
        *ret = system_event(c->run->system_event.type);
        return false;
    case KVM_EXIT_INTERNAL_ERROR:
        /* Of level 0.  KVM_CAP_EXIT_ON_EMULATION_FAILURE stays off: with it a mere program in the guest could end the
         * machine; without it that program gets an invalid-opcode exception. */
        if (c->run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION)
            *ret = VM_EMULATION_FAILED;
        return false;
    case KVM_EXIT_FAIL_ENTRY:
        *ret = VM_ENTRY_FAILED;
        return false;
    default:
        /* Nobody asked for any of these: HLT waits in the kernel with its local APIC, no dirty ring was
         * made, no MSR is ours. */
        return false;
    }
}
