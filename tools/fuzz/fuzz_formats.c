/*
 * Disk images of the formats that are read-only as disks: opened, asked what lies where, checked and read.  The first
 * byte says which format and, by its highest bit, that no image below is opened, the next four the file's size in
 * sectors; then come its parts: a sector's number in four bytes, a length in two, and so many bytes.  What no part
 * covers is zero.  Checksums are set right, or hardly an input would get past them.  Other files are named in a folder
 * that does not exist.
 */
#include "devices/block/driver.h"
#include "devices/block/vhdx.h"
#include "tools/fuzz/fuzz.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"

enum {
    SECTOR = 512,
    PARTS = 256,
    CHECKED_MAX = 1 << 30, /* bytes of a disk that is checked */
    READ_MAX = 1 << 20,    /* bytes of the disk's beginning that are read */
    STEPS = 64,            /* of the walk through what lies where, and of reads across the disk */
};

static const char *const formats[] = {"vdi", "vhd", "vhdx", "vmdk", "parallels", "bochs", "luks"};

struct part {
    uint64_t off;
    size_t len;
    uint8_t *data;
};

struct mem { /* the file: a leaf */
    struct blk b;
    struct part parts[PARTS];
    unsigned n;
    uint8_t *bytes;
};

static int mem_rw(struct blk *b, const struct blk_io *io)
{
    struct mem *m = container_of(b, struct mem, b);

    if (io->op != BLK_READ)
        return -EROFS;
    iov_zero(io->iov, 0, io->len);
    for (unsigned i = 0; i < m->n; i++) {
        uint64_t from = max_u64(m->parts[i].off, io->off);
        uint64_t to = min_u64(m->parts[i].off + m->parts[i].len, io->off + io->len);

        if (from < to)
            iov_put(io->iov, from - io->off, m->parts[i].data + (from - m->parts[i].off), to - from);
    }
    return 0;
}

static void mem_close(struct blk *b)
{
    free(container_of(b, struct mem, b)->bytes);
}

static const struct blk_driver mem_driver = {
    .name = "mem", .summary = "a file in memory", .size = sizeof(struct mem), .close = mem_close, .rw = mem_rw};

static struct blk *file_of_input(const uint8_t *data, size_t size)
{
    struct mem *m = container_of(blk_node(&mem_driver, "/nonexistent/folder/disk", NULL), struct mem, b);
    uint8_t *p;

    m->b.lim = (struct blk_limits){.size = (uint64_t)get_le32(data) * SECTOR, .align = SECTOR, .read_only = true};
    m->bytes = p = xcalloc(1, size);
    memcpy(p, data, size);
    p += 4;
    size -= 4;
    while (size > 6 && m->n < PARTS) {
        struct part part = {.off = (uint64_t)get_le32(p) * SECTOR, .len = get_le16(p + 4), .data = p + 6};

        part.len = min_u64(part.len, size - 6);
        m->parts[m->n++] = part;
        p += 6 + part.len;
        size -= 6 + part.len;
    }
    return &m->b;
}

/* ---- Checksums: set right in the part that has them. ---- */

static struct part *part_with(struct mem *m, uint64_t off, size_t n)
{
    for (unsigned i = 0; i < m->n; i++)
        if (off >= m->parts[i].off && range_fits(off - m->parts[i].off, n, m->parts[i].len))
            return &m->parts[i];
    return NULL;
}

static void put_crc(struct mem *m, uint64_t off, uint32_t n)
{
    struct part *p = part_with(m, off, 8);
    cleanup_free uint8_t *buf = malloc(n);

    if (!p || !buf || blk_pread(&m->b, buf, n, off))
        return;
    put_le32(p->data + (off - p->off) + 4, vhdx_crc(buf, n, 4));
}

