/*
 * VHDX, Hyper-V's virtual hard disk version 2 [MS-VHDX]: two headers of which the newer counts (2.2.2), two copies of a
 * table of regions (2.2.3), a log (2.3; vhdx_log.c), metadata items by GUID (2.6) and the block allocation table (2.5),
 * of 64-bit words: a state and a place in MiB.  After each `ratio` blocks' words, a chunk, the table has one for the
 * bitmap of its sectors (2.4), which only differencing images use: it says of blocks that are there in part which
 * sectors are, and which are the parent's (vhdx_parent.c).
 */
#include "devices/block/vhdx.h"

#include <inttypes.h>
#include <stdio.h>

#include "devices/block/blkimg.h"
#include "vmm/base/cleanup.h"

enum { /* 2.2: where things are, and what of them counts for their checksums */
       HEADER1 = 64 << 10,
       HEADER2 = 128 << 10,
       HEADER = 4096,
       REGIONS1 = 192 << 10,
       REGIONS2 = 256 << 10,
       REGIONS = 64 << 10,
       CRC = 4,
       TABLE_MAX = 2047, /* entries of a table of regions or of metadata */
       ENTRY = 32,       /* bytes of each, after as many of the table's own in metadata, and 16 in regions */
       MIB = 1 << 20,
};

enum { /* offsets of fields */
       HEADER_SEQUENCE = 8,
       HEADER_FILE_GUID = 16,
       HEADER_DATA_GUID = 32,
       HEADER_LOG_GUID = 48,
       HEADER_LOG_VERSION = 64,
       HEADER_VERSION = 66,
       HEADER_LOG_LENGTH = 68,
       HEADER_LOG_OFFSET = 72,
       REGIONS_COUNT = 8,
       REGIONS_FIRST = 16,
       REGION_OFFSET = 16,
       REGION_LENGTH = 24,
       REGION_REQUIRED = 28,
       ITEMS_COUNT = 10,
       ITEMS_FIRST = 32,
       ITEM_OFFSET = 16,
       ITEM_LENGTH = 20,
       ITEM_FLAGS = 24,
};

enum { ITEM_VIRTUAL_DISK = 2, ITEM_REQUIRED = 4 };
enum { PARAM_FIXED = 1, PARAM_HAS_PARENT = 2 };
enum { BLOCK_NONE = 0, BLOCK_UNMAPPED_MAX = 3, BLOCK_PRESENT = 6, BLOCK_PARTLY = 7, STATE_MASK = 7 }; /* 2.5.1 */

static const uint8_t region_bat[16] = {0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42,
                                       0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08};
static const uint8_t region_metadata[16] = {0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b,
                                            0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e};

enum item { ITEM_PARAMETERS, ITEM_SIZE, ITEM_ID, ITEM_LOGICAL, ITEM_PHYSICAL, ITEM_PARENT, ITEM_MAX };
static const struct {
    uint8_t guid[16];
    uint32_t len; /* 0: any */
    uint32_t flags;
} items[] = {
    /* 2.6.2 */
    [ITEM_PARAMETERS] = {{0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7,
                          0x6b},
                         8,
                         ITEM_REQUIRED},
    [ITEM_SIZE] = {{0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8},
                   8,
                   ITEM_REQUIRED | ITEM_VIRTUAL_DISK},
    [ITEM_ID] = {{0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45, 0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46},
                 16,
                 ITEM_REQUIRED | ITEM_VIRTUAL_DISK},
    [ITEM_LOGICAL] = {{0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47, 0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f},
                      4,
                      ITEM_REQUIRED | ITEM_VIRTUAL_DISK},
    [ITEM_PHYSICAL] = {{0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44, 0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56},
                       4,
                       ITEM_REQUIRED | ITEM_VIRTUAL_DISK},
    [ITEM_PARENT] = {{0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c},
                     0,
                     0},
};
static_assert(array_len(items) == ITEM_MAX, "items");

struct region {
    uint64_t off;
    uint32_t len; /* 0: not there */
};

