/* With event indices a device that has emptied its queue asks to be told of the next chain, and no other. */
#include "guest-tests/lib/rng.h"
#include "guest-tests/lib/test.h"

int main(void)
{
    static struct ring r;
    struct virtio v;

    virtio_open(&v, VIRTIO_RNG, 1 << VIRTIO_F_EVENT_INDEX);
    CHECK(virtio_has(&v, VIRTIO_F_EVENT_INDEX));
    ring_init(&r, &v, 0, VIRTIO_NO_VECTOR);
    virtio_go(&v);
    for (unsigned i = 0; i < RING_MAX + 2; i++) {
        rng_call(&r);
        while (!ring_wants_kick(&r))
            asm volatile("pause");
    }
    return EXIT_PASSED;
}
