/* The formats that are read-only as disks, with qemu-img as the judge: what either writes the other reads alike. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "devices/block/driver.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"

enum { SIZE = (34 << 20) + 3 * 512, CHUNK = 64 << 10 };

static char home[64];
static uint8_t *disk; /* what is to be on it */

/* ---- Files. ---- */

static int __attribute__((format(printf, 1, 2))) run(const char *fmt, ...)
{
    char command[1024];
    va_list ap;
    int rc;

    va_start(ap, fmt);
    vsnprintf(command, sizeof(command) - 32, fmt, ap);
    va_end(ap);
    strcat(command, " >/dev/null 2>&1");
    rc = system(command);
    return WIFEXITED(rc) ? WEXITSTATUS(rc) : -1;
}

#define run_ok(...)                   \
    do {                              \
        if (run(__VA_ARGS__))         \
            fail_msg("" __VA_ARGS__); \
    } while (0)

/* Data in places: across tables, at the very end, text that deflates and noise that does not. */
static void fill(void)
{
    static const struct {
        uint64_t off, len;
        bool noise;
    } parts[] = {{0, 4096, true},
                 {65536 - 512, 1024, false},
                 {MiB(1) + 4096, MiB(3), true},
                 {MiB(32) - 512, 1024, true},
                 {MiB(33), 200000, false},
                 {SIZE - 512, 512, true}};
    uint32_t x = 1;

    disk = xcalloc(1, SIZE);
    for (size_t i = 0; i < array_len(parts); i++)
        for (uint64_t at = parts[i].off; at < parts[i].off + parts[i].len; at++) {
            x = x * 1103515245 + 12345;
            disk[at] = parts[i].noise ? (uint8_t)(x >> 16) : (uint8_t)('a' + at % 7);
        }
}

static bool is_zero(const uint8_t *p, size_t n)
{
    return !p[0] && !memcmp(p, p + 1, n - 1);
}

static int setup(void **s)
{
    cleanup_fd int fd = -1;

    (void)s;
    strcpy(home, "/tmp/bothy-formats-XXXXXX");
    if (!mkdtemp(home) || chdir(home))
        return -1;
    fill();
    fd = open("src.raw", O_CREAT | O_RDWR, 0600);
    if (fd < 0 || ftruncate(fd, SIZE))
        return -1;
    for (uint64_t at = 0; at < SIZE; at += 512)
        if (!is_zero(disk + at, 512) && pwrite(fd, disk + at, 512, (off_t)at) != 512)
            return -1;
    return 0;
}

static int teardown(void **s)
{
    (void)s;
    free(disk);
    return chdir("/") || run("rm -r %s", home);
}

static void need_judge(void)
{
    if (run("command -v qemu-img"))
        skip();
}

static struct blk *open_image(const char *path, const struct blk_open_opts *o)
{
    struct blk *b;
    struct err err;

    if (blk_open(path, o, NULL, NULL, &b, &err))
        fail_msg("%s", err.msg);
    return b;
}

static void refused(const char *path, const struct blk_open_opts *o, const char *word)
{
    struct blk *b;
    struct err err;

    if (!blk_open(path, o, NULL, NULL, &b, &err))
        fail_msg("%s was opened", path);
    if (!strstr(err.msg, word))
        fail_msg("\"%s\" lacks \"%s\"", err.msg, word);
}

static const struct blk_open_opts reading = {.read_only = true};

