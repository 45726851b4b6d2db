/* Two CPUs that stand still, in place of the engine, for tests; one file of a program includes it. */
#pragma once
#include <stdlib.h>

#include "devices/testing/fake_machine.h"
#include "vmm/base/cleanup.h"
#include "vmm/inspect/fake_kernel.h"
#include "vmm/kvm/vm.h"

enum { FAKE_CPUS = 2 };

struct vm {
    struct cpu_state cpus[FAKE_CPUS];
    unsigned gets; /* how often they were looked at */
};

int vm_cpu_get(struct vm *vm, unsigned cpu, struct cpu_state *ret)
{
    vm->gets++;
    *ret = vm->cpus[cpu];
    return 0;
}

char *vm_report(struct vm *vm, unsigned cpu)
{
    (void)vm;
    return xstrdup(cpu ? "report of CPU 1\n" : "report of CPU 0\n");
}

/* A machine with a kernel in its memory; CPU 0 has halted, idle, CPU 1 is in sysrq_handle_crash. */
static inline void fake_vm_init(struct machine *m, struct vm *vm)
{
    fake_machine_init(m);
    m->config.cpus = FAKE_CPUS;
    m->vm = vm;
    fake_kernel_write(m->e.env.mem);
    *vm = (struct vm){.cpus = {{.rip = FAKE_IMAGE + FAKE_TEXT + 0x20, .rflags = 1 << 9, .activity = CPU_HALTED},
                               {.rip = FAKE_IMAGE + FAKE_TEXT + 0x234, .gpr[CPU_RSP] = FAKE_IMAGE + FAKE_STACK}}};
}
