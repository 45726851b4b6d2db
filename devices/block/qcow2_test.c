/* The qcow2 driver's doors: images of other programs, damaged ones, and what is done with whole images. */
#include "devices/block/qcow2.h"

#include <stdio.h>
#include <sys/stat.h>
#include <zlib.h>

#include "devices/block/qcow2_rig.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"

/* ---- Others' images. ---- */

/* The disk as qemu-img converts it to raw; NULL: there is no qemu-img. */
static struct mem *by_qemu(const struct mem *m, const char *flags)
{
    struct mem *raw = mem_create(0);
    char line[256];
    int rc;

    mem_apply(raw, &(struct mem_op){.op = BLK_WRITE, .len = m->size, .data = m->bytes});
    snprintf(line, sizeof(line), "qemu-img convert %s -f qcow2 -O raw image raw && mv raw image", flags);
    rc = rig_shell(raw, line);
    if (rc == -1) {
        mem_destroy(raw);
        return NULL;
    }
    assert_int_equal(rc, 0);
    return raw;
}

static void expect_same(struct blk *b, const struct mem *raw)
{
    cleanup_free uint8_t *buf = malloc(b->lim.size);

    assert_int_equal(b->lim.size, raw->size);
    assert_int_equal(blk_pread(b, buf, b->lim.size, 0), 0);
    assert_memory_equal(buf, raw->bytes, raw->size);
    /* in pieces, which do not fit to anything */
    for (uint64_t off = 0, n; off < b->lim.size; off += n) {
        n = min_u64(70001, b->lim.size - off);
        assert_int_equal(blk_pread(b, buf, n, off), 0);
        assert_memory_equal(buf, raw->bytes + off, n);
    }
}

#define FILL                                                                                                        \
    "qemu-io -f qcow2 -c 'write -P 1 0 200k' -c 'write -P 2 1M 64k' -c 'write -z 1M 16k' -c 'write -P 3 1500k 3k' " \
    "-c 'write -P 7 3M 1M' -c 'discard 3200k 128k' -c 'write -zu 3500k 64k' image"
#define PACK(options)                                              \
    "mv image a && qemu-img convert -c -f qcow2 -O qcow2 " options \
    " a image && qemu-io -f qcow2 -c 'write -P 9 70k 3k' image"

static const char *const made[] = {
    "qemu-img create -f qcow2 image 4M &&" FILL,
    "qemu-img create -f qcow2 -o compat=0.10 image 4M &&" FILL,
    "qemu-img create -f qcow2 -o cluster_size=512 image 4M &&" FILL,
    "qemu-img create -f qcow2 -o cluster_size=2M image 4M &&" FILL,
    "qemu-img create -f qcow2 -o refcount_bits=1 image 4M &&" FILL,
    "qemu-img create -f qcow2 -o refcount_bits=2,cluster_size=4k image 4M &&" FILL,
    "qemu-img create -f qcow2 -o refcount_bits=64 image 4M &&" FILL,
    "qemu-img create -f qcow2 -o lazy_refcounts=on,preallocation=metadata image 4M &&" FILL,
    "qemu-img create -f qcow2 -o extended_l2=on image 4M &&" FILL,
    "qemu-img create -f qcow2 -o extended_l2=on,cluster_size=16k image 4M &&" FILL,
    "qemu-img create -f qcow2 image 4M &&" FILL "&&" PACK(""),
    "qemu-img create -f qcow2 image 4M &&" FILL "&&" PACK("-o cluster_size=4k"),
    "qemu-img create -f qcow2 image 4M &&" FILL "&&" PACK("-o compression_type=zstd"),
    "qemu-img create -f qcow2 image 4M &&" FILL "&&" PACK("-o extended_l2=on,compression_type=zstd,cluster_size=2M"),
    "qemu-img create -f qcow2 image 4M &&" FILL "&& qemu-img snapshot -c one image && qemu-io -f qcow2 -c "
    "'write -P 8 100k 1M' image",
    "qemu-img create -f qcow2 image 4M && qemu-img bitmap --add image dirt &&" FILL,
};

