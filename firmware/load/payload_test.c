#include "firmware/load/payload.h"
#include "firmware/load/test_images.h"

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

enum { PLAIN = 50000 };

static struct bytes plain(void)
{
    struct bytes b = {.p = malloc(PLAIN), .n = PLAIN};

    for (size_t i = 0; i < b.n; i++)
        b.p[i] = (uint8_t)(i * i >> 7);
    return b;
}

static struct bytes with_room(size_t n)
{
    return (struct bytes){.p = malloc(n + n / 8 + 4096), .n = n + n / 8 + 4096};
}

#ifdef HAVE_ZSTD
static struct bytes zstd(const void *p, size_t n)
{
    struct bytes b = with_room(n);

    b.n = ZSTD_compress(b.p, b.n, p, n, 3);
    assert_false(ZSTD_isError(b.n));
    return b;
}
#endif

#ifdef HAVE_LZ4
static struct bytes lz4(const void *p, size_t n)
{
    struct bytes b = with_room(n);

    put_le32(b.p, 0x184c2102);
    b.n = (size_t)LZ4_compress_default(p, (char *)b.p + 8, (int)n, (int)b.n - 8);
    assert_true(b.n > 0);
    put_le32(b.p + 4, (uint32_t)b.n);
    b.n += 8;
    return b;
}
#endif

#ifdef HAVE_LZMA
static struct bytes xz(const void *p, size_t n)
{
    struct bytes b = with_room(n);
    size_t at = 0;

    assert_int_equal(lzma_easy_buffer_encode(0, LZMA_CHECK_CRC32, NULL, p, n, b.p, &at, b.n), LZMA_OK);
    b.n = at;
    return b;
}

static struct bytes lzma(const void *p, size_t n)
{
    struct bytes b = with_room(n);
    lzma_stream s = LZMA_STREAM_INIT;
    lzma_options_lzma o;

    lzma_lzma_preset(&o, 0);
    assert_int_equal(lzma_alone_encoder(&s, &o), LZMA_OK);
    s.next_in = p;
    s.avail_in = n;
    s.next_out = b.p;
    s.avail_out = b.n;
    assert_int_equal(lzma_code(&s, LZMA_FINISH), LZMA_STREAM_END);
    b.n = s.total_out;
    lzma_end(&s);
    return b;
}
#endif

#ifdef HAVE_BZ2
static struct bytes bzip2(const void *p, size_t n)
{
    struct bytes b = with_room(n);
    unsigned got = (unsigned)b.n;

    assert_int_equal(BZ2_bzBuffToBuffCompress((char *)b.p, &got, (char *)p, (unsigned)n, 9, 0, 0), BZ_OK);
    b.n = got;
    return b;
}
#endif

static const struct {
    struct bytes (*compress)(const void *p, size_t n);
    bool checked; /* the format has a checksum */
} formats[] = {
    {gzip, true},
#ifdef HAVE_ZSTD
    {zstd, false},
#endif
#ifdef HAVE_LZ4
    {lz4, false},
#endif
#ifdef HAVE_LZMA
    {xz, true},    {lzma, false},
#endif
#ifdef HAVE_BZ2
    {bzip2, true},
#endif
};

static void every_format_gives_back_what_went_in(void **s)
{
    struct bytes in = plain();

    (void)s;
    for (size_t i = 0; i < array_len(formats); i++) {
        struct bytes b = formats[i].compress(in.p, in.n);
        struct buf out;
        size_t len;

        bytes_put32(&b, b.n, PLAIN); /* as a kernel's build does */
        assert_int_equal(payload_decompress(b.p, b.n, PLAIN, &out, &len), 0);
        assert_int_equal(len, PLAIN);
        assert_memory_equal(out.p, in.p, PLAIN);
        buf_free(&out);
        bytes_free(&b);
    }
    bytes_free(&in);
}

static void output_beyond_the_limit_is_refused(void **s)
{
    struct bytes in = plain();

    (void)s;
    for (size_t i = 0; i < array_len(formats); i++) {
        struct bytes b = formats[i].compress(in.p, in.n);
        struct buf out;
        size_t len;

        assert_int_equal(payload_decompress(b.p, b.n, PLAIN - 1, &out, &len), -EFBIG);
        assert_int_equal(payload_decompress(b.p, b.n, 1, &out, &len), -EFBIG);
        bytes_free(&b);
    }
    bytes_free(&in);
}

static void damage_is_found_or_harmless(void **s)
{
    struct bytes in = plain();

    (void)s;
    for (size_t i = 0; i < array_len(formats); i++) {
        struct bytes b = formats[i].compress(in.p, in.n);
        struct buf out;
        size_t len;
        int rc;

        for (size_t cut = 0; cut < b.n; cut += 1 + b.n / 50) {
            rc = payload_decompress(b.p, cut, PLAIN, &out, &len);
            assert_true(rc < 0 || len < PLAIN);
            if (rc == 0)
                buf_free(&out);
        }
        for (size_t at = 6; at < b.n; at += 1 + b.n / 50) {
            b.p[at] ^= 0x41;
            rc = payload_decompress(b.p, b.n, PLAIN, &out, &len);
            assert_true(rc < 0 || !formats[i].checked || memcmp(out.p, in.p, PLAIN) == 0);
            if (rc == 0)
                buf_free(&out);
            b.p[at] ^= 0x41;
        }
        bytes_free(&b);
    }
    bytes_free(&in);
}

static void what_no_format_begins_with_is_not_supported(void **s)
{
    struct buf out;
    size_t len;

    (void)s;
    assert_int_equal(payload_decompress((const uint8_t *)"no format", 9, 100, &out, &len), -ENOTSUP);
    assert_int_equal(payload_decompress((const uint8_t *)"", 0, 100, &out, &len), -ENOTSUP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format_gives_back_what_went_in),
        cmocka_unit_test(output_beyond_the_limit_is_refused),
        cmocka_unit_test(damage_is_found_or_harmless),
        cmocka_unit_test(what_no_format_begins_with_is_not_supported),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
