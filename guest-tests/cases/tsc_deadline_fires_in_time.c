/* The timer in TSC-deadline mode interrupts when the counter has passed the deadline, not before, and disarms. */
#include "guest-tests/lib/cpu.h"
#include "guest-tests/lib/test.h"

static volatile uint64_t arrived;

static void note(void)
{
    arrived = rdtsc();
}

int main(void)
{
    enum { TSC_DEADLINE = 1 << 24 };

    if (!(cpuid(1, 0).ecx & TSC_DEADLINE))
        skip("no TSC deadline on this host");
    irq_handler(VECTOR_FIRST, note);
    apic_write(APIC_TIMER, VECTOR_FIRST | APIC_DEADLINE);

    uint64_t deadline = rdtsc() + 5000000;

    wrmsr(MSR_TSC_DEADLINE, deadline);
    irq_wait(VECTOR_FIRST, 1);
    CHECK(arrived >= deadline);
    CHECK_EQ(rdmsr(MSR_TSC_DEADLINE), 0);
    return EXIT_PASSED;
}
