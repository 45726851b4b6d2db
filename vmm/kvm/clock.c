/*
 * The guest's clocks stand still while its CPUs do: its TSCs and kvmclock go on with the values that they had, and a
 * watchdog in the guest learns that the time was not the guest's own.  Where this KVM cannot do one of these, that
 * clock jumps, as on a machine that was suspended.
 *
 * A TSC is the host's and an offset.  All offsets change by the same number, so that CPUs stay in step.
 */
#include <sys/ioctl.h>
#include <x86intrin.h>

#include "vmm/kvm/engine.h"

void vm_clock_stop(struct vm *vm)
{
    vm->tsc = __rdtsc();
    vm->has_clock = !ioctl(vm->fd, KVM_GET_CLOCK, &vm->clock);
}

static void shift_tsc(struct vcpu *c, uint64_t by)
{
#ifdef KVM_VCPU_TSC_CTRL
    uint64_t offset;
    struct kvm_device_attr attr = {.group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)&offset};

    if (ioctl(c->fd, KVM_GET_DEVICE_ATTR, &attr))
        return;
    offset -= by;
    ioctl(c->fd, KVM_SET_DEVICE_ATTR, &attr);
#else
    (void)c;
    (void)by;
#endif
}

void vm_clock_start(struct vm *vm)
{
    uint64_t pause = __rdtsc() - vm->tsc;

    for (unsigned i = 0; i < vm->ncpus; i++)
        shift_tsc(&vm->cpus[i], pause);
    vm->clock.flags = 0;
    if (vm->has_clock)
        ioctl(vm->fd, KVM_SET_CLOCK, &vm->clock);
    for (unsigned i = 0; i < vm->ncpus; i++)
        ioctl(vm->cpus[i].fd, KVM_KVMCLOCK_CTRL); /* fails for a guest that does not use it */
}
