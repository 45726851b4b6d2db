/* Guest data of a qcow2 image: read, written in place or into new clusters, zeroed, discarded.  See "Writing" at the
 * top of qcow2.c. */
#include "devices/block/qcow2_int.h"
#include "vmm/base/cleanup.h"

enum { DATA_IOV = 64 };

/* ---- Reading. ---- */

static int read_data(struct qcow2 *q, const struct blk_io *io, uint64_t skip, uint64_t n, uint64_t host)
{
    const struct blk_limits *lim = &q->data->lim;
    uint64_t there = lim->grows ? n : host < lim->size ? min_u64(n, lim->size - host) : 0;
    int rc = there ? blk_rw_part(q->guest, io, skip, there, host) : 0;

    if (!rc)
        iov_zero(io->iov, skip + there, n - there);
    return rc;
}

int qcow2_read(struct qcow2 *q, const struct blk_io *io)
{
    struct qcow2_place p;

    for (uint64_t at = 0; at < io->len; at += p.len) {
        unsigned epoch;
        int rc;

        pthread_mutex_lock(&q->lock);
        rc = qcow2_lookup(q, io->off + at, io->len - at, false, &p);
        epoch = qcow2_enter(q);
        pthread_mutex_unlock(&q->lock);
        if (!rc) {
            switch (p.kind) {
            case QCOW2_KIND_NONE:
                rc = blk_read_backing(&q->b, io, at, p.len);
                break;
            case QCOW2_KIND_ZERO:
                iov_zero(io->iov, at, p.len);
                break;
            case QCOW2_KIND_DATA:
                rc = read_data(q, io, at, p.len, p.host);
                break;
            case QCOW2_KIND_PACKED:
                rc = qcow2_unpack(q, p.desc, (uint32_t)((io->off + at) & (q->cluster - 1)), (uint32_t)p.len, io, at);
                break;
            }
        }
        qcow2_leave(q, epoch);
        if (rc)
            return rc;
    }
    return 0;
}

/* Into `buf`; zeroes beyond the disk's end. */
static int read_guest(struct qcow2 *q, void *buf, uint64_t n, uint64_t off)
{
    uint64_t there = off < q->b.lim.size ? min_u64(n, q->b.lim.size - off) : 0;
    struct iovec iov = {buf, there};
    struct blk_io io = {.op = BLK_READ, .off = off, .len = there, .iov = &iov, .niov = 1};
    int rc = there ? qcow2_read(q, &io) : 0;

    memset((char *)buf + there, 0, n - there);
    return rc;
}

/* ---- Clusters under way. ---- */

static bool flying(const struct qcow2 *q, uint64_t first, uint64_t n)
{
    list_for_each (pos, &q->flights) {
        const struct qcow2_flight *f = container_of(pos, struct qcow2_flight, link);

        if (first < f->first + f->n && f->first < first + n)
            return true;
    }
    return false;
}

void qcow2_flight_wait(struct qcow2 *q, uint64_t first, uint64_t n)
{
    while (flying(q, first, n))
        pthread_cond_wait(&q->landed, &q->lock);
}

void qcow2_flight_begin(struct qcow2 *q, struct qcow2_flight *f, uint64_t first, uint64_t n)
{
    f->first = first;
    f->n = n;
    list_add_tail(&q->flights, &f->link);
}

void qcow2_flight_end(struct qcow2 *q, struct qcow2_flight *f)
{
    list_del(&f->link);
    pthread_cond_broadcast(&q->landed);
}

int qcow2_begin(struct qcow2 *q)
{
    if (q->broken || q->repair)
        return -EIO;
    return q->started ? 0 : qcow2_start(q);
}

/* ---- Writing. ---- */

/* A part of a write, of one sort. */
struct part {
    uint64_t off, len; /* in the disk */
    uint64_t host;     /* where that goes */
    bool direct;       /* to where the disk's data are already */
    unsigned epoch;    /* direct */
    bool in_place;     /* not direct: into subclusters not yet used, or zeroed, of a cluster that is there */
    struct qcow2_flight flight;
    uint64_t first;                /* not direct: the first cluster of the file, of flight.n */
    uint64_t head, tail;           /* bytes before and behind that have to be filled too, so that whole grains are */
    bool head_zero, tail_zero;     /* with zeroes */
    bool head_virgin, tail_virgin; /* the file has never been written there, so it reads as zeroes */
};

static bool keeps_data(const struct qcow2_cl *cl)
{
    return cl->packed || cl->alloc;
}

