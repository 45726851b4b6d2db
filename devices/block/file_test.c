#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "devices/block/file.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"

/* Disks are memfds, opened by their name in /proc. */
struct disk {
    int fd;
    char path[64];
    struct blk *b;
    struct loop *loop;
    struct lane lane;
};

struct io {
    struct blk_req r;
    int ret;
    bool answered;
};

static const struct engine {
    bool memory; /* the file is on tmpfs */
    struct blk_open_opts opts;
} engines[] = {{.memory = false}, {.memory = true}, {.memory = true, .opts.workers = true}};

static void done(struct blk_req *r, int ret)
{
    struct io *io = container_of(r, struct io, r);

    io->ret = ret;
    io->answered = true;
}

static void make_for(struct disk *d, uint64_t size, const struct engine *e)
{
    struct err err;

    *d = (struct disk){.fd = e->memory ? memfd_create("disk", MFD_CLOEXEC)
                                       : open("/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600)};
    assert_true(d->fd >= 0);
    assert_int_equal(ftruncate(d->fd, (off_t)size), 0);
    snprintf(d->path, sizeof(d->path), "/proc/self/fd/%d", d->fd);
    if (loop_create("test", &d->loop, &err))
        fail_msg("%s", err.msg);
    lane_init(&d->lane, d->loop);
    lane_lock(&d->lane);
}

static void make(struct disk *d, uint64_t size)
{
    make_for(d, size, &(struct engine){.memory = true});
}

static void open_disk(struct disk *d, const struct blk_open_opts *o)
{
    struct err err;

    if (blk_open(d->path, o, &d->lane, NULL, &d->b, &err))
        fail_msg("%s", err.msg);
}

static void unmake(struct disk *d)
{
    blk_close(d->b);
    lane_unlock(&d->lane);
    lane_fini(&d->lane);
    loop_destroy(d->loop);
    close(d->fd);
}

/* Runs one request over `niov` equal pieces of `buf`; its result. */
static int run(struct disk *d, enum blk_op op, uint64_t off, void *buf, size_t len, unsigned niov)
{
    struct iovec iov[8];
    struct io io = {.r = {.io = {.op = op, .off = off, .len = len, .iov = iov, .niov = niov}, .done = done}};

    for (unsigned i = 0; i < niov; i++)
        iov[i] = (struct iovec){(char *)buf + i * (len / niov), len / niov};
    blk_submit(d->b, &io.r);
    assert_false(io.answered);
    blk_kick(d->b);
    lane_drain(&d->lane);
    assert_true(io.answered);
    return io.ret;
}

static void data_goes_out_and_comes_back(void **s)
{
    static char out[8192], in[8192], got[8192];

    (void)s;
    for (size_t i = 0; i < sizeof(out); i++)
        out[i] = (char)(i * 7 + i / 256);
    for (size_t e = 0; e < array_len(engines); e++) {
        struct disk d;

        make_for(&d, MiB(1), &engines[e]);
        open_disk(&d, &engines[e].opts);
        assert_int_equal(d.b->lim.size, MiB(1));
        assert_int_equal(run(&d, BLK_WRITE, MiB(1) - 8192, out, sizeof(out), 4), 0);
        assert_int_equal(pread(d.fd, got, sizeof(got), MiB(1) - 8192), sizeof(got));
        assert_memory_equal(got, out, sizeof(out));
        assert_int_equal(run(&d, BLK_READ, MiB(1) - 8192, in, sizeof(in), 8), 0);
        assert_memory_equal(in, out, sizeof(out));
        assert_int_equal(run(&d, BLK_FLUSH, 0, NULL, 0, 0), 0);
        unmake(&d);
    }
}

static void more_requests_than_the_ring_holds(void **s)
{
    static struct io io[300];
    static struct iovec iov[300];
    static char sectors[300][512];

    (void)s;
    for (size_t e = 0; e < array_len(engines); e++) {
        struct disk d;
        char got[512];

        make_for(&d, 300 * 512, &engines[e]);
        open_disk(&d, &engines[e].opts);
        for (unsigned i = 0; i < 300; i++) {
            memset(sectors[i], (int)(i % 251 + e), 512);
            iov[i] = (struct iovec){sectors[i], 512};
            io[i] = (struct io){
                .r = {.io = {BLK_WRITE, .off = 512 * i, .len = 512, .iov = &iov[i], .niov = 1}, .done = done}};
            blk_submit(d.b, &io[i].r);
        }
        blk_kick(d.b);
        lane_drain(&d.lane);
        for (unsigned i = 0; i < 300; i++) {
            assert_true(io[i].answered);
            assert_int_equal(io[i].ret, 0);
            assert_int_equal(pread(d.fd, got, 512, 512 * i), 512);
            assert_memory_equal(got, sectors[i], 512);
        }
        unmake(&d);
    }
}

static void discard_and_zero_leave_zeroes(void **s)
{
    static const struct {
        enum blk_op op;
        bool unmap;
    } rows[] = {{BLK_DISCARD, false}, {BLK_ZERO, true}, {BLK_ZERO, false}};
    static char ones[MiB(1)], got[MiB(1)], zeroes[MiB(1)];

    (void)s;
    memset(ones, 1, sizeof(ones));
    for (size_t i = 0; i < array_len(rows); i++) {
        struct disk d;
        struct io io = {
            .r = {.io = {.op = rows[i].op, .unmap = rows[i].unmap, .off = 4096, .len = 512 << 10}, .done = done}};
        struct stat st;

        make(&d, MiB(1));
        open_disk(&d, &engines[0].opts);
        assert_int_equal(pwrite(d.fd, ones, sizeof(ones), 0), sizeof(ones));
        blk_submit(d.b, &io.r);
        lane_drain(&d.lane);
        assert_int_equal(io.ret, 0);
        assert_int_equal(pread(d.fd, got, sizeof(got), 0), sizeof(got));
        assert_memory_equal(got, ones, 4096);
        assert_memory_equal(got + 4096, zeroes, 512 << 10);
        assert_memory_equal(got + 4096 + (512 << 10), ones, MiB(1) - 4096 - (512 << 10));
        fstat(d.fd, &st);
        if (rows[i].op == BLK_DISCARD || rows[i].unmap)
            assert_true(st.st_blocks * 512 <= (512 << 10));
        unmake(&d);
    }
}

static void a_cut_last_sector_reads_zeroes_and_keeps_its_bytes(void **s)
{
    (void)s;
    for (size_t e = 0; e < array_len(engines); e++) {
        char buf[1024], zeroes[1024] = {0};
        struct disk d;

        make_for(&d, 0, &engines[e]);
        assert_int_equal(pwrite(d.fd, "end", 3, 512), 3);
        open_disk(&d, &engines[e].opts);
        assert_int_equal(d.b->lim.size, 1024);
        memset(buf, 0xff, sizeof(buf));
        assert_int_equal(run(&d, BLK_READ, 0, buf, sizeof(buf), 2), 0);
        assert_memory_equal(buf, zeroes, 512);
        assert_memory_equal(buf + 512, "end", 3);
        assert_memory_equal(buf + 515, zeroes, 509);
        unmake(&d);
    }
}

static void a_file_cut_short_behind_our_back_is_an_error(void **s)
{
    (void)s;
    for (size_t e = 0; e < array_len(engines); e++) {
        char buf[1024];
        struct disk d;

        make_for(&d, 4096, &engines[e]);
        open_disk(&d, &engines[e].opts);
        assert_int_equal(ftruncate(d.fd, 512), 0);
        assert_int_equal(run(&d, BLK_READ, 0, buf, sizeof(buf), 1), -EIO);
        unmake(&d);
    }
}

static void o_direct_takes_any_buffer(void **s)
{
    static const struct blk_open_opts direct = {.cache = BLK_CACHE_NONE};
    char *page = aligned_alloc(4096, 16384);
    char got[8192];
    struct disk d;
    struct err err;

    (void)s;
    make(&d, MiB(1));
    if (blk_open(d.path, &direct, &d.lane, NULL, &d.b, &err)) {
        assert_int_equal(err.code, EINVAL); /* memfds take O_DIRECT only on newer hosts */
        assert_non_null(strstr(err.msg, "cache=writeback"));
    } else {
        for (unsigned shift = 0; shift <= 3; shift += 3) {
            memset(page, 'a' + (int)shift, 16384);
            assert_int_equal(run(&d, BLK_WRITE, 4096, page + shift, 8192, 2), 0);
            assert_int_equal(pread(d.fd, got, 8192, 4096), 8192);
            assert_memory_equal(got, page + shift, 8192);
            memset(page, 0, 16384);
            assert_int_equal(run(&d, BLK_READ, 4096, page + shift, 8192, 2), 0);
            assert_memory_equal(got, page + shift, 8192);
        }
    }
    free(page);
    unmake(&d);
}

/* An image whose bytes lie at an odd place of its file. */
enum { ODD = 1000 };

static void odd_map(struct blk *b, const struct blk_io *io, struct blk_map *ret)
{
    (void)b;
    ret->place = BLK_AT;
    ret->off = io->off + ODD;
}

static const struct blk_driver odd_driver = {.name = "odd", .size = sizeof(struct blk), .map = odd_map};

static void o_direct_takes_any_place(void **s)
{
    static const struct blk_open_opts direct = {.cache = BLK_CACHE_NONE};
    char path[] = "/tmp/bothy-file-XXXXXX", got[ODD + 1024];
    char *page = aligned_alloc(4096, 4096);
    struct disk d;
    struct err err;
    int fd = mkstemp(path), rc;

    (void)s;
    memset(page, 'x', 4096);
    make(&d, 4096);
    assert_int_equal(ftruncate(fd, 4096), 0);
    d.b = blk_node(&odd_driver, path, &d.lane);
    d.b->lim = (struct blk_limits){.size = 2048, .align = 512};
    rc = file_open(path, path, &direct, 0, &d.lane, &d.b->file, &err);
    unlink(path);
    if (!rc) { /* else the file system does not know O_DIRECT */
        d.b->file->parent = d.b;
        assert_int_equal(run(&d, BLK_WRITE, 0, page, 1024, 2), 0);
        assert_int_equal(pread(fd, got, sizeof(got), 0), sizeof(got));
        assert_memory_equal(got + ODD, page, 1024);
        assert_int_equal(got[ODD - 1], 0);
        memset(page, 0, 1024);
        assert_int_equal(run(&d, BLK_READ, 0, page, 1024, 2), 0);
        assert_memory_equal(got + ODD, page, 1024);
    }
    close(fd);
    free(page);
    unmake(&d);
}

static void refusals_name_the_reason_and_the_remedy(void **s)
{
    static const struct {
        const char *path, *word, *remedy;
    } rows[] = {
        {"/nonexistent/disk", "No such file", "bothy img create"},
        {"/", "directory", "block device"},
        {"/dev/null", "/dev/null", "neither a file nor a block device"},
    };
    const struct blk_open_opts read_only = {.read_only = true};
    struct disk d;
    struct err err;

    (void)s;
    make(&d, 0);
    for (size_t i = 0; i < array_len(rows); i++) {
        assert_true(blk_open(rows[i].path, &engines[0].opts, &d.lane, NULL, &d.b, &err) < 0);
        assert_non_null(strstr(err.msg, rows[i].word));
        assert_non_null(strstr(err.msg, rows[i].remedy));
    }
    assert_int_equal(blk_open("/nonexistent/disk", &read_only, &d.lane, NULL, &d.b, &err), -ENOENT);
    assert_null(strstr(err.msg, "create"));
    assert_int_equal(blk_open("/", &read_only, &d.lane, NULL, &d.b, &err), -EINVAL);
    assert_int_equal(blk_open(d.path, &engines[0].opts, &d.lane, NULL, &d.b, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "is empty"));
    unmake(&d);
}

static void a_pipe_is_refused_and_never_waited_for(void **s)
{
    const struct blk_open_opts read_only = {.read_only = true};
    char path[64];
    struct disk d;
    struct err err;
    int fds[2];

    (void)s;
    make(&d, 0);
    assert_int_equal(pipe(fds), 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fds[0]);
    assert_int_equal(blk_open(path, &read_only, &d.lane, NULL, &d.b, &err), -EINVAL);
    close(fds[0]);
    close(fds[1]);
    unmake(&d);
}

static void a_second_writer_is_told_who_the_first_is(void **s)
{
    const struct blk_open_opts ro = {.read_only = true};
    struct blk *second;
    struct disk d;
    struct err err;
    char pid[32];

    (void)s;
    snprintf(pid, sizeof(pid), "process %d;", getpid());
    make(&d, 4096);
    open_disk(&d, &engines[0].opts);
    assert_int_equal(blk_open(d.path, &engines[0].opts, &d.lane, NULL, &second, &err), -EAGAIN);
    assert_non_null(strstr(err.msg, pid));
    assert_int_equal(blk_open(d.path, &ro, &d.lane, NULL, &second, &err), -EAGAIN);
    blk_close(d.b);
    open_disk(&d, &ro); /* the lock went with its holder, and readers share */
    if (blk_open(d.path, &ro, &d.lane, NULL, &second, &err))
        fail_msg("%s", err.msg);
    blk_close(second);
    assert_int_equal(blk_open(d.path, &engines[0].opts, &d.lane, NULL, &second, &err), -EAGAIN);
    unmake(&d);
}

/* Where the host's kernel does: else it says so, and nothing is wrong. */
static void the_host_copies_from_file_to_file(void **s)
{
    static char data[8192], got[8192];
    struct blk_io io = {.op = BLK_COPY, .off = 1000, .len = 5000, .from_off = 300};
    struct disk from, to;

    (void)s;
    memset(data, 'x', sizeof(data));
    make(&from, sizeof(data));
    make(&to, sizeof(data));
    assert_int_equal(pwrite(from.fd, data, sizeof(data), 0), sizeof(data));
    open_disk(&from, &(struct blk_open_opts){.read_only = true});
    open_disk(&to, &engines[0].opts);
    io.from = from.b;
    assert_int_equal(blk_rw(to.b, &io), -ENOTSUP); /* no leaf */
    io.from = from.b->file;
    assert_int_equal(blk_rw(from.b, &io), -EROFS);
    if (!blk_rw(to.b, &io)) {
        assert_int_equal(pread(to.fd, got, sizeof(got), 0), sizeof(got));
        memset(data, 0, 1000);
        memset(data + 6000, 0, sizeof(data) - 6000);
        assert_memory_equal(got, data, sizeof(data));
        io.from_off = 4000;
        assert_int_equal(blk_rw(to.b, &io), -EIO); /* past the end */
    }
    unmake(&to);
    unmake(&from);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(data_goes_out_and_comes_back),
        cmocka_unit_test(more_requests_than_the_ring_holds),
        cmocka_unit_test(discard_and_zero_leave_zeroes),
        cmocka_unit_test(a_cut_last_sector_reads_zeroes_and_keeps_its_bytes),
        cmocka_unit_test(a_file_cut_short_behind_our_back_is_an_error),
        cmocka_unit_test(o_direct_takes_any_buffer),
        cmocka_unit_test(o_direct_takes_any_place),
        cmocka_unit_test(refusals_name_the_reason_and_the_remedy),
        cmocka_unit_test(a_pipe_is_refused_and_never_waited_for),
        cmocka_unit_test(a_second_writer_is_told_who_the_first_is),
        cmocka_unit_test(the_host_copies_from_file_to_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
