/* Snapshots inside a qcow2 image [QEMU docs/interop/qcow2, "Snapshots"]: L1 tables of their own that share everything
 * below with the active one. */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "devices/block/qcow2_int.h"
#include "vmm/base/cleanup.h"

enum { ENTRY = 40, EXTRA = 24, EXTRA_MAX = 1024, ID_MAX = 32 };

/* ---- The table. ---- */

static void snapshot_fini(struct qcow2_snapshot *s)
{
    free(s->id);
    free(s->name);
    free(s->extra);
}

void qcow2_snapshots_fini(struct qcow2 *q)
{
    for (unsigned i = 0; q->snaps && i < q->h.nsnapshots; i++)
        snapshot_fini(&q->snaps[i]);
    free(q->snaps);
    q->snaps = NULL;
}

static uint64_t entry_bytes(const struct qcow2_snapshot *s)
{
    return align_up(ENTRY + s->extra_len + strlen(s->id) + strlen(s->name), 8);
}

uint64_t qcow2_snapshots_bytes(const struct qcow2 *q)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < q->h.nsnapshots; i++)
        n += entry_bytes(&q->snaps[i]);
    return n;
}

static bool sane(const struct qcow2 *q, const struct qcow2_snapshot *s)
{
    uint64_t per_l1 = (uint64_t)q->per_l2 << q->bits;

    if (s->l1_size > QCOW2_L1_MAX / 8 || s->l1_off & (q->cluster - 1) || s->l1_off > INT64_MAX - QCOW2_L1_MAX)
        return false;
    return s->disk_size <= INT64_MAX - per_l1 && (s->disk_size + per_l1 - 1) / per_l1 <= s->l1_size;
}

/* One entry at `off`; *len: its length. */
static int load_one(struct qcow2 *q, uint64_t off, struct qcow2_snapshot *s, uint64_t *len)
{
    uint8_t head[ENTRY];
    cleanup_free uint8_t *rest = NULL;
    uint32_t nid, nname;
    int rc = qcow2_meta_read(q, head, sizeof(head), off);

    if (rc)
        return rc;
    nid = get_be16(head + 12);
    nname = get_be16(head + 14);
    *s = (struct qcow2_snapshot){.l1_off = get_be64(head),
                                 .l1_size = get_be32(head + 8),
                                 .sec = get_be32(head + 16),
                                 .nsec = get_be32(head + 20),
                                 .vm_clock = get_be64(head + 24),
                                 .vm_size = get_be32(head + 32),
                                 .disk_size = q->h.size,
                                 .icount = UINT64_MAX,
                                 .extra_len = get_be32(head + 36)};
    if (s->extra_len > EXTRA_MAX)
        return -EINVAL;
    rest = calloc(1, s->extra_len + nid + nname + 1);
    if (!rest)
        return -ENOMEM;
    rc = s->extra_len + nid + nname ? qcow2_meta_read(q, rest, s->extra_len + nid + nname, off + ENTRY) : 0;
    if (rc)
        return rc;
    if (s->extra_len >= 8)
        s->vm_size = get_be64(rest);
    if (s->extra_len >= 16)
        s->disk_size = get_be64(rest + 8);
    if (s->extra_len >= EXTRA)
        s->icount = get_be64(rest + 16);
    if (!sane(q, s))
        return -EINVAL;
    *len = align_up(ENTRY + s->extra_len + nid + nname, 8);
    s->id = strndup((char *)rest + s->extra_len, nid);
    s->name = strndup((char *)rest + s->extra_len + nid, nname);
    s->extra = take_ptr(rest);
    return s->id && s->name ? 0 : -ENOMEM;
}

int qcow2_snapshots_load(struct qcow2 *q)
{
    uint64_t at = q->h.snapshots_off, len;

    q->snaps = calloc(q->h.nsnapshots + 1, sizeof(*q->snaps));
    if (!q->snaps)
        return -ENOMEM;
    for (unsigned i = 0; i < q->h.nsnapshots; i++, at += len) {
        int rc = load_one(q, at, &q->snaps[i], &len);

        if (!rc && at + len - q->h.snapshots_off > QCOW2_SNAPSHOT_TABLE_MAX)
            rc = -EINVAL;
        if (rc)
            return rc;
    }
    return 0;
}

