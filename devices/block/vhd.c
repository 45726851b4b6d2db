/*
 * VHD, the disk image of Virtual PC and of older Hyper-V [Microsoft, "Virtual Hard Disk Image Format
 * Specification" 1.0]. All big-endian.  A footer of one sector ends the file.  Fixed images are the disk and the
 * footer.  Dynamic ones begin with a copy of the footer, a header and a block allocation table of the sectors of
 * blocks; each block is a bitmap of its sectors and the sectors.  Of dynamic images all of a block counts; in
 * differencing ones the bitmap says which sectors are there, and the others are the parent's.
 *
 * Virtual PC and QEMU make disks of the size that the geometry in the footer gives, all others of the size beside it:
 * the field of the creator decides.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "devices/block/blkimg.h"
#include "vmm/base/cleanup.h"

enum {
    SECTOR = 512,
    FOOTER = 512,
    HEADER = 1024,
    BLOCK_MIN = 4096,
    BLOCK_MAX = 256 << 20,
    BLOCK_MADE = 2 << 20, /* of new images: what the specification says */
    NAME_MAX_ = 2048,     /* of a parent's name: bytes */
    LOCATORS = 8,
    LOCATOR = 24,
    VERSION_1 = 0x00010000,
    FEATURES = 2, /* the bit that is always set */
};

enum { /* offsets in the footer */
       FOOT_FEATURES = 8,
       FOOT_VERSION = 12,
       FOOT_HEADER = 16,
       FOOT_TIME = 24,
       FOOT_CREATOR = 28,
       FOOT_CREATOR_VERSION = 32,
       FOOT_HOST = 36,
       FOOT_SIZE_FIRST = 40,
       FOOT_SIZE = 48,
       FOOT_CYLINDERS = 56,
       FOOT_HEADS = 58,
       FOOT_SECTORS = 59,
       FOOT_TYPE = 60,
       FOOT_SUM = 64,
       FOOT_UUID = 68,
};
enum { /* offsets in the header of dynamic images */
       HEAD_NEXT = 8,
       HEAD_TABLE = 16,
       HEAD_VERSION = 24,
       HEAD_ENTRIES = 28,
       HEAD_BLOCK = 32,
       HEAD_SUM = 36,
       HEAD_PARENT_UUID = 40,
       HEAD_PARENT_NAME = 64, /* UTF-16, big-endian */
       HEAD_LOCATORS = 576,
       LOC_LEN = 8,
       LOC_OFF = 16,
};

enum { TYPE_FIXED = 2, TYPE_DYNAMIC, TYPE_DIFFERENCING };
enum { CYLINDERS_MAX = 65535, HEADS_MAX = 16, SECTORS_MAX = 255 };
#define ENTRY_NONE     0xffffffffu
#define SIZE_MAX_BYTES ((uint64_t)2040 << 30) /* what the table's words and the specification allow */

static const char cookie[] = "conectix", header_cookie[] = "cxsparse";
enum { COOKIE = 8 };

struct vhd {
    struct blkimg im;
    uint32_t type, block, bitmap; /* bytes; the bitmap in whole sectors */
    uint64_t table;
    uint8_t footer[FOOTER];
    char parent[NAME_MAX_ * 2]; /* of a differencing image; else empty */
};

static struct vhd *vhd_of(struct blkimg *im)
{
    return container_of(im, struct vhd, im);
}

static bool vhd_probe(const uint8_t *head, size_t n, const uint8_t *tail)
{
    return n >= FOOTER && (!memcmp(tail, cookie, COOKIE) || !memcmp(head, cookie, COOKIE));
}

/* The complement of the sum of all bytes but those of the sum. */
static uint32_t sum_of(const uint8_t *p, size_t n, size_t at)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += i - at < 4 ? 0 : p[i];
    return ~sum;
}

/* ---- Blocks. ---- */

