/*
 * The log of VHDX images [MS-VHDX] 2.3: changes to the file's metadata that may not have reached their place when the
 * image was last used.  The image is not written to: what the log says is kept in memory and laid over the file.
 *
 * The log is a ring of sectors of 4 KiB.  An entry (2.3.1) is a header, descriptors that each say where a sector goes
 * or which range becomes zeroes, and the sectors.  Those valid entries count that follow each other by sequence number
 * up to the highest there is (2.3.3).
 */
#include <inttypes.h>

#include "devices/block/blkimg.h"
#include "devices/block/vhdx.h"
#include "vmm/base/cleanup.h"

enum {
    SECTOR = 4096,
    ENTRY_HEADER = 64,
    DESCRIPTOR = 32,
    LOG_MAX = 16 << 20,  /* of a log's length; all writers known make them of 1 MiB */
    PATCHES_MAX = 8192,  /* sectors and zeroed ranges in all entries together */
    CHECKED_PER_BYTE = 8 /* a log whose checksums take longer is made to take long */
};

enum { /* offsets in an entry's header, then in descriptors and in data sectors */
       ENTRY_CRC = 4,
       ENTRY_LENGTH = 8,
       ENTRY_TAIL = 12,
       ENTRY_SEQUENCE = 16,
       ENTRY_DESCRIPTORS = 24,
       ENTRY_GUID = 32,
       ENTRY_FLUSHED = 48,
       ENTRY_LAST = 56,
       DESC_TRAILING = 4,
       DESC_LEADING = 8, /* or the length of a zeroed range */
       DESC_OFFSET = 16,
       DESC_SEQUENCE = 24,
       DATA_HIGH = 4,
       DATA_LOW = 4092,
};

struct patch {
    uint64_t off, len;
    uint8_t *data; /* of one sector; NULL: zeroes */
};

struct overlay { /* the node above the file */
    struct blk b;
    struct patch *patches; /* in the order in which they apply */
    unsigned npatches;
};

struct ring { /* the log, while it is looked at */
    const struct vhdx_log *log;
    uint8_t *bytes;
    uint64_t budget; /* of bytes to be checked */
};

struct entry {
    uint32_t at, len, tail, ndescriptors;
    uint64_t sequence;
};

struct run {            /* of entries with consecutive numbers */
    uint32_t tail, len; /* bytes, around the ring */
    unsigned n;
    struct entry head; /* the last of them */
};

static uint32_t crc_slow(uint32_t crc, const uint8_t *p, size_t n)
{
    static const uint32_t nibble[16] = {0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
                                        0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
                                        0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};

    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        crc = crc >> 4 ^ nibble[crc & 15];
        crc = crc >> 4 ^ nibble[crc & 15];
    }
    return crc;
}

__attribute__((target("sse4.2"))) static uint32_t crc_fast(uint32_t crc, const uint8_t *p, size_t n)
{
    for (; n >= 8; n -= 8, p += 8)
        crc = (uint32_t)__builtin_ia32_crc32di(crc, get_le64(p));
    for (; n; n--)
        crc = __builtin_ia32_crc32qi(crc, *p++);
    return crc;
}

uint32_t vhdx_crc(const uint8_t *p, size_t n, size_t skip)
{
    uint32_t (*crc)(uint32_t crc, const uint8_t *p, size_t n) = __builtin_cpu_supports("sse4.2") ? crc_fast : crc_slow;
    static const uint8_t zero[4];

    return ~crc(crc(crc(~0u, p, skip), zero, sizeof(zero)), p + skip + sizeof(zero), n - skip - sizeof(zero));
}

/* ---- The ring. ---- */

/* `n` bytes from `at` on, which go around the end. */
static void ring_copy(const struct ring *r, uint64_t at, uint8_t *dst, uint32_t n)
{
    uint32_t first;

    at %= r->log->len;
    first = (uint32_t)min_u64(n, r->log->len - at);
    memcpy(dst, r->bytes + at, first);
    memcpy(dst + first, r->bytes, n - first);
}

