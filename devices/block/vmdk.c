/*
 * VMDK, VMware's virtual disks [VMware, "Virtual Disk Format 5.0"]: a descriptor in text (vmdk_desc.c) lists extents
 * that lie one after the other on the disk, each in a file of its own; or the one file of the disk is a sparse extent
 * with the descriptor inside.
 *
 * A hosted sparse extent ("Hosted Sparse Extents") keeps grains, mostly of 64 KiB, by a grain directory of the sectors
 * of grain tables of the sectors of grains; 0 stands for none, 1 for zeroes where a flag says so.  Stream-optimised
 * extents ("Stream-Optimized Compressed Sparse Extents") hold each grain deflated, after a marker that says how long
 * that is; their directory may be named by a footer only.
 *
 * Sparse extents of old ESX servers (COWD, SESPARSE) are refused.
 */
#include "devices/block/vmdk.h"

#include <inttypes.h>
#include <zlib.h>

#include "vmm/base/cleanup.h"

enum {
    DESC_MAX = 1 << 20, /* of a descriptor's text */
    GTE_MAX = 512,
    FOOTER_FROM_END = 1024, /* before it its marker, after it the end's */
    ENTRY_NONE = 0,
    ENTRY_ZEROES = 1,
};
#define GD_AT_END UINT64_MAX

static const char magic_sparse[4] = "KDMV";
static const char magic_text[] = "# Disk DescriptorFile";

static bool vmdk_probe(const uint8_t *head, size_t n, const uint8_t *tail)
{
    (void)tail;
    return (n >= 4 && !memcmp(head, magic_sparse, 4)) ||
           (n >= sizeof(magic_text) && !memcmp(head, magic_text, sizeof(magic_text) - 1));
}

/* ---- Finding. ---- */

static const struct vmdk_extent *extent_at(const struct vmdk *v, uint64_t off)
{
    unsigned lo = 0, hi = v->nextents;

    while (hi - lo > 1) {
        unsigned mid = lo + (hi - lo) / 2;

        if (v->extents[mid].start <= off)
            lo = mid;
        else
            hi = mid;
    }
    return &v->extents[lo];
}

int vmdk_entry(struct blkimg *im, const struct vmdk_extent *e, uint64_t gd, uint64_t off, bool wait, uint64_t *ret)
{
    uint64_t n = off / e->grain;
    uint8_t table[4];
    int rc = blkimg_get(im, e->file, gd + n / e->ngte * sizeof(table), table, sizeof(table), wait);

    if (!rc)
        *ret = get_le32(table) ? (uint64_t)get_le32(table) * VMDK_SECTOR + n % e->ngte * sizeof(uint32_t) : 0;
    return rc;
}

static int find_grain(struct blkimg *im, const struct vmdk_extent *e, uint64_t off, bool wait, struct blkimg_at *at)
{
    uint64_t in = off % e->grain, table = (uint64_t)e->grain * e->ngte, place;
    uint8_t raw[4] = {ENTRY_NONE};
    int rc = vmdk_entry(im, e, e->gd, off, wait, &place);

    if (!rc && place)
        rc = blkimg_get(im, e->file, place, raw, sizeof(raw), wait);
    if (rc)
        return rc;
    at->place = BLK_BACKING;
    if (!place) {
        at->len = min_u64(at->len, table - off % table);
        return 0;
    }
    at->len = min_u64(at->len, e->grain - in);
    if (get_le32(raw) == ENTRY_NONE)
        return 0;
    if (get_le32(raw) == ENTRY_ZEROES && e->zeroed) {
        at->place = BLK_ZEROES;
        return 0;
    }
    at->place = BLK_AT;
    at->compressed = e->compressed;
    at->off = (uint64_t)get_le32(raw) * VMDK_SECTOR + (e->compressed ? 0 : in);
    return 0;
}

