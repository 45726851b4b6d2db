/*
 * The CPU engine on KVM: the only folder that includes <linux/kvm.h>.  What the machine sees is this small interface,
 * so that another engine can stand beside it without any change to devices, bus or firmware.
 *
 * Each vCPU has a thread of its own that runs the exit loop: KVM_RUN, dispatch to the buses, again.  The machine's
 * thread starts, stops and inspects them; unless said otherwise functions are for that thread.
 */
#pragma once
#include "vmm/base/base.h"
#include "vmm/base/err.h"
#include "vmm/bus/bus.h"
#include "vmm/irq/irq.h"
#include "vmm/mem/gmem.h"

struct vm;

/* Why a vCPU left its loop on its own. */
enum vm_event {
    VM_TRIPLE_FAULT, /* or any other shutdown */
    VM_RESET,        /* KVM_EXIT_SYSTEM_EVENT */
    VM_POWEROFF,
    VM_CRASH,
    VM_EMULATION_FAILED, /* KVM cannot run this instruction */
    VM_ENTRY_FAILED,
    VM_ENGINE_ERROR, /* KVM_RUN failed */
};

struct vm_user { /* embedded in the machine */
    /* On the vCPU's thread, which waits afterwards until vm_stop(); only pass it on. */
    void (*event)(struct vm_user *u, enum vm_event e, unsigned cpu);
};

struct vm_opts {
    unsigned cpus;
    unsigned sockets, cores, threads; /* product = cpus */
    const char *cpu;                  /* "host,-feature,+feature" */
    bool pit;
};

/* How a vCPU starts after reset; the others wait for INIT/SIPI. */
struct vm_boot {
    bool long_mode; /* else 32-bit protected mode, flat segments, paging off */
    uint64_t rip, rsi, rbx, rax, cr3;
    gpa_t gdt; /* 0x10 code, 0x18 data */
};

/* Opens /dev/kvm; every failure names its remedy (no module, no permission, too many CPUs: what the maximum is). */
int vm_create(const struct vm_opts *o, struct gmem *mem, struct bus *pio, struct bus *mmio, struct vm_user *user,
              struct vm **ret, struct err *err) must_check;
void vm_destroy(struct vm *vm); /* stopped; accepts NULL */
/* All vCPUs and the irqchip as at power-on, then vCPU 0 as `boot` says.  Stopped. */
int vm_reset(struct vm *vm, const struct vm_boot *boot, struct err *err) must_check;
void vm_start(struct vm *vm);
/* Returns when every vCPU is out of KVM_RUN and its last access has finished. */
void vm_stop(struct vm *vm);

/* The guest's line `gsi` (0 to 23); vm_msi: the sink of MSIs.  Borrowed, any thread. */
struct irq vm_line(struct vm *vm, unsigned gsi);
struct msi_sink *vm_msi(struct vm *vm);
/* ioeventfd.  Any thread. */
int vm_doorbell_add(struct vm *vm, const struct doorbell *d);
void vm_doorbell_del(struct vm *vm, const struct doorbell *d);
/* Registers, the instruction decoded, the exits before it: text for people, to `fd`.  Stopped. */
void vm_report(struct vm *vm, unsigned cpu, int fd);
