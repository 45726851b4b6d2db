/*
 * A filter that writes down every change of the disk and every flush, in the order in which they were done, so that one
 * can see which disks a power cut may leave behind: a copy of the disk as it was, with the log replayed up to any
 * flush.
 *
 * The log: a header of 32 bytes, then records of 32 bytes each, that of a write with its data behind.  Little-endian.
 *
 *     header   8 bytes "bothylog", u32 version 1, u32 0, u64 size of the disk, u64 0
 *     record   u32 "BREC", u32 what, u64 offset, u64 length, u64 0
 *     what     1 write, 2 flush, 3 discard, 4 zeroes, 5 zeroes that need not stay allocated
 *
 * A record is written once its request is done and before that is said, so what was done before a flush is in the log
 * before that flush.  A last record that is not there in full never happened.
 */
#include <errno.h>
#include <inttypes.h>

#include "devices/block/file.h"
#include "devices/block/filter.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"

enum { RECORD = 32, VERSION = 1, CHUNK = 1 << 20 /* bytes that replay reads at a time */ };
enum what { WRITE = 1, FLUSH, DISCARD, ZERO, ZERO_UNMAP };

static const char magic[8] = "bothylog", record_magic[4] = "BREC";

struct log {
    struct blk b;
    char *path;
    struct blk *out;
    pthread_mutex_t lock; /* of the two below, and held while a record is written: they are in order */
    uint64_t end;
    int failed; /* -errno, once a record could not be written: nothing is done any more that the log would lack */
};

static const struct opt log_opts[] = {
    O_STR(struct log, path, "file", NULL, "where the log goes: a new file", .arg = "FILE"),
    O_END,
};

static struct log *log_of(struct blk *b)
{
    return container_of(b, struct log, b);
}

static int append(struct log *l, const struct blk_io *io)
{
    static const enum what whats[] = {
        [BLK_WRITE] = WRITE, [BLK_FLUSH] = FLUSH, [BLK_DISCARD] = DISCARD, [BLK_ZERO] = ZERO};
    enum what what = io->op == BLK_ZERO && io->unmap ? ZERO_UNMAP : whats[io->op];
    uint64_t data = io->op == BLK_WRITE ? io->len : 0;
    uint8_t rec[RECORD] = {0};
    int rc;

    memcpy(rec, record_magic, sizeof(record_magic));
    put_le32(rec + 4, what);
    put_le64(rec + 8, what == FLUSH ? 0 : io->off);
    put_le64(rec + 16, what == FLUSH ? 0 : io->len);
    pthread_mutex_lock(&l->lock);
    rc = l->failed ? l->failed : blk_pwrite(l->out, rec, sizeof(rec), l->end);
    if (!rc && data)
        rc = blk_rw_part(l->out, io, 0, data, l->end + RECORD);
    if (rc && !l->failed)
        log_msg(LOG_ERROR, "write %s: %s; all writes to %s fail from now on", l->path, strerror(-rc), l->b.name);
    l->failed = rc;
    l->end += RECORD + data;
    pthread_mutex_unlock(&l->lock);
    return rc;
}

static int log_rw(struct blk *b, const struct blk_io *io)
{
    int rc = blk_rw(b->file, io);

    return rc || io->op == BLK_READ ? rc : append(log_of(b), io);
}

static int log_open(struct blk *b, const struct blk_open_opts *o, struct err *err)
{
    struct log *l = log_of(b);
    uint8_t head[RECORD] = {0};
    int rc;

    (void)o;
    pthread_mutex_init(&l->lock, NULL);
    if (!l->path)
        return err_set(err, EINVAL, "%s: log has no place to write to; give it file=…", b->name);
    rc = blk_create_file(l->path, false, &l->out, err);
    if (rc)
        return rc;
    memcpy(head, magic, sizeof(magic));
    put_le32(head + 8, VERSION);
    put_le64(head + 16, b->lim.size);
    rc = blk_pwrite(l->out, head, sizeof(head), 0);
    if (rc)
        return err_set(err, -rc, "write %s: %s", l->path, strerror(-rc));
    l->end = sizeof(head);
    return 0;
}

static void log_close(struct blk *b)
{
    blk_close(log_of(b)->out);
}

