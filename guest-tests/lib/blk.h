/* Requests to the block device [VIRTIO-v1.2 5.2.6]. */
#pragma once
#include "guest-tests/lib/virtio.h"

enum { BLK_READ = 0, BLK_WRITE = 1, BLK_FLUSH = 4, BLK_OK = 0, BLK_IOERR = 1, SECTOR = 512, BLK_F_FLUSH = 9 };

struct blk_request {
    struct {
        uint32_t type, reserved;
        uint64_t sector;
    } head;
    uint8_t status;
};

/* Makes the request available; it and `data` stay in use until it comes back. */
static inline uint16_t blk_add(struct ring *r, struct blk_request *q, uint32_t type, uint64_t sector, void *data,
                               uint32_t len)
{
    const struct buffer with_data[] = {
        {&q->head, sizeof(q->head), false}, {data, len, type == BLK_READ}, {&q->status, 1, true}};
    const struct buffer without[] = {{&q->head, sizeof(q->head), false}, {&q->status, 1, true}};

    q->head.type = type;
    q->head.reserved = 0;
    q->head.sector = sector;
    q->status = 0xff;
    return len ? ring_add(r, with_data, 3) : ring_add(r, without, 2);
}

/* There and back; the status. */
static inline uint8_t blk_call(struct ring *r, uint32_t type, uint64_t sector, void *data, uint32_t len)
{
    static struct blk_request q;
    uint16_t id;
    uint32_t used;

    blk_add(r, &q, type, sector, data, len);
    ring_kick(r);
    while (!ring_take(r, &id, &used))
        ;
    return q.status;
}
