/* With memory decoding off in the command register a BAR's registers are not there. */
#include "guest-tests/lib/io.h"
#include "guest-tests/lib/pci.h"
#include "guest-tests/lib/test.h"
#include "guest-tests/lib/virtio.h"

enum { NUM_QUEUES = 0x12 };

int main(void)
{
    struct virtio v;

    virtio_find(&v, VIRTIO_RNG);
    CHECK_EQ(read16(v.common + NUM_QUEUES), 1);
    pci_write16(v.devfn, PCI_COMMAND, 0);
    CHECK_EQ(read16(v.common + NUM_QUEUES), 0xffff);
    pci_write16(v.devfn, PCI_COMMAND, PCI_COMMAND_MEMORY);
    CHECK_EQ(read16(v.common + NUM_QUEUES), 1);
    return EXIT_PASSED;
}
