/* The panic event on the pvpanic port ends the process as a crash of the guest. */
#include "guest-tests/lib/io.h"
#include "guest-tests/lib/test.h"

int main(void)
{
    enum { PORT = 0x505, PANICKED = 1 };

    CHECK(inb(PORT) & PANICKED); /* it says that it knows the event */
    outb(PORT, PANICKED);
    for (;;)
        asm volatile("pause");
}