struct vhdx {
    struct blkimg im;
    uint32_t block, ratio, sector; /* bytes; blocks of a chunk; bytes */
    bool fixed, replayed, differs; /* differs: from its parent */
    uint8_t data_guid[16];         /* another one after each change of what is on the disk */
    struct region bat, metadata, locator;
    struct vhdx_log log;
    struct vhdx_parent parent; /* differs */
};

static struct vhdx *vhdx_of(struct blkimg *im)
{
    return container_of(im, struct vhdx, im);
}

static bool vhdx_probe(const uint8_t *head, size_t n, const uint8_t *tail)
{
    (void)tail;
    return n >= 8 && !memcmp(head, "vhdxfile", 8);
}

/* ---- Blocks. ---- */

static uint64_t entry_off(const struct vhdx *v, uint64_t off)
{
    uint64_t n = off / v->block;

    return v->bat.off + (n + n / v->ratio) * sizeof(uint64_t);
}

/* The entry of the table at `off` of the file: its state, and the place that it names. */
static int read_entry(struct vhdx *v, uint64_t off, bool wait, unsigned *state, uint64_t *place)
{
    uint8_t raw[8];
    int rc = blkimg_get(&v->im, v->im.b.file, off, raw, sizeof(raw), wait);

    if (rc)
        return rc;
    *state = get_le64(raw) & STATE_MASK;
    *place = get_le64(raw) >> 20 << 20; /* 44 bits of MiB */
    return 0;
}

/* *partly: only of some sectors what find_block() says is true. */
static int find_block(struct vhdx *v, uint64_t off, bool wait, struct blkimg_at *at, bool *partly)
{
    uint64_t in = off % v->block, place;
    unsigned state;
    int rc = read_entry(v, entry_off(v, off), wait, &state, &place);

    if (rc)
        return rc;
    *partly = state == BLOCK_PARTLY;
    at->len = min_u64(at->len, v->block - in);
    at->fixed = v->fixed;
    at->file = v->im.b.file;
    at->off = place + in;
    if (state == BLOCK_NONE && v->differs)
        at->place = BLK_BACKING;
    else if (state <= BLOCK_UNMAPPED_MAX)
        at->place = BLK_ZEROES;
    else if ((state == BLOCK_PRESENT || (*partly && v->differs)) && place <= (uint64_t)INT64_MAX - v->block)
        at->place = BLK_AT;
    else
        return -EIO;
    return 0;
}

static uint64_t bitmap_entry(const struct vhdx *v, uint64_t chunk)
{
    return v->bat.off + (chunk * (v->ratio + 1) + v->ratio) * sizeof(uint64_t);
}

static int find_sectors(struct vhdx *v, uint64_t off, bool wait, struct blkimg_at *at)
{
    uint64_t chunk = (uint64_t)v->block * v->ratio, in = off % v->sector, bitmap, n;
    unsigned state;
    bool set;
    int rc = read_entry(v, bitmap_entry(v, off / chunk), wait, &state, &bitmap);

    if (rc || state != BLOCK_PRESENT)
        return rc ? rc : -EIO;
    n = (in + at->len - 1) / v->sector + 1;
    rc = blkimg_bits(&v->im, at->file, bitmap, off % chunk / v->sector, n, false, wait, &set, &n);
    if (rc)
        return rc;
    at->len = min_u64(at->len, n * v->sector - in);
    at->place = set ? BLK_AT : BLK_BACKING;
    return 0;
}

static int vhdx_find(struct blkimg *im, uint64_t off, bool wait, struct blkimg_at *at)
{
    bool partly;
    int rc = find_block(vhdx_of(im), off, wait, at, &partly);

    return !rc && partly ? find_sectors(vhdx_of(im), off, wait, at) : rc;
}

static int vhdx_alloc(struct blkimg *im, uint64_t off)
{
    struct vhdx *v = vhdx_of(im);
    uint8_t raw[8];

    put_le64(raw, blkimg_extend(im, v->block, MIB) | BLOCK_PRESENT);
    return blkimg_put(im, im->b.file, entry_off(v, off), raw, sizeof(raw));
}

