/* What is typed arrives in the receive queue, what is sent comes out. */
#include "guest-tests/lib/test.h"
#include "guest-tests/lib/virtio.h"

enum { RECEIVE, TRANSMIT };

int main(void)
{
    static struct virtio v;
    static struct ring rx, tx;
    static char typed[64], answer[] = "pong\n";
    const struct buffer in = {typed, sizeof(typed), .in = true}, out = {answer, sizeof(answer) - 1, .in = false};

    virtio_open(&v, VIRTIO_CONSOLE, 0);
    ring_init(&rx, &v, RECEIVE, VIRTIO_NO_VECTOR);
    ring_init(&tx, &v, TRANSMIT, VIRTIO_NO_VECTOR);
    virtio_go(&v);
    CHECK_EQ(ring_call(&rx, &in, 1), 5);
    CHECK(!memcmp(typed, "ping\n", 5));
    CHECK_EQ(ring_call(&tx, &out, 1), 0);
    return EXIT_PASSED;
}
