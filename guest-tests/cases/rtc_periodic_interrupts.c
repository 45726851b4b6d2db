/* The RTC's periodic interrupt comes by line 8 again each time register C was read. */
#include "guest-tests/lib/cpu.h"
#include "guest-tests/lib/io.h"
#include "guest-tests/lib/test.h"

enum { INDEX = 0x70, DATA = 0x71, REG_A = 10, REG_B = 11, REG_C = 12, PIN = 8, PERIODIC = 1 << 6 };

static volatile uint8_t why;

static void rtc_write(uint8_t reg, uint8_t v)
{
    outb(INDEX, reg);
    outb(DATA, v);
}

static uint8_t rtc_read(uint8_t reg)
{
    outb(INDEX, reg);
    return inb(DATA);
}

static void serve(void)
{
    why = rtc_read(REG_C);
}

int main(void)
{
    irq_handler(VECTOR_FIRST, serve);
    ioapic_route(PIN, VECTOR_FIRST, IOAPIC_EDGE);
    rtc_write(REG_A, 0x26); /* 1024 Hz */
    rtc_read(REG_C);
    rtc_write(REG_B, 0x02 | PERIODIC); /* from here on the ports are the handler's */
    irq_wait(VECTOR_FIRST, 5);
    CHECK(why & PERIODIC);
    return EXIT_PASSED;
}