static void images_of_qemu_are_read_and_written(void **s)
{
    (void)s;
    for (size_t i = 0; i < array_len(made); i++) {
        struct mem *m = mem_create(0), *raw;
        uint8_t buf[5000];
        struct blk *b;
        int rc = rig_shell(m, made[i]);

        if (rc == -1) {
            mem_destroy(m);
            skip();
        }
        assert_int_equal(rc, 0);
        raw = by_qemu(m, "");
        rig_check(m, false);
        b = rig_open(m, NULL);
        expect_same(b, raw);
        memset(buf, 0x55, sizeof(buf));
        for (uint64_t off = 777; off < MiB(4) - sizeof(buf); off += 500000) {
            assert_int_equal(blk_pwrite(b, buf, sizeof(buf), off), 0);
            memcpy(raw->bytes + off, buf, sizeof(buf));
        }
        expect_same(b, raw);
        rig_close(b);
        mem_destroy(raw);
        rig_check(m, false);
        rig_qemu_check(m, false);
        raw = by_qemu(m, "");
        b = rig_open(m, NULL);
        expect_same(b, raw);
        rig_close(b);
        mem_destroy(raw);
        mem_destroy(m);
    }
}

static const char *const ours[] = {
    "",
    "compat=0.10",
    "cluster_size=512",
    "cluster_size=2M",
    "refcount_bits=1",
    "refcount_bits=4,cluster_size=1K",
    "refcount_bits=32",
    "lazy_refcounts=on",
    "extended_l2=on",
    "extended_l2=on,cluster_size=2M",
    "preallocation=metadata",
    "preallocation=falloc",
    "preallocation=full",
    "extended_l2=on,preallocation=metadata",
    "compression_type=zstd",
    "cluster_size=512,compression_type=zstd",
    "cluster_size=2M,refcount_bits=1",
};

static void fill_ours(struct blk *b, unsigned seed)
{
    uint32_t cluster = b->drv->cluster(b);
    cleanup_free uint8_t *buf = malloc(MiB(2));

    for (size_t i = 0; i < MiB(2); i++)
        buf[i] = (uint8_t)(i / 100 * (seed | 1) + i % (seed + 2) / (seed + 1));
    for (uint64_t off = 0; off < MiB(1); off += cluster)
        assert_int_equal(b->drv->write_compressed(b, off, buf + off % MiB(2), min_u64(cluster, b->lim.size - off)), 0);
    assert_int_equal(blk_pwrite(b, buf, 100001, MiB(1) - 50000), 0);
    assert_int_equal(blk_pwrite(b, buf, 777, b->lim.size - 777), 0);
    assert_int_equal(blk_zero(b, 30000, 100000, false), 0);
    assert_int_equal(blk_discard(b, 512 << 10, 100 << 10), 0);
}

static void images_of_ours_are_read_by_qemu(void **s)
{
    (void)s;
    for (size_t i = 0; i < array_len(ours); i++) {
        struct mem *m = mem_create(0), *raw;
        struct blk *b;

        rig_create(m, MiB(5) - 512, ours[i]);
        rig_check(m, false);
        b = rig_open(m, NULL);
        fill_ours(b, (unsigned)i);
        assert_int_equal(blk_flush(b), 0);
        rig_close(b);
        rig_check(m, false);
        rig_qemu_check(m, false);
        raw = by_qemu(m, "");
        b = rig_open(m, NULL);
        if (raw)
            expect_same(b, raw);
        rig_close(b);
        mem_destroy(raw);
        mem_destroy(m);
    }
}

/* Other readers remember 4 KiB of a compressed cluster: nothing in it may lead further back. */
static void what_is_deflated_fits_a_small_window(void **s)
{
    enum { CLUSTER = 64 << 10, APART = 5000 };
    struct mem *m = mem_create(0);
    uint8_t *data = malloc(CLUSTER), piece[512];
    uint64_t off, len;
    struct qcow2_place at;
    unsigned seed = 1;
    size_t got = 0;
    z_stream z = {0};
    struct blk *b;

    (void)s;
    for (size_t i = 0; i < CLUSTER; i++) /* it repeats, further apart than that */
        data[i] = i < APART ? (uint8_t)((seed = seed * 1103515245 + 12345) >> 16) % 64 : data[i - APART];
    rig_create(m, MiB(1), "");
    b = rig_open(m, NULL);
    assert_int_equal(b->drv->write_compressed(b, 0, data, CLUSTER), 0);
    assert_int_equal(qcow2_lookup(qcow2_of(b), 0, CLUSTER, false, &at), 0);
    assert_int_equal(at.kind, QCOW2_KIND_PACKED);
    qcow2_packed_range(qcow2_of(b), at.desc, &off, &len);
    z.next_in = m->bytes + off;
    z.avail_in = (uInt)min_u64(len, m->size - off);
    assert_int_equal(inflateInit2(&z, -12), Z_OK);
    for (int rc = Z_OK; rc == Z_OK; got += sizeof(piece) - z.avail_out) { /* what has left `piece` is in the window */
        z.next_out = piece;
        z.avail_out = sizeof(piece);
        rc = inflate(&z, Z_NO_FLUSH);
        assert_true(rc == Z_OK || rc == Z_STREAM_END);
        assert_memory_equal(piece, data + got, sizeof(piece) - z.avail_out);
    }
    assert_int_equal(got, CLUSTER);
    inflateEnd(&z);
    free(data);
    rig_close(b);
    mem_destroy(m);
}

