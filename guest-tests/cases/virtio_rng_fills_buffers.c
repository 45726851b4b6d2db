/* Random bytes arrive in the whole buffer, over more rounds than the ring has room for. */
#include "guest-tests/lib/test.h"
#include "guest-tests/lib/virtio.h"

enum { ROUNDS = 3 * RING_MAX, LEN = 64 };

int main(void)
{
    static struct virtio v;
    static struct ring r;
    uint8_t seen[LEN] = {0};

    virtio_open(&v, VIRTIO_RNG, 0);
    ring_init(&r, &v, 0, VIRTIO_NO_VECTOR);
    virtio_go(&v);
    for (unsigned i = 0; i < ROUNDS; i++) {
        static uint8_t bytes[LEN];
        const struct buffer b = {bytes, LEN, .in = true};

        memset(bytes, 0, LEN);
        CHECK_EQ(ring_call(&r, &b, 1), LEN);
        for (unsigned k = 0; k < LEN; k++)
            seen[k] |= bytes[k];
    }
    for (unsigned k = 0; k < LEN; k++)
        CHECK_EQ(seen[k], 0xff); /* each bit was set once in that many rounds, or the dice are loaded */
    return EXIT_PASSED;
}
