/*
 * Operations on open files.  What may wait for a disk is a job on a worker: the data goes straight between the file and
 * the guest's memory.  Reads that the page cache has are answered at once, which is faster than to wake a worker.
 */
#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include "devices/fs/private.h"
#include "vmm/base/cleanup.h"
#include "vmm/mem/iov.h"

enum { BODY = sizeof(struct fuse_out_header) /* where a reply's body begins */ };

/* Of open(2)'s flags those that mean something to a file of the host's. */
int file_flags(const struct fs *fs, uint32_t flags, int *ret)
{
    if ((flags & O_ACCMODE) == O_ACCMODE)
        return -EINVAL;
    if (fs->mode == FS_RO && (flags & O_ACCMODE || flags & O_TRUNC))
        return -EROFS;
    *ret = (int)(flags & (O_ACCMODE | O_APPEND | O_TRUNC | O_SYNC | O_DSYNC));
    return 0;
}

int node_open(struct fs *fs, struct node *n, int flags, uint32_t how)
{
    int rc = 0;

    /* who truncates it may not leave a file that runs as somebody else */
    if (how & FUSE_OPEN_KILL_SUIDGID && flags & O_TRUNC)
        rc = fs->tree->change(fs, n, -1, &(struct fuse_setattr_in){.valid = FATTR_KILL_SUIDGID});
    return rc ? rc : fs->tree->open(fs, n, flags);
}

int file_opened(struct fs *fs, struct node *n, int fd, uint32_t flags, struct fuse_open_out *ret)
{
    static const uint32_t replies[] = {
        [FS_CACHE_AUTO] = 0, [FS_CACHE_ALWAYS] = FOPEN_KEEP_CACHE, [FS_CACHE_NONE] = FOPEN_DIRECT_IO};
    bool reads = (flags & O_ACCMODE) == O_RDONLY;
    struct fs_handle *h;
    int rc = handle_new(fs, n, fd, (int)flags, false, &h);

    if (rc)
        return rc;
    *ret = (struct fuse_open_out){.fh = handle_id(h), .open_flags = replies[fs->cache]};
    if (reads && fs->minor >= 35)
        ret->open_flags |= FOPEN_NOFLUSH;
    return 0;
}

int op_open(struct fs *fs, struct call *c, const void *args)
{
    const struct fuse_open_in *in = args;
    int flags, fd, rc = file_flags(fs, in->flags, &flags);

    if (rc)
        return rc;
    if (c->node->id.type != S_IFREG)
        return c->node->id.type == S_IFDIR ? -EISDIR : -EACCES;
    fd = node_open(fs, c->node, flags, in->open_flags);
    if (fd < 0)
        return fd;
    rc = file_opened(fs, c->node, fd, in->flags, (struct fuse_open_out *)fs->reply);
    return rc ? rc : (int)sizeof(struct fuse_open_out);
}

int op_release(struct fs *fs, struct call *c, const void *args)
{
    const struct fuse_release_in *in = args;
    struct fs_handle *h = handle_by_id(fs, in->fh, c->node, false);

    if (!h)
        return -EBADF;
    h->released = true;
    handle_put(fs, h);
    return 0;
}

static struct fs_handle *handle_of(struct fs *fs, struct call *c, uint64_t fh)
{
    return handle_by_id(fs, fh, c->node, false);
}

static bool writable(const struct fs_handle *h)
{
    return (h->flags & O_ACCMODE) != O_RDONLY;
}

static int job_read(struct fs_req *r)
{
    struct iovec iov[FS_OUT_IOVS_MAX];
    uint64_t len;
    unsigned n = iov_part(r->out, BODY, r->len, iov, array_len(iov), &len);
    ssize_t got = preadv(r->fds[0], iov, (int)n, (off_t)r->offs[0]);

    return got < 0 ? -errno : (int)got;
}

