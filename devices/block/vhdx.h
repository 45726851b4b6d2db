/* What the two halves of VHDX share: the image (vhdx.c) and its log (vhdx_log.c). */
#pragma once
#include "devices/block/driver.h"

struct vhdx_log { /* where the header says that the log is */
    uint8_t guid[16];
    uint64_t off;
    uint32_t len;
};

/* CRC-32C (Castagnoli) of `n` bytes, of which those at `skip`, four of them and there, count as zero. */
uint32_t vhdx_crc(const uint8_t *p, size_t n, size_t skip);
/* Puts a node between `b` and its file, which reads as the file would if its log had been written back. */
int vhdx_replay(struct blk *b, const struct vhdx_log *log, struct err *err) must_check;