/* Does the grain of `off` read as zeroes? */
static bool grain_is_zero(const struct qcow2 *q, const struct qcow2_cl *cl, uint64_t off)
{
    unsigned grain = (unsigned)((off & (q->cluster - 1)) / q->grain);

    if (cl->packed || cl->alloc >> grain & 1)
        return false;
    return cl->zero >> grain & 1 || !q->b.backing || align_down(off, q->grain) >= q->b.backing->lim.size;
}

static bool grain_has_data(const struct qcow2 *q, const struct qcow2_cl *cl, uint64_t off)
{
    return cl->alloc >> ((off & (q->cluster - 1)) / q->grain) & 1;
}

/* Fills in what lies around the part: `a` and `z` are its first and last cluster as they are. */
static void plan_edges(const struct qcow2 *q, struct part *p, const struct qcow2_cl *a, const struct qcow2_cl *z,
                       uint64_t virgin)
{
    uint64_t end = p->off + p->len;
    uint32_t unit_a = !p->in_place && keeps_data(a) ? q->cluster : q->grain;
    uint32_t unit_z = !p->in_place && keeps_data(z) ? q->cluster : q->grain;

    p->head = p->off & (unit_a - 1);
    if (p->in_place && grain_has_data(q, a, p->off))
        p->head = 0;
    p->head_zero = unit_a == q->grain && grain_is_zero(q, a, p->off);
    p->head_virgin = p->host - p->head >= virgin;
    p->tail = align_up(end, unit_z) - end;
    if (p->in_place && grain_has_data(q, z, end - 1))
        p->tail = 0;
    p->tail_zero = unit_z == q->grain && grain_is_zero(q, z, end - 1);
    p->tail_virgin = p->host + p->len >= virgin;
}

/* How many clusters from entry `i` on have to be made anew, of at most `max`; *last: the last of them. */
static int count_new(struct qcow2 *q, const struct qcow2_slice *s, uint32_t i, uint64_t g, uint64_t max, uint64_t *ret,
                     struct qcow2_cl *last)
{
    uint64_t n = 1;

    for (; n < max && i + n < qcow2_per_slice(q) && !flying(q, g + n, 1); n++) {
        struct qcow2_cl cl;
        int rc = qcow2_decode(q, s, (uint32_t)(i + n), &cl);

        if (rc)
            return rc;
        if (cl.has_host && cl.copied)
            break;
        *last = cl;
    }
    *ret = n;
    return 0;
}

/* New clusters, or one in place, for a write from `off` on. */
static int plan_new(struct qcow2 *q, struct part *p, uint64_t at, uint32_t i, uint64_t max_len)
{
    uint64_t g = p->off >> q->bits, in = p->off & (q->cluster - 1), got = 1, virgin, n;
    uint64_t max = min_u64(qcow2_clusters(q, in + max_len), max_u64(QCOW2_FLIGHT_MAX >> q->bits, 1));
    struct qcow2_slice *s;
    struct qcow2_cl a, z;
    int rc = qcow2_cache_get(q, &q->l2, at, &s);

    if (!rc)
        rc = qcow2_decode(q, s, i, &a);
    if (rc)
        return rc;
    z = a;
    p->in_place = a.has_host && a.copied;
    if (p->in_place) {
        p->first = a.host >> q->bits;
    } else {
        rc = count_new(q, s, i, g, max, &n, &z);
        if (rc)
            return rc;
        got = n;
        p->first = g; /* of a data file */
        if (q->data == q->b.file)
            rc = qcow2_alloc(q, n, &p->first, &got);
        if (!rc && got < n) { /* then another is the last */
            rc = qcow2_cache_get(q, &q->l2, at, &s);
            if (!rc)
                rc = qcow2_decode(q, s, (uint32_t)(i + got - 1), &z);
            if (rc)
                qcow2_unalloc(q, p->first, got);
        }
        if (rc)
            return rc;
    }
    virgin = UINT64_MAX;
    if (q->data == q->b.file) {
        if (q->b.file->lim.grows && !p->in_place && !qcow2_encrypted(q))
            virgin = q->file_end;
        q->file_end = max_u64(q->file_end, (p->first + got) << q->bits);
    }
    p->host = (p->first << q->bits) + in;
    p->len = min_u64(max_len, (got << q->bits) - in);
    plan_edges(q, p, &a, &z, virgin);
    qcow2_flight_begin(q, &p->flight, g, got);
    return 0;
}

