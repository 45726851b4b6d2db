/*
 * The leaf of every tree: a regular file or a host's block device.  Reads, writes and flushes go by io_uring, in
 * batches, or at once where the file is in memory; whatever may take long without a good asynchronous form (discard,
 * zeroing, buffers that O_DIRECT does not take) runs on a worker, as does everything on a host without io_uring.
 */
#include "devices/block/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "devices/block/driver.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"
#include "vmm/mem/gmem.h"

enum {
    SECTOR = 512,
    DIRECT_ALIGN_MAX = 4096,
    RING_ENTRIES = 128,   /* requests in the kernel at a time; the others wait here */
    BOUNCE_MAX = 1 << 20, /* bytes at a time that go through a buffer of ours */
    ZEROES = 64 << 10,    /* bytes at a time where zeroes have to be written */
    TOLD_AT = 256 << 10,  /* bytes that are copied in a file in memory before it is told that they are there */
    RANGE_MAX = 1 << 30,  /* bytes at a time of a discard or of zeroing */
    FILE_MODE = 0644,     /* of a new one, less the umask */
};

struct file {
    struct blk b;
    int fd;
    bool device;            /* a block device */
    bool unsafe;            /* flushes are nothing */
    bool kicking;           /* in file_kick() */
    bool memory;            /* on tmpfs: a system call copies, and has nothing to wait for */
    uint64_t bytes;         /* the file's own size: the last sector may be cut short */
    uint32_t mem_align;     /* of buffers; 1 unless O_DIRECT */
    pthread_mutex_t halves; /* whoever writes parts of blocks with O_DIRECT */
    bool uring;             /* `ring` is there */
    struct io_uring ring;
    struct watch watch;  /* of the ring */
    unsigned inflight;   /* requests in the ring */
    struct list waiting; /* for room in it */
    struct work retry;
};

static struct file *file_of(struct blk *b)
{
    return container_of(b, struct file, b);
}

/*
 * A read met the end of the file.  What is left of the last sector reads as zeroes, and all that is left where an image
 * format has not yet written; else somebody cut the file behind our back.
 */
static bool past_end_is_zero(const struct file *f, uint64_t off)
{
    return f->b.lim.grows || off >= f->bytes;
}

static void complete(struct file *f, struct blk_req *r, int64_t ret)
{
    if (!ret && r->io.op == BLK_READ) {
        ret = past_end_is_zero(f, r->io.off) ? (int64_t)r->io.len : -EIO;
        if (ret > 0)
            iov_zero(r->io.iov, 0, r->io.len);
    }
    blk_complete(r, ret);
}

/* Does the kernel take the request as it is?  What stands above may place a part anywhere. */
static bool fits(const struct file *f, const struct blk_io *io)
{
    uintptr_t bits = io->off | io->len;

    for (unsigned i = 0; i < io->niov && f->mem_align > 1; i++)
        bits |= (uintptr_t)io->iov[i].iov_base | io->iov[i].iov_len;
    return !(bits & (f->mem_align - 1));
}

/* ---- Blocking. ---- */

