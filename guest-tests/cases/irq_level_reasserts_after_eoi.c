/* A level-triggered line that is still up at the EOI interrupts again, until the device is served. */
#include "guest-tests/lib/cpu.h"
#include "guest-tests/lib/io.h"
#include "guest-tests/lib/test.h"
#include "guest-tests/lib/uart.h"

enum { REPEATS = 3 };

static void serve_the_last(void)
{
    if (irq_count[VECTOR_FIRST] == REPEATS - 1)
        inb(UART + UART_IIR); /* takes the line down */
}

int main(void)
{
    irq_handler(VECTOR_FIRST, serve_the_last);
    ioapic_route(UART_PIN, VECTOR_FIRST, IOAPIC_LEVEL);
    outb(UART + UART_MCR, UART_MCR_OUT2);
    outb(UART + UART_IER, UART_IER_THRE);
    irq_wait(VECTOR_FIRST, REPEATS);
    irq_linger();
    CHECK_EQ(irq_count[VECTOR_FIRST], REPEATS);
    return EXIT_PASSED;
}
