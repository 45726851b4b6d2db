/*
 * VDI, VirtualBox's own disk image, version 1.1: a header of one sector, a map with a word for each block, and blocks
 * of 1 MiB in the order in which they were first written.  All little-endian.  There is no text that specifies it; the
 * facts are those of VirtualBox's VDICore.h (VDIHEADER1PLUS, VDI_IMAGE_BLOCK_FREE and _ZERO).
 *
 * Images of type "differencing" and "undo" name their parent by a UUID in VirtualBox's registry, and are refused.
 */
#include <errno.h>

#include "devices/block/blkimg.h"

enum {
    SECTOR = 512,
    HEADER = 512,
    HEADER_SIZE = 0x180, /* that the header says of itself: from its field on */
    SIGNATURE = 0x40,
    MAGIC = (int)0xbeda107f,
    VERSION_1_1 = 0x00010001,
    BLOCK_MIN = 4096,
    BLOCK_MAX = 256 << 20,
    BLOCK_MADE = 1 << 20, /* of new images: what every reader takes */
    BLOCKS_MAX = 0x3fffffff,
};

enum { /* offsets of fields */
       AT_MAGIC = 64,
       AT_VERSION = 68,
       AT_HEADER_SIZE = 72,
       AT_TYPE = 76,
       AT_MAP = 340,
       AT_DATA = 344,
       AT_SECTOR = 360,
       AT_DISK = 368,
       AT_BLOCK = 376,
       AT_EXTRA = 380,
       AT_BLOCKS = 384,
       AT_ALLOCATED = 388,
       AT_UUID = 392,
       AT_UUID_SNAPSHOT = 408,
       AT_UUID_LINK = 424,
};

enum { TYPE_DYNAMIC = 1, TYPE_STATIC, TYPE_UNDO, TYPE_DIFF };

#define ENTRY_FREE 0xffffffffu
#define ENTRY_ZERO 0xfffffffeu

struct vdi {
    struct blkimg im;
    uint32_t type, block, map, data;
    uint32_t nblocks, allocated;
};

static struct vdi *vdi_of(struct blkimg *im)
{
    return container_of(im, struct vdi, im);
}

static bool vdi_probe(const uint8_t *head, size_t n, const uint8_t *tail)
{
    (void)tail;
    return n >= HEADER && get_le32(head + AT_MAGIC) == (uint32_t)MAGIC;
}

static int vdi_find(struct blkimg *im, uint64_t off, bool wait, struct blkimg_at *at)
{
    struct vdi *v = vdi_of(im);
    uint64_t in = off % v->block;
    uint8_t entry[4];
    int rc = blkimg_get(im, im->b.file, v->map + off / v->block * sizeof(entry), entry, sizeof(entry), wait);
    uint32_t n = get_le32(entry);

    if (rc)
        return rc;
    at->len = min_u64(at->len, v->block - in);
    at->place = n == ENTRY_FREE || n == ENTRY_ZERO ? BLK_ZEROES : BLK_AT;
    at->fixed = v->type == TYPE_STATIC;
    at->file = im->b.file;
    at->off = v->data + (uint64_t)n * v->block + in;
    return 0;
}

/* Also in the header: how many blocks there are. */
static int vdi_alloc(struct blkimg *im, uint64_t off)
{
    struct vdi *v = vdi_of(im);
    uint8_t n[4];
    int rc;

    put_le32(n, (uint32_t)((blkimg_extend(im, v->block, SECTOR) - v->data) / v->block));
    rc = blkimg_put(im, im->b.file, v->map + off / v->block * sizeof(n), n, sizeof(n));
    v->allocated++;
    return rc;
}

static int vdi_finish(struct blkimg *im)
{
    struct vdi *v = vdi_of(im);
    uint8_t n[4];

    put_le32(n, v->allocated);
    return blkimg_put(im, im->b.file, AT_ALLOCATED, n, sizeof(n));
}

static const char *vdi_flaw(struct blkimg *im, uint64_t allocated)
{
    return allocated == vdi_of(im)->allocated ? NULL : "the header says another number of blocks than the map has";
}

static const struct blkimg_ops vdi_ops = {.find = vdi_find, .alloc = vdi_alloc, .finish = vdi_finish, .flaw = vdi_flaw};