/* What is in memory, if that is all there is to read; else -EAGAIN. */
static int read_cached(struct fs_req *r)
{
    struct iovec iov[FS_OUT_IOVS_MAX];
    uint64_t len;
    unsigned n = iov_part(r->out, BODY, r->len, iov, array_len(iov), &len);
    ssize_t got = preadv2(r->fds[0], iov, (int)n, (off_t)r->offs[0], RWF_NOWAIT);
    struct stat st;

    if (got < 0)
        return -EAGAIN;
    if ((uint64_t)got < r->len && (fstat(r->fds[0], &st) || (uint64_t)st.st_size > r->offs[0] + (uint64_t)got))
        return -EAGAIN;
    return (int)got;
}

int op_read(struct fs *fs, struct call *c, const void *args)
{
    const struct fuse_read_in *in = args;
    struct fs_handle *h = handle_of(fs, c, in->fh);
    struct fs_req *r = c->r;
    int ret;

    if (!h || (h->flags & O_ACCMODE) == O_WRONLY)
        return -EBADF;
    r->len = min_u64(in->size, min_u64(c->room, READ_MAX));
    r->offs[0] = in->offset;
    r->fds[0] = h->fd;
    if (in->offset > INT64_MAX)
        return -EINVAL;
    if (!r->len)
        return 0;
    ret = read_cached(r);
    return ret >= 0 ? ret | IN_PLACE : call_submit(fs, c, h, job_read);
}

static int job_write(struct fs_req *r)
{
    cleanup_fd int mine = -1;
    struct fuse_write_out out = {0};
    struct iovec iov[FS_OUT_IOVS_MAX];
    uint64_t len;
    unsigned n = iov_part(r->in, sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in), r->len, iov,
                          array_len(iov), &len);
    ssize_t put;

    if (r->flags) {
        mine = openat(r->fs->proc_fd, fs_proc_name(r->fds[0]).s, (int)r->flags);
        if (mine < 0)
            return -errno;
    }
    put = pwritev(mine < 0 ? r->fds[0] : mine, iov, (int)n, (off_t)r->offs[0]);
    if (put < 0)
        return -errno;
    out.size = (uint32_t)put;
    iov_put(r->out, BODY, &out, sizeof(out));
    return sizeof(out);
}

int op_write(struct fs *fs, struct call *c, const void *args)
{
    const struct fuse_write_in *in = args;
    struct fs_handle *h = handle_of(fs, c, in->fh);
    struct fs_req *r = c->r;
    bool appends = in->flags & O_APPEND && !(in->write_flags & FUSE_WRITE_CACHE);

    if (!h || !writable(h))
        return -EBADF;
    if (in->size != r->in_len - sizeof(c->h) - sizeof(*in) || in->offset > INT64_MAX ||
        c->room < sizeof(struct fuse_write_out))
        return -EINVAL;
    if (in->write_flags & FUSE_WRITE_KILL_SUIDGID) { /* the writer may not leave a file that runs as somebody else */
        int rc = fs->tree->change(fs, c->node, -1, &(struct fuse_setattr_in){.valid = FATTR_KILL_SUIDGID});

        if (rc)
            return rc;
    }
    r->len = in->size;
    r->offs[0] = in->offset;
    /* Pages of mappings are written by any handle, and fcntl(2) changes whether one appends: then it is opened anew for
     * this.  RWF_APPEND is not for us: overlayfs forgets it before Linux 6.7. */
    if (appends != !!(h->flags & O_APPEND))
        r->flags = O_WRONLY | O_CLOEXEC | (appends ? O_APPEND : 0);
    return call_submit(fs, c, h, job_write);
}

int file_job_fsync(struct fs_req *r)
{
    return (r->flags & FUSE_FSYNC_FDATASYNC ? fdatasync(r->fds[0]) : fsync(r->fds[0])) ? -errno : 0;
}

int op_fsync(struct fs *fs, struct call *c, const void *args)
{
    const struct fuse_fsync_in *in = args;
    struct fs_handle *h = handle_of(fs, c, in->fh);

    if (!h)
        return -EBADF;
    if (fs->mode == FS_COW)
        return 0; /* nobody will miss it */
    c->r->flags = in->fsync_flags;
    return call_submit(fs, c, h, file_job_fsync);
}

