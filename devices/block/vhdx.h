/* What the parts of VHDX share: the image (vhdx.c), its log (vhdx_log.c) and the name of its parent (vhdx_parent.c). */
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

enum { VHDX_GUID_TEXT = 48 };

struct vhdx_parent {
    char name[1024];                 /* as a path here */
    char linkage[2][VHDX_GUID_TEXT]; /* what it may call itself, as {GUID} */
};

/* Reads the parent locator, `len` bytes at `off` of b->file. */
int vhdx_parent_read(struct blk *b, uint64_t off, uint32_t len, struct vhdx_parent *ret, struct err *err) must_check;
/* Is a file whose data are called `guid` that parent? */
bool vhdx_parent_is(const struct vhdx_parent *p, const uint8_t guid[16]);
