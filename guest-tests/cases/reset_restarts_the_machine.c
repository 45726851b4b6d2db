/*
 * A reset, by the way that how=… names, starts the kernel again with RAM and devices as new.  The disk remembers that
 * it happened; with the word "ends" bothy must have left instead.
 */
#include "guest-tests/lib/blk.h"
#include "guest-tests/lib/boot.h"
#include "guest-tests/lib/cpu.h"
#include "guest-tests/lib/io.h"
#include "guest-tests/lib/test.h"
#include "guest-tests/lib/uart.h"

static uint32_t in_ram;

static uint64_t triple_fault(uint64_t arg)
{
    const struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) none = {0, 0};

    asm volatile("lidt %0; ud2" : : "m"(none));
    return arg;
}

static void reset(const char *how)
{
    if (!memcmp(how, "port", 4)) {
        const uint8_t *fadt = acpi_find("FACP");

        CHECK(get32(fadt + 112) & 1 << 10); /* there is a reset register */
        outb(get64(fadt + 120), fadt[128]);
    } else if (!memcmp(how, "cf9", 3)) {
        outb(0xcf9, 2);
        outb(0xcf9, 6);
    } else if (!memcmp(how, "i8042", 5)) {
        outb(0x64, 0xfe);
    } else {
        CHECK(!memcmp(how, "fault", 5));
        level0(triple_fault, 0);
    }
}

int main(void)
{
    static struct virtio v;
    static struct ring r;
    static uint8_t sector[SECTOR];

    virtio_open(&v, VIRTIO_BLK, 0);
    ring_init(&r, &v, 0, VIRTIO_NO_VECTOR);
    virtio_go(&v);
    CHECK_EQ(blk_call(&r, BLK_READ, 0, sector, SECTOR), BLK_OK);
    if (sector[0]) {
        CHECK(!word("ends"));
        CHECK_EQ(in_ram, 0);
        CHECK_EQ(inb(UART + UART_IER), 0);
        return EXIT_PASSED;
    }
    memset(sector, 1, SECTOR);
    CHECK_EQ(blk_call(&r, BLK_WRITE, 0, sector, SECTOR), BLK_OK);
    in_ram = 1;
    outb(UART + UART_IER, UART_IER_THRE);
    reset(word("how"));
    for (;;)
        asm volatile("pause");
}
