/* Sockets, cores and threads, and the APIC ids that follow from them [Intel SDM vol. 3A, multiple-processor topology].
 */
#pragma once
#include "vmm/base/base.h"

struct cpu_topology {
    unsigned sockets, cores, threads; /* cores of each socket, threads of each core; none is 0 */
};

/* The largest APIC id is a 32-bit number, so any product that KVM accepts fits. */
static inline unsigned cpu_count(const struct cpu_topology *t)
{
    return t->sockets * t->cores * t->threads;
}

/* Bits that hold a number below n. */
static inline unsigned cpu_id_bits(unsigned n)
{
    return n > 1 ? 32 - (unsigned)__builtin_clz(n - 1) : 0;
}

/* Each level has a bit field of its own, so ids have gaps where a count is no power of two.  Pure; `cpu` from 0. */
static inline uint32_t cpu_apic_id(const struct cpu_topology *t, unsigned cpu)
{
    unsigned thread_bits = cpu_id_bits(t->threads), core_bits = cpu_id_bits(t->cores);

    return (cpu / t->threads / t->cores) << (core_bits + thread_bits) | (cpu / t->threads % t->cores) << thread_bits |
           cpu % t->threads;
}
