/* Refcounts of a qcow2 image, and how clusters are found and taken [QEMU docs/interop/qcow2, "Host cluster
 * management"]. */
#include "devices/block/qcow2_int.h"
#include "vmm/base/cleanup.h"

enum { SCAN_SLICES = 64 }; /* slices of refcounts without a free cluster, before the end of the file is taken instead */

/* ---- Sets of clusters: open addressing, at most half full. ---- */

static size_t slot_of(const struct qcow2_set *s, uint64_t key)
{
    return (key * 0x9e3779b97f4a7c15u >> 20) & (s->size - 1);
}

static size_t find_slot(const struct qcow2_set *s, uint64_t key)
{
    size_t i = slot_of(s, key);

    while (s->slots[i] && s->slots[i] != key)
        i = (i + 1) & (s->size - 1);
    return i;
}

static int grow_set(struct qcow2_set *s)
{
    struct qcow2_set big = {.n = s->n, .size = s->size ? s->size * 2 : 256};

    big.slots = calloc(big.size, sizeof(*big.slots));
    if (!big.slots)
        return -ENOMEM;
    for (size_t i = 0; i < s->size; i++)
        if (s->slots[i])
            big.slots[find_slot(&big, s->slots[i])] = s->slots[i];
    free(s->slots);
    *s = big;
    return 0;
}

int qcow2_set_add(struct qcow2_set *s, uint64_t index)
{
    size_t i;
    int rc = s->n * 2 >= s->size ? grow_set(s) : 0;

    if (rc)
        return rc;
    i = find_slot(s, index + 1);
    if (s->slots[i])
        return -EEXIST;
    s->slots[i] = index + 1;
    s->n++;
    return 0;
}

void qcow2_set_del(struct qcow2_set *s, uint64_t index)
{
    size_t hole = s->size ? find_slot(s, index + 1) : 0, mask = s->size - 1;

    if (!s->size || !s->slots[hole])
        return;
    s->n--;
    /* Whoever was pushed past the hole moves up, so that searches need not go on over holes. */
    for (size_t i = (hole + 1) & mask; s->slots[i]; i = (i + 1) & mask) {
        if (((i - slot_of(s, s->slots[i])) & mask) < ((i - hole) & mask))
            continue;
        s->slots[hole] = s->slots[i];
        hole = i;
    }
    s->slots[hole] = 0;
}

bool qcow2_set_has(const struct qcow2_set *s, uint64_t index)
{
    return s->size && s->slots[find_slot(s, index + 1)];
}

bool qcow2_clear_of_meta(const struct qcow2 *q, uint64_t off, uint64_t n)
{
    for (uint64_t i = off >> q->bits; i <= (off + n - 1) >> q->bits; i++)
        if (qcow2_set_has(&q->meta, i))
            return false;
    return true;
}

/* ---- Counts. ---- */

uint64_t qcow2_ref_load(const uint8_t *data, uint32_t order, uint64_t i)
{
    switch (order) {
    case 3:
        return data[i];
    case 4:
        return get_be16(data + i * 2);
    case 5:
        return get_be32(data + i * 4);
    case 6:
        return get_be64(data + i * 8);
    }
    /* 1, 2 or 4 bits, the lowest first */
    return data[i >> (3 - order)] >> ((i << order) & 7) & ((1u << (1u << order)) - 1);
}

void qcow2_ref_store(uint8_t *data, uint32_t order, uint64_t i, uint64_t v)
{
    unsigned shift = (i << order) & 7, mask = ((1u << (1u << (order & 3))) - 1) << shift;
    uint8_t *byte;

    switch (order) {
    case 3:
        data[i] = (uint8_t)v;
        return;
    case 4:
        put_be16(data + i * 2, (uint16_t)v);
        return;
    case 5:
        put_be32(data + i * 4, (uint32_t)v);
        return;
    case 6:
        put_be64(data + i * 8, v);
        return;
    }
    byte = &data[i >> (3 - order)];
    *byte = (uint8_t)((*byte & ~mask) | (unsigned)v << shift);
}

uint64_t qcow2_refs_per_slice(const struct qcow2 *q)
{
    return (uint64_t)q->rb.unit * 8 >> q->h.refcount_order;
}

