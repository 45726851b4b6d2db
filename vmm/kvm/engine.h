/* What the files of the engine share; nobody else includes it. */
#pragma once
#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>

#include "vmm/cpu/cpuid.h"
#include "vmm/kvm/ioapic.h"
#include "vmm/kvm/msg.h"
#include "vmm/kvm/vm.h"

/* One exit, for reports. */
struct exit_record {
    uint32_t reason; /* KVM_EXIT_* */
    uint8_t size;    /* of an access to a bus, 0: it was none, and the rest is void */
    bool write;
    uint32_t count;      /* of string I/O; else 1 */
    uint64_t addr, data; /* `data`: the first `size` bytes count */
};
enum { EXIT_RECORDS = 32, EXIT_REASONS = 64 };

struct vcpu {
    struct vm *vm;
    unsigned index;
    int fd;              /* -1: none */
    struct kvm_run *run; /* shared with the kernel; NULL: not mapped */
    pthread_t thread;
    bool has_thread;
    int error; /* errno of KVM_RUN when that is why it left its loop */
    enum vm_plan plan;
    uint32_t debugged; /* what KVM_SET_GUEST_DEBUG was told last */
    struct vm_hit hit;
    unsigned nexits; /* ever; the last EXIT_RECORDS are kept */
    struct exit_record exits[EXIT_RECORDS];
    uint64_t reasons[EXIT_REASONS]; /* how often each */
};

/* A doorbell where KVM was told that it is: the region may have moved since. */
struct bell {
    struct doorbell d; /* d.region NULL: free */
    uint64_t addr;
    bool pio;
};
enum { BELLS_MAX = 1000 }; /* KVM's own limit, NR_IOBUS_DEVS */

/* An eventfd whose signals are messages; its place in the table says which GSI beyond the I/O APIC's is its own. */
struct wire {
    int fd; /* -1: free */
    struct irq_msg msg;
};
enum { WIRES_MAX = 256 };

struct vm {
    struct gmem *mem; /* borrowed, as the next three */
    struct bus *pio, *mmio;
    struct vm_user *user;
    struct cpu_topology topology;
    bool pit;
    bool wide_ids; /* APIC ids have more than 8 bits */
    unsigned phys_bits;
    struct cpuid cpuid; /* of the CPU made last */

    int kvm, fd; /* /dev/kvm; the VM, -1: none */
    size_t run_len;
    bool fresh; /* nothing has run since it was made */

    struct msi_sink msi;
    struct ioapic ioapic; /* unused with `pit`: it is in KVM then */

    pthread_mutex_t route_lock;        /* a leaf, of the next four */
    struct irq_msg level[IOAPIC_PINS]; /* of the pins that are level-triggered: */
    uint32_t levels;                   /* those */
    struct wire *wires;
    unsigned nwires;

    struct kvm_clock_data clock; /* when the CPUs were stopped, as the host's TSC below */
    bool has_clock;
    uint64_t tsc;

    struct vm_debug debug;
    bool running;
    atomic_bool held; /* no CPU enters the guest */

    pthread_mutex_t bell_lock;
    struct bell *bells;
    unsigned nbells;

    unsigned ncpus;
    struct vcpu cpus[]; /* ncpus */
};

/* caps.c */
struct kvm_cap {
    int id;
    const char *name;
    bool required;
};
extern const struct kvm_cap kvm_caps[]; /* ends with a NULL name */
/* /dev/kvm with the right API and all that is required; the descriptor is the caller's. */
int kvm_open(int *ret, struct err *err) must_check;
/* 0 when KVM does not know it. */
int kvm_cap(int fd, int id);
/* Says that /dev/kvm, or a VM on it, failed with `code`, and the remedy.  Returns -code. */
int kvm_err(struct err *err, const char *what, int code);

/* clock.c: before the CPUs run on, and when they are stopped. */
void vm_clock_start(struct vm *vm);
void vm_clock_stop(struct vm *vm);

/* inspect.c: tells KVM what to watch this CPU for, if anything; `give_back`: KVM_GUESTDBG_INJECT_*. */
int vcpu_set_debug(struct vcpu *c, uint32_t give_back) must_check;
/* KVM_EXIT_DEBUG; as vcpu_serve_exit(). */
bool vcpu_serve_debug(struct vcpu *c, enum vm_event *ret);

/* exit.c: serves what KVM_RUN returned with; true: run on, false: `ret` says why not. */
bool vcpu_serve_exit(struct vcpu *c, enum vm_event *ret);
/* "MMIO"; NULL for what this kernel's headers do not know. */
const char *kvm_exit_name(uint32_t reason);
