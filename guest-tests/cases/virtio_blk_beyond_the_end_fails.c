/* A request that leaves the disk ends with an I/O error, and the next one works. */
#include "guest-tests/lib/blk.h"
#include "guest-tests/lib/test.h"

int main(void)
{
    static struct virtio v;
    static struct ring r;
    static uint8_t data[2 * SECTOR];

    virtio_open(&v, VIRTIO_BLK, 0);
    ring_init(&r, &v, 0, VIRTIO_NO_VECTOR);
    virtio_go(&v);

    uint64_t end = virtio_config64(&v, 0);

    CHECK_EQ(blk_call(&r, BLK_READ, end - 1, data, sizeof(data)), BLK_IOERR);
    CHECK_EQ(blk_call(&r, BLK_WRITE, end, data, SECTOR), BLK_IOERR);
    CHECK_EQ(blk_call(&r, BLK_READ, ~0ull, data, SECTOR), BLK_IOERR);
    CHECK_EQ(blk_call(&r, BLK_READ, end - 2, data, sizeof(data)), BLK_OK);
    return EXIT_PASSED;
}
