/* A BAR can be put elsewhere, below and above 4 GiB: the registers are there then, and no more where they were. */
#include "guest-tests/lib/cpu.h"
#include "guest-tests/lib/io.h"
#include "guest-tests/lib/pci.h"
#include "guest-tests/lib/test.h"
#include "guest-tests/lib/virtio.h"

enum { NUM_QUEUES = 0x12 };

static uint8_t *move(int devfn, unsigned bar, uint64_t to)
{
    uint64_t size;

    pci_write16(devfn, PCI_COMMAND, 0);
    pci_bar_set(devfn, bar, to);
    pci_write16(devfn, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    CHECK_EQ(pci_bar(devfn, bar, &size), to);
    return map(to, size);
}

int main(void)
{
    struct virtio v;

    virtio_find(&v, VIRTIO_RNG);

    unsigned cap = pci_capability(v.devfn, PCI_CAP_VENDOR, 0);

    while (pci_read8(v.devfn, cap + 3) != 1)
        cap = pci_capability(v.devfn, PCI_CAP_VENDOR, cap);

    unsigned bar = pci_read8(v.devfn, cap + 4);
    uint32_t off = pci_read32(v.devfn, cap + 8) + NUM_QUEUES;
    volatile uint8_t *first = v.common + NUM_QUEUES;
    volatile uint8_t *low = move(v.devfn, bar, 0xce000000) + off;

    CHECK_EQ(read16(low), 1);
    CHECK_EQ(read16(first), 0xffff);

    volatile uint8_t *high = move(v.devfn, bar, 0x1000000000) + off;

    CHECK_EQ(read16(high), 1);
    CHECK_EQ(read16(low), 0xffff);
    return EXIT_PASSED;
}
