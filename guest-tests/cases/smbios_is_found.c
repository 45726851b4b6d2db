/* The SMBIOS 3 entry point is found by scanning as kernels do, and a system structure with the UUID follows. */
#include "guest-tests/lib/boot.h"
#include "guest-tests/lib/io.h"
#include "guest-tests/lib/test.h"

int main(void)
{
    const uint8_t *entry = NULL, *uuid = NULL;
    uint8_t sum = 0;

    for (uint32_t at = 0xf0000; at < 0x100000 && !entry; at += 16)
        if (!memcmp(phys(at), "_SM3_", 5))
            entry = phys(at);
    CHECK(entry);
    for (unsigned i = 0; i < entry[6]; i++)
        sum += entry[i];
    CHECK_EQ(sum, 0);

    const uint8_t *p = phys(get64(entry + 16)), *end = p + get32(entry + 12);

    while (p < end && p[0] != 127) {
        if (p[0] == 1)
            uuid = p + 8;
        for (p += p[1]; p[0] || p[1]; p++)
            ;
        p += 2;
    }
    CHECK(p < end);
    CHECK(uuid);
    return EXIT_PASSED;
}
