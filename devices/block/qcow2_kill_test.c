/*
 * The qcow2 engine and SIGKILL: a child writes to an image and is killed, at each change of its file in turn, or at any
 * moment.  Then the image opens, a check finds nothing corrupt, and what was flushed is there.
 *
 * What the child does, and what each sector may therefore be, it notes in memory that it shares with its parent.  A
 * write fills its sectors with a stamp that is never used twice.  BOTHY_TEST_FACTOR=N: so many times as many kills.
 */
#include "devices/block/qcow2.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "devices/block/qcow2_int.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"

enum {
    SECTOR = 512,
    SECTORS = 512, /* of the disk at its largest */
    RUN_MAX = 64,  /* sectors of one operation */
    LATER_MAX = 32,
    SNAPSHOTS = 2,
    THREADS_MAX = 8,
    SEQUENCE = 24, /* operations of a child that is killed at each change */
    JUDGED = 16,   /* one image of so many is shown to qemu-img */
};

static const struct shape {
    const char *options;
    bool based, snapshots;
    bool no_dirty_bit; /* version 2 cannot say that flags may be wrong after a snapshot */
} shapes[] = {
    {"cluster_size=4K", false, true},
    {"cluster_size=512", false, true},
    {"cluster_size=64K,extended_l2=on", false, true},
    {"cluster_size=4K,compat=0.10", false, false},
    {"cluster_size=4K,compat=0.10", false, true, true},
    {"cluster_size=512,refcount_bits=64,lazy_refcounts=on", false, true},
    {"cluster_size=4K,refcount_bits=1,backing_file=base,backing_fmt=raw", true, false},
    {"cluster_size=16K,extended_l2=on,backing_file=base,backing_fmt=raw", true, true},
};

/* What a sector may be: what it was at the last flush, or what was done to it since. */
struct sector {
    uint64_t flushed, now, later[LATER_MAX];
    atomic_uint n; /* of `later`; raised when that is written */
};

struct snapshot {
    enum { GONE, PERHAPS, THERE } state; /* PERHAPS: being made or deleted */
    uint64_t size, stamps[SECTORS];
};

/* Shared with the child, which may end anywhere. */
static struct notes {
    uint64_t size, next_size; /* sectors; next_size: when a resize is under way, else the same */
    struct sector sectors[SECTORS];
    struct snapshot snaps[SNAPSHOTS];
    atomic_uint done;   /* operations */
    atomic_ulong stamp; /* the last one */
} * notes;

struct worker {
    pthread_t thread;
    struct blk *b;
    uint64_t rng;
    unsigned index, count; /* every count-th run of RUN_MAX / count sectors is ours */
    bool alone;            /* snapshots and resizes may be done, too */
};

static uint64_t next_random(uint64_t *rng)
{
    *rng ^= *rng << 13;
    *rng ^= *rng >> 7;
    *rng ^= *rng << 17;
    return *rng;
}

/* ---- The child. ---- */

static void must(int rc, const char *what)
{
    if (!rc)
        return;
    fprintf(stderr, "# %s: %s\n", what, strerror(-rc));
    _exit(1);
}

static void note(uint64_t first, uint64_t n, uint64_t stamp)
{
    for (uint64_t i = first; i < first + n; i++) {
        struct sector *s = &notes->sectors[i];

        s->later[s->n] = stamp;
        s->n++;
    }
}

static void note_flushed(const struct worker *w)
{
    unsigned run = RUN_MAX / w->count;

    for (uint64_t i = 0; i < SECTORS; i++) {
        struct sector *s = &notes->sectors[i];

        if (i / run % w->count != w->index)
            continue;
        s->flushed = s->now;
        s->n = 0;
    }
}

static void flush(struct worker *w)
{
    must(blk_flush(w->b), "flush");
    note_flushed(w);
}

/* A write, a zero or a discard of some sectors. */
static void change(struct worker *w, enum blk_op op)
{
    unsigned run = RUN_MAX / w->count;
    uint64_t n = 1 + next_random(&w->rng) % run, first, stamp = 0;
    _Alignas(SECTOR) uint64_t buf[RUN_MAX * SECTOR / 8]; /* the kernel may stop where a page of it ends */
    struct iovec iov = {buf, n * SECTOR};
    struct blk_io io = {.op = op, .len = n * SECTOR, .unmap = true, .iov = &iov, .niov = 1};

    first = (next_random(&w->rng) % (SECTORS / RUN_MAX) * w->count + w->index) * run;
    first += next_random(&w->rng) % (run - n + 1);
    for (uint64_t i = first; i < first + n; i++)
        if (notes->sectors[i].n == LATER_MAX) {
            flush(w);
            break;
        }
    if (first + n > notes->size)
        return;
    if (op == BLK_WRITE)
        stamp = ++notes->stamp;
    for (uint64_t i = 0; i < n * SECTOR / 8; i++)
        buf[i] = stamp;
    note(first, n, stamp);
    io.off = first * SECTOR;
    must(blk_rw(w->b, &io), "change");
    for (uint64_t i = first; i < first + n; i++) {
        /* A discard may leave what was there. */
        if (op == BLK_DISCARD)
            must(blk_pread(w->b, &stamp, sizeof(stamp), i * SECTOR), "read");
        notes->sectors[i].now = stamp;
    }
}

