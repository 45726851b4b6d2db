/* New qcow2 images, preallocation, and other sizes of existing ones. */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>

#include "devices/block/qcow2_int.h"
#include "vmm/base/cleanup.h"

enum { COMPAT_V2, COMPAT_V3, PREALLOC_OFF = 0, PREALLOC_METADATA, PREALLOC_FALLOC, PREALLOC_FULL, FILL = 1 << 20 };

static const char *const compats[] = {"0.10", "1.1", "v2", "v3", NULL};
static const char *const preallocs[] = {"off", "metadata", "falloc", "full", NULL};
static const char *const packings[] = {"zlib", "zstd", NULL};
static const char *const methods[] = {"none", "luks", NULL};

#define T struct qcow2_create
const struct opt qcow2_create_opts[] = {
    O_ENUM(T, compat, "compat", "1.1", compats, "version: 0.10 (2) or 1.1 (3)"),
    O_SIZE(T, cluster_size, "cluster_size", "64K", 512, MiB(2), "bytes that are allocated at a time"),
    O_U32(T, refcount_bits, "refcount_bits", "16", 1, 64, "width of a reference count"),
    O_STR(T, backing_file, "backing_file", NULL, "what it is based on", .arg = "FILE"),
    O_STR(T, backing_fmt, "backing_fmt", NULL, "that file's format"),
    O_ENUM(T, preallocation, "preallocation", "off", preallocs,
           "what is allocated now: nothing, tables, space, or all"),
    O_BOOL(T, lazy_refcounts, "lazy_refcounts", "off", "other programs may postpone counting"),
    O_ENUM(T, compression_type, "compression_type", "zlib", packings, "of compressed clusters"),
    O_BOOL(T, extended_l2, "extended_l2", "off", "32 subclusters a cluster"),
    O_STR(T, data_file, "data_file", NULL, "keep the guest's data in this file", .arg = "FILE"),
    O_BOOL(T, data_file_raw, "data_file_raw", "off", "that file is a raw disk by itself as well"),
    O_ENUM(T, encrypt, "encrypt.format", "none", methods, "encrypt what the guest writes"),
    LUKS_CREATE_OPTIONS(T, luks., "encrypt."),
    O_END,
};
#undef T

/* ---- A new image. ---- */

static bool is_v2(const struct qcow2_create *c)
{
    return c->compat % 2 == COMPAT_V2;
}

static int check_opts(const char *name, const struct qcow2_create *c, struct err *err)
{
    if (!is_pow2(c->cluster_size))
        return err_set(err, EINVAL, "%s: cluster_size is a power of two from 512 to 2M", name);
    if (!is_pow2(c->refcount_bits))
        return err_set(err, EINVAL, "%s: refcount_bits is a power of two from 1 to 64", name);
    if (c->extended_l2 && c->cluster_size < 1u << QCOW2_EXTL2_BITS_MIN)
        return err_set(err, EINVAL, "%s: extended_l2 needs a cluster_size of 16K or more", name);
    if (is_v2(c) &&
        (c->refcount_bits != 16 || c->lazy_refcounts || c->extended_l2 || c->compression_type || c->data_file))
        return err_set(err, EINVAL,
                       "%s: compat=0.10 has no refcount_bits, lazy_refcounts, extended_l2, compression_type or "
                       "data_file; use compat=1.1",
                       name);
    if (c->data_file_raw && !c->data_file)
        return err_set(err, EINVAL, "%s: data_file_raw needs data_file", name);
    if (c->data_file_raw && c->backing_file)
        return err_set(err, EINVAL, "%s: with data_file_raw there can be no backing_file", name);
    if (c->encrypt && c->data_file_raw)
        return err_set(err, EINVAL, "%s: what is encrypted is no raw disk, so there can be no data_file_raw", name);
    if (!c->encrypt && c->luks.secret)
        return err_set(err, EINVAL, "%s: encrypt.key-secret needs encrypt.format=luks", name);
    if (c->encrypt && c->preallocation && is_v2(c))
        return err_set(err, EINVAL, "%s: preallocation of an encrypted image needs compat=1.1", name);
    if (c->preallocation && c->backing_file && !c->extended_l2)
        return err_set(err, EINVAL, "%s: preallocation with a backing_file needs extended_l2", name);
    if (c->backing_file && (!*c->backing_file || strlen(c->backing_file) > QCOW2_NAME_MAX))
        return err_set(err, EINVAL, "%s: a backing file's name has 1 to %d bytes", name, QCOW2_NAME_MAX);
#ifndef HAVE_ZSTD
    if (c->compression_type)
        return err_set(err, ENOTSUP, "%s: this build does not include zstd", name);
#endif
    return 0;
}

