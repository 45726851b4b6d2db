/* REP OUTSB puts each byte into the UART's FIFO, in order; looped back, REP INSB reads them again. */
#include "guest-tests/lib/io.h"
#include "guest-tests/lib/test.h"
#include "guest-tests/lib/uart.h"

int main(void)
{
    static const char text[] = "0123456789abcdef";
    char back[UART_FIFO];

    outb(UART + UART_IER, 0);
    outb(UART + UART_FCR, UART_FCR_ENABLE | UART_FCR_CLEAR);
    outb(UART + UART_MCR, UART_MCR_LOOP);
    outsb(UART + UART_DATA, text, UART_FIFO);
    for (unsigned i = 0; i < UART_FIFO; i++) {
        while (!(inb(UART + UART_LSR) & UART_LSR_DATA))
            ;
        insb(UART + UART_DATA, back + i, 1);
    }
    CHECK(!memcmp(back, text, UART_FIFO));
    CHECK(!(inb(UART + UART_LSR) & UART_LSR_DATA));
    return EXIT_PASSED;
}