static int vhd_find(struct blkimg *im, uint64_t off, bool wait, struct blkimg_at *at)
{
    struct vhd *v = vhd_of(im);
    uint64_t in = off % v->block, n;
    uint8_t entry[4];
    bool set = true;
    int rc = blkimg_get(im, im->b.file, v->table + off / v->block * sizeof(entry), entry, sizeof(entry), wait);

    if (rc)
        return rc;
    at->file = im->b.file;
    at->len = min_u64(at->len, v->block - in);
    at->off = (uint64_t)get_be32(entry) * SECTOR;
    if (get_be32(entry) == ENTRY_NONE) {
        at->place = v->type == TYPE_DIFFERENCING ? BLK_BACKING : BLK_ZEROES;
        return 0;
    }
    if (v->type == TYPE_DIFFERENCING) {
        n = (in + at->len - 1) / SECTOR - in / SECTOR + 1;
        rc = blkimg_bits(im, at->file, at->off, in / SECTOR, n, true, wait, &set, &n);
        at->len = min_u64(at->len, n * SECTOR - in % SECTOR);
    }
    at->place = set ? BLK_AT : BLK_BACKING;
    at->off += v->bitmap + in;
    return rc;
}

static int find_fixed(struct blkimg *im, uint64_t off, bool wait, struct blkimg_at *at)
{
    (void)wait;
    at->place = BLK_AT;
    at->fixed = true;
    at->file = im->b.file;
    at->off = off;
    return 0;
}

static int vhd_alloc(struct blkimg *im, uint64_t off)
{
    struct vhd *v = vhd_of(im);
    uint64_t place = blkimg_extend(im, (uint64_t)v->bitmap + v->block, SECTOR);
    uint8_t entry[4];
    cleanup_free uint8_t *ones = malloc(v->bitmap);
    int rc;

    if (!ones)
        return -ENOMEM;
    memset(ones, 0xff, v->bitmap);
    put_be32(entry, (uint32_t)(place / SECTOR)); /* SIZE_MAX_BYTES keeps it from overflowing */
    rc = blk_pwrite(im->b.file, ones, v->bitmap, place);
    return rc ? rc : blkimg_put(im, im->b.file, v->table + off / v->block * sizeof(entry), entry, sizeof(entry));
}

static int vhd_finish(struct blkimg *im)
{
    return blk_pwrite(im->b.file, vhd_of(im)->footer, FOOTER, align_up(im->end, SECTOR));
}

static const struct blkimg_ops fixed_ops = {.find = find_fixed};
static const struct blkimg_ops dynamic_ops = {.find = vhd_find, .alloc = vhd_alloc, .finish = vhd_finish};

/* ---- The parent of a differencing image. ---- */

/* From the locator of a relative Windows path, else what the last part of the parent's name is. */
static bool parent_name(struct vhd *v, const uint8_t *header, char *ret, size_t max)
{
    uint8_t raw[NAME_MAX_];
    const char *slash;

    for (unsigned i = 0; i < LOCATORS; i++) {
        const uint8_t *l = header + HEAD_LOCATORS + (size_t)i * LOCATOR;
        uint64_t off = get_be64(l + LOC_OFF), n = get_be32(l + LOC_LEN);

        if (!memcmp(l, "W2ru", 4) && n <= sizeof(raw) && range_fits(off, n, v->im.b.file->lim.size) && n &&
            !blk_pread(v->im.b.file, raw, n, off) && blkimg_utf16(raw, n, false, ret, max))
            return true;
    }
    if (!blkimg_utf16(header + HEAD_PARENT_NAME, 512, true, ret, max))
        return false;
    slash = strrchr(ret, '/');
    if (slash)
        memmove(ret, slash + 1, strlen(slash + 1) + 1);
    return *ret;
}