static int job_flush(struct fs_req *r)
{
    int fd = dup(r->fds[0]);

    return fd < 0 || close(fd) ? -errno : 0;
}

/* A close(2) by one of those who share the handle, which on some file systems tells of failed writes. */
int op_flush(struct fs *fs, struct call *c, const void *args)
{
    const struct fuse_flush_in *in = args;
    struct fs_handle *h = handle_of(fs, c, in->fh);

    if (!h)
        return -EBADF;
    return writable(h) ? call_submit(fs, c, h, job_flush) : 0;
}

static int job_fallocate(struct fs_req *r)
{
    return fallocate(r->fds[0], (int)r->flags, (off_t)r->offs[0], (off_t)r->len) ? -errno : 0;
}

int op_fallocate(struct fs *fs, struct call *c, const void *args)
{
    const struct fuse_fallocate_in *in = args;
    struct fs_handle *h = handle_of(fs, c, in->fh);

    if (!h || !writable(h))
        return -EBADF;
    if (in->mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
        return -EOPNOTSUPP;
    if (in->offset > INT64_MAX || in->length > INT64_MAX - in->offset)
        return -EFBIG;
    c->r->offs[0] = in->offset;
    c->r->len = in->length;
    c->r->flags = in->mode;
    return call_submit(fs, c, h, job_fallocate);
}

static int job_lseek(struct fs_req *r)
{
    struct fuse_lseek_out out;
    off_t at = lseek(r->fds[0], (off_t)r->offs[0], (int)r->flags);

    if (at < 0)
        return -errno;
    out.offset = (uint64_t)at;
    iov_put(r->out, BODY, &out, sizeof(out));
    return sizeof(out);
}

/* Where data and holes are; positions are the guest's own. */
int op_lseek(struct fs *fs, struct call *c, const void *args)
{
    const struct fuse_lseek_in *in = args;
    struct fs_handle *h = handle_of(fs, c, in->fh);

    if (!h)
        return -EBADF;
    if ((in->whence != SEEK_DATA && in->whence != SEEK_HOLE) || c->room < sizeof(struct fuse_lseek_out))
        return -EINVAL;
    if (in->offset > INT64_MAX)
        return -ENXIO;
    c->r->offs[0] = in->offset;
    c->r->flags = in->whence;
    return call_submit(fs, c, h, job_lseek);
}

static int job_copy(struct fs_req *r)
{
    struct fuse_write_out out = {0};
    off_t from = (off_t)r->offs[0], to = (off_t)r->offs[1];
    ssize_t n = copy_file_range(r->fds[0], &from, r->fds[1], &to, r->len, 0);

    if (n < 0)
        return -errno;
    out.size = (uint32_t)n;
    iov_put(r->out, BODY, &out, sizeof(out));
    return sizeof(out);
}

int op_copy_file_range(struct fs *fs, struct call *c, const void *args)
{
    const struct fuse_copy_file_range_in *in = args;
    struct node *n = node_by_id(fs, in->nodeid_out);
    struct fs_handle *from = handle_of(fs, c, in->fh_in), *to = n ? handle_by_id(fs, in->fh_out, n, false) : NULL;

    if (!from || !to || (from->flags & O_ACCMODE) == O_WRONLY || !writable(to))
        return -EBADF;
    if (in->flags || in->off_in > INT64_MAX || in->off_out > INT64_MAX || c->room < sizeof(struct fuse_write_out))
        return -EINVAL;
    c->r->offs[0] = in->off_in;
    c->r->offs[1] = in->off_out;
    c->r->len = min_u64(in->len, COPY_MAX);
    to->refs++;
    c->r->handles[1] = to;
    c->r->fds[1] = to->fd;
    return call_submit(fs, c, from, job_copy);
}

static int job_syncfs(struct fs_req *r)
{
    return syncfs(r->fds[0]) ? -errno : 0;
}

int op_syncfs(struct fs *fs, struct call *c, const void *args)
{
    (void)args;
    c->r->fds[0] = fs->root_fd;
    return fs->mode == FS_RW ? call_submit(fs, c, NULL, job_syncfs) : 0;
}
