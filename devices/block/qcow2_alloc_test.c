/* Refcounts of qcow2 images at their edges: how clusters are taken, given back, and counted in tables that grow. */
#include "devices/block/qcow2.h"

#include <errno.h>

#include "devices/block/qcow2_rig.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"

static void locked(struct blk *b)
{
    pthread_mutex_lock(&qcow2_of(b)->lock);
    assert_int_equal(qcow2_begin(qcow2_of(b)), 0);
}

static void unlocked(struct blk *b)
{
    pthread_mutex_unlock(&qcow2_of(b)->lock);
}

/* Takes `want` clusters one by one, or in runs, and marks them as taken. */
static void take(struct qcow2 *q, uint64_t want, struct qcow2_set *taken)
{
    uint64_t first, got;

    for (uint64_t n = 0; n < want; n += got) {
        assert_int_equal(qcow2_alloc(q, want - n, &first, &got), 0);
        assert_in_range(got, 1, want - n);
        for (uint64_t i = first; i < first + got; i++) {
            assert_int_not_equal(i, 0); /* the header's */
            assert_false(qcow2_set_has(&q->meta, i));
            assert_int_equal(qcow2_set_add(taken, i), 0); /* not taken already */
        }
    }
}

static void counts_of_each_width_keep_to_themselves(void **s)
{
    (void)s;
    for (uint32_t order = 0; order <= 6; order++) {
        uint64_t max = order == 6 ? UINT64_MAX : (1ull << (1u << order)) - 1;
        uint8_t data[64 * 8] = {0};

        for (uint64_t i = 0; i < 64; i++) {
            memset(data, i % 2 ? 0 : 0xff, sizeof(data));
            qcow2_ref_store(data, order, i, i % 2 ? max : 0);
            for (uint64_t k = 0; k < 64; k++)
                assert_true(qcow2_ref_load(data, order, k) == ((k == i) == (i % 2) ? max : 0));
        }
    }
}

static void counts_end_where_their_width_does(void **s)
{
    static const struct {
        const char *options;
        uint64_t max;
    } widths[] = {{"refcount_bits=1", 1}, {"refcount_bits=2", 3}, {"refcount_bits=8", 255}, {"refcount_bits=64", 300}};

    (void)s;
    for (size_t i = 0; i < array_len(widths); i++) {
        struct mem *m = mem_create(0);
        uint64_t first, got, now = 1;
        struct blk *b;
        int rc = 0;

        rig_create(m, MiB(1), widths[i].options);
        b = rig_open(m, NULL);
        locked(b);
        assert_int_equal(qcow2_alloc(qcow2_of(b), 1, &first, &got), 0);
        for (unsigned k = 1; !rc && k < 300; k++)
            rc = qcow2_ref_add(qcow2_of(b), first, 1, &now);
        assert_int_equal(rc, widths[i].max < 300 ? -ERANGE : 0);
        assert_int_equal(now, widths[i].max);
        for (; now; rc = qcow2_ref_add(qcow2_of(b), first, -1, &now))
            ;
        assert_int_equal(qcow2_ref_add(qcow2_of(b), first, -1, &now), -ERANGE);
        unlocked(b);
        rig_close(b);
        rig_check(m, false);
        mem_destroy(m);
    }
}

static void no_cluster_is_taken_twice(void **s)
{
    static const char *const options[] = {"cluster_size=512", "cluster_size=512,refcount_bits=64", "refcount_bits=1",
                                          "cluster_size=4K,preallocation=metadata"};

    (void)s;
    for (size_t i = 0; i < array_len(options); i++) {
        struct mem *m = mem_create(0);
        struct qcow2_set taken = {0};
        struct blk *b;

        rig_create(m, MiB(1), options[i]);
        b = rig_open(m, NULL);
        locked(b);
        take(qcow2_of(b), 3000, &taken);
        unlocked(b);
        rig_close(b);
        free(taken.slots);
        mem_destroy(m);
    }
}