const struct qcow2_snapshot *qcow2_snapshots(struct blk *b, unsigned *n)
{
    struct qcow2 *q = qcow2_of(b);

    *n = q->h.nsnapshots;
    return q->snaps;
}

const struct qcow2_snapshot *qcow2_snapshot_find(struct blk *b, const char *name)
{
    struct qcow2 *q = qcow2_of(b);

    for (unsigned i = 0; i < q->h.nsnapshots; i++)
        if (!strcmp(q->snaps[i].name, name))
            return &q->snaps[i];
    for (unsigned i = 0; i < q->h.nsnapshots; i++)
        if (!strcmp(q->snaps[i].id, name))
            return &q->snaps[i];
    return NULL;
}

static void put_entry(uint8_t *p, const struct qcow2_snapshot *s)
{
    uint16_t nid = (uint16_t)strlen(s->id), nname = (uint16_t)strlen(s->name);

    put_be64(p, s->l1_off);
    put_be32(p + 8, s->l1_size);
    put_be16(p + 12, nid);
    put_be16(p + 14, nname);
    put_be32(p + 16, s->sec);
    put_be32(p + 20, s->nsec);
    put_be64(p + 24, s->vm_clock);
    put_be32(p + 32, s->vm_size > UINT32_MAX ? UINT32_MAX : (uint32_t)s->vm_size);
    put_be32(p + 36, s->extra_len);
    memcpy(p + ENTRY, s->extra, s->extra_len);
    memcpy(p + ENTRY + s->extra_len, s->id, nid);
    memcpy(p + ENTRY + s->extra_len + nid, s->name, nname);
}

/* Writes `n` snapshots as a new table and has the header, which becomes `h`, name it. */
static int switch_table(struct qcow2 *q, const struct qcow2_snapshot *v, unsigned n, struct qcow2_header h)
{
    uint64_t bytes = 0, first = 0, at = 0, old = qcow2_snapshots_bytes(q), old_off = q->h.snapshots_off;
    cleanup_free uint8_t *table = NULL;
    int rc = 0;

    for (unsigned i = 0; i < n; i++)
        bytes += entry_bytes(&v[i]);
    if (bytes > QCOW2_SNAPSHOT_TABLE_MAX)
        return -EFBIG;
    if (bytes) {
        table = calloc(1, bytes);
        if (!table)
            return -ENOMEM;
        for (unsigned i = 0; i < n; at += entry_bytes(&v[i]), i++)
            put_entry(table + at, &v[i]);
        rc = qcow2_alloc_meta(q, qcow2_clusters(q, bytes), &first);
        if (!rc)
            rc = qcow2_meta_write(q, table, bytes, first << q->bits);
        if (!rc)
            rc = qcow2_commit(q);
    }
    h.nsnapshots = n;
    h.snapshots_off = first << q->bits;
    if (!rc)
        rc = qcow2_header_switch(q, &h);
    if (rc) {
        if (first && !q->broken)
            qcow2_unalloc(q, first, qcow2_clusters(q, bytes));
        return rc;
    }
    if (old)
        qcow2_free(q, old_off >> q->bits, qcow2_clusters(q, old), false);
    return 0;
}

/* ---- Whole trees of tables. ---- */

static int ref_entry(struct qcow2 *q, uint64_t desc)
{
    uint64_t off = desc & QCOW2_OFF_MASK, len = 1, now;
    int rc = 0;

    if (desc & QCOW2_PACKED)
        qcow2_packed_range(q, desc, &off, &len);
    else if (!off)
        return 0;
    for (uint64_t i = off >> q->bits; !rc && i <= (off + len - 1) >> q->bits; i++)
        rc = qcow2_ref_add(q, i, 1, &now);
    return rc;
}

