/*
 * What a check finds in damaged images, and what it mends; qemu-img gives its opinion of the same images, where it is
 * installed.  Each image has 4 KiB clusters, so that all that a test damages is where these helpers say.
 */
#include "devices/block/qcow2.h"

#include <stdio.h>

#include "devices/block/qcow2_rig.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"

enum {
    CLUSTER = 4096,
    DATA = 6,         /* clusters that are written, the first of the disk; there is one more */
    USED = DATA + 6,  /* with the header, the L1 table, two L2 tables, the refcount table */
    FLAGS = DATA + 3, /* entries that name something, of L1 and L2 tables */
};

static uint64_t l1_at(const struct mem *m)
{
    return get_be64(m->bytes + 40);
}

static uint64_t rt_at(const struct mem *m)
{
    return get_be64(m->bytes + 48);
}

static uint64_t block_at(const struct mem *m)
{
    return get_be64(m->bytes + rt_at(m));
}

static uint64_t l2_at(const struct mem *m)
{
    return get_be64(m->bytes + l1_at(m)) & QCOW2_OFF_MASK;
}

/* The i-th entry of the first L2 table. */
static uint8_t *entry(struct mem *m, unsigned i)
{
    return m->bytes + l2_at(m) + (uint64_t)i * 8;
}

static uint64_t data_at(struct mem *m, unsigned i)
{
    return get_be64(entry(m, i)) & QCOW2_OFF_MASK;
}

/* The count of a cluster, of 16 bits. */
static uint8_t *count_of(struct mem *m, uint64_t off)
{
    return m->bytes + block_at(m) + off / CLUSTER * 2;
}

/* A disk of 4 MiB, which has two L2 tables, and a byte in each. */
static struct mem *image(void)
{
    struct mem *m = mem_create(0);
    struct blk *b;

    rig_create(m, MiB(4), "cluster_size=4K");
    b = rig_open(m, NULL);
    for (unsigned i = 0; i < DATA; i++) {
        uint8_t byte = (uint8_t)(i + 1);

        assert_int_equal(blk_pwrite(b, &byte, 1, (uint64_t)i * CLUSTER), 0);
    }
    assert_int_equal(blk_pwrite(b, "second", 6, MiB(2)), 0);
    rig_close(b);
    rig_check(m, false);
    return m;
}

/* ---- Damages. ---- */

static void leak(struct mem *m)
{
    uint64_t end = align_up(m->size, CLUSTER);

    mem_apply(m, &(struct mem_op){.op = BLK_WRITE, .off = end, .len = 3, .data = (uint8_t *)"old"});
    put_be16(count_of(m, end), 1);
}

static void counted_too_high(struct mem *m)
{
    put_be16(count_of(m, data_at(m, 1)), 7);
    put_be64(entry(m, 1), data_at(m, 1));
}

static void counted_too_low(struct mem *m)
{
    put_be16(count_of(m, data_at(m, 2)), 0);
}

static void l2_counted_too_low(struct mem *m)
{
    put_be16(count_of(m, l2_at(m)), 0);
}

static void header_not_counted(struct mem *m)
{
    put_be16(count_of(m, 0), 0);
}

static void cross_linked(struct mem *m)
{
    put_be64(entry(m, 3), get_be64(entry(m, 2)));
}

static void data_in_the_l2_table(struct mem *m)
{
    put_be64(entry(m, 3), l2_at(m) | QCOW2_COPIED);
}

static void data_in_the_refcount_table(struct mem *m)
{
    put_be64(entry(m, 3), rt_at(m) | QCOW2_COPIED);
}

static void one_l2_table_twice(struct mem *m)
{
    put_be64(m->bytes + l1_at(m) + 8, get_be64(m->bytes + l1_at(m)));
}

static void l2_table_in_the_l1_table(struct mem *m)
{
    put_be64(m->bytes + l1_at(m) + 8, l1_at(m) | QCOW2_COPIED);
}

