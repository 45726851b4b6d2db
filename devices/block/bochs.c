/*
 * Growing images of the Bochs emulator [Bochs developers' guide, "Harddisk Images"; iodev/hdimage/hdimage.h, struct
 * redolog_header_t]: a header, a catalog with a word for each extent, then extents in the order in which they were
 * first written, each a bitmap of its sectors and the sectors.  All little-endian.  Redologs of the kinds "Undoable"
 * and "Volatile" lie over a flat image that they do not name, and are refused.
 */
#include <errno.h>
#include <inttypes.h>

#include "devices/block/blkimg.h"

enum {
    SECTOR = 512,
    HEADER = 512,
    EXTENT_MAX = 1 << 30,
    CATALOG_MAX = 1 << 28, /* words; they are not kept in memory */
    VERSION_1 = 0x00010000,
    VERSION_2 = 0x00020000,
};

enum { /* offsets of fields */
       AT_TYPE = 32,
       AT_SUBTYPE = 48,
       AT_VERSION = 64,
       AT_HEADER = 68,
       AT_CATALOG = 72,
       AT_BITMAP = 76,
       AT_EXTENT = 80,
       AT_DISK_1 = 84,
       AT_DISK_2 = 88, /* after a time stamp */
};
#define ENTRY_NONE 0xffffffffu

static const char magic[] = "Bochs Virtual HD Image";

struct bochs {
    struct blkimg im;
    uint32_t extent, bitmap; /* bytes: of an extent's data, and of its bitmap in whole sectors */
    uint64_t catalog, data;  /* in the file */
};

static bool bochs_probe(const uint8_t *head, size_t n, const uint8_t *tail)
{
    (void)tail;
    return n >= HEADER && !memcmp(head, magic, sizeof(magic));
}

static int bochs_find(struct blkimg *im, uint64_t off, bool wait, struct blkimg_at *at)
{
    struct bochs *h = container_of(im, struct bochs, im);
    struct blk *file = im->b.file;
    uint64_t in = off % h->extent, sectors, place;
    uint8_t entry[4];
    bool set;
    int rc = blkimg_get(im, file, h->catalog + off / h->extent * sizeof(entry), entry, sizeof(entry), wait);

    if (rc)
        return rc;
    at->len = min_u64(at->len, h->extent - in);
    at->place = BLK_ZEROES;
    if (get_le32(entry) == ENTRY_NONE)
        return 0;
    place = h->data + (uint64_t)get_le32(entry) * (h->bitmap + (uint64_t)h->extent);
    sectors = (in + at->len - 1) / SECTOR - in / SECTOR + 1;
    rc = blkimg_bits(im, file, place, in / SECTOR, sectors, false, wait, &set, &sectors);
    if (rc)
        return rc;
    at->len = min_u64(at->len, sectors * SECTOR - in % SECTOR);
    if (set) {
        at->place = BLK_AT;
        at->file = file;
        at->off = place + h->bitmap + in;
    }
    return 0;
}

static const struct blkimg_ops bochs_ops = {.find = bochs_find};

static bool has_word(const uint8_t *field, const char *word)
{
    return !memcmp(field, word, strlen(word) + 1);
}

static int bochs_open(struct blk *b, const struct blk_open_opts *o, struct err *err)
{
    struct bochs *v = container_of(b, struct bochs, im.b);
    uint8_t h[HEADER];
    uint32_t version, entries, bitmap;
    uint64_t size;
    int rc = blkimg_init(&v->im, &bochs_ops, o, err);

    if (!rc)
        rc = blkimg_header(b, h, sizeof(h), 0, err);
    if (rc)
        return rc;
    version = get_le32(h + AT_VERSION);
    entries = get_le32(h + AT_CATALOG);
    bitmap = get_le32(h + AT_BITMAP);
    v->extent = get_le32(h + AT_EXTENT);
    v->catalog = get_le32(h + AT_HEADER);
    size = get_le64(h + (version == VERSION_1 ? AT_DISK_1 : AT_DISK_2));
    if (!bochs_probe(h, sizeof(h), NULL))
        return blkimg_bad(b, err, "no signature");
    if (version != VERSION_1 && version != VERSION_2)
        return blkimg_refuse(b, err, "version %#x of Bochs images is not known, only 0x10000 and 0x20000", version);
    if (!has_word(h + AT_TYPE, "Redolog") || !has_word(h + AT_SUBTYPE, "Growing"))
        return blkimg_refuse(b, err, "it is an undoable or volatile Bochs image; commit it to its base with: bximage");
    if (!is_pow2(v->extent) || v->extent < SECTOR || v->extent > EXTENT_MAX || bitmap < (v->extent / SECTOR + 7) / 8 ||
        bitmap > EXTENT_MAX)
        return blkimg_bad(b, err, "extents of %u bytes with bitmaps of %u", v->extent, bitmap);
    if (!size || !entries || entries > CATALOG_MAX || size > (uint64_t)entries * v->extent)
        return blkimg_bad(b, err, "%u extents for a disk of %" PRIu64 " bytes", entries, size);
    v->bitmap = (uint32_t)align_up(bitmap, SECTOR);
    v->data = v->catalog + (uint64_t)entries * sizeof(uint32_t);
    if (v->catalog < HEADER || v->data > b->file->lim.size)
        return blkimg_bad(b, err, "the file is cut short");
    b->lim.size = align_down(size, SECTOR);
    return b->lim.size ? 0 : blkimg_bad(b, err, "a disk of %" PRIu64 " bytes", size);
}

static json_t *bochs_info(struct blk *b)
{
    return json_pack("{s:s, s:I}", "subformat", "growing", "extent-size",
                     (json_int_t)container_of(b, struct bochs, im.b)->extent);
}

static uint32_t bochs_cluster(struct blk *b)
{
    return container_of(b, struct bochs, im.b)->extent;
}

static const char *const bochs_endings[] = {"bochs", NULL};
const struct blk_driver bochs_driver = {
    .name = "bochs",
    .summary = "Bochs growing disk image",
    .endings = bochs_endings,
    .size = sizeof(struct bochs),
    .probe = bochs_probe,
    .open = bochs_open,
    .close = blkimg_close,
    .rw = blkimg_rw,
    .map = blkimg_map,
    .status = blkimg_status,
    .info = bochs_info,
    .cluster = bochs_cluster,
};
