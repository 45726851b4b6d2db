/*
 * Whole trees, driven from a lane as a disk's queues do it: many requests at once, some of them straight to the file's
 * ring, some by workers, against a model.
 *
 * Each slot has one request under way, and chunks of the disk to itself which are no clusters, so that slots meet in
 * clusters and metadata, but the model knows every sector: a stamp that is never used twice, zero, or anything at all.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "devices/block/driver.h"
#include "devices/block/key.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"

enum { SLOTS = 32, CHUNK = 24, SECTORS = 8192, SECTOR = 512, OPS = 40, ANY = -1 };

static const struct tree {
    const char *options; /* of the qcow2 image; NULL: a raw disk */
    char *filter, *file_filter;
    bool based, snapshot, workers, direct;
    bool fails; /* at times, so that requests are tried again */
} trees[] = {
    {.options = NULL},
    {.options = NULL, .workers = true},
    {.options = "cluster_size=64K"},
    {.options = "cluster_size=64K", .workers = true},
    {.options = "cluster_size=64K", .direct = true},
    {.options = "cluster_size=512"},
    {.options = "cluster_size=64K,extended_l2=on"},
    {.options = "cluster_size=4K,lazy_refcounts=on"},
    {.options = "cluster_size=16K,backing_file=base,backing_fmt=raw", .based = true},
    {.options = NULL, .snapshot = true, .based = true},
    {.options = "cluster_size=4K", .snapshot = true},
    {.options = "data_file=data"},
    {.options = "data_file=data,data_file_raw=on"},
    {.options = "data_file=data,extended_l2=on", .direct = true},
    {.options = "cluster_size=64K", .filter = "throttle:iops=100000:bps=10G:burst=0"},
    {.options = "cluster_size=64K", .file_filter = "fault:at=100000000"},
    {.options = "cluster_size=64K", .filter = "log:file=log"},
    {.options = NULL, .file_filter = "fault:at=20:times=100", .fails = true},
    {.options = "cluster_size=4K", .filter = "fault:at=20:times=100", .fails = true},
    {.options = "cluster_size=4K", .file_filter = "fault:at=300:times=100:do=enospc", .fails = true},
    {.options = "cluster_size=512", .file_filter = "fault:op=write:at=500:times=50:part=512", .fails = true},
    {.options = "cluster_size=16K,encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=1"},
};

struct slot {
    struct blk_req r;
    struct iovec iov[3];
    enum blk_op op;
    unsigned index, left;
    unsigned first, count; /* sectors */
    int32_t data[CHUNK * SECTOR / 4];
};

static char home[64];
static struct loop *loop;
static struct lane lane;
static struct blk *disk;
static struct slot slots[SLOTS];
static int32_t model[SECTORS], stamp;
static uint64_t rng;
static bool may_fail;
static unsigned failures;
static const struct blk_keys keys = {.v = {{.id = (char *)"key", .data = (uint8_t *)"x", .len = 1}}, .n = 1};

static unsigned pick(unsigned n)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (unsigned)(rng % n);
}

static void next(struct slot *s);

static void done(struct blk_req *r, int ret)
{
    struct slot *s = container_of(r, struct slot, r);

    if (ret && may_fail) {
        failures++;
        blk_retry(r);
        blk_kick(disk);
        return;
    }
    if (ret)
        fail_msg("%s of sector %u: %s", s->op == BLK_READ ? "read" : "change", s->first, strerror(-ret));
    for (unsigned i = 0; i < s->count && s->op == BLK_READ; i++) {
        int32_t want = model[s->first + i];

        for (unsigned w = 0; w < SECTOR / 4 && want != ANY; w++)
            assert_int_equal(s->data[i * SECTOR / 4 + w], want);
    }
    if (--s->left)
        next(s);
}

static void expect(struct slot *s, int32_t value)
{
    for (unsigned i = 0; i < s->count; i++)
        model[s->first + i] = value;
}

/* The data in up to three pieces. */
static void scatter(struct slot *s)
{
    size_t len = s->count * SECTOR, cut = pick(2) ? SECTOR / 2 : 4;

    s->iov[0] = (struct iovec){s->data, cut};
    s->iov[1] = (struct iovec){(char *)s->data + cut, SECTOR - cut};
    s->iov[2] = (struct iovec){(char *)s->data + SECTOR, len - SECTOR};
}

static void next(struct slot *s)
{
    static const enum blk_op ops[] = {BLK_WRITE, BLK_WRITE, BLK_WRITE, BLK_READ,
                                      BLK_READ,  BLK_ZERO,  BLK_FLUSH, BLK_DISCARD};
    unsigned chunk = s->index + SLOTS * pick(SECTORS / CHUNK / SLOTS);

    s->op = ops[pick(array_len(ops))];
    s->first = chunk * CHUNK + pick(CHUNK);
    s->count = s->op == BLK_FLUSH ? 0 : 1 + pick((chunk + 1) * CHUNK - s->first);
    s->r = (struct blk_req){.io = {.op = s->op,
                                   .unmap = pick(2),
                                   .off = (uint64_t)s->first * SECTOR,
                                   .len = (uint64_t)s->count * SECTOR,
                                   .iov = s->iov,
                                   .niov = s->count > 1 ? 3 : 2},
                            .done = done};
    if (s->op == BLK_WRITE) {
        expect(s, ++stamp);
        for (unsigned i = 0; i < s->count * SECTOR / 4; i++)
            s->data[i] = stamp;
    } else if (s->op == BLK_ZERO) {
        expect(s, 0);
    } else if (s->op == BLK_DISCARD) {
        expect(s, ANY);
    }
    if (s->op == BLK_READ || s->op == BLK_WRITE)
        scatter(s);
    blk_submit(disk, &s->r);
    blk_kick(disk);
}

