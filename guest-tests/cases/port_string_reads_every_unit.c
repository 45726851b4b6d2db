/* REP INS fills its buffer to the end, in every unit size, across pages and over more units than one exit carries. */
#include "guest-tests/lib/io.h"
#include "guest-tests/lib/pci.h"
#include "guest-tests/lib/test.h"

enum { DATA = 0xcfc, UNITS = 3000 };

int main(void)
{
    static uint32_t dwords[UNITS + 1] __attribute__((aligned(4096)));
    static uint16_t words[UNITS + 1];
    static uint8_t bytes[UNITS + 1];

    if (!pci_present())
        skip("no PCI");

    uint32_t id = pci_read32(0, PCI_VENDOR);

    insl(DATA, dwords, UNITS);
    insw(DATA, words, UNITS);
    insb(DATA, bytes, UNITS);
    for (unsigned i = 0; i < UNITS; i++) {
        CHECK_EQ(dwords[i], id);
        CHECK_EQ(words[i], id & 0xffff);
        CHECK_EQ(bytes[i], id & 0xff);
    }
    CHECK_EQ(dwords[UNITS] | words[UNITS] | bytes[UNITS], 0);
    return EXIT_PASSED;
}