static int vmdk_find(struct blkimg *im, uint64_t off, bool wait, struct blkimg_at *at)
{
    const struct vmdk_extent *e = extent_at(vmdk_of(&im->b), off);
    uint64_t in = off - e->start;

    at->len = min_u64(at->len, e->len - in);
    at->file = e->file;
    switch (e->kind) {
    case VMDK_ZERO:
        at->place = BLK_ZEROES;
        return 0;
    case VMDK_FLAT:
        at->place = BLK_AT;
        at->fixed = true;
        at->off = e->off + in;
        return 0;
    case VMDK_SPARSE:
        return find_grain(im, e, in, wait, at);
    }
    return -EIO;
}

/* ---- Compressed grains. ---- */

/* How many bytes of deflated data there are at *off, past the marker. */
static int deflated_len(const struct blkimg *im, const struct vmdk_extent *e, uint64_t *off, uint32_t *ret)
{
    const uint32_t max = e->grain * 2; /* what does not compress becomes a little longer */
    uint8_t marker[VMDK_MARKER];
    int rc;

    if (!e->markers) {
        if (!blkimg_fits(im, e->file, *off, 1))
            return -EIO;
        *ret = im->fresh ? max : (uint32_t)min_u64(max, e->file->lim.size - *off);
        return 0;
    }
    if (!blkimg_fits(im, e->file, *off, VMDK_MARKER))
        return -EIO;
    rc = blk_pread(e->file, marker, VMDK_MARKER, *off);
    if (rc)
        return rc;
    *off += VMDK_MARKER;
    *ret = get_le32(marker + 8);
    return *ret && *ret <= max && blkimg_fits(im, e->file, *off, *ret) ? 0 : -EIO;
}

/* The grain at `off` of the extent's file, *len bytes of it.  The caller frees it. */
static int inflate_grain(const struct blkimg *im, const struct vmdk_extent *e, uint64_t off, uint8_t **ret,
                         uint32_t *len)
{
    cleanup_free uint8_t *in = NULL, *out = malloc(e->grain);
    uLongf n = e->grain;
    uint32_t have;
    int rc = out ? deflated_len(im, e, &off, &have) : -ENOMEM;

    if (rc)
        return rc;
    in = malloc(have);
    rc = in ? blk_pread(e->file, in, have, off) : -ENOMEM;
    if (rc)
        return rc;
    if (uncompress(out, &n, in, have) != Z_OK)
        return -EIO;
    *len = (uint32_t)n;
    *ret = take_ptr(out);
    return 0;
}

static int vmdk_read(struct blkimg *im, const struct blkimg_at *at, const struct blk_io *io, uint64_t skip, uint64_t n)
{
    struct vmdk *v = vmdk_of(&im->b);
    const struct vmdk_extent *e = extent_at(v, io->off + skip);
    uint64_t in = (io->off + skip - e->start) % e->grain;
    cleanup_free uint8_t *grain = NULL;
    uint32_t len;
    int rc;

    pthread_mutex_lock(&v->inflated);
    if (v->grain && v->grain_file == e->file && v->grain_off == at->off && range_fits(in, n, v->grain_len)) {
        iov_put(io->iov, skip, v->grain + in, n);
        pthread_mutex_unlock(&v->inflated);
        return 0;
    }
    pthread_mutex_unlock(&v->inflated);
    rc = inflate_grain(im, e, at->off, &grain, &len);
    if (rc || !range_fits(in, n, len))
        return rc ? rc : -EIO;
    iov_put(io->iov, skip, grain + in, n);
    pthread_mutex_lock(&v->inflated);
    free(v->grain);
    v->grain = take_ptr(grain);
    v->grain_file = e->file;
    v->grain_off = at->off;
    v->grain_len = len;
    pthread_mutex_unlock(&v->inflated);
    return 0;
}

/* ---- Checking. ---- */

static int vmdk_block(struct blkimg *im, uint64_t off, struct blkimg_at *at, uint64_t *len)
{
    const struct vmdk_extent *e = extent_at(vmdk_of(&im->b), off);
    uint64_t data;
    uint32_t n;
    int rc = vmdk_find(im, off, true, at);

    *len = rc ? min_u64(e->grain, e->start + e->len - off) : at->len; /* nothing fails but grains */
    if (rc || at->place != BLK_AT || !at->compressed)
        return rc;
    data = at->off;
    at->len = 1; /* without markers nothing says how long it is */
    rc = e->markers ? deflated_len(im, e, &data, &n) : 0;
    if (e->markers && !rc)
        at->len = data + n - at->off;
    return rc;
}

