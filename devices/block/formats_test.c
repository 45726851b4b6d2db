/* The formats that are read-only as disks, with qemu-img as the judge: what either writes the other reads alike. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "devices/block/driver.h"
#include "devices/block/vhdx.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"

enum { SIZE = (34 << 20) + 3 * 512, CHUNK = 64 << 10 };

static char home[64];
static uint8_t *disk; /* what is to be on it */

/* ---- Files. ---- */

static int __attribute__((format(printf, 1, 2))) run(const char *fmt, ...)
{
    char command[1024], quiet[1100];
    va_list ap;
    int rc;

    va_start(ap, fmt);
    vsnprintf(command, sizeof(command), fmt, ap);
    va_end(ap);
    snprintf(quiet, sizeof(quiet), "{ %s; } >/dev/null 2>&1", command);
    rc = system(quiet);
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
    /* In memory, where there is such a place: no test waits for a disk. */
    strcpy(home, access("/dev/shm", W_OK) ? "/tmp/bothy-formats-XXXXXX" : "/dev/shm/bothy-formats-XXXXXX");
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
    struct blk *file = NULL;
    struct err err;

    opts_default(d->create_opts, opts);
    if (opts_parse(d->create_opts, opts, NULL, m->options, &err) || blk_create_file(m->path, true, &file, &err) ||
        d->create(file, size, opts, &err))
        fail_msg("%s", err.msg);
    opts_clear(d->create_opts, opts);
    blk_close(file);
    return open_image(m->path, &(struct blk_open_opts){.format = m->driver, .fresh = true, .cache = BLK_CACHE_UNSAFE});
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

/* ---- Made by hand: what qemu-img does not make. ---- */

static void put(const char *path, uint64_t off, const void *p, size_t n)
{
    cleanup_fd int fd = open(path, O_CREAT | O_WRONLY, 0600);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, p, n, (off_t)off), n);
}

static void get(const char *path, uint64_t off, void *p, size_t n)
{
    cleanup_fd int fd = open(path, O_RDONLY);

    assert_int_equal(pread(fd, p, n, (off_t)off), n);
}

static uint64_t size_of(const char *path)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_size;
}

enum { LOG = 1 << 20, LOG_LEN = 1 << 20, BAT = 3 << 20, PAGE = 4096 }; /* of our new VHDX images */

/* An entry of the log about the page at `off`: becomes `data`, or zeroes when that is NULL.  How long it is. */
static uint32_t log_entry(const char *path, uint32_t at, uint64_t sequence, uint64_t off, const uint8_t *data)
{
    uint32_t len = data ? 2 * PAGE : PAGE;
    uint8_t e[2 * PAGE] = "loge";

    put_le32(e + 8, len);
    put_le32(e + 12, LOG_LEN - 2 * PAGE); /* where the first entry is */
    put_le64(e + 16, sequence);
    put_le32(e + 24, 1);
    memset(e + 32, 'G', 16);
    put_le64(e + 48, size_of(path));
    put_le64(e + 56, size_of(path));
    memcpy(e + 64, data ? "desc" : "zero", 4);
    put_le64(e + 72, PAGE);
    put_le64(e + 80, off);
    put_le64(e + 88, sequence);
    if (data) {
        memcpy(e + 68, data + PAGE - 4, 4);
        memcpy(e + 72, data, 8);
        memcpy(e + PAGE, data, PAGE);
        memcpy(e + PAGE, "data", 4);
        put_le32(e + PAGE + 4, (uint32_t)(sequence >> 32));
        put_le32(e + PAGE + PAGE - 4, (uint32_t)sequence);
    }
    put_le32(e + 4, vhdx_crc(e, len, 4));
    put(path, LOG + at, e, len);
    return len;
}

static void name_log(const char *path)
{
    uint8_t h[PAGE];

    get(path, 128 << 10, h, sizeof(h));
    memset(h + 48, 'G', 16);
    put_le32(h + 4, vhdx_crc(h, sizeof(h), 4));
    put(path, 128 << 10, h, sizeof(h));
}

