/*
 * qcow2 images [QEMU docs/interop/qcow2.txt]: theory of operation, opening and closing, the roads of requests.
 *
 * Structure.  The image file is clusters.  The L1 table leads to L2 tables, whose entries say where each guest cluster
 * is; the refcount table leads to refcount blocks, which count how many entries name each cluster of the file.  L1 and
 * the refcount table are in memory whole (qcow2: l1, rt), L2 tables and refcount blocks by slices of 4 KiB in caches
 * for the whole image, up to 32 and 8 MiB (qcow2_meta.c).
 *
 * Locking.  One mutex is over all metadata in memory.  Metadata are read and written with it held, the guest's data
 * without it.  map(), in the lane, only tries to take it, and answers from what is cached.
 *
 * Writing (qcow2_io.c).  Where a cluster of our own is already, data go there directly, by map() or by rw().  Else
 * clusters are taken (their refcounts become 1 in the cache), the guest clusters are entered in a list of flights, for
 * which other writers of the same clusters wait; data are written, with what has to be copied around them; and the L2
 * entries are set in the cache.  The search for free clusters goes on where it last ended, so that what a guest writes
 * in sequence lies in sequence.  Clusters that the file never reached are known to be zeroes.
 *
 * Order.  Metadata go to the file at the guest's flush, when the cache of L2 tables is full of changed ones, and at
 * close (qcow2_commit):
 *     1. refcount blocks; if there are new ones: sync, the refcount table's entries;
 *     2. sync, which covers the guest's data as well;
 *     3. L2 tables; if there are new ones: sync, the L1 table's entries;
 *     4. sync; what was freed before 1 is now referenced by nothing in the file.
 * So whenever power fails, a cluster that a table names is counted and has its data.  What may be wrong then are counts
 * that are too high: leaks, which a check mends.  Refcount blocks may go out earlier, alone.  New tables are zeroed in
 * the file before anything can name them.  Since this order costs one sync more than none, lazy refcounts (which would
 * save writing counts) are not made use of, but the flag is kept; images that others left dirty are mended at open.
 * Changes that no order makes safe (snapshots) are done with the dirty bit set; version 2 has none, and flags of such
 * an image may be left wrong, which harms nobody, and a check mends it.
 *
 * Freeing.  A freed cluster must not be used anew while (a) a table in the file may name it, or (b) a request that
 * learnt its place earlier is still under way.  So it goes through three lists: `freed` until the end of the next
 * commit, for (a); `synced` until a new epoch can begin, and `drained` until all requests of the old epoch are through,
 * for (b).  Only then its refcount falls, and the host gets the space back if the guest discarded it.  An epoch is one
 * of two counters of requests; whoever looks a place up under the lock enters the current one, and leaves it after its
 * I/O.  The epoch turns only when the other counter is 0.
 *
 * Trust.  Nothing that the image says is used before it was checked.  All clusters that hold metadata are in a set
 * (qcow2: meta); before data are written or a cluster is taken, it is looked up there.  An image that fails this, or
 * whose entries mean nothing, is marked as corrupt and takes no more writes.
 */
#include "devices/block/qcow2.h"

#include <inttypes.h>
#include <stdio.h>

#include "devices/block/qcow2_int.h"
#include "vmm/base/cleanup.h"

enum { LOCK_TRIES = 64 };

/* ---- Opening. ---- */

static void set_geometry(struct qcow2 *q)
{
    const struct qcow2_header *h = &q->h;

    q->bits = h->cluster_bits;
    q->cluster = 1u << q->bits;
    q->grains = h->incompat & QCOW2_IN_EXTL2 ? 32 : 1;
    q->grain = q->cluster / q->grains;
    q->entry = q->grains > 1 ? 16 : 8;
    q->per_l2 = q->cluster / q->entry;
    q->per_rb = q->cluster * 8u >> h->refcount_order;
    q->ref_max = h->refcount_order == 6 ? UINT64_MAX : (1ull << (1u << h->refcount_order)) - 1;
    q->raw = h->autoclear & QCOW2_AU_RAW && h->incompat & QCOW2_IN_DATA_FILE;
    q->rt_size = h->rt_clusters << q->bits >> 3;
}

