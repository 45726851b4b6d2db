/* Instructions that read and write device memory at once do both. */
#include "guest-tests/lib/io.h"
#include "guest-tests/lib/pci.h"
#include "guest-tests/lib/test.h"
#include "guest-tests/lib/virtio.h"

int main(void)
{
    struct virtio v;
    uint32_t other = 0x1234;

    virtio_find(&v, VIRTIO_RNG);

    uint32_t *data = &pci_msix_entry(v.devfn, 0)->data;

    write32(data, 0x11);
    asm volatile("orl $0x22, (%0)" : : "r"(data) : "memory");
    CHECK_EQ(read32(data), 0x33);
    asm volatile("addl $1, (%0)" : : "r"(data) : "memory");
    CHECK_EQ(read32(data), 0x34);
    asm volatile("xchgl %0, (%1)" : "+r"(other) : "r"(data) : "memory");
    CHECK_EQ(other, 0x34);
    CHECK_EQ(read32(data), 0x1234);
    return EXIT_PASSED;
}
