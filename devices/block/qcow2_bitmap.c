/*
 * Bitmaps of changed blocks that are kept in a qcow2 image [QEMU docs/interop/qcow2, "Bitmaps"].
 *
 * Those that follow writes are loaded before the first write, and marked in the file as in use; every write sets its
 * bits in memory; at close they are stored, and the mark is taken away.  So after a crash they are known to be
 * incomplete.  The directory is never changed in place but for flags; while the header's extension is written anew, the
 * header says that bitmaps are inconsistent.
 */
#include <inttypes.h>
#include <stdio.h>

#include "devices/block/qcow2_int.h"
#include "vmm/base/cleanup.h"

enum {
    ENTRY = 24,
    EXT = 24,
    FLAGS_AT = 12,
    COUNT_MAX = 65535,
    DIR_MAX = 64 << 20,
    TABLE_MAX = 32 << 20,
    IN_USE = 1,
    AUTO = 2,
    EXTRA_OK = 4,
    TYPE_DIRTY = 1,
    GRAIN_MIN = 9,
    GRAIN_MAX = 31,
    BITS_MAX = 256 << 20, /* bytes of all bitmaps that are in memory */
};

struct qcow2_bitmap {
    char *name;
    uint64_t table_off, at; /* at: of the entry in the directory */
    uint32_t table_size, flags, extra_len;
    uint8_t type, grain_bits;
    uint8_t *extra;
    uint8_t *bits; /* NULL: not in memory */
};

struct qcow2_bitmaps {
    uint64_t off, bytes; /* of the directory */
    unsigned n;
    struct qcow2_bitmap v[];
};

static uint64_t bitmap_bytes(const struct qcow2 *q, const struct qcow2_bitmap *m)
{
    uint64_t bits = (q->h.size >> m->grain_bits) + !!(q->h.size & ((1ull << m->grain_bits) - 1));

    return (bits + 7) / 8;
}

static bool usable(const struct qcow2 *q, const struct qcow2_bitmap *m)
{
    return m->type == TYPE_DIRTY && !(m->flags & IN_USE) && (!m->extra_len || m->flags & EXTRA_OK) &&
           m->grain_bits >= GRAIN_MIN && m->grain_bits <= GRAIN_MAX &&
           m->table_size == qcow2_clusters(q, bitmap_bytes(q, m));
}

/* ---- The directory. ---- */

static void free_all(struct qcow2_bitmaps *all)
{
    for (unsigned i = 0; all && i < all->n; i++) {
        free(all->v[i].name);
        free(all->v[i].extra);
        free(all->v[i].bits);
    }
    free(all);
}

void qcow2_bitmaps_fini(struct qcow2 *q)
{
    free_all(q->bitmaps);
    q->bitmaps = NULL;
}

static int load_one(const struct qcow2 *q, const uint8_t *p, uint64_t room, struct qcow2_bitmap *m, uint64_t *len)
{
    uint32_t name;

    if (room < ENTRY)
        return -EINVAL;
    m->table_off = get_be64(p);
    m->table_size = get_be32(p + 8);
    m->flags = get_be32(p + FLAGS_AT);
    m->type = p[16];
    m->grain_bits = p[17];
    name = get_be16(p + 18);
    m->extra_len = get_be32(p + 20);
    if (!name || name > QCOW2_NAME_MAX || m->extra_len > room - ENTRY || name > room - ENTRY - m->extra_len)
        return -EINVAL;
    if (m->grain_bits > 63 || m->table_size > TABLE_MAX / 8 || m->table_off & (q->cluster - 1) ||
        m->table_off > INT64_MAX - TABLE_MAX)
        return -EINVAL;
    *len = align_up(ENTRY + m->extra_len + name, 8);
    if (*len > room)
        return -EINVAL;
    m->extra = xcalloc(1, m->extra_len); /* at most DIR_MAX in all */
    memcpy(m->extra, p + ENTRY, m->extra_len);
    m->name = strndup((const char *)p + ENTRY + m->extra_len, name);
    return m->name ? 0 : -ENOMEM;
}

