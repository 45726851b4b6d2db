/* HLT gives the processor up until an interrupt comes. */
#include "guest-tests/lib/cpu.h"
#include "guest-tests/lib/test.h"

int main(void)
{
    apic_write(APIC_TIMER_DIVIDE, 0xb);
    apic_write(APIC_TIMER, VECTOR_FIRST);
    apic_write(APIC_TIMER_INITIAL, 10000000);
    irq_halt(VECTOR_FIRST, 1);
    CHECK_EQ(irq_count[VECTOR_FIRST], 1);
    return EXIT_PASSED;
}
