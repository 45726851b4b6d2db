#include "devices/block/blkimg.h"

#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "devices/block/file.h"
#include "vmm/base/cleanup.h"

enum {
    PAGE = 4096,
    PAGES = 512,        /* tables of 2 MiB at most are kept in memory */
    BLOCKS_AT_ONCE = 64 /* that a part is put together of, where they lie one after the other */
};

struct blkimg_page {
    struct blk *file;
    uint64_t off;
    uint8_t data[PAGE];
};

/* ---- The cache of tables. ---- */

static struct blkimg_page **slot_of(struct blkimg *im, const struct blk *file, uint64_t off)
{
    return &im->pages[(off / PAGE + (uintptr_t)file / sizeof(*file)) % PAGES];
}

static bool holds(const struct blkimg_page *p, const struct blk *file, uint64_t off)
{
    return p && p->file == file && p->off == off;
}

static int page_read(struct blkimg *im, struct blk *file, uint64_t off, struct blkimg_page **ret)
{
    struct blkimg_page **slot = slot_of(im, file, off), *p = *slot;
    uint64_t n = im->fresh ? PAGE : min_u64(PAGE, file->lim.size - off);
    int rc;

    if (!p) {
        p = *slot = malloc(sizeof(*p));
        if (!p)
            return -ENOMEM;
    }
    p->file = NULL; /* should the read fail */
    rc = blk_pread(file, p->data, n, off);
    if (rc)
        return rc;
    memset(p->data + n, 0, PAGE - n);
    p->file = file;
    p->off = off;
    *ret = p;
    return 0;
}

static int get_locked(struct blkimg *im, struct blk *file, uint64_t off, uint8_t *buf, size_t n, bool wait)
{
    while (n) {
        uint64_t start = align_down(off, PAGE), at = off - start, len = min_u64(PAGE - at, n);
        struct blkimg_page *p = *slot_of(im, file, start);

        if (!holds(p, file, start)) {
            int rc = wait ? page_read(im, file, start, &p) : -EAGAIN;

            if (rc)
                return rc;
        }
        memcpy(buf, p->data + at, len);
        buf += len;
        off += len;
        n -= len;
    }
    return 0;
}

bool blkimg_fits(const struct blkimg *im, const struct blk *file, uint64_t off, uint64_t n)
{
    return range_fits(off, n, im->fresh ? INT64_MAX : file->lim.size);
}

int blkimg_get(struct blkimg *im, struct blk *file, uint64_t off, void *buf, size_t n, bool wait)
{
    int rc;

    if (!blkimg_fits(im, file, off, n))
        return -EIO;
    if (wait)
        pthread_mutex_lock(&im->cached);
    else if (pthread_mutex_trylock(&im->cached))
        return -EAGAIN;
    rc = get_locked(im, file, off, buf, n, wait);
    pthread_mutex_unlock(&im->cached);
    return rc;
}

int blkimg_put(struct blkimg *im, struct blk *file, uint64_t off, const void *buf, size_t n)
{
    int rc;

    pthread_mutex_lock(&im->cached);
    rc = blk_pwrite(file, buf, n, off);
    for (size_t done = 0, len; done < n && !rc; done += len) {
        uint64_t start = align_down(off + done, PAGE), at = off + done - start;
        struct blkimg_page *p = *slot_of(im, file, start);

        len = min_u64(PAGE - at, n - done);
        if (holds(p, file, start))
            memcpy(p->data + at, (const uint8_t *)buf + done, len);
    }
    pthread_mutex_unlock(&im->cached);
    return rc;
}

int blkimg_bits(struct blkimg *im, struct blk *file, uint64_t off, uint64_t bit, uint64_t max, bool msb, bool wait,
                bool *set, uint64_t *run)
{
    uint8_t bytes[64];
    uint64_t first = bit / 8, n = 0;
    size_t have = min_u64(sizeof(bytes), (bit + max - 1) / 8 - first + 1);
    int rc = blkimg_get(im, file, off + first, bytes, have, wait);

    if (rc)
        return rc;
    for (bit %= 8; n < max && bit < have * 8; n++, bit++) {
        bool is = bytes[bit / 8] >> (msb ? 7 - bit % 8 : bit % 8) & 1;

        if (!n)
            *set = is;
        else if (is != *set)
            break;
    }
    *run = n;
    return 0;
}

/* ---- Finding and reading. ---- */