int qcow2_bitmaps_load(struct qcow2 *q)
{
    const struct qcow2_ext *e = qcow2_ext_find(&q->h, QCOW2_EXT_BITMAPS);
    uint64_t bytes, off, len, at = 0;
    cleanup_free uint8_t *dir = NULL;
    int rc = 0;
    uint32_t n;

    if (!(q->h.autoclear & QCOW2_AU_BITMAPS))
        return 0; /* whatever an extension says holds no more */
    if (!e || e->len != EXT)
        return -EINVAL;
    n = get_be32(e->data);
    bytes = get_be64(e->data + 8);
    off = get_be64(e->data + 16);
    if (!n || n > COUNT_MAX || bytes < (uint64_t)n * ENTRY || bytes > DIR_MAX || off & (q->cluster - 1) ||
        off > INT64_MAX - DIR_MAX)
        return -EINVAL;
    dir = malloc(bytes);
    q->bitmaps = calloc(1, sizeof(*q->bitmaps) + n * sizeof(q->bitmaps->v[0]));
    if (!dir || !q->bitmaps)
        return -ENOMEM;
    q->bitmaps->off = off;
    q->bitmaps->bytes = bytes;
    q->bitmaps->n = n;
    rc = qcow2_meta_read(q, dir, bytes, off);
    for (uint32_t i = 0; !rc && i < n; i++, at += len) {
        q->bitmaps->v[i].at = off + at;
        rc = load_one(q, dir + at, bytes - at, &q->bitmaps->v[i], &len);
    }
    return rc;
}

int qcow2_bitmaps_visit(struct qcow2 *q, struct qcow2_visitor *v)
{
    const struct qcow2_bitmaps *all = q->bitmaps;
    int rc = 0;

    if (!all)
        return 0;
    v->range(v, all->off, all->bytes, "the bitmap directory");
    for (unsigned i = 0; !rc && i < all->n; i++) {
        const struct qcow2_bitmap *m = &all->v[i];
        cleanup_free uint64_t *table = malloc(m->table_size * sizeof(*table) + 1);

        v->range(v, m->table_off, m->table_size * 8ull, "a bitmap's table");
        rc = table ? qcow2_table_read(q, table, m->table_size, m->table_off) : -ENOMEM;
        for (uint32_t k = 0; !rc && k < m->table_size; k++)
            if (table[k] & QCOW2_OFF_MASK)
                v->range(v, table[k] & QCOW2_OFF_MASK, q->cluster, "a bitmap's data");
    }
    return rc;
}

static uint64_t entry_bytes(const struct qcow2_bitmap *m)
{
    return align_up(ENTRY + m->extra_len + strlen(m->name), 8);
}

/* The header's extension for a directory of `n` entries. */
static int switch_extension(struct qcow2 *q, unsigned n, uint64_t off, uint64_t bytes)
{
    struct qcow2_header h = q->h;
    uint8_t ext[EXT] = {0};
    int rc;

    h.autoclear &= ~QCOW2_AU_BITMAPS;
    rc = qcow2_header_switch(q, &h);
    if (rc)
        return rc;
    put_be32(ext, n);
    put_be64(ext + 8, bytes);
    put_be64(ext + 16, off);
    qcow2_ext_set(&q->h, QCOW2_EXT_BITMAPS, n ? ext : NULL, sizeof(ext));
    rc = qcow2_header_write(q->b.file, &q->h);
    if (!rc)
        rc = blk_flush(q->b.file);
    h = q->h;
    h.autoclear |= n ? QCOW2_AU_BITMAPS : 0;
    if (!rc && n)
        rc = qcow2_header_switch(q, &h);
    return rc;
}

