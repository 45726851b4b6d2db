/* The formats that are read-only as disks, with qemu-img as the judge: what either writes the other reads alike. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "devices/block/formats_rig.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"

/* ---- Written there, read here. ---- */

static void what_qemu_img_writes_is_read(void **s)
{
    static const struct {
        const char *format, *options, *name;
        bool compress;
    } rows[] = {
        {"vdi", "static=off", "a.vdi"},
        {"vdi", "static=on", "b.vdi"},
        {"vhdx", "subformat=dynamic", "a.vhdx"},
        {"vhdx", "subformat=fixed,block_size=1M", "b.vhdx"},
        {"vpc", "subformat=dynamic,force_size=on", "a.vhd"},
        {"vpc", "subformat=fixed,force_size=on", "b.vhd"},
        {"vmdk", "subformat=monolithicSparse", "a.vmdk"},
        {"vmdk", "subformat=monolithicSparse,zeroed_grain=on", "b.vmdk"},
        {"vmdk", "subformat=streamOptimized", "c.vmdk"},
        {"vmdk", "subformat=monolithicFlat", "d.vmdk"},
        {"vmdk", "subformat=twoGbMaxExtentSparse", "e.vmdk"},
        {"vmdk", "subformat=twoGbMaxExtentFlat", "f.vmdk"},
        {"parallels", "cluster_size=1M", "a.hds"},
        {"parallels", "cluster_size=64k", "b.hds"},
    };

    (void)s;
    fmt_need_judge();
    for (size_t i = 0; i < array_len(rows); i++) {
        fmt_run_ok("qemu-img convert -f raw -O %s -o %s src.raw %s", rows[i].format, rows[i].options, rows[i].name);
        fmt_reads_as_the_disk(rows[i].name, FMT_SIZE);
        fmt_run_ok("rm *.[vh][dmh]*");
    }
}

/* Sizes that come from a geometry, which is a little larger. */
static void vhd_sizes_follow_their_creator(void **s)
{
    struct blk *b;
    uint64_t size;

    (void)s;
    fmt_need_judge();
    fmt_run_ok("qemu-img convert -f raw -O vpc src.raw a.vhd");
    b = fmt_open("a.vhd", &fmt_reading);
    assert_true(b->lim.size > FMT_SIZE && b->lim.size < FMT_SIZE + MiB(1));
    fmt_run_ok("qemu-img convert -f vpc -O raw a.vhd back.raw && test $(stat -c %%s back.raw) = %llu",
               (unsigned long long)b->lim.size);
    size = b->lim.size;
    blk_close(b);
    fmt_reads_as_the_disk("a.vhd", size);
    fmt_run_ok("rm a.vhd back.raw");
}

static void vmdk_children_read_through_to_their_parent(void **s)
{
    (void)s;
    fmt_need_judge();
    fmt_run_ok("qemu-img convert -f raw -O vmdk src.raw base.vmdk");
    fmt_run_ok("qemu-img create -f vmdk -b base.vmdk -F vmdk child.vmdk");
    fmt_reads_as_the_disk("child.vmdk", FMT_SIZE);
    fmt_names_backing("child.vmdk", "base.vmdk");
    fmt_run_ok("qemu-io -c 'write -P 7 1M 64k' base.vmdk");
    fmt_refused("child.vmdk", &fmt_reading, "written to since");
    fmt_run_ok("rm child.vmdk base.vmdk");
}

/* ---- Written here, read there. ---- */

static void what_is_written_here_qemu_img_reads(void **s)
{
    (void)s;
    for (unsigned i = 0; i < FMT_MADE; i++) {
        struct blk *b = fmt_make(&fmt_made[i], FMT_SIZE);

        fmt_write_disk(b);
        blk_close(b);
        fmt_reads_as_the_disk(fmt_made[i].path, FMT_SIZE);
        if (!fmt_run("command -v qemu-img")) {
            fmt_run_ok("qemu-img compare -f raw -F %s src.raw %s", fmt_made[i].format, fmt_made[i].path);
            if (strcmp(fmt_made[i].format, "vpc") != 0)
                fmt_run_ok("qemu-img check -f %s %s", fmt_made[i].format, fmt_made[i].path);
        }
        fmt_run_ok("rm %s", fmt_made[i].path);
    }
}

