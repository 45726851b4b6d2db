#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "devices/block/file.h"
#include "vmm/base/test.h"

static char path[64];
static int fd; /* makes the file, takes no locks */

static int setup(void **s)
{
    (void)s;
    strcpy(path, "/tmp/bothy-lock-XXXXXX");
    fd = mkstemp(path);
    return fd < 0 || ftruncate(fd, MiB(1));
}

static int teardown(void **s)
{
    (void)s;
    close(fd);
    return unlink(path);
}

static int open_again(bool write)
{
    int again = open(path, write ? O_RDWR : O_RDONLY);

    assert_true(again >= 0);
    return again;
}

static void lock_byte(int at, long byte)
{
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

    assert_int_equal(fcntl(at, F_OFD_SETLK, &lock), 0);
}

static void readers_share_and_writers_do_not(void **s)
{
    static const struct {
        bool first, second; /* writes */
        int ret;
    } rows[] = {{false, false, 0}, {false, true, -EAGAIN}, {true, false, -EAGAIN}, {true, true, -EAGAIN}};
    char pid[32];

    (void)s;
    snprintf(pid, sizeof(pid), "process %d;", getpid());
    for (size_t i = 0; i < array_len(rows); i++) {
        int a = open_again(rows[i].first), b = open_again(rows[i].second), rc;
        struct err err;

        assert_int_equal(file_lock(a, rows[i].first, path, &err), 0);
        rc = file_lock(b, rows[i].second, path, &err);
        assert_int_equal(rc, rows[i].ret);
        if (rc) {
            assert_non_null(strstr(err.msg, pid));
            assert_non_null(strstr(err.msg, "ro or snapshot"));
            file_unlock(a);
            assert_int_equal(file_lock(a, true, path, &err), 0); /* who was refused left nothing behind */
        }
        close(a);
        close(b);
    }
}

static void the_bytes_are_those_of_qemu(void **s)
{
    static const struct {
        long byte;
        int reader, writer;
    } rows[] = {
        {100, 0, -EAGAIN},       /* reads */
        {101, -EAGAIN, -EAGAIN}, /* writes */
        {102, 0, 0},             /* writes what is there already */
        {103, -EAGAIN, -EAGAIN}, /* resizes */
        {200, -EAGAIN, -EAGAIN}, /* denies reading */
        {201, 0, -EAGAIN},       /* denies writing */
        {202, 0, 0},
        {203, 0, -EAGAIN}, /* denies resizing */
        {0, 0, 0},         /* libvirt's */
    };

    (void)s;
    for (size_t i = 0; i < array_len(rows); i++) {
        int other = open_again(true), r = open_again(false), w = open_again(true);
        struct err err;

        lock_byte(other, rows[i].byte);
        assert_int_equal(file_lock(r, false, path, &err), rows[i].reader);
        file_unlock(r);
        assert_int_equal(file_lock(w, true, path, &err), rows[i].writer);
        close(other);
        close(r);
        close(w);
    }
}

/* ---- With QEMU itself, where it is installed. ---- */

struct qemu {
    pid_t pid;
    int in, out;
};

static bool has_qemu(void)
{
    return !system("qemu-io --version >/dev/null 2>&1");
}

/* A qemu-io that has the file open, or has failed to open it. */
static bool qemu_open(struct qemu *q, bool write)
{
    int in[2], out[2];
    char buf[256];
    ssize_t n;

    assert_int_equal(pipe2(in, O_CLOEXEC) | pipe2(out, O_CLOEXEC), 0);
    q->pid = fork();
    if (!q->pid) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        dup2(out[1], 2);
        execlp("qemu-io", "qemu-io", "-f", "raw", path, write ? NULL : "-r", NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    q->in = in[1];
    q->out = out[0];
    n = read(q->out, buf, sizeof(buf) - 1); /* its prompt, or what is wrong */
    assert_true(n > 0);
    buf[n] = 0;
    return strstr(buf, "qemu-io> ");
}

static void qemu_close(struct qemu *q)
{
    close(q->in); /* end of file ends it */
    waitpid(q->pid, NULL, 0);
    close(q->out);
}

static void qemu_and_we_respect_each_other(void **s)
{
    static const struct {
        bool theirs, ours; /* writes */
        bool both;
    } rows[] = {{false, false, true}, {false, true, false}, {true, false, false}, {true, true, false}};

    (void)s;
    if (!has_qemu())
        skip();
    for (size_t i = 0; i < array_len(rows); i++) {
        int f = open_again(rows[i].ours);
        struct qemu q;
        struct err err;
        char pid[32];

        assert_int_equal(file_lock(f, rows[i].ours, path, &err), 0);
        assert_int_equal(qemu_open(&q, rows[i].theirs), rows[i].both);
        qemu_close(&q);
        file_unlock(f);

        assert_true(qemu_open(&q, rows[i].theirs));
        assert_int_equal(file_lock(f, rows[i].ours, path, &err), rows[i].both ? 0 : -EAGAIN);
        snprintf(pid, sizeof(pid), "process %d;", q.pid);
        if (!rows[i].both)
            assert_non_null(strstr(err.msg, pid));
        qemu_close(&q);
        close(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(readers_share_and_writers_do_not, setup, teardown),
        cmocka_unit_test_setup_teardown(the_bytes_are_those_of_qemu, setup, teardown),
        cmocka_unit_test_setup_teardown(qemu_and_we_respect_each_other, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
