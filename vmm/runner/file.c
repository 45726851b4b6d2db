#include "vmm/runner/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

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