static ssize_t transfer(const struct file *f, enum blk_op op, struct iovec *iov, unsigned niov, uint64_t off)
{
    ssize_t n;

    do
        n = op == BLK_READ ? preadv(f->fd, iov, (int)niov, (off_t)off) : pwritev(f->fd, iov, (int)niov, (off_t)off);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

/*
 * What O_DIRECT does not take as it is goes through a buffer of ours, `at` bytes into the request.  Where it covers
 * blocks by halves these are read first; nobody else may do that at the same time.
 */
static ssize_t bounce(struct file *f, const struct blk_io *io, uint64_t at)
{
    uint64_t align = f->b.lim.align, off = io->off + at, start = align_down(off, align);
    uint64_t len = min_u64(io->len - at, BOUNCE_MAX), size = align_up(off + len, align) - start;
    cleanup_free char *buf = aligned_alloc(DIRECT_ALIGN_MAX, align_up(size, DIRECT_ALIGN_MAX));
    struct iovec one = {.iov_base = buf, .iov_len = size};
    bool halves = io->op == BLK_WRITE && (start != off || size != len);
    ssize_t n = 0;

    if (!buf)
        return -ENOMEM;
    if (halves)
        pthread_mutex_lock(&f->halves);
    if (io->op == BLK_READ || halves) {
        n = transfer(f, BLK_READ, &one, 1, start);
        if (n >= 0 && (size_t)n < size) /* the file ends there */
            memset(buf + n, 0, size - (size_t)n);
    }
    if (n >= 0 && io->op == BLK_WRITE) {
        iov_get(io->iov, at, buf + (off - start), len);
        n = transfer(f, BLK_WRITE, &one, 1, start);
    }
    if (halves)
        pthread_mutex_unlock(&f->halves);
    if (n < 0)
        return n;
    n -= (ssize_t)(off - start);
    if (n <= 0)
        return 0;
    n = (ssize_t)min_u64((uint64_t)n, len);
    if (io->op == BLK_READ)
        iov_put(io->iov, at, buf + (off - start), (size_t)n);
    return n;
}

static int read_write(struct file *f, const struct blk_io *io)
{
    bool fit = fits(f, io);
    struct iovec iov[64];
    uint64_t len;

    for (uint64_t at = 0; at < io->len;) {
        unsigned niov = iov_part(io->iov, at, io->len - at, iov, array_len(iov), &len);
        ssize_t n = fit ? transfer(f, io->op, iov, niov, io->off + at) : bounce(f, io, at);

        if (n < 0)
            return (int)n;
        if (!n) {
            if (io->op != BLK_READ || !past_end_is_zero(f, io->off + at))
                return -EIO;
            iov_zero(io->iov, at, io->len - at);
            return 0;
        }
        at += (uint64_t)n;
    }
    return 0;
}

static ssize_t write_zeroes(struct file *f, uint64_t off, uint64_t len)
{
    /* Not const: that would be 64 KiB of the program's file. */
    static char zeroes[ZEROES] __attribute__((aligned(DIRECT_ALIGN_MAX)));
    struct iovec iov = {.iov_base = zeroes, .iov_len = min_u64(len, ZEROES)};
    int rc = read_write(f, &(struct blk_io){.op = BLK_WRITE, .off = off, .len = iov.iov_len, .iov = &iov, .niov = 1});

    return rc ? rc : (ssize_t)iov.iov_len;
}

static ssize_t fill_some(struct file *f, const struct blk_io *io, uint64_t off, uint64_t len)
{
    uint64_t range[2] = {off, min_u64(len, RANGE_MAX)};
    bool punch = io->op == BLK_DISCARD || io->unmap;
    int rc;

    if (f->device)
        rc = ioctl(f->fd, io->op == BLK_DISCARD ? BLKDISCARD : BLKZEROOUT, range);
    else
        rc = fallocate(f->fd, FALLOC_FL_KEEP_SIZE | (punch ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE), (off_t)off,
                       (off_t)range[1]);
    if (!rc)
        return (ssize_t)range[1];
    if (errno == EOPNOTSUPP && io->op == BLK_ZERO)
        return write_zeroes(f, off, range[1]);
    return -errno;
}

static int copy_from(struct file *f, const struct blk_io *io)
{
    off_t from = (off_t)io->from_off, to = (off_t)io->off;

    if (io->from->drv != &file_driver)
        return -ENOTSUP;
    for (uint64_t left = io->len; left;) {
        ssize_t n = copy_file_range(file_of(io->from)->fd, &from, f->fd, &to, min_u64(left, RANGE_MAX), 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n ? -errno : -EIO; /* 0: the other file ends there */
        left -= (uint64_t)n;
    }
    return 0;
}

static int file_rw(struct blk *b, const struct blk_io *io)
{
    struct file *f = file_of(b);
    ssize_t n;

    switch (io->op) {
    case BLK_READ:
    case BLK_WRITE:
        return read_write(f, io);
    case BLK_FLUSH:
        return !f->unsafe && fdatasync(f->fd) ? -errno : 0;
    case BLK_DISCARD:
    case BLK_ZERO:
        for (uint64_t at = 0; at < io->len; at += (uint64_t)n) {
            n = fill_some(f, io, io->off + at, io->len - at);
            if (n < 0)
                return (int)n;
        }
        return 0;
    case BLK_COPY:
        return copy_from(f, io);
    }
    return -EINVAL;
}

/* ---- By io_uring, in the lane. ---- */

static void to_ring(struct file *f, struct blk_req *r)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&f->ring);

    assert(sqe); /* there are as many as requests may be in flight */
    if (r->io.op == BLK_READ)
        io_uring_prep_readv(sqe, 0, r->io.iov, r->io.niov, r->io.off);
    else if (r->io.op == BLK_WRITE)
        io_uring_prep_writev(sqe, 0, r->io.iov, r->io.niov, r->io.off);
    else if (f->unsafe)
        io_uring_prep_nop(sqe);
    else
        io_uring_prep_fsync(sqe, 0, IORING_FSYNC_DATASYNC);
    if (sqe->opcode != IORING_OP_NOP)
        sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data(sqe, r);
    f->inflight++;
}

