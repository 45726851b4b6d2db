/* An avail entry beyond the ring breaks the device until it is reset, and nothing else. */
#include "guest-tests/lib/rng.h"
#include "guest-tests/lib/test.h"

int main(void)
{
    static struct virtio v;
    static struct ring r;

    rng_open(&v, &r, VIRTIO_NO_VECTOR);
    r.driver.split.ring[0] = r.size;
    r.driver.split.idx = 1;
    ring_kick(&r);
    while (!(virtio_status(&v) & VIRTIO_NEEDS_RESET))
        ;
    CHECK_EQ(r.device.split.idx, 0);
    rng_open(&v, &r, VIRTIO_NO_VECTOR);
    rng_call(&r);
    return EXIT_PASSED;
}