/* The log goes around its end; entries overwrite what earlier ones wrote. */
static void vhdx_logs_lie_over_the_file(void **s)
{
    const char *path = "c.vhdx";
    uint8_t bat[PAGE], junk[PAGE];
    struct blk *b = make(&made[4], SIZE);

    (void)s;
    write_disk(b);
    blk_close(b);
    memset(junk, 0xe6, sizeof(junk));
    get(path, BAT, bat, sizeof(bat));
    put(path, BAT, junk, sizeof(junk));
    log_entry(path, 9 * PAGE, 4, BAT, junk); /* of long ago */
    assert_int_equal(log_entry(path, LOG_LEN - 2 * PAGE, 6, BAT, junk), 2 * PAGE);
    log_entry(path, 0, 7, BAT, NULL);
    log_entry(path, PAGE, 8, BAT, bat);
    name_log(path);
    reads_as_the_disk(path, SIZE);
    get(path, BAT, bat, sizeof(bat));
    assert_memory_equal(bat, junk, sizeof(bat)); /* nothing was written */
    if (!run("command -v qemu-img"))
        run_ok("qemu-img check -r all %s && qemu-img compare src.raw %s", path, path);
    run_ok("rm %s", path);
}

static void damaged_vhdx_logs_are_refused(void **s)
{
    const char *path = "c.vhdx";
    uint8_t junk[PAGE] = {1};

    (void)s;
    blk_close(make(&made[4], SIZE));
    name_log(path);
    refused(path, &reading, "the log is damaged");
    log_entry(path, LOG_LEN - 2 * PAGE, 6, BAT + 1, junk);
    refused(path, &reading, "log is damaged");
    log_entry(path, LOG_LEN - 2 * PAGE, 6, UINT64_MAX - PAGE + 1, junk);
    refused(path, &reading, "log is damaged");
    log_entry(path, LOG_LEN - 2 * PAGE, 6, BAT, junk);
    put(path, LOG + LOG_LEN - PAGE + 500, "x", 1);
    refused(path, &reading, "log is damaged");
    run_ok("rm %s", path);
}

static void sum_footer(uint8_t *f)
{
    uint32_t sum = 0;

    put_be32(f + 64, 0);
    for (unsigned i = 0; i < 512; i++)
        sum += f[i];
    put_be32(f + 64, ~sum);
}

/* The child has sectors 1 and 9 of the first block, marked as such, and another block as a whole. */
static void make_vhd_child(const char *name)
{
    static const char le[] = ".\0\\\0a\0.\0v\0h\0d\0", be[] = "\0C\0:\0\\\0a\0.\0v\0h\0d\0";
    struct blk *b = make(&(struct made){"vhd", "", "child.vhd", "vpc"}, SIZE);
    uint8_t foot[512], head[1024], bits[512] = {0x40, 0x40};
    uint8_t data[1024];

    memset(data, 'c', sizeof(data));
    assert_int_equal(blk_pwrite(b, data, 512, 512), 0);
    assert_int_equal(blk_pwrite(b, data, 512, 9 * 512), 0);
    assert_int_equal(blk_pwrite(b, data, 1024, MiB(2)), 0);
    assert_int_equal(blk_flush(b), 0);
    blk_close(b);
    get("a.vhd", 0, foot, sizeof(foot));
    get("child.vhd", 512, head, sizeof(head));
    memcpy(head + 40, foot + 68, 16);
    if (!strcmp(name, "locator")) {
        memcpy(head + 576, "W2ru", 4);
        put_be32(head + 576 + 8, sizeof(le) - 1);
        put_be64(head + 576 + 16, size_of("child.vhd"));
    } else {
        memcpy(head + 64, be, sizeof(be));
    }
    put("child.vhd", 512, head, sizeof(head));
    put("child.vhd", 2048, bits, sizeof(bits)); /* right after the table, which is one sector */
    get("child.vhd", 0, foot, sizeof(foot));
    put_be32(foot + 60, 4);
    sum_footer(foot);
    put("child.vhd", 0, foot, sizeof(foot));
    put("child.vhd", size_of("child.vhd"), le, sizeof(le) - 1);
    put("child.vhd", align_up(size_of("child.vhd"), 512), foot, sizeof(foot));
}

static void vhd_children_read_through_to_their_parent(void **s)
{
    static const char *const ways[] = {"locator", "name"};
    struct blk *b = make(&(struct made){"vhd", "", "a.vhd", "vpc"}, SIZE);
    uint8_t want[16 << 10], got[16 << 10];

    (void)s;
    write_disk(b);
    blk_close(b);
    for (size_t i = 0; i < array_len(ways); i++) {
        make_vhd_child(ways[i]);
        b = open_image("child.vhd", &reading);
        memcpy(want, disk, sizeof(want));
        memset(want + 512, 'c', 512);
        memset(want + 9 * 512, 'c', 512);
        assert_int_equal(blk_pread(b, got, sizeof(got), 0), 0);
        assert_memory_equal(got, want, sizeof(got));
        memset(want, 0, 2048);
        memset(want, 'c', 1024);
        assert_int_equal(blk_pread(b, got, 2048, MiB(2)), 0);
        assert_memory_equal(got, want, 2048);
        assert_int_equal(blk_pread(b, got, 2048, MiB(33)), 0);
        assert_memory_equal(got, disk + MiB(33), 2048);
        blk_close(b);
    }
    run_ok("cp child.vhd a.vhd");
    refused("child.vhd", &reading, "itself or an image above it");
    run_ok("rm a.vhd child.vhd");
}