int qcow2_ref_slice(struct qcow2 *q, uint64_t index, struct qcow2_slice **ret)
{
    uint64_t block = index / q->per_rb, off;

    *ret = NULL;
    if (block >= q->rt_size || !q->rt[block])
        return 0;
    off = q->rt[block];
    if (off & (q->cluster - 1))
        return qcow2_corrupt(q, "refcount block %llu is at %#llx, which is no cluster's begin",
                             (unsigned long long)block, (unsigned long long)off);
    return qcow2_cache_get(q, &q->rb, off + index % q->per_rb / qcow2_refs_per_slice(q) * q->rb.unit, ret);
}

int qcow2_ref_get(struct qcow2 *q, uint64_t index, uint64_t *ret)
{
    struct qcow2_slice *s;
    int rc = qcow2_ref_slice(q, index, &s);

    if (!rc)
        *ret = s ? qcow2_ref_load(s->data, q->h.refcount_order, index % qcow2_refs_per_slice(q)) : 0;
    return rc;
}

void qcow2_rt_layout(uint32_t bits, uint32_t order, uint64_t from, uint64_t extra, uint64_t need, uint64_t *blocks,
                     uint64_t *table)
{
    uint64_t per_block = (8ull << bits) >> order, per_table = (1ull << bits) / 8;
    uint64_t b = 0, t = 0;

    for (;;) {
        uint64_t end = from + extra + b + t, first = from / per_block;
        uint64_t b2 = (end + per_block - 1) / per_block - first, entries = max_u64(need, first + b2);
        uint64_t t2 = (entries + per_table - 1) / per_table;

        if (b2 <= b && t2 <= t)
            break;
        b = max_u64(b, b2);
        t = max_u64(t, t2);
    }
    *blocks = b;
    *table = t;
}

static int meta_add(struct qcow2 *q, uint64_t first, uint64_t n)
{
    for (uint64_t i = first; i < first + n; i++)
        if (qcow2_set_add(&q->meta, i))
            return qcow2_corrupt(q, "cluster %#llx is metadata, but not counted as used", (unsigned long long)i);
    return 0;
}

/* A zeroed cluster in the file. */
static int zero_cluster(struct qcow2 *q, uint64_t index)
{
    static const uint8_t sector[512];
    uint64_t off = index << q->bits;
    int rc;

    qcow2_cache_drop(&q->l2, off, q->cluster);
    qcow2_cache_drop(&q->rb, off, q->cluster);
    q->file_end = max_u64(q->file_end, off + q->cluster);
    rc = blk_zero(q->b.file, off, q->cluster, false);
    /* Zeroing does not make the file longer. */
    return rc ? rc : blk_pwrite(q->b.file, sector, sizeof(sector), off + q->cluster - sizeof(sector));
}

static void rt_set(struct qcow2 *q, uint64_t i, uint64_t off)
{
    q->rt[i] = off;
    q->rt_lo = (uint32_t)(q->rt_lo == q->rt_hi ? i : min_u64(q->rt_lo, i));
    q->rt_hi = (uint32_t)max_u64(q->rt_hi, i + 1);
    q->unsynced = true;
}

int qcow2_header_switch(struct qcow2 *q, const struct qcow2_header *h)
{
    int rc = qcow2_header_update(q->b.file, h);

    if (!rc)
        rc = blk_flush(q->b.file);
    if (!rc) {
        q->h = *h;
        return 0;
    }
    /* Which of the two does the file have?  The old one, or nobody writes any more. */
    if (qcow2_header_update(q->b.file, &q->h) || blk_flush(q->b.file))
        qcow2_corrupt(q, "its header could not be written");
    return rc;
}

/*
 * A new table, half as large again, behind all that the old one covers.  All there is free, since it has no refcounts
 * yet: first the blocks that count the new clusters, then the table.  The header names it once all that is in the file.
 */