/* The grain table of the extent's part `n` by one of its directories, in bytes of the file; 0: none. */
static int table_of(struct blkimg_check *c, struct blkimg *im, const struct vmdk_extent *e, uint64_t gd, uint64_t n,
                    uint64_t *ret)
{
    uint64_t disk = n * e->ngte * e->grain;
    int rc = vmdk_entry(im, e, gd, disk, true, ret);

    return rc || !*ret ? rc : blkimg_check_use(c, e->file, *ret, (uint64_t)e->ngte * sizeof(uint32_t), "a grain table");
}

/* The tables that the directories name, which are to say the same. */
static int check_table(struct blkimg_check *c, struct blkimg *im, const struct vmdk_extent *e, uint64_t n)
{
    uint8_t table[GTE_MAX * sizeof(uint32_t)], copy[sizeof(table)];
    size_t bytes = e->ngte * sizeof(uint32_t);
    uint64_t at, copy_at;
    int rc = table_of(c, im, e, e->gd, n, &at);

    if (rc || !e->rgd || !blkimg_fits(im, e->file, e->rgd, e->ntables * sizeof(uint32_t)))
        return rc;
    rc = table_of(c, im, e, e->rgd, n, &copy_at);
    if (rc || (!at && !copy_at))
        return rc;
    if (!at != !copy_at)
        blkimg_check_corrupt(c, "only one of the two directories has grain table %" PRIu64, n);
    else if (!blkimg_get(im, e->file, at, table, bytes, true) && !blkimg_get(im, e->file, copy_at, copy, bytes, true) &&
             memcmp(table, copy, bytes))
        blkimg_check_corrupt(c, "grain table %" PRIu64 " and its copy differ", n);
    return 0;
}

static int check_extent(struct blkimg_check *c, struct blkimg *im, const struct vmdk_extent *e)
{
    uint64_t bytes = e->ntables * sizeof(uint32_t);
    int rc = blkimg_check_use(c, e->file, 0, VMDK_HEADER, "the header");

    if (!rc && e->ndesc)
        rc = blkimg_check_use(c, e->file, e->desc, e->ndesc, "the descriptor");
    if (!rc)
        rc = blkimg_check_use(c, e->file, e->gd, bytes, "the grain directory");
    if (!rc && e->rgd)
        rc = blkimg_check_use(c, e->file, e->rgd, bytes, "the grain directory's copy");
    for (uint64_t n = 0; n < e->ntables && !rc; n++)
        rc = check_table(c, im, e, n);
    return rc;
}

static int vmdk_tables(struct blkimg *im, struct blkimg_check *c)
{
    const struct vmdk *v = vmdk_of(&im->b);
    int rc = 0;

    for (unsigned i = 0; i < v->nextents && !rc; i++)
        rc = v->extents[i].kind == VMDK_SPARSE ? check_extent(c, im, &v->extents[i]) : 0;
    return rc;
}

static const struct blkimg_ops vmdk_ops = {.find = vmdk_find,
                                           .read = vmdk_read,
                                           .alloc = vmdk_alloc,
                                           .finish = vmdk_finish,
                                           .block = vmdk_block,
                                           .tables = vmdk_tables};

static int vmdk_rw(struct blk *b, const struct blk_io *io)
{
    struct vmdk *v = vmdk_of(b);
    bool writes = io->op == BLK_WRITE || io->op == BLK_ZERO;

    return writes && v->extents[0].compressed ? vmdk_write_stream(b, io) : blkimg_rw(b, io);
}

/* ---- Opening. ---- */