static int open_parent(struct vhd *v, const uint8_t *header, const struct blk_open_opts *o, struct err *err)
{
    struct blk *b = &v->im.b;
    int rc;

    if (!parent_name(v, header, v->parent, sizeof(v->parent)))
        return blkimg_bad(b, err, "it does not name its parent");
    if (o->no_backing)
        return 0;
    rc = blk_open_named(b, v->parent, "vpc", false, o, &b->backing, err);
    if (!rc &&
        memcmp(header + HEAD_PARENT_UUID, container_of(b->backing, struct vhd, im.b)->footer + FOOT_UUID, 16) != 0)
        rc = blkimg_bad(b, err, "%s is not the parent that it was made from", v->parent);
    return rc;
}

/* ---- Opening. ---- */

static bool valid_footer(const uint8_t *f)
{
    return !memcmp(f, cookie, COOKIE) && sum_of(f, FOOTER, FOOT_SUM) == get_be32(f + FOOT_SUM);
}

/*
 * The one at the end counts: the first sector of a fixed image is the guest's, who could put a footer there.  Its copy
 * at the beginning is for dynamic images that were cut off.
 */
static int read_footer(struct vhd *v, struct err *err)
{
    struct blk *b = &v->im.b;
    int rc;

    if (b->file->lim.size < FOOTER)
        return blkimg_bad(b, err, "the file is cut short");
    rc = blkimg_header(b, v->footer, FOOTER, b->file->lim.size - FOOTER, err);
    if (rc || valid_footer(v->footer))
        return rc;
    rc = blkimg_header(b, v->footer, FOOTER, 0, err);
    if (!rc && (!valid_footer(v->footer) || get_be32(v->footer + FOOT_TYPE) == TYPE_FIXED))
        rc = blkimg_bad(b, err, "no valid footer");
    return rc;
}

static uint64_t disk_size(const uint8_t *footer)
{
    uint64_t cylinders = (uint64_t)footer[FOOT_CYLINDERS] << 8 | footer[FOOT_CYLINDERS + 1];
    uint64_t chs = cylinders * footer[FOOT_HEADS] * footer[FOOT_SECTORS] * SECTOR;
    bool by_chs = !memcmp(footer + FOOT_CREATOR, "vpc ", 4) || !memcmp(footer + FOOT_CREATOR, "qemu", 4);

    if (by_chs && chs && chs != (uint64_t)CYLINDERS_MAX * HEADS_MAX * SECTORS_MAX * SECTOR)
        return chs;
    return get_be64(footer + FOOT_SIZE);
}

static int open_dynamic(struct vhd *v, const struct blk_open_opts *o, struct err *err)
{
    struct blk *b = &v->im.b;
    uint8_t h[HEADER];
    uint32_t entries;
    int rc = blkimg_header(b, h, sizeof(h), get_be64(v->footer + FOOT_HEADER), err);

    if (rc)
        return rc;
    entries = get_be32(h + HEAD_ENTRIES);
    v->block = get_be32(h + HEAD_BLOCK);
    v->table = get_be64(h + HEAD_TABLE);
    if (memcmp(h, header_cookie, COOKIE) != 0)
        return blkimg_bad(b, err, "the header is not where its footer says");
    if (get_be32(h + HEAD_VERSION) != VERSION_1)
        return blkimg_refuse(b, err, "version %#x of its header is not known, only 0x10000",
                             get_be32(h + HEAD_VERSION));
    if (!is_pow2(v->block) || v->block < BLOCK_MIN || v->block > BLOCK_MAX)
        return blkimg_bad(b, err, "blocks of %u bytes", v->block);
    if (b->lim.size > (uint64_t)entries * v->block)
        return blkimg_bad(b, err, "%u blocks for a disk of %" PRIu64 " bytes", entries, b->lim.size);
    if (!range_fits(v->table, (uint64_t)entries * sizeof(uint32_t), b->file->lim.size))
        return blkimg_bad(b, err, "the file is cut short");
    v->bitmap = (uint32_t)align_up(v->block / SECTOR / 8, SECTOR);
    v->im.end = b->file->lim.size - FOOTER;
    return v->type == TYPE_DIFFERENCING ? open_parent(v, h, o, err) : 0;
}