static void retry(struct work *w, int ret)
{
    (void)ret;
    blk_kick(&container_of(w, struct file, retry)->b);
}

/* Of a file in memory: io_uring has no other way there than through a thread of the kernel's. */
static bool do_waiting(struct file *f)
{
    struct list *next = list_pop(&f->waiting);
    bool any = next;

    for (uint64_t copied = 0; next; next = list_pop(&f->waiting)) {
        struct blk_req *r = container_of(next, struct blk_req, link);
        uint64_t len = r->io.len;
        int rc = file_rw(&f->b, &r->io);

        blk_complete(r, rc ? rc : r->io.op == BLK_FLUSH ? 0 : (int64_t)len);
        copied += len;
        if (copied >= TOLD_AT) { /* whoever waits for them goes on while we copy the rest */
            blk_batch(&f->b);
            copied = 0;
        }
    }
    if (any)
        blk_batch(&f->b);
    return any;
}

/* What the kernel is through with; whether there was anything. */
static bool reap(struct file *f)
{
    struct io_uring_cqe *cqe;
    struct list *next;
    bool any = false;

    while (!io_uring_peek_cqe(&f->ring, &cqe)) {
        struct blk_req *r = io_uring_cqe_get_data(cqe);
        int ret = cqe->res;

        io_uring_cqe_seen(&f->ring, cqe);
        f->inflight--;
        any = true;
        if (ret == -EINTR || ret == -EAGAIN)
            to_ring(f, r);
        else
            complete(f, r, ret);
    }
    while (f->inflight < RING_ENTRIES && (next = list_pop(&f->waiting)))
        to_ring(f, container_of(next, struct blk_req, link));
    if (any)
        blk_batch(&f->b);
    return any;
}

/* What is in the page cache is there as soon as it was submitted, which saves a turn of the loop. */
static void file_kick(struct blk *b)
{
    struct file *f = file_of(b);
    int rc;

    if (!f->uring || f->kicking) /* by a done() from in here: seen to below */
        return;
    f->kicking = true;
    while (f->memory && do_waiting(f))
        ;
    do
        rc = io_uring_sq_ready(&f->ring) ? io_uring_submit(&f->ring) : 0;
    while (reap(f));
    f->kicking = false;
    /* When the host is short of memory for it, nothing else may ever come by to try again. */
    if (rc < 0)
        work_post(&f->retry);
}

static void ring_ready(struct watch *w, uint32_t revents)
{
    (void)revents;
    file_kick(&container_of(w, struct file, watch)->b);
}

static void file_submit(struct blk *b, struct blk_req *r)
{
    struct file *f = file_of(b);

    if (!f->uring || r->io.op == BLK_DISCARD || r->io.op == BLK_ZERO || !fits(f, &r->io))
        blk_to_worker(r);
    else if (!f->memory && f->inflight < RING_ENTRIES)
        to_ring(f, r);
    else
        list_add_tail(&f->waiting, &r->link);
}

static void file_close(struct blk *b)
{
    struct file *f = file_of(b);

    if (f->uring) {
        watch_del(&f->watch);
        io_uring_queue_exit(&f->ring);
    }
    if (f->fd >= 0) {
        file_unlock(f->fd); /* the kernel may keep the file for the ring a little longer */
        close(f->fd);
    }
    pthread_mutex_destroy(&f->halves);
}

