/* Compressed clusters of a qcow2 image: raw deflate [RFC 1951] or zstd [RFC 8878], at any byte of the file.  Several
 * may lie in one cluster, which is counted once for each of them. */
#define ZLIB_CONST
#include <zlib.h>
#ifdef HAVE_ZSTD
#include <zstd.h>
#endif
#ifdef HAVE_ISAL
#include <dlfcn.h>
#include <isa-l.h>
#include <stdio.h>
#endif

#include "devices/block/qcow2_int.h"
#include "vmm/base/cleanup.h"

enum {
    WINDOW_BITS = 12, /* of deflate: what other readers have room for */
    ZLIB_LEVEL = 3,   /* this and the next: half again as fast as the default, for one to four percent of size */
    ZLIB_MEMORY = 8,
    ZSTD_LEVEL = 2,
    WINDOW_BITS_MAX = 15, /* of inflate: whatever is there */
    ZSTD_WINDOW_MAX = 23, /* the same: 8 MiB */
};

/* ---- One cluster. ---- */

static int inflate_all(const uint8_t *src, size_t n, uint8_t *dst, size_t size)
{
    z_stream z = {.next_in = src, .avail_in = (uInt)n, .next_out = dst, .avail_out = (uInt)size};
    int rc;

    if (inflateInit2(&z, -WINDOW_BITS_MAX) != Z_OK)
        return -ENOMEM;
    rc = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    /* Behind the data may be others': what counts is that the cluster is full. */
    return (rc == Z_STREAM_END || rc == Z_BUF_ERROR) && !z.avail_out ? 0 : -EIO;
}

static ssize_t deflate_zlib(const uint8_t *src, size_t n, uint8_t *dst, size_t room)
{
    z_stream z = {.next_in = src, .avail_in = (uInt)n, .next_out = dst, .avail_out = (uInt)room};
    int rc;

    if (deflateInit2(&z, ZLIB_LEVEL, Z_DEFLATED, -WINDOW_BITS, ZLIB_MEMORY, Z_DEFAULT_STRATEGY) != Z_OK)
        return -ENOMEM;
    rc = deflate(&z, Z_FINISH);
    deflateEnd(&z);
    return rc == Z_STREAM_END ? (ssize_t)(room - z.avail_out) : -ENOSPC;
}

#ifdef HAVE_ISAL
enum { ISAL_LEVEL = 3 }; /* five times as fast as zlib, and the same size within some percent */

struct isal {
    struct isal_zstream z;
    uint8_t buf[ISAL_DEF_LVL3_SMALL];
};

/* Loaded when it is needed, and then it stays: only `bothy img convert -c` has a use for it. */
static void isal_load(__typeof__(isal_deflate_stateless_init) **init, __typeof__(isal_deflate_stateless) **deflate_it)
{
    char name[32];
    void *lib;

    snprintf(name, sizeof(name), "libisal.so.%d", ISAL_MAJOR_VERSION);
    lib = dlopen(name, RTLD_NOW);
    *init = lib ? (__typeof__(*init))dlsym(lib, "isal_deflate_stateless_init") : NULL;
    *deflate_it = lib ? (__typeof__(*deflate_it))dlsym(lib, "isal_deflate_stateless") : NULL;
}

static ssize_t deflate_all(const uint8_t *src, size_t n, uint8_t *dst, size_t room)
{
    __typeof__(isal_deflate_stateless_init) *init;
    __typeof__(isal_deflate_stateless) *deflate_it;
    cleanup_free struct isal *s = NULL;

    isal_load(&init, &deflate_it);
    if (!init || !deflate_it)
        return deflate_zlib(src, n, dst, room);
    s = aligned_alloc(_Alignof(struct isal), sizeof(*s));
    if (!s)
        return -ENOMEM;
    init(&s->z);
    s->z.level = ISAL_LEVEL;
    s->z.level_buf = s->buf;
    s->z.level_buf_size = sizeof(s->buf);
    s->z.hist_bits = WINDOW_BITS;
    s->z.end_of_stream = 1;
    s->z.next_in = (uint8_t *)src;
    s->z.avail_in = (uint32_t)n;
    s->z.next_out = dst;
    s->z.avail_out = (uint32_t)room;
    return deflate_it(&s->z) == COMP_OK ? (ssize_t)(room - s->z.avail_out) : -ENOSPC;
}
#else
static ssize_t deflate_all(const uint8_t *src, size_t n, uint8_t *dst, size_t room)
{
    return deflate_zlib(src, n, dst, room);
}
#endif

