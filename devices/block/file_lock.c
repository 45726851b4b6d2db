/*
 * Image locks, and who holds them: open-file-description locks [fcntl(2)] on single bytes, as QEMU takes them, so that
 * both programs respect each other.  A shared lock on byte 100 + N says "I do N"; one on byte 200 + N says "nobody else
 * may do N".  Whoever opens an image first takes its locks and then looks whether others' contradict.
 */
#include "devices/block/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/base/cleanup.h"

static void close_dir(DIR **d)
{
    if (*d)
        closedir(*d);
}
#define cleanup_dir __attribute__((cleanup(close_dir)))

static bool file_says(const char *path, const char *word)
{
    char text[1024];
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

    if (n < 0)
        return false;
    text[n] = 0;
    return strstr(text, word);
}

/* Does this process hold a lock on the file?  Such locks carry no pid, but /proc shows them beside the descriptor. */
static bool holds(long pid, const struct stat *file)
{
    char path[64];
    cleanup_dir DIR *fds = NULL;
    struct dirent *e;
    struct stat st;

    snprintf(path, sizeof(path), "/proc/%ld/fd", pid);
    fds = opendir(path);
    while (fds && (e = readdir(fds))) {
        snprintf(path, sizeof(path), "/proc/%ld/fd/%.16s", pid, e->d_name);
        if (stat(path, &st) || st.st_dev != file->st_dev || st.st_ino != file->st_ino)
            continue;
        snprintf(path, sizeof(path), "/proc/%ld/fdinfo/%.16s", pid, e->d_name);
        if (file_says(path, "lock:"))
            return true;
    }
    return false;
}

/* The process that holds a lock on the file, or 0: another user's, or already gone. */
static long holder(int fd)
{
    cleanup_dir DIR *proc = opendir("/proc");
    struct dirent *e;
    struct stat st;

    if (!proc || fstat(fd, &st))
        return 0;
    while ((e = readdir(proc))) {
        long pid = strtol(e->d_name, NULL, 10);

        if (pid > 0 && holds(pid, &st))
            return pid;
    }
    return 0;
}

enum { DO_BASE = 100, DENY_BASE = 200 };
enum { CONSISTENT_READ = 1 << 0, WRITE = 1 << 1, RESIZE = 1 << 3 }; /* N is the bit's number */

static unsigned does(bool write)
{
    return CONSISTENT_READ | (write ? WRITE | RESIZE : 0);
}

/* QEMU's own writers let others read, but some of its readers rely on them to say so where that goes wrong. */
static unsigned denies(bool write)
{
    return WRITE | RESIZE | (write ? CONSISTENT_READ : 0);
}

static int lock_bytes(int fd, unsigned base, unsigned bits)
{
    for (; bits; bits &= bits - 1) {
        struct flock lock = {
            .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = base + __builtin_ctz(bits), .l_len = 1};

        if (fcntl(fd, F_OFD_SETLK, &lock))
            return -errno;
    }
    return 0;
}

/* -EAGAIN when somebody else holds one of these. */
static int test_bytes(int fd, unsigned base, unsigned bits)
{
    for (; bits; bits &= bits - 1) {
        struct flock lock = {
            .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = base + __builtin_ctz(bits), .l_len = 1};

        if (fcntl(fd, F_OFD_GETLK, &lock))
            return -errno;
        if (lock.l_type != F_UNLCK)
            return -EAGAIN;
    }
    return 0;
}

void file_unlock(int fd)
{
    struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET};

    fcntl(fd, F_OFD_SETLK, &lock); /* what was locked can be unlocked, and the rest does no harm */
}

static int try_lock(int fd, bool write)
{
    int rc = lock_bytes(fd, DO_BASE, does(write));

    if (!rc)
        rc = lock_bytes(fd, DENY_BASE, denies(write));
    if (!rc)
        rc = test_bytes(fd, DENY_BASE, does(write));
    if (!rc)
        rc = test_bytes(fd, DO_BASE, denies(write));
    if (rc)
        file_unlock(fd);
    return rc;
}

/* After its holder died a lock lives on until the kernel has ended the I/O that was under way. */
enum { ORPHAN_WAIT_MS = 2000, ORPHAN_POLL_MS = 10 };

int file_lock(int fd, bool write, const char *path, struct err *err)
{
    char who[64] = "another process";
    int rc;

    for (int waited = 0; (rc = try_lock(fd, write)); waited += ORPHAN_POLL_MS) {
        long pid;

        if (rc == -EOPNOTSUPP || rc == -ENOLCK || rc == -EINVAL)
            return 0; /* a file system without locks: nobody there can be kept out */
        if (rc != -EAGAIN && rc != -EACCES)
            return err_set(err, -rc, "lock %s: %s", path, strerror(-rc));
        pid = holder(fd);
        if (pid)
            snprintf(who, sizeof(who), "process %ld", pid);
        if (pid || waited >= ORPHAN_WAIT_MS)
            return err_set(err, EAGAIN,
                           "%s is in use by %s; end it, let all users open it with ro or snapshot, or give each a copy",
                           path, who);
        usleep(ORPHAN_POLL_MS * 1000);
    }
    return 0;
}
