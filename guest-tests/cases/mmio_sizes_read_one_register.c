/* Memory-mapped registers read in any size and at any alignment give the same bytes. */
#include "guest-tests/lib/io.h"
#include "guest-tests/lib/pci.h"
#include "guest-tests/lib/test.h"

int main(void)
{
    volatile uint8_t *p = pci_ecam(0);
    uint8_t bytes[16];

    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = read8(p + i);
    CHECK(bytes[0] != 0xff);
    for (unsigned i = 0; i < 8; i++) {
        uint64_t want;

        memcpy(&want, bytes + i, sizeof(want));
        CHECK_EQ(read16(p + i), want & 0xffff);
        CHECK_EQ(read32(p + i), want & 0xffffffff);
        CHECK_EQ(read64(p + i), want);
    }
    return EXIT_PASSED;
}
