/* In periodic mode it interrupts again and again until it is set to 0. */
#include "guest-tests/lib/cpu.h"
#include "guest-tests/lib/test.h"

int main(void)
{
    apic_write(APIC_TIMER_DIVIDE, 0xb);
    apic_write(APIC_TIMER, VECTOR_FIRST | APIC_PERIODIC);
    apic_write(APIC_TIMER_INITIAL, 1000000);
    irq_wait(VECTOR_FIRST, 5);
    apic_write(APIC_TIMER_INITIAL, 0);
    CHECK(irq_quiet(VECTOR_FIRST));
    return EXIT_PASSED;
}