static int grow_rt(struct qcow2 *q, uint64_t need)
{
    uint64_t from = (uint64_t)q->rt_size * q->per_rb, blocks, clusters, size, old = q->h.rt_off >> q->bits;
    uint64_t old_clusters = q->h.rt_clusters, *rt;
    uint32_t old_size = q->rt_size;
    struct qcow2_header h = q->h;
    int rc;

    if (q->checking && qcow2_check_end(q->checking) > from) /* the file is longer than what was ever counted */
        from = (qcow2_check_end(q->checking) + q->per_rb - 1) / q->per_rb * q->per_rb;
    qcow2_rt_layout(q->bits, q->h.refcount_order, from, 0, need + need / 2, &blocks, &clusters);
    size = clusters << q->bits >> 3;
    if (size * 8 > QCOW2_RT_MAX) {
        qcow2_rt_layout(q->bits, q->h.refcount_order, from, 0, need, &blocks, &clusters);
        size = clusters << q->bits >> 3;
    }
    if (size * 8 > QCOW2_RT_MAX || (from + blocks + clusters) << q->bits > QCOW2_OFF_END)
        return -ENOSPC;
    rt = realloc(q->rt, size * sizeof(*rt));
    if (!rt)
        return -ENOMEM;
    q->rt = rt;
    memset(rt + q->rt_size, 0, (size - q->rt_size) * sizeof(*rt));
    rc = qcow2_commit_refcounts(q);
    for (uint64_t i = 0; !rc && i < blocks; i++) {
        rc = zero_cluster(q, from + i);
        rt[from / q->per_rb + i] = (from + i) << q->bits;
    }
    if (rc)
        return rc;
    h.rt_off = (from + blocks) << q->bits;
    h.rt_clusters = (uint32_t)clusters;
    q->rt_size = (uint32_t)size;
    for (uint64_t i = from; !rc && i < from + blocks + clusters; i++)
        rc = qcow2_ref_set(q, i, 1);
    if (!rc)
        rc = meta_add(q, from, blocks + clusters);
    if (!rc)
        rc = qcow2_commit_refcounts(q);
    if (!rc)
        rc = qcow2_table_write(q, rt, size, h.rt_off);
    if (!rc)
        rc = blk_flush(q->b.file);
    if (!rc)
        rc = qcow2_header_switch(q, &h);
    if (rc) {
        /* Nothing in the file names what was made: as if it had not been. */
        for (uint64_t i = from; i < from + blocks + clusters; i++)
            qcow2_set_del(&q->meta, i);
        qcow2_cache_drop(&q->rb, from << q->bits, blocks << q->bits);
        q->rt_size = old_size;
        return rc;
    }
    q->end = max_u64(q->end, from + blocks + clusters);
    qcow2_free(q, old, old_clusters, false);
    return 0;
}

/* While counts are mended: may the cluster be in use, although no count says so? */
static bool busy(const struct qcow2 *q, uint64_t index)
{
    return q->checking && (qcow2_check_uses(q->checking, index) || qcow2_set_has(&q->meta, index));
}

/* Where the missing `block` goes.  What it would count is free, so it counts itself; only when counts are mended its
 * range may be full. */
static uint64_t place_for_block(const struct qcow2 *q, uint64_t block)
{
    uint64_t index = block * q->per_rb;

    while (busy(q, index))
        index++;
    if (index / q->per_rb == block)
        return index;
    index = max_u64(qcow2_check_end(q->checking), q->end);
    while (busy(q, index))
        index++;
    return index;
}

static int add_block(struct qcow2 *q, uint64_t block)
{
    uint64_t index;
    struct qcow2_slice *s;
    bool own;
    int rc;

    if (block >= q->rt_size)
        return grow_rt(q, block + 1);
    index = place_for_block(q, block);
    own = index / q->per_rb == block;
    rc = meta_add(q, index, 1);
    if (rc)
        return rc;
    rc = zero_cluster(q, index);
    if (!rc && own) {
        q->rt[block] = index << q->bits;
        rc = qcow2_ref_slice(q, index, &s);
        q->rt[block] = 0;
    } else if (!rc) {
        rc = qcow2_ref_set(q, index, 1);
    }
    if (rc) {
        qcow2_set_del(&q->meta, index);
        return rc;
    }
    if (own) {
        qcow2_ref_store(s->data, q->h.refcount_order, index % qcow2_refs_per_slice(q), 1);
        qcow2_cache_dirty(&q->rb, s);
    }
    rt_set(q, block, index << q->bits);
    q->end = max_u64(q->end, index + 1);
    return 0;
}

