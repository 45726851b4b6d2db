/* A qcow2 image's metadata in memory: caches of table slices, the order in which they go to the file, and clusters on
 * their way to being free.  See "Order" and "Freeing" at the top of qcow2.c. */
#include <stdio.h>

#include "devices/block/qcow2_int.h"
#include "vmm/base/cleanup.h"

enum { BATCH = 64 }; /* slices that are written in one go */

/* ---- Slices. ---- */

int qcow2_cache_init(struct qcow2_cache *c, uint32_t unit, uint64_t bytes)
{
    *c = (struct qcow2_cache){.unit = unit, .max = (unsigned)max_u64(bytes / unit, BATCH), .nbuckets = 1};
    while (c->nbuckets < c->max)
        c->nbuckets *= 2;
    list_init(&c->lru);
    c->buckets = calloc(c->nbuckets, sizeof(struct qcow2_slice *));
    return c->buckets ? 0 : -ENOMEM;
}

void qcow2_cache_fini(struct qcow2_cache *c)
{
    struct list *pos;

    while (c->buckets && (pos = list_pop(&c->lru)))
        free(container_of(pos, struct qcow2_slice, lru));
    free(c->buckets);
    *c = (struct qcow2_cache){0};
}

static struct qcow2_slice **bucket(struct qcow2_cache *c, uint64_t off)
{
    uint64_t hash = off / c->unit * 0x9e3779b97f4a7c15u;

    return &c->buckets[hash >> 32 & (c->nbuckets - 1)];
}

struct qcow2_slice *qcow2_cache_find(struct qcow2_cache *c, uint64_t off)
{
    struct qcow2_slice *s = *bucket(c, off);

    while (s && s->off != off)
        s = s->next;
    if (s) {
        list_del(&s->lru);
        list_add_tail(&c->lru, &s->lru);
    }
    return s;
}

static void unlink_slice(struct qcow2_cache *c, struct qcow2_slice *s)
{
    struct qcow2_slice **at = bucket(c, s->off);

    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    list_del(&s->lru);
    c->ndirty -= s->dirty;
    s->dirty = false;
}

void qcow2_cache_drop(struct qcow2_cache *c, uint64_t off, uint64_t n)
{
    for (uint64_t at = off; at < off + n; at += c->unit) {
        struct qcow2_slice *s = qcow2_cache_find(c, at);

        if (s) {
            unlink_slice(c, s);
            free(s);
            c->n--;
        }
    }
}

void qcow2_cache_dirty(struct qcow2_cache *c, struct qcow2_slice *s)
{
    c->ndirty += !s->dirty;
    s->dirty = true;
}

/* Room for one more: a new slice, or the longest unused of those that the file has as well. */
static int take_slice(struct qcow2 *q, struct qcow2_cache *c, struct qcow2_slice **ret)
{
    struct qcow2_slice *s = NULL;

    if (c->n < c->max)
        s = calloc(1, sizeof(*s) + c->unit);
    if (s) {
        list_init(&s->lru);
        c->n++;
        *ret = s;
        return 0;
    }
    if (c->ndirty == c->n) {
        int rc = c == &q->l2 ? qcow2_commit(q) : qcow2_commit_refcounts(q);

        if (rc)
            return rc;
    }
    list_for_each (pos, &c->lru) {
        s = container_of(pos, struct qcow2_slice, lru);
        if (!s->dirty) {
            unlink_slice(c, s);
            *ret = s;
            return 0;
        }
    }
    return -ENOMEM;
}

int qcow2_cache_get(struct qcow2 *q, struct qcow2_cache *c, uint64_t off, struct qcow2_slice **ret)
{
    struct qcow2_slice *s = qcow2_cache_find(c, off), **at;
    int rc;

    if (!s) {
        rc = take_slice(q, c, &s);
        if (rc)
            return rc;
        rc = qcow2_meta_read(q, s->data, c->unit, off);
        if (rc) {
            free(s);
            c->n--;
            return rc;
        }
        s->off = off;
        at = bucket(c, off);
        s->next = *at;
        *at = s;
        list_add_tail(&c->lru, &s->lru);
    }
    *ret = s;
    return 0;
}

static int by_offset(const void *a, const void *b)
{
    uint64_t x = (*(struct qcow2_slice *const *)a)->off, y = (*(struct qcow2_slice *const *)b)->off;

    return (x > y) - (x < y);
}

static int write_neighbours(struct qcow2 *q, struct qcow2_slice **v, unsigned n, uint32_t unit)
{
    struct iovec iov[BATCH];
    struct blk_io io = {.op = BLK_WRITE, .off = v[0]->off, .len = (uint64_t)n * unit, .iov = iov, .niov = n};

    for (unsigned i = 0; i < n; i++)
        iov[i] = (struct iovec){v[i]->data, unit};
    q->file_end = max_u64(q->file_end, io.off + io.len);
    return blk_rw(q->b.file, &io);
}

