/* The local APIC's timer in one-shot mode interrupts once and stays at 0. */
#include "guest-tests/lib/cpu.h"
#include "guest-tests/lib/test.h"

int main(void)
{
    if (word("x2apic"))
        apic_use_x2();
    apic_write(APIC_TIMER_DIVIDE, 0xb); /* by 1 */
    apic_write(APIC_TIMER, VECTOR_FIRST);
    apic_write(APIC_TIMER_INITIAL, 1000000);
    irq_wait(VECTOR_FIRST, 1);
    irq_linger();
    CHECK_EQ(irq_count[VECTOR_FIRST], 1);
    CHECK_EQ(apic_read(APIC_TIMER_CURRENT), 0);
    return EXIT_PASSED;
}