int qcow2_ref_set(struct qcow2 *q, uint64_t index, uint64_t v)
{
    struct qcow2_slice *s;
    int rc = qcow2_ref_slice(q, index, &s);

    if (!rc && !s) {
        rc = add_block(q, index / q->per_rb);
        if (!rc)
            rc = qcow2_ref_slice(q, index, &s);
        if (!rc && !s)
            rc = -EIO;
    }
    if (rc)
        return rc;
    qcow2_ref_store(s->data, q->h.refcount_order, index % qcow2_refs_per_slice(q), v);
    qcow2_cache_dirty(&q->rb, s);
    return 0;
}

int qcow2_ref_add(struct qcow2 *q, uint64_t index, int delta, uint64_t *ret)
{
    uint64_t v;
    int rc = qcow2_ref_get(q, index, &v);

    if (rc)
        return rc;
    if (delta < 0 ? !v : v == q->ref_max)
        return -ERANGE;
    v += (uint64_t)(int64_t)delta;
    rc = qcow2_ref_set(q, index, v);
    if (!rc)
        *ret = v;
    if (delta > 0)
        q->unsynced = true;
    return rc;
}

/* ---- Finding and taking. ---- */

/* The first free cluster from `from` on and below `to`; *ret is `to` or beyond when there is none.  -EAGAIN: after long
 * search; *ret is where to go on. */
static int find_free(struct qcow2 *q, uint64_t from, uint64_t to, unsigned budget, uint64_t *ret)
{
    while (from < to) {
        uint64_t in_slice = qcow2_refs_per_slice(q) - from % qcow2_refs_per_slice(q);
        struct qcow2_slice *s;
        int rc = qcow2_ref_slice(q, from, &s);

        if (rc)
            return rc;
        *ret = from;
        for (uint64_t i = 0; s && i < in_slice; i++, (*ret)++)
            if (!qcow2_ref_load(s->data, q->h.refcount_order, *ret % qcow2_refs_per_slice(q)))
                break;
        if (*ret < from + in_slice)
            return 0;
        from += in_slice;
        if (!--budget)
            return -EAGAIN;
    }
    *ret = from;
    return 0;
}

/* Takes `first` and free ones behind it, up to `want`. */
static int take(struct qcow2 *q, uint64_t first, uint64_t want, uint64_t *got)
{
    uint64_t n, now;
    int rc = 0;

    for (n = 0; n < want; n++) {
        uint64_t i = first + n;

        rc = qcow2_ref_get(q, i, &now);
        if (rc || now)
            break;
        if (qcow2_set_has(&q->meta, i)) {
            rc = qcow2_corrupt(q, "cluster %#llx is metadata, but not counted as used", (unsigned long long)i);
            break;
        }
        if ((i + 1) << q->bits > (q->b.file->lim.grows ? QCOW2_OFF_END : q->b.file->lim.size)) {
            rc = -ENOSPC;
            break;
        }
        if (i / q->per_rb >= q->rt_size || !q->rt[i / q->per_rb]) {
            rc = add_block(q, i / q->per_rb);
            if (!rc)
                rc = qcow2_ref_get(q, i, &now); /* the block may be there */
            if (rc || now)
                break;
        }
        rc = qcow2_ref_set(q, i, 1);
        if (rc)
            break;
    }
    if (rc && n) {
        qcow2_unalloc(q, first, n);
        n = 0;
    }
    *got = n;
    if (n) {
        q->end = max_u64(q->end, first + n);
        q->unsynced = true;
    }
    return rc;
}

int qcow2_alloc(struct qcow2 *q, uint64_t want, uint64_t *first, uint64_t *got)
{
    int rc = find_free(q, q->cursor, q->end, SCAN_SLICES, first);
    bool low = !rc;

    if (rc && rc != -EAGAIN)
        return rc;
    q->cursor = *first;
    if (!low)
        *first = q->end;
    for (;;) {
        rc = take(q, *first, want, got);
        if (rc)
            return rc;
        if (*got)
            break;
        rc = find_free(q, *first, UINT64_MAX, UINT32_MAX, first);
        if (rc)
            return rc;
    }
    if (low)
        q->cursor = *first + *got;
    return 0;
}