/* Writes the directory of q->bitmaps anew, in a new place; the old one, of `old_bytes` at `old_off`, is freed. */
static int write_directory(struct qcow2 *q, uint64_t old_off, uint64_t old_bytes)
{
    struct qcow2_bitmaps *all = q->bitmaps;
    cleanup_free uint8_t *dir = NULL;
    uint64_t first = 0, at = 0;
    int rc = 0;

    all->bytes = 0;
    for (unsigned i = 0; i < all->n; i++)
        all->bytes += entry_bytes(&all->v[i]);
    if (all->bytes > DIR_MAX)
        return -EFBIG;
    dir = calloc(1, all->bytes + 1);
    if (!dir)
        return -ENOMEM;
    if (all->n)
        rc = qcow2_alloc_meta(q, qcow2_clusters(q, all->bytes), &first);
    all->off = first << q->bits;
    for (unsigned i = 0; i < all->n; i++) {
        struct qcow2_bitmap *m = &all->v[i];
        uint8_t *p = dir + at;

        put_be64(p, m->table_off);
        put_be32(p + 8, m->table_size);
        put_be32(p + FLAGS_AT, m->flags);
        p[16] = m->type;
        p[17] = m->grain_bits;
        put_be16(p + 18, (uint16_t)strlen(m->name));
        put_be32(p + 20, m->extra_len);
        memcpy(p + ENTRY, m->extra, m->extra_len);
        memcpy(p + ENTRY + m->extra_len, m->name, strlen(m->name));
        m->at = all->off + at;
        at += entry_bytes(m);
    }
    if (!rc && all->n)
        rc = qcow2_meta_write(q, dir, all->bytes, all->off);
    if (!rc)
        rc = qcow2_commit(q);
    if (!rc)
        rc = switch_extension(q, all->n, all->off, all->bytes);
    if (!rc && old_bytes)
        qcow2_free(q, old_off >> q->bits, qcow2_clusters(q, old_bytes), false);
    return rc;
}

static int write_flags(struct qcow2 *q, struct qcow2_bitmap *m, uint32_t flags)
{
    uint8_t be[4];
    int rc;

    put_be32(be, flags);
    rc = qcow2_meta_write(q, be, sizeof(be), m->at + FLAGS_AT);
    if (!rc)
        m->flags = flags;
    return rc;
}

/* ---- Bits. ---- */

static void set_bits(struct qcow2_bitmap *m, uint64_t first, uint64_t last)
{
    for (uint64_t i = first; i <= last;) {
        if (!(i % 8) && last - i >= 7) {
            m->bits[i / 8] = 0xff;
            i += 8;
        } else {
            m->bits[i / 8] |= (uint8_t)(1u << i % 8);
            i++;
        }
    }
}

void qcow2_bitmaps_mark(struct qcow2 *q, uint64_t off, uint64_t len)
{
    for (unsigned i = 0; q->bitmaps && i < q->bitmaps->n; i++) {
        struct qcow2_bitmap *m = &q->bitmaps->v[i];

        if (m->bits && m->flags & AUTO)
            set_bits(m, off >> m->grain_bits, (min_u64(off + len, q->h.size) - 1) >> m->grain_bits);
    }
}

/* The bits as the file has them, in m->bits. */
static int load_bits(struct qcow2 *q, struct qcow2_bitmap *m)
{
    uint64_t bytes = bitmap_bytes(q, m);
    cleanup_free uint64_t *table = malloc(m->table_size * sizeof(*table) + 1);
    cleanup_free uint8_t *bits = calloc(1, bytes + 1);
    int rc = table && bits ? qcow2_table_read(q, table, m->table_size, m->table_off) : -ENOMEM;

    for (uint32_t i = 0; !rc && i < m->table_size; i++) {
        uint64_t at = (uint64_t)i << q->bits, n = min_u64(q->cluster, bytes - at), off = table[i] & QCOW2_OFF_MASK;

        if (off & (q->cluster - 1) || table[i] & ~(QCOW2_OFF_MASK | 1))
            rc = -EINVAL;
        else if (off)
            rc = qcow2_meta_read(q, bits + at, n, off);
        else
            memset(bits + at, table[i] & 1 ? 0xff : 0, n);
    }
    if (!rc)
        m->bits = take_ptr(bits);
    return rc;
}

/* One cluster of bits, `n` bytes of which are there; *entry: its table entry, before and after. */
static int store_cluster(struct qcow2 *q, const uint8_t *bits, uint64_t n, uint8_t *buf, uint64_t *entry)
{
    uint64_t first;
    int rc;

    memcpy(buf, bits, n);
    memset(buf + n, 0, q->cluster - n);
    if (!buf[0] && !memcmp(buf, buf + 1, q->cluster - 1)) {
        if (*entry & QCOW2_OFF_MASK)
            qcow2_free(q, *entry >> q->bits, 1, false);
        *entry = 0;
        return 0;
    }
    if (!(*entry & QCOW2_OFF_MASK)) {
        rc = qcow2_alloc_meta(q, 1, &first);
        if (rc)
            return rc;
        *entry = first << q->bits;
    }
    return qcow2_meta_write(q, buf, q->cluster, *entry);
}

