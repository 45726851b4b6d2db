/*
 * New VMDK images of one file: sparse (monolithicSparse) and compressed (streamOptimized).  Both begin alike: header,
 * descriptor, a copy of the grain directory and its tables, the directory and its tables, grains.
 */
#include <inttypes.h>
#include <stdio.h>
#include <zlib.h>

#include "devices/block/vmdk.h"
#include "vmm/base/cleanup.h"

enum {
    GRAIN = 64 << 10,
    NGTE = 512,
    TABLE = NGTE * 4,
    DESC_SECTOR = 1,
    DESC_SECTORS = 20,
    TABLES_SECTOR = DESC_SECTOR + DESC_SECTORS,
};

static const char *const subformats[] = {"monolithicSparse", "streamOptimized", NULL};
enum { SPARSE, STREAM };
static const char *const adapters[] = {"ide", "buslogic", "lsilogic", "legacyESX", NULL};

const struct opt vmdk_create_opts[] = {
    O_ENUM(struct vmdk_create, subformat, "subformat", "monolithicSparse", subformats,
           "whether blocks are kept as they are or compressed"),
    O_ENUM(struct vmdk_create, adapter, "adapter_type", "ide", adapters, "what the disk is to be attached to"),
    O_END,
};

/* ---- Grains. ---- */

/* Writes where the grain at `off` lies into the table and its copy. */
static int set_entry(struct blkimg *im, uint64_t off, uint64_t place)
{
    const struct vmdk_extent *e = vmdk_of(&im->b)->extents;
    const uint64_t directories[] = {e->rgd, e->gd};
    uint8_t raw[4];
    int rc = 0;

    if (place / VMDK_SECTOR > UINT32_MAX)
        return -EFBIG;
    put_le32(raw, (uint32_t)(place / VMDK_SECTOR));
    for (size_t i = 0; i < array_len(directories) && !rc; i++) {
        uint64_t entry;

        rc = directories[i] ? vmdk_entry(im, e, directories[i], off, true, &entry) : 0;
        if (directories[i] && !rc)
            rc = entry ? blkimg_put(im, e->file, entry, raw, sizeof(raw)) : -EIO;
    }
    return rc;
}

int vmdk_alloc(struct blkimg *im, uint64_t off)
{
    const struct vmdk_extent *e = vmdk_of(&im->b)->extents;

    return set_entry(im, off, blkimg_extend(im, e->grain, VMDK_SECTOR));
}

/* The marker of the stream's end, which the next grain overwrites. */
int vmdk_finish(struct blkimg *im)
{
    static const char zeroes[VMDK_SECTOR];

    if (!vmdk_of(&im->b)->extents[0].compressed)
        return 0;
    return blk_pwrite(im->b.file, zeroes, sizeof(zeroes), align_up(im->end, VMDK_SECTOR));
}

/* `grain`: all of it, also past the end of the disk. */
static int write_grain(struct vmdk *v, uint64_t off, const uint8_t *grain)
{
    const struct vmdk_extent *e = v->extents;
    uLongf n = compressBound(e->grain);
    size_t size = align_up(VMDK_MARKER + n, VMDK_SECTOR);
    cleanup_free uint8_t *buf = calloc(1, size);
    uint64_t place;
    int rc;

    if (!buf)
        return -ENOMEM;
    if (compress(buf + VMDK_MARKER, &n, grain, e->grain) != Z_OK)
        return -EIO;
    put_le64(buf, off / VMDK_SECTOR);
    put_le32(buf + 8, (uint32_t)n);
    size = align_up(VMDK_MARKER + n, VMDK_SECTOR);
    pthread_mutex_lock(&v->im.grow);
    place = blkimg_extend(&v->im, size, VMDK_SECTOR);
    rc = blk_pwrite(e->file, buf, size, place);
    if (!rc)
        rc = set_entry(&v->im, off, place);
    pthread_mutex_unlock(&v->im.grow);
    return rc;
}