const struct blk_driver log_driver = {
    .name = "log",
    .summary = "records writes and flushes, for replay",
    .size = sizeof(struct log),
    .opts = log_opts,
    .open = log_open,
    .close = log_close,
    .rw = log_rw,
    .resize = filter_resize,
};

/* ---- Replay. ---- */

static int replay_data(struct blk *log, uint64_t from, struct blk *to, uint64_t off, uint64_t len)
{
    cleanup_free uint8_t *buf = xcalloc(1, CHUNK);
    int rc = 0;

    for (uint64_t at = 0, n; at < len && !rc; at += n) {
        n = min_u64(len - at, CHUNK);
        rc = blk_pread(log, buf, n, from + at);
        if (!rc)
            rc = blk_pwrite(to, buf, n, off + at);
    }
    return rc;
}

static int replay_one(struct blk *log, uint64_t data, struct blk *to, enum what what, uint64_t off, uint64_t len)
{
    int rc = -EINVAL;

    switch (what) {
    case WRITE:
        return replay_data(log, data, to, off, len);
    case FLUSH:
        return blk_flush(to);
    case DISCARD:
        rc = blk_discard(to, off, len);
        return rc == -EOPNOTSUPP ? 0 : rc;
    case ZERO:
    case ZERO_UNMAP:
        return blk_zero(to, off, len, what == ZERO_UNMAP);
    }
    return rc;
}

static int replay(struct blk *log, uint64_t bytes, uint64_t flushes, struct blk *to, struct log_summary *s,
                  struct err *err)
{
    uint8_t rec[RECORD];
    int rc = 0;

    for (uint64_t at = RECORD, data; s->flushes < flushes && range_fits(at, RECORD, bytes); at += RECORD + data) {
        uint32_t what;
        uint64_t off, len;

        rc = blk_pread(log, rec, sizeof(rec), at);
        if (rc)
            return err_set(err, -rc, "read %s: %s", log->name, strerror(-rc));
        what = get_le32(rec + 4);
        off = get_le64(rec + 8);
        len = get_le64(rec + 16);
        data = what == WRITE ? len : 0;
        if (memcmp(rec, record_magic, sizeof(record_magic)) || what < WRITE || what > ZERO_UNMAP ||
            !range_fits(off, len, INT64_MAX) || !len != (what == FLUSH))
            return err_set(err, EINVAL, "%s: the record at byte %" PRIu64 " is damaged", log->name, at);
        if (!range_fits(at + RECORD, data, bytes))
            return 0;
        if (to && !to->lim.grows && !range_fits(off, len, to->lim.size))
            return err_set(err, ERANGE, "%s has %" PRIu64 " bytes, and %s goes on behind them", to->name, to->lim.size,
                           log->name);
        rc = to ? replay_one(log, at + RECORD, to, what, off, len) : 0;
        if (rc)
            return err_set(err, -rc, "%s: %s", to->name, strerror(-rc));
        s->flushes += what == FLUSH;
        s->changes += what != FLUSH;
        s->bytes += data;
    }
    return 0;
}

int log_replay(const char *path, uint64_t flushes, struct blk *to, struct log_summary *ret, struct err *err)
{
    struct log_summary s = {0};
    uint8_t head[RECORD] = {0};
    struct blk *log;
    struct stat st;
    int rc = file_open(path, path, &(struct blk_open_opts){.read_only = true}, 0, NULL, &log, err);

    if (rc)
        return rc;
    rc = file_stat(log, &st);
    if (!rc)
        rc = blk_pread(log, head, sizeof(head), 0);
    s.size = get_le64(head + 16);
    if (rc)
        rc = err_set(err, -rc, "read %s: %s", path, strerror(-rc));
    else if (memcmp(head, magic, sizeof(magic)) || get_le32(head + 8) != VERSION)
        rc = err_set(err, EINVAL, "%s is not a log of a disk; the filter log:file=… writes one", path);
    else
        rc = replay(log, (uint64_t)st.st_size, flushes, to, &s, err);
    if (!rc && s.flushes < flushes && flushes != UINT64_MAX)
        rc = err_set(err, ERANGE, "%s has %" PRIu64 " flushes, not %" PRIu64, path, s.flushes, flushes);
    blk_close(log);
    if (!rc)
        *ret = s;
    return rc;
}