static void an_empty_image_is_whole(void **s)
{
    (void)s;
    for (unsigned i = 0; i < FMT_MADE; i++) {
        struct blk *b = fmt_make(&fmt_made[i], MiB(3) + 512);
        uint8_t buf[512];

        blk_close(b);
        b = fmt_open(fmt_made[i].path, &fmt_reading);
        assert_int_equal(b->lim.size, MiB(3) + 512);
        assert_int_equal(blk_pread(b, buf, 512, MiB(3)), 0);
        assert_true(fmt_is_zero(buf, 512));
        blk_close(b);
        if (!fmt_run("command -v qemu-img"))
            fmt_run_ok(
                "test $(qemu-img convert -f %s -O raw %s back.raw && stat -c %%s back.raw) = %llu && ! tr -d '\\0' < "
                "back.raw | grep -q .",
                fmt_made[i].format, fmt_made[i].path, MiB(3) + 512ull);
        fmt_run_ok("rm -f back.raw %s", fmt_made[i].path);
    }
}

/* Parts of blocks, later other parts of them, and zeroes over them. */
static void parts_of_blocks_are_merged(void **s)
{
    uint8_t buf[8192], back[8192];

    (void)s;
    for (unsigned i = 0; i < FMT_MADE; i++) {
        struct blk *b = fmt_make(&fmt_made[i], MiB(3));

        memset(buf, 'x', sizeof(buf));
        assert_int_equal(blk_pwrite(b, buf, 1000, MiB(1) - 300), 0);
        assert_int_equal(blk_pwrite(b, buf, 4096, MiB(1) + 4096), 0);
        assert_int_equal(blk_zero(b, MiB(1) + 5000, 1000, true), 0);
        assert_int_equal(blk_zero(b, MiB(2), MiB(1), true), 0);
        assert_int_equal(blk_flush(b), 0);
        blk_close(b);
        b = fmt_open(fmt_made[i].path, &fmt_reading);
        memset(buf + 700, 0, 4096 - 700);
        memset(buf + 5000, 0, 1000);
        assert_int_equal(blk_pread(b, back, sizeof(back), MiB(1)), 0);
        assert_memory_equal(back, buf, sizeof(back));
        blk_close(b);
        fmt_run_ok("rm %s", fmt_made[i].path);
    }
}

struct reader {
    struct blk *b;
    unsigned first, step;
    int ret;
};

static void *read_some(void *arg)
{
    struct reader *r = arg;
    cleanup_free uint8_t *buf = xcalloc(1, FMT_CHUNK);

    for (uint64_t at = (uint64_t)r->first * FMT_CHUNK; at < FMT_SIZE && !r->ret; at += (uint64_t)r->step * FMT_CHUNK) {
        uint64_t n = min_u64(FMT_CHUNK, FMT_SIZE - at);

        r->ret = blk_pread(r->b, buf, n, at);
        if (!r->ret && memcmp(buf, fmt_disk + at, n) != 0)
            r->ret = -EILSEQ;
    }
    return NULL;
}

static void threads_read_at_once(void **s)
{
    (void)s;
    for (unsigned i = 0; i < FMT_MADE; i++) {
        struct blk *b = fmt_make(&fmt_made[i], FMT_SIZE);
        struct reader r[2];
        pthread_t other;

        fmt_write_disk(b);
        blk_close(b);
        b = fmt_open(fmt_made[i].path, &fmt_reading);
        r[0] = (struct reader){.b = b, .first = 0, .step = 1};
        r[1] = (struct reader){.b = b, .first = 3, .step = 2};
        assert_int_equal(pthread_create(&other, NULL, read_some, &r[1]), 0);
        read_some(&r[0]);
        pthread_join(other, NULL);
        assert_int_equal(r[0].ret | r[1].ret, 0);
        blk_close(b);
        fmt_run_ok("rm %s", fmt_made[i].path);
    }
}

