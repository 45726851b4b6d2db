/* Reset puts every register back, and the device works again after it. */
#include "guest-tests/lib/rng.h"
#include "guest-tests/lib/test.h"

int main(void)
{
    static struct virtio v;
    static struct ring r;

    for (int round = 0; round < 3; round++) {
        rng_open(&v, &r, VIRTIO_NO_VECTOR);
        rng_call(&r);
        virtio_reset(&v);
        CHECK_EQ(virtio_status(&v), 0);
        CHECK(!ring_enabled(&v, 0));
        CHECK_EQ(virtio_ack(&v), 0);
    }
    return EXIT_PASSED;
}
