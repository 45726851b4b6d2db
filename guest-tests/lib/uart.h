/* The first serial port, a 16550A. */
#pragma once

enum {
    UART = 0x3f8,
    UART_PIN = 4,
    UART_FIFO = 16,
    UART_DATA = 0,
    UART_IER = 1,
    UART_IIR = 2,
    UART_FCR = 2,
    UART_MCR = 4,
    UART_LSR = 5,
    UART_IER_THRE = 2,
    UART_FCR_ENABLE = 1,
    UART_FCR_CLEAR = 6,
    UART_MCR_OUT2 = 8, /* lets interrupts out */
    UART_MCR_LOOP = 16,
    UART_LSR_DATA = 1,
};
