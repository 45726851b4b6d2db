/*
 * What CPUID tells the guest: what KVM supports, minus what the user took away, with the topology and identity of this
 * machine written in.  Pure tables and functions; vmm/kvm feeds them and hands the result to KVM.
 */
#pragma once
#include "vmm/base/base.h"
#include "vmm/base/err.h"
#include "vmm/cpu/topology.h"

enum cpuid_reg { CPUID_EAX, CPUID_EBX, CPUID_ECX, CPUID_EDX, CPUID_REGS };

struct cpuid_entry {
    uint32_t fn, idx;
    bool indexed; /* the function has sub-leaves, told apart by ECX */
    uint32_t r[CPUID_REGS];
};

enum { CPUID_ENTRIES_MAX = 256 }; /* KVM_MAX_CPUID_ENTRIES */
struct cpuid {
    unsigned n;
    struct cpuid_entry e[CPUID_ENTRIES_MAX];
};

/* The entry or NULL; `idx` is ignored for functions without sub-leaves. */
struct cpuid_entry *cpuid_find(struct cpuid *c, uint32_t fn, uint32_t idx);

/* Facts about the machine that KVM does not put in the table of what it supports. */
struct cpuid_machine {
    struct cpu_topology topology;
    bool tsc_deadline;  /* the local APIC's timer has that mode */
    bool wide_apic_ids; /* MSIs reach CPUs beyond 254 */
};
/* First, what is the same on all CPUs.  -ENOSPC when the table is full. */
int cpuid_set_machine(struct cpuid *c, const struct cpuid_machine *m, struct err *err) must_check;
/*
 * Then "host,-feature,+feature" (NULL: "host").  -ENOENT names an unknown feature and the nearest known one,
 * -EOPNOTSUPP one that was asked for with + and is not there.
 */
int cpuid_select(struct cpuid *c, const char *text, struct err *err) must_check;
/* Last, what differs: the ids of CPU number `cpu`. */
void cpuid_set_cpu(struct cpuid *c, const struct cpu_topology *t, unsigned cpu);

/* Bits of a guest-physical address that can be mapped. */
unsigned cpuid_phys_bits(struct cpuid *c);