static int open_data_file(struct qcow2 *q, const struct blk_open_opts *o, struct err *err)
{
    cleanup_free char *name = qcow2_ext_string(&q->h, QCOW2_EXT_DATA_FILE);

    if (!(q->h.incompat & QCOW2_IN_DATA_FILE))
        return 0;
    if (!name)
        return err_set(err, EINVAL, "%s has its data in another file, but does not say in which", q->b.name);
    if (q->h.nsnapshots)
        return err_set(err, EINVAL, "%s is damaged: it has snapshots, but its data are in another file", q->b.name);
    return blk_open_named(&q->b, name, "file", q->writable, o, &q->data, err);
}

static int open_backing(struct qcow2 *q, const struct blk_open_opts *o, struct err *err)
{
    cleanup_free char *format = qcow2_backing_format(&q->b);

    if (!q->h.backing || o->no_backing)
        return 0;
    if (q->raw)
        return err_set(err, EINVAL, "%s is damaged: it has a backing file, but its data file stands for itself",
                       q->b.name);
    return blk_open_named(&q->b, q->h.backing, format, false, o, &q->b.backing, err);
}

static int load_tables(struct qcow2 *q, struct err *err)
{
    uint64_t l2_bytes = (uint64_t)q->h.l1_size << q->bits, rb_bytes = (uint64_t)q->rt_size << q->bits;
    uint32_t unit = (uint32_t)min_u64(q->cluster, QCOW2_SLICE);
    int rc = qcow2_cache_init(&q->l2, unit, min_u64(l2_bytes, QCOW2_L2_CACHE));

    if (!rc)
        rc = qcow2_cache_init(&q->rb, unit, min_u64(rb_bytes, QCOW2_RB_CACHE));
    q->l1 = malloc(q->h.l1_size * sizeof(*q->l1) + 1);
    q->rt = malloc(q->rt_size * sizeof(*q->rt));
    if (rc || !q->l1 || !q->rt)
        return err_set(err, ENOMEM, "%s: no memory for its tables", q->b.name);
    rc = qcow2_table_read(q, q->l1, q->h.l1_size, q->h.l1_off);
    if (!rc)
        rc = qcow2_table_read(q, q->rt, q->rt_size, q->h.rt_off);
    if (!rc)
        rc = qcow2_snapshots_load(q);
    if (rc)
        return err_set(err, -rc, "%s: its tables cannot be read: %s", q->b.name,
                       rc == -EINVAL ? "the snapshots make no sense" : strerror(-rc));
    rc = qcow2_bitmaps_load(q);
    if (rc)
        return err_set(err, -rc, "%s: its bitmaps cannot be read: %s", q->b.name,
                       rc == -EINVAL ? "they make no sense" : strerror(-rc));
    return 0;
}

static int show_snapshot(struct qcow2 *q, struct err *err)
{
    const struct qcow2_snapshot *s = q->snapshot ? qcow2_snapshot_find(&q->b, q->snapshot) : NULL;
    uint64_t *l1;

    if (!q->snapshot)
        return 0;
    if (!s)
        return err_set(err, ENOENT, "%s has no snapshot \"%s\"; list them with: bothy img snapshot -l", q->b.name,
                       q->snapshot);
    if (q->writable)
        return err_set(err, EROFS, "snapshot \"%s\" of %s can only be read; add ro", q->snapshot, q->b.name);
    l1 = realloc(q->l1, s->l1_size * sizeof(*l1) + 1);
    if (!l1)
        return err_set(err, ENOMEM, "%s: no memory for the snapshot's table", q->b.name);
    q->l1 = l1;
    if (qcow2_table_read(q, l1, s->l1_size, s->l1_off))
        return err_set(err, EIO, "%s: the table of snapshot \"%s\" cannot be read", q->b.name, q->snapshot);
    q->h.size = s->disk_size;
    q->h.l1_size = s->l1_size;
    return 0;
}

struct note {
    struct qcow2_visitor v;
    struct qcow2 *q;
    struct err *err;
    int rc;
};