/* ---- Damaged images. ---- */

static struct mem *small_image(const char *options)
{
    struct mem *m = mem_create(0);
    struct blk *b;

    rig_create(m, MiB(1), options);
    b = rig_open(m, NULL);
    assert_int_equal(blk_pwrite(b, "data", 4, 5000), 0);
    rig_close(b);
    return m;
}

static const struct damage {
    const char *what;
    uint32_t off, len;
    uint64_t value;
} damages[] = {
    {"version", 4, 4, 1},
    {"version", 4, 4, 4},
    {"cluster_bits", 20, 4, 0},
    {"cluster_bits", 20, 4, 8},
    {"cluster_bits", 20, 4, 22},
    {"cluster_bits", 20, 4, 63},
    {"size", 24, 8, UINT64_MAX},
    {"size", 24, 8, 1ull << 40},
    {"encryption", 32, 4, 1},
    {"encryption", 32, 4, 2},
    {"l1_size", 36, 4, 0},
    {"l1_size", 36, 4, UINT32_MAX},
    {"l1 offset", 40, 8, 0},
    {"l1 offset", 40, 8, 12345},
    {"l1 offset", 40, 8, 1ull << 62},
    {"refcount table offset", 48, 8, 0},
    {"refcount table offset", 48, 8, 513},
    {"refcount table offset", 48, 8, 1ull << 62},
    {"refcount table in the L1 table", 48, 8, 65536},
    {"refcount table clusters", 56, 4, 0},
    {"refcount table clusters", 56, 4, UINT32_MAX},
    {"snapshots", 60, 4, UINT32_MAX},
    {"snapshots", 60, 4, 3},
    {"incompatible feature", 72, 8, 1ull << 40},
    {"data file without a name", 72, 8, 4},
    {"refcount order", 96, 4, 7},
    {"header length", 100, 4, 0},
    {"header length", 100, 4, 105},
    {"header length", 100, 4, 1 << 20},
    {"compression type", 104, 1, 2},
    {"extension length", 116, 4, UINT32_MAX},
    {"backing name", 8, 8, 1ull << 40},
};

static void damaged_headers_are_refused_in_one_line(void **s)
{
    (void)s;
    for (size_t i = 0; i < array_len(damages); i++) {
        const struct damage *d = &damages[i];
        struct mem *m = small_image("");
        struct err err = {0};

        if (d->off == 8)
            put_be32(m->bytes + 16, 4);
        for (uint32_t k = 0; k < d->len; k++)
            m->bytes[d->off + k] = (uint8_t)(d->value >> 8 * (d->len - 1 - k));
        if (rig_try(m, NULL, "", false, &err))
            fail_msg("%s %lx was accepted", d->what, (unsigned long)d->value);
        assert_true(err.code && err.msg[0] && !strchr(err.msg, '\n'));
        mem_destroy(m);
    }
}

static void unknown_features_are_refused_by_their_name(void **s)
{
    struct mem *m = small_image("");
    struct err err = {0};
    uint8_t *row = m->bytes + 120; /* of the feature name table, the first extension */

    (void)s;
    assert_int_equal(get_be32(m->bytes + 112), QCOW2_EXT_FEATURES);
    row[1] = 40;
    snprintf((char *)row + 2, 46, "time travel");
    put_be64(m->bytes + 72, 1ull << 40);
    assert_null(rig_try(m, NULL, "", true, &err));
    assert_non_null(strstr(err.msg, "time travel"));
    mem_destroy(m);
}

static uint64_t l2_of(const struct mem *m)
{
    return get_be64(m->bytes + get_be64(m->bytes + 40)) & QCOW2_OFF_MASK;
}