/* What is given back is taken again, before the file grows. */
static void free_clusters_are_found(void **s)
{
    struct mem *m = mem_create(0);
    struct qcow2_set taken = {0};
    struct qcow2 *q;
    uint64_t end;
    struct blk *b;

    (void)s;
    rig_create(m, MiB(1), "cluster_size=512");
    b = rig_open(m, NULL);
    q = qcow2_of(b);
    locked(b);
    take(q, 100, &taken);
    end = q->end;
    for (uint64_t i = end - 60; i < end - 20; i += 2) {
        qcow2_unalloc(q, i, 1);
        qcow2_set_del(&taken, i);
    }
    take(q, 20, &taken);
    assert_int_equal(q->end, end);
    take(q, 1, &taken);
    assert_int_equal(q->end, end + 1);
    unlocked(b);
    rig_close(b);
    free(taken.slots);
    mem_destroy(m);
}

/* 512-byte clusters with counts of 64 bits: a block counts 64, a table of one cluster leads to 64 blocks. */
static void the_refcount_table_grows(void **s)
{
    struct mem *m = mem_create(0);
    struct qcow2_set taken = {0};
    uint32_t was;
    struct blk *b;

    (void)s;
    rig_create(m, MiB(8), "cluster_size=512,refcount_bits=64");
    b = rig_open(m, NULL);
    was = qcow2_of(b)->rt_size;
    for (uint64_t off = 0; off < MiB(8); off += KiB(64))
        assert_int_equal(blk_pwrite(b, "data", 4, off), 0);
    locked(b);
    take(qcow2_of(b), 20000, &taken);
    assert_true(qcow2_of(b)->rt_size > was);
    for (size_t i = 0; i < taken.size; i++)
        if (taken.slots[i])
            qcow2_unalloc(qcow2_of(b), taken.slots[i] - 1, 1);
    unlocked(b);
    rig_close(b);
    assert_true(get_be32(m->bytes + 56) > was * 8 / 512);
    rig_check(m, false);
    rig_qemu_check(m, false);
    free(taken.slots);
    mem_destroy(m);
}

/* Clusters for a table lie together, behind blocks that count them. */
static void tables_lie_together(void **s)
{
    static const uint64_t sizes[] = {1, 2, 63, 64, 65, 200, 5000};

    (void)s;
    for (size_t i = 0; i < array_len(sizes); i++)
        for (unsigned before = 0; before < 66; before += 13) {
            struct mem *m = mem_create(0);
            uint64_t first, got, count;
            struct qcow2 *q;
            struct blk *b;

            rig_create(m, MiB(1), "cluster_size=512,refcount_bits=64");
            b = rig_open(m, NULL);
            q = qcow2_of(b);
            locked(b);
            for (unsigned k = 0; k < before; k++)
                assert_int_equal(qcow2_alloc(q, 1, &first, &got), 0);
            assert_int_equal(qcow2_alloc_meta(q, sizes[i], &first), 0);
            for (uint64_t k = first; k < first + sizes[i]; k++) {
                assert_int_equal(qcow2_ref_get(q, k, &count), 0);
                assert_int_equal(count, 1);
                assert_true(qcow2_set_has(&q->meta, k));
            }
            assert_false(qcow2_clear_of_meta(q, first << q->bits, sizes[i] << q->bits));
            unlocked(b);
            rig_close(b);
            mem_destroy(m);
        }
}

/* Each time the host has no room, later allocations get no cluster that somebody has. */
static void nothing_is_taken_twice_after_enospc(void **s)
{
    uint64_t changes = 1; /* of the file, when none fails */

    (void)s;
    for (uint64_t at = 1; at <= changes; at++) {
        struct mem *m = mem_create(0);
        struct qcow2_set taken = {0};
        uint64_t first, got, n = 0;
        struct qcow2 *q;
        struct blk *b;

        rig_create(m, MiB(1), "cluster_size=512,refcount_bits=64");
        b = rig_open(m, NULL);
        q = qcow2_of(b);
        locked(b);
        m->changes = 0;
        m->fail_at = at;
        m->fail_with = -ENOSPC;
        for (unsigned k = 0; k < 90; k++) {
            int rc = k % 30 == 29 ? qcow2_alloc_meta(q, got = 70, &first) : qcow2_alloc(q, 40, &first, &got);

            if (!rc && k % 10 == 9)
                assert_true(qcow2_commit(q) <= 0);
            assert_true(rc == 0 || rc == -ENOSPC);
            if (m->changes >= at)
                m->fail_at = 0;
            for (uint64_t i = first; !rc && i < first + got; i++, n++)
                assert_int_equal(qcow2_set_add(&taken, i), 0);
        }
        assert_in_range(n, 2000, 4000);
        changes = m->changes;
        m->fail_at = 0;
        assert_int_equal(qcow2_commit(q), 0);
        for (size_t i = 0; i < taken.size; i++)
            if (taken.slots[i])
                qcow2_unalloc(q, taken.slots[i] - 1, 1);
        unlocked(b);
        rig_close(b);
        rig_check(m, true);
        free(taken.slots);
        mem_destroy(m);
    }
}