/* All of it in large pieces, then odd ones; and what status says of it. */
static void reads_as_the_disk(const char *path, uint64_t size)
{
    struct blk *b = open_image(path, &reading);
    cleanup_free uint8_t *buf = xcalloc(1, MiB(1));
    struct blk_status st;

    assert_int_equal(b->lim.size, size);
    assert_true(b->lim.read_only);
    for (uint64_t at = 0, n; at < size; at += n) {
        n = min_u64(MiB(1), size - at);
        assert_int_equal(blk_pread(b, buf, n, at), 0);
        if (at < SIZE)
            assert_memory_equal(buf, disk + at, min_u64(n, SIZE - at));
    }
    for (uint64_t at = 100; at + 70001 < SIZE; at += 1234567) {
        assert_int_equal(blk_pread(b, buf, 70001, at), 0);
        assert_memory_equal(buf, disk + at, 70001);
    }
    for (uint64_t at = 0; at < size; at += st.len) {
        assert_int_equal(b->drv->status(b, at, size - at, &st), 0);
        assert_in_range(st.len, 1, size - at);
        if (st.place != BLK_AT && !(st.place == BLK_BACKING && b->backing) && at < SIZE)
            assert_true(is_zero(disk + at, min_u64(st.len, SIZE - at)));
        if (st.has_off) {
            assert_int_equal(blk_pread(b->file, buf, 512, st.off), 0);
            assert_memory_equal(buf, disk + at, min_u64(512, size - at));
        }
    }
    assert_int_equal(blk_pwrite(b, buf, 512, 0), -EROFS);
    json_decref(b->drv->info(b));
    blk_close(b);
}

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
    need_judge();
    for (size_t i = 0; i < array_len(rows); i++) {
        run_ok("qemu-img convert -f raw -O %s -o %s src.raw %s", rows[i].format, rows[i].options, rows[i].name);
        reads_as_the_disk(rows[i].name, SIZE);
        run_ok("rm *.[vh][dmh]*");
    }
}

/* Sizes that come from a geometry, which is a little larger. */
static void vhd_sizes_follow_their_creator(void **s)
{
    struct blk *b;
    uint64_t size;

    (void)s;
    need_judge();
    run_ok("qemu-img convert -f raw -O vpc src.raw a.vhd");
    b = open_image("a.vhd", &reading);
    assert_true(b->lim.size > SIZE && b->lim.size < SIZE + MiB(1));
    run_ok("qemu-img convert -f vpc -O raw a.vhd back.raw && test $(stat -c %%s back.raw) = %llu",
           (unsigned long long)b->lim.size);
    size = b->lim.size;
    blk_close(b);
    reads_as_the_disk("a.vhd", size);
    run_ok("rm a.vhd back.raw");
}

static void vmdk_children_read_through_to_their_parent(void **s)
{
    (void)s;
    need_judge();
    run_ok("qemu-img convert -f raw -O vmdk src.raw base.vmdk");
    run_ok("qemu-img create -f vmdk -b base.vmdk -F vmdk child.vmdk");
    reads_as_the_disk("child.vmdk", SIZE);
    run_ok("qemu-io -c 'write -P 7 1M 64k' base.vmdk");
    refused("child.vmdk", &reading, "written to since");
    run_ok("rm child.vmdk base.vmdk");
}

/* ---- Written here, read there. ---- */

struct made {
    const char *driver, *options, *path, *format;
};

static struct blk *make(const struct made *m, uint64_t size)
{
    const struct blk_driver *d = blk_driver_find(m->driver);
    cleanup_free void *opts = xcalloc(1, d->create_size);
    struct blk *file;
    struct err err;

    opts_default(d->create_opts, opts);
    if (opts_parse(d->create_opts, opts, NULL, m->options, &err) || blk_create_file(m->path, true, &file, &err) ||
        d->create(file, size, opts, &err))
        fail_msg("%s", err.msg);
    opts_clear(d->create_opts, opts);
    blk_close(file);
    return open_image(m->path, &(struct blk_open_opts){.format = m->driver, .fresh = true});
}

struct writer {
    struct blk *b;
    unsigned first, step;
    int ret;
};

static void *write_some(void *arg)
{
    struct writer *w = arg;

    for (uint64_t at = (uint64_t)w->first * CHUNK; at < SIZE && !w->ret; at += (uint64_t)w->step * CHUNK) {
        uint64_t n = min_u64(CHUNK, SIZE - at);

        if (!is_zero(disk + at, n))
            w->ret = blk_pwrite(w->b, disk + at, n, at);
    }
    return NULL;
}

/* From two threads, so in no order. */
static void write_disk(struct blk *b)
{
    struct writer w[2] = {{.b = b, .first = 0, .step = 2}, {.b = b, .first = 1, .step = 2}};
    pthread_t other;

    assert_int_equal(pthread_create(&other, NULL, write_some, &w[1]), 0);
    write_some(&w[0]);
    pthread_join(other, NULL);
    assert_int_equal(w[0].ret | w[1].ret, 0);
    assert_int_equal(blk_flush(b), 0);
}

