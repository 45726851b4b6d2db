/* As many requests as the ring holds are under way at once, each comes back once, and each did its own work. */
#include "guest-tests/lib/blk.h"
#include "guest-tests/lib/test.h"

enum { REQUESTS = RING_MAX / 3, ROUNDS = 8 };

int main(void)
{
    static struct virtio v;
    static struct ring r;
    static struct blk_request q[REQUESTS];
    static uint8_t data[REQUESTS][SECTOR];

    virtio_open(&v, VIRTIO_BLK, 0);
    ring_init(&r, &v, 0, VIRTIO_NO_VECTOR);
    CHECK_EQ(r.size, RING_MAX);
    virtio_go(&v);
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint32_t type = round % 2 ? BLK_READ : BLK_WRITE;
        uint8_t back[RING_MAX] = {0};

        for (unsigned i = 0; i < REQUESTS; i++) {
            memset(data[i], type == BLK_WRITE ? (round + 1) * 16 + i : 0, SECTOR);
            blk_add(&r, &q[i], type, 2 * i, data[i], SECTOR);
        }
        ring_kick(&r);
        for (unsigned n = 0; n < REQUESTS;) {
            uint16_t id;
            uint32_t len;

            if (!ring_take(&r, &id, &len))
                continue;
            CHECK(!back[id]++);
            CHECK_EQ(len, type == BLK_READ ? SECTOR + 1 : 1);
            n++;
        }
        for (unsigned i = 0; i < REQUESTS; i++) {
            CHECK_EQ(q[i].status, BLK_OK);
            CHECK_EQ(data[i][SECTOR - 1], (uint8_t)((round / 2 * 2 + 1) * 16 + i));
        }
    }
    return EXIT_PASSED;
}
