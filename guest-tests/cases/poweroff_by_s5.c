/* Writing the sleep type of \_S5 with SLP_EN to PM1a control switches the machine off. */
#include "guest-tests/lib/boot.h"
#include "guest-tests/lib/io.h"
#include "guest-tests/lib/test.h"

/* Name(_S5, Package(){ SLP_TYPa, … }) in AML. */
static unsigned sleep_type(void)
{
    static const uint8_t name[] = {'_', 'S', '5', '_', 0x12};
    enum { BYTE_PREFIX = 0x0a };
    const uint8_t *dsdt = acpi_find("DSDT");

    for (const uint8_t *p = dsdt + 36; p < dsdt + get32(dsdt + 4) - 16; p++) {
        if (memcmp(p, name, sizeof(name)))
            continue;
        p += sizeof(name) + 2; /* package length and number of elements */
        return *p == BYTE_PREFIX ? p[1] : *p;
    }
    skip("no S5 on this board");
}

int main(void)
{
    enum { SLP_EN = 1 << 13, SLP_TYP_SHIFT = 10 };
    uint16_t port = get32(acpi_find("FACP") + 64);

    outw(port, SLP_EN | sleep_type() << SLP_TYP_SHIFT);
    for (;;)
        asm volatile("pause");
}