#ifdef HAVE_ZSTD
static void free_dctx(ZSTD_DCtx **c)
{
    ZSTD_freeDCtx(*c);
}

static int unzstd_all(const uint8_t *src, size_t n, uint8_t *dst, size_t size)
{
    __attribute__((cleanup(free_dctx))) ZSTD_DCtx *c = ZSTD_createDCtx();
    ZSTD_inBuffer in = {.src = src, .size = n};
    ZSTD_outBuffer out = {.dst = dst, .size = size};

    if (!c || ZSTD_isError(ZSTD_DCtx_setParameter(c, ZSTD_d_windowLogMax, ZSTD_WINDOW_MAX)))
        return -ENOMEM;
    while (out.pos < out.size) {
        size_t was_in = in.pos, was_out = out.pos;

        if (ZSTD_isError(ZSTD_decompressStream(c, &out, &in)) || (in.pos == was_in && out.pos == was_out))
            return -EIO;
    }
    return 0;
}

static ssize_t zstd_all(const uint8_t *src, size_t n, uint8_t *dst, size_t room)
{
    size_t got = ZSTD_compress(dst, room, src, n, ZSTD_LEVEL);

    return ZSTD_isError(got) ? -ENOSPC : (ssize_t)got;
}
#else
/* Images that need these are refused when they are opened or made. */
static int unzstd_all(const uint8_t *src, size_t n, uint8_t *dst, size_t size)
{
    (void)src, (void)n, (void)dst, (void)size;
    return -ENOTSUP;
}

static ssize_t zstd_all(const uint8_t *src, size_t n, uint8_t *dst, size_t room)
{
    (void)src, (void)n, (void)dst, (void)room;
    return -ENOTSUP;
}
#endif

/* ---- Reading. ---- */

static bool find_unpacked(struct qcow2 *q, uint64_t desc, uint32_t at, uint32_t n, const struct blk_io *io,
                          uint64_t skip)
{
    bool found = false;

    pthread_mutex_lock(&q->unpacked_lock);
    for (size_t i = 0; i < array_len(q->unpacked) && !found; i++) {
        found = q->unpacked[i].desc == desc;
        if (found)
            iov_put(io->iov, skip, q->unpacked[i].data + at, n);
    }
    pthread_mutex_unlock(&q->unpacked_lock);
    return found;
}

/* Takes `data` over. */
static void keep_unpacked(struct qcow2 *q, uint64_t desc, uint8_t *data)
{
    struct qcow2_unpacked *u;

    pthread_mutex_lock(&q->unpacked_lock);
    u = &q->unpacked[q->unpacked_next++ % QCOW2_UNPACKED];
    free(u->data);
    *u = (struct qcow2_unpacked){desc, data};
    pthread_mutex_unlock(&q->unpacked_lock);
}

void qcow2_unpacked_drop(struct qcow2 *q)
{
    pthread_mutex_lock(&q->unpacked_lock);
    for (size_t i = 0; i < array_len(q->unpacked); i++) {
        free(q->unpacked[i].data);
        q->unpacked[i] = (struct qcow2_unpacked){0};
    }
    pthread_mutex_unlock(&q->unpacked_lock);
}

int qcow2_unpack(struct qcow2 *q, uint64_t desc, uint32_t at, uint32_t n, const struct blk_io *io, uint64_t skip)
{
    const struct blk_limits *lim = &q->b.file->lim;
    cleanup_free uint8_t *src = NULL, *dst = NULL;
    uint64_t off, len, end;
    int rc;

    if (find_unpacked(q, desc, at, n, io, skip))
        return 0;
    qcow2_packed_range(q, desc, &off, &len);
    /* The last sector may be cut short by the file's end. */
    end = lim->grows ? off + len : min_u64(off + len, lim->size);
    if (off >= end)
        return -EIO;
    src = malloc(len);
    dst = malloc(q->cluster);
    if (!src || !dst)
        return -ENOMEM;
    rc = blk_pread(q->b.file, src, end - off, off);
    if (!rc)
        rc = (q->h.packing ? unzstd_all : inflate_all)(src, end - off, dst, q->cluster);
    if (rc)
        return rc;
    iov_put(io->iov, skip, dst + at, n);
    keep_unpacked(q, desc, take_ptr(dst));
    return 0;
}