static void note_range(struct qcow2_visitor *v, uint64_t off, uint64_t bytes, const char *what)
{
    struct note *note = container_of(v, struct note, v);
    struct qcow2 *q = note->q;

    for (uint64_t i = off >> q->bits, n = qcow2_clusters(q, bytes); n && !note->rc; i++, n--) {
        int rc = off & (q->cluster - 1) ? -EINVAL : q->meta.n == QCOW2_META_MAX ? -EFBIG : qcow2_set_add(&q->meta, i);

        if (rc)
            note->rc = err_set(note->err, -rc,
                               "%s is damaged: %s %s %#" PRIx64 "; mend it with: bothy img check -r all, or open it "
                               "with ro",
                               q->b.name, what,
                               rc == -EEXIST   ? "overlaps with other metadata at"
                               : rc == -EINVAL ? "is at an impossible place,"
                                               : "is too much metadata, at",
                               i << q->bits);
    }
}

/* Enters all metadata into the set. */
static int note_meta(struct qcow2 *q, struct err *err)
{
    struct note note = {.v = {note_range}, .q = q, .err = err};
    struct qcow2_visitor *v = &note.v;
    int rc;

    note_range(v, 0, q->cluster, "the header");
    note_range(v, q->h.l1_off, q->h.l1_size * 8ull, "the L1 table");
    note_range(v, q->h.rt_off, q->rt_size * 8ull, "the refcount table");
    note_range(v, q->h.snapshots_off, qcow2_snapshots_bytes(q), "the snapshot table");
    for (unsigned i = 0; i < q->h.nsnapshots; i++)
        note_range(v, q->snaps[i].l1_off, q->snaps[i].l1_size * 8ull, "a snapshot's L1 table");
    for (uint32_t i = 0; i < q->rt_size; i++)
        if (q->rt[i])
            note_range(v, q->rt[i], q->cluster, "a refcount block");
    for (uint32_t i = 0; i < q->h.l1_size; i++)
        if (q->l1[i] & QCOW2_OFF_MASK)
            note_range(v, q->l1[i] & QCOW2_OFF_MASK, q->cluster, "an L2 table");
    qcow2_crypt_visit(q, v);
    rc = qcow2_bitmaps_visit(q, v);
    if (rc && !note.rc)
        note.rc = err_set(err, -rc, "%s: its bitmaps cannot be read: %s", q->b.name, strerror(-rc));
    return note.rc;
}

static int prepare_writes(struct qcow2 *q, struct err *err)
{
    struct blk_check found;
    int rc;

    if (q->repair)
        return 0;
    if (q->h.incompat & QCOW2_IN_CORRUPT)
        return err_set(err, EIO, "%s is marked as damaged; mend it with: bothy img check -r all, or open it with ro",
                       q->b.name);
    rc = note_meta(q, err);
    if (rc)
        return rc;
    if (!(q->h.incompat & QCOW2_IN_DIRTY))
        return 0;
    log_msg(LOG_WARN, "%s was not closed properly: its refcounts are counted anew", q->b.name);
    return qcow2_check(&q->b, BLK_FIX_ALL, &found, err);
}

static int qcow2_open(struct blk *b, const struct blk_open_opts *o, struct err *err)
{
    struct qcow2 *q = qcow2_of(b);
    int rc;

    pthread_mutex_init(&q->lock, NULL);
    pthread_mutex_init(&q->unpacked_lock, NULL);
    pthread_cond_init(&q->landed, NULL);
    list_init(&q->flights);
    q->data = q->guest = b->file;
    q->writable = !o->read_only && !b->file->lim.read_only;
    q->file_end = b->file->lim.size;
    rc = qcow2_header_read(b->file, &q->h, err);
    if (rc)
        return rc;
    set_geometry(q);
    q->end = qcow2_clusters(q, q->file_end);
    rc = load_tables(q, err);
    if (!rc)
        rc = show_snapshot(q, err);
    if (!rc)
        rc = open_data_file(q, o, err);
    if (!rc)
        rc = qcow2_crypt_open(q, o, err);
    if (rc)
        return rc;
    b->lim = (struct blk_limits){.size = align_up(q->h.size, 512), .align = 512, .read_only = !q->writable};
    rc = open_backing(q, o, err);
    if (!rc && q->writable)
        rc = prepare_writes(q, err);
    return rc;
}