static int store_bits(struct qcow2 *q, struct qcow2_bitmap *m)
{
    uint64_t bytes = bitmap_bytes(q, m), bits = (q->h.size + (1ull << m->grain_bits) - 1) >> m->grain_bits;
    cleanup_free uint64_t *table = malloc(m->table_size * sizeof(*table) + 1);
    cleanup_free uint8_t *buf = malloc(q->cluster);
    int rc = table && buf ? qcow2_table_read(q, table, m->table_size, m->table_off) : -ENOMEM;

    if (bits % 8)
        m->bits[bytes - 1] &= (uint8_t)((1u << bits % 8) - 1);
    for (uint32_t i = 0; !rc && i < m->table_size; i++) {
        uint64_t at = (uint64_t)i << q->bits;

        rc = store_cluster(q, m->bits + at, min_u64(q->cluster, bytes - at), buf, &table[i]);
    }
    if (!rc)
        rc = qcow2_commit(q);
    return rc ? rc : qcow2_table_write(q, table, m->table_size, m->table_off);
}

/* ---- From the first write on, and at the end. ---- */

int qcow2_bitmaps_start(struct qcow2 *q)
{
    uint64_t room = BITS_MAX;
    bool any = false;
    int rc = 0;

    for (unsigned i = 0; !rc && q->bitmaps && i < q->bitmaps->n; i++) {
        struct qcow2_bitmap *m = &q->bitmaps->v[i];
        uint64_t bytes = bitmap_bytes(q, m);

        if (!(m->flags & AUTO) || m->flags & IN_USE)
            continue;
        /* What we cannot follow stays marked as in use, and so as incomplete. */
        if (usable(q, m) && bytes <= room) {
            room -= bytes;
            rc = load_bits(q, m);
        }
        if (!rc)
            rc = write_flags(q, m, m->flags | IN_USE);
        any = true;
    }
    return rc || !any ? rc : blk_flush(q->b.file);
}

int qcow2_bitmaps_store(struct qcow2 *q)
{
    bool any = false;
    int rc = 0;

    for (unsigned i = 0; !rc && q->bitmaps && i < q->bitmaps->n; i++)
        if (q->bitmaps->v[i].bits) {
            rc = store_bits(q, &q->bitmaps->v[i]);
            any = true;
        }
    if (!any)
        return rc;
    if (!rc)
        rc = blk_flush(q->b.file);
    for (unsigned i = 0; !rc && i < q->bitmaps->n; i++) {
        struct qcow2_bitmap *m = &q->bitmaps->v[i];

        if (m->bits) {
            rc = write_flags(q, m, m->flags & ~(uint32_t)IN_USE);
            free(take_ptr(m->bits));
        }
    }
    q->started = false; /* the next write loads them again */
    return rc ? rc : blk_flush(q->b.file);
}

/* ---- What is done with bitmaps. ---- */

static struct qcow2_bitmap *find(const struct qcow2 *q, const char *name)
{
    for (unsigned i = 0; q->bitmaps && i < q->bitmaps->n; i++)
        if (!strcmp(q->bitmaps->v[i].name, name))
            return &q->bitmaps->v[i];
    return NULL;
}

bool qcow2_bitmap_get(struct blk *b, unsigned i, struct qcow2_bitmap_info *ret)
{
    const struct qcow2 *q = qcow2_of(b);
    const struct qcow2_bitmap *m;

    if (!q->bitmaps || i >= q->bitmaps->n)
        return false;
    m = &q->bitmaps->v[i];
    *ret = (struct qcow2_bitmap_info){
        .name = m->name, .granularity = 1ull << m->grain_bits, .in_use = m->flags & IN_USE, .enabled = m->flags & AUTO};
    return true;
}

