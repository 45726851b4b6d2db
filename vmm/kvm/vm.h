/*
 * The CPU engine on KVM: the only folder that includes <linux/kvm.h>.  What the machine sees is this small interface,
 * so that another engine can stand beside it without any change to devices, bus or firmware.
 *
 * While it runs each vCPU has a thread of its own with the exit loop: KVM_RUN, dispatch to the buses, again.  The
 * machine's thread starts, stops and inspects them; unless said otherwise functions are for that thread.
 */
#pragma once
#include "vmm/base/base.h"
#include "vmm/base/err.h"
#include "vmm/bus/bus.h"
#include "vmm/cpu/state.h"
#include "vmm/cpu/topology.h"
#include "vmm/irq/irq.h"
#include "vmm/mem/gmem.h"

struct vm;

/* Guest-physical addresses that the engine takes. */
#define VM_IOAPIC_BASE  0xfec00000u /* mapped on the MMIO bus by vm_create() */
#define VM_LAPIC_BASE   0xfee00000u /* and MSIs are writes here */
#define VM_PRIVATE_BASE 0xfeffc000u /* for KVM on some processors; nothing else may be here */
enum { VM_IOAPIC_PINS = 24, VM_PRIVATE_SIZE = 0x4000 };

/* Why a vCPU left its loop on its own. */
enum vm_event {
    VM_TRIPLE_FAULT, /* or any other shutdown */
    VM_RESET,        /* KVM_EXIT_SYSTEM_EVENT */
    VM_POWEROFF,
    VM_CRASH,
    VM_EMULATION_FAILED, /* KVM cannot run this instruction */
    VM_ENTRY_FAILED,
    VM_DEBUG,        /* vm_cpu_hit() says what */
    VM_ENGINE_ERROR, /* KVM_RUN failed, or ended with something that nobody asked it for */
};

struct vm_user { /* embedded in the machine */
    /* On the vCPU's thread, which ends with it; only pass it on. */
    void (*event)(struct vm_user *u, enum vm_event e, unsigned cpu);
};

struct vm_opts {
    struct cpu_topology topology;
    const char *cpu; /* "host,-feature,+feature" */
    bool pit;        /* an i8254, and the i8259 pair that it needs; else there is neither */
};

/* How vCPU 0 starts after reset; the others wait for INIT/SIPI. */
struct vm_boot {
    bool long_mode; /* else 32-bit protected mode, flat segments, paging off */
    uint64_t rip, rsi, rbx, rax, cr3;
    gpa_t gdt; /* 0x10 code, 0x18 data */
};

/*
 * Opens /dev/kvm; every failure names its remedy (no module, no permission, too many CPUs: what the maximum is).  The
 * result borrows all it is given.  vm_reset() comes next, before anything runs.
 */
int vm_create(const struct vm_opts *o, struct gmem *mem, struct bus *pio, struct bus *mmio, struct vm_user *user,
              struct vm **ret, struct err *err) must_check;
void vm_destroy(struct vm *vm); /* stopped; accepts NULL */
/* All vCPUs and the irqchip as at power-on, lines low, then vCPU 0 as `boot` says.  Doorbells stay.  Stopped. */
int vm_reset(struct vm *vm, const struct vm_boot *boot, struct err *err) must_check;
/* A thread for each vCPU; fails where the host gives no more or KVM no debugging, and is stopped then. */
int vm_start(struct vm *vm, struct err *err) must_check;
/* Any thread: a vCPU that leaves the guest does not enter it again until vm_start().  Does not wait for any. */
void vm_hold(struct vm *vm);
/* Returns when every vCPU is out of KVM_RUN, its last access has finished and its thread has ended. */
void vm_stop(struct vm *vm);

/* Guest-physical addresses have this many bits: nothing can be mapped above. */
unsigned vm_phys_bits(const struct vm *vm);
/* The guest's line `gsi` (0 to 23); vm_msi: the sink of MSIs.  Borrowed, any thread, but not during vm_reset(). */
struct irq vm_line(struct vm *vm, unsigned gsi);
struct msi_sink *vm_msi(struct vm *vm);
/*
 * ioeventfd.  Any thread, but not during vm_reset().  -errno when KVM has no room or cannot match it; the write then
 * reaches the region as before. The doorbell is copied; delete with the same values.
 */
int vm_doorbell_add(struct vm *vm, const struct doorbell *d);
void vm_doorbell_del(struct vm *vm, const struct doorbell *d);
/* Registers, the instruction decoded, the exits before it: lines for people, which the caller frees.  Stopped. */
char *vm_report(struct vm *vm, unsigned cpu) must_check;

/* How often all CPUs left the guest for the `reason`-th reason, and what KVM calls it (NULL: nothing, or an access that
 * a bus counts); false: there are no more.  Any time. */
bool vm_exits(const struct vm *vm, unsigned reason, const char **name, uint64_t *n);

/* --- for debuggers; stopped --- */

/* -errno: KVM will not have it. */
int vm_cpu_get(struct vm *vm, unsigned cpu, struct cpu_state *ret) must_check;
int vm_cpu_set(struct vm *vm, unsigned cpu, const struct cpu_state *s) must_check;

enum { VM_HW_BREAKS = 4 };
struct vm_debug {
    bool on;                /* breakpoint instructions come to the debugger: */
    const uint64_t *breaks; /* those at these linear addresses; borrowed until the next vm_debug() */
    unsigned nbreaks;
    unsigned nhw;
    struct {
        uint64_t addr; /* linear, a multiple of len */
        uint8_t len;   /* 1, 2, 4, 8; to execute: 1 */
        enum { VM_BREAK_EXECUTE, VM_BREAK_WRITE, VM_BREAK_ACCESS } kind;
    } hw[VM_HW_BREAKS];
};
/* On all CPUs, from the next start on and over resets. */
void vm_debug(struct vm *vm, const struct vm_debug *d);
/* What a CPU does from the next start on; VM_STEP: one instruction, then VM_DEBUG. */
enum vm_plan { VM_RUN, VM_STEP, VM_STAY };
void vm_cpu_plan(struct vm *vm, unsigned cpu, enum vm_plan plan);

struct vm_hit {
    enum { VM_HIT_NONE, VM_HIT_BREAK, VM_HIT_HW, VM_HIT_STEP } what;
    unsigned hw; /* which of vm_debug's */
};
/* Why this CPU sent VM_DEBUG; the next call says VM_HIT_NONE. */
struct vm_hit vm_cpu_hit(struct vm *vm, unsigned cpu);
