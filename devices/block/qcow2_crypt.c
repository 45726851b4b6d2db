/* Encryption of a qcow2 image's guest clusters by LUKS [QEMU docs/interop/qcow2, "Full disk encryption header pointer",
 * "Data encryption"].  A sector's number is that in the file, so data that move are encrypted anew.  Metadata and
 * compressed clusters are never encrypted. */
#include "devices/block/qcow2_int.h"
#include "vmm/base/cleanup.h"

enum { CRYPT_LUKS = 2, POINTER = 16 /* bytes of the extension */ };

static uint64_t pointer(const struct qcow2 *q, uint64_t *len)
{
    const struct qcow2_ext *e = qcow2_ext_find(&q->h, QCOW2_EXT_LUKS);

    *len = get_be64(e->data + 8);
    return get_be64(e->data);
}

int qcow2_crypt_open(struct qcow2 *q, const struct blk_open_opts *o, struct err *err)
{
    const struct qcow2_ext *e = qcow2_ext_find(&q->h, QCOW2_EXT_LUKS);
    uint64_t off, len;

    q->guest = q->data;
    if (q->h.crypt != CRYPT_LUKS)
        return 0;
    if (!e || e->len != POINTER)
        return err_set(err, EINVAL, "%s is damaged: it is encrypted, but does not say where its keys are", q->b.name);
    off = pointer(q, &len);
    if (!off || off & (q->cluster - 1) || off >= QCOW2_OFF_END || len < LUKS_HEADER || len > LUKS_AREA_MAX)
        return err_set(err, EINVAL, "%s is damaged: its encryption header is %llu bytes at %#llx", q->b.name,
                       (unsigned long long)len, (unsigned long long)off);
    if (q->raw)
        return err_set(err, EINVAL, "%s is damaged: it is encrypted, but its data file stands for itself", q->b.name);
    return luks_layer(q->b.file, off, len, q->data, o, &q->guest, err);
}

void qcow2_crypt_close(struct qcow2 *q)
{
    if (q->guest != q->data)
        luks_layer_close(q->guest);
}

void qcow2_crypt_visit(struct qcow2 *q, struct qcow2_visitor *v)
{
    uint64_t off, len;

    if (q->h.crypt != CRYPT_LUKS)
        return;
    off = pointer(q, &len);
    v->range(v, off, len, "the encryption header");
}

int qcow2_crypt_amend(struct qcow2 *q, const struct luks_amend *a, const struct blk_keys *keys, bool force,
                      struct err *err)
{
    uint64_t off, len;

    if (q->h.crypt != CRYPT_LUKS)
        return a->state ? err_set(err, EINVAL, "%s is not encrypted, so it has no keys", q->b.name) : 0;
    off = pointer(q, &len);
    return luks_amend(q->b.file, off, len, a, keys, force, err);
}

json_t *qcow2_crypt_info(struct qcow2 *q)
{
    json_t *j = luks_info(q->guest);

    json_object_set_new(j, "format", json_string("luks"));
    return j;
}

/* Of a new image, before its first cluster of data. */
int qcow2_crypt_create(struct qcow2 *q, const struct luks_create *c, const struct blk_key *key)
{
    struct luks_header h;
    cleanup_free uint8_t *p = luks_format(c, key, &h);
    uint64_t n = qcow2_clusters(q, h.payload), first;
    uint8_t where[POINTER];
    int rc = qcow2_begin(q);

    if (!rc)
        rc = qcow2_alloc_meta(q, n, &first);
    if (!rc)
        rc = blk_zero(q->b.file, first << q->bits, n << q->bits, false);
    if (!rc)
        rc = blk_pwrite(q->b.file, p, h.payload, first << q->bits);
    if (!rc)
        rc = qcow2_commit(q);
    if (rc)
        return rc;
    put_be64(where, first << q->bits);
    put_be64(where + 8, h.payload);
    qcow2_ext_set(&q->h, QCOW2_EXT_LUKS, where, sizeof(where));
    q->h.crypt = CRYPT_LUKS;
    return qcow2_header_write(q->b.file, &q->h);
}