/* Counts all that an L1 table leads to once more, or once less. */
static int ref_tree(struct qcow2 *q, const uint64_t *l1, uint32_t n, int delta)
{
    uint32_t per_slice = qcow2_per_slice(q);
    struct qcow2_set seen = {0};
    int rc = 0;

    for (uint32_t i = 0; !rc && i < n; i++) {
        uint64_t table = l1[i] & QCOW2_OFF_MASK;

        rc = table ? qcow2_set_add(&seen, table >> q->bits) : 0;
        if (rc == -EEXIST)
            rc = qcow2_corrupt(q, "two L1 entries name the L2 table at %#llx", (unsigned long long)table);
        for (uint64_t at = table; !rc && table && at < table + q->cluster; at += q->l2.unit) {
            struct qcow2_slice *s;

            rc = q->freed.n > QCOW2_FREES_MAX ? qcow2_commit(q) : 0;
            if (!rc)
                rc = qcow2_cache_get(q, &q->l2, at, &s);
            for (uint32_t k = 0; !rc && k < per_slice; k++) {
                uint64_t desc = get_be64(s->data + k * q->entry);

                if (delta > 0)
                    rc = ref_entry(q, desc);
                else
                    qcow2_free_entry(q, desc, true);
            }
        }
        if (!rc && table && delta > 0)
            rc = ref_entry(q, table);
        else if (!rc && table)
            qcow2_free(q, table >> q->bits, 1, true);
    }
    free(seen.slots);
    return rc;
}

/* The flag that belongs to the refcount of what an entry names. */
static int flag_of(struct qcow2 *q, uint64_t desc, uint64_t *ret)
{
    uint64_t refs;
    int rc;

    *ret = 0;
    if (desc & QCOW2_PACKED || !(desc & QCOW2_OFF_MASK))
        return 0;
    rc = qcow2_ref_get(q, (desc & QCOW2_OFF_MASK) >> q->bits, &refs);
    *ret = !rc && refs == 1 ? QCOW2_COPIED : 0;
    return rc;
}

static int fix_slice(struct qcow2 *q, uint64_t at, bool fix, uint64_t *wrong)
{
    struct qcow2_slice *s;
    int rc = qcow2_cache_get(q, &q->l2, at, &s);

    for (uint32_t k = 0; !rc && k < qcow2_per_slice(q); k++) {
        uint8_t *p = s->data + k * q->entry;
        uint64_t desc = get_be64(p), flag;
        struct qcow2_cl cl;

        if (!qcow2_parse(q, s, k, &cl)) /* means nothing */
            continue;
        rc = flag_of(q, desc, &flag);
        if (rc || (desc & QCOW2_COPIED) == flag)
            continue;
        (*wrong)++;
        if (!fix)
            continue;
        put_be64(p, (desc & ~QCOW2_COPIED) | flag);
        qcow2_cache_dirty(&q->l2, s);
        q->unsynced = true;
    }
    return rc;
}

int qcow2_fix_flags(struct qcow2 *q, uint64_t *l1, uint32_t n, bool fix, uint64_t *wrong)
{
    struct qcow2_set seen = {0};
    int rc = 0;

    for (uint32_t i = 0; q->data == q->b.file && !rc && i < n; i++) {
        uint64_t table = l1[i] & QCOW2_OFF_MASK, flag = 0;
        int known;

        if (!l1[i] || table & (q->cluster - 1) || table >= q->file_end) /* means nothing */
            continue;
        known = table ? qcow2_set_add(&seen, table >> q->bits) : -EEXIST;
        rc = known == -ENOMEM ? known : flag_of(q, table, &flag);
        for (uint64_t at = table; !rc && !known && at < table + q->cluster; at += q->l2.unit)
            rc = fix_slice(q, at, fix, wrong);
        if (rc || (table | flag) == l1[i])
            continue;
        (*wrong)++;
        if (fix && l1 == q->l1)
            qcow2_l1_set(q, i, table | flag);
        else if (fix)
            l1[i] = table | flag;
    }
    free(seen.slots);
    return rc;
}

/* ---- What is done with snapshots. ---- */

static int set_dirty(struct qcow2 *q, bool dirty)
{
    struct qcow2_header h = q->h;

    if (h.version < 3)
        return 0;
    h.incompat = dirty ? h.incompat | QCOW2_IN_DIRTY : h.incompat & ~QCOW2_IN_DIRTY;
    return qcow2_header_switch(q, &h);
}

/* With the lock held from here to end(): all is in the file, and will be counted anew should we not come to the end. */
static int begin(struct qcow2 *q, const char *verb, struct err *err)
{
    int rc;

    pthread_mutex_lock(&q->lock);
    rc = !q->writable || q->snapshot ? -EROFS : qcow2_begin(q);
    if (!rc && q->data != q->b.file)
        rc = -ENOTSUP;
    if (!rc)
        rc = qcow2_commit(q);
    if (!rc)
        rc = set_dirty(q, true);
    if (rc)
        pthread_mutex_unlock(&q->lock);
    return !rc ? 0
               : err_set(err, -rc, "%s: cannot %s a snapshot: %s", q->b.name, verb,
                         rc == -ENOTSUP ? "its data are in another file" : strerror(-rc));
}

