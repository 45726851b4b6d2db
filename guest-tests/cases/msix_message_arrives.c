/* A used buffer interrupts by the MSI-X vector that the queue was given. */
#include "guest-tests/lib/cpu.h"
#include "guest-tests/lib/pci.h"
#include "guest-tests/lib/rng.h"
#include "guest-tests/lib/test.h"

int main(void)
{
    static struct ring r;
    struct virtio v;

    virtio_find(&v, VIRTIO_RNG);
    pci_msix_enable(v.devfn);
    pci_msix_route(v.devfn, 1, VECTOR_FIRST);
    rng_open(&v, &r, 1);
    for (unsigned i = 1; i <= 3; i++) {
        rng_call(&r);
        irq_wait(VECTOR_FIRST, i);
    }
    irq_linger();
    CHECK_EQ(irq_count[VECTOR_FIRST], 3);
    return EXIT_PASSED;
}
