#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "devices/block/filter.h"
#include "vmm/base/test.h"

/* A raw disk of 64 KiB, filled with 'o', with a fault above. */
struct disk {
    int fd;
    struct blk *b;
};

static char bytes[64 << 10];

static void open_fault(struct disk *d, char *filter)
{
    struct opt_list filters = {.v = &filter, .n = 1};
    struct blk_open_opts o = {.filters = &filters};
    char path[64];
    struct err err;

    d->fd = memfd_create("disk", MFD_CLOEXEC);
    memset(bytes, 'o', sizeof(bytes));
    assert_int_equal(write(d->fd, bytes, sizeof(bytes)), sizeof(bytes));
    snprintf(path, sizeof(path), "/proc/self/fd/%d", d->fd);
    if (blk_open(path, &o, NULL, NULL, &d->b, &err))
        fail_msg("%s", err.msg);
}

static void close_fault(struct disk *d)
{
    blk_close(d->b);
    close(d->fd);
}

static int op(struct disk *d, enum blk_op op, uint64_t off, uint64_t len)
{
    struct iovec iov = {bytes, len};

    memset(bytes, 'n', sizeof(bytes));
    return blk_rw(d->b, &(struct blk_io){.op = op, .off = off, .len = len, .iov = &iov, .niov = 1});
}

static void the_chosen_requests_fail_and_no_others(void **s)
{
    static const struct {
        const char *filter;
        int ret[10]; /* of read 0, write 0, flush, write 8K, zero 0, discard 8K, write 0, read 8K, write 0, flush */
    } rows[] = {
        {"fault", {-EIO}},
        {"fault:at=3", {0, 0, -EIO}},
        {"fault:op=write", {0, -EIO}},
        {"fault:op=write:at=2:times=2", {0, 0, 0, -EIO, 0, 0, -EIO}},
        {"fault:op=write:at=2:times=0", {0, 0, 0, -EIO, 0, 0, -EIO, 0, -EIO}},
        {"fault:op=change:at=3:times=2:do=enospc", {0, 0, 0, 0, -ENOSPC, -ENOSPC}},
        {"fault:op=flush:at=2", {0, 0, 0, 0, 0, 0, 0, 0, 0, -EIO}},
        {"fault:op=read:times=0", {-EIO, 0, 0, 0, 0, 0, 0, -EIO}},
        {"fault:op=zero", {0, 0, 0, 0, -EIO}},
        {"fault:op=discard", {0, 0, 0, 0, 0, -EIO}},
        {"fault:off=8K:len=512:times=0", {0, 0, 0, -EIO, 0, -EIO, 0, -EIO}},
        {"fault:off=8K:times=0", {0, 0, 0, -EIO, 0, -EIO, 0, -EIO}},
        {"fault:off=4K:len=4K:times=0", {0}},
        {"fault:do=delay:ms=0:times=0", {0}},
    };

    (void)s;
    for (size_t i = 0; i < array_len(rows); i++) {
        struct disk d;
        int got[10];

        open_fault(&d, (char *)rows[i].filter);
        got[0] = op(&d, BLK_READ, 0, 4096);
        got[1] = op(&d, BLK_WRITE, 0, 4096);
        got[2] = op(&d, BLK_FLUSH, 0, 0);
        got[3] = op(&d, BLK_WRITE, 8192, 4096);
        got[4] = op(&d, BLK_ZERO, 0, 4096);
        got[5] = op(&d, BLK_DISCARD, 8192, 4096);
        got[6] = op(&d, BLK_WRITE, 0, 4096);
        got[7] = op(&d, BLK_READ, 8192, 4096);
        got[8] = op(&d, BLK_WRITE, 0, 4096);
        got[9] = op(&d, BLK_FLUSH, 0, 0);
        assert_memory_equal(got, rows[i].ret, sizeof(got));
        close_fault(&d);
    }
}

static void a_failed_write_is_torn_where_told(void **s)
{
    static const struct {
        char *filter;
        uint64_t written;
    } rows[] = {{"fault:op=write", 0}, {"fault:op=write:part=512", 512}, {"fault:op=write:part=1M", 4096}};

    (void)s;
    for (size_t i = 0; i < array_len(rows); i++) {
        char got[4097];
        struct disk d;

        open_fault(&d, rows[i].filter);
        assert_int_equal(op(&d, BLK_WRITE, 0, 4096), -EIO);
        assert_int_equal(pread(d.fd, got, 4097, 0), 4097);
        for (unsigned at = 0; at < 4097; at++)
            assert_int_equal(got[at], at < rows[i].written ? 'n' : 'o');
        close_fault(&d);
    }
}

static void kill_ends_the_process_before_the_write(void **s)
{
    struct disk d;
    char got[1024];
    int status;
    pid_t pid;

    (void)s;
    open_fault(&d, "fault:op=write:at=2:do=kill:part=512");
    pid = fork();
    if (!pid) {
        if (op(&d, BLK_WRITE, 0, 512) || op(&d, BLK_WRITE, 512, 1024))
            _exit(1);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(pread(d.fd, got, 1024, 512), 1024);
    assert_int_equal(got[511], 'n');
    assert_int_equal(got[512], 'o');
    close_fault(&d);
}

struct counting {
    struct fault_hook h;
    unsigned calls;
    enum blk_op last;
};

static int count(struct fault_hook *h, const struct blk_io *io)
{
    struct counting *c = container_of(h, struct counting, h);

    c->calls++;
    c->last = io->op;
    return io->off == 4096 ? -ENOMEM : 0;
}

static void a_hook_decides_instead(void **s)
{
    struct counting c = {.h.call = count};
    struct disk d;

    (void)s;
    open_fault(&d, "fault:op=change");
    fault_set_hook(d.b, &c.h);
    assert_int_equal(op(&d, BLK_WRITE, 0, 512), 0);
    assert_int_equal(op(&d, BLK_READ, 4096, 512), 0);
    assert_int_equal(op(&d, BLK_ZERO, 4096, 512), -ENOMEM);
    assert_int_equal(c.calls, 2);
    assert_int_equal(c.last, BLK_ZERO);
    assert_int_equal(fault_seen(d.b), 2);
    close_fault(&d);
}

static void bad_filters_are_refused(void **s)
{
    static const struct {
        char *filter;
        const char *word;
    } rows[] = {
        {"raw", "there is"},
        {"", "there is"},
        {"fault:op=wrte", "did you mean"},
        {"fault:at=0", "out of range"},
    };

    (void)s;
    for (size_t i = 0; i < array_len(rows); i++) {
        struct opt_list filters = {.v = (char **)&rows[i].filter, .n = 1};
        int fd = memfd_create("disk", MFD_CLOEXEC);
        struct blk *b;
        struct err err;
        char path[64];

        assert_int_equal(ftruncate(fd, 4096), 0);
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        for (int where = 0; where < 2; where++) {
            struct blk_open_opts o = {.filters = where ? &filters : NULL, .file_filters = where ? NULL : &filters};

            assert_true(blk_open(path, &o, NULL, NULL, &b, &err) < 0);
            assert_non_null(strstr(err.msg, rows[i].word));
        }
        close(fd);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_chosen_requests_fail_and_no_others),
        cmocka_unit_test(a_failed_write_is_torn_where_told),
        cmocka_unit_test(kill_ends_the_process_before_the_write),
        cmocka_unit_test(a_hook_decides_instead),
        cmocka_unit_test(bad_filters_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
