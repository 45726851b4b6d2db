/* Where no device decodes a port, reads of every size give ones and writes vanish. */
#include "guest-tests/lib/io.h"
#include "guest-tests/lib/test.h"

enum { HOLE = 0xa20 };

int main(void)
{
    outb(HOLE, 0);
    outw(HOLE, 0);
    outl(HOLE, 0);
    CHECK_EQ(inb(HOLE), 0xff);
    CHECK_EQ(inw(HOLE), 0xffff);
    CHECK_EQ(inl(HOLE), 0xffffffff);
    return EXIT_PASSED;
}