static int end(struct qcow2 *q, const char *verb, int rc, struct err *err)
{
    struct blk_check found;
    bool mended = false;

    if (!rc)
        rc = qcow2_commit(q);
    if (!rc && q->rb.ndirty)
        rc = qcow2_commit_refcounts(q);
    if (!rc)
        rc = set_dirty(q, false);
    pthread_mutex_unlock(&q->lock);
    if (rc && !q->broken)
        mended = !qcow2_check(&q->b, BLK_FIX_ALL, &found, NULL);
    return rc ? err_set(err, -rc, "%s: cannot %s the snapshot: %s%s", q->b.name, verb,
                        rc == -ERANGE ? "its refcounts are too narrow to count one more" : strerror(-rc),
                        mended ? "" : "; mend the image with: bothy img check -r all")
              : 0;
}

static int put_l1(struct qcow2 *q, const uint64_t *l1, uint32_t n, uint64_t *first)
{
    int rc = qcow2_alloc_meta(q, max_u64(qcow2_clusters(q, n * 8ull), 1), first);

    return rc ? rc : qcow2_table_write(q, l1, n, *first << q->bits);
}

static bool has_id(const struct qcow2 *q, const char *id)
{
    for (unsigned i = 0; i < q->h.nsnapshots; i++)
        if (!strcmp(q->snaps[i].id, id))
            return true;
    return false;
}

static void new_snapshot(const struct qcow2 *q, const char *name, struct qcow2_snapshot *ret)
{
    struct timespec now;
    char id[ID_MAX];
    unsigned i = 1;

    do
        snprintf(id, sizeof(id), "%u", i++);
    while (has_id(q, id));
    clock_gettime(CLOCK_REALTIME, &now);
    *ret = (struct qcow2_snapshot){.id = xstrdup(id),
                                   .name = xstrdup(name),
                                   .l1_size = q->h.l1_size,
                                   .sec = (uint32_t)now.tv_sec,
                                   .nsec = (uint32_t)now.tv_nsec,
                                   .disk_size = q->h.size,
                                   .icount = UINT64_MAX,
                                   .extra = xcalloc(1, EXTRA),
                                   .extra_len = EXTRA};
    put_be64(ret->extra + 8, ret->disk_size);
    put_be64(ret->extra + 16, ret->icount);
}

int qcow2_snapshot_create(struct blk *b, const char *name, struct err *err)
{
    struct qcow2 *q = qcow2_of(b);
    struct qcow2_snapshot s, *v;
    uint64_t first, wrong = 0;
    int rc;

    if (qcow2_snapshot_find(b, name))
        return err_set(err, EEXIST, "%s already has a snapshot \"%s\"", b->name, name);
    if (!*name || strlen(name) > UINT8_MAX)
        return err_set(err, EINVAL, "a snapshot's name has 1 to %d bytes", UINT8_MAX);
    if (q->h.nsnapshots == QCOW2_SNAPSHOTS_MAX)
        return err_set(err, EMFILE, "%s has %d snapshots already, which is the limit", b->name, QCOW2_SNAPSHOTS_MAX);
    rc = begin(q, "create", err);
    if (rc)
        return rc;
    new_snapshot(q, name, &s);
    v = calloc(q->h.nsnapshots + 1, sizeof(*v));
    rc = v ? ref_tree(q, q->l1, q->h.l1_size, 1) : -ENOMEM;
    if (!rc)
        rc = qcow2_commit_refcounts(q);
    if (!rc)
        rc = qcow2_fix_flags(q, q->l1, q->h.l1_size, true, &wrong);
    if (!rc)
        rc = put_l1(q, q->l1, q->h.l1_size, &first);
    if (!rc) {
        s.l1_off = first << q->bits;
        memcpy(v, q->snaps, q->h.nsnapshots * sizeof(*v));
        v[q->h.nsnapshots] = s;
        rc = switch_table(q, v, q->h.nsnapshots + 1, q->h);
    }
    if (rc) {
        snapshot_fini(&s);
        free(v);
    } else {
        free(q->snaps);
        q->snaps = v;
    }
    return end(q, "create", rc, err);
}

