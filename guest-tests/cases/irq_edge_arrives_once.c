/* An edge on an interrupt line is delivered once, though the line stays up. */
#include "guest-tests/lib/cpu.h"
#include "guest-tests/lib/io.h"
#include "guest-tests/lib/test.h"
#include "guest-tests/lib/uart.h"

int main(void)
{
    ioapic_route(UART_PIN, VECTOR_FIRST, IOAPIC_EDGE);
    outb(UART + UART_MCR, UART_MCR_OUT2);
    outb(UART + UART_IER, UART_IER_THRE);
    irq_wait(VECTOR_FIRST, 1);
    irq_linger();
    CHECK_EQ(irq_count[VECTOR_FIRST], 1);
    return EXIT_PASSED;
}