/* An L2 entry that leads into metadata: nothing is written there, then or later. */
static void data_never_go_into_metadata(void **s)
{
    static const char *const at[] = {"the header", "the L1 table", "the L2 table"};

    (void)s;
    for (unsigned i = 0; i < array_len(at); i++) {
        struct mem *m = small_image("cluster_size=4K"), *was = mem_create(0);
        uint64_t l2 = l2_of(m), to = i == 0 ? 0 : i == 1 ? get_be64(m->bytes + 40) : l2;
        struct err err = {0};
        struct blk *b;

        put_be64(m->bytes + l2 + 8, to | QCOW2_COPIED | (to ? 0 : 1ull << 30));
        if (!to)
            put_be64(m->bytes + l2 + 8, 0x1000 | QCOW2_COPIED);
        mem_apply(was, &(struct mem_op){.op = BLK_WRITE, .len = m->size, .data = m->bytes});
        b = rig_open(m, NULL);
        assert_int_equal(blk_pwrite(b, "evil", 4, 5000), -EIO);
        assert_int_equal(blk_pwrite(b, "more", 4, 500000), -EIO);
        rig_close(b);
        assert_memory_equal(m->bytes + l2, was->bytes + l2, 4096);
        assert_true(get_be64(m->bytes + 72) & QCOW2_IN_CORRUPT);
        assert_null(rig_try(m, NULL, "", false, &err));
        assert_non_null(strstr(err.msg, at[i] ? "damaged" : ""));
        b = rig_try(m, NULL, "", true, &err);
        assert_non_null(b);
        rig_close(b);
        mem_destroy(m);
        mem_destroy(was);
    }
}

/* ---- Mending. ---- */

static void mend(struct mem *m, enum blk_fix fix, struct blk_check *found)
{
    struct err err = {0};
    struct blk *b = rig_try(m, NULL, "repair", false, &err);

    if (!b || b->drv->check(b, fix, found, &err))
        fail_msg("%s", err.msg);
    rig_close(b);
}

static void lost_counts_are_counted_anew(void **s)
{
    static const char *const options[] = {"", "cluster_size=512", "refcount_bits=1,cluster_size=4K"};

    (void)s;
    for (size_t i = 0; i < array_len(options); i++)
        for (unsigned how = 0; how < 3; how++) {
            struct mem *m = small_image(options[i]);
            uint64_t rt = get_be64(m->bytes + 48), block = get_be64(m->bytes + rt);
            uint32_t cluster = 1u << get_be32(m->bytes + 20);
            struct blk_check found;
            struct blk *b;
            char buf[4];

            if (how == 0) /* none left */
                memset(m->bytes + block, 0, cluster);
            else if (how == 1) /* a block nowhere */
                put_be64(m->bytes + rt, 1ull << 50);
            else /* leaks alone */
                memset(m->bytes + block, 0xff, cluster);
            mend(m, how == 2 ? BLK_FIX_LEAKS : BLK_FIX_ALL, &found);
            assert_true(how == 2 ? found.leaks == found.leaks_fixed && found.leaks
                                 : found.corruptions == found.corruptions_fixed && found.corruptions);
            if (how < 2 || get_be32(m->bytes + 96) == 0) {
                rig_check(m, false);
                rig_qemu_check(m, false);
            }
            b = rig_open(m, NULL);
            assert_int_equal(blk_pread(b, buf, 4, 5000), 0);
            assert_memory_equal(buf, "data", 4);
            rig_close(b);
            mem_destroy(m);
        }
}

static void dirty_images_are_mended_when_opened(void **s)
{
    struct mem *m = small_image("lazy_refcounts=on");
    uint64_t rt = get_be64(m->bytes + 48), block = get_be64(m->bytes + rt);

    (void)s;
    memset(m->bytes + block, 0, 20);
    put_be64(m->bytes + 72, QCOW2_IN_DIRTY);
    rig_close(rig_open(m, NULL));
    assert_int_equal(get_be64(m->bytes + 72), 0);
    assert_int_equal(get_be64(m->bytes + 80), QCOW2_CO_LAZY);
    rig_check(m, false);
    rig_qemu_check(m, false);
    mem_destroy(m);
}

/* ---- Another size. ---- */