static int flush(struct qcow2 *q)
{
    bool clean;
    int rc = 0;

    pthread_mutex_lock(&q->lock);
    clean = !q->unsynced;
    if (!clean)
        rc = qcow2_commit(q);
    pthread_mutex_unlock(&q->lock);
    if (!clean)
        return rc;
    rc = q->data != q->b.file ? blk_flush(q->data) : 0;
    return rc ? rc : blk_flush(q->b.file);
}

static void pad_packed(struct qcow2 *q)
{
    static const uint8_t zeroes[512];

    /* Others read the last sector whole. */
    if (q->packed % 512 && qcow2_meta_write(q, zeroes, 512 - q->packed % 512, q->packed))
        log_msg(LOG_WARN, "%s: the last compressed cluster's sector is cut short", q->b.name);
}

static void qcow2_close(struct blk *b)
{
    struct qcow2 *q = qcow2_of(b);
    int rc = 0;

    if (q->changed && !q->broken) {
        pad_packed(q);
        rc = qcow2_bitmaps_store(q);
        if (!rc)
            rc = flush(q);
        if (!rc)
            rc = qcow2_commit(q); /* for what waits to be free */
        if (!rc && q->rb.ndirty)
            rc = qcow2_commit_refcounts(q);
        if (rc)
            log_msg(LOG_ERROR, "%s: what was written last may be lost: %s", b->name, strerror(-rc));
    }
    qcow2_crypt_close(q);
    if (q->data && q->data != b->file)
        blk_close(q->data);
    qcow2_unpacked_drop(q);
    qcow2_snapshots_fini(q);
    qcow2_bitmaps_fini(q);
    qcow2_header_fini(&q->h);
    qcow2_cache_fini(&q->l2);
    qcow2_cache_fini(&q->rb);
    free(q->l1);
    free(q->rt);
    free(q->meta.slots);
    free(q->freed.v);
    free(q->synced.v);
    free(q->drained.v);
    pthread_cond_destroy(&q->landed);
    pthread_mutex_destroy(&q->unpacked_lock);
    pthread_mutex_destroy(&q->lock);
}

int qcow2_attach(struct blk *file, struct blk **ret, struct err *err)
{
    const struct blk_open_opts o = {.no_backing = true, .keyless = true};
    struct blk *b = blk_node(&qcow2_driver, file->name, NULL);
    int rc;

    b->file = file;
    rc = qcow2_open(b, &o, err);
    if (!rc)
        *ret = b;
    else if (qcow2_detach(b))
        return rc;
    return rc;
}

int qcow2_detach(struct blk *b)
{
    int rc = qcow2_of(b)->changed ? blk_flush(b) : 0;

    qcow2_close(b);
    free(b->name);
    free(b);
    return rc;
}

int qcow2_start(struct qcow2 *q)
{
    struct qcow2_header h = q->h;
    int rc = 0;

    h.autoclear &= QCOW2_AU_BITMAPS | QCOW2_AU_RAW;
    if (h.autoclear != q->h.autoclear)
        rc = qcow2_header_switch(q, &h);
    if (!rc)
        rc = qcow2_bitmaps_start(q);
    q->started = !rc;
    q->changed = true;
    return rc;
}

/* ---- Requests. ---- */

static int qcow2_rw(struct blk *b, const struct blk_io *io)
{
    struct qcow2 *q = qcow2_of(b);

    switch (io->op) {
    case BLK_READ:
        return qcow2_read(q, io);
    case BLK_WRITE:
    case BLK_COPY:
        return qcow2_write(q, io);
    case BLK_FLUSH:
        return flush(q);
    case BLK_DISCARD:
        return qcow2_discard(q, io->off, io->len);
    case BLK_ZERO:
        return qcow2_zero(q, io);
    }
    return -EINVAL;
}

static void map_at(struct qcow2 *q, const struct blk_io *io, const struct qcow2_place *p, struct blk_map *ret)
{
    bool write = io->op == BLK_WRITE, beside_meta = q->data == q->b.file;

    if (q->guest != q->data) /* encrypted */
        return;
    if (write && (!p->ours || !q->started || q->broken))
        return;
    if (write && beside_meta && !qcow2_clear_of_meta(q, p->host, p->len))
        return;
    if (write && beside_meta)
        q->file_end = max_u64(q->file_end, p->host + p->len);
    if (write)
        qcow2_bitmaps_mark(q, io->off, p->len);
    *ret = (struct blk_map){.place = BLK_AT, .off = p->host, .len = p->len, .in = q->data, .held = q->writable};
    if (q->writable)
        ret->hold = qcow2_enter(q);
}