/* Is there a valid entry at `at`?  1, 0, or -errno. */
static int entry_at(struct ring *r, uint32_t at, struct entry *ret)
{
    const uint8_t *h = r->bytes + at;
    struct entry e = {.at = at,
                      .len = get_le32(h + ENTRY_LENGTH),
                      .tail = get_le32(h + ENTRY_TAIL),
                      .ndescriptors = get_le32(h + ENTRY_DESCRIPTORS),
                      .sequence = get_le64(h + ENTRY_SEQUENCE)};
    cleanup_free uint8_t *whole = NULL;

    if (memcmp(h, "loge", 4) || memcmp(h + ENTRY_GUID, r->log->guid, sizeof(r->log->guid)) || !e.sequence)
        return 0;
    if (!e.len || e.len % SECTOR || e.len > r->log->len || e.tail % SECTOR || e.tail >= r->log->len)
        return 0;
    if (e.ndescriptors > (e.len - ENTRY_HEADER) / DESCRIPTOR)
        return 0;
    if (e.len > r->budget)
        return -EINVAL;
    r->budget -= e.len;
    whole = malloc(e.len);
    if (!whole)
        return -ENOMEM;
    ring_copy(r, at, whole, e.len);
    if (vhdx_crc(whole, e.len, ENTRY_CRC) != get_le32(whole + ENTRY_CRC))
        return 0;
    *ret = e;
    return 1;
}

static int run_from(struct ring *r, uint32_t at, struct run *ret)
{
    struct run run = {.tail = at};
    struct entry e;
    int rc;

    while ((rc = entry_at(r, (uint32_t)((at + (uint64_t)run.len) % r->log->len), &e)) > 0) {
        if ((run.n && e.sequence != run.head.sequence + 1) || e.len > r->log->len - run.len)
            break;
        run.head = e;
        run.len += e.len;
        run.n++;
    }
    *ret = run;
    return rc < 0 ? rc : 0;
}

/* Is the sector that the last entry calls the first of those that count among them? */
static bool run_is_whole(const struct ring *r, const struct run *run)
{
    uint32_t len = r->log->len;

    return run->n && (run->head.tail + len - run->tail) % len < run->len;
}

static int find_active(struct ring *r, struct run *ret)
{
    struct run best = {0}, run;

    for (uint64_t at = 0; at < r->log->len; at += SECTOR) {
        int rc = run_from(r, (uint32_t)at, &run);

        if (rc)
            return rc;
        if (!run_is_whole(r, &run))
            continue;
        if (run.head.sequence > best.head.sequence)
            best = run;
        at += run.len - SECTOR;
    }
    *ret = best;
    return 0;
}

/* ---- What the entries say. ---- */

static int add_patch(struct overlay *o, const struct patch *p)
{
    uint64_t end;

    if (o->npatches == PATCHES_MAX || __builtin_add_overflow(p->off, p->len, &end) || end > INT64_MAX)
        return -EINVAL;
    if (!o->patches)
        o->patches = xcalloc(PATCHES_MAX, sizeof(*o->patches));
    o->patches[o->npatches++] = *p;
    return 0;
}

/* A data descriptor's sector: its first eight and last four bytes are in the descriptor. */
static int add_sector(struct overlay *o, const uint8_t *desc, const uint8_t *sector, uint64_t sequence)
{
    struct patch p = {.off = get_le64(desc + DESC_OFFSET), .len = SECTOR, .data = malloc(SECTOR)};
    int rc = p.data ? 0 : -ENOMEM;

    if (!rc && (memcmp(sector, "data", 4) || get_le32(sector + DATA_HIGH) != sequence >> 32 ||
                get_le32(sector + DATA_LOW) != (uint32_t)sequence))
        rc = -EINVAL;
    if (!rc) {
        memcpy(p.data, sector, SECTOR);
        memcpy(p.data, desc + DESC_LEADING, 8);
        memcpy(p.data + DATA_LOW, desc + DESC_TRAILING, 4);
        rc = add_patch(o, &p);
    }
    if (rc)
        free(p.data);
    return rc;
}

static int add_entry(struct overlay *o, const struct ring *r, const struct entry *e)
{
    cleanup_free uint8_t *bytes = malloc(e->len);
    uint64_t at = align_up(ENTRY_HEADER + (uint64_t)e->ndescriptors * DESCRIPTOR, SECTOR);
    int rc = bytes ? 0 : -ENOMEM;

    if (bytes)
        ring_copy(r, e->at, bytes, e->len);
    for (uint32_t i = 0; i < e->ndescriptors && !rc; i++) {
        const uint8_t *d = bytes + ENTRY_HEADER + (size_t)i * DESCRIPTOR;
        struct patch zeroes = {.off = get_le64(d + DESC_OFFSET), .len = get_le64(d + DESC_LEADING)};

        if (get_le64(d + DESC_SEQUENCE) != e->sequence || zeroes.off % SECTOR) {
            rc = -EINVAL;
        } else if (!memcmp(d, "zero", 4)) {
            rc = zeroes.len % SECTOR ? -EINVAL : add_patch(o, &zeroes);
        } else if (!memcmp(d, "desc", 4) && at + SECTOR <= e->len) {
            rc = add_sector(o, d, bytes + at, e->sequence);
            at += SECTOR;
        } else {
            rc = -EINVAL;
        }
    }
    return rc;
}