static void disks_grow_and_shrink(void **s)
{
    static const char *const options[] = {"", "cluster_size=512", "extended_l2=on", "compat=0.10"};
    static const uint64_t sizes[] = {MiB(5), MiB(1) + 1024, MiB(1) + 512, GiB(3), 512, 1024, MiB(2)};

    (void)s;
    for (size_t i = 0; i < array_len(options); i++) {
        struct mem *m = mem_create(0);
        cleanup_free uint8_t *buf = malloc(MiB(1));
        uint64_t was = MiB(1);
        struct err err = {0};
        struct blk *b;

        rig_create(m, was, options[i]);
        b = rig_open(m, NULL);
        memset(buf, 0x77, MiB(1));
        assert_int_equal(blk_pwrite(b, buf, MiB(1), 0), 0);
        for (size_t k = 0; k < array_len(sizes); k++) {
            uint64_t kept = 0;

            if (b->drv->resize(b, sizes[k], &err))
                fail_msg("%s", err.msg);
            assert_int_equal(b->lim.size, sizes[k]);
            was = min_u64(was, sizes[k]);
            assert_int_equal(blk_pread(b, buf, min_u64(MiB(1), sizes[k]), 0), 0);
            while (kept < min_u64(MiB(1), sizes[k]) && buf[kept] == 0x77)
                kept++;
            assert_int_equal(kept, was);
            while (kept < min_u64(MiB(1), sizes[k]))
                assert_int_equal(buf[kept++], 0);
        }
        rig_close(b);
        rig_check(m, false);
        rig_qemu_check(m, false);
        mem_destroy(m);
    }
}

/* ---- Snapshots. ---- */

static void expect_byte(struct blk *b, uint64_t off, uint8_t value)
{
    uint8_t is;

    assert_int_equal(blk_pread(b, &is, 1, off), 0);
    assert_int_equal(is, value);
}

static void ok(int rc, const struct err *err)
{
    if (rc)
        fail_msg("%s", err->msg);
}

static void snapshots_keep_what_was(void **s)
{
    static const char *const options[] = {"", "cluster_size=512", "extended_l2=on", "compat=0.10",
                                          "refcount_bits=8,cluster_size=4K"};

    (void)s;
    for (size_t i = 0; i < array_len(options); i++) {
        struct mem *m = mem_create(0);
        uint8_t buf[100000];
        struct err err = {0};
        struct blk *b, *old;
        unsigned n;

        rig_create(m, MiB(2), options[i]);
        b = rig_open(m, NULL);
        fill_ours(b, 3);
        for (unsigned k = 1; k <= 3; k++) {
            char name[8];

            memset(buf, (int)k, sizeof(buf));
            assert_int_equal(blk_pwrite(b, buf, sizeof(buf), k * 70000), 0);
            snprintf(name, sizeof(name), "s%u", k);
            ok(qcow2_snapshot_create(b, name, &err), &err);
        }
        assert_int_equal(qcow2_snapshot_create(b, "s1", &err), -EEXIST);
        memset(buf, 9, sizeof(buf));
        assert_int_equal(blk_pwrite(b, buf, sizeof(buf), 100000), 0);
        assert_int_equal(blk_flush(b), 0);
        rig_check(m, true);
        rig_qemu_check(m, true);
        old = rig_try(m, NULL, "snapshot-name=s1", true, &err);
        assert_non_null(old);
        expect_byte(old, 100000, 1);
        rig_close(old);
        assert_null(rig_try(m, NULL, "snapshot-name=s7", true, &err));
        ok(qcow2_snapshot_apply(b, "s2", &err), &err);
        expect_byte(b, 139999, 1);
        expect_byte(b, 140000, 2);
        assert_int_equal(blk_pwrite(b, buf, sizeof(buf), 100000), 0);
        ok(qcow2_snapshot_delete(b, "s2", &err), &err);
        ok(qcow2_snapshot_apply(b, "s1", &err), &err);
        expect_byte(b, 169999, 1);
        rig_check(m, false);
        rig_qemu_check(m, false);
        ok(qcow2_snapshot_delete(b, "s1", &err), &err);
        ok(qcow2_snapshot_delete(b, "3", &err), &err);
        assert_int_equal(qcow2_snapshot_delete(b, "s1", &err), -ENOENT);
        qcow2_snapshots(b, &n);
        assert_int_equal(n, 0);
        assert_int_equal(blk_pwrite(b, buf, sizeof(buf), 100000), 0);
        rig_close(b);
        rig_check(m, false);
        rig_qemu_check(m, false);
        mem_destroy(m);
    }
}

