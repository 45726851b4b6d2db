/* The RSDP is where a kernel without a boot loader's hint looks, and everything that it leads to is sound. */
#include "guest-tests/lib/boot.h"
#include "guest-tests/lib/io.h"
#include "guest-tests/lib/test.h"

int main(void)
{
    const uint8_t *found = NULL;

    for (uint32_t at = 0xe0000; at < 0x100000 && !found; at += 16)
        if (!memcmp(phys(at), "RSD PTR ", 8))
            found = phys(at);
    CHECK_EQ((uint64_t)found, boot_rsdp());
    CHECK(acpi_find("FACP"));
    CHECK(acpi_find("APIC"));
    CHECK(acpi_find("DSDT"));
    return EXIT_PASSED;
}