/* To the file, in its order, neighbours together.  They stay dirty until a sync. */
static int write_dirty(struct qcow2 *q, struct qcow2_cache *c)
{
    cleanup_free struct qcow2_slice **v = NULL;
    unsigned n = 0;

    if (!c->ndirty)
        return 0;
    v = calloc(c->ndirty, sizeof(struct qcow2_slice *));
    if (!v)
        return -ENOMEM;
    list_for_each (pos, &c->lru) {
        struct qcow2_slice *s = container_of(pos, struct qcow2_slice, lru);

        if (s->dirty)
            v[n++] = s;
    }
    qsort(v, n, sizeof(struct qcow2_slice *), by_offset);
    for (unsigned i = 0, k; i < n; i += k) {
        int rc;

        for (k = 1; k < BATCH && i + k < n && v[i + k]->off == v[i]->off + (uint64_t)k * c->unit; k++)
            ;
        rc = write_neighbours(q, v + i, k, c->unit);
        if (rc)
            return rc;
    }
    return 0;
}

static void all_clean(struct qcow2_cache *c)
{
    list_for_each (pos, &c->lru)
        container_of(pos, struct qcow2_slice, lru)->dirty = false;
    c->ndirty = 0;
}

/* ---- Bytes of the file. ---- */

int qcow2_meta_read(struct qcow2 *q, void *buf, size_t n, uint64_t off)
{
    uint64_t there = off < q->file_end ? min_u64(n, q->file_end - off) : 0;
    int rc;

    if (!there)
        return -EIO;
    /* A file that does not grow ends where it did when it was opened. */
    if (!q->b.file->lim.grows)
        there = off < q->b.file->lim.size ? min_u64(there, q->b.file->lim.size - off) : 0;
    rc = there ? blk_pread(q->b.file, buf, there, off) : -EIO;
    if (!rc)
        memset((char *)buf + there, 0, n - there);
    return rc;
}

int qcow2_meta_write(struct qcow2 *q, const void *buf, size_t n, uint64_t off)
{
    q->file_end = max_u64(q->file_end, off + n);
    return blk_pwrite(q->b.file, buf, n, off);
}

int qcow2_table_read(struct qcow2 *q, uint64_t *ret, size_t n, uint64_t off)
{
    int rc = n ? qcow2_meta_read(q, ret, n * sizeof(*ret), off) : 0;

    for (size_t i = 0; !rc && i < n; i++)
        ret[i] = be64toh(ret[i]);
    return rc;
}

int qcow2_table_write(struct qcow2 *q, const uint64_t *v, size_t n, uint64_t off)
{
    uint64_t buf[512];
    size_t k;

    for (size_t at = 0; at < n; at += k) {
        int rc;

        k = min_u64(n - at, array_len(buf));
        for (size_t i = 0; i < k; i++)
            buf[i] = htobe64(v[at + i]);
        rc = qcow2_meta_write(q, buf, k * sizeof(*buf), off + at * sizeof(*buf));
        if (rc)
            return rc;
    }
    return 0;
}

void qcow2_l1_set(struct qcow2 *q, uint32_t i, uint64_t entry)
{
    q->l1[i] = entry;
    q->l1_lo = q->l1_lo == q->l1_hi ? i : (uint32_t)min_u64(q->l1_lo, i);
    q->l1_hi = (uint32_t)max_u64(q->l1_hi, i + 1);
    q->unsynced = true;
}

/* ---- Order. ---- */

static int sync_data(struct qcow2 *q)
{
    int rc = q->data != q->b.file ? blk_flush(q->data) : 0;

    return rc ? rc : blk_flush(q->b.file);
}

int qcow2_commit_refcounts(struct qcow2 *q)
{
    int rc = write_dirty(q, &q->rb);

    if (!rc && q->rt_lo < q->rt_hi) {
        rc = blk_flush(q->b.file); /* blocks before the table that names them */
        if (!rc)
            rc = qcow2_table_write(q, q->rt + q->rt_lo, q->rt_hi - q->rt_lo, q->h.rt_off + q->rt_lo * 8ull);
    }
    if (!rc)
        rc = sync_data(q);
    if (rc)
        return rc;
    all_clean(&q->rb);
    q->rt_lo = q->rt_hi = 0;
    return 0;
}

static int commit_tables(struct qcow2 *q)
{
    bool l1 = q->l1_lo < q->l1_hi;
    int rc = write_dirty(q, &q->l2);

    if (!rc && l1 && q->l2.ndirty)
        rc = blk_flush(q->b.file); /* L2 tables before the L1 entries that name them */
    if (!rc && l1)
        rc = qcow2_table_write(q, q->l1 + q->l1_lo, q->l1_hi - q->l1_lo, q->h.l1_off + q->l1_lo * 8ull);
    if (!rc && (l1 || q->l2.ndirty))
        rc = blk_flush(q->b.file);
    if (rc)
        return rc;
    all_clean(&q->l2);
    q->l1_lo = q->l1_hi = 0;
    return 0;
}