static void map_data(struct qcow2 *q, const struct blk_io *io, struct blk_map *ret)
{
    struct qcow2_place p;

    if (qcow2_lookup(q, io->off, io->len, true, &p))
        return;
    switch (p.kind) {
    case QCOW2_KIND_NONE:
        if (io->op == BLK_READ)
            *ret = (struct blk_map){.place = BLK_BACKING, .off = io->off, .len = p.len};
        return;
    case QCOW2_KIND_ZERO:
        if (io->op == BLK_READ)
            *ret = (struct blk_map){.place = BLK_ZEROES, .off = io->off, .len = p.len};
        return;
    case QCOW2_KIND_DATA:
        map_at(q, io, &p, ret);
        return;
    case QCOW2_KIND_PACKED:
        return;
    }
}

static void qcow2_map(struct blk *b, const struct blk_io *io, struct blk_map *ret)
{
    struct qcow2 *q = qcow2_of(b);
    unsigned tries = LOCK_TRIES;

    /* Whoever looks something up has it for a moment, and a worker costs more than that. */
    while (pthread_mutex_trylock(&q->lock)) {
        if (!--tries)
            return;
        __builtin_ia32_pause();
    }
    if (io->op != BLK_FLUSH)
        map_data(q, io, ret);
    else if (!q->unsynced && q->data == q->b.file)
        ret->place = BLK_AT;
    pthread_mutex_unlock(&q->lock);
}

static void qcow2_kick(struct blk *b)
{
    struct qcow2 *q = qcow2_of(b);

    if (q->data != b->file) /* which the core does not know of */
        blk_kick(q->data);
}

static void qcow2_release(struct blk *b, unsigned hold)
{
    qcow2_leave(qcow2_of(b), hold);
}

/* ---- What it is like. ---- */

static int qcow2_status(struct blk *b, uint64_t off, uint64_t len, struct blk_status *ret)
{
    static const enum blk_place places[] = {[QCOW2_KIND_NONE] = BLK_BACKING,
                                            [QCOW2_KIND_ZERO] = BLK_ZEROES,
                                            [QCOW2_KIND_DATA] = BLK_AT,
                                            [QCOW2_KIND_PACKED] = BLK_AT};
    struct qcow2 *q = qcow2_of(b);
    struct qcow2_place p;
    int rc;

    pthread_mutex_lock(&q->lock);
    rc = qcow2_lookup(q, off, len, false, &p);
    pthread_mutex_unlock(&q->lock);
    if (rc)
        return rc;
    *ret = (struct blk_status){.place = places[p.kind],
                               .len = p.len,
                               .has_off = p.kind == QCOW2_KIND_DATA && q->guest == b->file,
                               .off = p.host,
                               .compressed = p.kind == QCOW2_KIND_PACKED};
    return 0;
}

static uint32_t qcow2_cluster_size(struct blk *b)
{
    return qcow2_of(b)->cluster;
}

static json_t *bitmaps_info(struct blk *b)
{
    json_t *list = json_array(), *flags;
    struct qcow2_bitmap_info m;

    for (unsigned i = 0; qcow2_bitmap_get(b, i, &m); i++) {
        flags = json_array();
        if (m.in_use)
            json_array_append_new(flags, json_string("in-use"));
        if (m.enabled)
            json_array_append_new(flags, json_string("auto"));
        json_array_append_new(list, json_pack("{s:o, s:s, s:I}", "flags", flags, "name", m.name, "granularity",
                                              (json_int_t)m.granularity));
    }
    return list;
}

