/* Whether a qcow2 image is whole: every reference is counted anew from the header down, and compared with what the
 * image says.  Counts can be mended, and the flags that follow from them; entries that mean nothing cannot. */
#include <inttypes.h>
#include <stdio.h>

#include "devices/block/qcow2_int.h"
#include "vmm/base/cleanup.h"

enum {
    CHUNK = 1 << 14,    /* counts that are allocated together */
    CLUSTERS_BITS = 36, /* of the largest file that is looked at */
    TOLD = 20,          /* messages */
};

struct qcow2_check {
    struct qcow2_visitor v;
    struct qcow2 *q;
    struct blk_check *found;
    uint32_t **chunks; /* of CHUNK counts each; NULL: all 0 */
    uint64_t n;        /* clusters of the file */
    uint64_t last;     /* where the previous data cluster was */
    unsigned told;
    bool no_memory;
};

__attribute__((format(printf, 2, 3))) static void corrupt(struct qcow2_check *c, const char *fmt, ...)
{
    char why[200];
    va_list ap;

    c->found->corruptions++;
    if (c->told++ >= TOLD)
        return;
    va_start(ap, fmt);
    vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    log_msg(LOG_WARN, "%s: %s%s", c->q->b.name, why, c->told == TOLD ? " (and so on)" : "");
}

static uint32_t counted(const struct qcow2_check *c, uint64_t i)
{
    const uint32_t *chunk = i < c->n ? c->chunks[i / CHUNK] : NULL;

    return chunk ? chunk[i % CHUNK] : 0;
}

/* So many references to each cluster of a range. */
static void count_times(struct qcow2_check *c, uint64_t off, uint64_t bytes, uint32_t times, const char *what)
{
    uint64_t from = off >> c->q->bits, to = (off + bytes - 1) >> c->q->bits;

    for (uint64_t i = from; bytes && i <= to; i++) {
        uint32_t **chunk;

        if (i >= c->n) {
            corrupt(c, "%s is at %#" PRIx64 ", beyond the file's end", what, off);
            return;
        }
        chunk = &c->chunks[i / CHUNK];
        if (!*chunk)
            *chunk = calloc(CHUNK, sizeof(uint32_t));
        if (!*chunk) {
            c->no_memory = true;
            return;
        }
        if (__builtin_add_overflow((*chunk)[i % CHUNK], times, &(*chunk)[i % CHUNK]))
            (*chunk)[i % CHUNK] = UINT32_MAX;
    }
}

static void count(struct qcow2_check *c, uint64_t off, uint64_t bytes, const char *what)
{
    count_times(c, off, bytes, 1, what);
}

/* ---- Tables. ---- */

static void count_data(struct qcow2_check *c, const struct qcow2_slice *s, uint32_t i, uint32_t times, bool active)
{
    struct qcow2 *q = c->q;
    const uint8_t *p = s->data + i * q->entry;
    uint64_t desc = get_be64(p), host = desc & QCOW2_OFF_MASK, off, len;
    struct qcow2_cl cl;

    if (desc & QCOW2_PACKED && q->data == q->b.file) {
        qcow2_packed_range(q, desc, &off, &len);
        /* The file may end within the last sector. */
        count_times(c, off, len, times, "a compressed cluster");
        c->found->compressed += active;
        c->found->allocated += active;
        c->found->fragmented += active;
        if (desc & QCOW2_COPIED && !active) /* the active ones' flags are looked at later */
            corrupt(c, "L2 entry %#" PRIx64 " of a compressed cluster is marked as not shared", desc);
        return;
    }
    if (!qcow2_parse(q, s, i, &cl)) {
        corrupt(c, "entry %u of the L2 table at %#" PRIx64 " is %#" PRIx64 ", which means nothing",
                (unsigned)((s->off & (q->cluster - 1)) / q->entry + i), align_down(s->off, q->cluster), desc);
        return;
    }
    if (!cl.has_host || q->data != q->b.file) {
        c->found->allocated += active && cl.has_host;
        return;
    }
    count_times(c, host, q->cluster, times, "a data cluster");
    if (active) {
        c->found->allocated++;
        c->found->fragmented += c->last && host != c->last + q->cluster;
        c->last = host;
    }
}

