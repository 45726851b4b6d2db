/* A line that goes up while its pin is masked interrupts when the mask goes. */
#include "guest-tests/lib/cpu.h"
#include "guest-tests/lib/io.h"
#include "guest-tests/lib/test.h"
#include "guest-tests/lib/uart.h"

static void serve(void)
{
    inb(UART + UART_IIR);
}

int main(void)
{
    irq_handler(VECTOR_FIRST, serve);
    ioapic_route(UART_PIN, VECTOR_FIRST, IOAPIC_LEVEL | IOAPIC_MASKED);
    outb(UART + UART_MCR, UART_MCR_OUT2);
    outb(UART + UART_IER, UART_IER_THRE);
    irq_linger();
    CHECK_EQ(irq_count[VECTOR_FIRST], 0);
    ioapic_route(UART_PIN, VECTOR_FIRST, IOAPIC_LEVEL);
    irq_wait(VECTOR_FIRST, 1);
    return EXIT_PASSED;
}