/* Holes are zeroes, where the file system says where they are. */
static int file_status(struct blk *b, uint64_t off, uint64_t len, struct blk_status *ret)
{
    struct file *f = file_of(b);
    off_t data = f->device ? (off_t)off : lseek(f->fd, (off_t)off, SEEK_DATA), end = -1;

    *ret = (struct blk_status){.place = BLK_AT, .len = len};
    if (data < 0 && errno == ENXIO) /* none until the end */
        ret->place = BLK_ZEROES;
    else if (data > (off_t)off)
        *ret = (struct blk_status){.place = BLK_ZEROES, .len = min_u64((uint64_t)data - off, len)};
    else if (data >= 0 && !f->device)
        end = lseek(f->fd, (off_t)off, SEEK_HOLE);
    if (end > (off_t)off && (uint64_t)end < f->bytes)
        ret->len = min_u64((uint64_t)end - off, len);
    return 0;
}

static int file_resize(struct blk *b, uint64_t size, struct err *err)
{
    struct file *f = file_of(b);

    if (f->device)
        return err_set(err, EINVAL, "%s is a device: its size is what it is", b->name);
    if (size > INT64_MAX || ftruncate(f->fd, (off_t)size))
        return err_set(err, size > INT64_MAX ? EFBIG : errno, "resize %s: %s", b->name,
                       strerror(size > INT64_MAX ? EFBIG : errno));
    f->bytes = size;
    b->lim.size = align_up(size, b->lim.align);
    return 0;
}

const struct blk_driver file_driver = {.name = "file",
                                       .size = sizeof(struct file),
                                       .copies = true,
                                       .rw = file_rw,
                                       .submit = file_submit,
                                       .kick = file_kick,
                                       .status = file_status,
                                       .resize = file_resize,
                                       .close = file_close};

static void open_ring(struct file *f)
{
    struct statfs fs;

    f->memory = !fstatfs(f->fd, &fs) && fs.f_type == TMPFS_MAGIC;
    if (io_uring_queue_init(RING_ENTRIES, &f->ring, 0))
        return;
    if (io_uring_register_files(&f->ring, &f->fd, 1)) {
        io_uring_queue_exit(&f->ring);
        return;
    }
    f->uring = true;
    f->watch = (struct watch){.lane = f->b.lane, .fd = f->ring.ring_fd, .events = EPOLLIN, .ready = ring_ready};
    watch_add(&f->watch);
}

/* ---- Opening. ---- */

static int open_failed(const char *path, int code, bool read_only, bool create, struct err *err)
{
    static const struct {
        int code;
        const char *remedy;
    } remedies[] = {
        {ENOENT, "make an empty disk with: bothy img create FILE 10G"},
        {EACCES, "give yourself access with chmod, or open it with ro"},
        {EPERM, "the file may be immutable (lsattr); open it with ro"},
        {EROFS, "open it with ro"},
        {EISDIR, "a disk is a file or a block device, not a directory"},
        {EINVAL, "its file system may not know O_DIRECT; use cache=writeback"},
    };

    for (size_t i = 0; i < array_len(remedies); i++)
        if (remedies[i].code == code && !(code == EACCES && read_only) && !(code == ENOENT && (create || read_only)))
            return err_set(err, code, "%s: %s; %s", path, strerror(code), remedies[i].remedy);
    return err_set(err, code, "%s: %s", path, strerror(code));
}

/* The smallest alignment of offsets and buffers that O_DIRECT takes here, by trying. */
static uint32_t direct_align(int fd)
{
    cleanup_free char *buf = aligned_alloc(DIRECT_ALIGN_MAX, DIRECT_ALIGN_MAX);

    if (buf && pread(fd, buf + SECTOR, SECTOR, SECTOR) >= 0)
        return SECTOR;
    return DIRECT_ALIGN_MAX;
}