/* Do they follow each other where they lie? */
static bool joins(const struct blkimg_at *a, const struct blkimg_at *b)
{
    if (a->place != b->place || a->compressed || b->compressed)
        return false;
    return a->place != BLK_AT || (a->file == b->file && a->off + a->len == b->off);
}

/* What lies at `off`, as far as it lies together, `len` bytes at most. */
static int locate(struct blkimg *im, uint64_t off, uint64_t len, bool wait, struct blkimg_at *ret)
{
    struct blkimg_at at = {.len = len}, next;
    int rc = im->ops->find(im, off, wait, &at);

    for (unsigned i = 0; i < BLOCKS_AT_ONCE && !rc && at.len < len; i++) {
        next = (struct blkimg_at){.len = len - at.len};
        if (im->ops->find(im, off + at.len, wait, &next) || !joins(&at, &next))
            break;
        at.len += next.len;
    }
    if (rc)
        return rc;
    assert(at.len && at.len <= len);
    *ret = at;
    return 0;
}

static int read_at(struct blkimg *im, const struct blkimg_at *at, const struct blk_io *io, uint64_t skip)
{
    switch (at->place) {
    case BLK_AT:
        if (at->compressed)
            return im->ops->read(im, at, io, skip, at->len);
        if (!blkimg_fits(im, at->file, at->off, at->len))
            return -EIO; /* the image was cut short, or its tables are damaged */
        return blk_rw_part(at->file, io, skip, at->len, at->off);
    case BLK_BACKING:
        return blk_read_backing(&im->b, io, skip, at->len);
    case BLK_ZEROES:
        iov_zero(io->iov, skip, at->len);
        return 0;
    case BLK_BUSY:
        break;
    }
    return -EIO;
}

/* ---- Filling. ---- */

uint64_t blkimg_extend(struct blkimg *im, uint64_t n, uint64_t align)
{
    uint64_t place = align_up(im->end, align);

    im->end = place + n;
    return place;
}

static int place_block(struct blkimg *im, uint64_t off)
{
    struct blkimg_at at = {.len = 1};
    int rc;

    pthread_mutex_lock(&im->grow);
    rc = im->ops->find(im, off, true, &at);
    if (!rc && at.place != BLK_AT) /* nobody else was faster */
        rc = im->ops->alloc(im, off);
    pthread_mutex_unlock(&im->grow);
    return rc;
}

static int write_at(struct blkimg *im, struct blkimg_at *at, const struct blk_io *io, uint64_t skip)
{
    if (at->place == BLK_AT)
        return blk_rw_part(at->file, io, skip, at->len, at->off);
    if (io->op == BLK_ZERO)
        return 0; /* so it reads already */
    at->len = 0;  /* once more, when it has a place */
    return place_block(im, io->off + skip);
}

/* Completes the file.  Its last byte is written as it is, so that the last block is there whole. */
static int finish(struct blkimg *im)
{
    uint8_t last;
    int rc = 0;

    pthread_mutex_lock(&im->grow);
    if (im->end)
        rc = blk_pread(im->b.file, &last, 1, im->end - 1);
    if (im->end && !rc)
        rc = blk_pwrite(im->b.file, &last, 1, im->end - 1);
    if (!rc && im->ops->finish)
        rc = im->ops->finish(im);
    pthread_mutex_unlock(&im->grow);
    return rc ? rc : blk_flush(im->b.file);
}

/* ---- A driver's operations. ---- */

int blkimg_rw(struct blk *b, const struct blk_io *io)
{
    struct blkimg *im = container_of(b, struct blkimg, b);
    struct blkimg_at at;
    int rc = 0;

    if (io->op == BLK_FLUSH)
        return im->fresh ? finish(im) : 0;
    if (io->op == BLK_DISCARD)
        return 0; /* of a fresh image: a hint that we do not take */
    for (uint64_t done = 0; done < io->len && !rc; done += at.len) {
        rc = locate(im, io->off + done, io->len - done, true, &at);
        if (!rc)
            rc = io->op == BLK_READ ? read_at(im, &at, io, done) : write_at(im, &at, io, done);
    }
    return rc;
}

void blkimg_map(struct blk *b, const struct blk_io *io, struct blk_map *ret)
{
    struct blkimg *im = container_of(b, struct blkimg, b);
    struct blkimg_at at;

    if (io->op != BLK_READ || locate(im, io->off, io->len, false, &at))
        return;
    if (at.place == BLK_AT && (at.compressed || at.file != b->file || (at.off | at.len) % b->file->lim.align ||
                               !range_fits(at.off, at.len, b->file->lim.size)))
        return;
    *ret = (struct blk_map){.place = at.place, .off = at.off, .len = at.len, .in = b->file};
}

