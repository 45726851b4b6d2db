/* The first cluster of a qcow2 image: header, extensions, name of the backing file [QEMU docs/interop/qcow2, "Header"].
 * What later versions of the format put there is kept as it is. */
#include <inttypes.h>
#include <stdio.h>

#include "devices/block/qcow2_int.h"
#include "vmm/base/cleanup.h"

enum { EXT_HEAD = 8, EXT_MAX = 256, FEATURE_SIZE = 48, FEATURE_NAME = 46, SECTOR = 512, PACKING_OFF = 104 };

static const struct feature {
    uint8_t set, bit; /* set: 0 incompatible, 1 compatible, 2 autoclear */
    const char *name;
} features[] = {{0, 0, "dirty bit"},          {0, 1, "corrupt bit"},         {0, 2, "external data file"},
                {0, 3, "compression type"},   {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
                {2, 0, "persistent bitmaps"}, {2, 1, "raw external data"}};

const struct qcow2_ext *qcow2_ext_find(const struct qcow2_header *h, uint32_t type)
{
    for (unsigned i = 0; i < h->next; i++)
        if (h->ext[i].type == type)
            return &h->ext[i];
    return NULL;
}

void qcow2_ext_set(struct qcow2_header *h, uint32_t type, const void *data, uint32_t len)
{
    struct qcow2_ext *e = (struct qcow2_ext *)qcow2_ext_find(h, type);

    if (!data) {
        if (e) {
            free(e->data);
            *e = h->ext[--h->next];
        }
        return;
    }
    if (!e) {
        h->ext = realloc(h->ext, (h->next + 1) * sizeof(*h->ext));
        if (!h->ext)
            abort(); /* at most EXT_MAX */
        e = &h->ext[h->next++];
        *e = (struct qcow2_ext){.type = type};
    }
    free(e->data);
    e->data = xcalloc(1, len);
    memcpy(e->data, data, len);
    e->len = len;
}

char *qcow2_ext_string(const struct qcow2_header *h, uint32_t type)
{
    const struct qcow2_ext *e = qcow2_ext_find(h, type);

    return e ? strndup((const char *)e->data, e->len) : NULL;
}

void qcow2_ext_features(struct qcow2_header *h)
{
    uint8_t table[array_len(features) * FEATURE_SIZE] = {0};

    for (size_t i = 0; i < array_len(features); i++) {
        uint8_t *row = table + i * FEATURE_SIZE;

        row[0] = features[i].set;
        row[1] = features[i].bit;
        memcpy(row + 2, features[i].name, strlen(features[i].name));
    }
    qcow2_ext_set(h, QCOW2_EXT_FEATURES, table, sizeof(table));
}

void qcow2_header_fini(struct qcow2_header *h)
{
    for (unsigned i = 0; i < h->next; i++)
        free(h->ext[i].data);
    free(h->ext);
    free(h->unknown);
    free(h->backing);
    *h = (struct qcow2_header){0};
}

/* ---- Reading. ---- */

static int refuse_features(const struct blk *file, const struct qcow2_header *h, uint64_t unknown, struct err *err)
{
    const struct qcow2_ext *e = qcow2_ext_find(h, QCOW2_EXT_FEATURES);
    int bit = __builtin_ctzll(unknown);

    for (uint32_t at = 0; e && e->len - at >= FEATURE_SIZE; at += FEATURE_SIZE) {
        const uint8_t *row = e->data + at;

        if (row[0] == 0 && row[1] == bit && row[2])
            return err_set(err, ENOTSUP, "%s needs the qcow2 feature \"%.*s\", which this program does not know",
                           file->name, FEATURE_NAME, (const char *)row + 2);
    }
    return err_set(err, ENOTSUP, "%s needs incompatible qcow2 feature %d, which this program does not know", file->name,
                   bit);
}

static int bad(const struct blk *file, struct err *err, const char *what, uint64_t value)
{
    return err_set(err, EINVAL, "%s is damaged: its qcow2 header says %s %" PRIu64, file->name, what, value);
}

static int read_extensions(const struct blk *file, const uint8_t *p, size_t n, size_t at, struct qcow2_header *h,
                           struct err *err)
{
    while (n - at >= EXT_HEAD) {
        uint32_t type = get_be32(p + at), len = get_be32(p + at + 4);

        at += EXT_HEAD;
        if (type == QCOW2_EXT_END)
            return 0;
        if (len > n - at)
            return bad(file, err, "an extension's length is", len);
        if (h->next == EXT_MAX)
            return bad(file, err, "there are more extensions than", EXT_MAX);
        if (qcow2_ext_find(h, type))
            return bad(file, err, "there is more than one extension of type", type);
        qcow2_ext_set(h, type, p + at, len);
        at += align_up(len, 8);
        if (at > n)
            return 0;
    }
    return 0;
}

static int read_backing(const struct blk *file, const uint8_t *p, uint32_t cluster, struct qcow2_header *h,
                        struct err *err)
{
    uint64_t off = get_be64(p + 8);
    uint32_t len = get_be32(p + 16);

    if (!off)
        return 0;
    if (!len || len > QCOW2_NAME_MAX)
        return bad(file, err, "the backing file's name has a length of", len);
    if (!range_fits(off, len, cluster))
        return bad(file, err, "the backing file's name is at", off);
    h->backing = strndup((const char *)p + off, len);
    return h->backing ? 0 : -ENOMEM;
}

static void read_fields(const uint8_t *p, struct qcow2_header *h)
{
    *h = (struct qcow2_header){.version = get_be32(p + 4),
                               .cluster_bits = get_be32(p + 20),
                               .size = get_be64(p + 24),
                               .crypt = get_be32(p + 32),
                               .l1_size = get_be32(p + 36),
                               .l1_off = get_be64(p + 40),
                               .rt_off = get_be64(p + 48),
                               .rt_clusters = get_be32(p + 56),
                               .nsnapshots = get_be32(p + 60),
                               .snapshots_off = get_be64(p + 64),
                               .refcount_order = 4,
                               .len = QCOW2_V2_HEADER};
    if (h->version < 3)
        return;
    h->incompat = get_be64(p + 72);
    h->compat = get_be64(p + 80);
    h->autoclear = get_be64(p + 88);
    h->refcount_order = get_be32(p + 96);
    h->len = get_be32(p + 100);
}

/* After the extensions are read, which may name unknown features. */
static int check_features(const struct blk *file, const struct qcow2_header *h, struct err *err)
{
    const uint64_t known = QCOW2_IN_DIRTY | QCOW2_IN_CORRUPT | QCOW2_IN_DATA_FILE | QCOW2_IN_PACKING | QCOW2_IN_EXTL2;

    if (h->incompat & ~known)
        return refuse_features(file, h, h->incompat & ~known, err);
    if (h->crypt > 2 || h->crypt == 1)
        return err_set(err, ENOTSUP,
                       "%s is encrypted by %s, which this program does not read; decrypt it with qemu-img convert",
                       file->name, h->crypt == 1 ? "the AES method of old" : "an unknown method");
    if (h->packing > 1 || !h->packing != !(h->incompat & QCOW2_IN_PACKING))
        return bad(file, err, "the compression type is", h->packing);
#ifndef HAVE_ZSTD
    if (h->packing == 1)
        return err_set(err, ENOTSUP, "%s has clusters compressed by zstd, which this build does not include",
                       file->name);
#endif
    if ((h->incompat & QCOW2_IN_EXTL2) && h->cluster_bits < QCOW2_EXTL2_BITS_MIN)
        return bad(file, err, "there are subclusters, of clusters of 2 to the power of", h->cluster_bits);
    return 0;
}

/* Limits of the tables: what is opened never needs more memory than these say. */
static int check_tables(const struct blk *file, const struct qcow2_header *h, struct err *err)
{
    uint64_t cluster = 1ull << h->cluster_bits, low = cluster - 1;
    uint64_t entries = cluster / (h->incompat & QCOW2_IN_EXTL2 ? 16 : 8), need = (h->size + low) >> h->cluster_bits;

    if (h->size > INT64_MAX - low)
        return bad(file, err, "the disk's size is", h->size);
    if (h->l1_size > QCOW2_L1_MAX / 8)
        return bad(file, err, "the L1 table's entries are", h->l1_size);
    need = (need + entries - 1) / entries;
    if (h->l1_size < need)
        return bad(file, err, "the disk is larger than the L1 table allows, with entries", h->l1_size);
    if (h->l1_size && (!h->l1_off || h->l1_off & low || h->l1_off > INT64_MAX - QCOW2_L1_MAX))
        return bad(file, err, "the L1 table is at", h->l1_off);
    if (!h->rt_clusters || h->rt_clusters > (uint32_t)QCOW2_RT_MAX >> h->cluster_bits)
        return bad(file, err, "the refcount table's clusters are", h->rt_clusters);
    if (!h->rt_off || h->rt_off & low || h->rt_off > INT64_MAX - QCOW2_RT_MAX)
        return bad(file, err, "the refcount table is at", h->rt_off);
    if (h->nsnapshots > QCOW2_SNAPSHOTS_MAX)
        return bad(file, err, "the snapshots are", h->nsnapshots);
    if (h->nsnapshots &&
        (!h->snapshots_off || h->snapshots_off & low || h->snapshots_off > INT64_MAX - QCOW2_SNAPSHOT_TABLE_MAX))
        return bad(file, err, "the snapshot table is at", h->snapshots_off);
    return 0;
}

static int parse(const struct blk *file, const uint8_t *p, size_t cluster, struct qcow2_header *h, struct err *err)
{
    int rc;

    if (h->version >= 3) {
        if (h->len < QCOW2_V3_HEADER || h->len % 8 || h->len > cluster)
            return bad(file, err, "its own length is", h->len);
        if (h->len > PACKING_OFF)
            h->packing = p[PACKING_OFF];
        if (h->len > QCOW2_OUR_HEADER) {
            h->unknown = xcalloc(1, h->len - QCOW2_OUR_HEADER);
            memcpy(h->unknown, p + QCOW2_OUR_HEADER, h->len - QCOW2_OUR_HEADER);
        }
        if (h->refcount_order > 6)
            return bad(file, err, "the refcounts' width is 2 to the power of", h->refcount_order);
    }
    rc = read_extensions(file, p, cluster, h->len, h, err);
    if (!rc)
        rc = check_features(file, h, err);
    if (!rc)
        rc = check_tables(file, h, err);
    return rc ? rc : read_backing(file, p, (uint32_t)cluster, h, err);
}

int qcow2_header_read(struct blk *file, struct qcow2_header *ret, struct err *err)
{
    uint8_t head[QCOW2_V3_HEADER] = {0};
    cleanup_free uint8_t *first = NULL;
    struct qcow2_header h;
    size_t cluster, n;
    int rc;

    rc = file->lim.size < QCOW2_V2_HEADER ? -EINVAL : blk_pread(file, head, min_u64(sizeof(head), file->lim.size), 0);
    if (rc || get_be32(head) != QCOW2_MAGIC)
        return err_set(err, rc ? -rc : EINVAL, "%s is not a qcow2 image%s%s", file->name, rc == -EIO ? ": " : "",
                       rc == -EIO ? strerror(-rc) : "");
    read_fields(head, &h);
    if (h.version != 2 && h.version != 3)
        return err_set(err, ENOTSUP, "%s is a qcow image of version %u; 2 and 3 are read", file->name, h.version);
    if (h.cluster_bits < QCOW2_CLUSTER_BITS_MIN || h.cluster_bits > QCOW2_CLUSTER_BITS_MAX)
        return bad(file, err, "the cluster's size is 2 to the power of", h.cluster_bits);
    cluster = (size_t)1 << h.cluster_bits;
    first = xcalloc(1, cluster);
    n = min_u64(cluster, file->lim.size);
    rc = blk_pread(file, first, n, 0);
    if (rc)
        return err_set(err, -rc, "read %s: %s", file->name, strerror(-rc));
    rc = parse(file, first, cluster, &h, err);
    if (rc) {
        qcow2_header_fini(&h);
        return rc;
    }
    *ret = h;
    return 0;
}

/* ---- Writing. ---- */

static size_t header_len(const struct qcow2_header *h)
{
    return h->version < 3 ? QCOW2_V2_HEADER : max_u64(h->len, QCOW2_OUR_HEADER);
}

/* `p` is zeroed. */
static void put_fields(const struct qcow2_header *h, uint8_t *p)
{
    put_be32(p, QCOW2_MAGIC);
    put_be32(p + 4, h->version);
    put_be32(p + 20, h->cluster_bits);
    put_be64(p + 24, h->size);
    put_be32(p + 32, h->crypt);
    put_be32(p + 36, h->l1_size);
    put_be64(p + 40, h->l1_off);
    put_be64(p + 48, h->rt_off);
    put_be32(p + 56, h->rt_clusters);
    put_be32(p + 60, h->nsnapshots);
    put_be64(p + 64, h->snapshots_off);
    if (h->version < 3)
        return;
    put_be64(p + 72, h->incompat);
    put_be64(p + 80, h->compat);
    put_be64(p + 88, h->autoclear);
    put_be32(p + 96, h->refcount_order);
    put_be32(p + 100, (uint32_t)header_len(h));
    p[PACKING_OFF] = h->packing;
    if (h->unknown)
        memcpy(p + QCOW2_OUR_HEADER, h->unknown, h->len - QCOW2_OUR_HEADER);
}

static int write_cluster(struct blk *file, const struct qcow2_header *h, bool names)
{
    size_t cluster = (size_t)1 << h->cluster_bits, at = header_len(h), n = h->backing ? strlen(h->backing) : 0;
    cleanup_free uint8_t *p = xcalloc(1, cluster);

    put_fields(h, p);
    for (unsigned i = 0; i < h->next; i++) {
        const struct qcow2_ext *e = &h->ext[i];

        if (e->type == QCOW2_EXT_FEATURES && !names)
            continue;
        if (cluster - at < align_up(e->len, 8) + 2 * EXT_HEAD)
            return -ENOSPC;
        put_be32(p + at, e->type);
        put_be32(p + at + 4, e->len);
        memcpy(p + at + EXT_HEAD, e->data, e->len);
        at += EXT_HEAD + align_up(e->len, 8);
    }
    at += EXT_HEAD;
    if (at > cluster || n > cluster - at)
        return -ENOSPC;
    if (n) {
        put_be64(p + 8, at);
        put_be32(p + 16, (uint32_t)n);
        memcpy(p + at, h->backing, n);
    }
    return blk_pwrite(file, p, cluster, 0);
}

int qcow2_header_write(struct blk *file, const struct qcow2_header *h)
{
    int rc = write_cluster(file, h, true);

    /* In small clusters the names of features, which nobody needs, are in the way. */
    return rc == -ENOSPC ? write_cluster(file, h, false) : rc;
}

int qcow2_header_update(struct blk *file, const struct qcow2_header *h)
{
    uint8_t p[SECTOR] = {0};
    uint8_t fields[QCOW2_OUR_HEADER] = {0};
    struct qcow2_header ours = *h;
    int rc = blk_pread(file, p, sizeof(p), 0);

    if (rc)
        return rc;
    ours.unknown = NULL;
    put_fields(&ours, fields);
    memcpy(p + 4, fields + 4, 4); /* all but where the backing file's name is */
    memcpy(p + 20, fields + 20, (h->version < 3 ? QCOW2_V2_HEADER : 100) - 20);
    return blk_pwrite(file, p, sizeof(p), 0);
}
