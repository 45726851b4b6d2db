/* Properties of a qcow2 image that can change while its data stay where they are. */
#include "devices/block/qcow2_int.h"
#include "vmm/base/cleanup.h"

enum { KEEP, ON, OFF, V3 = 1 };

static const char *const versions[] = {[KEEP] = "keep", [V3] = "1.1", "v3", NULL};
static const char *const switches[] = {[KEEP] = "keep", [ON] = "on", [OFF] = "off", NULL};

const struct opt qcow2_amend_opts[] = {
    O_ENUM(struct qcow2_amend, compat, "compat", "keep", versions, "version"),
    O_ENUM(struct qcow2_amend, lazy, "lazy_refcounts", "keep", switches, "other programs may postpone counting"),
    O_STR(struct qcow2_amend, backing, "backing_file", NULL, "what it is based on; empty: nothing", .arg = "FILE"),
    O_STR(struct qcow2_amend, format, "backing_fmt", NULL, "that file's format", .arg = "FORMAT"),
    LUKS_AMEND_OPTIONS(struct qcow2_amend, luks., "encrypt."),
    O_END,
};

static int change_header(struct qcow2 *q, const struct qcow2_amend *a)
{
    struct qcow2_header was = q->h;
    int rc = qcow2_begin(q);

    if (!rc)
        rc = qcow2_commit(q);
    if (rc)
        return rc;
    if (a->compat && q->h.version < 3) {
        q->h.version = 3;
        q->h.len = QCOW2_OUR_HEADER;
    }
    if (a->lazy)
        q->h.compat = a->lazy == ON ? q->h.compat | QCOW2_CO_LAZY : q->h.compat & ~QCOW2_CO_LAZY;
    rc = qcow2_header_write(q->b.file, &q->h);
    if (!rc)
        rc = blk_flush(q->b.file);
    if (rc)
        q->h = was;
    return rc;
}

int qcow2_amend(struct blk *b, const void *opts, const struct blk_keys *keys, bool force, struct err *err)
{
    const struct qcow2_amend *a = opts;
    struct qcow2 *q = qcow2_of(b);
    cleanup_free char *format = a->format ? xstrdup(a->format) : qcow2_backing_format(b);
    int rc;

    if (a->lazy == ON && q->h.version < 3 && !a->compat)
        return err_set(err, EINVAL, "%s: version 0.10 has no lazy_refcounts; say compat=1.1 as well", b->name);
    if (a->format && !a->backing && !q->h.backing)
        return err_set(err, EINVAL, "%s is based on nothing, so backing_fmt means nothing", b->name);
    rc = qcow2_crypt_amend(q, &a->luks, keys, force, err);
    if (rc)
        return rc;
    pthread_mutex_lock(&q->lock);
    rc = change_header(q, a);
    pthread_mutex_unlock(&q->lock);
    if (rc)
        return err_set(err, -rc, "%s: write header: %s", b->name, strerror(-rc));
    if (a->backing)
        return qcow2_set_backing(b, *a->backing ? a->backing : NULL, a->format, err);
    return a->format ? qcow2_set_backing(b, q->h.backing, format, err) : 0;
}