static int measure(struct file *f, const char *name, bool direct, struct err *err)
{
    struct stat st;

    if (fstat(f->fd, &st))
        return err_set(err, errno, "%s: %s", name, strerror(errno));
    f->device = S_ISBLK(st.st_mode);
    if (!f->device && !S_ISREG(st.st_mode))
        return err_set(err, EINVAL, "%s is neither a file nor a block device, so it cannot be a disk", name);
    f->bytes = (uint64_t)st.st_size;
    f->b.lim.align = SECTOR;
    f->mem_align = 1;
    if (f->device) {
        int sector = SECTOR;

        if (ioctl(f->fd, BLKGETSIZE64, &f->bytes) || ioctl(f->fd, BLKSSZGET, &sector))
            return err_set(err, errno, "size of %s: %s", name, strerror(errno));
        if (direct)
            f->b.lim.align = (uint32_t)sector;
    } else if (direct) {
        f->b.lim.align = direct_align(f->fd);
    }
    if (direct)
        f->mem_align = f->b.lim.align;
    f->b.lim.size = align_up(f->bytes, f->b.lim.align);
    return 0;
}

int file_open(const char *path, const char *name, const struct blk_open_opts *o, int flags, struct lane *lane,
              struct blk **ret, struct err *err)
{
    struct file *f = file_of(blk_node(&file_driver, name, lane));
    int direct = o->cache == BLK_CACHE_NONE ? O_DIRECT : 0, rc = 0;

    f->b.lim.read_only = o->read_only;
    f->b.lim.grows = true;
    f->unsafe = o->cache == BLK_CACHE_UNSAFE;
    pthread_mutex_init(&f->halves, NULL);
    f->retry = (struct work){.lane = lane, .done = retry};
    list_init(&f->waiting);
    /* O_NONBLOCK: a pipe must not hold us up before we see that it is one. */
    f->fd = open(path, O_CLOEXEC | O_NONBLOCK | (o->read_only ? O_RDONLY : O_RDWR) | direct | flags, FILE_MODE);
    if (f->fd < 0)
        rc = open_failed(name, errno, o->read_only, flags & O_CREAT, err);
    else
        rc = measure(f, name, direct, err);
    if (!rc && !o->unlocked)
        rc = file_lock(f->fd, !o->read_only, name, err);
    if (!rc && fcntl(f->fd, F_SETFL, direct))
        rc = err_set(err, errno, "%s: %s", name, strerror(errno));
    if (rc) {
        blk_close(&f->b);
        return rc;
    }
    if (lane && !o->workers)
        open_ring(f);
    *ret = &f->b;
    return 0;
}

int file_empty(struct blk *b, struct err *err)
{
    struct file *f = file_of(b);

    if (!f->device && ftruncate(f->fd, 0))
        return err_set(err, errno, "empty %s: %s", b->name, strerror(errno));
    if (!f->device)
        f->bytes = b->lim.size = 0;
    return 0;
}

int file_grown(struct blk *b, struct err *err)
{
    struct file *f = file_of(b);
    struct stat st;

    if (fstat(f->fd, &st))
        return err_set(err, errno, "%s: %s", b->name, strerror(errno));
    f->bytes = (uint64_t)st.st_size;
    b->lim.size = align_up(f->bytes, b->lim.align);
    return 0;
}

static struct file *leaf_of(struct blk *b)
{
    while (b->file)
        b = b->file;
    assert(b->drv == &file_driver);
    return file_of(b);
}

int file_stat(struct blk *b, struct stat *ret)
{
    return fstat(leaf_of(b)->fd, ret) ? -errno : 0;
}

int file_as_disk(struct blk *b, struct err *err)
{
    struct file *f = leaf_of(b);

    if (!f->bytes)
        return err_set(err, EINVAL, "%s is empty; give it a size with: truncate -s 10G %s", b->name, b->name);
    f->b.lim.grows = false;
    if (f->b.lim.size == f->bytes)
        return 0;
    if (f->mem_align > 1)
        return err_set(err, EINVAL,
                       "%s has %" PRIu64 " bytes, not a multiple of %u as cache=none needs; use cache=writeback, or: "
                       "truncate -s %%%u %s",
                       b->name, f->bytes, f->b.lim.align, f->b.lim.align, b->name);
    if (!f->b.lim.read_only)
        log_msg(LOG_WARN, "%s has %" PRIu64 " bytes: its last sector is filled up with zeroes", b->name, f->bytes);
    return 0;
}