static void fill_header(struct qcow2_header *h, const struct qcow2_create *c, uint64_t size)
{
    *h = (struct qcow2_header){.version = is_v2(c) ? 2 : 3,
                               .cluster_bits = (uint32_t)__builtin_ctzll(c->cluster_size),
                               .size = size,
                               .refcount_order = (uint32_t)__builtin_ctz(c->refcount_bits),
                               .packing = (uint8_t)c->compression_type,
                               .compat = c->lazy_refcounts ? QCOW2_CO_LAZY : 0,
                               .len = QCOW2_OUR_HEADER};
    if (c->compression_type)
        h->incompat |= QCOW2_IN_PACKING;
    if (c->extended_l2)
        h->incompat |= QCOW2_IN_EXTL2;
    if (c->data_file) {
        h->incompat |= QCOW2_IN_DATA_FILE;
        h->autoclear = c->data_file_raw ? QCOW2_AU_RAW : 0;
        qcow2_ext_set(h, QCOW2_EXT_DATA_FILE, c->data_file, (uint32_t)strlen(c->data_file));
    }
    if (c->backing_file)
        h->backing = xstrdup(c->backing_file);
    if (c->backing_file && c->backing_fmt)
        qcow2_ext_set(h, QCOW2_EXT_BACKING_FORMAT, c->backing_fmt, (uint32_t)strlen(c->backing_fmt));
    if (!is_v2(c))
        qcow2_ext_features(h);
}

static uint64_t l1_entries(uint32_t bits, bool extl2, uint64_t size)
{
    uint64_t span = ((1ull << bits) / (extl2 ? 16 : 8)) << bits;

    return size / span + !!(size % span);
}

static int too_large(const char *name, uint64_t size, struct err *err)
{
    return err_set(err, EFBIG, "%s: %" PRIu64 " bytes are too large for this cluster_size; take a larger one", name,
                   size);
}

/* Header, L1 table, refcount blocks, refcount table, in this order, each from a cluster's begin; the header is written
 * last. */
static int write_empty(struct blk *file, struct qcow2_header *h, struct err *err)
{
    uint64_t cluster = 1ull << h->cluster_bits, blocks, table, n, l1_clusters;
    uint64_t l1 = l1_entries(h->cluster_bits, h->incompat & QCOW2_IN_EXTL2, h->size);
    cleanup_free uint8_t *counts = NULL;
    uint64_t entry;
    int rc;

    if (l1 > QCOW2_L1_MAX / 8)
        return too_large(file->name, h->size, err);
    l1_clusters = max_u64((l1 * 8 + cluster - 1) >> h->cluster_bits, 1);
    qcow2_rt_layout(h->cluster_bits, h->refcount_order, 0, 1 + l1_clusters, 0, &blocks, &table);
    n = 1 + l1_clusters + blocks + table;
    h->l1_size = (uint32_t)l1;
    h->l1_off = cluster;
    h->rt_off = (1 + l1_clusters + blocks) << h->cluster_bits;
    h->rt_clusters = (uint32_t)table;
    counts = calloc(blocks, cluster);
    if (!counts)
        return err_set(err, ENOMEM, "%s: no memory for its tables", file->name);
    /* Blocks are numbered through, and so are the counts in them. */
    for (uint64_t i = 0; i < n; i++)
        qcow2_ref_store(counts, h->refcount_order, i, 1);
    rc = blk_zero(file, 0, n << h->cluster_bits, false);
    if (!rc)
        rc = blk_pwrite(file, counts, blocks << h->cluster_bits, (1 + l1_clusters) << h->cluster_bits);
    for (uint64_t i = 0; !rc && i < blocks; i++) {
        entry = htobe64((1 + l1_clusters + i) << h->cluster_bits);
        rc = blk_pwrite(file, &entry, sizeof(entry), h->rt_off + i * sizeof(entry));
    }
    entry = 0; /* so that the file has its whole length */
    if (!rc)
        rc = blk_pwrite(file, &entry, sizeof(entry), (n << h->cluster_bits) - sizeof(entry));
    if (!rc)
        rc = blk_flush(file);
    if (!rc)
        rc = qcow2_header_write(file, h);
    if (!rc)
        rc = blk_flush(file);
    if (!rc)
        file->lim.size = n << h->cluster_bits;
    if (rc == -ENOSPC && h->cluster_bits < 12)
        return err_set(err, ENOSPC, "%s: no room, or its clusters are too small for the names in the header",
                       file->name);
    return rc ? err_set(err, -rc, "write %s: %s", file->name, strerror(-rc)) : 0;
}