/* The first part of a write of `len` bytes at `off`. */
static int plan(struct qcow2 *q, uint64_t off, uint64_t len, struct part *p)
{
    uint64_t g = off >> q->bits, at;
    struct qcow2_place place;
    uint32_t i;
    int rc;

    *p = (struct part){.off = off};
    for (;;) {
        rc = qcow2_begin(q);
        if (!rc)
            rc = qcow2_lookup(q, off, len, false, &place);
        if (rc)
            return rc;
        if (place.kind == QCOW2_KIND_DATA && place.ours) {
            if (q->data == q->b.file && !qcow2_clear_of_meta(q, place.host, place.len))
                return qcow2_corrupt(q, "the guest's data at %#llx are in the midst of metadata",
                                     (unsigned long long)place.host);
            q->file_end = max_u64(q->file_end, place.host + place.len);
            p->direct = true;
            p->len = place.len;
            p->host = place.host;
            p->epoch = qcow2_enter(q);
            return 0;
        }
        if (!flying(q, g, 1))
            break;
        pthread_cond_wait(&q->landed, &q->lock);
    }
    rc = qcow2_l2_own(q, g, &at, &i);
    return rc ? rc : plan_new(q, p, at, i, len);
}

static int fill_edge(struct qcow2 *q, void *buf, uint64_t n, uint64_t off, bool zero)
{
    if (!zero)
        return read_guest(q, buf, n, off);
    memset(buf, 0, n);
    return 0;
}

/* The part's data and what has to be around them, in one write where that is possible. */
static int write_around(struct qcow2 *q, const struct part *p, const struct blk_io *io, uint64_t skip)
{
    uint64_t head = p->head_zero && p->head_virgin ? 0 : p->head;
    uint64_t tail = p->tail_zero && p->tail_virgin ? 0 : p->tail, len = 0;
    cleanup_free char *buf = head + tail ? malloc(head + tail) : NULL;
    struct iovec iov[DATA_IOV + 2];
    unsigned n = 0;
    int rc = head + tail && !buf ? -ENOMEM : 0;

    if (!rc && head)
        rc = fill_edge(q, buf, head, p->off - head, p->head_zero);
    if (!rc && tail)
        rc = fill_edge(q, buf + head, tail, p->off + p->len, p->tail_zero);
    if (rc)
        return rc;
    if (head)
        iov[n++] = (struct iovec){buf, head};
    if (io->op == BLK_WRITE)
        n += iov_part(io->iov, skip, p->len, iov + n, DATA_IOV, &len);
    if (len == p->len) {
        struct blk_io all = {.op = BLK_WRITE, .off = p->host - head, .len = head + len + tail, .iov = iov};

        if (tail)
            iov[n++] = (struct iovec){buf + head, tail};
        all.niov = n;
        return blk_rw(q->guest, &all);
    }
    if (head)
        rc = blk_pwrite(q->guest, buf, head, p->host - head);
    if (!rc)
        rc = blk_rw_part(q->guest, io, skip, p->len, p->host);
    if (!rc && tail)
        rc = blk_pwrite(q->guest, buf + head, tail, p->host + p->len);
    return rc;
}

/* Of one cluster, the grains of which bytes [from, to) are now in the file. */
static uint32_t grain_mask(const struct qcow2 *q, uint64_t from, uint64_t to)
{
    unsigned a = (unsigned)(from / q->grain), z = (unsigned)((to + q->grain - 1) / q->grain);

    return (uint32_t)(((1ull << z) - 1) & ~((1ull << a) - 1));
}

/* The L2 entries name what has been written. */
static int link_part(struct qcow2 *q, const struct part *p)
{
    uint64_t from = p->off - p->head, to = p->off + p->len + p->tail, at;
    struct qcow2_slice *s;
    uint32_t i;
    int rc = qcow2_l2_own(q, p->flight.first, &at, &i);

    if (!rc)
        rc = qcow2_cache_get(q, &q->l2, at, &s);
    for (uint64_t k = 0; !rc && k < p->flight.n; k++) {
        uint64_t start = (p->flight.first + k) << q->bits;
        uint32_t mask = grain_mask(q, max_u64(from, start) - start, min_u64(to, start + q->cluster) - start);
        struct qcow2_cl old, cl = {.host = (p->first + k) << q->bits, .has_host = true, .copied = true};

        rc = qcow2_decode(q, s, i + (uint32_t)k, &old);
        if (rc)
            break;
        cl.alloc = mask | (p->in_place ? old.alloc : 0);
        cl.zero = old.zero & ~mask;
        qcow2_encode(q, s, i + (uint32_t)k, &cl);
        if (!p->in_place)
            qcow2_free_entry(q, old.desc, false);
    }
    return rc;
}