static void copied_bit_lost(struct mem *m)
{
    put_be64(entry(m, 4), data_at(m, 4));
}

static void copied_bit_of_a_table_lost(struct mem *m)
{
    put_be64(m->bytes + l1_at(m), l2_at(m));
}

static void copied_bit_of_a_shared_cluster(struct mem *m)
{
    put_be16(count_of(m, data_at(m, 4)), 2);
    put_be64(entry(m, 5), get_be64(entry(m, 4)));
}

static void data_unaligned(struct mem *m)
{
    put_be64(entry(m, 4), (data_at(m, 4) + 512) | QCOW2_COPIED);
}

static void reserved_bits(struct mem *m)
{
    put_be64(entry(m, 4), get_be64(entry(m, 4)) | 1ull << 57);
}

static void l2_table_unaligned(struct mem *m)
{
    put_be64(m->bytes + l1_at(m), (l2_at(m) + 512) | QCOW2_COPIED);
}

static void data_past_the_end(struct mem *m)
{
    put_be64(entry(m, 4), 1ull << 40 | QCOW2_COPIED);
}

static void l2_table_past_the_end(struct mem *m)
{
    put_be64(m->bytes + l1_at(m) + 8, 1ull << 40 | QCOW2_COPIED);
}

static void block_unaligned(struct mem *m)
{
    put_be64(m->bytes + rt_at(m), block_at(m) + 512);
}

static void block_past_the_end(struct mem *m)
{
    put_be64(m->bytes + rt_at(m), 1ull << 40);
}

static void block_lost(struct mem *m)
{
    put_be64(m->bytes + rt_at(m), 0);
}

static void block_in_a_data_cluster(struct mem *m)
{
    put_be64(m->bytes + rt_at(m), data_at(m, 0));
}

static void every_block_is_the_first(struct mem *m)
{
    for (unsigned i = 1; i < CLUSTER / 8; i++)
        put_be64(m->bytes + rt_at(m) + i * 8, block_at(m));
}

static void packed_past_the_end(struct mem *m)
{
    put_be64(entry(m, 4), QCOW2_PACKED | 1ull << 40);
}

static void packed_marked_as_not_shared(struct mem *m)
{
    put_be64(entry(m, 4), QCOW2_PACKED | QCOW2_COPIED | data_at(m, 4));
}

/* What a check finds; and of the corruptions, how many stay when all is mended that can be. */
static const struct row {
    const char *name;
    void (*damage)(struct mem *m);
    unsigned corruptions, leaks, stay;
    bool whole; /* all data are there afterwards */
} rows[] = {
#define DAMAGE(name, ...)        \
    {                            \
#name, name, __VA_ARGS__ \
    }
    DAMAGE(leak, 0, 1, 0, true),
    DAMAGE(counted_too_high, 0, 1, 0, true),
    DAMAGE(counted_too_low, 2, 0, 0, true), /* the count, and the flag that follows from it */
    DAMAGE(l2_counted_too_low, 2, 0, 0, true),
    DAMAGE(header_not_counted, 1, 0, 0, true),
    DAMAGE(cross_linked, 1, 1, 0, false),
    DAMAGE(data_in_the_l2_table, 1, 1, 0, false),
    DAMAGE(data_in_the_refcount_table, 1, 1, 0, false),
    DAMAGE(one_l2_table_twice, 1, 2, 1, false),
    DAMAGE(l2_table_in_the_l1_table, 2, 2, 0, false),
    DAMAGE(copied_bit_lost, 1, 0, 0, true),
    DAMAGE(copied_bit_of_a_table_lost, 1, 0, 0, true),
    DAMAGE(copied_bit_of_a_shared_cluster, 2, 1, 0, false),
    DAMAGE(data_unaligned, 1, 1, 1, false),
    DAMAGE(reserved_bits, 1, 1, 1, false),
    DAMAGE(l2_table_unaligned, 1, DATA + 1, 1, false),
    DAMAGE(data_past_the_end, 2, 1, 1, false),
    DAMAGE(l2_table_past_the_end, 1, 2, 1, false),
    DAMAGE(block_unaligned, 1 + USED + FLAGS, 0, 0, true),
    DAMAGE(block_past_the_end, 1 + USED + FLAGS, 0, 0, true),
    DAMAGE(block_lost, USED + FLAGS, 0, 0, true),
    DAMAGE(block_in_a_data_cluster, 1 + USED + FLAGS, 0, 0, true),
    DAMAGE(every_block_is_the_first, CLUSTER / 8 - 1, 0, 0, true),
    DAMAGE(packed_past_the_end, 1, 1, 1, false),
    DAMAGE(packed_marked_as_not_shared, 1, 0, 0, false),
};

