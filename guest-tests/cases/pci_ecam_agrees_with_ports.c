/* Both ways into configuration space show the same headers, and ones where there is no function. */
#include "guest-tests/lib/io.h"
#include "guest-tests/lib/pci.h"
#include "guest-tests/lib/test.h"

int main(void)
{
    unsigned found = 0;

    for (int devfn = 0; devfn < 256; devfn += 8) {
        volatile uint8_t *ecam = pci_ecam(devfn);
        uint32_t id = pci_read32(devfn, PCI_VENDOR);

        CHECK_EQ(read32(ecam), id);
        if (id == 0xffffffff)
            continue;
        found++;
        for (unsigned reg = 0; reg < 64; reg += 4)
            CHECK_EQ(read32(ecam + reg), pci_read32(devfn, reg));
    }
    CHECK(found > 1);
    return EXIT_PASSED;
}