/* An L2 table that `times` L1 tables name. */
static void count_l2(struct qcow2_check *c, uint64_t table, uint32_t times, bool active)
{
    struct qcow2 *q = c->q;

    for (uint64_t at = table; at < table + q->cluster; at += q->l2.unit) {
        struct qcow2_slice *s;

        if (qcow2_cache_get(q, &q->l2, at, &s)) {
            c->found->failures++;
            return;
        }
        for (uint32_t i = 0; i < qcow2_per_slice(q); i++)
            count_data(c, s, i, times, active);
    }
}

/* Adds the L2 tables to `tables`. */
static void count_l1(struct qcow2_check *c, const uint64_t *l1, uint32_t n, struct qcow2_set *tables)
{
    struct qcow2 *q = c->q;
    struct qcow2_set seen = {0};

    for (uint32_t i = 0; i < n; i++) {
        uint64_t table = l1[i] & QCOW2_OFF_MASK;
        int rc;

        if (l1[i] & ~(QCOW2_COPIED | QCOW2_OFF_MASK) || table & (q->cluster - 1)) {
            corrupt(c, "L1 entry %u is %#" PRIx64 ", which means nothing", i, l1[i]);
            continue;
        }
        if (!table)
            continue;
        rc = qcow2_set_add(&seen, table >> q->bits);
        if (rc == -EEXIST) {
            corrupt(c, "L1 entry %u names the same L2 table as another one", i);
            continue;
        }
        count(c, table, q->cluster, "an L2 table");
        if (rc || (table >> q->bits < c->n && qcow2_set_add(tables, table >> q->bits) == -ENOMEM))
            c->no_memory = true;
    }
    free(seen.slots);
}

/* Tables that snapshots share are looked at once, however many these are: nothing else is counted yet, so that their
 * counts say how many. */
static void count_shared(struct qcow2_check *c, const struct qcow2_set *tables)
{
    cleanup_free uint32_t *times = calloc(tables->size + 1, sizeof(*times));

    if (!times) {
        c->no_memory = true;
        return;
    }
    for (size_t i = 0; i < tables->size; i++)
        times[i] = tables->slots[i] ? counted(c, tables->slots[i] - 1) : 0;
    for (size_t i = 0; i < tables->size; i++)
        if (times[i])
            count_l2(c, (tables->slots[i] - 1) << c->q->bits, times[i], false);
}

static void count_snapshots(struct qcow2_check *c)
{
    struct qcow2 *q = c->q;
    struct qcow2_set tables = {0};
    uint64_t clusters = 0;
    unsigned n = 0;

    for (; n < q->h.nsnapshots; n++) {
        const struct qcow2_snapshot *s = &q->snaps[n];
        cleanup_free uint64_t *l1 = malloc(s->l1_size * sizeof(*l1) + 1);

        clusters += qcow2_clusters(q, s->l1_size * 8ull);
        if (clusters > c->n) { /* each has its own, and one file could name the same bytes thousands of times */
            corrupt(c, "the snapshots' L1 tables are larger than the file");
            c->found->failures++;
            break;
        }
        if (!l1 || qcow2_table_read(q, l1, s->l1_size, s->l1_off))
            c->found->failures++;
        else
            count_l1(c, l1, s->l1_size, &tables);
    }
    count_shared(c, &tables);
    free(tables.slots);
    for (unsigned i = 0; i < n; i++)
        count(c, q->snaps[i].l1_off, q->snaps[i].l1_size * 8ull, "an L1 table");
    count(c, q->h.snapshots_off, qcow2_snapshots_bytes(q), "the snapshot table");
}

static void count_active(struct qcow2_check *c)
{
    struct qcow2 *q = c->q;
    struct qcow2_set tables = {0};

    count(c, q->h.l1_off, q->h.l1_size * 8ull, "an L1 table");
    count_l1(c, q->l1, q->h.l1_size, &tables);
    for (uint32_t i = 0; i < q->h.l1_size; i++) {
        uint64_t table = q->l1[i] & QCOW2_OFF_MASK;

        if (table && !(table & (q->cluster - 1)) && qcow2_set_has(&tables, table >> q->bits)) {
            count_l2(c, table, 1, true);
            qcow2_set_del(&tables, table >> q->bits);
        }
    }
    free(tables.slots);
}