/* All entries from the one on that the last calls the first. */
static int add_run(struct overlay *o, struct ring *r, const struct run *run)
{
    struct entry e = {.at = run->head.tail};
    int rc;

    r->budget = r->log->len;
    do {
        rc = entry_at(r, e.at, &e);
        if (rc == 1)
            rc = add_entry(o, r, &e);
        else if (!rc)
            rc = -EINVAL; /* the tail lies inside an entry */
        e.at = (uint32_t)((e.at + (uint64_t)e.len) % r->log->len);
    } while (!rc && e.sequence != run->head.sequence);
    return rc;
}

/* ---- The node. ---- */

static void overlay_close(struct blk *b)
{
    struct overlay *o = container_of(b, struct overlay, b);

    for (unsigned i = 0; i < o->npatches; i++)
        free(o->patches[i].data);
    free(o->patches);
}

static void apply(const struct patch *p, const struct blk_io *io)
{
    uint64_t start = max_u64(p->off, io->off), end = io->off + io->len;

    if (p->off + p->len < end)
        end = p->off + p->len;
    if (start >= end)
        return;
    if (p->data)
        iov_put(io->iov, start - io->off, p->data + (start - p->off), end - start);
    else
        iov_zero(io->iov, start - io->off, end - start);
}

static int overlay_rw(struct blk *b, const struct blk_io *io)
{
    struct overlay *o = container_of(b, struct overlay, b);
    uint64_t size = b->file->lim.size, there = io->off < size ? min_u64(io->len, size - io->off) : 0;
    int rc = 0;

    if (io->op != BLK_READ)
        return io->op == BLK_FLUSH ? 0 : -EROFS;
    if (there)
        rc = blk_rw_part(b->file, io, 0, there, io->off);
    if (rc)
        return rc;
    iov_zero(io->iov, there, io->len - there);
    for (unsigned i = 0; i < o->npatches; i++)
        apply(&o->patches[i], io);
    return 0;
}

static const struct blk_driver overlay_driver = {.name = "vhdx-log",
                                                 .summary = "a VHDX file with its log",
                                                 .size = sizeof(struct overlay),
                                                 .close = overlay_close,
                                                 .rw = overlay_rw};

static void put_between(struct blk *b, struct overlay *o, uint64_t size)
{
    o->b.lim = b->file->lim;
    o->b.lim.read_only = true;
    o->b.lim.grows = false;
    o->b.lim.size = max_u64(size, o->b.lim.size);
    o->b.file = b->file;
    o->b.file->parent = &o->b;
    o->b.parent = b;
    b->file = &o->b;
}

int vhdx_replay(struct blk *b, const struct vhdx_log *log, struct err *err)
{
    cleanup_free uint8_t *bytes = NULL;
    struct ring r = {.log = log, .budget = (uint64_t)log->len * CHECKED_PER_BYTE};
    struct overlay *o;
    struct run run;
    uint64_t flushed, last;
    int rc;

    if (!log->len || log->len % (1 << 20) || log->off % (1 << 20))
        return blkimg_bad(b, err, "a log of %u bytes at %" PRIu64, log->len, log->off);
    if (log->len > LOG_MAX)
        return blkimg_refuse(b, err,
                             "a log of %u MiB is to be written back first, more than the %u known; do it with: "
                             "qemu-img check -r all",
                             log->len >> 20, LOG_MAX >> 20);
    bytes = malloc(log->len);
    if (!bytes)
        return err_set(err, ENOMEM, "%s: no memory for its log", b->name);
    rc = blkimg_header(b, bytes, log->len, log->off, err);
    if (rc)
        return rc;
    r.bytes = bytes;
    rc = find_active(&r, &run);
    if (rc || !run.n)
        return blkimg_bad(b, err, "its header says that there is a log to write back, but the log is damaged");
    flushed = get_le64(bytes + run.head.at + ENTRY_FLUSHED);
    last = get_le64(bytes + run.head.at + ENTRY_LAST);
    if (flushed > b->file->lim.size || last > INT64_MAX)
        return blkimg_bad(b, err, "the file was cut short since its log was written");
    o = container_of(blk_node(&overlay_driver, b->name, b->lane), struct overlay, b);
    rc = add_run(o, &r, &run);
    if (rc) {
        blk_close(&o->b);
        return blkimg_bad(b, err, "its log is damaged");
    }
    put_between(b, o, last);
    return 0;
}