/* Where it is cut off, what is below may show before it is gone. */
static void resize(struct worker *w, const struct shape *shape)
{
    uint64_t size = SECTORS / 2 + next_random(&w->rng) % (SECTORS / 2) + 1, was = notes->size;
    struct err err;

    flush(w);
    notes->next_size = size;
    for (uint64_t i = size; i < was; i++) {
        note(i, 1, 0);
        note(i, 1, shape->based ? ~i : 0);
        notes->sectors[i].now = 0;
    }
    must(w->b->drv->resize(w->b, size * SECTOR, &err), "resize");
    notes->size = size;
}

static void snapshot(struct worker *w)
{
    unsigned i = next_random(&w->rng) % SNAPSHOTS;
    struct snapshot *s = &notes->snaps[i];
    const char *name = i ? "one" : "zero";
    struct err err;

    if (s->state == GONE) {
        s->size = notes->size;
        for (uint64_t k = 0; k < SECTORS; k++)
            s->stamps[k] = notes->sectors[k].now;
        s->state = PERHAPS;
        must(qcow2_snapshot_create(w->b, name, &err), "snapshot_create");
        s->state = THERE;
        note_flushed(w);
    } else if (next_random(&w->rng) % 2) {
        s->state = PERHAPS;
        must(qcow2_snapshot_delete(w->b, name, &err), "snapshot_delete");
        s->state = GONE;
    } else {
        flush(w);
        notes->next_size = s->size;
        for (uint64_t k = 0; k < SECTORS; k++)
            note(k, 1, s->stamps[k]);
        must(qcow2_snapshot_apply(w->b, name, &err), "snapshot_apply");
        notes->size = s->size;
        for (uint64_t k = 0; k < SECTORS; k++)
            notes->sectors[k].now = s->stamps[k];
        note_flushed(w);
    }
}

static void one_op(struct worker *w, const struct shape *shape)
{
    unsigned what = next_random(&w->rng) % 16;

    if (what < 8)
        change(w, BLK_WRITE);
    else if (what < 10)
        change(w, BLK_ZERO);
    else if (what < 11)
        change(w, BLK_DISCARD);
    else if (what < 14 || !w->alone)
        flush(w);
    else if (what < 15 || !shape->snapshots)
        resize(w, shape);
    else
        snapshot(w);
    notes->done++;
}

static struct blk *open_disk(char *filter, const char *options, bool read_only)
{
    struct opt_list below = {.v = &filter, .n = 1};
    const struct blk_open_opts o = {.options = options,
                                    .read_only = read_only,
                                    .cache = BLK_CACHE_UNSAFE, /* the host lives on */
                                    .file_filters = filter ? &below : NULL};
    struct err err = {0};
    struct blk *b;

    if (!blk_open("disk.qcow2", &o, NULL, NULL, &b, &err))
        return b;
    fprintf(stderr, "# %s\n", err.msg);
    return NULL;
}

/* A sequence of operations, always the same, which ends at the `at`-th change of the file; that one is torn. */
static void killed_at(const struct shape *shape, uint64_t seed, unsigned at)
{
    struct worker w = {.rng = seed, .count = 1, .alone = true};
    char filter[80];

    snprintf(filter, sizeof(filter), "fault:op=change:at=%u:part=%u:do=kill", at, at % 3 * SECTOR);
    w.b = open_disk(filter, "", false);
    must(w.b ? 0 : -EIO, "open");
    for (unsigned i = 0; i < SEQUENCE; i++)
        one_op(&w, shape);
    blk_close(w.b);
    note_flushed(&w);
    _exit(0);
}

static void *write_on(void *arg)
{
    for (;;)
        one_op(arg, NULL);
    return NULL;
}

/* Several threads until the end, which somebody else brings. */
static void killed_later(uint64_t seed, unsigned threads)
{
    struct worker w[THREADS_MAX];
    struct blk *b = open_disk(NULL, "", false);

    must(b ? 0 : -EIO, "open");
    for (unsigned i = 0; i < threads; i++) {
        w[i] = (struct worker){.b = b, .rng = seed + i * 1000003, .index = i, .count = threads};
        must(-pthread_create(&w[i].thread, NULL, write_on, &w[i]), "pthread_create");
    }
    for (;;)
        pause();
}

