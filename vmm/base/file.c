#include "vmm/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/base/cleanup.h"

/* What /sys has says 4096 and is shorter; nothing that is longer than it says is believed. */
int file_read(const char *path, size_t max, char **ret, size_t *n)
{
    int fd cleanup_fd = open(path, O_RDONLY | O_CLOEXEC);
    char *data cleanup_free = NULL;
    size_t len = 0;
    struct stat st;
    ssize_t r = 1;

    if (fd < 0 || fstat(fd, &st))
        return -1;
    if (!S_ISREG(st.st_mode))
        return errno = EINVAL, -1;
    if ((uint64_t)st.st_size > max)
        return errno = EFBIG, -1;
    data = malloc((size_t)st.st_size + 1);
    if (!data)
        return -1;
    while (len < (size_t)st.st_size && (r = read(fd, data + len, (size_t)st.st_size - len)) > 0)
        len += (size_t)r;
    if (r < 0)
        return -1;
    data[len] = 0;
    *ret = take_ptr(data);
    *n = len;
    return 0;
}

int file_drain(const char *path, size_t max, char **ret)
{
    int fd cleanup_fd = open(path, O_RDONLY | O_CLOEXEC);
    char *text cleanup_free = NULL;
    size_t len = 0;
    ssize_t n;

    if (fd < 0)
        return -1;
    text = xcalloc(1, max + 1);
    while ((n = read(fd, text + len, max + 1 - len)) > 0)
        len += (size_t)n;
    if (n < 0)
        return -1;
    if (len > max)
        return errno = EFBIG, -1;
    text[len] = 0;
    *ret = take_ptr(text);
    return 0;
}

int file_write(int fd, const void *p, size_t n)
{
    for (size_t done = 0; done < n;) {
        ssize_t put = write(fd, (const char *)p + done, n - done);

        if (put < 0 && errno != EINTR)
            return -errno;
        done += put > 0 ? (size_t)put : 0;
    }
    return 0;
}

int file_write_at(int fd, uint64_t off, const void *p, size_t n)
{
    for (size_t done = 0; done < n;) {
        ssize_t put = pwrite(fd, (const char *)p + done, n - done, (off_t)(off + done));

        if (put < 0 && errno != EINTR)
            return -errno;
        done += put > 0 ? (size_t)put : 0;
    }
    return 0;
}