static json_t *qcow2_info(struct blk *b)
{
    struct qcow2 *q = qcow2_of(b);
    const struct qcow2_header *h = &q->h;
    cleanup_free char *data_file = qcow2_ext_string(h, QCOW2_EXT_DATA_FILE);
    json_t *j = json_pack("{s:s, s:s, s:i}", "compat", h->version < 3 ? "0.10" : "1.1", "compression-type",
                          h->packing ? "zstd" : "zlib", "refcount-bits", 1 << h->refcount_order);

    json_object_set_new(j, "dirty-flag", json_boolean(h->incompat & QCOW2_IN_DIRTY));
    if (qcow2_encrypted(q)) {
        json_object_set_new(j, "encrypted", json_true());
        json_object_set_new(j, "encrypt", qcow2_crypt_info(q));
    }
    if (h->version < 3)
        return j;
    json_object_set_new(j, "lazy-refcounts", json_boolean(h->compat & QCOW2_CO_LAZY));
    json_object_set_new(j, "corrupt", json_boolean(h->incompat & QCOW2_IN_CORRUPT));
    json_object_set_new(j, "extended-l2", json_boolean(q->grains > 1));
    if (q->bitmaps)
        json_object_set_new(j, "bitmaps", bitmaps_info(b));
    if (data_file) {
        json_object_set_new(j, "data-file", json_string(data_file));
        json_object_set_new(j, "data-file-raw", json_boolean(q->raw));
    }
    return j;
}

const char *qcow2_backing_name(struct blk *b)
{
    return qcow2_of(b)->h.backing;
}

char *qcow2_backing_format(struct blk *b)
{
    return qcow2_ext_string(&qcow2_of(b)->h, QCOW2_EXT_BACKING_FORMAT);
}

int qcow2_set_backing(struct blk *b, const char *name, const char *format, struct err *err)
{
    struct qcow2 *q = qcow2_of(b);
    cleanup_free char *was = NULL;
    int rc;

    if (name && q->raw)
        return err_set(err, EINVAL, "%s has a raw data file, which cannot be based on another image", b->name);
    if (name && (!*name || strlen(name) > QCOW2_NAME_MAX))
        return err_set(err, EINVAL, "%s: a backing file's name has 1 to %d bytes", b->name, QCOW2_NAME_MAX);
    pthread_mutex_lock(&q->lock);
    rc = qcow2_begin(q);
    if (!rc)
        rc = qcow2_commit(q);
    if (!rc) {
        was = q->h.backing;
        q->h.backing = name ? xstrdup(name) : NULL;
        qcow2_ext_set(&q->h, QCOW2_EXT_BACKING_FORMAT, name ? format : NULL, format ? (uint32_t)strlen(format) : 0);
        rc = qcow2_header_write(b->file, &q->h);
    }
    if (!rc)
        rc = blk_flush(b->file);
    pthread_mutex_unlock(&q->lock);
    if (rc == -ENOSPC)
        return err_set(err, ENOSPC, "%s: the backing file's name does not fit into the header", b->name);
    return rc ? err_set(err, -rc, "%s: write header: %s", b->name, strerror(-rc)) : 0;
}

static bool qcow2_probe(const uint8_t *head, size_t n, const uint8_t *tail)
{
    (void)tail;
    return n >= 8 && get_be32(head) == QCOW2_MAGIC;
}

static const char *const endings[] = {"qcow2", "qcow", NULL};
static const struct opt opts[] = {
    O_STR(struct qcow2, snapshot, "snapshot-name", NULL, "read this snapshot inside the image, by name or id"),
    O_BOOL(struct qcow2, repair, "repair", "off", "open what is damaged as it is, for a check"),
    O_END,
};

const struct blk_driver qcow2_driver = {
    .name = "qcow2",
    .summary = "grows as it is written to; snapshots, compression, based on another image",
    .endings = endings,
    .size = sizeof(struct qcow2),
    .copies = true,
    .opts = opts,
    .probe = qcow2_probe,
    .open = qcow2_open,
    .close = qcow2_close,
    .rw = qcow2_rw,
    .map = qcow2_map,
    .kick = qcow2_kick,
    .release = qcow2_release,
    .status = qcow2_status,
    .write_compressed = qcow2_write_compressed,
    .resize = qcow2_resize,
    .check = qcow2_check,
    .info = qcow2_info,
    .cluster = qcow2_cluster_size,
    .create = qcow2_create,
    .overhead = qcow2_overhead,
    .create_opts = qcow2_create_opts,
    .create_size = sizeof(struct qcow2_create),
    .amend = qcow2_amend,
    .amend_opts = qcow2_amend_opts,
    .amend_size = sizeof(struct qcow2_amend),
};