static int create_data_file(const struct blk *file, const struct qcow2_create *c, uint64_t size, struct err *err)
{
    const char *slash = strrchr(file->name, '/');
    int dir = slash && *c->data_file != '/' ? (int)(slash - file->name) + 1 : 0;
    char path[PATH_MAX];
    struct blk *data;
    int rc;

    if ((size_t)snprintf(path, sizeof(path), "%.*s%s", dir, file->name, c->data_file) >= sizeof(path))
        return err_set(err, ENAMETOOLONG, "%s: the data file's path is too long", file->name);
    rc = blk_create_file(path, false, &data, err);
    if (rc)
        return rc;
    rc = size ? blk_pwrite(data, "", 1, size - 1) : 0;
    blk_close(data);
    return rc ? err_set(err, -rc, "write %s: %s", path, strerror(-rc)) : 0;
}

/* ---- Preallocation. ---- */

/* Space on the host for bytes that the file may not yet have. */
static int fill_space(struct qcow2 *q, uint32_t how, uint64_t off, uint64_t len, const char *zeroes)
{
    int rc = 0;

    if (how == PREALLOC_FALLOC)
        return blk_zero(q->data, off, len, false);
    for (uint64_t n; !rc && how == PREALLOC_FULL && len; off += n, len -= n) {
        n = min_u64(len, FILL);
        rc = blk_pwrite(q->data, zeroes, n, off);
    }
    return rc;
}

/* Gives all of the guest's clusters places. */
static int place_all(struct qcow2 *q, uint32_t how)
{
    cleanup_free char *zeroes = calloc(1, FILL);
    uint64_t first, got, at, host, size, end = qcow2_clusters(q, q->h.size);
    int rc = zeroes ? 0 : -ENOMEM;

    for (uint64_t g = 0; !rc && g < end; g += got) {
        struct qcow2_slice *s;
        uint32_t i;

        rc = qcow2_l2_own(q, g, &at, &i);
        if (rc)
            break;
        first = g;
        got = min_u64(end - g, qcow2_per_slice(q) - i);
        if (q->data == q->b.file)
            rc = qcow2_alloc(q, got, &first, &got);
        if (!rc)
            rc = qcow2_cache_get(q, &q->l2, at, &s);
        for (uint64_t k = 0; !rc && k < got; k++) {
            struct qcow2_cl cl = {.host = (first + k) << q->bits, .has_host = true, .copied = true};

            if (qcow2_encrypted(q)) /* zeroes in the file would be read as noise */
                cl.zero = q->grains > 1 ? UINT32_MAX : 1;
            qcow2_encode(q, s, i + (uint32_t)k, &cl);
        }
        host = first << q->bits;
        size = got << q->bits;
        if (q->data == q->b.file)
            q->file_end = max_u64(q->file_end, host + size);
        else
            size = min_u64(size, q->h.size - host);
        if (!rc)
            rc = fill_space(q, how, host, size, zeroes);
    }
    if (!rc && q->data == q->b.file)
        rc = blk_pwrite(q->data, "", 1, q->file_end - 1);
    return rc;
}

static int encrypt(struct blk *file, const struct luks_create *c, const struct blk_key *key, struct err *err)
{
    struct blk *b;
    struct qcow2 *q;
    int rc = qcow2_attach(file, &b, err), end;

    if (rc)
        return rc;
    q = qcow2_of(b);
    pthread_mutex_lock(&q->lock);
    rc = qcow2_crypt_create(q, c, key);
    pthread_mutex_unlock(&q->lock);
    end = qcow2_detach(b);
    rc = rc ? rc : end;
    return rc ? err_set(err, -rc, "write encryption header: %s", strerror(-rc)) : 0;
}