/* A sparse extent's header, or its footer where that has the directory. */
static int read_header(struct blk *b, struct blk *file, uint8_t h[VMDK_HEADER], struct err *err)
{
    uint64_t off = 0;

    for (unsigned i = 0; i < 2; i++) {
        if (!range_fits(off, VMDK_HEADER, file->lim.size))
            return blkimg_bad(b, err, "%s is cut short", file->name);
        if (blk_pread(file, h, VMDK_HEADER, off))
            return err_set(err, EIO, "read %s: %s", file->name, strerror(EIO));
        if (memcmp(h, magic_sparse, sizeof(magic_sparse)) != 0)
            return blkimg_bad(b, err, "%s has no signature of a sparse extent at %" PRIu64, file->name, off);
        if (get_le64(h + VMDK_GD) != GD_AT_END || i)
            break;
        off = file->lim.size >= VMDK_HEADER + FOOTER_FROM_END ? file->lim.size - FOOTER_FROM_END : UINT64_MAX;
    }
    if (get_le32(h + VMDK_VERSION) < 1 || get_le32(h + VMDK_VERSION) > 3)
        return blkimg_refuse(b, err, "version %u of sparse extents is not known, only 1 to 3",
                             get_le32(h + VMDK_VERSION));
    return 0;
}

/* *sectors: how many it has. */
static int open_sparse(struct blk *b, struct vmdk_extent *e, uint64_t *sectors, struct err *err)
{
    uint8_t h[VMDK_HEADER];
    int rc = read_header(b, e->file, h, err);
    uint32_t flags = get_le32(h + VMDK_FLAGS);
    uint64_t grain = get_le64(h + VMDK_GRAIN), gd = get_le64(h + VMDK_GD), rgd = get_le64(h + VMDK_RGD), tables;

    if (rc)
        return rc;
    *sectors = get_le64(h + VMDK_CAPACITY);
    e->ngte = get_le32(h + VMDK_NGTE);
    e->zeroed = flags & VMDK_FLAG_ZEROED;
    e->compressed = flags & VMDK_FLAG_COMPRESSED;
    e->markers = flags & VMDK_FLAG_MARKERS;
    if (!is_pow2(grain) || grain > VMDK_GRAIN_MAX / VMDK_SECTOR || !e->ngte || e->ngte > GTE_MAX)
        return blkimg_bad(b, err, "grains of %" PRIu64 " sectors, %u to a table", grain, e->ngte);
    if (!*sectors || *sectors > INT64_MAX / VMDK_SECTOR)
        return blkimg_bad(b, err, "an extent of %" PRIu64 " sectors", *sectors);
    if (e->compressed && get_le16(h + VMDK_ALGORITHM) != VMDK_DEFLATE)
        return blkimg_refuse(b, err, "compression %u is not known, only deflate (1)", get_le16(h + VMDK_ALGORITHM));
    e->grain = (uint32_t)grain * VMDK_SECTOR;
    tables = (*sectors - 1) / (grain * e->ngte) + 1;
    if (!gd || gd > INT64_MAX / VMDK_SECTOR || tables > INT64_MAX / sizeof(uint32_t) ||
        !range_fits(gd * VMDK_SECTOR, tables * sizeof(uint32_t), e->file->lim.size))
        return blkimg_bad(b, err, "%s: a grain directory at sector %" PRIu64, e->file->name, gd);
    e->ntables = tables;
    e->gd = gd * VMDK_SECTOR;
    e->rgd = flags & VMDK_FLAG_REDUNDANT && rgd <= INT64_MAX / VMDK_SECTOR ? rgd * VMDK_SECTOR : 0;
    return 0;
}

static int read_descriptor(struct vmdk *v, uint64_t off, uint64_t n, struct err *err)
{
    cleanup_free char *text = NULL;
    int rc;

    if (n > DESC_MAX)
        return blkimg_refuse(&v->im.b, err, "its descriptor is longer than %d bytes", DESC_MAX);
    text = xcalloc(1, n + 1);
    rc = blkimg_header(&v->im.b, text, n, off, err);
    return rc ? rc : vmdk_desc_parse(&v->im.b, text, &v->desc, err);
}

