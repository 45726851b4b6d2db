#include "devices/block/formats_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"

static char home[64];
uint8_t *fmt_disk;

/* ---- Files. ---- */

int fmt_run(const char *fmt, ...)
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
                 {FMT_SIZE - 512, 512, true}};
    uint32_t x = 1;

    fmt_disk = xcalloc(1, FMT_SIZE);
    for (size_t i = 0; i < array_len(parts); i++)
        for (uint64_t at = parts[i].off; at < parts[i].off + parts[i].len; at++) {
            x = x * 1103515245 + 12345;
            fmt_disk[at] = parts[i].noise ? (uint8_t)(x >> 16) : (uint8_t)('a' + at % 7);
        }
}

bool fmt_is_zero(const uint8_t *p, size_t n)
{
    return !p[0] && !memcmp(p, p + 1, n - 1);
}

int fmt_setup(void **s)
{
    cleanup_fd int fd = -1;

    (void)s;
    /* In memory, where there is such a place: no test waits for a disk. */
    strcpy(home, access("/dev/shm", W_OK) ? "/tmp/bothy-formats-XXXXXX" : "/dev/shm/bothy-formats-XXXXXX");
    if (!mkdtemp(home) || chdir(home))
        return -1;
    fill();
    fd = open("src.raw", O_CREAT | O_RDWR, 0600);
    if (fd < 0 || ftruncate(fd, FMT_SIZE))
        return -1;
    for (uint64_t at = 0; at < FMT_SIZE; at += 512)
        if (!fmt_is_zero(fmt_disk + at, 512) && pwrite(fd, fmt_disk + at, 512, (off_t)at) != 512)
            return -1;
    return 0;
}

int fmt_teardown(void **s)
{
    (void)s;
    free(fmt_disk);
    return chdir("/") || fmt_run("rm -r %s", home);
}

void fmt_need_judge(void)
{
    if (fmt_run("command -v qemu-img"))
        skip();
}

struct blk *fmt_open(const char *path, const struct blk_open_opts *o)
{
    struct blk *b;
    struct err err;

    if (blk_open(path, o, NULL, NULL, &b, &err))
        fail_msg("%s", err.msg);
    return b;
}

void fmt_names_backing(const char *path, const char *want)
{
    struct blk *b = fmt_open(path, &fmt_reading);
    json_t *j = b->drv->info(b);

    assert_string_equal(json_string_value(json_object_get(j, "backing-filename")), want);
    json_decref(j);
    blk_close(b);
}

void fmt_refused(const char *path, const struct blk_open_opts *o, const char *word)
{
    struct blk *b;
    struct err err;

    if (!blk_open(path, o, NULL, NULL, &b, &err))
        fail_msg("%s was opened", path);
    if (!strstr(err.msg, word))
        fail_msg("\"%s\" lacks \"%s\"", err.msg, word);
}

const struct blk_open_opts fmt_reading = {.read_only = true};

/* All of it in large pieces, then odd ones; and what status says of it. */
void fmt_reads_as_the_disk(const char *path, uint64_t size)
{
    struct blk *b = fmt_open(path, &fmt_reading);
    cleanup_free uint8_t *buf = xcalloc(1, MiB(1));
    struct blk_status st;

    assert_int_equal(b->lim.size, size);
    assert_true(b->lim.read_only);
    for (uint64_t at = 0, n; at < size; at += n) {
        n = min_u64(MiB(1), size - at);
        assert_int_equal(blk_pread(b, buf, n, at), 0);
        if (at < FMT_SIZE)
            assert_memory_equal(buf, fmt_disk + at, min_u64(n, FMT_SIZE - at));
    }
    for (uint64_t at = 100; at + 70001 < FMT_SIZE; at += 1234567) {
        assert_int_equal(blk_pread(b, buf, 70001, at), 0);
        assert_memory_equal(buf, fmt_disk + at, 70001);
    }
    for (uint64_t at = 0; at < size; at += st.len) {
        assert_int_equal(b->drv->status(b, at, size - at, &st), 0);
        assert_in_range(st.len, 1, size - at);
        if (st.place != BLK_AT && !(st.place == BLK_BACKING && b->backing) && at < FMT_SIZE)
            assert_true(fmt_is_zero(fmt_disk + at, min_u64(st.len, FMT_SIZE - at)));
        if (st.has_off) {
            assert_int_equal(blk_pread(b->file, buf, 512, st.off), 0);
            assert_memory_equal(buf, fmt_disk + at, min_u64(512, size - at));
        }
    }
    assert_int_equal(blk_pwrite(b, buf, 512, 0), -EROFS);
    json_decref(b->drv->info(b));
    blk_close(b);
}

const struct fmt_made fmt_made[FMT_MADE] = {
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

struct blk *fmt_make(const struct fmt_made *m, uint64_t size)
{
    const struct blk_driver *d = blk_driver_find(m->driver);
    cleanup_free void *opts = xcalloc(1, d->create_size);
    struct blk *file = NULL;
    struct err err;

    opts_default(d->create_opts, opts);
    if (opts_parse(d->create_opts, opts, NULL, m->options, &err) || blk_create_file(m->path, true, &file, &err) ||
        d->create(file, size, opts, NULL, &err))
        fail_msg("%s", err.msg);
    opts_clear(d->create_opts, opts);
    blk_close(file);
    return fmt_open(m->path, &(struct blk_open_opts){.format = m->driver, .fresh = true, .cache = BLK_CACHE_UNSAFE});
}

struct writer {
    struct blk *b;
    unsigned first, step;
    int ret;
};

static void *write_some(void *arg)
{
    struct writer *w = arg;

    for (uint64_t at = (uint64_t)w->first * FMT_CHUNK; at < FMT_SIZE && !w->ret; at += (uint64_t)w->step * FMT_CHUNK) {
        uint64_t n = min_u64(FMT_CHUNK, FMT_SIZE - at);

        if (!fmt_is_zero(fmt_disk + at, n))
            w->ret = blk_pwrite(w->b, fmt_disk + at, n, at);
    }
    return NULL;
}

/* From two threads, so in no order. */
void fmt_write_disk(struct blk *b)
{
    struct writer w[2] = {{.b = b, .first = 0, .step = 2}, {.b = b, .first = 1, .step = 2}};
    pthread_t other;

    assert_int_equal(pthread_create(&other, NULL, write_some, &w[1]), 0);
    write_some(&w[0]);
    pthread_join(other, NULL);
    assert_int_equal(w[0].ret | w[1].ret, 0);
    assert_int_equal(blk_flush(b), 0);
}

void fmt_put(const char *path, uint64_t off, const void *p, size_t n)
{
    cleanup_fd int fd = open(path, O_CREAT | O_WRONLY, 0600);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, p, n, (off_t)off), n);
}

void fmt_get(const char *path, uint64_t off, void *p, size_t n)
{
    cleanup_fd int fd = open(path, O_RDONLY);

    assert_int_equal(pread(fd, p, n, (off_t)off), n);
}

uint64_t fmt_size_of(const char *path)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_size;
}