/* Blocks that cannot be where the table says are forgotten, with `fix` in the file, too. */
static void count_blocks(struct qcow2_check *c, bool fix)
{
    struct qcow2 *q = c->q;

    count(c, q->h.rt_off, q->rt_size * 8ull, "the refcount table");
    for (uint32_t i = 0; i < q->rt_size; i++) {
        uint64_t off = q->rt[i], at = off >> q->bits;
        bool fits = !(off & (q->cluster - 1)) && at < c->n;

        if (!off)
            continue;
        if (fits)
            count(c, off, q->cluster, "a refcount block");
        if (fits && counted(c, at) == 1)
            continue;
        corrupt(c, "refcount block %u is at %#" PRIx64 ", where it cannot be", i, off);
        if (fits)
            c->chunks[at / CHUNK][at % CHUNK]--;
        q->rt[i] = 0;
        if (!fix)
            continue;
        q->rt_lo = q->rt_lo == q->rt_hi ? i : q->rt_lo;
        q->rt_hi = i + 1;
        q->unsynced = true;
        c->found->corruptions_fixed++;
    }
}

static void count_range(struct qcow2_visitor *v, uint64_t off, uint64_t bytes, const char *what)
{
    count(container_of(v, struct qcow2_check, v), off, bytes, what);
}

static void count_all(struct qcow2_check *c, bool fix)
{
    struct qcow2 *q = c->q;

    count_snapshots(c);
    count(c, 0, q->cluster, "the header");
    count_active(c);
    qcow2_crypt_visit(q, &c->v);
    if (qcow2_bitmaps_visit(q, &c->v))
        c->found->failures++;
    count_blocks(c, fix);
    c->found->total = qcow2_clusters(q, q->h.size);
}

/* ---- Comparing, and mending. ---- */

bool qcow2_check_uses(const struct qcow2_check *c, uint64_t index)
{
    return counted(c, index);
}

uint64_t qcow2_check_end(const struct qcow2_check *c)
{
    return c->n;
}

/* The first cluster from `i` on that there can be anything to say about, or `end`. */
static uint64_t skip(const struct qcow2_check *c, uint64_t i, uint64_t end)
{
    const struct qcow2 *q = c->q;

    while (i < end) {
        uint64_t block = i / q->per_rb;
        bool table = block < q->rt_size, chunk = i < c->n;

        if ((table && q->rt[block]) || (chunk && c->chunks[i / CHUNK]))
            return i;
        i = min_u64(table ? (block + 1) * q->per_rb : end, chunk ? (i / CHUNK + 1) * CHUNK : end);
    }
    return end;
}

static void compare_one(struct qcow2_check *c, uint64_t i, uint64_t is, enum blk_fix fix)
{
    struct qcow2 *q = c->q;
    uint64_t should = counted(c, i);

    if (should)
        c->found->end = (i + 1) << q->bits;
    if (is == should || (!should && is == 1 && qcow2_set_has(&q->meta, i))) /* the latter: made by the mending */
        return;
    if (is > should)
        c->found->leaks++;
    else
        corrupt(c, "cluster %#" PRIx64 " is in use %" PRIu64 " times, but counted %" PRIu64 " times", i, should, is);
    if (fix == BLK_FIX_NONE || (fix == BLK_FIX_LEAKS && is < should))
        return;
    q->unsynced = true;
    if (should > q->ref_max || qcow2_ref_set(q, i, should))
        c->found->failures++;
    else if (is > should)
        c->found->leaks_fixed++;
    else
        c->found->corruptions_fixed++;
}

/* Goes on from cluster *i to one that is not counted right: 1, and *is is what the image says; or to where the slice of
 * refcounts or our chunk of counts ends: 0. */
static int next_wrong(struct qcow2_check *c, uint64_t *i, uint64_t *is)
{
    struct qcow2 *q = c->q;
    const uint32_t *chunk = *i < c->n ? c->chunks[*i / CHUNK] : NULL;
    uint64_t n = qcow2_refs_per_slice(q), end = min_u64(align_down(*i, n) + n, align_down(*i, CHUNK) + CHUNK);
    struct qcow2_slice *s;
    int rc = qcow2_ref_slice(q, *i, &s);

    for (; !rc && *i < end; ++*i) {
        uint32_t should = chunk ? chunk[*i % CHUNK] : 0;

        *is = s ? qcow2_ref_load(s->data, q->h.refcount_order, *i % n) : 0;
        if (*is != should)
            return 1;
        if (should)
            c->found->end = (*i + 1) << q->bits;
    }
    return rc;
}

