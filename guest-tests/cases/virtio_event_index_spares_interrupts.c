/* With event indices the device interrupts for the buffer that the driver asks about, and for none before and after. */
#include "guest-tests/lib/cpu.h"
#include "guest-tests/lib/pci.h"
#include "guest-tests/lib/rng.h"
#include "guest-tests/lib/test.h"

enum { ASKED = 2, CALLS = 5 };

int main(void)
{
    static struct ring r;
    struct virtio v;

    virtio_find(&v, VIRTIO_RNG);
    pci_msix_enable(v.devfn);
    pci_msix_route(v.devfn, 1, VECTOR_FIRST);
    virtio_open(&v, VIRTIO_RNG, 1 << VIRTIO_F_EVENT_INDEX);
    CHECK(virtio_has(&v, VIRTIO_F_EVENT_INDEX));
    ring_init(&r, &v, 0, 1);
    ring_ask(&r, ASKED);
    virtio_go(&v);
    for (unsigned i = 0; i < CALLS; i++) {
        rng_call(&r);
        if (i == ASKED)
            irq_wait(VECTOR_FIRST, 1);
        irq_linger();
        CHECK_EQ(irq_count[VECTOR_FIRST], i >= ASKED);
    }
    return EXIT_PASSED;
}