static void counts_too_narrow_for_a_snapshot_leave_the_image_whole(void **s)
{
    struct mem *m = small_image("refcount_bits=1");
    struct err err = {0};
    struct blk *b = rig_open(m, NULL);

    (void)s;
    assert_int_equal(qcow2_snapshot_create(b, "one", &err), -ERANGE);
    assert_int_equal(blk_pwrite(b, "more", 4, 500000), 0);
    rig_close(b);
    rig_check(m, false);
    rig_qemu_check(m, false);
    mem_destroy(m);
}

/* Wherever the power fails during `act`, the image is whole when it is opened again. */
static void expect_whole_after_crash(const char *options, void (*act)(struct blk *b))
{
    struct mem *m = mem_create(0), *from = mem_create(0);
    struct err err = {0};
    struct blk *b;

    rig_create(m, MiB(2), options);
    b = rig_open(m, NULL);
    fill_ours(b, 5);
    ok(qcow2_snapshot_create(b, "old", &err), &err);
    assert_int_equal(blk_pwrite(b, "new", 3, 5000), 0);
    assert_int_equal(blk_flush(b), 0);
    mem_apply(from, &(struct mem_op){.op = BLK_WRITE, .len = m->size, .data = m->bytes});
    m->keep = true;
    act(b);
    rig_close(b);
    for (size_t k = 0; k <= m->nlog; k++) {
        struct mem *f = mem_create(0);

        if (k)
            mem_apply(from, &m->log[k - 1]);
        mem_apply(f, &(struct mem_op){.op = BLK_WRITE, .len = from->size, .data = from->bytes});
        rig_close(rig_open(f, NULL));
        rig_check(f, true);
        mem_destroy(f);
    }
    mem_destroy(from);
    mem_destroy(m);
}

static void create_apply_delete(struct blk *b)
{
    struct err err = {0};

    ok(qcow2_snapshot_create(b, "crash", &err), &err);
    ok(qcow2_snapshot_apply(b, "old", &err), &err);
    ok(qcow2_snapshot_delete(b, "crash", &err), &err);
}

static void power_fails_during_snapshots(void **s)
{
    (void)s;
    expect_whole_after_crash("cluster_size=4K", create_apply_delete);
}

/* ---- Above others. ---- */

/* Whether the header names what is below or not: what is wiped does not show it again. */
static void what_is_wiped_stays_so(void **s)
{
    static const char *const options[] = {"", "backing_file=base", "extended_l2=on", "compat=0.10"};

    (void)s;
    for (size_t i = 0; i < array_len(options); i++) {
        struct mem *m = mem_create(0), *base = mem_create(MiB(1));
        struct err err = {0};
        struct blk *b;

        memset(base->bytes, 7, MiB(1));
        rig_create(m, MiB(1), options[i]);
        b = rig_open(m, &base->b);
        expect_byte(b, 300000, 7);
        assert_int_equal(blk_pwrite(b, "x", 1, 300000), 0);
        assert_int_equal(blk_zero(b, 100000, 400000, true), 0);
        for (uint64_t off = 100000; off < 500000; off += 9999)
            expect_byte(b, off, 0);
        expect_byte(b, 99999, 7);
        expect_byte(b, 500000, 7);
        assert_int_equal(blk_pwrite(b, "x", 1, 700000), 0);
        assert_int_equal(blk_discard(b, 655360, 65536), 0);
        expect_byte(b, 700000, strstr(options[i], "0.10") ? 'x' : 0);
        if (qcow2_empty(b, &err))
            fail_msg("%s", err.msg);
        expect_byte(b, 300000, 7);
        expect_byte(b, 700000, 7);
        rig_close(b);
        rig_check(m, false);
        mem_destroy(m);
        mem_destroy(base);
    }
}

/* ---- Bitmaps. ---- */

static struct qcow2_bitmap_info bitmap(struct blk *b, unsigned i)
{
    struct qcow2_bitmap_info info = {0};

    assert_true(qcow2_bitmap_get(b, i, &info));
    return info;
}

