/* Where the guest's clusters are: L1 and L2 tables, subclusters [QEMU docs/interop/qcow2, "Cluster mapping" and
 * "Extended L2 Entries"]. */
#include "devices/block/qcow2_int.h"
#include "vmm/base/cleanup.h"

typedef unsigned long long ull;

uint32_t qcow2_per_slice(const struct qcow2 *q)
{
    return q->l2.unit / q->entry;
}

void qcow2_packed_range(const struct qcow2 *q, uint64_t desc, uint64_t *off, uint64_t *len)
{
    unsigned shift = 62 - (q->bits - 8);
    uint64_t more = (desc & (QCOW2_PACKED - 1)) >> shift;

    *off = desc & ((1ull << shift) - 1) & (QCOW2_OFF_END - 1);
    *len = (more + 1) * 512 - (*off & 511);
}

/* ---- Entries. ---- */

static bool valid(const struct qcow2 *q, const struct qcow2_cl *cl)
{
    if (cl->packed)
        return q->data == q->b.file;
    if (cl->desc & QCOW2_RESERVED2 || cl->host & (q->cluster - 1))
        return false;
    if (cl->desc & QCOW2_ZERO && (q->h.version < 3 || q->grains > 1))
        return false;
    return !(cl->alloc & cl->zero) && (!cl->alloc || cl->has_host);
}

bool qcow2_parse(const struct qcow2 *q, const struct qcow2_slice *s, uint32_t i, struct qcow2_cl *ret)
{
    const uint8_t *p = s->data + i * q->entry;
    uint64_t desc = get_be64(p);
    struct qcow2_cl cl = {.desc = desc, .packed = desc & QCOW2_PACKED, .copied = desc & QCOW2_COPIED};

    if (!cl.packed) {
        cl.host = desc & QCOW2_OFF_MASK;
        cl.has_host = cl.host || (q->data != q->b.file && cl.copied);
        cl.copied = cl.copied || (q->data != q->b.file && cl.has_host); /* nothing shares a data file */
        if (q->grains > 1) {
            cl.alloc = (uint32_t)get_be64(p + 8);
            cl.zero = (uint32_t)(get_be64(p + 8) >> 32);
        } else {
            cl.zero = desc & QCOW2_ZERO;
            cl.alloc = cl.has_host && !cl.zero;
        }
    }
    *ret = cl;
    return valid(q, &cl);
}

int qcow2_decode(struct qcow2 *q, const struct qcow2_slice *s, uint32_t i, struct qcow2_cl *ret)
{
    if (qcow2_parse(q, s, i, ret))
        return 0;
    return qcow2_corrupt(q, "entry %u of the L2 table at %#llx is %#llx, which means nothing",
                         (unsigned)((s->off & (q->cluster - 1)) / q->entry + i), (ull)align_down(s->off, q->cluster),
                         (ull)ret->desc);
}

void qcow2_encode(struct qcow2 *q, struct qcow2_slice *s, uint32_t i, const struct qcow2_cl *cl)
{
    uint8_t *p = s->data + i * q->entry;
    uint64_t desc = cl->desc;

    if (!cl->packed) {
        desc = cl->has_host ? cl->host | (cl->copied ? QCOW2_COPIED : 0) : 0;
        if (q->grains == 1 && cl->zero)
            desc |= QCOW2_ZERO;
    }
    put_be64(p, desc);
    if (q->grains > 1)
        put_be64(p + 8, cl->packed ? 0 : (uint64_t)cl->zero << 32 | cl->alloc);
    qcow2_cache_dirty(&q->l2, s);
    q->unsynced = true;
}

/* ---- Lookup. ---- */

/* Where in the file the slice with the entry of guest cluster `g` is; 0: there is no such table. */
static int slice_of(struct qcow2 *q, uint64_t g, uint64_t *ret)
{
    uint64_t entry = q->l1[g / q->per_l2], table = entry & QCOW2_OFF_MASK;

    if (entry & ~(QCOW2_COPIED | QCOW2_OFF_MASK) || table & (q->cluster - 1))
        return qcow2_corrupt(q, "L1 entry %llu is %#llx, which means nothing", (ull)(g / q->per_l2), (ull)entry);
    *ret = table ? table + g % q->per_l2 / qcow2_per_slice(q) * q->l2.unit : 0;
    return 0;
}

static enum qcow2_kind kind_of(const struct qcow2_cl *cl, unsigned grain)
{
    if (cl->packed)
        return QCOW2_KIND_PACKED;
    if (cl->alloc >> grain & 1)
        return QCOW2_KIND_DATA;
    return cl->zero >> grain & 1 ? QCOW2_KIND_ZERO : QCOW2_KIND_NONE;
}