/* ---- Freeing. ---- */

static void runs_add(struct qcow2_runs *r, uint64_t index, uint64_t n, bool punch)
{
    struct qcow2_run *last = r->n ? &r->v[r->n - 1] : NULL;

    if (last && last->index + last->n == index && last->punch == punch) {
        last->n += n;
        return;
    }
    if (r->n == r->room) {
        size_t room = r->room ? r->room * 2 : 64;
        struct qcow2_run *v = realloc(r->v, room * sizeof(*v));

        if (!v)
            return; /* leaked in the file; a check finds them */
        r->v = v;
        r->room = room;
    }
    r->v[r->n++] = (struct qcow2_run){index, n, punch};
}

/* All of `from` to the end of `to`. */
static void runs_move(struct qcow2_runs *to, struct qcow2_runs *from)
{
    if (!to->n) {
        struct qcow2_runs was = *to;

        *to = *from;
        *from = was;
        return;
    }
    for (size_t i = 0; i < from->n; i++)
        runs_add(to, from->v[i].index, from->v[i].n, from->v[i].punch);
    from->n = 0;
}

static void punch(struct qcow2 *q, uint64_t from, uint64_t to)
{
    /* Only space is lost where the host cannot do it. */
    if (from < to && blk_discard(q->b.file, from << q->bits, (to - from) << q->bits))
        return;
}

static void release_run(struct qcow2 *q, const struct qcow2_run *r)
{
    uint64_t from = r->index, now;

    for (uint64_t i = r->index; i < r->index + r->n; i++) {
        bool leaked = qcow2_ref_add(q, i, -1, &now);

        if (!leaked && !now) {
            qcow2_now_free(q, i);
            continue;
        }
        if (r->punch)
            punch(q, from, i);
        from = i + 1;
    }
    if (r->punch)
        punch(q, from, r->index + r->n);
}

/* What was freed goes as far as it may. */
static void settle_frees(struct qcow2 *q)
{
    for (int round = 0; round < 2; round++) {
        if (q->inside[!q->epoch])
            return;
        if (q->drained.n)
            qcow2_unpacked_drop(q);
        for (size_t i = 0; i < q->drained.n; i++)
            release_run(q, &q->drained.v[i]);
        q->drained.n = 0;
        if (!q->synced.n)
            return;
        runs_move(&q->drained, &q->synced);
        q->epoch = !q->epoch;
    }
}

int qcow2_commit(struct qcow2 *q)
{
    int rc = q->broken ? -EIO : q->unsynced ? qcow2_commit_refcounts(q) : 0;

    if (!rc)
        rc = commit_tables(q);
    if (rc)
        return rc;
    q->unsynced = false;
    runs_move(&q->synced, &q->freed);
    settle_frees(q);
    return 0;
}

void qcow2_free(struct qcow2 *q, uint64_t index, uint64_t n, bool punch_it)
{
    runs_add(&q->freed, index, n, punch_it);
    q->unsynced = true;
}

void qcow2_free_entry(struct qcow2 *q, uint64_t desc, bool punch_it)
{
    uint64_t off, len;

    if (desc & QCOW2_PACKED) {
        qcow2_packed_range(q, desc, &off, &len);
        for (uint64_t i = off >> q->bits; i <= (off + len - 1) >> q->bits; i++)
            qcow2_free(q, i, 1, punch_it);
    } else if (q->data == q->b.file && desc & QCOW2_OFF_MASK) {
        qcow2_free(q, (desc & QCOW2_OFF_MASK) >> q->bits, 1, punch_it);
    }
}

/* ---- Beginning, and the end of trust. ---- */

int qcow2_corrupt(struct qcow2 *q, const char *fmt, ...)
{
    char why[256];
    va_list ap;

    if (q->broken)
        return -EIO;
    va_start(ap, fmt);
    vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    if (!q->writable) {
        q->broken = true;
        log_msg(LOG_ERROR, "%s is damaged: %s; see what is wrong with: bothy img check", q->b.name, why);
        return -EIO;
    }
    log_msg(LOG_ERROR, "%s is damaged, and takes no more writes: %s; mend it with: bothy img check -r all", q->b.name,
            why);
    q->broken = true;
    if (q->h.version >= 3) {
        q->h.incompat |= QCOW2_IN_CORRUPT;
        if (qcow2_header_update(q->b.file, &q->h) || blk_flush(q->b.file))
            log_msg(LOG_ERROR, "%s could not even be marked as damaged", q->b.name);
    }
    return -EIO;
}