static int preallocate(struct blk *file, uint32_t how, struct err *err)
{
    struct blk *b;
    struct qcow2 *q;
    int rc = qcow2_attach(file, &b, err), end;

    if (rc)
        return rc;
    q = qcow2_of(b);
    pthread_mutex_lock(&q->lock);
    rc = qcow2_begin(q);
    if (!rc)
        rc = place_all(q, how);
    pthread_mutex_unlock(&q->lock);
    end = qcow2_detach(b);
    rc = rc ? rc : end;
    return rc ? err_set(err, -rc, "preallocate %s: %s", file->name, strerror(-rc)) : 0;
}

int qcow2_create(struct blk *file, uint64_t size, const void *opts, const struct blk_keys *keys, struct err *err)
{
    const struct qcow2_create *c = opts;
    const struct blk_key *key;
    struct qcow2_header h;
    uint32_t prealloc = c->data_file_raw && !c->preallocation ? PREALLOC_METADATA : c->preallocation;
    int rc = check_opts(file->name, c, err);

    if (!rc && c->encrypt)
        rc = luks_create_check(&c->luks, keys, file->name, &key, err);
    if (rc)
        return rc;
    if (size > INT64_MAX - MiB(2))
        return too_large(file->name, size, err);
    fill_header(&h, c, align_up(size, 512));
    rc = write_empty(file, &h, err);
    if (!rc && c->data_file)
        rc = create_data_file(file, c, c->data_file_raw ? h.size : 0, err);
    if (!rc && c->encrypt)
        rc = encrypt(file, &c->luks, key, err);
    if (!rc && prealloc)
        rc = preallocate(file, prealloc, err);
    qcow2_header_fini(&h);
    return rc;
}

/* ---- How large it gets. ---- */

static uint64_t div_up(uint64_t a, uint64_t b)
{
    return a / b + !!(a % b);
}

/* Clusters of refcount blocks and of their table, which count all clusters, themselves among them. */
static uint64_t refcounts(uint64_t clusters, uint64_t per_block, uint64_t per_table)
{
    uint64_t n = 0, was;

    do {
        was = n;
        n = div_up(clusters + was, per_block);
        n += div_up(n, per_table);
    } while (n != was);
    return n;
}

int qcow2_overhead(uint64_t size, const void *opts, uint64_t *ret, uint64_t *unit, struct err *err)
{
    const struct qcow2_create *c = opts;
    uint64_t cluster = c->cluster_size, data, l2, l1, keys;
    int rc = check_opts("the new image", c, err);

    if (rc)
        return rc;
    data = div_up(size, cluster);
    l2 = div_up(data, cluster / (c->extended_l2 ? 16 : 8));
    l1 = div_up(l2, cluster / 8);
    keys = c->encrypt ? div_up(luks_area(&c->luks.kind), cluster) : 0;
    *ret = (1 + l2 + l1 + keys + refcounts(data + 1 + l2 + l1 + keys, cluster * 8 / c->refcount_bits, cluster / 8)) *
           cluster;
    *unit = cluster;
    return 0;
}

/* ---- Another size. ---- */

/* An L1 table of `n` entries. */
static int grow_l1(struct qcow2 *q, uint32_t n)
{
    struct qcow2_header h = q->h;
    uint64_t first, old = max_u64(qcow2_clusters(q, q->h.l1_size * 8ull), 1), old_off = q->h.l1_off;
    uint64_t *l1;
    int rc = qcow2_alloc_meta(q, qcow2_clusters(q, n * 8ull), &first);

    if (rc)
        return rc;
    l1 = realloc(q->l1, n * sizeof(*l1));
    rc = l1 ? 0 : -ENOMEM;
    if (l1) {
        memset(l1 + q->h.l1_size, 0, (n - q->h.l1_size) * sizeof(*l1));
        q->l1 = l1;
        rc = qcow2_table_write(q, l1, n, first << q->bits);
    }
    if (!rc)
        rc = qcow2_commit(q);
    if (!rc) {
        h.l1_size = n;
        h.l1_off = first << q->bits;
        rc = qcow2_header_switch(q, &h);
    }
    if (rc)
        qcow2_unalloc(q, first, qcow2_clusters(q, n * 8ull));
    else if (old_off)
        qcow2_free(q, old_off >> q->bits, old, false);
    return rc;
}

static int set_size(struct qcow2 *q, uint64_t size)
{
    struct qcow2_header h = q->h;
    int rc = qcow2_commit(q);

    h.size = size;
    if (!rc)
        rc = qcow2_header_switch(q, &h);
    if (!rc)
        q->b.lim.size = size;
    return rc;
}