static void make_base(const char *path)
{
    cleanup_fd int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);

    for (unsigned i = 0; i < SECTORS; i++) {
        int32_t sector[SECTOR / 4];

        for (unsigned w = 0; w < SECTOR / 4; w++)
            sector[w] = 1000000 + (int32_t)i;
        assert_int_equal(write(fd, sector, SECTOR), SECTOR);
        model[i] = 1000000 + (int32_t)i;
    }
}

static void make_qcow2(const char *path, const char *options)
{
    const struct blk_driver *d = blk_driver_find("qcow2");
    cleanup_free void *opts = xcalloc(1, d->create_size);
    struct blk *file = NULL;
    struct err err;

    opts_default(d->create_opts, opts);
    if (opts_parse(d->create_opts, opts, NULL, options, &err) || blk_create_file(path, true, &file, &err) ||
        d->create(file, SECTORS * SECTOR, opts, &keys, &err))
        fail_msg("%s", err.msg);
    blk_close(file);
    opts_clear(d->create_opts, opts);
}

static void open_tree(const struct tree *t, const char *path, bool filters)
{
    struct opt_list above = {.v = (char **)&t->filter, .n = 1}, below = {.v = (char **)&t->file_filter, .n = 1};
    struct blk_open_opts o = {.keys = &keys,
                              .filters = filters && t->filter ? &above : NULL,
                              .file_filters = filters && t->file_filter ? &below : NULL,
                              .snapshot = t->snapshot,
                              .workers = t->workers,
                              .cache = t->direct ? BLK_CACHE_NONE : BLK_CACHE_UNSAFE};
    struct err err;
    int rc = blk_open(path, &o, &lane, NULL, &disk, &err);

    if (rc && t->direct) { /* the file system does not know O_DIRECT */
        o.cache = BLK_CACHE_UNSAFE;
        rc = blk_open(path, &o, &lane, NULL, &disk, &err);
    }
    if (rc)
        fail_msg("%s", err.msg);
}

static void compare_all(void)
{
    static int32_t got[SECTORS][SECTOR / 4];

    assert_int_equal(blk_pread(disk, got, sizeof(got), 0), 0);
    for (unsigned i = 0; i < SECTORS; i++)
        for (unsigned w = 0; w < SECTOR / 4 && model[i] != ANY; w++)
            if (got[i][w] != model[i])
                fail_msg("sector %u word %u: %d, not %d", i, w, got[i][w], model[i]);
}

static void check_image(void)
{
    struct blk_check sum = {0};
    struct err err;

    if (!disk->drv->check)
        return;
    if (disk->drv->check(disk, BLK_FIX_NONE, &sum, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(sum.corruptions, 0);
    assert_true(!sum.leaks || may_fail); /* of what was allocated for a write that failed then */
}

static void run(const struct tree *t)
{
    const char *path = t->options ? "disk.qcow2" : "disk.raw";

    memset(model, 0, sizeof(model));
    may_fail = t->fails;
    failures = 0;
    unlink("log");
    unlink("data");
    if (t->based)
        make_base(t->options ? "base" : "disk.raw");
    if (t->options)
        make_qcow2(path, t->options);
    else if (!t->based)
        assert_int_equal(truncate("disk.raw", 0) | truncate("disk.raw", SECTORS * SECTOR), 0);
    open_tree(t, path, true);
    for (unsigned i = 0; i < SLOTS; i++) {
        slots[i].index = i;
        slots[i].left = OPS * test_factor();
        next(&slots[i]);
    }
    lane_drain(&lane);
    for (unsigned i = 0; i < SLOTS; i++)
        assert_int_equal(slots[i].left, 0);
    assert_int_equal(failures > 0, t->fails);
    compare_all();
    blk_close(disk);
    if (t->snapshot)
        return;
    open_tree(t, path, false);
    compare_all();
    check_image();
    blk_close(disk);
}

static void trees_keep_what_a_lane_writes(void **s)
{
    (void)s;
    for (size_t i = 0; i < array_len(trees); i++)
        run(&trees[i]);
}

static int setup(void **s)
{
    struct err err;
    int fd;

    (void)s;
    strcpy(home, "/tmp/bothy-lane-XXXXXX");
    if (!mkdtemp(home) || chdir(home) || loop_create("test", &loop, &err))
        return -1;
    fd = open("disk.raw", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    close(fd);
    lane_init(&lane, loop);
    lane_lock(&lane);
    rng = 88172645463325252;
    return fd < 0;
}

static int teardown(void **s)
{
    static const char *const files[] = {"disk.raw", "disk.qcow2", "base", "data", "log"};

    (void)s;
    lane_unlock(&lane);
    lane_fini(&lane);
    loop_destroy(loop);
    for (size_t i = 0; i < array_len(files); i++)
        unlink(files[i]);
    return chdir("/") || rmdir(home);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(trees_keep_what_a_lane_writes, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
