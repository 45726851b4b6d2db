/* Without MSI-X a used buffer raises the INTx line until the ISR status is read. */
#include "guest-tests/lib/cpu.h"
#include "guest-tests/lib/pci.h"
#include "guest-tests/lib/rng.h"
#include "guest-tests/lib/test.h"

static struct virtio v;
static volatile uint32_t served;

/* Counts what was there to serve: a host may deliver a level-triggered interrupt once more than it must. */
static void serve(void)
{
    bool up = pci_read16(v.devfn, PCI_STATUS) & PCI_STATUS_INTX;
    bool queue = virtio_ack(&v);

    CHECK_EQ(up, queue);
    served = served + queue;
}

int main(void)
{
    static struct ring r;

    /* The wiring is told in AML only: listen on all pins that PCI could have. */
    irq_handler(VECTOR_FIRST, serve);
    for (unsigned pin = 16; pin < IOAPIC_PINS; pin++)
        ioapic_route(pin, VECTOR_FIRST, IOAPIC_LEVEL);
    rng_open(&v, &r, VIRTIO_NO_VECTOR);
    for (unsigned i = 1; i <= 3; i++) {
        rng_call(&r);
        while (served < i)
            asm volatile("pause");
    }
    CHECK(!(pci_read16(v.devfn, PCI_STATUS) & PCI_STATUS_INTX));
    CHECK(irq_quiet(VECTOR_FIRST));
    return EXIT_PASSED;
}