/* ---- Requests of a guest. ---- */

struct io {
    struct blk_req r;
    int ret;
};

static void done(struct blk_req *r, int ret)
{
    container_of(r, struct io, r)->ret = ret;
}

static void guests_read_past_the_workers(void **s)
{
    cleanup_free uint8_t *buf = xcalloc(1, MiB(1));
    struct loop *loop;
    struct lane lane;
    struct err err;

    (void)s;
    if (loop_create("test", &loop, &err))
        fail_msg("%s", err.msg);
    lane_init(&lane, loop);
    lane_lock(&lane);
    for (unsigned i = 0; i < FMT_MADE; i++) {
        struct blk *b = fmt_make(&fmt_made[i], FMT_SIZE);

        fmt_write_disk(b);
        blk_close(b);
        if (blk_open(fmt_made[i].path, &fmt_reading, &lane, NULL, &b, &err))
            fail_msg("%s", err.msg);
        for (uint64_t at = 0, n; at < FMT_SIZE; at += n) {
            struct iovec iov = {.iov_base = buf, .iov_len = n = min_u64(MiB(1), FMT_SIZE - at)};
            struct io io = {.r = {.io = {.op = BLK_READ, .off = at, .len = n, .iov = &iov, .niov = 1}, .done = done},
                            .ret = 1};

            blk_submit(b, &io.r);
            blk_kick(b);
            lane_drain(&lane);
            assert_int_equal(io.ret, 0);
            assert_memory_equal(buf, fmt_disk + at, n);
        }
        blk_close(b);
        fmt_run_ok("rm %s", fmt_made[i].path);
    }
    lane_unlock(&lane);
    lane_fini(&lane);
    loop_destroy(loop);
}

/* ---- Refusals. ---- */

static void holes_in_fixed_images_are_zeroes(void **s)
{
    (void)s;
    for (unsigned i = 0; i < FMT_MADE; i++) {
        struct blk *b = fmt_make(&fmt_made[i], MiB(24));
        struct blk_status st;

        assert_int_equal(blk_pwrite(b, fmt_disk, 4096, MiB(9)), 0);
        assert_int_equal(blk_flush(b), 0);
        blk_close(b);
        b = fmt_open(fmt_made[i].path, &fmt_reading);
        assert_int_equal(b->drv->status(b, MiB(2), MiB(20), &st), 0);
        assert_true(st.place == BLK_ZEROES || st.place == BLK_BACKING);
        assert_in_range(st.len, MiB(4), MiB(7));
        assert_int_equal(b->drv->status(b, MiB(9), MiB(15), &st), 0);
        assert_int_equal(st.place, BLK_AT);
        blk_close(b);
        fmt_run_ok("rm %s", fmt_made[i].path);
    }
}

static void disks_of_these_formats_are_read_only(void **s)
{
    (void)s;
    for (unsigned i = 0; i < FMT_MADE; i++) {
        blk_close(fmt_make(&fmt_made[i], MiB(3)));
        fmt_refused(fmt_made[i].path, &(struct blk_open_opts){0},
                    " images are only read; open it with ro, convert it to qcow2");
        fmt_run_ok("rm %s", fmt_made[i].path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_qemu_img_writes_is_read),
        cmocka_unit_test(vhd_sizes_follow_their_creator),
        cmocka_unit_test(vmdk_children_read_through_to_their_parent),
        cmocka_unit_test(what_is_written_here_qemu_img_reads),
        cmocka_unit_test(an_empty_image_is_whole),
        cmocka_unit_test(parts_of_blocks_are_merged),
        cmocka_unit_test(threads_read_at_once),
        cmocka_unit_test(guests_read_past_the_workers),
        cmocka_unit_test(holes_in_fixed_images_are_zeroes),
        cmocka_unit_test(disks_of_these_formats_are_read_only),
    };

    return cmocka_run_group_tests(tests, fmt_setup, fmt_teardown);
}
