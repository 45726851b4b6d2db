/*
 * Parallels' expandable images ["Parallels Expandable Image File Format", in QEMU's docs/interop/parallels.txt]: a
 * header of 64 bytes, after it the block table of 32-bit words, and clusters.  All little-endian.  A word says in which
 * sector ("WithoutFreeSpace") or at which cluster of the file ("WithouFreSpacExt") a cluster lies; 0: nowhere.
 */
#include <errno.h>
#include <inttypes.h>

#include "devices/block/blkimg.h"

enum {
    SECTOR = 512,
    HEADER = 64,
    VERSION = 2,
    CLUSTER_MAX = 1 << 30,
};

enum { /* offsets of fields */
       AT_VERSION = 16,
       AT_CLUSTER = 28,
       AT_ENTRIES = 32,
       AT_SECTORS = 36,
       AT_IN_USE = 44,
};
#define IN_USE 0x746f6e59u

static const char magic_sectors[] = "WithoutFreeSpace", magic_clusters[] = "WithouFreSpacExt";
enum { MAGIC = 16 };

struct parallels {
    struct blkimg im;
    uint32_t cluster, unit; /* bytes; of what the table's words count */
    bool in_use;
};

static bool parallels_probe(const uint8_t *head, size_t n, const uint8_t *tail)
{
    (void)tail;
    return n >= HEADER && (!memcmp(head, magic_sectors, MAGIC) || !memcmp(head, magic_clusters, MAGIC));
}

static int parallels_find(struct blkimg *im, uint64_t off, bool wait, struct blkimg_at *at)
{
    struct parallels *p = container_of(im, struct parallels, im);
    uint64_t in = off % p->cluster;
    uint8_t entry[4];
    int rc = blkimg_get(im, im->b.file, HEADER + off / p->cluster * sizeof(entry), entry, sizeof(entry), wait);

    if (rc)
        return rc;
    at->len = min_u64(at->len, p->cluster - in);
    at->place = get_le32(entry) ? BLK_AT : BLK_BACKING;
    at->file = im->b.file;
    at->off = (uint64_t)get_le32(entry) * p->unit + in;
    return 0;
}

static const char *parallels_flaw(struct blkimg *im, uint64_t allocated)
{
    (void)allocated;
    return container_of(im, struct parallels, im)->in_use ? "it was not closed properly" : NULL;
}

static const struct blkimg_ops parallels_ops = {.find = parallels_find, .flaw = parallels_flaw};

static int parallels_open(struct blk *b, const struct blk_open_opts *o, struct err *err)
{
    struct parallels *p = container_of(b, struct parallels, im.b);
    uint8_t h[HEADER];
    uint64_t sectors, cluster;
    uint32_t entries;
    bool ext;
    int rc = blkimg_init(&p->im, &parallels_ops, o, err);

    if (!rc)
        rc = blkimg_header(b, h, sizeof(h), 0, err);
    if (rc)
        return rc;
    if (!parallels_probe(h, sizeof(h), NULL))
        return blkimg_bad(b, err, "no signature");
    if (get_le32(h + AT_VERSION) != VERSION)
        return blkimg_refuse(b, err, "version %u of Parallels images is not known, only 2", get_le32(h + AT_VERSION));
    ext = !memcmp(h, magic_clusters, MAGIC);
    cluster = (uint64_t)get_le32(h + AT_CLUSTER) * SECTOR;
    entries = get_le32(h + AT_ENTRIES);
    sectors = ext ? get_le64(h + AT_SECTORS) : get_le32(h + AT_SECTORS);
    if (!cluster || cluster > CLUSTER_MAX)
        return blkimg_bad(b, err, "clusters of %" PRIu64 " bytes", cluster);
    if (!sectors || sectors > entries * (cluster / SECTOR))
        return blkimg_bad(b, err, "%u clusters for a disk of %" PRIu64 " sectors", entries, sectors);
    if (HEADER + (uint64_t)entries * sizeof(uint32_t) > b->file->lim.size)
        return blkimg_bad(b, err, "the file is cut short");
    p->cluster = (uint32_t)cluster;
    p->unit = ext ? p->cluster : SECTOR;
    p->in_use = get_le32(h + AT_IN_USE) == IN_USE;
    b->lim.size = sectors * SECTOR;
    return 0;
}

static json_t *parallels_info(struct blk *b)
{
    struct parallels *p = container_of(b, struct parallels, im.b);

    return json_pack("{s:I, s:b}", "cluster-size", (json_int_t)p->cluster, "not-closed", p->in_use);
}

static uint32_t parallels_cluster(struct blk *b)
{
    return container_of(b, struct parallels, im.b)->cluster;
}

static const char *const parallels_endings[] = {"hds", "hdd", NULL};
const struct blk_driver parallels_driver = {
    .name = "parallels",
    .summary = "Parallels disk image",
    .endings = parallels_endings,
    .size = sizeof(struct parallels),
    .probe = parallels_probe,
    .open = parallels_open,
    .close = blkimg_close,
    .rw = blkimg_rw,
    .map = blkimg_map,
    .status = blkimg_status,
    .check = blkimg_check,
    .info = parallels_info,
    .cluster = parallels_cluster,
};