/* A count that says that metadata are free: that cluster is not given away, and nothing is written any more. */
static void metadata_are_never_given_away(void **s)
{
    static const char *const what[] = {"the header", "the L1 table", "the refcount table", "the refcount block"};

    (void)s;
    for (unsigned i = 0; i < array_len(what); i++) {
        struct mem *m = mem_create(0), *was = mem_create(0);
        uint64_t rt, block, at;
        struct blk *b;

        rig_create(m, MiB(1), "cluster_size=4K");
        rt = get_be64(m->bytes + 48);
        block = get_be64(m->bytes + rt);
        at = i == 0 ? 0 : i == 1 ? get_be64(m->bytes + 40) : i == 2 ? rt : block;
        put_be16(m->bytes + block + at / 4096 * 2, 0);
        mem_apply(was, &(struct mem_op){.op = BLK_WRITE, .len = m->size, .data = m->bytes});
        b = rig_open(m, NULL);
        if (blk_pwrite(b, "data", 4, 0) != -EIO)
            fail_msg("%s was given away", what[i]);
        assert_int_equal(blk_pwrite(b, "more", 4, 500000), -EIO);
        rig_close(b);
        assert_true(get_be64(m->bytes + 72) & QCOW2_IN_CORRUPT);
        put_be64(m->bytes + 72, get_be64(was->bytes + 72));
        assert_memory_equal(m->bytes, was->bytes, was->size);
        mem_destroy(was);
        mem_destroy(m);
    }
}

static void a_file_that_does_not_grow_ends_where_it_ends(void **s)
{
    struct mem *m = mem_create(0);
    uint64_t first, got, n = 0;
    struct blk *b;
    int rc;

    (void)s;
    rig_create(m, MiB(1), "cluster_size=4K");
    mem_apply(m, &(struct mem_op){.op = BLK_WRITE, .off = KiB(100), .len = 1, .data = (uint8_t *)""});
    m->bytes = realloc(m->bytes, KiB(128));
    memset(m->bytes + m->size, 0, KiB(128) - m->size);
    m->size = KiB(128);
    m->b.lim.grows = false;
    b = rig_open(m, NULL);
    locked(b);
    for (; !(rc = qcow2_alloc(qcow2_of(b), 1, &first, &got)); n++)
        assert_in_range(first, 1, 31);
    assert_int_equal(rc, -ENOSPC);
    assert_int_equal(n, 32 - 4); /* header, L1 table, refcount table and block */
    unlocked(b);
    rig_close(b);
    mem_destroy(m);
}

static void sets_find_what_is_in_them(void **s)
{
    struct qcow2_set set = {0};
    bool in[5000] = {0};
    uint64_t rng = 88172645463325252;

    (void)s;
    assert_false(qcow2_set_has(&set, 0));
    qcow2_set_del(&set, 0);
    for (unsigned i = 0; i < 100000; i++) {
        uint64_t k;

        rng ^= rng << 13;
        rng ^= rng >> 7;
        rng ^= rng << 17;
        k = rng % array_len(in);
        if (rng >> 40 & 1) {
            assert_int_equal(qcow2_set_add(&set, k << 20), in[k] ? -EEXIST : 0);
            in[k] = true;
        } else {
            qcow2_set_del(&set, k << 20);
            in[k] = false;
        }
        k = (k * 7 + 1) % array_len(in);
        assert_int_equal(qcow2_set_has(&set, k << 20), in[k]);
    }
    free(set.slots);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_of_each_width_keep_to_themselves),
        cmocka_unit_test(counts_end_where_their_width_does),
        cmocka_unit_test(no_cluster_is_taken_twice),
        cmocka_unit_test(free_clusters_are_found),
        cmocka_unit_test(the_refcount_table_grows),
        cmocka_unit_test(tables_lie_together),
        cmocka_unit_test(nothing_is_taken_twice_after_enospc),
        cmocka_unit_test(metadata_are_never_given_away),
        cmocka_unit_test(a_file_that_does_not_grow_ends_where_it_ends),
        cmocka_unit_test(sets_find_what_is_in_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