/* How far the kind of the first grain holds in this cluster: bytes from `in` on. */
static struct qcow2_place place_in(const struct qcow2 *q, const struct qcow2_cl *cl, uint32_t in)
{
    unsigned first = in / q->grain, g = first;
    struct qcow2_place p = {.kind = kind_of(cl, first), .host = cl->host + in, .desc = cl->desc, .ours = cl->copied};

    if (p.kind == QCOW2_KIND_PACKED)
        g = q->grains;
    while (g < q->grains && kind_of(cl, g) == p.kind)
        g++;
    p.len = (uint64_t)g * q->grain - in;
    return p;
}

/* Does `next` go on where `p` ends? */
static bool continues(const struct qcow2_place *p, const struct qcow2_place *next)
{
    if (p->kind != next->kind || p->kind == QCOW2_KIND_PACKED)
        return false;
    return p->kind != QCOW2_KIND_DATA || (p->host + p->len == next->host && p->ours == next->ours);
}

int qcow2_lookup(struct qcow2 *q, uint64_t off, uint64_t len, bool cached, struct qcow2_place *ret)
{
    uint64_t g = off >> q->bits, at, table_end = (g / q->per_l2 + 1) * q->per_l2 << q->bits;
    uint32_t i = (uint32_t)(g % qcow2_per_slice(q)), in = (uint32_t)(off & (q->cluster - 1));
    struct qcow2_slice *s;
    struct qcow2_place p = {.len = 0}, next;
    int rc = slice_of(q, g, &at);

    if (rc)
        return rc;
    if (!at) {
        *ret = (struct qcow2_place){.kind = QCOW2_KIND_NONE, .len = min_u64(len, table_end - off)};
        return 0;
    }
    if (cached) {
        s = qcow2_cache_find(&q->l2, at);
        rc = s ? 0 : -EAGAIN;
    } else {
        rc = qcow2_cache_get(q, &q->l2, at, &s);
    }
    if (rc)
        return rc;
    for (; i < qcow2_per_slice(q) && p.len < len; i++, in = 0) {
        struct qcow2_cl cl;

        rc = qcow2_decode(q, s, i, &cl);
        if (!rc && q->data != q->b.file && cl.has_host && cl.host != (off + p.len - in))
            rc = qcow2_corrupt(q, "guest cluster %#llx is at %#llx of the data file", (ull)(off + p.len - in),
                               (ull)cl.host);
        if (rc)
            return rc;
        next = place_in(q, &cl, in);
        if (p.len && !continues(&p, &next))
            break;
        if (p.len)
            p.len += next.len;
        else
            p = next;
        if ((p.len + off) & (q->cluster - 1))
            break;
    }
    p.len = min_u64(p.len, len);
    *ret = p;
    return 0;
}

/* ---- Tables to be written. ---- */

static int copy_table(struct qcow2 *q, uint64_t from, uint64_t to)
{
    cleanup_free uint8_t *buf = malloc(q->cluster);
    int rc = buf ? qcow2_meta_read(q, buf, q->cluster, from) : -ENOMEM;

    return rc ? rc : qcow2_meta_write(q, buf, q->cluster, to);
}

int qcow2_l2_own(struct qcow2 *q, uint64_t g, uint64_t *ret, uint32_t *i)
{
    uint32_t l1 = (uint32_t)(g / q->per_l2);
    uint64_t old, first;
    int rc = slice_of(q, g, &old);

    if (!rc && (!old || !(q->l1[l1] & QCOW2_COPIED))) {
        old = q->l1[l1] & QCOW2_OFF_MASK;
        rc = qcow2_alloc_meta(q, 1, &first);
        if (rc)
            return rc;
        if (old)
            rc = copy_table(q, old, first << q->bits);
        if (rc) {
            qcow2_unalloc(q, first, 1);
            return rc;
        }
        qcow2_l1_set(q, l1, first << q->bits | QCOW2_COPIED);
        if (old)
            qcow2_free(q, old >> q->bits, 1, false);
    }
    if (!rc)
        rc = slice_of(q, g, ret);
    *i = (uint32_t)(g % qcow2_per_slice(q));
    if (!rc && !qcow2_set_has(&q->meta, *ret >> q->bits))
        rc = qcow2_corrupt(q, "the L2 table at %#llx is not where one was when the image was opened", (ull)*ret);
    return rc;
}