/* ---- Checking. ---- */

static int vhdx_block(struct blkimg *im, uint64_t off, struct blkimg_at *at, uint64_t *len)
{
    bool partly;

    *len = min_u64(at->len, vhdx_of(im)->block);
    return find_block(vhdx_of(im), off, true, at, &partly);
}

static int check_bitmaps(struct vhdx *v, struct blkimg_check *c)
{
    uint64_t chunk = (uint64_t)v->block * v->ratio, place;
    unsigned state;
    int rc = 0;

    for (uint64_t n = 0; n * chunk < v->im.b.lim.size && !rc; n++) {
        if (read_entry(v, bitmap_entry(v, n), true, &state, &place))
            blkimg_check_corrupt(c, "where sector bitmap %" PRIu64 " lies cannot be told", n);
        else if (state == BLOCK_PRESENT)
            rc = blkimg_check_use(c, v->im.b.file, place, MIB, "a sector bitmap");
    }
    return rc;
}

static int vhdx_tables(struct blkimg *im, struct blkimg_check *c)
{
    struct vhdx *v = vhdx_of(im);
    int rc = blkimg_check_use(c, im->b.file, 0, MIB, "the header");

    if (!rc)
        rc = blkimg_check_use(c, im->b.file, v->bat.off, v->bat.len, "the block table");
    if (!rc)
        rc = blkimg_check_use(c, im->b.file, v->metadata.off, v->metadata.len, "the metadata");
    if (!rc && v->log.len)
        rc = blkimg_check_use(c, im->b.file, v->log.off, v->log.len, "the log");
    return !rc && v->differs ? check_bitmaps(v, c) : rc;
}

static const struct blkimg_ops vhdx_ops = {
    .find = vhdx_find, .alloc = vhdx_alloc, .block = vhdx_block, .tables = vhdx_tables};

/* ---- Opening. ---- */

/* The newer of the two headers, of those that are valid. */
static int read_headers(struct vhdx *v, struct err *err)
{
    uint8_t h[HEADER];
    uint64_t newest = 0;
    uint32_t version = 0;
    bool any = false;

    for (uint64_t at = HEADER1; at <= HEADER2; at += HEADER2 - HEADER1) {
        int rc = blkimg_header(&v->im.b, h, sizeof(h), at, err);

        if (rc)
            return rc;
        if (memcmp(h, "head", 4) || vhdx_crc(h, sizeof(h), CRC) != get_le32(h + CRC) ||
            (any && get_le64(h + HEADER_SEQUENCE) < newest))
            continue;
        any = true;
        newest = get_le64(h + HEADER_SEQUENCE);
        version = get_le16(h + HEADER_VERSION) | (uint32_t)get_le16(h + HEADER_LOG_VERSION) << 16;
        memcpy(v->data_guid, h + HEADER_DATA_GUID, sizeof(v->data_guid));
        memcpy(v->log.guid, h + HEADER_LOG_GUID, sizeof(v->log.guid));
        v->log.off = get_le64(h + HEADER_LOG_OFFSET);
        v->log.len = get_le32(h + HEADER_LOG_LENGTH);
    }
    if (!any)
        return blkimg_bad(&v->im.b, err, "neither of its two headers is valid");
    if (version != 1)
        return blkimg_refuse(&v->im.b, err, "VHDX version %u with log version %u is not known, only 1 and 0",
                             version & 0xffff, version >> 16);
    return 0;
}