/* ---- Writing. ---- */

/* Takes room for `n` bytes of compressed data: behind the last, or in a new cluster. */
static int take_room(struct qcow2 *q, uint64_t n, uint64_t *ret)
{
    uint64_t mask = q->cluster - 1, at = q->packed, room = at & mask ? q->cluster - (at & mask) : 0;
    uint64_t limit = 1ull << (62 - (q->bits - 8)), first = at >> q->bits, next, got, now;
    int rc = room ? qcow2_ref_add(q, first, 1, &now) : -ERANGE;

    if (rc && rc != -ERANGE)
        return rc;
    if (rc || n > room) {
        bool shared = !rc;

        rc = qcow2_alloc(q, 1, &next, &got);
        if (shared && (rc || next != first + 1)) {
            qcow2_unalloc(q, first, 1);
            shared = false;
        }
        if (rc)
            return rc;
        q->file_end = max_u64(q->file_end, (next + 1) << q->bits);
        if (!shared)
            at = next << q->bits;
    }
    if (at + n > limit) {
        for (uint64_t i = at >> q->bits; i <= (at + n - 1) >> q->bits; i++)
            qcow2_unalloc(q, i, 1);
        return -ENOSPC;
    }
    q->packed = at + n;
    *ret = at;
    return 0;
}

static int link_packed(struct qcow2 *q, uint64_t g, uint64_t desc)
{
    struct qcow2_cl old, cl = {.desc = desc, .packed = true};
    struct qcow2_slice *s;
    uint64_t at;
    uint32_t i;
    int rc = qcow2_l2_own(q, g, &at, &i);

    if (!rc)
        rc = qcow2_cache_get(q, &q->l2, at, &s);
    if (!rc)
        rc = qcow2_decode(q, s, i, &old);
    if (rc)
        return rc;
    qcow2_encode(q, s, i, &cl);
    qcow2_free_entry(q, old.desc, false);
    return 0;
}

static int store(struct qcow2 *q, uint64_t g, const uint8_t *buf, size_t n)
{
    struct qcow2_flight f;
    uint64_t at, more;
    int rc;

    pthread_mutex_lock(&q->lock);
    qcow2_flight_wait(q, g, 1);
    rc = qcow2_begin(q);
    if (!rc)
        rc = take_room(q, n, &at);
    if (!rc)
        qcow2_flight_begin(q, &f, g, 1);
    pthread_mutex_unlock(&q->lock);
    if (rc)
        return rc;
    rc = blk_pwrite(q->b.file, buf, n, at);
    more = ((at + n - 1) >> 9) - (at >> 9);
    pthread_mutex_lock(&q->lock);
    if (!rc)
        rc = link_packed(q, g, at | more << (62 - (q->bits - 8)) | QCOW2_PACKED);
    if (!rc)
        qcow2_bitmaps_mark(q, g << q->bits, q->cluster);
    for (uint64_t i = at >> q->bits; rc && i <= (at + n - 1) >> q->bits; i++)
        qcow2_unalloc(q, i, 1);
    qcow2_flight_end(q, &f);
    pthread_mutex_unlock(&q->lock);
    return rc;
}

int qcow2_write_compressed(struct blk *b, uint64_t off, const void *buf, size_t n)
{
    struct qcow2 *q = qcow2_of(b);
    cleanup_free uint8_t *dst = malloc(q->cluster), *whole = NULL;
    ssize_t got;

    if (q->guest != b->file)
        return -ENOTSUP; /* a data file has every cluster at its place; compressed ones are not encrypted */
    if (off & (q->cluster - 1) || !n || n > q->cluster || !range_fits(off, n, b->lim.size))
        return -EINVAL;
    if (!dst)
        return -ENOMEM;
    if (n < q->cluster) {
        whole = calloc(1, q->cluster);
        if (!whole)
            return -ENOMEM;
        memcpy(whole, buf, n);
    }
    got = (q->h.packing ? zstd_all : deflate_all)(whole ? whole : buf, q->cluster, dst, q->cluster - 1);
    if (got == -ENOSPC)
        return blk_pwrite(b, buf, n, off);
    return got < 0 ? (int)got : store(q, off >> q->bits, dst, (size_t)got);
}