int blkimg_status(struct blk *b, uint64_t off, uint64_t len, struct blk_status *ret)
{
    struct blkimg *im = container_of(b, struct blkimg, b);
    struct blkimg_at at;
    int rc = locate(im, off, len, true, &at);

    if (rc)
        return rc;
    *ret = (struct blk_status){.place = at.place, .len = at.len};
    /* Past the end there is no hole but damage. */
    if (at.place == BLK_AT && at.fixed && at.file->drv->status && blkimg_fits(im, at.file, at.off, at.len)) {
        rc = at.file->drv->status(at.file, at.off, at.len, ret);
        if (rc)
            return rc;
    }
    if (ret->place == BLK_AT) {
        ret->compressed = at.compressed;
        ret->has_off = !at.compressed && at.file == b->file;
        ret->off = ret->has_off ? at.off : 0;
    }
    return 0;
}

/* ---- Opening and closing. ---- */

int blkimg_init(struct blkimg *im, const struct blkimg_ops *ops, const struct blk_open_opts *o, struct err *err)
{
    im->ops = ops;
    pthread_mutex_init(&im->grow, NULL);
    pthread_mutex_init(&im->cached, NULL);
    im->pages = xcalloc(PAGES, sizeof(struct blkimg_page *));
    im->fresh = o->fresh;
    im->b.lim.align = 512;
    im->b.lim.read_only = !o->fresh;
    if (o->fresh || o->read_only)
        return 0;
    return err_set(err, EROFS,
                   "%s: %s images are only read; open it with ro, convert it to qcow2, or base a new qcow2 image on it",
                   im->b.name, im->b.drv->name);
}

void blkimg_close(struct blk *b)
{
    struct blkimg *im = container_of(b, struct blkimg, b);

    if (!im->pages)
        return;
    for (unsigned i = 0; i < PAGES; i++)
        free(im->pages[i]);
    free(im->pages);
    pthread_mutex_destroy(&im->cached);
    pthread_mutex_destroy(&im->grow);
}

int blkimg_header(struct blk *b, void *buf, size_t n, uint64_t off, struct err *err)
{
    int rc;

    if (!range_fits(off, n, b->file->lim.size))
        return blkimg_bad(b, err, "the file is cut short");
    rc = blk_pread(b->file, buf, n, off);
    return rc ? err_set(err, -rc, "read %s: %s", b->name, strerror(-rc)) : 0;
}

int blkimg_bad(struct blk *b, struct err *err, const char *fmt, ...)
{
    char why[400];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    return err_set(err, EINVAL, "%s is no %s image or a damaged one: %s", b->name, b->drv->name, why);
}

int blkimg_refuse(struct blk *b, struct err *err, const char *fmt, ...)
{
    char why[400];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    return err_set(err, ENOTSUP, "%s: %s", b->name, why);
}

int blkimg_may_make(struct blk *file, struct err *err)
{
    struct stat st;
    int rc = file_stat(file, &st);

    if (!rc && !S_ISBLK(st.st_mode))
        return 0;
    return err_set(err, rc ? -rc : ENOTSUP, "%s",
                   rc ? strerror(-rc)
                      : "such an image is made in a file, not in a device; write a raw or qcow2 one there");
}

void blkimg_uuid(uint8_t uuid[16])
{
    if (getrandom(uuid, 16, 0) != 16)
        abort(); /* a kernel that has no 16 random bytes has nothing else either */
    uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40);
    uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
}

bool blkimg_utf16(const uint8_t *p, size_t n, bool big, char *ret, size_t max)
{
    size_t len = 0;

    for (size_t i = 0; i + 1 < n; i += 2) {
        uint32_t c = big ? (uint32_t)p[i] << 8 | p[i + 1] : get_le16(p + i);

        if (!c)
            break;
        if (c == '\\')
            c = '/';
        if ((c & 0xf800) == 0xd800 || len + 4 > max)
            return false; /* no surrogates: nobody has such a name */
        if (c < 0x80) {
            ret[len++] = (char)c;
        } else if (c < 0x800) {
            ret[len++] = (char)(0xc0 | c >> 6);
            ret[len++] = (char)(0x80 | (c & 0x3f));
        } else {
            ret[len++] = (char)(0xe0 | c >> 12);
            ret[len++] = (char)(0x80 | (c >> 6 & 0x3f));
            ret[len++] = (char)(0x80 | (c & 0x3f));
        }
    }
    ret[len] = 0;
    return len;
}