static void bochs_images_are_read(void **s)
{
    enum { EXTENT = 65536, EXTENTS = SIZE / EXTENT + 1, DATA = 512 + EXTENTS * 4 };
    uint8_t h[512] = "Bochs Virtual HD Image", bits[512], entry[4];
    uint32_t used = 0;

    (void)s;
    strcpy((char *)h + 32, "Redolog");
    strcpy((char *)h + 48, "Growing");
    put_le32(h + 64, 0x20000);
    put_le32(h + 68, 512);
    put_le32(h + 72, EXTENTS);
    put_le32(h + 76, EXTENT / 512 / 8);
    put_le32(h + 80, EXTENT);
    put_le64(h + 88, SIZE);
    put("a.bochs", 0, h, sizeof(h));
    for (uint32_t i = 0; i < EXTENTS; i++) {
        uint64_t start = (uint64_t)i * EXTENT, n = min_u64(EXTENT, SIZE - start),
                 place = DATA + used * (EXTENT + 512ull);

        put_le32(entry, is_zero(disk + start, n) ? UINT32_MAX : used++);
        put("a.bochs", 512 + i * 4ull, entry, sizeof(entry));
        if (get_le32(entry) == UINT32_MAX)
            continue;
        memset(bits, 0, sizeof(bits));
        for (unsigned k = 0; k < n / 512; k++)
            if (!is_zero(disk + start + k * 512, 512)) {
                bits[k / 8] |= (uint8_t)(1 << k % 8);
                put("a.bochs", place + 512 + k * 512ull, disk + start + k * 512, 512);
            }
        put("a.bochs", place, bits, sizeof(bits));
    }
    reads_as_the_disk("a.bochs", SIZE);
    if (!run("command -v qemu-img"))
        run_ok("qemu-img compare -F bochs src.raw a.bochs");
    put("a.bochs", 48, "Volatile", 9);
    refused("a.bochs", &reading, "bximage");
    run_ok("rm a.bochs");
}

/* Streams name their directory in a footer, which follows the last grain. */
static void vmdk_streams_may_end_in_a_footer(void **s)
{
    const char *path = "b.vmdk";
    struct blk *b = make(&made[9], SIZE);
    uint8_t h[512], marker[512] = {0};
    uint64_t at;

    (void)s;
    write_disk(b);
    blk_close(b);
    get(path, 0, h, sizeof(h));
    put_le64(marker, 1);
    put_le32(marker + 12, 3);
    at = size_of(path);
    put(path, at, marker, sizeof(marker));
    put(path, at + 512, h, sizeof(h));
    memset(marker, 0, sizeof(marker));
    put(path, at + 1024, marker, sizeof(marker));
    memset(h + 56, 0xff, 8);
    put(path, 0, h, sizeof(h));
    reads_as_the_disk(path, SIZE);
    if (!run("command -v qemu-img"))
        run_ok("qemu-img compare src.raw %s", path);
    put(path, at + 512, marker, sizeof(marker));
    refused(path, &reading, "no signature");
    run_ok("rm %s", path);
}

static void describe(const char *extents)
{
    cleanup_fd int fd = open("t.vmdk", O_CREAT | O_TRUNC | O_WRONLY, 0600);

    assert_true(fd >= 0);
    dprintf(fd, "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"custom\"\n%s\n",
            extents);
}

static void vmdk_extents_lie_side_by_side(void **s)
{
    uint8_t buf[2048], want[2048];
    struct blk *b;

    (void)s;
    describe("RW 2 ZERO\nRW 3 FLAT \"src.raw\" 2\nRW 1 FLAT \"src.raw\" 0\r\nRDONLY 2 ZERO");
    b = open_image("t.vmdk", &reading);
    assert_int_equal(b->lim.size, 8 * 512);
    memset(want, 0, sizeof(want));
    memcpy(want + 100, disk + 1024, 1536);
    memcpy(want + 100 + 1536, disk, 412);
    assert_int_equal(blk_pread(b, buf, sizeof(buf), 1024 - 100), 0);
    assert_memory_equal(buf, want, sizeof(buf));
    blk_close(b);
}