void qcow2_now_free(struct qcow2 *q, uint64_t index)
{
    qcow2_set_del(&q->meta, index);
    q->cursor = min_u64(q->cursor, index);
    if (q->packed >> q->bits == index)
        q->packed = 0;
}

void qcow2_unalloc(struct qcow2 *q, uint64_t first, uint64_t n)
{
    uint64_t now;

    for (uint64_t i = first; i < first + n; i++) {
        if (!qcow2_ref_add(q, i, -1, &now) && !now)
            qcow2_now_free(q, i);
    }
}

/*
 * Makes the refcount blocks that are missing for `n` clusters from *first on, all free, and puts them there, so that
 * *first moves on: one in the range that it counts would stand in the way of what has to lie together.
 */
static int add_blocks(struct qcow2 *q, uint64_t n, uint64_t *first)
{
    uint64_t missing = 0, last, at = *first;
    int rc = 0;

    for (uint64_t was = UINT64_MAX; was != missing;) {
        was = missing;
        missing = 0;
        last = (*first + was + n - 1) / q->per_rb;
        for (uint64_t i = *first / q->per_rb; i <= last; i++)
            missing += i >= q->rt_size || !q->rt[i];
        missing = max_u64(missing, was);
    }
    if (last >= q->rt_size) {
        rc = grow_rt(q, last + 1);
        *first = q->end;
        return rc ? rc : add_blocks(q, n, first);
    }
    /* Nothing of the table waits to be written, so none of the new entries can reach the file before its count. */
    rc = qcow2_commit_refcounts(q);
    for (uint64_t i = *first / q->per_rb; !rc && i <= last; i++) {
        if (q->rt[i])
            continue;
        rc = meta_add(q, at, 1);
        if (!rc)
            rc = zero_cluster(q, at++);
        if (!rc)
            q->rt[i] = (at - 1) << q->bits;
    }
    for (uint64_t i = *first; !rc && i < at; i++)
        rc = qcow2_ref_set(q, i, 1);
    for (uint64_t i = *first / q->per_rb; i <= last; i++) {
        if (q->rt[i] < *first << q->bits || q->rt[i] >= at << q->bits)
            continue;
        if (rc) /* as if it had not been made */
            qcow2_cache_drop(&q->rb, q->rt[i], q->cluster);
        rt_set(q, i, rc ? 0 : q->rt[i]);
    }
    if (rc) {
        for (uint64_t i = *first; i < at; i++)
            qcow2_set_del(&q->meta, i);
        qcow2_unalloc(q, *first, at - *first);
        return rc;
    }
    q->end = max_u64(q->end, at);
    *first = at;
    return 0;
}

/* The end, where nothing is in use. */
static int find_end(struct qcow2 *q, uint64_t n, uint64_t *ret)
{
    uint64_t now = 0;
    int rc = 0;

    *ret = q->end;
    for (uint64_t i = *ret; !rc && i < *ret + n && i / q->per_rb < q->rt_size; i++) {
        rc = qcow2_ref_get(q, i, &now);
        if (now)
            *ret = i + 1;
    }
    return rc;
}

int qcow2_alloc_meta(struct qcow2 *q, uint64_t n, uint64_t *first)
{
    uint64_t got;
    int rc;

    if (n == 1) {
        rc = qcow2_alloc(q, 1, first, &got);
    } else {
        rc = find_end(q, n + q->per_rb, first);
        if (!rc)
            rc = add_blocks(q, n, first);
        if (!rc)
            rc = take(q, *first, n, &got);
        if (!rc && got < n) {
            qcow2_unalloc(q, *first, got);
            rc = qcow2_corrupt(q, "clusters behind its end are in use");
        }
    }
    if (rc)
        return rc;
    rc = meta_add(q, *first, n);
    for (uint64_t i = 0; !rc && i < n; i++)
        rc = zero_cluster(q, *first + i);
    if (rc)
        qcow2_unalloc(q, *first, n);
    return rc;
}