/* The disk is one file: a sparse extent. */
static int open_monolithic(struct vmdk *v, struct err *err)
{
    struct blk *b = &v->im.b;
    uint8_t h[VMDK_HEADER];
    uint64_t sectors, desc, n;
    int rc;

    v->extents = xcalloc(1, sizeof(*v->extents));
    v->extents[0] = (struct vmdk_extent){.kind = VMDK_SPARSE, .file = b->file};
    v->nextents = 1;
    rc = open_sparse(b, v->extents, &sectors, err);
    if (!rc)
        rc = blkimg_header(b, h, sizeof(h), 0, err);
    if (rc)
        return rc;
    b->lim.size = v->extents[0].len = sectors * VMDK_SECTOR;
    v->im.end = align_up(b->file->lim.size, VMDK_SECTOR);
    desc = get_le64(h + VMDK_DESC_OFFSET);
    n = get_le64(h + VMDK_DESC_SIZE);
    v->desc.cid = v->desc.parent_cid = UINT32_MAX;
    if (!desc)
        return 0; /* one of several extents, looked at alone */
    if (desc > DESC_MAX / VMDK_SECTOR || n > DESC_MAX / VMDK_SECTOR)
        return blkimg_bad(b, err, "a descriptor of %" PRIu64 " sectors at sector %" PRIu64, n, desc);
    v->extents[0].desc = desc * VMDK_SECTOR;
    v->extents[0].ndesc = n * VMDK_SECTOR;
    return read_descriptor(v, desc * VMDK_SECTOR, n * VMDK_SECTOR, err);
}

static int open_extent(struct vmdk *v, const struct vmdk_line *l, const struct blk_open_opts *o, struct err *err)
{
    struct blk *b = &v->im.b;
    struct vmdk_extent *e = &v->extents[v->nextents];
    uint64_t sectors;
    int rc;

    *e = (struct vmdk_extent){
        .kind = l->kind, .start = b->lim.size, .len = l->sectors * VMDK_SECTOR, .off = l->off * VMDK_SECTOR};
    if (e->len > INT64_MAX - b->lim.size)
        return blkimg_bad(b, err, "its extents are too long together");
    b->lim.size += e->len;
    if (l->kind == VMDK_ZERO)
        return 0;
    rc = blk_open_named(b, l->name, "file", false, o, &e->file, err);
    if (rc)
        return rc;
    if (l->kind == VMDK_FLAT)
        return range_fits(e->off, e->len, e->file->lim.size)
                   ? 0
                   : blkimg_bad(b, err, "%s is cut short: the extent has %" PRIu64 " sectors", e->file->name,
                                l->sectors);
    rc = open_sparse(b, e, &sectors, err);
    if (!rc && sectors < l->sectors)
        rc = blkimg_bad(b, err, "%s has %" PRIu64 " sectors, and the descriptor says %" PRIu64, e->file->name, sectors,
                        l->sectors);
    return rc;
}

/* The disk's file is a descriptor. */
static int open_extents(struct vmdk *v, const struct blk_open_opts *o, struct err *err)
{
    struct blk *b = &v->im.b;
    int rc = read_descriptor(v, 0, b->file->lim.size, err);

    if (!rc && !v->desc.nlines)
        rc = blkimg_bad(b, err, "its descriptor lists no extent");
    if (rc)
        return rc;
    v->extents = xcalloc(v->desc.nlines, sizeof(*v->extents));
    while (v->nextents < v->desc.nlines && !rc) {
        rc = open_extent(v, &v->desc.lines[v->nextents], o, err);
        v->nextents++;
    }
    return rc;
}

static int vmdk_open(struct blk *b, const struct blk_open_opts *o, struct err *err);

static int open_parent(struct vmdk *v, const struct blk_open_opts *o, struct err *err)
{
    struct blk *b = &v->im.b;
    int rc = blk_open_named(b, v->desc.parent, "vmdk", false, o, &b->backing, err);

    if (rc)
        return rc;
    if (b->backing->drv->open == vmdk_open && vmdk_of(b->backing)->desc.cid != v->desc.parent_cid)
        return blkimg_bad(b, err, "its parent %s was written to since (it is %08x, not %08x)", b->backing->name,
                          vmdk_of(b->backing)->desc.cid, v->desc.parent_cid);
    return 0;
}