static int no_such(const struct qcow2 *q, const char *name, struct err *err)
{
    return err_set(err, ENOENT, "%s has no snapshot \"%s\"; list them with: bothy img snapshot -l", q->b.name, name);
}

/* The snapshot's tree is counted as the active one's, then the header changes over, then the old tree is freed. */
static int apply(struct qcow2 *q, const struct qcow2_snapshot *s)
{
    cleanup_free uint64_t *l1 = malloc(s->l1_size * sizeof(*l1) + 1);
    uint64_t old_off = q->h.l1_off, first, wrong = 0;
    uint32_t old_size = q->h.l1_size;
    struct qcow2_header h = q->h;
    int rc = l1 ? qcow2_table_read(q, l1, s->l1_size, s->l1_off) : -ENOMEM;

    if (!rc)
        rc = ref_tree(q, l1, s->l1_size, 1);
    if (!rc)
        rc = qcow2_commit_refcounts(q);
    if (!rc)
        rc = qcow2_fix_flags(q, l1, s->l1_size, true, &wrong);
    if (!rc)
        rc = put_l1(q, l1, s->l1_size, &first);
    if (!rc)
        rc = qcow2_commit(q);
    if (rc)
        return rc;
    h.l1_off = first << q->bits;
    h.l1_size = s->l1_size;
    h.size = s->disk_size;
    rc = qcow2_header_switch(q, &h);
    if (rc)
        return rc;
    rc = ref_tree(q, q->l1, old_size, -1);
    free(q->l1);
    q->l1 = take_ptr(l1);
    q->b.lim.size = align_up(h.size, 512);
    for (uint32_t i = 0; i < h.l1_size; i++)
        if (q->l1[i] && qcow2_set_add(&q->meta, (q->l1[i] & QCOW2_OFF_MASK) >> q->bits) == -ENOMEM)
            rc = -ENOMEM;
    if (old_size)
        qcow2_free(q, old_off >> q->bits, max_u64(qcow2_clusters(q, old_size * 8ull), 1), false);
    if (!rc)
        rc = qcow2_commit(q);
    return rc ? rc : qcow2_fix_flags(q, q->l1, q->h.l1_size, true, &wrong);
}

int qcow2_snapshot_apply(struct blk *b, const char *name, struct err *err)
{
    const struct qcow2_snapshot *s = qcow2_snapshot_find(b, name);
    struct qcow2 *q = qcow2_of(b);
    int rc;

    if (!s)
        return no_such(q, name, err);
    rc = begin(q, "apply", err);
    return rc ? rc : end(q, "apply", apply(q, s), err);
}

int qcow2_snapshot_delete(struct blk *b, const char *name, struct err *err)
{
    const struct qcow2_snapshot *found = qcow2_snapshot_find(b, name);
    struct qcow2 *q = qcow2_of(b);
    cleanup_free uint64_t *l1 = NULL;
    struct qcow2_snapshot s, *v;
    uint64_t wrong = 0;
    unsigned i;
    int rc;

    if (!found)
        return no_such(q, name, err);
    rc = begin(q, "delete", err);
    if (rc)
        return rc;
    s = *found;
    i = (unsigned)(found - q->snaps);
    l1 = malloc(s.l1_size * sizeof(*l1) + 1);
    v = calloc(q->h.nsnapshots, sizeof(*v));
    rc = l1 && v ? qcow2_table_read(q, l1, s.l1_size, s.l1_off) : -ENOMEM;
    if (!rc) {
        memcpy(v, q->snaps, i * sizeof(*v));
        memcpy(v + i, q->snaps + i + 1, (q->h.nsnapshots - i - 1) * sizeof(*v));
        rc = switch_table(q, v, q->h.nsnapshots - 1, q->h);
    }
    if (rc) {
        free(v);
        return end(q, "delete", rc, err);
    }
    free(q->snaps);
    q->snaps = v;
    rc = ref_tree(q, l1, s.l1_size, -1);
    if (s.l1_off)
        qcow2_free(q, s.l1_off >> q->bits, max_u64(qcow2_clusters(q, s.l1_size * 8ull), 1), false);
    if (!rc)
        rc = qcow2_commit(q);
    if (!rc)
        rc = qcow2_fix_flags(q, q->l1, q->h.l1_size, true, &wrong);
    snapshot_fini(&s);
    return end(q, "delete", rc, err);
}
