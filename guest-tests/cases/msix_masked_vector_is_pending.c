/* While a vector is masked its message waits in the pending bit; it is sent when the mask goes. */
#include "guest-tests/lib/cpu.h"
#include "guest-tests/lib/io.h"
#include "guest-tests/lib/pci.h"
#include "guest-tests/lib/rng.h"
#include "guest-tests/lib/test.h"

int main(void)
{
    static struct ring r;
    struct virtio v;

    virtio_find(&v, VIRTIO_RNG);
    pci_msix_enable(v.devfn);
    pci_msix_route(v.devfn, 0, VECTOR_FIRST);
    write32(&pci_msix_entry(v.devfn, 0)->control, 1);
    rng_open(&v, &r, 0);
    rng_call(&r);
    while (!pci_msix_pending(v.devfn, 0))
        ;
    CHECK_EQ(irq_count[VECTOR_FIRST], 0);
    write32(&pci_msix_entry(v.devfn, 0)->control, 0);
    irq_wait(VECTOR_FIRST, 1);
    CHECK(!pci_msix_pending(v.devfn, 0));
    return EXIT_PASSED;
}