/* ---- The parent. ---- */

static void check(struct blk *b)
{
    struct blk_check found;
    struct err err;

    if (b->drv->check(b, BLK_FIX_NONE, &found, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(found.failures, 0);
    assert_int_equal(found.corruptions, 0);
}

static bool is_dirty(void)
{
    cleanup_fd int fd = open("disk.qcow2", O_RDONLY | O_CLOEXEC);
    uint8_t head[80];

    assert_int_equal(pread(fd, head, sizeof(head), 0), sizeof(head));
    return get_be32(head + 4) >= 3 && get_be64(head + 72) & QCOW2_IN_DIRTY;
}

static void read_stamps(struct blk *b, uint64_t *ret)
{
    static uint64_t buf[SECTORS * SECTOR / 8];

    memset(buf, 0, sizeof(buf));
    assert_int_equal(blk_pread(b, buf, b->lim.size, 0), 0);
    for (unsigned i = 0; i < SECTORS; i++) {
        ret[i] = buf[i * SECTOR / 8];
        for (unsigned k = 1; k < SECTOR / 8; k++)
            assert_int_equal(buf[i * SECTOR / 8 + k], ret[i]);
    }
}

static void expect_snapshots(struct blk *b)
{
    for (unsigned i = 0; i < SNAPSHOTS; i++) {
        struct snapshot *s = &notes->snaps[i];
        const char *name = i ? "one" : "zero";
        bool is = qcow2_snapshot_find(b, name);
        uint64_t stamps[SECTORS];
        struct blk *old;

        assert_false(is && s->state == GONE);
        assert_false(!is && s->state == THERE);
        if (!is)
            continue;
        old = open_disk(NULL, i ? "snapshot-name=one" : "snapshot-name=zero", true);
        assert_non_null(old);
        assert_int_equal(old->lim.size, s->size * SECTOR);
        read_stamps(old, stamps);
        assert_memory_equal(stamps, s->stamps, sizeof(stamps));
        blk_close(old);
    }
}

/* Flags that are wrong lose nothing, whatever is written then, and a check mends them. */
static void expect_mended(void)
{
    struct blk *b = open_disk(NULL, "", false);
    uint64_t stamps[SECTORS], buf[SECTOR / 8];
    struct blk_check found;
    struct err err;

    assert_non_null(b);
    for (uint64_t i = 0; i < notes->size; i++) {
        for (unsigned k = 0; k < SECTOR / 8; k++)
            buf[k] = i + 1;
        assert_int_equal(blk_pwrite(b, buf, SECTOR, i * SECTOR), 0);
        notes->sectors[i].flushed = notes->sectors[i].now = i + 1;
    }
    assert_int_equal(blk_flush(b), 0);
    assert_int_equal(b->drv->check(b, BLK_FIX_ALL, &found, &err), 0);
    assert_int_equal(found.corruptions_fixed, found.corruptions);
    check(b);
    read_stamps(b, stamps);
    for (uint64_t i = 0; i < notes->size; i++)
        assert_int_equal(stamps[i], notes->sectors[i].now);
    blk_close(b);
    b = open_disk(NULL, "", true);
    expect_snapshots(b);
    blk_close(b);
}

/* What is there now is what a child may find. */
static void expect_survival(const struct shape *shape)
{
    bool flags = shape->snapshots && shape->no_dirty_bit;
    uint64_t stamps[SECTORS];
    struct blk *b;

    if (!flags && !is_dirty()) {
        b = open_disk(NULL, "repair", true);
        assert_non_null(b);
        check(b);
        blk_close(b);
    }
    b = open_disk(NULL, "", false);
    assert_non_null(b);
    if (!flags)
        check(b);
    if (b->lim.size != notes->size * SECTOR)
        assert_int_equal(b->lim.size, notes->next_size * SECTOR);
    notes->size = notes->next_size = b->lim.size / SECTOR;
    read_stamps(b, stamps);
    for (unsigned i = 0; i < SECTORS; i++) {
        struct sector *s = &notes->sectors[i];
        bool fine = stamps[i] == s->flushed;

        for (unsigned k = 0; k < s->n && !fine; k++)
            fine = stamps[i] == s->later[k];
        if (!fine)
            fail_msg("sector %u is %lx; it was %lx when it was flushed", i, (unsigned long)stamps[i],
                     (unsigned long)s->flushed);
        s->flushed = s->now = stamps[i];
        s->n = 0;
    }
    blk_close(b);
    b = open_disk(NULL, "", true);
    expect_snapshots(b);
    blk_close(b);
    if (flags)
        expect_mended();
}

/* What qemu-img says: whole but for leaks. */
static void judge(void)
{
    if (system(
            "command -v qemu-img >/dev/null || exit 0; qemu-img check -q disk.qcow2 >log 2>&1; [ $? = 0 -o $? = 3 ]"))
        fail_msg("qemu-img check finds damages");
}

static struct {
    uint8_t bytes[MiB(1)];
    size_t n;
} fresh; /* the image when it was made */

static void file_is(const char *name, const void *data, size_t n)
{
    cleanup_fd int fd = -1;

    unlink(name); /* file systems wait for what is still on its way to a file that is emptied */
    fd = open(name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, data, n), n);
}

static void make_disk(const struct shape *shape)
{
    static uint64_t base[SECTORS * SECTOR / 8];
    cleanup_free struct qcow2_create *c = xcalloc(1, sizeof(*c));
    cleanup_fd int fd = -1;
    struct blk *file = NULL;
    struct err err;

    for (uint64_t i = 0; i < array_len(base); i++)
        base[i] = ~(i * 8 / SECTOR);
    file_is("base", base, sizeof(base));
    opts_default(qcow2_driver.create_opts, c);
    if (opts_parse(qcow2_driver.create_opts, c, NULL, shape->options, &err) ||
        blk_create_file("disk.qcow2", true, &file, &err) ||
        qcow2_driver.create(file, (uint64_t)SECTORS * SECTOR, c, NULL, &err))
        fail_msg("%s", err.msg);
    opts_clear(qcow2_driver.create_opts, c);
    blk_close(file);
    fd = open("disk.qcow2", O_RDONLY | O_CLOEXEC);
    fresh.n = (size_t)read(fd, fresh.bytes, sizeof(fresh.bytes));
    assert_in_range(fresh.n, 1, sizeof(fresh.bytes) - 1);
}

static void begin_anew(const struct shape *shape)
{
    file_is("disk.qcow2", fresh.bytes, fresh.n);
    memset(notes, 0, sizeof(*notes));
    notes->size = notes->next_size = SECTORS;
    notes->stamp = 1ul << 32;
    for (uint64_t i = 0; i < SECTORS && shape->based; i++)
        notes->sectors[i].now = notes->sectors[i].flushed = ~i;
}

/* False: it came to its end. */
static bool was_killed(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return true;
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return false;
}

static void killed_at_each_change_of_the_file(void **s)
{
    unsigned kills = 0;

    (void)s;
    for (size_t i = 0; i < array_len(shapes) * test_factor(); i++) {
        const struct shape *shape = &shapes[i % array_len(shapes)];
        bool killed = true;

        make_disk(shape);
        for (unsigned at = 1; killed; at++) {
            pid_t pid;

            begin_anew(shape);
            pid = fork();
            if (!pid)
                killed_at(shape, 0x2545f4914f6cdd1d + i, at);
            killed = was_killed(pid);
            expect_survival(shape);
            if (at % JUDGED == 0)
                judge();
            kills += killed;
        }
        assert_int_equal(notes->done, SEQUENCE);
    }
    print_message("# %u kills at changes of the file\n", kills);
}

/* One image through many lives. */
static void killed_at_any_moment(void **s)
{
    uint64_t rng = 0x9e3779b97f4a7c15;
    unsigned kills = 0;

    (void)s;
    for (size_t i = 0; i < array_len(shapes); i++) {
        make_disk(&shapes[i]);
        begin_anew(&shapes[i]);
        for (unsigned life = 0; life < 6 * test_factor(); life++, kills++) {
            unsigned until = notes->done + 1 + next_random(&rng) % 100;
            uint64_t seed = next_random(&rng);
            unsigned threads = 1u << next_random(&rng) % 4;
            pid_t pid = fork();

            if (!pid)
                killed_later(seed, threads);
            while (notes->done < until && !waitpid(pid, NULL, WNOHANG))
                usleep(100);
            kill(pid, SIGKILL);
            assert_true(was_killed(pid));
            expect_survival(&shapes[i]);
            if (life % JUDGED == 0)
                judge();
        }
    }
    print_message("# %u kills at any moment\n", kills);
}

static char home[64];

static int setup(void **s)
{
    (void)s;
    strcpy(home, "/tmp/qcow2-test-XXXXXX");
    notes = mmap(NULL, sizeof(*notes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return notes == MAP_FAILED || !mkdtemp(home) || chdir(home);
}

static int teardown(void **s)
{
    static const char *const files[] = {"disk.qcow2", "base", "log"};

    (void)s;
    for (size_t i = 0; i < array_len(files); i++)
        unlink(files[i]);
    return munmap(notes, sizeof(*notes)) || chdir("/") || rmdir(home);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_at_each_change_of_the_file),
        cmocka_unit_test(killed_at_any_moment),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