static int read_regions_at(struct vhdx *v, uint64_t at, struct err *err)
{
    cleanup_free uint8_t *t = xcalloc(1, REGIONS);
    int rc = blkimg_header(&v->im.b, t, REGIONS, at, err);
    uint32_t n = get_le32(t + REGIONS_COUNT);

    if (rc)
        return rc;
    if (memcmp(t, "regi", 4) || vhdx_crc(t, REGIONS, CRC) != get_le32(t + CRC) || n > TABLE_MAX)
        return blkimg_bad(&v->im.b, err, "its table of regions is not valid");
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *e = t + REGIONS_FIRST + (size_t)i * ENTRY;
        struct region r = {get_le64(e + REGION_OFFSET), get_le32(e + REGION_LENGTH)};

        if (r.off % MIB || r.off < MIB || r.len % MIB || !r.len || !range_fits(r.off, r.len, INT64_MAX))
            return blkimg_bad(&v->im.b, err, "a region of %u bytes at %" PRIu64, r.len, r.off);
        if (!memcmp(e, region_bat, sizeof(region_bat)))
            v->bat = r;
        else if (!memcmp(e, region_metadata, sizeof(region_metadata)))
            v->metadata = r;
        else if (get_le32(e + REGION_REQUIRED) & 1)
            return blkimg_refuse(&v->im.b, err, "it has a region that must be known to read it, and is not");
    }
    if (!v->bat.len || !v->metadata.len)
        return blkimg_bad(&v->im.b, err, "it has no block table or no metadata");
    return 0;
}

static int read_regions(struct vhdx *v, struct err *err)
{
    return read_regions_at(v, REGIONS1, err) ? read_regions_at(v, REGIONS2, err) : 0;
}

static int which_item(const uint8_t *guid)
{
    int i = 0;

    while (i < ITEM_MAX && memcmp(guid, items[i].guid, sizeof(items[i].guid)) != 0)
        i++;
    return i;
}

/* The items' values; *found: which there are, a bit each. */
static int read_items(struct vhdx *v, uint8_t value[ITEM_MAX][16], unsigned *found, struct err *err)
{
    cleanup_free uint8_t *t = xcalloc(1, REGIONS);
    int rc = blkimg_header(&v->im.b, t, REGIONS, v->metadata.off, err);
    uint32_t n = get_le16(t + ITEMS_COUNT);

    if (rc)
        return rc;
    if (memcmp(t, "metadata", 8) || n > TABLE_MAX)
        return blkimg_bad(&v->im.b, err, "its table of metadata is not valid");
    for (uint32_t i = 0; i < n && !rc; i++) {
        const uint8_t *e = t + ITEMS_FIRST + (size_t)i * ENTRY;
        uint32_t off = get_le32(e + ITEM_OFFSET), len = get_le32(e + ITEM_LENGTH);
        int item = which_item(e);

        if (item == ITEM_MAX) {
            if (get_le32(e + ITEM_FLAGS) & ITEM_REQUIRED)
                return blkimg_refuse(&v->im.b, err,
                                     "it has an item of metadata that must be known to read it, and is not");
            continue;
        }
        *found |= 1u << item;
        if (item == ITEM_PARENT && range_fits(off, len, v->metadata.len))
            v->locator = (struct region){v->metadata.off + off, len};
        if (items[item].len && (len != items[item].len || off < REGIONS || !range_fits(off, len, v->metadata.len)))
            return blkimg_bad(&v->im.b, err, "an item of %u bytes at %u of its metadata", len, off);
        if (items[item].len)
            rc = blkimg_header(&v->im.b, value[item], len, v->metadata.off + off, err);
    }
    return rc;
}

static int check_geometry(struct vhdx *v, uint32_t sector, struct err *err)
{
    uint64_t size = v->im.b.lim.size, blocks, entries;

    if (sector != 512 && sector != 4096)
        return blkimg_bad(&v->im.b, err, "sectors of %u bytes", sector);
    if (!is_pow2(v->block) || v->block < MIB || v->block > 256 * MIB)
        return blkimg_bad(&v->im.b, err, "blocks of %u bytes", v->block);
    if (!size || size % sector || size > (uint64_t)64 << 40) /* 2.6.2.2 */
        return blkimg_bad(&v->im.b, err, "a disk of %" PRIu64 " bytes", size);
    v->sector = sector;
    v->ratio = (uint32_t)(((uint64_t)sector << 23) / v->block); /* 2.5 */
    blocks = (size + v->block - 1) / v->block;
    entries = blocks + (blocks - 1) / v->ratio;
    if (v->differs)
        entries = ((blocks - 1) / v->ratio + 1) * (v->ratio + 1);
    if (entries * sizeof(uint64_t) > v->bat.len)
        return blkimg_bad(&v->im.b, err, "a block table of %u bytes for %" PRIu64 " blocks", v->bat.len, blocks);
    return 0;
}