static int finish_new(struct qcow2 *q, struct part *p, int rc)
{
    pthread_mutex_lock(&q->lock);
    if (!rc)
        rc = link_part(q, p);
    if (rc && !p->in_place && q->data == q->b.file)
        qcow2_unalloc(q, p->first, p->flight.n);
    qcow2_flight_end(q, &p->flight);
    pthread_mutex_unlock(&q->lock);
    return rc;
}

int qcow2_write(struct qcow2 *q, const struct blk_io *io)
{
    struct part p;

    for (uint64_t at = 0; at < io->len; at += p.len) {
        int rc;

        pthread_mutex_lock(&q->lock);
        rc = plan(q, io->off + at, io->len - at, &p);
        if (!rc)
            qcow2_bitmaps_mark(q, p.off, p.len);
        pthread_mutex_unlock(&q->lock);
        if (rc)
            return rc;
        if (p.direct) {
            rc = blk_rw_part(q->guest, io, at, p.len, p.host);
            qcow2_leave(q, p.epoch);
        } else {
            rc = finish_new(q, &p, write_around(q, &p, io, at));
        }
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- Zeroing and discarding. ---- */

static int write_zeroes(struct qcow2 *q, uint64_t off, uint64_t len)
{
    /* Not const: that would be as much of the program's file.  Aligned: the kernel takes pages of it one by one, and
     * SIGKILL in between must not leave half a sector. */
    static char zeroes[64 << 10] __attribute__((aligned(4096)));
    struct iovec iov = {.iov_base = zeroes};
    struct qcow2_place p;

    for (uint64_t n; len; off += n, len -= n) {
        int rc;

        n = min_u64(len, sizeof(zeroes));
        pthread_mutex_lock(&q->lock);
        qcow2_flight_wait(q, off >> q->bits, 1);
        rc = qcow2_lookup(q, off, n, false, &p);
        pthread_mutex_unlock(&q->lock);
        if (rc)
            return rc;
        n = p.len;
        if (p.kind == QCOW2_KIND_ZERO || (p.kind == QCOW2_KIND_NONE && !q->b.backing))
            continue;
        iov.iov_len = n;
        rc = qcow2_write(q, &(struct blk_io){.op = BLK_WRITE, .off = off, .len = n, .iov = &iov, .niov = 1});
        if (rc)
            return rc;
    }
    return 0;
}

enum wipe {
    WIPE_KEEP,    /* zeroes; what is allocated stays so */
    WIPE_UNMAP,   /* zeroes */
    WIPE_DISCARD, /* zeroes where something below would show through */
    WIPE_DROP,    /* what is below shows through */
};

/* Is there something below?  The header says so; or it does not, of a node that was put above another one. */
static bool based(const struct qcow2 *q)
{
    return q->h.backing || q->b.backing;
}

/* The entry after its bytes [from, to) were wiped.  False: this cannot be said by an entry. */
static bool wiped(const struct qcow2 *q, const struct qcow2_cl *old, uint64_t from, uint64_t to, enum wipe how,
                  struct qcow2_cl *ret)
{
    uint32_t mask = grain_mask(q, from, to), all = grain_mask(q, 0, q->cluster);
    bool base = based(q) && how != WIPE_DROP, nothing = !keeps_data(old) && !old->zero && !old->has_host;
    struct qcow2_cl cl = *old;

    if (nothing && !base) {
        *ret = *old;
        return true;
    }
    if (mask != all) {
        if (old->packed)
            return false;
        cl.alloc &= ~mask;
        cl.zero |= mask;
    } else {
        cl = (struct qcow2_cl){.zero =
                                   base || how < WIPE_DISCARD || (how == WIPE_DISCARD && old->zero == all) ? all : 0};
        if (how == WIPE_KEEP && old->has_host && old->copied && !old->packed) {
            cl.host = old->host;
            cl.has_host = cl.copied = true;
        }
    }
    *ret = cl;
    return true;
}

/* The clusters of one slice, from `off` on; *done: as far as that went, 0 when the first needs zeroes in its data. */
static int wipe_slice(struct qcow2 *q, uint64_t off, uint64_t len, enum wipe how, uint64_t *done)
{
    uint64_t g = off >> q->bits, at, end;
    struct qcow2_slice *s;
    uint32_t i;
    int rc = q->freed.n + q->synced.n > QCOW2_FREES_MAX ? qcow2_commit(q) : 0;

    if (!rc)
        rc = qcow2_l2_own(q, g, &at, &i);
    if (!rc)
        rc = qcow2_cache_get(q, &q->l2, at, &s);
    if (rc)
        return rc;
    end = min_u64(off + len, (g + qcow2_per_slice(q) - i) << q->bits);
    for (*done = 0; off + *done < end; i++) {
        uint64_t in = (off + *done) & (q->cluster - 1), n = min_u64(q->cluster - in, end - off - *done);
        struct qcow2_cl old, cl;

        rc = qcow2_decode(q, s, i, &old);
        if (rc || !wiped(q, &old, in, in + n, how, &cl))
            return rc;
        if (cl.has_host != old.has_host || cl.packed != old.packed || cl.alloc != old.alloc || cl.zero != old.zero) {
            qcow2_encode(q, s, i, &cl);
            if (old.packed || (old.has_host && !cl.has_host))
                qcow2_free_entry(q, old.desc, how != WIPE_KEEP);
        }
        *done += n;
    }
    return 0;
}

/* Whole grains. */
static int wipe(struct qcow2 *q, uint64_t off, uint64_t len, enum wipe how)
{
    uint64_t per_slice = (uint64_t)qcow2_per_slice(q) << q->bits, per_table = (uint64_t)q->per_l2 << q->bits;

    for (uint64_t done; len; off += done, len -= done) {
        uint64_t n = min_u64(len, per_slice - off % per_slice);
        int rc;

        done = 0;
        pthread_mutex_lock(&q->lock);
        qcow2_flight_wait(q, off >> q->bits, qcow2_clusters(q, (off & (q->cluster - 1)) + n));
        rc = qcow2_begin(q);
        if (!rc && !q->l1[off / per_table] && (!based(q) || how == WIPE_DROP))
            done = min_u64(len, per_table - off % per_table); /* nothing is there */
        else if (!rc)
            rc = wipe_slice(q, off, n, how, &done);
        if (!rc && done)
            qcow2_bitmaps_mark(q, off, done);
        pthread_mutex_unlock(&q->lock);
        if (!rc && !done) {
            done = min_u64(n, q->cluster - (off & (q->cluster - 1)));
            rc = write_zeroes(q, off, done);
        }
        if (rc)
            return rc;
    }
    return 0;
}

/* Wipes whole units, and zeroes what is left at both ends where `edges` says so. */
static int wipe_inside(struct qcow2 *q, uint64_t off, uint64_t len, uint32_t unit, enum wipe how, bool edges)
{
    uint64_t end = off + len, a = align_up(off, unit), z = align_down(end, unit);
    int rc = 0;

    if (end == q->b.lim.size)
        z = align_up(end, unit); /* nobody reads what is behind */
    if (a >= z)
        return edges ? write_zeroes(q, off, len) : 0;
    if (edges && off < a)
        rc = write_zeroes(q, off, a - off);
    if (!rc)
        rc = wipe(q, a, z - a, how);
    if (!rc && edges && z < end)
        rc = write_zeroes(q, z, end - z);
    return rc;
}

int qcow2_zero(struct qcow2 *q, const struct blk_io *io)
{
    int rc = q->raw ? blk_zero(q->data, io->off, io->len, io->unmap) : 0;

    if (rc)
        return rc;
    if (q->h.version >= 3)
        return wipe_inside(q, io->off, io->len, q->grain, io->unmap && !q->raw ? WIPE_UNMAP : WIPE_KEEP, true);
    if (io->unmap && !based(q))
        return wipe_inside(q, io->off, io->len, q->cluster, WIPE_DISCARD, true);
    return write_zeroes(q, io->off, io->len);
}

static int discard(struct qcow2 *q, uint64_t off, uint64_t len, enum wipe how)
{
    int rc = wipe_inside(q, off, len, q->cluster, how, false);

    if (!rc && q->data != q->b.file)
        rc = blk_discard(q->data, off, len);
    return rc == -EOPNOTSUPP ? 0 : rc;
}

int qcow2_discard(struct qcow2 *q, uint64_t off, uint64_t len)
{
    /* Version 2 cannot say that a cluster hides what is below. */
    return q->raw || (q->h.version < 3 && based(q)) ? 0 : discard(q, off, len, WIPE_DISCARD);
}

int qcow2_drop(struct qcow2 *q, uint64_t off, uint64_t len)
{
    return discard(q, off, len, WIPE_DROP);
}
