#include "firmware/load/loader.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "vmm/base/cleanup.h"

int buf_alloc(struct buf *ret, size_t n)
{
    void *p = mmap(NULL, n ? n : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        return -ENOMEM;
    madvise(p, n, MADV_HUGEPAGE); /* fewer faults; without it all is well too */
    *ret = (struct buf){.p = p, .n = n};
    return 0;
}

void buf_free(struct buf *b)
{
    if (b->p)
        munmap(b->p, b->n ? b->n : 1);
    *b = (struct buf){0};
}

int image_open(struct image *ret, const char *what, const char *path, struct err *err)
{
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hang us */
    struct stat st;

    if (fd < 0 && errno == ENOENT)
        return err_set(err, ENOENT, "%s %s: no such file; check the path", what, path);
    if (fd < 0 && errno == EACCES)
        return err_set(err, EACCES, "%s %s: no permission to read it; use a copy that you own, or: sudo chmod a+r %s",
                       what, path, path);
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_set(err, errno, "%s %s: %s", what, path, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return err_set(err, EISDIR, "%s %s: is a directory; name a file in it", what, path);
    if (!S_ISREG(st.st_mode))
        return err_set(err, EINVAL, "%s %s: is not a regular file; write it to one first", what, path);
    if (st.st_size == 0)
        return err_set(err, EINVAL, "%s %s: the file is empty; copy or build it again", what, path);
    *ret = (struct image){.name = path, .size = (uint64_t)st.st_size, .fd = take_fd(&fd)};
    return 0;
}

void image_close(struct image *im)
{
    if (im->fd >= 0)
        close(im->fd);
    im->fd = -1;
}

static int cut_short(const struct image *im, uint64_t off, uint64_t n, struct err *err)
{
    return err_set(err, EINVAL, "%s: truncated: needs %" PRIu64 " bytes, has %" PRIu64 "; copy it again", im->name,
                   off + n, im->size);
}

/* preadv(2) until the one span is full. */
static int read_span(const struct image *im, uint64_t off, struct iovec v, struct err *err)
{
    while (v.iov_len > 0) {
        ssize_t got = preadv(im->fd, &v, 1, (off_t)off);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_set(err, errno, "%s: read: %s", im->name, strerror(errno));
        if (got == 0)
            return err_set(err, EIO, "%s: became shorter while it was read; try again", im->name);
        off += (uint64_t)got;
        v.iov_base = (char *)v.iov_base + got;
        v.iov_len -= (size_t)got;
    }
    return 0;
}

int image_read(const struct image *im, uint64_t off, void *dst, size_t n, struct err *err)
{
    if (!range_fits(off, n, im->size))
        return cut_short(im, off, n, err);
    if (!im->mem)
        return read_span(im, off, (struct iovec){.iov_base = dst, .iov_len = n}, err);
    memcpy(dst, im->mem + off, n);
    return 0;
}

int image_to_guest(const struct image *im, uint64_t off, struct gmem *mem, gpa_t gpa, uint64_t n, struct err *err)
{
    struct gspan s;

    if (!range_fits(off, n, im->size))
        return cut_short(im, off, n, err);
    if (gmem_span(mem, gpa, n, 1, GMEM_WRITE, &s) < 0)
        return err_set(err, EFAULT, "%s: no guest RAM at 0x%" PRIx64, im->name, gpa);
    if (!im->mem)
        return read_span(im, off, gspan_iov(s), err);
    gspan_put(s, 0, im->mem + off, n);
    return 0;
}