static int vdi_open(struct blk *b, const struct blk_open_opts *o, struct err *err)
{
    struct vdi *v = container_of(b, struct vdi, im.b);
    uint8_t h[HEADER];
    uint64_t size, end;
    int rc = blkimg_init(&v->im, &vdi_ops, o, err);

    if (!rc)
        rc = blkimg_header(b, h, sizeof(h), 0, err);
    if (rc)
        return rc;
    v->type = get_le32(h + AT_TYPE);
    v->map = get_le32(h + AT_MAP);
    v->data = get_le32(h + AT_DATA);
    v->block = get_le32(h + AT_BLOCK);
    v->nblocks = get_le32(h + AT_BLOCKS);
    v->allocated = get_le32(h + AT_ALLOCATED);
    size = get_le64(h + AT_DISK);
    if (get_le32(h + AT_MAGIC) != (uint32_t)MAGIC)
        return blkimg_bad(b, err, "no signature");
    if (get_le32(h + AT_VERSION) != VERSION_1_1)
        return blkimg_refuse(b, err, "VDI version %u.%u is not known, only 1.1", get_le16(h + AT_VERSION + 2),
                             get_le16(h + AT_VERSION));
    if (v->type == TYPE_UNDO || v->type == TYPE_DIFF)
        return blkimg_refuse(b, err,
                             "it is the difference to another image, which only VirtualBox knows; clone it there");
    if (v->type != TYPE_DYNAMIC && v->type != TYPE_STATIC)
        return blkimg_bad(b, err, "type %u", v->type);
    if (get_le32(h + AT_SECTOR) != SECTOR || get_le32(h + AT_EXTRA))
        return blkimg_refuse(b, err, "sectors of %u bytes and blocks with %u bytes extra are not known, only 512 and 0",
                             get_le32(h + AT_SECTOR), get_le32(h + AT_EXTRA));
    if (!is_pow2(v->block) || v->block < BLOCK_MIN || v->block > BLOCK_MAX)
        return blkimg_bad(b, err, "blocks of %u bytes", v->block);
    if (!size || v->nblocks > BLOCKS_MAX || size > (uint64_t)v->nblocks * v->block)
        return blkimg_bad(b, err, "%u blocks for a disk of %llu bytes", v->nblocks, (unsigned long long)size);
    end = (uint64_t)v->map + (uint64_t)v->nblocks * sizeof(uint32_t);
    if (v->map < HEADER || end > v->data || v->data % SECTOR || v->data > b->file->lim.size)
        return blkimg_bad(b, err, "a map at %u and data at %u of the file", v->map, v->data);
    b->lim.size = align_up(size, SECTOR);
    v->im.end = v->data + (uint64_t)v->allocated * v->block;
    return 0;
}

static json_t *vdi_info(struct blk *b)
{
    struct vdi *v = container_of(b, struct vdi, im.b);

    return json_pack("{s:b, s:I, s:I}", "static", v->type == TYPE_STATIC, "block-size", (json_int_t)v->block,
                     "allocated-blocks", (json_int_t)v->allocated);
}

static uint32_t vdi_cluster(struct blk *b)
{
    return container_of(b, struct vdi, im.b)->block;
}

/* ---- New images. ---- */

struct vdi_create {
    bool fixed;
};

static const struct opt vdi_create_opts[] = {
    O_BOOL(struct vdi_create, fixed, "static", "off", "all blocks have their place in the file from the beginning"),
    O_END,
};

/* The map: free, or each block in its own place. */
static int write_map(struct blk *file, uint64_t off, uint32_t nblocks, bool fixed)
{
    uint8_t buf[4096];
    int rc = 0;

    for (uint32_t i = 0; i < nblocks && !rc;) {
        size_t n = 0;

        for (; n < sizeof(buf) && i < nblocks; n += 4, i++)
            put_le32(buf + n, fixed ? i : ENTRY_FREE);
        rc = blk_pwrite(file, buf, n, off);
        off += n;
    }
    return rc;
}

static int vdi_create(struct blk *file, uint64_t size, const void *opts, const struct blk_keys *keys, struct err *err)
{
    const struct vdi_create *c = opts;
    uint64_t nblocks = size / BLOCK_MADE + !!(size % BLOCK_MADE), data;
    uint8_t h[HEADER] = "<<< bothy VDI image >>>\n", zero = 0;
    int rc = blkimg_may_make(file, err);

    (void)keys;
    if (rc)
        return rc;
    if (!size || nblocks > BLOCKS_MAX)
        return err_set(err, EFBIG, "a VDI image holds 1 byte to 1023 TiB, not %llu bytes", (unsigned long long)size);
    data = align_up(HEADER + nblocks * 4, BLOCK_MADE);
    put_le32(h + AT_MAGIC, (uint32_t)MAGIC);
    put_le32(h + AT_VERSION, VERSION_1_1);
    put_le32(h + AT_HEADER_SIZE, HEADER_SIZE);
    put_le32(h + AT_TYPE, c->fixed ? TYPE_STATIC : TYPE_DYNAMIC);
    put_le32(h + AT_MAP, HEADER);
    put_le32(h + AT_DATA, (uint32_t)data);
    put_le32(h + AT_SECTOR, SECTOR);
    put_le64(h + AT_DISK, align_up(size, SECTOR));
    put_le32(h + AT_BLOCK, BLOCK_MADE);
    put_le32(h + AT_BLOCKS, (uint32_t)nblocks);
    put_le32(h + AT_ALLOCATED, c->fixed ? (uint32_t)nblocks : 0);
    blkimg_uuid(h + AT_UUID);
    blkimg_uuid(h + AT_UUID_SNAPSHOT);
    rc = blk_pwrite(file, h, sizeof(h), 0);
    if (!rc)
        rc = write_map(file, HEADER, (uint32_t)nblocks, c->fixed);
    if (!rc)
        rc = blk_pwrite(file, &zero, 1, data + (c->fixed ? nblocks * BLOCK_MADE : 0) - 1);
    return rc ? err_set(err, -rc, "write: %s", strerror(-rc)) : 0;
}

static const char *const vdi_endings[] = {"vdi", NULL};
const struct blk_driver vdi_driver = {
    .name = "vdi",
    .summary = "VirtualBox disk image",
    .endings = vdi_endings,
    .size = sizeof(struct vdi),
    .probe = vdi_probe,
    .open = vdi_open,
    .close = blkimg_close,
    .rw = blkimg_rw,
    .map = blkimg_map,
    .status = blkimg_status,
    .check = blkimg_check,
    .info = vdi_info,
    .cluster = vdi_cluster,
    .create = vdi_create,
    .create_opts = vdi_create_opts,
    .create_size = sizeof(struct vdi_create),
};