/* Takes the tables out that lie wholly beyond `size`; the clusters that they name are discarded already. */
static int drop_tables(struct qcow2 *q, uint64_t size)
{
    for (uint64_t i = l1_entries(q->bits, q->grains > 1, size); i < q->h.l1_size; i++) {
        uint64_t entry = q->l1[i];

        if (!(entry & QCOW2_OFF_MASK))
            continue;
        qcow2_l1_set(q, (uint32_t)i, 0);
        qcow2_free(q, (entry & QCOW2_OFF_MASK) >> q->bits, 1, true);
    }
    return qcow2_commit(q);
}

/* Below `size` and above it in the same cluster must be zeroes before the disk may grow over them. */
static int shrink(struct qcow2 *q, uint64_t size)
{
    uint64_t cut = align_up(size, q->cluster), old = q->h.size;
    int rc = 0;

    if (size < min_u64(cut, old))
        rc = blk_zero(&q->b, size, min_u64(cut, old) - size, false);
    if (!rc && cut < old)
        rc = qcow2_drop(q, cut, old - cut);
    if (rc)
        return rc;
    pthread_mutex_lock(&q->lock);
    rc = drop_tables(q, size);
    if (!rc)
        rc = set_size(q, size);
    pthread_mutex_unlock(&q->lock);
    return rc;
}

static int grow(struct qcow2 *q, uint64_t size)
{
    uint64_t old = q->h.size, below = q->b.backing ? q->b.backing->lim.size : 0;
    uint64_t end = min_u64(size, max_u64(align_up(old, q->cluster), below));
    uint64_t n = l1_entries(q->bits, q->grains > 1, size);
    int rc;

    if (n > QCOW2_L1_MAX / 8)
        return -EFBIG;
    pthread_mutex_lock(&q->lock);
    rc = qcow2_begin(q);
    if (!rc && n > q->h.l1_size)
        rc = grow_l1(q, (uint32_t)n);
    pthread_mutex_unlock(&q->lock);
    if (rc)
        return rc;
    /* Before the header says so: what was hidden behind the old end, the rest of its last cluster and the backing
     * file's, must never be seen. */
    q->b.lim.size = size;
    if (end > old)
        rc = blk_zero(&q->b, old, end - old, false);
    if (!rc && q->raw)
        rc = blk_pwrite(q->data, "", 1, size - 1);
    if (!rc)
        rc = blk_flush(&q->b);
    pthread_mutex_lock(&q->lock);
    if (!rc)
        rc = set_size(q, size);
    pthread_mutex_unlock(&q->lock);
    if (rc)
        q->b.lim.size = old;
    return rc;
}

/* Bitmaps are out of the image meanwhile: when it ends half-way, they are lost rather than wrong. */
int qcow2_resize(struct blk *b, uint64_t size, struct err *err)
{
    struct qcow2 *q = qcow2_of(b);
    struct qcow2_taken *bitmaps;
    struct err later = {0};
    int rc, back;

    size = align_up(size, 512);
    if (q->h.size % 512)
        return err_set(err, EINVAL, "%s has an odd size and is left as it is", b->name);
    if (size > INT64_MAX - MiB(2))
        return too_large(b->name, size, err);
    rc = qcow2_bitmaps_take(q, &bitmaps, err);
    if (rc)
        return rc;
    if (size > q->h.size)
        rc = grow(q, size);
    else if (size < q->h.size)
        rc = shrink(q, size);
    back = qcow2_bitmaps_put_back(q, bitmaps, &later);
    qcow2_taken_free(bitmaps);
    if (rc == -EFBIG)
        return too_large(b->name, size, err);
    if (rc)
        return err_set(err, -rc, "resize %s: %s", b->name, strerror(-rc));
    if (back)
        *err = later;
    return back;
}

int qcow2_empty(struct blk *b, struct err *err)
{
    struct qcow2 *q = qcow2_of(b);
    int rc = q->h.size ? qcow2_drop(q, 0, q->h.size) : 0;

    pthread_mutex_lock(&q->lock);
    if (!rc)
        rc = drop_tables(q, 0);
    pthread_mutex_unlock(&q->lock);
    if (!rc)
        rc = blk_flush(b);
    return rc ? err_set(err, -rc, "empty %s: %s", b->name, strerror(-rc)) : 0;
}
