/* A 32-bit register read in bytes and words, aligned or not, is the register read at once. */
#include "guest-tests/lib/io.h"
#include "guest-tests/lib/pci.h"
#include "guest-tests/lib/test.h"

int main(void)
{
    enum { DATA = 0xcfc };

    if (!pci_present())
        skip("no PCI");

    uint32_t id = pci_read32(0, PCI_VENDOR);

    CHECK(id != 0xffffffff);
    for (unsigned i = 0; i < 4; i++)
        CHECK_EQ(inb(DATA + i), id >> 8 * i & 0xff);
    for (unsigned i = 0; i < 3; i++)
        CHECK_EQ(inw(DATA + i), id >> 8 * i & 0xffff);
    return EXIT_PASSED;
}