static void bitmaps_follow_writes(void **s)
{
    struct mem *m = mem_create(0);
    struct qcow2_bitmap_info info;
    struct err err = {0};
    struct blk *b;
    int rc;

    (void)s;
    rig_create(m, MiB(64), "");
    b = rig_open(m, NULL);
    ok(qcow2_bitmap_add(b, "dirt", 65536, true, &err), &err);
    ok(qcow2_bitmap_add(b, "still", 1 << 20, false, &err), &err);
    assert_int_equal(qcow2_bitmap_add(b, "dirt", 65536, true, &err), -EEXIST);
    assert_int_equal(blk_pwrite(b, "x", 1, MiB(5)), 0);
    assert_true(bitmap(b, 0).in_use);
    assert_false(bitmap(b, 1).in_use);
    rig_close(b);
    rig_check(m, false);
    rig_qemu_check(m, false);
    /* As long as it is in use it counts as incomplete. */
    b = rig_open(m, NULL);
    assert_false(bitmap(b, 0).in_use);
    assert_string_equal(bitmap(b, 0).name, "dirt");
    ok(qcow2_bitmap_merge(b, "still", b, "dirt", &err), &err);
    ok(qcow2_bitmap_clear(b, "dirt", &err), &err);
    ok(qcow2_bitmap_enable(b, "dirt", false, &err), &err);
    assert_false(bitmap(b, 0).enabled);
    rig_close(b);
    /* qemu-img merges what we set into one of its own, and sees the granularities */
    rc = rig_shell(m, "qemu-img bitmap --add -g 65536 image its && qemu-img bitmap --merge still image its && "
                      "qemu-img info image | grep -q 'granularity: 1048576'");
    assert_true(rc == 0 || rc == -1);
    rig_check(m, false);
    b = rig_open(m, NULL);
    ok(qcow2_bitmap_remove(b, "dirt", &err), &err);
    ok(qcow2_bitmap_remove(b, "still", &err), &err);
    if (!rc)
        ok(qcow2_bitmap_remove(b, "its", &err), &err);
    assert_false(qcow2_bitmap_get(b, 0, &info));
    rig_close(b);
    rig_check(m, false);
    rig_qemu_check(m, false);
    mem_destroy(m);
}

/* A header of 512 bytes, which the names of features would fill alone. */
static void small_headers_have_room(void **s)
{
    static const char name[] = "a-name-that-is-as-long-as-those-of-backing-files-are.raw";
    struct mem *m = mem_create(0);
    struct err err = {0};
    struct blk *b;

    (void)s;
    rig_create(m, MiB(1), "cluster_size=512");
    b = rig_open(m, NULL);
    ok(qcow2_bitmap_add(b, "dirt", 65536, true, &err), &err);
    ok(qcow2_set_backing(b, name, "raw", &err), &err);
    rig_close(b);
    b = rig_open(m, NULL);
    assert_string_equal(qcow2_backing_name(b), name);
    assert_string_equal(bitmap(b, 0).name, "dirt");
    ok(qcow2_set_backing(b, NULL, NULL, &err), &err); /* there is none of that name */
    rig_close(b);
    rig_qemu_check(m, false);
    mem_destroy(m);
}

static void change_bitmaps(struct blk *b)
{
    struct err err = {0};

    ok(qcow2_bitmap_add(b, "one", 4096, true, &err), &err);
    assert_int_equal(blk_pwrite(b, "new", 3, 100000), 0);
    ok(qcow2_bitmap_add(b, "two", 4096, true, &err), &err);
    assert_int_equal(blk_pwrite(b, "new", 3, 200000), 0);
    ok(qcow2_bitmap_remove(b, "one", &err), &err);
}

/* Is this somewhere in clusters that are in use? */
static bool holds(struct mem *m, struct blk *b, const char *bytes, size_t n)
{
    struct qcow2 *q = qcow2_of(b);
    const uint8_t *p = m->bytes, *at;
    uint64_t used;
    bool found = false;

    pthread_mutex_lock(&q->lock);
    for (; !found && (at = memmem(p, m->size - (size_t)(p - m->bytes), bytes, n)); p = at + 1)
        found = !qcow2_ref_get(q, (uint64_t)(at - m->bytes) >> q->bits, &used) && used;
    pthread_mutex_unlock(&q->lock);
    return found;
}