static int read_metadata(struct vhdx *v, struct err *err)
{
    const unsigned needed = 1u << ITEM_PARAMETERS | 1u << ITEM_SIZE | 1u << ITEM_LOGICAL;
    uint8_t value[ITEM_MAX][16] = {0};
    unsigned found = 0;
    int rc = read_items(v, value, &found, err);

    if (rc)
        return rc;
    if ((found & needed) != needed)
        return blkimg_bad(&v->im.b, err, "its metadata lacks the size of its disk, blocks or sectors");
    v->differs = get_le32(value[ITEM_PARAMETERS] + 4) & PARAM_HAS_PARENT;
    v->fixed = !v->differs && get_le32(value[ITEM_PARAMETERS] + 4) & PARAM_FIXED;
    v->block = get_le32(value[ITEM_PARAMETERS]);
    v->im.b.lim.size = get_le64(value[ITEM_SIZE]);
    return check_geometry(v, get_le32(value[ITEM_LOGICAL]), err);
}

static int open_parent(struct vhdx *v, const struct blk_open_opts *o, struct err *err)
{
    struct blk *b = &v->im.b;
    const struct vhdx *p;
    int rc = vhdx_parent_read(b, v->locator.off, v->locator.len, &v->parent, err);

    if (!rc && !o->no_backing)
        rc = blk_open_named(b, v->parent.name, b->drv->name, false, o, &b->backing, err);
    if (rc || o->no_backing)
        return rc;
    p = container_of(b->backing, struct vhdx, im.b);
    if (!vhdx_parent_is(&v->parent, p->data_guid))
        return blkimg_bad(b, err, "%s is not the parent that it was made from, or was written to since",
                          b->backing->name);
    if (p->sector != v->sector)
        return blkimg_bad(b, err, "its parent has sectors of %u bytes, it itself of %u", p->sector, v->sector);
    return 0;
}

static int vhdx_open(struct blk *b, const struct blk_open_opts *o, struct err *err)
{
    static const uint8_t none[16];
    struct vhdx *v = container_of(b, struct vhdx, im.b);
    uint8_t magic[8];
    int rc = blkimg_init(&v->im, &vhdx_ops, o, err);

    if (!rc)
        rc = blkimg_header(b, magic, sizeof(magic), 0, err);
    if (!rc && memcmp(magic, "vhdxfile", 8) != 0)
        rc = blkimg_bad(b, err, "no signature");
    if (!rc)
        rc = read_headers(v, err);
    if (!rc && memcmp(v->log.guid, none, sizeof(none)) != 0) {
        rc = vhdx_replay(b, &v->log, err);
        v->replayed = !rc;
    }
    if (!rc)
        rc = read_regions(v, err);
    if (!rc)
        rc = read_metadata(v, err);
    if (!rc && v->differs)
        rc = open_parent(v, o, err);
    v->im.end = align_up(b->file->lim.size, MIB);
    return rc;
}

static json_t *vhdx_info(struct blk *b)
{
    struct vhdx *v = container_of(b, struct vhdx, im.b);

    json_t *j = json_pack("{s:s, s:I, s:b}", "subformat",
                          v->differs ? "differencing"
                          : v->fixed ? "fixed"
                                     : "dynamic",
                          "block-size", (json_int_t)v->block, "log-to-write-back", v->replayed);

    if (v->differs)
        json_object_set_new(j, "backing-filename", json_string(v->parent.name));
    return j;
}

static uint32_t vhdx_cluster(struct blk *b)
{
    return container_of(b, struct vhdx, im.b)->block;
}