static int vhd_open(struct blk *b, const struct blk_open_opts *o, struct err *err)
{
    struct vhd *v = container_of(b, struct vhd, im.b);
    int rc = blkimg_init(&v->im, &dynamic_ops, o, err);
    uint64_t size;

    if (!rc)
        rc = read_footer(v, err);
    if (rc)
        return rc;
    v->type = get_be32(v->footer + FOOT_TYPE);
    size = disk_size(v->footer);
    if (get_be32(v->footer + FOOT_VERSION) != VERSION_1)
        return blkimg_refuse(b, err, "version %#x of VHD is not known, only 0x10000",
                             get_be32(v->footer + FOOT_VERSION));
    if (!size || size > INT64_MAX - SECTOR)
        return blkimg_bad(b, err, "a disk of %" PRIu64 " bytes", size);
    b->lim.size = align_up(size, SECTOR);
    if (v->type == TYPE_DYNAMIC || v->type == TYPE_DIFFERENCING)
        return open_dynamic(v, o, err);
    if (v->type != TYPE_FIXED)
        return blkimg_bad(b, err, "type %u", v->type);
    v->im.ops = &fixed_ops;
    return b->lim.size <= b->file->lim.size - FOOTER ? 0 : blkimg_bad(b, err, "the file is cut short");
}

static json_t *vhd_info(struct blk *b)
{
    static const char *const words[] = {"fixed", "dynamic", "differencing"};
    struct vhd *v = container_of(b, struct vhd, im.b);
    json_t *j = json_pack("{s:s}", "subformat", words[v->type - TYPE_FIXED]);

    if (v->type != TYPE_FIXED)
        json_object_set_new(j, "block-size", json_integer(v->block));
    if (*v->parent)
        json_object_set_new(j, "backing-filename", json_string(v->parent));
    return j;
}

static uint32_t vhd_cluster(struct blk *b)
{
    return container_of(b, struct vhd, im.b)->block;
}

/* ---- New images. ---- */

static const char *const subformats[] = {"dynamic", "fixed", NULL};
enum { DYNAMIC, FIXED };

struct vhd_create {
    uint32_t subformat;
    bool exact;
};

static const struct opt vhd_create_opts[] = {
    O_ENUM(struct vhd_create, subformat, "subformat", "dynamic", subformats,
           "whether blocks get a place when first written"),
    O_BOOL(struct vhd_create, exact, "force_size", "on", "the disk has just the size asked for; always so"),
    O_END,
};

/* The specification's appendix "CHS Calculation". */
static void put_geometry(uint8_t *footer, uint64_t sectors)
{
    uint64_t per_track = 17, heads, tracks;

    sectors = min_u64(sectors, (uint64_t)CYLINDERS_MAX * HEADS_MAX * SECTORS_MAX);
    if (sectors >= (uint64_t)CYLINDERS_MAX * HEADS_MAX * 63) {
        per_track = SECTORS_MAX;
        heads = HEADS_MAX;
    } else {
        heads = max_u64((sectors / per_track + 1023) / 1024, 4);
        if (sectors / per_track >= heads * 1024 || heads > HEADS_MAX) {
            per_track = 31;
            heads = HEADS_MAX;
        }
        if (sectors / per_track >= heads * 1024)
            per_track = 63;
    }
    tracks = sectors / per_track;
    footer[FOOT_CYLINDERS] = (uint8_t)(tracks / heads >> 8);
    footer[FOOT_CYLINDERS + 1] = (uint8_t)(tracks / heads);
    footer[FOOT_HEADS] = (uint8_t)heads;
    footer[FOOT_SECTORS] = (uint8_t)per_track;
}