/* What qemu-img's exit code says: 0 whole, 1 it cannot be checked, 2 corruptions, 3 leaks; -1: there is no qemu-img. */
static int verdict(const struct mem *m)
{
    struct mem *copy = mem_create(0);
    int rc;

    mem_apply(copy, &(struct mem_op){.op = BLK_WRITE, .len = m->size, .data = m->bytes});
    rc = rig_shell(copy, "qemu-img check -q -f qcow2 image; printf $? >code && mv code image");
    assert_true(rc == 0 || rc == -1);
    rc = rc ? -1 : copy->bytes[0] - '0';
    mem_destroy(copy);
    return rc;
}

static struct blk_check check(struct mem *m, enum blk_fix fix)
{
    struct blk_check ret;
    struct err err = {0};
    struct blk *b = rig_try(m, NULL, "repair", fix == BLK_FIX_NONE, &err);

    if (!b || b->drv->check(b, fix, &ret, &err))
        fail_msg("%s", err.msg);
    rig_close(b);
    assert_int_equal(ret.failures, 0);
    return ret;
}

static void expect_data(struct mem *m)
{
    struct blk *b = rig_open(m, NULL);
    uint8_t got[6];

    for (unsigned i = 0; i < DATA; i++) {
        assert_int_equal(blk_pread(b, got, 1, (uint64_t)i * CLUSTER), 0);
        assert_int_equal(got[0], i + 1);
    }
    assert_int_equal(blk_pread(b, got, 6, MiB(2)), 0);
    assert_memory_equal(got, "second", 6);
    rig_close(b);
}

static void each_damage_is_found(void **s)
{
    (void)s;
    for (size_t i = 0; i < array_len(rows); i++) {
        struct mem *m = image();
        struct blk_check found;
        int theirs;

        rows[i].damage(m);
        found = check(m, BLK_FIX_NONE);
        theirs = verdict(m);
        if (found.corruptions != rows[i].corruptions || found.leaks != rows[i].leaks)
            fail_msg("%s: %u corruptions, %u leaks", rows[i].name, (unsigned)found.corruptions, (unsigned)found.leaks);
        if (theirs != -1 && (found.corruptions ? theirs != 2 && theirs != 1 : theirs != 3))
            fail_msg("%s: qemu-img ends with %d", rows[i].name, theirs);
        mem_destroy(m);
    }
}

static void what_can_be_mended_is_mended(void **s)
{
    (void)s;
    for (size_t i = 0; i < array_len(rows); i++) {
        struct mem *m = image();
        struct blk_check found;
        int theirs;

        rows[i].damage(m);
        found = check(m, BLK_FIX_ALL);
        assert_int_equal(found.leaks_fixed, found.leaks);
        if (found.corruptions - found.corruptions_fixed != rows[i].stay)
            fail_msg("%s: %u of %u corruptions are mended", rows[i].name, (unsigned)found.corruptions_fixed,
                     (unsigned)found.corruptions);
        found = check(m, BLK_FIX_NONE);
        assert_int_equal(found.leaks, 0);
        assert_int_equal(found.corruptions, rows[i].stay);
        theirs = verdict(m);
        if (theirs != -1 && theirs != (rows[i].stay ? 2 : 0))
            fail_msg("%s: qemu-img ends with %d when it is mended", rows[i].name, theirs);
        if (rows[i].whole)
            expect_data(m);
        mem_destroy(m);
    }
}