/* ---- New images. ---- */

static const char *const subformats[] = {"dynamic", "fixed", NULL};
enum { DYNAMIC, FIXED };

struct vhdx_create {
    uint32_t subformat;
    uint64_t block;
};

static const struct opt vhdx_create_opts[] = {
    O_ENUM(struct vhdx_create, subformat, "subformat", "dynamic", subformats,
           "whether blocks get a place when first written"),
    O_SIZE(struct vhdx_create, block, "block_size", "0", 0, 256 * MIB,
           "bytes that are allocated at a time, a power of two from 1M; 0: by the disk's size"),
    O_END,
};

enum { NEW_LOG = MIB, NEW_METADATA = 2 * MIB, NEW_BAT = 3 * MIB, SECTOR = 512 };

static int write_header(struct blk *file, uint64_t at, uint64_t sequence)
{
    uint8_t h[HEADER] = "head";

    put_le64(h + HEADER_SEQUENCE, sequence);
    blkimg_uuid(h + HEADER_FILE_GUID);
    blkimg_uuid(h + HEADER_DATA_GUID);
    put_le16(h + HEADER_VERSION, 1);
    put_le32(h + HEADER_LOG_LENGTH, MIB);
    put_le64(h + HEADER_LOG_OFFSET, NEW_LOG);
    put_le32(h + CRC, vhdx_crc(h, sizeof(h), CRC));
    return blk_pwrite(file, h, sizeof(h), at);
}

static void put_region(uint8_t *e, const uint8_t guid[16], uint64_t off, uint32_t len)
{
    memcpy(e, guid, 16);
    put_le64(e + REGION_OFFSET, off);
    put_le32(e + REGION_LENGTH, len);
    put_le32(e + REGION_REQUIRED, 1);
}

static int write_regions(struct blk *file, uint32_t bat_len)
{
    cleanup_free uint8_t *t = xcalloc(1, REGIONS);
    int rc;

    memcpy(t, "regi", 4);
    put_le32(t + REGIONS_COUNT, 2);
    put_region(t + REGIONS_FIRST, region_bat, NEW_BAT, bat_len);
    put_region(t + REGIONS_FIRST + ENTRY, region_metadata, NEW_METADATA, MIB);
    put_le32(t + CRC, vhdx_crc(t, REGIONS, CRC));
    rc = blk_pwrite(file, t, REGIONS, REGIONS1);
    return rc ? rc : blk_pwrite(file, t, REGIONS, REGIONS2);
}

static int write_metadata(struct blk *file, uint64_t size, uint32_t block, bool fixed)
{
    cleanup_free uint8_t *t = xcalloc(1, REGIONS + HEADER);
    uint8_t value[ITEM_MAX][16] = {0};
    uint32_t off = REGIONS;

    put_le32(value[ITEM_PARAMETERS], block);
    put_le32(value[ITEM_PARAMETERS] + 4, fixed ? PARAM_FIXED : 0);
    put_le64(value[ITEM_SIZE], size);
    blkimg_uuid(value[ITEM_ID]);
    put_le32(value[ITEM_LOGICAL], SECTOR);
    put_le32(value[ITEM_PHYSICAL], SECTOR);
    memcpy(t, "metadata", 8);
    put_le16(t + ITEMS_COUNT, ITEM_PARENT);
    for (unsigned i = 0; i < ITEM_PARENT; i++) { /* all but that */
        uint8_t *e = t + ITEMS_FIRST + (size_t)i * ENTRY;

        memcpy(e, items[i].guid, sizeof(items[i].guid));
        put_le32(e + ITEM_OFFSET, off);
        put_le32(e + ITEM_LENGTH, items[i].len);
        put_le32(e + ITEM_FLAGS, items[i].flags);
        memcpy(t + off, value[i], items[i].len);
        off += 16;
    }
    return blk_pwrite(file, t, REGIONS + HEADER, NEW_METADATA);
}