static void make_footer(uint8_t f[FOOTER], uint64_t size, bool fixed)
{
    const time_t year_2000 = 946684800;

    memset(f, 0, FOOTER);
    memcpy(f, cookie, COOKIE);
    put_be32(f + FOOT_FEATURES, FEATURES);
    put_be32(f + FOOT_VERSION, VERSION_1);
    put_be64(f + FOOT_HEADER, fixed ? UINT64_MAX : FOOTER);
    put_be32(f + FOOT_TIME, (uint32_t)(time(NULL) - year_2000));
    memcpy(f + FOOT_CREATOR, "win ", 4); /* one of those by which readers know that the size counts, not the geometry */
    put_be32(f + FOOT_CREATOR_VERSION, VERSION_1);
    memcpy(f + FOOT_HOST, "Wi2k", 4);
    put_be64(f + FOOT_SIZE_FIRST, size);
    put_be64(f + FOOT_SIZE, size);
    put_geometry(f, size / SECTOR);
    put_be32(f + FOOT_TYPE, fixed ? TYPE_FIXED : TYPE_DYNAMIC);
    blkimg_uuid(f + FOOT_UUID);
    put_be32(f + FOOT_SUM, sum_of(f, FOOTER, FOOT_SUM));
}

/* The footer's copy, the header, the table, and the footer. */
static int write_dynamic(struct blk *file, uint64_t size, const uint8_t *footer)
{
    uint32_t entries = (uint32_t)((size + BLOCK_MADE - 1) / BLOCK_MADE);
    uint64_t at = FOOTER + HEADER, end = at + align_up((uint64_t)entries * sizeof(uint32_t), SECTOR);
    uint8_t h[HEADER] = "cxsparse", none[SECTOR];
    int rc;

    put_be64(h + HEAD_NEXT, UINT64_MAX);
    put_be64(h + HEAD_TABLE, at);
    put_be32(h + HEAD_VERSION, VERSION_1);
    put_be32(h + HEAD_ENTRIES, entries);
    put_be32(h + HEAD_BLOCK, BLOCK_MADE);
    put_be32(h + HEAD_SUM, sum_of(h, sizeof(h), HEAD_SUM));
    memset(none, 0xff, sizeof(none));
    rc = blk_pwrite(file, footer, FOOTER, 0);
    if (!rc)
        rc = blk_pwrite(file, h, sizeof(h), FOOTER);
    for (; at < end && !rc; at += sizeof(none))
        rc = blk_pwrite(file, none, sizeof(none), at);
    return rc ? rc : blk_pwrite(file, footer, FOOTER, end);
}

static int vhd_create(struct blk *file, uint64_t size, const void *opts, const struct blk_keys *keys, struct err *err)
{
    const struct vhd_create *c = opts;
    uint8_t footer[FOOTER];
    int rc = blkimg_may_make(file, err);

    (void)keys;
    if (rc)
        return rc;
    if (!c->exact)
        return err_set(err, EINVAL, "force_size=off: bothy makes VHD images only of the size asked for; leave it out");
    if (!size || size > SIZE_MAX_BYTES)
        return err_set(err, EFBIG, "a VHD image holds 512 bytes to 2040 GiB, not %" PRIu64 " bytes", size);
    size = align_up(size, SECTOR);
    make_footer(footer, size, c->subformat == FIXED);
    rc = c->subformat == FIXED ? blk_pwrite(file, footer, FOOTER, size) : write_dynamic(file, size, footer);
    return rc ? err_set(err, -rc, "write: %s", strerror(-rc)) : 0;
}

static const char *const vhd_endings[] = {"vhd", "vpc", NULL};
const struct blk_driver vhd_driver = {
    .name = "vpc", /* as qemu-img calls it */
    .alias = "vhd",
    .summary = "Virtual PC and Hyper-V disk image",
    .endings = vhd_endings,
    .size = sizeof(struct vhd),
    .probe = vhd_probe,
    .open = vhd_open,
    .close = blkimg_close,
    .rw = blkimg_rw,
    .map = blkimg_map,
    .status = blkimg_status,
    .info = vhd_info,
    .cluster = vhd_cluster,
    .create = vhd_create,
    .create_opts = vhd_create_opts,
    .create_size = sizeof(struct vhd_create),
};
