#include "firmware/load/payload.h"

#include <zlib.h>

#ifdef HAVE_ZSTD
#include <zstd.h>
#endif
#ifdef HAVE_LZ4
#include <lz4.h>
#endif
#ifdef HAVE_LZMA
#include <lzma.h>
#endif
#ifdef HAVE_BZ2
#include <bzlib.h>
#endif

/* All: 0 and the length, -EINVAL, -EFBIG or -ENOMEM.  `n` and `max` fit into 32 bits. */
typedef int decompress_fn(const uint8_t *in, size_t n, uint8_t *out, size_t max, size_t *len);

static int run_gzip(const uint8_t *in, size_t n, uint8_t *out, size_t max, size_t *len)
{
    z_stream z = {.next_in = (Bytef *)in, .avail_in = (uInt)n, .next_out = out, .avail_out = (uInt)max};
    int rc = inflateInit2(&z, 16 + MAX_WBITS); /* 16: with gzip's header */

    if (rc != Z_OK)
        return -ENOMEM;
    rc = inflate(&z, Z_FINISH);
    *len = z.total_out;
    inflateEnd(&z);
    if (rc == Z_STREAM_END)
        return 0;
    return rc == Z_BUF_ERROR && z.avail_out == 0 ? -EFBIG : -EINVAL;
}

#ifdef HAVE_ZSTD
static int run_zstd(const uint8_t *in, size_t n, uint8_t *out, size_t max, size_t *len)
{
    size_t got, frame = ZSTD_findFrameCompressedSize(in, n);

    if (ZSTD_isError(frame))
        return -EINVAL;
    got = ZSTD_decompress(out, max, in, frame);
    if (ZSTD_isError(got))
        return ZSTD_getFrameContentSize(in, n) > max ? -EFBIG : -EINVAL;
    *len = got;
    return 0;
}
#endif

#ifdef HAVE_LZ4
/* The legacy frame: a magic number, then blocks, each with its compressed length in front. */
static int run_lz4(const uint8_t *in, size_t n, uint8_t *out, size_t max, size_t *len)
{
    enum { BLOCK_MAX = 8 << 20 };
    size_t at = 4, done = 0;

    while (n - at >= 4) {
        uint32_t block = get_le32(in + at);
        int got;

        at += 4;
        if (at == n) /* the length of all that came out, which the kernel's build appends */
            break;
        if (block > n - at)
            return -EINVAL;
        got = LZ4_decompress_safe((const char *)in + at, (char *)out + done, (int)block,
                                  (int)min_u64(max - done, BLOCK_MAX));
        if (got < 0)
            return max - done < BLOCK_MAX ? -EFBIG : -EINVAL;
        done += (size_t)got;
        at += block;
    }
    *len = done;
    return 0;
}
#endif

#ifdef HAVE_LZMA
enum { LZMA_MEMORY_MAX = 256 << 20 }; /* for the dictionary, whose size the file chooses; kernels use 32 MiB */

static int run_lzma_stream(lzma_stream *s, const uint8_t *in, size_t n, uint8_t *out, size_t max, size_t *len)
{
    lzma_ret rc;

    s->next_in = in;
    s->avail_in = n;
    s->next_out = out;
    s->avail_out = max;
    do {
        rc = lzma_code(s, LZMA_FINISH);
    } while (rc == LZMA_OK); /* without progress it is LZMA_BUF_ERROR */
    *len = max - s->avail_out;
    lzma_end(s);
    if (rc == LZMA_STREAM_END)
        return 0;
    if (rc == LZMA_MEM_ERROR)
        return -ENOMEM;
    return s->avail_out == 0 ? -EFBIG : -EINVAL;
}

static int run_xz(const uint8_t *in, size_t n, uint8_t *out, size_t max, size_t *len)
{
    lzma_stream s = LZMA_STREAM_INIT;

    if (lzma_stream_decoder(&s, LZMA_MEMORY_MAX, 0) != LZMA_OK)
        return -ENOMEM;
    return run_lzma_stream(&s, in, n, out, max, len);
}

static int run_lzma(const uint8_t *in, size_t n, uint8_t *out, size_t max, size_t *len)
{
    lzma_stream s = LZMA_STREAM_INIT;

    if (lzma_alone_decoder(&s, LZMA_MEMORY_MAX) != LZMA_OK)
        return -ENOMEM;
    return run_lzma_stream(&s, in, n, out, max, len);
}
#endif

#ifdef HAVE_BZ2
static int run_bzip2(const uint8_t *in, size_t n, uint8_t *out, size_t max, size_t *len)
{
    unsigned got = (unsigned)max;
    int rc = BZ2_bzBuffToBuffDecompress((char *)out, &got, (char *)in, (unsigned)n, 0, 0);

    if (rc == BZ_OK)
        *len = got;
    return rc == BZ_OK ? 0 : rc == BZ_OUTBUFF_FULL ? -EFBIG : rc == BZ_MEM_ERROR ? -ENOMEM : -EINVAL;
}
#endif

static const struct {
    uint8_t magic[6], len;
    decompress_fn *run;
} formats[] = {
    {{0x1f, 0x8b, 0x08}, 3, run_gzip},
#ifdef HAVE_ZSTD
    {{0x28, 0xb5, 0x2f, 0xfd}, 4, run_zstd},
#endif
#ifdef HAVE_LZ4
    {{0x02, 0x21, 0x4c, 0x18}, 4, run_lz4},
#endif
#ifdef HAVE_LZMA
    {{0xfd, '7', 'z', 'X', 'Z', 0}, 6, run_xz},
    {{0x5d, 0x00, 0x00}, 3, run_lzma},
#endif
#ifdef HAVE_BZ2
    {{'B', 'Z', 'h'}, 3, run_bzip2},
#endif
};

int payload_decompress(const uint8_t *in, size_t n, size_t max, struct buf *ret, size_t *len)
{
    for (size_t i = 0; i < array_len(formats); i++) {
        struct buf out;
        int rc;

        if (n < formats[i].len || memcmp(in, formats[i].magic, formats[i].len) != 0)
            continue;
        if (n > UINT32_MAX || max > INT32_MAX)
            return -EFBIG;
        rc = buf_alloc(&out, max);
        if (rc < 0)
            return rc;
        rc = formats[i].run(in, n, out.p, max, len);
        if (rc < 0)
            buf_free(&out);
        else
            *ret = out;
        return rc;
    }
    return -ENOTSUP;
}