static int failed(const struct qcow2 *q, const char *verb, const char *name, int rc, struct err *err)
{
    return err_set(err, -rc, "%s: cannot %s bitmap \"%s\": %s", q->b.name, verb, name, strerror(-rc));
}

/* Begins a change of bitmap `name`, with its bits in memory; the lock is held until finish(). */
static int begin(struct qcow2 *q, const char *verb, const char *name, struct qcow2_bitmap **ret, struct err *err)
{
    struct qcow2_bitmap *m;
    int rc;

    pthread_mutex_lock(&q->lock);
    m = find(q, name);
    if (!m) {
        pthread_mutex_unlock(&q->lock);
        return err_set(err, ENOENT, "%s has no bitmap \"%s\"", q->b.name, name);
    }
    rc = q->writable ? 0 : -EROFS;
    if (!rc && !(m->flags & AUTO) && !usable(q, m)) {
        pthread_mutex_unlock(&q->lock);
        return err_set(err, EINVAL, "%s: bitmap \"%s\" is incomplete, since it was not closed properly; remove it",
                       q->b.name, name);
    }
    if (!rc)
        rc = qcow2_begin(q);
    if (!rc && !m->bits && usable(q, m)) {
        rc = load_bits(q, m);
        if (!rc)
            rc = write_flags(q, m, m->flags | IN_USE);
    }
    if (!rc && !m->bits)
        rc = -EINVAL;
    if (rc) {
        pthread_mutex_unlock(&q->lock);
        return failed(q, verb, name, rc, err);
    }
    *ret = m;
    return 0;
}

static int finish(struct qcow2 *q, const char *verb, const char *name, int rc, struct err *err)
{
    if (!rc)
        rc = qcow2_bitmaps_store(q);
    if (!rc)
        rc = qcow2_commit(q);
    pthread_mutex_unlock(&q->lock);
    return rc ? failed(q, verb, name, rc, err) : 0;
}

int qcow2_bitmap_clear(struct blk *b, const char *name, struct err *err)
{
    struct qcow2 *q = qcow2_of(b);
    struct qcow2_bitmap *m;
    int rc = begin(q, "clear", name, &m, err);

    if (rc)
        return rc;
    memset(m->bits, 0, bitmap_bytes(q, m));
    return finish(q, "clear", name, 0, err);
}

int qcow2_bitmap_enable(struct blk *b, const char *name, bool on, struct err *err)
{
    struct qcow2 *q = qcow2_of(b);
    struct qcow2_bitmap *m;
    int rc = begin(q, on ? "enable" : "disable", name, &m, err);

    if (rc)
        return rc;
    m->flags = on ? m->flags | AUTO : m->flags & ~(uint32_t)AUTO;
    return finish(q, on ? "enable" : "disable", name, 0, err);
}

static int new_bitmap(struct qcow2 *q, const char *name, uint32_t granularity, bool enabled, struct qcow2_bitmap *m)
{
    uint64_t first;
    int rc;

    *m = (struct qcow2_bitmap){
        .flags = enabled ? AUTO : 0, .type = TYPE_DIRTY, .grain_bits = (uint8_t)__builtin_ctz(granularity)};
    m->table_size = (uint32_t)qcow2_clusters(q, bitmap_bytes(q, m));
    if (m->table_size > TABLE_MAX / 8)
        return -EFBIG;
    rc = qcow2_alloc_meta(q, max_u64(qcow2_clusters(q, m->table_size * 8ull), 1), &first);
    if (rc)
        return rc;
    m->table_off = first << q->bits;
    m->name = xstrdup(name);
    m->extra = xcalloc(1, 0);
    return 0;
}