static const struct made made[] = {
    {"vdi", "", "a.vdi", "vdi"},
    {"vdi", "static=on", "b.vdi", "vdi"},
    {"vhdx", "", "a.vhdx", "vhdx"},
    {"vhdx", "subformat=fixed", "b.vhdx", "vhdx"},
    {"vhdx", "block_size=1M", "c.vhdx", "vhdx"},
    {"vhdx", "subformat=fixed,block_size=1M", "d.vhdx", "vhdx"},
    {"vhd", "", "a.vhd", "vpc"},
    {"vhd", "subformat=fixed,force_size", "b.vhd", "vpc"},
    {"vmdk", "", "a.vmdk", "vmdk"},
    {"vmdk", "subformat=streamOptimized", "b.vmdk", "vmdk"},
};

static void what_is_written_here_qemu_img_reads(void **s)
{
    (void)s;
    for (size_t i = 0; i < array_len(made); i++) {
        struct blk *b = make(&made[i], SIZE);

        write_disk(b);
        blk_close(b);
        reads_as_the_disk(made[i].path, SIZE);
        if (!run("command -v qemu-img")) {
            run_ok("qemu-img compare -f raw -F %s src.raw %s", made[i].format, made[i].path);
            if (strcmp(made[i].format, "vpc") != 0)
                run_ok("qemu-img check -f %s %s", made[i].format, made[i].path);
        }
        run_ok("rm %s", made[i].path);
    }
}

static void an_empty_image_is_whole(void **s)
{
    (void)s;
    for (size_t i = 0; i < array_len(made); i++) {
        struct blk *b = make(&made[i], MiB(3) + 512);
        uint8_t buf[512];

        blk_close(b);
        b = open_image(made[i].path, &reading);
        assert_int_equal(b->lim.size, MiB(3) + 512);
        assert_int_equal(blk_pread(b, buf, 512, MiB(3)), 0);
        assert_true(is_zero(buf, 512));
        blk_close(b);
        if (!run("command -v qemu-img"))
            run_ok(
                "test $(qemu-img convert -f %s -O raw %s back.raw && stat -c %%s back.raw) = %llu && ! tr -d '\\0' < "
                "back.raw | grep -q .",
                made[i].format, made[i].path, MiB(3) + 512ull);
        run_ok("rm -f back.raw %s", made[i].path);
    }
}

/* Parts of blocks, later other parts of them, and zeroes over them. */
static void parts_of_blocks_are_merged(void **s)
{
    uint8_t buf[8192], back[8192];

    (void)s;
    for (size_t i = 0; i < array_len(made); i++) {
        struct blk *b = make(&made[i], MiB(3));

        memset(buf, 'x', sizeof(buf));
        assert_int_equal(blk_pwrite(b, buf, 1000, MiB(1) - 300), 0);
        assert_int_equal(blk_pwrite(b, buf, 4096, MiB(1) + 4096), 0);
        assert_int_equal(blk_zero(b, MiB(1) + 5000, 1000, true), 0);
        assert_int_equal(blk_zero(b, MiB(2), MiB(1), true), 0);
        assert_int_equal(blk_flush(b), 0);
        blk_close(b);
        b = open_image(made[i].path, &reading);
        memset(buf + 700, 0, 4096 - 700);
        memset(buf + 5000, 0, 1000);
        assert_int_equal(blk_pread(b, back, sizeof(back), MiB(1)), 0);
        assert_memory_equal(back, buf, sizeof(back));
        blk_close(b);
        run_ok("rm %s", made[i].path);
    }
}

/* ---- Refusals. ---- */

static void disks_of_these_formats_are_read_only(void **s)
{
    (void)s;
    for (size_t i = 0; i < array_len(made); i++) {
        blk_close(make(&made[i], MiB(3)));
        refused(made[i].path, &(struct blk_open_opts){0}, "convert it to qcow2");
        run_ok("rm %s", made[i].path);
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
        cmocka_unit_test(disks_of_these_formats_are_read_only),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