/* Of fixed images: every block in its place. */
static int write_bat(struct blk *file, uint64_t nblocks, uint32_t block, uint64_t data)
{
    const uint64_t ratio = ((uint64_t)SECTOR << 23) / block;
    uint8_t buf[4096];
    uint64_t off = NEW_BAT, n = 0;
    int rc = 0;

    while (n < nblocks && !rc) {
        size_t len = 0;

        memset(buf, 0, sizeof(buf));
        for (; len < sizeof(buf) && n < nblocks; len += 8) {
            uint64_t index = (off + len - NEW_BAT) / 8;

            if (index % (ratio + 1) == ratio)
                continue; /* a bitmap's */
            put_le64(buf + len, (data + n * block) | BLOCK_PRESENT);
            n++;
        }
        rc = blk_pwrite(file, buf, len, off);
        off += len;
    }
    return rc;
}

static uint32_t block_for(uint64_t size)
{
    static const struct {
        uint64_t above;
        uint32_t block;
    } sizes[] = {{GiB(32 << 10), 64 * MIB}, {GiB(100), 32 * MIB}, {GiB(1), 16 * MIB}, {0, 8 * MIB}};
    unsigned i = 0;

    while (size < sizes[i].above)
        i++;
    return sizes[i].block;
}

static int vhdx_create(struct blk *file, uint64_t size, const void *opts, const struct blk_keys *keys, struct err *err)
{
    const struct vhdx_create *c = opts;
    uint32_t block = c->block ? (uint32_t)c->block : block_for(size);
    uint64_t ratio, nblocks, bat_len, data;
    bool fixed = c->subformat == FIXED;
    uint8_t id[HEADER] = "vhdxfile", zero = 0;
    static const char creator[] = "bothy";
    int rc = blkimg_may_make(file, err);

    (void)keys;
    if (rc)
        return rc;
    if (!is_pow2(block) || block < MIB)
        return err_set(err, EINVAL, "block_size: %u is no power of two from 1M to 256M", block);
    if (!size || size > (uint64_t)64 << 40)
        return err_set(err, EFBIG, "a VHDX image holds 512 bytes to 64 TiB, not %" PRIu64 " bytes", size);
    size = align_up(size, SECTOR);
    ratio = ((uint64_t)SECTOR << 23) / block;
    nblocks = (size + block - 1) / block;
    bat_len = align_up((nblocks + (nblocks - 1) / ratio) * sizeof(uint64_t), MIB);
    data = NEW_BAT + bat_len;
    for (size_t i = 0; i < sizeof(creator); i++)
        id[8 + 2 * i] = (uint8_t)creator[i]; /* UTF-16 */
    rc = blk_pwrite(file, id, sizeof(id), 0);
    if (!rc)
        rc = write_header(file, HEADER1, 1);
    if (!rc)
        rc = write_header(file, HEADER2, 2);
    if (!rc)
        rc = write_regions(file, (uint32_t)bat_len);
    if (!rc)
        rc = write_metadata(file, size, block, fixed);
    if (!rc && fixed)
        rc = write_bat(file, nblocks, block, data);
    if (!rc)
        rc = blk_pwrite(file, &zero, 1, data + (fixed ? nblocks * block : 0) - 1);
    return rc ? err_set(err, -rc, "write: %s", strerror(-rc)) : 0;
}

static const char *const vhdx_endings[] = {"vhdx", NULL};
const struct blk_driver vhdx_driver = {
    .name = "vhdx",
    .summary = "Hyper-V disk image",
    .endings = vhdx_endings,
    .size = sizeof(struct vhdx),
    .probe = vhdx_probe,
    .open = vhdx_open,
    .close = blkimg_close,
    .rw = blkimg_rw,
    .map = blkimg_map,
    .status = blkimg_status,
    .check = blkimg_check,
    .info = vhdx_info,
    .cluster = vhdx_cluster,
    .create = vhdx_create,
    .create_opts = vhdx_create_opts,
    .create_size = sizeof(struct vhdx_create),
};
