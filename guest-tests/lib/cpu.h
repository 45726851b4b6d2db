/* Processors: privilege levels, interrupts, local and I/O APIC, starting further ones. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum {
    VECTOR_FIRST = 0x20, /* a case's own, to 0x3f */
    MSR_APIC_BASE = 0x1b,
    MSR_TSC_DEADLINE = 0x6e0,
    MSR_X2APIC = 0x800,
};

/* Calls `fn(arg)` in level 0, interrupts off. */
uint64_t level0(uint64_t (*fn)(uint64_t), uint64_t arg);
uint64_t rdmsr(uint32_t msr);
void wrmsr(uint32_t msr, uint64_t v);

struct cpuid {
    uint32_t eax, ebx, ecx, edx;
};
struct cpuid cpuid(uint32_t leaf, uint32_t sub);

static inline uint64_t rdtsc(void)
{
    uint32_t lo, hi;

    asm volatile("rdtsc" : "=a"(lo), "=d"(hi));
    return lo | (uint64_t)hi << 32;
}

/* Makes [address, address + len) usable where it is not below 1 GiB or between 3 and 4 GiB. */
void *map(uint64_t address, uint64_t len);

/* How often each vector arrived, on any processor. */
extern volatile uint32_t irq_count[64];
/* Called in level 0 before the EOI; NULL: count only. */
void irq_handler(unsigned vector, void (*fn)(void));
/* Spins until the vector has arrived `n` times; irq_halt() waits in HLT.  The case's time limit ends it otherwise. */
void irq_wait(unsigned vector, uint32_t n);
void irq_halt(unsigned vector, uint32_t n);
/* A while, long enough for an interrupt that is under way to arrive; whether none comes after that. */
void irq_linger(void);
bool irq_quiet(unsigned vector);

/* Local APIC registers by their xAPIC offset, in either mode. */
enum {
    APIC_ID = 0x20,
    APIC_TPR = 0x80,
    APIC_EOI = 0xb0,
    APIC_SPURIOUS = 0xf0,
    APIC_ICR = 0x300,
    APIC_ICR_HIGH = 0x310,
    APIC_TIMER = 0x320,
    APIC_LINT0 = 0x350,
    APIC_TIMER_INITIAL = 0x380,
    APIC_TIMER_CURRENT = 0x390,
    APIC_TIMER_DIVIDE = 0x3e0,
    APIC_MASKED = 1 << 16,
    APIC_PERIODIC = 1 << 17,
    APIC_DEADLINE = 2 << 17,
};
uint32_t apic_read(unsigned reg);
void apic_write(unsigned reg, uint32_t v);
uint32_t apic_id(void);
void apic_send(uint32_t id, uint32_t command); /* ICR */
void apic_use_x2(void);                        /* this processor, and the way in which all are spoken to */

/* I/O APIC. */
enum { IOAPIC_EDGE = 0, IOAPIC_LEVEL = 1 << 15, IOAPIC_MASKED = 1 << 16, IOAPIC_PINS = 24 };
void ioapic_route(unsigned pin, unsigned vector, uint32_t flags); /* to this processor */

/* Processors in the MADT, their APIC ids, the one that runs first. */
unsigned cpus_listed(uint32_t ids[], unsigned max);
/* Starts the processor by INIT and SIPI; `fn` runs on it in level 3.  Returns when it does. */
void cpu_start(uint32_t id, void (*fn)(void));