int vmdk_write_compressed(struct blk *b, uint64_t off, const void *buf, size_t n)
{
    struct vmdk *v = vmdk_of(b);
    uint32_t grain = v->extents[0].grain;
    cleanup_free uint8_t *whole = NULL;

    if (!v->extents[0].compressed)
        return -ENOTSUP; /* only images that are all compressed know of compressed grains */
    if (!v->im.fresh)
        return -EROFS;
    if (n == grain)
        return write_grain(v, off, buf);
    whole = calloc(1, grain);
    if (!whole)
        return -ENOMEM;
    memcpy(whole, buf, min_u64(n, grain));
    return write_grain(v, off, whole);
}

/* The part of io that lies in the grain at `start`. */
static int merge_grain(struct vmdk *v, const struct blk_io *io, uint64_t start)
{
    uint32_t grain = v->extents[0].grain;
    uint64_t from = max_u64(start, io->off), to = min_u64(start + grain, io->off + io->len);
    uint64_t have = min_u64(grain, v->im.b.lim.size - start);
    cleanup_free uint8_t *whole = calloc(1, grain);
    struct iovec iov = {.iov_base = whole, .iov_len = have};
    int rc = whole ? 0 : -ENOMEM;

    if (!rc && to - from < have) /* the rest stays what it is */
        rc = blkimg_rw(&v->im.b, &(struct blk_io){.op = BLK_READ, .off = start, .len = have, .iov = &iov, .niov = 1});
    if (rc)
        return rc;
    if (io->op == BLK_WRITE)
        iov_get(io->iov, from - io->off, whole + (from - start), to - from);
    else
        memset(whole + (from - start), 0, to - from);
    return write_grain(v, start, whole);
}

int vmdk_write_stream(struct blk *b, const struct blk_io *io)
{
    struct vmdk *v = vmdk_of(b);
    uint32_t grain = v->extents[0].grain;
    int rc = 0;

    for (uint64_t at = align_down(io->off, grain); at < io->off + io->len && !rc; at += grain) {
        struct blkimg_at there = {.len = grain};
        bool part = at < io->off || at + grain > io->off + io->len;

        if (io->op == BLK_ZERO) {
            rc = v->im.ops->find(&v->im, at, true, &there);
            if (rc || there.place != BLK_AT)
                continue;
        }
        if (part)
            pthread_mutex_lock(&v->merging);
        rc = merge_grain(v, io, at);
        if (part)
            pthread_mutex_unlock(&v->merging);
    }
    return rc;
}

/* ---- The beginning of a file. ---- */

struct layout { /* bytes in the file */
    uint64_t ntables, copy, directory, grains;
};

static struct layout layout_of(uint64_t size)
{
    struct layout l = {.copy = TABLES_SECTOR * VMDK_SECTOR};
    uint64_t half;

    l.ntables = size / ((uint64_t)GRAIN * NGTE) + !!(size % ((uint64_t)GRAIN * NGTE));
    half = align_up(l.ntables * 4, VMDK_SECTOR) + l.ntables * TABLE;
    l.directory = l.copy + half;
    l.grains = align_up(l.directory + half, GRAIN);
    return l;
}

/* The tables themselves are a hole. */
static int write_directory(struct blk *file, uint64_t at, uint64_t ntables)
{
    uint64_t table = at + align_up(ntables * 4, VMDK_SECTOR);
    uint8_t buf[4096];
    int rc = 0;

    for (uint64_t i = 0; i < ntables && !rc;) {
        size_t n = 0;

        for (; n < sizeof(buf) && i < ntables; n += 4, i++)
            put_le32(buf + n, (uint32_t)((table + i * TABLE) / VMDK_SECTOR));
        rc = blk_pwrite(file, buf, n, at);
        at += n;
    }
    return rc;
}

