/* Where there is neither RAM nor a device, reads of every size give ones and writes vanish. */
#include "guest-tests/lib/io.h"
#include "guest-tests/lib/test.h"

int main(void)
{
    volatile uint8_t *hole = phys(0x38000000); /* above the RAM that a case is given */

    write8(hole, 0);
    write16(hole, 0);
    write32(hole, 0);
    write64(hole, 0);
    CHECK_EQ(read8(hole), 0xff);
    CHECK_EQ(read16(hole), 0xffff);
    CHECK_EQ(read32(hole), 0xffffffff);
    CHECK_EQ(read64(hole), ~0ull);
    return EXIT_PASSED;
}