int qcow2_bitmap_add(struct blk *b, const char *name, uint32_t granularity, bool enabled, struct err *err)
{
    struct qcow2 *q = qcow2_of(b);
    struct qcow2_bitmaps *all = q->bitmaps, *more;
    unsigned n = all ? all->n : 0;
    int rc;

    if (q->h.version < 3)
        return err_set(err, ENOTSUP, "%s: bitmaps need version 3; make the image with compat=1.1", b->name);
    if (!*name || strlen(name) > QCOW2_NAME_MAX)
        return err_set(err, EINVAL, "a bitmap's name has 1 to %d bytes", QCOW2_NAME_MAX);
    if (find(q, name))
        return err_set(err, EEXIST, "%s already has a bitmap \"%s\"", b->name, name);
    if (!is_pow2(granularity) || granularity < 1u << GRAIN_MIN || granularity > 1u << GRAIN_MAX)
        return err_set(err, EINVAL, "a bitmap's granularity is a power of two from 512 to 2G");
    if (n == COUNT_MAX)
        return err_set(err, EMFILE, "%s has %d bitmaps already, which is the limit", b->name, COUNT_MAX);
    pthread_mutex_lock(&q->lock);
    rc = q->writable ? qcow2_begin(q) : -EROFS;
    more = !rc ? realloc(all, sizeof(*more) + (n + 1) * sizeof(more->v[0])) : NULL;
    if (!rc && !more)
        rc = -ENOMEM;
    if (!rc) {
        if (!all)
            *more = (struct qcow2_bitmaps){0};
        q->bitmaps = more;
        rc = new_bitmap(q, name, granularity, enabled, &more->v[n]);
    }
    if (!rc) {
        more->n++;
        rc = write_directory(q, more->off, more->bytes);
    }
    q->started = false; /* it is loaded before the next write */
    return finish(q, "add", name, rc, err);
}

int qcow2_bitmap_remove(struct blk *b, const char *name, struct err *err)
{
    struct qcow2 *q = qcow2_of(b);
    cleanup_free uint64_t *table = NULL;
    struct qcow2_bitmap *m, gone;
    int rc;

    pthread_mutex_lock(&q->lock);
    m = find(q, name);
    if (!m) {
        pthread_mutex_unlock(&q->lock);
        return err_set(err, ENOENT, "%s has no bitmap \"%s\"", b->name, name);
    }
    gone = *m;
    table = malloc(gone.table_size * sizeof(*table) + 1);
    rc = q->writable ? qcow2_begin(q) : -EROFS;
    gone.bits = m->bits;
    if (!rc)
        rc = table ? qcow2_table_read(q, table, gone.table_size, gone.table_off) : -ENOMEM;
    if (!rc) {
        struct qcow2_bitmaps *all = q->bitmaps;

        memmove(m, m + 1, (size_t)(all->v + all->n - (m + 1)) * sizeof(*m));
        all->n--;
        rc = write_directory(q, all->off, all->bytes);
        for (uint32_t i = 0; !rc && i < gone.table_size; i++)
            if (table[i] & QCOW2_OFF_MASK)
                qcow2_free(q, (table[i] & QCOW2_OFF_MASK) >> q->bits, 1, false);
        if (!rc)
            qcow2_free(q, gone.table_off >> q->bits, max_u64(qcow2_clusters(q, gone.table_size * 8ull), 1), false);
        free(gone.name);
        free(gone.extra);
        free(gone.bits);
        if (!rc && !all->n)
            qcow2_bitmaps_fini(q);
    }
    return finish(q, "remove", name, rc, err);
}

static void merge_bits(struct qcow2 *to_q, struct qcow2_bitmap *to, struct qcow2 *from_q, struct qcow2_bitmap *from)
{
    uint64_t bits = bitmap_bytes(from_q, from) * 8;

    for (uint64_t i = 0; i < bits; i++) {
        uint64_t off = i << from->grain_bits;

        if (!(i % 8) && !from->bits[i / 8]) {
            i += 7;
            continue;
        }
        if (!(from->bits[i / 8] >> i % 8 & 1) || off >= to_q->h.size)
            continue;
        set_bits(to, off >> to->grain_bits,
                 (min_u64(off + (1ull << from->grain_bits), to_q->h.size) - 1) >> to->grain_bits);
    }
}