/* Nothing becomes worse where leaks alone are to be mended. */
static void leaks_are_mended_alone(void **s)
{
    (void)s;
    for (size_t i = 0; i < array_len(rows); i++) {
        struct mem *m = image();
        struct blk_check before, found;

        rows[i].damage(m);
        before = check(m, BLK_FIX_NONE);
        found = check(m, BLK_FIX_LEAKS);
        assert_int_equal(found.leaks_fixed, before.leaks);
        found = check(m, BLK_FIX_NONE);
        assert_int_equal(found.leaks, 0);
        assert_true(found.corruptions <= before.corruptions);
        mem_destroy(m);
    }
}

/* A table whose entries all name one block counts billions of clusters that nobody has. */
static void one_block_again_and_again_takes_no_longer(void **s)
{
    struct mem *m = mem_create(0);

    (void)s;
    rig_create(m, MiB(4), "cluster_size=64K,refcount_bits=1");
    for (unsigned i = 1; i < 65536 / 8; i++)
        put_be64(m->bytes + rt_at(m) + (uint64_t)i * 8, block_at(m));
    assert_int_equal(check(m, BLK_FIX_NONE).corruptions, 65536 / 8 - 1);
    assert_int_equal(check(m, BLK_FIX_ALL).corruptions_fixed, 65536 / 8 - 1);
    rig_check(m, false);
    mem_destroy(m);
}

/* So does an L1 table that names one L2 table in all its entries. */
static void one_l2_table_again_and_again_takes_no_longer(void **s)
{
    struct mem *m = mem_create(0);
    uint64_t first;
    struct blk *b;

    (void)s;
    rig_create(m, 1ull << 44, "cluster_size=64K");
    b = rig_open(m, NULL);
    assert_int_equal(blk_pwrite(b, "data", 4, 0), 0);
    rig_close(b);
    first = get_be64(m->bytes + l1_at(m));
    for (unsigned i = 1; i < (1ull << 44) / MiB(512); i++)
        put_be64(m->bytes + l1_at(m) + (uint64_t)i * 8, first);
    assert_int_equal(check(m, BLK_FIX_NONE).corruptions, (1ull << 44) / MiB(512) - 1);
    mem_destroy(m);
}

/* Snapshots whose L1 tables cannot all be in the file: one could stand for thousands. */
static void l1_tables_that_overlap_are_not_walked(void **s)
{
    struct mem *m = image();
    struct blk *b = rig_open(m, NULL);
    struct blk_check found;
    struct err err = {0};

    (void)s;
    assert_int_equal(qcow2_snapshot_create(b, "one", &err), 0);
    rig_close(b);
    rig_check(m, false);
    put_be32(m->bytes + get_be64(m->bytes + 64) + 8, 1 << 20);
    b = rig_try(m, NULL, "repair", false, &err);
    assert_non_null(b);
    assert_int_equal(b->drv->check(b, BLK_FIX_ALL, &found, &err), 0);
    assert_int_equal(found.failures, 1);
    assert_int_equal(found.corruptions_fixed, 0);
    rig_close(b);
    mem_destroy(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_damage_is_found),
        cmocka_unit_test(what_can_be_mended_is_mended),
        cmocka_unit_test(leaks_are_mended_alone),
        cmocka_unit_test(one_block_again_and_again_takes_no_longer),
        cmocka_unit_test(one_l2_table_again_and_again_takes_no_longer),
        cmocka_unit_test(l1_tables_that_overlap_are_not_walked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
