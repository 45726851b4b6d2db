/* REP MOVS from device memory reads each byte once and in order. */
#include "guest-tests/lib/io.h"
#include "guest-tests/lib/pci.h"
#include "guest-tests/lib/test.h"

int main(void)
{
    uint8_t header[64];

    memcpy(header, pci_ecam(0), sizeof(header));
    for (unsigned i = 0; i < sizeof(header); i++)
        CHECK_EQ(header[i], pci_read8(0, i));
    return EXIT_PASSED;
}