int qcow2_bitmap_merge(struct blk *b, const char *name, struct blk *from_b, const char *from_name, struct err *err)
{
    struct qcow2 *q = qcow2_of(b), *from_q = qcow2_of(from_b);
    struct qcow2_bitmap *m, *from = find(from_q, from_name);
    bool loaded;
    int rc;

    if (!from)
        return err_set(err, ENOENT, "%s has no bitmap \"%s\"", from_b->name, from_name);
    if (from_q->h.size != q->h.size)
        return err_set(err, EINVAL, "%s and %s have not the same size, so their bitmaps cannot be merged", b->name,
                       from_b->name);
    if (!from->bits && !usable(from_q, from))
        return err_set(err, EINVAL, "%s: bitmap \"%s\" is incomplete, since it was not closed properly", from_b->name,
                       from_name);
    rc = begin(q, "merge into", name, &m, err);
    if (rc)
        return rc;
    loaded = from->bits;
    rc = loaded ? 0 : load_bits(from_q, from);
    if (!rc)
        merge_bits(q, m, from_q, from);
    if (!rc && !loaded)
        free(take_ptr(from->bits));
    return finish(q, "merge into", name, rc, err);
}

/* ---- While the disk's size changes. ---- */

struct qcow2_taken {
    unsigned n;
    struct taken {
        char *name;
        uint32_t granularity;
        bool enabled;
        uint64_t nbits;
        uint8_t *bits;
    } v[];
};

void qcow2_taken_free(struct qcow2_taken *t)
{
    for (unsigned i = 0; t && i < t->n; i++) {
        free(t->v[i].name);
        free(t->v[i].bits);
    }
    free(t);
}

/* One bitmap's bits, out of the image. */
static int take_one(struct qcow2 *q, const struct qcow2_bitmap *m, struct taken *ret, struct err *err)
{
    struct qcow2_bitmap copy = *m;
    int rc;

    *ret = (struct taken){.name = xstrdup(m->name),
                          .granularity = 1u << m->grain_bits,
                          .enabled = m->flags & AUTO,
                          .nbits = (q->h.size + (1ull << m->grain_bits) - 1) >> m->grain_bits};
    copy.bits = NULL;
    pthread_mutex_lock(&q->lock);
    rc = load_bits(q, &copy);
    pthread_mutex_unlock(&q->lock);
    ret->bits = copy.bits;
    return rc ? failed(q, "read", m->name, rc, err) : 0;
}

int qcow2_bitmaps_take(struct qcow2 *q, struct qcow2_taken **ret, struct err *err)
{
    unsigned n = q->bitmaps ? q->bitmaps->n : 0;
    struct qcow2_taken *t = xcalloc(1, sizeof(*t) + n * sizeof(t->v[0]));
    uint64_t room = BITS_MAX;
    int rc = 0;

    for (; !rc && t->n < n; t->n += !rc) {
        const struct qcow2_bitmap *m = &q->bitmaps->v[t->n];
        uint64_t bytes = bitmap_bytes(q, m);

        if (!usable(q, m))
            rc = err_set(err, EINVAL,
                         "%s: bitmap \"%s\" is incomplete, so it cannot get another size; remove it with: "
                         "bothy img bitmap --remove",
                         q->b.name, m->name);
        else if (bytes > room)
            rc = err_set(err, EFBIG, "%s: its bitmaps are too large to get another size; remove some", q->b.name);
        else
            rc = take_one(q, m, &t->v[t->n], err);
        room -= min_u64(room, bytes);
        if (rc) { /* of the one that failed */
            free(t->v[t->n].name);
            free(t->v[t->n].bits);
        }
    }
    for (unsigned i = 0; !rc && i < n; i++)
        rc = qcow2_bitmap_remove(&q->b, t->v[i].name, err);
    if (rc)
        qcow2_taken_free(t);
    else
        *ret = t;
    return rc;
}

int qcow2_bitmaps_put_back(struct qcow2 *q, struct qcow2_taken *t, struct err *err)
{
    int rc = 0;

    for (unsigned i = 0; !rc && i < t->n; i++) {
        const struct taken *was = &t->v[i];
        struct qcow2_bitmap *m;

        rc = qcow2_bitmap_add(&q->b, was->name, was->granularity, was->enabled, err);
        if (!rc)
            rc = begin(q, "write", was->name, &m, err);
        if (rc)
            break;
        for (uint64_t k = 0; k < was->nbits && k >> 3 < bitmap_bytes(q, m); k++)
            if (was->bits[k / 8] >> k % 8 & 1)
                m->bits[k / 8] |= (uint8_t)(1u << k % 8);
        rc = finish(q, "write", was->name, 0, err);
    }
    return rc;
}