static int write_descriptor(struct blk *file, uint64_t size, const struct vmdk_create *c)
{
    unsigned heads = c->adapter ? 255 : 16;
    char text[DESC_SECTORS * VMDK_SECTOR] = {0};
    const char *slash = strrchr(file->name, '/'), *name = slash ? slash + 1 : file->name;
    uint8_t id[16];

    if (strpbrk(name, "\"\n") || strlen(name) > 255)
        name = "disk.vmdk"; /* nobody opens it by that: it is the file itself */
    blkimg_uuid(id);
    snprintf(text, sizeof(text),
             "# Disk DescriptorFile\n"
             "version=1\n"
             "CID=%08x\n"
             "parentCID=ffffffff\n"
             "createType=\"%s\"\n"
             "\n"
             "# Extent description\n"
             "RW %" PRIu64 " SPARSE \"%s\"\n"
             "\n"
             "# The Disk Data Base\n"
             "#DDB\n"
             "\n"
             "ddb.virtualHWVersion = \"4\"\n"
             "ddb.geometry.cylinders = \"%" PRIu64 "\"\n"
             "ddb.geometry.heads = \"%u\"\n"
             "ddb.geometry.sectors = \"63\"\n"
             "ddb.adapterType = \"%s\"\n",
             get_le32(id) & 0x7fffffff, subformats[c->subformat], size / VMDK_SECTOR, name,
             size / VMDK_SECTOR / (63 * heads), heads, adapters[c->adapter]);
    return blk_pwrite(file, text, sizeof(text), DESC_SECTOR * VMDK_SECTOR);
}

static int write_header(struct blk *file, uint64_t size, const struct layout *l, bool stream)
{
    uint8_t h[VMDK_HEADER] = "KDMV";

    put_le32(h + VMDK_VERSION, stream ? 3 : 1);
    put_le32(h + VMDK_FLAGS,
             VMDK_FLAG_NEWLINES | VMDK_FLAG_REDUNDANT | (stream ? VMDK_FLAG_COMPRESSED | VMDK_FLAG_MARKERS : 0));
    put_le64(h + VMDK_CAPACITY, size / VMDK_SECTOR);
    put_le64(h + VMDK_GRAIN, GRAIN / VMDK_SECTOR);
    put_le64(h + VMDK_DESC_OFFSET, DESC_SECTOR);
    put_le64(h + VMDK_DESC_SIZE, DESC_SECTORS);
    put_le32(h + VMDK_NGTE, NGTE);
    put_le64(h + VMDK_RGD, l->copy / VMDK_SECTOR);
    put_le64(h + VMDK_GD, l->directory / VMDK_SECTOR);
    put_le64(h + VMDK_OVERHEAD, l->grains / VMDK_SECTOR);
    memcpy(h + VMDK_NEWLINES, "\n \r\n", 4);
    put_le16(h + VMDK_ALGORITHM, stream ? VMDK_DEFLATE : 0);
    return blk_pwrite(file, h, sizeof(h), 0);
}

int vmdk_create(struct blk *file, uint64_t size, const void *opts, const struct blk_keys *keys, struct err *err)
{
    const struct vmdk_create *c = opts;
    struct layout l;
    uint8_t zero = 0;
    int rc = blkimg_may_make(file, err);

    (void)keys;
    if (rc)
        return rc;
    if (!size || size > (uint64_t)2 << 40)
        return err_set(err, EFBIG, "a VMDK image of one file holds 512 bytes to 2 TiB, not %" PRIu64 " bytes", size);
    size = align_up(size, VMDK_SECTOR);
    l = layout_of(size);
    rc = write_header(file, size, &l, c->subformat == STREAM);
    if (!rc)
        rc = write_descriptor(file, size, c);
    if (!rc)
        rc = write_directory(file, l.copy, l.ntables);
    if (!rc)
        rc = write_directory(file, l.directory, l.ntables);
    if (!rc)
        rc = blk_pwrite(file, &zero, 1, l.grains - 1);
    return rc ? err_set(err, -rc, "write: %s", strerror(-rc)) : 0;
}