static void what_a_descriptor_may_not_say(void **s)
{
    static const struct {
        const char *text, *word;
    } rows[] = {
        {"", "lists no extent"},
        {"RW x FLAT \"src.raw\" 0", "not understood"},
        {"RW 1 FLAT", "without a name"},
        {"RW 0 FLAT \"src.raw\" 0", "0 sectors"},
        {"RW 99999999 FLAT \"src.raw\" 0", "cut short"},
        {"RW 1 FLAT \"src.raw\" 99999999", "cut short"},
        {"RW 99999999999999999999 ZERO", "sectors"},
        {"RW 9007199254740992 ZERO\nRW 18014398509481983 ZERO", "too long together"},
        {"RW 1 VMFSSPARSE \"src.raw\"", "VMFSSPARSE"},
        {"RW 1 SPARSE \"src.raw\"", "no signature"},
        {"RW 1 SPARSE \"t.vmdk\"", "itself"},
        {"RW 1 FLAT \"/etc/passwd\" 0", "allow="},
        {"RW 1 FLAT \"../../../etc/passwd\" 0", "allow="},
        {"RW 1 FLAT \"json:{}\" 0", "no protocols"},
        {"RW 1 FLAT \"nbd://localhost\" 0", "no protocols"},
        {"RW 1 FLAT \"/proc/self/mem\" 0", "outside of its own folder"},
        {"RW 1 ZERO\nparentFileNameHint=\"/etc/passwd\"", "allow="},
        {"RW 1 ZERO\nparentFileNameHint=\"t.vmdk\"", "itself"},
        {"RW 1 ZERO \a", "no text"},
    };

    (void)s;
    for (size_t i = 0; i < array_len(rows); i++) {
        describe(rows[i].text);
        refused("t.vmdk", &reading, rows[i].word);
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
    for (size_t i = 0; i < array_len(made); i++) {
        struct blk *b = make(&made[i], SIZE);

        write_disk(b);
        blk_close(b);
        if (blk_open(made[i].path, &reading, &lane, NULL, &b, &err))
            fail_msg("%s", err.msg);
        for (uint64_t at = 0, n; at < SIZE; at += n) {
            struct iovec iov = {.iov_base = buf, .iov_len = n = min_u64(MiB(1), SIZE - at)};
            struct io io = {.r = {.io = {.op = BLK_READ, .off = at, .len = n, .iov = &iov, .niov = 1}, .done = done},
                            .ret = 1};

            blk_submit(b, &io.r);
            blk_kick(b);
            lane_drain(&lane);
            assert_int_equal(io.ret, 0);
            assert_memory_equal(buf, disk + at, n);
        }
        blk_close(b);
        run_ok("rm %s", made[i].path);
    }
    lane_unlock(&lane);
    lane_fini(&lane);
    loop_destroy(loop);
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

static void damaged_headers_are_refused(void **s)
{
    static const struct {
        unsigned made;
        uint32_t off, value, len;
        const char *word;
    } rows[] = {
        {0, 64, 0, 4, "no signature"},
        {0, 68, 0x10002, 4, "version"},
        {0, 76, 4, 4, "difference"},
        {0, 76, 9, 4, "type 9"},
        {0, 340, 0, 4, "map at 0"},
        {0, 340, 0xffffff00, 4, "map at"},
        {0, 344, 513, 4, "data at 513"},
        {0, 344, 0xfffffe00, 4, "data at"},
        {0, 360, 4096, 4, "sectors of 4096"},
        {0, 368, 0, 4, "0 bytes"},
        {0, 372, 0x7fffffff, 4, "blocks for a disk"},
        {0, 376, 0, 4, "blocks of 0"},
        {0, 376, 0x80000000, 4, "blocks of"},
        {0, 376, 3 << 20, 4, "blocks of"},
        {0, 384, 0xffffffff, 4, "blocks for a disk"},
        {2, 0, 0, 8, "no signature"},
        {2, 128 << 10, 0, 4, NULL}, /* the other header has it all */
        {2, 192 << 10, 0, 4, NULL}, /* and so the other table */
        {2, 2 << 20, 0, 4, "metadata is not valid"},
        {2, (2 << 20) + 32 + 16, 0, 4, "an item"},
        {2, (2 << 20) + 32 + 16, 0xfffffff0, 4, "an item"},
        {2, (2 << 20) + 32, 0, 4, "item of metadata that must be known"},
        {2, (2 << 20) + (64 << 10), 0, 4, "blocks of 0"},
        {2, (2 << 20) + (64 << 10), 3 << 20, 4, "blocks of"},
        {2, (2 << 20) + (64 << 10) + 4, 2, 4, "difference"},
        {2, (2 << 20) + (64 << 10) + 16, 1, 4, "a disk of"},
        {2, (2 << 20) + (64 << 10) + 20, 0xffffffff, 4, "a disk of"},
        {2, (2 << 20) + (64 << 10) + 48, 1000, 4, "sectors of 1000"},
        {6, 16, 0, 4, NULL}, /* the footer has it all */
        {6, 512, 0, 4, "header is not where"},
        {6, 512 + 24, 0, 4, "version"},
        {6, 512 + 16, 0xffffffff, 4, "cut short"},
        {6, 512 + 28, 0, 4, "0 blocks for"},
        {6, 512 + 28, 0xffffffff, 4, "cut short"},
        {6, 512 + 32, 0, 4, "blocks of 0"},
        {8, 0, 0, 4, "no signature"},
        {8, 4, 9, 4, "version 9"},
        {8, 12, 0, 4, "0 sectors"},
        {8, 16, 0x7fffffff, 4, "sectors"},
        {8, 20, 0, 4, "grains of 0"},
        {8, 20, 0x10000, 4, "grains of"},
        {8, 24, 1, 4, "grains of"},
        {8, 28, 0x7fffffff, 4, "a descriptor of"},
        {8, 44, 0, 4, "0 to a table"},
        {8, 44, 1 << 20, 4, "to a table"},
        {8, 56, 0x7fffffff, 4, "directory"},
        {8, 60, 0x7fffffff, 4, "directory"},
        {9, 77, 2, 2, "compression 2"},
    };

    (void)s;
    for (size_t i = 0; i < array_len(rows); i++) {
        const struct made *m = &made[rows[i].made];
        const struct blk_open_opts o = {.format = m->driver, .read_only = true};
        uint8_t value[8] = {0};

        blk_close(make(m, MiB(3)));
        put_le32(value, rows[i].value);
        put(m->path, rows[i].off, value, rows[i].len);
        if (rows[i].word)
            refused(m->path, &o, rows[i].word);
        else
            blk_close(open_image(m->path, &o));
        run_ok("rm %s", m->path);
    }
}

/* Whatever is beyond the end is an error, not zeroes, and neither hangs nor crashes. */
static void what_was_cut_off_is_not_zero(void **s)
{
    uint8_t buf[4096];

    (void)s;
    memset(buf, 'x', sizeof(buf));
    for (size_t i = 0; i < array_len(made); i++) {
        struct blk *b = make(&made[i], MiB(24));

        assert_int_equal(blk_pwrite(b, buf, sizeof(buf), MiB(1)), 0);
        assert_int_equal(blk_pwrite(b, buf, sizeof(buf), MiB(20)), 0);
        assert_int_equal(blk_flush(b), 0);
        blk_close(b);
        if (!strcmp(made[i].options, "subformat=fixed,force_size"))
            continue; /* without its footer that is no image any more */
        run_ok("truncate -s -%u %s", strcmp(made[i].path, "b.vmdk") != 0 ? 66000 : 1024, made[i].path);
        b = open_image(made[i].path, &(struct blk_open_opts){.format = made[i].driver, .read_only = true});
        assert_int_equal(blk_pread(b, buf, 100, MiB(1)), 0);
        if (!strcmp(made[i].path, "a.vmdk") || !strcmp(made[i].path, "b.vmdk"))
            assert_int_equal(blk_pread(b, buf, 100, MiB(20)), -EIO);
        blk_close(b);
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
        cmocka_unit_test(vhdx_logs_lie_over_the_file),
        cmocka_unit_test(damaged_vhdx_logs_are_refused),
        cmocka_unit_test(vhd_children_read_through_to_their_parent),
        cmocka_unit_test(bochs_images_are_read),
        cmocka_unit_test(vmdk_streams_may_end_in_a_footer),
        cmocka_unit_test(vmdk_extents_lie_side_by_side),
        cmocka_unit_test(what_a_descriptor_may_not_say),
        cmocka_unit_test(guests_read_past_the_workers),
        cmocka_unit_test(disks_of_these_formats_are_read_only),
        cmocka_unit_test(damaged_headers_are_refused),
        cmocka_unit_test(what_was_cut_off_is_not_zero),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
