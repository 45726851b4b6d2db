/* The ACPI PM timer runs forward in 24 bits. */
#include "guest-tests/lib/boot.h"
#include "guest-tests/lib/io.h"
#include "guest-tests/lib/test.h"

int main(void)
{
    uint16_t port = get32(acpi_find("FACP") + 76);
    uint32_t start, sum = 0;

    if (!port)
        skip("no PM timer on this board");
    start = inl(port);
    for (int i = 0; i < 100; i++) {
        uint32_t now = inl(port), step = (now - start) & 0xffffff;

        CHECK(now <= 0xffffff);
        CHECK(step < 0x800000);
        sum += step;
        start = now;
    }
    CHECK(sum);
    return EXIT_PASSED;
}
