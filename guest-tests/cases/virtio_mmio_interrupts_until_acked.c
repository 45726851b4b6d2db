/* A used buffer raises the MMIO device's line until the interrupt is acknowledged. */
#include "guest-tests/lib/cpu.h"
#include "guest-tests/lib/rng.h"
#include "guest-tests/lib/test.h"

enum { SERVED_AT = 5 };

static struct virtio v;

static void serve_at_last(void)
{
    if (irq_count[VECTOR_FIRST] == SERVED_AT)
        virtio_ack(&v);
}

int main(void)
{
    static struct ring r;

    virtio_find(&v, VIRTIO_RNG);
    irq_handler(VECTOR_FIRST, serve_at_last);
    ioapic_route(v.pin, VECTOR_FIRST, IOAPIC_LEVEL);
    rng_open(&v, &r, VIRTIO_NO_VECTOR);
    rng_call(&r);
    irq_wait(VECTOR_FIRST, SERVED_AT + 1);
    CHECK(irq_quiet(VECTOR_FIRST));
    return EXIT_PASSED;
}