static void bitmaps_change_their_size_with_the_disk(void **s)
{
    static const char bits[] = {0, 0x05, 0, 0x41, 0, 0x03, 0}; /* of sectors 8, 10, 24, 30, 40, 41 */
    static const unsigned sectors[] = {8, 10, 24, 30, 40, 41};
    struct mem *m = mem_create(0);
    struct err err = {0};
    struct blk *b;

    (void)s;
    rig_create(m, MiB(1), "cluster_size=1K");
    b = rig_open(m, NULL);
    ok(qcow2_bitmap_add(b, "dirt", 512, true, &err), &err);
    for (size_t i = 0; i < array_len(sectors); i++)
        assert_int_equal(blk_pwrite(b, "x", 1, sectors[i] * 512 + 7), 0);
    rig_close(b);
    b = rig_open(m, NULL);
    assert_true(holds(m, b, bits, sizeof(bits)));
    ok(qcow2_driver.resize(b, MiB(9), &err), &err);
    assert_true(holds(m, b, bits, sizeof(bits)));
    assert_int_equal(blk_pwrite(b, "x", 1, MiB(8)), 0);
    rig_close(b);
    rig_check(m, false);
    rig_qemu_check(m, false);

    b = rig_open(m, NULL);
    ok(qcow2_driver.resize(b, 20 * 512, &err), &err); /* sectors 24 and up are gone */
    assert_false(holds(m, b, bits, sizeof(bits)));
    assert_true(holds(m, b, bits, 3));
    assert_string_equal(bitmap(b, 0).name, "dirt");
    assert_true(bitmap(b, 0).enabled);
    rig_close(b);
    rig_check(m, false);
    rig_qemu_check(m, false);
    mem_destroy(m);
}

static void resize_with_a_bitmap(struct blk *b)
{
    struct err err = {0};

    ok(qcow2_bitmap_add(b, "one", 4096, true, &err), &err);
    ok(qcow2_driver.resize(b, b->lim.size + MiB(1), &err), &err);
}

static void power_fails_while_bitmaps_change_their_size(void **s)
{
    (void)s;
    expect_whole_after_crash("cluster_size=4K", resize_with_a_bitmap);
}

static void power_fails_during_changes_of_bitmaps(void **s)
{
    (void)s;
    expect_whole_after_crash("cluster_size=4K", change_bitmaps);
}

static void a_copy_that_the_host_cannot_make_leaves_nothing_behind(void **s)
{
    struct mem *m = mem_create(0), *from = mem_create(MiB(1));
    struct blk *b;

    (void)s;
    rig_create(m, MiB(4), "");
    b = rig_open(m, NULL);
    assert_int_equal(blk_rw(b, &(struct blk_io){.op = BLK_COPY, .off = 5000, .len = MiB(1), .from = &from->b}),
                     -ENOTSUP);
    rig_close(b);
    rig_check(m, false);
    mem_destroy(from);
    mem_destroy(m);
}

/* ---- Large disks. ---- */

static void a_disk_of_10_tib_opens_with_little_memory(void **s)
{
    struct mem *m = mem_create(0);
    struct blk *b;

    (void)s;
    rig_create(m, 10ull << 40, "");
    b = rig_open(m, NULL);
    assert_int_equal(blk_pwrite(b, "far", 3, (10ull << 40) - 3), 0);
    assert_int_equal(blk_pwrite(b, "near", 4, 0), 0);
    assert_true(qcow2_of(b)->l2.n * QCOW2_SLICE + qcow2_of(b)->rb.n * QCOW2_SLICE < 64 << 10);
    assert_true(m->size < MiB(2));
    rig_close(b);
    rig_check(m, false);
    mem_destroy(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(images_of_qemu_are_read_and_written),
        cmocka_unit_test(images_of_ours_are_read_by_qemu),
        cmocka_unit_test(what_is_deflated_fits_a_small_window),
        cmocka_unit_test(damaged_headers_are_refused_in_one_line),
        cmocka_unit_test(unknown_features_are_refused_by_their_name),
        cmocka_unit_test(data_never_go_into_metadata),
        cmocka_unit_test(lost_counts_are_counted_anew),
        cmocka_unit_test(dirty_images_are_mended_when_opened),
        cmocka_unit_test(disks_grow_and_shrink),
        cmocka_unit_test(snapshots_keep_what_was),
        cmocka_unit_test(counts_too_narrow_for_a_snapshot_leave_the_image_whole),
        cmocka_unit_test(power_fails_during_snapshots),
        cmocka_unit_test(what_is_wiped_stays_so),
        cmocka_unit_test(bitmaps_follow_writes),
        cmocka_unit_test(small_headers_have_room),
        cmocka_unit_test(power_fails_during_changes_of_bitmaps),
        cmocka_unit_test(bitmaps_change_their_size_with_the_disk),
        cmocka_unit_test(power_fails_while_bitmaps_change_their_size),
        cmocka_unit_test(a_copy_that_the_host_cannot_make_leaves_nothing_behind),
        cmocka_unit_test(a_disk_of_10_tib_opens_with_little_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