static int vmdk_open(struct blk *b, const struct blk_open_opts *o, struct err *err)
{
    struct vmdk *v = vmdk_of(b);
    char magic[sizeof(magic_text) - 1] = {0};
    int rc;

    pthread_mutex_init(&v->inflated, NULL);
    pthread_mutex_init(&v->merging, NULL);
    rc = blkimg_init(&v->im, &vmdk_ops, o, err);
    if (!rc)
        rc = blkimg_header(b, magic, min_u64(sizeof(magic), b->file->lim.size), 0, err);
    if (rc)
        return rc;
    if (!memcmp(magic, magic_sparse, sizeof(magic_sparse)))
        rc = open_monolithic(v, err);
    else if (!memcmp(magic, magic_text, sizeof(magic)))
        rc = open_extents(v, o, err);
    else if (!memcmp(magic, "COWD", 4) || !memcmp(magic, "\xbe\xba\xfe\xca", 4))
        rc = blkimg_refuse(b, err,
                           "it is a sparse extent of an ESX server, which is not known; export the disk from there "
                           "(vmkfstools -i … -d thin, or as OVF)");
    else
        rc = blkimg_bad(b, err, "no signature");
    if (!rc && v->desc.parent && !o->no_backing)
        rc = open_parent(v, o, err);
    return rc;
}

static void vmdk_close(struct blk *b)
{
    struct vmdk *v = vmdk_of(b);

    for (unsigned i = 0; i < v->nextents; i++)
        if (v->extents[i].file != b->file)
            blk_close(v->extents[i].file);
    free(v->extents);
    free(v->grain);
    vmdk_desc_fini(&v->desc);
    pthread_mutex_destroy(&v->merging);
    pthread_mutex_destroy(&v->inflated);
    blkimg_close(b);
}

/* In qemu-img's words: the one extent of a disk of one file has no format there. */
static json_t *extent_info(const struct blk *b, const struct vmdk_extent *e)
{
    static const char *const words[] = {[VMDK_ZERO] = "ZERO", [VMDK_FLAT] = "FLAT", [VMDK_SPARSE] = "SPARSE"};
    json_t *j =
        json_pack("{s:I, s:s}", "virtual-size", (json_int_t)e->len, "format", e->file == b->file ? "" : words[e->kind]);

    if (e->file)
        json_object_set_new(j, "filename", json_string(e->file->name));
    if (e->kind == VMDK_SPARSE)
        json_object_set_new(j, "cluster-size", json_integer(e->grain));
    if (e->compressed)
        json_object_set_new(j, "compressed", json_true());
    return j;
}

static json_t *vmdk_info(struct blk *b)
{
    struct vmdk *v = vmdk_of(b);
    json_t *extents = json_array(), *j;

    for (unsigned i = 0; i < v->nextents; i++)
        json_array_append_new(extents, extent_info(b, &v->extents[i]));
    j = json_pack("{s:I, s:I, s:s, s:o}", "cid", (json_int_t)v->desc.cid, "parent-cid", (json_int_t)v->desc.parent_cid,
                  "create-type", v->desc.type, "extents", extents);
    if (v->desc.parent)
        json_object_set_new(j, "backing-filename", json_string(v->desc.parent));
    return j;
}

static uint32_t vmdk_cluster(struct blk *b)
{
    const struct vmdk_extent *e = vmdk_of(b)->extents;

    return e->grain;
}

static const char *const vmdk_endings[] = {"vmdk", NULL};
const struct blk_driver vmdk_driver = {
    .name = "vmdk",
    .summary = "VMware disk image",
    .endings = vmdk_endings,
    .size = sizeof(struct vmdk),
    .probe = vmdk_probe,
    .open = vmdk_open,
    .close = vmdk_close,
    .rw = vmdk_rw,
    .map = blkimg_map,
    .status = blkimg_status,
    .write_compressed = vmdk_write_compressed,
    .check = blkimg_check,
    .info = vmdk_info,
    .cluster = vmdk_cluster,
    .create = vmdk_create,
    .create_opts = vmdk_create_opts,
    .create_size = sizeof(struct vmdk_create),
};