static void mend_vhdx(struct mem *m)
{
    const uint64_t size = m->b.lim.size;

    for (unsigned i = 0; i < m->n; i++) {
        const uint8_t *h = m->parts[i].data;
        uint64_t off = m->parts[i].off;

        if (m->parts[i].len >= 64 && !memcmp(h, "loge", 4) && get_le32(h + 8) <= 65536 &&
            range_fits(off, get_le32(h + 8), size) && get_le32(h + 8) >= 8)
            put_crc(m, off, get_le32(h + 8));
    }
    for (uint64_t at = 64 << 10; at <= 128 << 10 && range_fits(at, 4096, size); at += 64 << 10)
        put_crc(m, at, 4096);
    for (uint64_t at = 192 << 10; at <= 256 << 10 && range_fits(at, 65536, size); at += 64 << 10)
        put_crc(m, at, 65536);
}

static void mend_vhd(struct mem *m)
{
    const uint64_t ends[] = {0, m->b.lim.size - SECTOR};

    for (unsigned i = 0; i < array_len(ends); i++) {
        struct part *p = m->b.lim.size ? part_with(m, ends[i], 68) : NULL;
        uint8_t foot[SECTOR];
        uint32_t sum = 0;

        if (!p || blk_pread(&m->b, foot, sizeof(foot), ends[i]))
            continue;
        for (unsigned n = 0; n < SECTOR; n++)
            sum += n >= 64 && n < 68 ? 0 : foot[n];
        put_be32(p->data + (ends[i] - p->off) + 64, ~sum);
    }
}

/* ---- What is done with an image. ---- */

static void walk(struct blk *b)
{
    uint64_t size = b->lim.size, off = 0;
    struct blk_status st;

    for (unsigned i = 0; i < STEPS && off < size; i++) {
        if (b->drv->status(b, off, size - off, &st))
            st.len = 512;
        assert(st.len && st.len <= size - off);
        off += st.len;
    }
}

static void read_all(struct blk *b)
{
    static uint8_t buf[128 << 10];
    uint64_t size = b->lim.size, n;

    for (uint64_t off = 0; off < size && off < READ_MAX; off += n) {
        n = min_u64(sizeof(buf), size - off);
        if (blk_pread(b, buf, n, off))
            continue; /* what cannot be read is refused: that is all right */
    }
    for (unsigned i = 0; i < STEPS; i++) {
        uint64_t off = size / STEPS * i;

        if (blk_pread(b, buf, min_u64(700, size - off), off))
            continue;
    }
    if (blk_pread(b, buf, 1, size - 1))
        return;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct blk_driver *drv;
    struct blk_open_opts o = {.read_only = true, .keyless = true};
    struct blk_check found;
    struct err err = {0};
    struct blk *b;
    json_t *info;

    if (size < 5)
        return 0;
    log_set_level(LOG_ERROR); /* what the check finds would take longer to print than to find */
    drv = blk_driver_find(formats[(data[0] & 0x7f) % array_len(formats)]);
    o.no_backing = data[0] & 0x80;
    b = blk_node(drv, "/nonexistent/folder/disk", NULL);
    b->file = file_of_input(data + 1, size - 1);
    b->file->parent = b;
    if (!strcmp(drv->name, "vhdx"))
        mend_vhdx(container_of(b->file, struct mem, b));
    if (!strcmp(drv->name, "vhd"))
        mend_vhd(container_of(b->file, struct mem, b));
    if (drv->open(b, &o, &err)) {
        assert(err.code && err.msg[0]);
    } else {
        assert(b->lim.size && b->lim.size <= INT64_MAX && b->lim.size % b->lim.align == 0 && b->lim.read_only);
        info = drv->info(b);
        assert(info);
        json_decref(info);
        if (drv->status)
            walk(b);
        if (drv->check && b->lim.size <= CHECKED_MAX && drv->check(b, BLK_FIX_NONE, &found, &err))
            assert(err.code && err.msg[0]);
        read_all(b);
    }
    blk_close(b);
    return 0;
}
