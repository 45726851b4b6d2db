/* INIT and SIPI start each processor of the MADT, and each knows its APIC id. */
#include "guest-tests/lib/cpu.h"
#include "guest-tests/lib/layout.h"
#include "guest-tests/lib/test.h"

static volatile uint32_t id_seen[CPUS];
static volatile unsigned started;

static void note(void)
{
    id_seen[started] = apic_id();
    started = started + 1;
}

int main(void)
{
    uint32_t ids[CPUS];
    unsigned n = cpus_listed(ids, CPUS);

    CHECK_EQ(n, parse_number(word("cpus"), NULL));
    CHECK_EQ(ids[0], apic_id());
    for (unsigned i = 1; i < n; i++) {
        cpu_start(ids[i], note);
        while (started < i)
            asm volatile("pause");
        CHECK_EQ(id_seen[i - 1], ids[i]);
    }
    return EXIT_PASSED;
}