static void compare(struct qcow2_check *c, enum blk_fix fix)
{
    struct qcow2 *q = c->q;
    uint64_t is = 0, end = max_u64(c->n, (uint64_t)q->rt_size * q->per_rb);

    for (uint64_t i = skip(c, 0, end); i < end; i = skip(c, i, end)) {
        int rc = next_wrong(c, &i, &is);

        if (rc > 0)
            compare_one(c, i++, is, fix);
        if (rc >= 0)
            continue;
        c->found->failures++;
        i = (i / q->per_rb + 1) * q->per_rb;
    }
}

static void check_flags(struct qcow2_check *c, bool fix)
{
    struct qcow2 *q = c->q;
    uint64_t wrong = 0;

    if (qcow2_fix_flags(q, q->l1, q->h.l1_size, fix, &wrong))
        c->found->failures++;
    c->found->corruptions += wrong;
    c->found->corruptions_fixed += fix ? wrong : 0;
    if (wrong && c->told < TOLD)
        log_msg(LOG_WARN, "%s: %" PRIu64 " table entries are marked as shared, or not, against their refcounts",
                q->b.name, wrong);
}

/* What was mended, to the file; then what the header says about damages is no longer so. */
static int settle(struct qcow2_check *c, enum blk_fix fix)
{
    struct qcow2 *q = c->q;
    struct qcow2_header h = q->h;
    int rc = qcow2_commit(q);

    if (!rc && q->rb.ndirty)
        rc = qcow2_commit_refcounts(q);
    if (rc || fix != BLK_FIX_ALL || c->found->failures || c->found->corruptions != c->found->corruptions_fixed)
        return rc;
    h.incompat &= ~(QCOW2_IN_DIRTY | QCOW2_IN_CORRUPT);
    return h.incompat != q->h.incompat ? qcow2_header_switch(q, &h) : 0;
}

static int run(struct qcow2_check *c, enum blk_fix fix)
{
    struct qcow2 *q = c->q;
    uint32_t n = q->rt_size;
    cleanup_free uint64_t *rt = malloc(n * sizeof(*rt));
    int rc = fix != BLK_FIX_NONE && q->unsynced ? qcow2_commit(q) : 0;

    if (rc || !rt)
        return rc ? rc : -ENOMEM;
    memcpy(rt, q->rt, n * sizeof(*rt));
    count_all(c, fix == BLK_FIX_ALL);
    if (c->no_memory) {
        rc = -ENOMEM;
    } else {
        /* Where something could not be read, what seems to be free may not be. */
        if (c->found->failures) {
            fix = BLK_FIX_NONE;
            c->found->corruptions_fixed = 0;
        }
        q->checking = c;
        compare(c, fix);
        /* Where there was a leak, a flag may be wrong for that alone. */
        check_flags(c, fix == BLK_FIX_ALL || (c->found->leaks_fixed && !c->found->corruptions));
        rc = fix != BLK_FIX_NONE ? settle(c, fix) : 0;
        q->checking = NULL;
    }
    if (fix != BLK_FIX_ALL)
        memcpy(q->rt, rt, n * sizeof(*rt));
    return rc;
}

int qcow2_check(struct blk *b, enum blk_fix fix, struct blk_check *ret, struct err *err)
{
    struct qcow2 *q = qcow2_of(b);
    struct qcow2_check c = {.v = {count_range}, .q = q, .found = ret, .n = qcow2_clusters(q, q->file_end)};
    uint64_t chunks = c.n / CHUNK + 1;
    int rc;

    *ret = (struct blk_check){0};
    if (fix == BLK_FIX_ALL && q->h.incompat & QCOW2_IN_DIRTY)
        c.told = TOLD; /* it says so itself */
    if (fix != BLK_FIX_NONE && (!q->writable || q->broken))
        return err_set(err, EROFS, "%s cannot be mended: it is open for reading only", b->name);
    if (q->snapshot)
        return err_set(err, EINVAL, "%s: a snapshot is checked with the whole image; leave snapshot-name out", b->name);
    if (c.n >> CLUSTERS_BITS)
        return err_set(err, EFBIG, "%s is too large to be checked", b->name);
    c.chunks = calloc(chunks, sizeof(*c.chunks));
    if (!c.chunks)
        return err_set(err, ENOMEM, "%s: no memory for the check", b->name);
    pthread_mutex_lock(&q->lock);
    rc = run(&c, fix);
    pthread_mutex_unlock(&q->lock);
    for (uint64_t i = 0; i < chunks; i++)
        free(c.chunks[i]);
    free(c.chunks);
    return rc ? err_set(err, -rc, "check %s: %s", b->name, strerror(-rc)) : 0;
}
