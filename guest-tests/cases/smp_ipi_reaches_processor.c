/* An interrupt sent to one processor arrives there, spinning or halted, and nowhere else. */
#include "guest-tests/lib/cpu.h"
#include "guest-tests/lib/test.h"

enum { SPINNING = VECTOR_FIRST, HALTED };

static volatile uint32_t by[2], stage;

static void note_spinning(void)
{
    by[0] = apic_id();
}

static void note_halted(void)
{
    by[1] = apic_id();
}

static void other(void)
{
    irq_wait(SPINNING, 1);
    stage = 1;
    irq_halt(HALTED, 1);
    stage = 2;
}

int main(void)
{
    uint32_t ids[2];

    CHECK_EQ(cpus_listed(ids, 2), 2);
    if (word("x2apic"))
        apic_use_x2();
    irq_handler(SPINNING, note_spinning);
    irq_handler(HALTED, note_halted);
    cpu_start(ids[1], other);
    apic_send(ids[1], SPINNING);
    while (stage < 1)
        asm volatile("pause");
    irq_linger(); /* so that it halts before */
    apic_send(ids[1], HALTED);
    while (stage < 2)
        asm volatile("pause");
    CHECK_EQ(by[0], ids[1]);
    CHECK_EQ(by[1], ids[1]);
    return EXIT_PASSED;
}
