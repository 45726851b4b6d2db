/* What was written and flushed is read back, sector by sector and at once; the rest stays as it was. */
#include "guest-tests/lib/blk.h"
#include "guest-tests/lib/test.h"

enum { SECTORS = 24 };

int main(void)
{
    static struct virtio v;
    static struct ring r;
    static uint8_t data[SECTORS][SECTOR], back[SECTORS + 1][SECTOR];

    virtio_open(&v, VIRTIO_BLK, 1 << BLK_F_FLUSH | (word("indirect") ? 1ull << VIRTIO_F_INDIRECT : 0));
    CHECK_EQ(virtio_config64(&v, 0), (1 << 20) / SECTOR);
    ring_init(&r, &v, 0, VIRTIO_NO_VECTOR);
    virtio_go(&v);
    for (unsigned i = 0; i < SECTORS; i++)
        memset(data[i], i + 1, SECTOR);
    for (unsigned i = 0; i < SECTORS; i++)
        CHECK_EQ(blk_call(&r, BLK_WRITE, 8 + i, data[i], SECTOR), BLK_OK);
    if (virtio_has(&v, BLK_F_FLUSH))
        CHECK_EQ(blk_call(&r, BLK_FLUSH, 0, NULL, 0), BLK_OK);
    CHECK_EQ(blk_call(&r, BLK_READ, 8, back, sizeof(back)), BLK_OK);
    CHECK(!memcmp(back, data, sizeof(data)));
    for (unsigned i = 0; i < SECTOR; i++)
        CHECK_EQ(back[SECTORS][i], 0);
    return EXIT_PASSED;
}
