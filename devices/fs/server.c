/* Requests: taken apart, checked, handed to their operation, answered. */
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "devices/fs/private.h"
#include "vmm/base/cleanup.h"
#include "vmm/mem/iov.h"

const char *const fs_mode_words[] = {[FS_RO] = "ro", [FS_RW] = "rw", [FS_COW] = "cow", NULL};
const char *const fs_cache_words[] = {
    [FS_CACHE_AUTO] = "auto", [FS_CACHE_ALWAYS] = "always", [FS_CACHE_NONE] = "none", NULL};
const char *const fs_owner_words[] = {
    [FS_OWNER_AUTO] = "auto", [FS_OWNER_HOST] = "host", [FS_OWNER_ROOT] = "root", NULL};

enum {
    MINOR_LEAST = 31,            /* the first with virtio-fs */
    MAX_PAGES = READ_MAX / 4096, /* of one request */
    BACKGROUND = 64,             /* requests that a guest has in flight without anyone waiting for each */
    CONGESTED = 48,
    DAY = 86400,
};

uint32_t fs_timeout(const struct fs *fs)
{
    static const uint32_t seconds[] = {[FS_CACHE_AUTO] = 1, [FS_CACHE_ALWAYS] = DAY, [FS_CACHE_NONE] = 0};

    return seconds[fs->cache];
}

uint64_t fs_ino(struct fs *fs, uint32_t major, uint32_t minor, uint64_t ino)
{
    const struct file_id *root = &node_root(fs)->id;

    return major == root->major && minor == root->minor ? ino : ino ^ (uint64_t)makedev(major, minor) << 44;
}

void fs_attr(struct fs *fs, const struct statx *st, struct fuse_attr *ret)
{
    *ret = (struct fuse_attr){
        .ino = fs_ino(fs, st->stx_dev_major, st->stx_dev_minor, st->stx_ino),
        .size = st->stx_size,
        .blocks = st->stx_blocks,
        .atime = (uint64_t)st->stx_atime.tv_sec,
        .mtime = (uint64_t)st->stx_mtime.tv_sec,
        .ctime = (uint64_t)st->stx_ctime.tv_sec,
        .atimensec = st->stx_atime.tv_nsec,
        .mtimensec = st->stx_mtime.tv_nsec,
        .ctimensec = st->stx_ctime.tv_nsec,
        .mode = st->stx_mode,
        .nlink = st->stx_nlink,
        .uid = st->stx_uid == fs->root_uid ? 0 : st->stx_uid,
        .gid = st->stx_gid == fs->root_gid ? 0 : st->stx_gid,
        /* as Linux packs it: 12 bits of major number between 20 of minor */
        .rdev = (st->stx_rdev_minor & 0xff) | (st->stx_rdev_major & 0xfff) << 8 | (st->stx_rdev_minor & ~0xffu) << 12,
        .blksize = st->stx_blksize,
    };
}

int call_string(struct call *c, const char **ret)
{
    const char *end = memchr(c->rest, 0, c->rest_len);
    size_t len = end ? (size_t)(end - c->rest) : 0;

    if (!len)
        return -EINVAL;
    if (len > NAME_MAX)
        return -ENAMETOOLONG;
    *ret = c->rest;
    c->rest += len + 1;
    c->rest_len -= len + 1;
    return 0;
}

int call_name(struct call *c, const char **ret)
{
    int rc = call_string(c, ret);

    return rc ? rc : strchr(*ret, '/') || !strcmp(*ret, ".") || !strcmp(*ret, "..") ? -EINVAL : 0;
}

void call_entry(struct fs *fs, struct node *n, const struct statx *st, struct fuse_entry_out *ret)
{
    uint32_t seconds = fs_timeout(fs);

    *ret = (struct fuse_entry_out){.nodeid = node_id(n), .entry_valid = seconds, .attr_valid = seconds};
    fs_attr(fs, st, &ret->attr);
    n->lookups++;
}

static fs_op op_init, op_destroy, op_forget, op_batch_forget, op_interrupt;

enum { WRITES = 1, NO_REPLY = 2, ANY_TIME = 4, ANY_NODE = 8 };

/* What is not here is answered with ENOSYS, on which a guest's kernel does it itself (locks, access checks) or without.
 */
static const struct operation {
    fs_op *fn;
    uint16_t args; /* bytes before names and data */
    uint8_t flags;
} operations[] = {
    [FUSE_LOOKUP] = {op_lookup},
    [FUSE_FORGET] = {op_forget, sizeof(struct fuse_forget_in), NO_REPLY},
    [FUSE_BATCH_FORGET] = {op_batch_forget, sizeof(struct fuse_batch_forget_in), NO_REPLY | ANY_NODE},
    [FUSE_GETATTR] = {op_getattr, sizeof(struct fuse_getattr_in)},
    [FUSE_SETATTR] = {op_setattr, sizeof(struct fuse_setattr_in), WRITES},
    [FUSE_READLINK] = {op_readlink},
    [FUSE_SYMLINK] = {op_symlink, 0, WRITES},
    [FUSE_MKNOD] = {op_mknod, sizeof(struct fuse_mknod_in), WRITES},
    [FUSE_MKDIR] = {op_mkdir, sizeof(struct fuse_mkdir_in), WRITES},
    [FUSE_UNLINK] = {op_unlink, 0, WRITES},
    [FUSE_RMDIR] = {op_rmdir, 0, WRITES},
    [FUSE_RENAME] = {op_rename, sizeof(struct fuse_rename_in), WRITES},
    [FUSE_RENAME2] = {op_rename2, sizeof(struct fuse_rename2_in), WRITES},
    [FUSE_LINK] = {op_link, sizeof(struct fuse_link_in), WRITES},
    [FUSE_CREATE] = {op_create, sizeof(struct fuse_create_in), WRITES},
    [FUSE_TMPFILE] = {op_tmpfile, sizeof(struct fuse_create_in), WRITES},
    [FUSE_OPEN] = {op_open, sizeof(struct fuse_open_in)},
    [FUSE_READ] = {op_read, sizeof(struct fuse_read_in)},
    [FUSE_WRITE] = {op_write, sizeof(struct fuse_write_in), WRITES},
    [FUSE_STATFS] = {op_statfs},
    [FUSE_RELEASE] = {op_release, sizeof(struct fuse_release_in)},
    [FUSE_FSYNC] = {op_fsync, sizeof(struct fuse_fsync_in)},
    [FUSE_FLUSH] = {op_flush, sizeof(struct fuse_flush_in)},
    [FUSE_FALLOCATE] = {op_fallocate, sizeof(struct fuse_fallocate_in), WRITES},
    [FUSE_LSEEK] = {op_lseek, sizeof(struct fuse_lseek_in)},
    [FUSE_COPY_FILE_RANGE] = {op_copy_file_range, sizeof(struct fuse_copy_file_range_in), WRITES},
    [FUSE_SYNCFS] = {op_syncfs, sizeof(struct fuse_syncfs_in)},
    [FUSE_OPENDIR] = {op_opendir, sizeof(struct fuse_open_in)},
    [FUSE_READDIR] = {op_readdir, sizeof(struct fuse_read_in)},
    [FUSE_READDIRPLUS] = {op_readdirplus, sizeof(struct fuse_read_in)},
    [FUSE_RELEASEDIR] = {op_releasedir, sizeof(struct fuse_release_in)},
    [FUSE_FSYNCDIR] = {op_fsyncdir, sizeof(struct fuse_fsync_in)},
    [FUSE_SETXATTR] = {op_setxattr, FUSE_COMPAT_SETXATTR_IN_SIZE, WRITES},
    [FUSE_GETXATTR] = {op_getxattr, sizeof(struct fuse_getxattr_in)},
    [FUSE_LISTXATTR] = {op_listxattr, sizeof(struct fuse_getxattr_in)},
    [FUSE_REMOVEXATTR] = {op_removexattr, 0, WRITES},
    [FUSE_INIT] = {op_init, 16 /* what all versions send */, ANY_TIME | ANY_NODE},
    [FUSE_DESTROY] = {op_destroy, 0, ANY_NODE},
    [FUSE_INTERRUPT] = {op_interrupt, sizeof(struct fuse_interrupt_in), NO_REPLY | ANY_NODE},
};

static int op_init(struct fs *fs, struct call *c, const void *args)
{
    const uint32_t wanted = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_DO_READDIRPLUS |
                            FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES |
                            FUSE_HANDLE_KILLPRIV_V2 |
                            (fs->cache == FS_CACHE_ALWAYS ? FUSE_CACHE_SYMLINKS : FUSE_AUTO_INVAL_DATA);
    struct fuse_init_in in;
    struct fuse_init_out *out = (struct fuse_init_out *)fs->reply;

    (void)c;
    memcpy(&in, args, 16);
    *out = (struct fuse_init_out){.major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION};
    if (in.major > FUSE_KERNEL_VERSION)
        return sizeof(*out); /* it asks again */
    if (in.major < FUSE_KERNEL_VERSION || in.minor < MINOR_LEAST)
        return -EPROTO;
    if (fs->jobs)
        return -EBUSY; /* no guest in its right mind */
    fs_reset(fs);
    fs->minor = (uint32_t)min_u64(in.minor, FUSE_KERNEL_MINOR_VERSION);
    out->minor = fs->minor;
    out->max_readahead = in.max_readahead;
    out->flags = in.flags & wanted;
    out->max_background = BACKGROUND;
    out->congestion_threshold = CONGESTED;
    out->max_write = in.flags & FUSE_MAX_PAGES ? MAX_PAGES * 4096 : 32 * 4096;
    out->max_pages = in.flags & FUSE_MAX_PAGES ? MAX_PAGES : 0;
    out->time_gran = 1;
    return sizeof(*out);
}

static int op_destroy(struct fs *fs, struct call *c, const void *args)
{
    (void)c;
    (void)args;
    if (fs->jobs)
        return -EBUSY;
    fs_reset(fs);
    return 0;
}

static int op_forget(struct fs *fs, struct call *c, const void *args)
{
    const struct fuse_forget_in *in = args;

    node_forget(fs, c->node, in->nlookup);
    return 0;
}

static int op_batch_forget(struct fs *fs, struct call *c, const void *args)
{
    const struct fuse_batch_forget_in *in = args;

    for (uint64_t i = 0; i < min_u64(in->count, c->rest_len / sizeof(struct fuse_forget_one)); i++) {
        struct fuse_forget_one one;
        struct node *n;

        memcpy(&one, c->rest + i * sizeof(one), sizeof(one));
        n = node_by_id(fs, one.nodeid);
        if (n)
            node_forget(fs, n, one.nlookup);
    }
    return 0;
}

/* Nothing here takes so long that it is worth it. */
static int op_interrupt(struct fs *fs, struct call *c, const void *args)
{
    (void)fs;
    (void)c;
    (void)args;
    return 0;
}

/* The body is where it belongs already. */
static void answer(struct fs_req *r, int ret)
{
    struct fuse_out_header h = {.unique = r->unique};

    if (r->out_len < sizeof(h))
        return;
    h.error = ret < 0 ? ret : 0;
    h.len = (uint32_t)sizeof(h) + (ret > 0 ? (uint32_t)ret : 0);
    iov_put(r->out, 0, &h, sizeof(h));
    r->written = h.len;
}

static int job_run(struct work *w)
{
    struct fs_req *r = container_of(w, struct fs_req, work);

    return r->job(r);
}

static void job_done(struct work *w, int ret)
{
    struct fs_req *r = container_of(w, struct fs_req, work);

    r->fs->jobs--;
    answer(r, ret);
    for (size_t i = 0; i < array_len(r->handles); i++)
        if (r->handles[i])
            handle_put(r->fs, r->handles[i]);
    r->done(r);
}

int call_submit(struct fs *fs, struct call *c, struct fs_handle *h, int (*job)(struct fs_req *r))
{
    struct fs_req *r = c->r;

    if (h) {
        h->refs++;
        r->handles[0] = h;
        r->fds[0] = h->fd;
    }
    r->job = job;
    r->work = (struct work){.lane = fs->lane, .run = job_run, .done = job_done};
    fs->jobs++;
    work_submit(&r->work);
    return LATER;
}

/* Checks what all requests have in common, and runs it; as an operation. */
static int run(struct fs *fs, struct call *c, size_t got)
{
    const struct operation *op = &operations[c->h.opcode];
    const uint8_t *args = fs->request + sizeof(c->h);

    if (c->h.len != c->r->in_len || c->h.total_extlen || got - sizeof(c->h) < op->args ||
        (c->r->in_len > got && c->h.opcode != FUSE_WRITE))
        return -EINVAL;
    if (!fs->minor && !(op->flags & ANY_TIME))
        return -EIO;
    if (!(op->flags & ANY_NODE) && !(c->node = node_by_id(fs, c->h.nodeid)))
        return -ESTALE;
    if (op->flags & WRITES && (fs->mode == FS_RO || (c->node && c->node->hollow)))
        return -EROFS;
    c->rest = (const char *)args + op->args;
    c->rest_len = got - sizeof(c->h) - op->args;
    nodes_trim(fs);
    return op->fn(fs, c, args);
}

bool fs_request(struct fs *fs, struct fs_req *r)
{
    size_t got = min_u64(r->in_len, sizeof(fs->request));
    struct call c = {.r = r};
    int ret;

    *r = (struct fs_req){.in = r->in,
                         .nin = r->nin,
                         .in_len = r->in_len,
                         .out = r->out,
                         .nout = r->nout,
                         .out_len = r->out_len,
                         .done = r->done,
                         .fs = fs,
                         .handles = {NULL}};
    if (got < sizeof(c.h))
        return true;
    iov_get(r->in, 0, &c.h, sizeof(c.h));
    if (c.h.opcode == FUSE_WRITE) /* the data stays where it is */
        got = min_u64(got, sizeof(c.h) + sizeof(struct fuse_write_in));
    iov_get(r->in, sizeof(c.h), fs->request + sizeof(c.h), got - sizeof(c.h));
    r->unique = c.h.unique;
    c.room = r->out_len > sizeof(struct fuse_out_header) ? r->out_len - sizeof(struct fuse_out_header) : 0;
    if (c.h.opcode >= array_len(operations) || !operations[c.h.opcode].fn) {
        answer(r, -ENOSYS);
        return true;
    }
    ret = run(fs, &c, got);
    if (ret == LATER)
        return false;
    if (operations[c.h.opcode].flags & NO_REPLY)
        return true;
    if (ret > 0 && ret & IN_PLACE)
        ret &= ~IN_PLACE;
    else if (ret > 0 && (size_t)ret > c.room)
        ret = -ERANGE;
    else if (ret > 0)
        iov_put(r->out, sizeof(struct fuse_out_header), fs->reply, (size_t)ret);
    answer(r, ret);
    return true;
}

static int limit_open_files(struct fs *fs, struct err *err)
{
    struct rlimit r;

    if (getrlimit(RLIMIT_NOFILE, &r))
        return err_set(err, errno, "the limit on open files: %s", strerror(errno));
    r.rlim_cur = r.rlim_max;
    setrlimit(RLIMIT_NOFILE, &r);
    if (r.rlim_cur < FILES_MIN)
        return err_set(err, EMFILE,
                       "%s: sharing a directory takes %d open files, and the limit is %llu; raise it (ulimit -n)",
                       fs->dir, FILES_MIN, (unsigned long long)r.rlim_cur);
    fs->open_max = (unsigned)max_u64(OPEN_MIN, min_u64(OPEN_MAX, r.rlim_cur / 8));
    fs->handles = xcalloc(fs->open_max, sizeof(*fs->handles));
    return 0;
}

static int open_dirs(struct fs *fs, struct err *err)
{
    int fd;

    fs->root_fd = open(fs->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fs->root_fd < 0 && errno == ENOTDIR)
        return err_set(err, ENOTDIR,
                       "%s is not a directory; to give a guest one file share the directory that it is in", fs->dir);
    if (fs->root_fd < 0)
        return err_file(err, errno, "a directory to share", fs->dir);
    if (fs_is_hollow(fs->root_fd))
        return err_set(err, EINVAL, "%s: the kernel makes that up; the guest's own kernel has one to mount", fs->dir);
    fs->proc_fd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fs->proc_fd < 0)
        return err_set(err, errno, "/proc/self/fd: %s; sharing directories needs /proc mounted", strerror(errno));
    fd = fs_open_beneath(fs->root_fd, ".");
    if (fd < 0)
        return err_set(err, -fd,
                       "openat2 in %s: %s; sharing directories needs it: Linux 5.6, and a sandbox that lets "
                       "it through",
                       fs->dir, strerror(-fd));
    close(fd);
    return 0;
}

int fs_create(const struct fs_opts *o, struct lane *lane, struct fs **ret, struct err *err)
{
    struct fs *fs = xcalloc(1, sizeof(*fs));
    int rc;

    fs->dir = xstrdup(o->dir);
    fs->mode = o->mode;
    fs->cache = o->cache;
    fs->lane = lane;
    fs->tree = o->mode == FS_COW ? &cow_tree : &host_tree;
    fs->root_fd = fs->proc_fd = -1;
    fs->privileged = !geteuid();
    fs->root_uid = fs->root_gid = 0;
    if (o->owner == FS_OWNER_ROOT || (o->owner == FS_OWNER_AUTO && o->mode == FS_RW)) {
        fs->root_uid = geteuid();
        fs->root_gid = getegid();
    }
    rc = limit_open_files(fs, err);
    if (!rc)
        rc = open_dirs(fs, err);
    if (!rc) {
        rc = nodes_init(fs);
        if (rc)
            err_set(err, -rc, "%s: %s", fs->dir, strerror(-rc));
    }
    if (!rc && o->mode == FS_COW)
        rc = cow_init(fs, err);
    if (rc) {
        fs_destroy(fs);
        return rc;
    }
    *ret = fs;
    return 0;
}

void fs_reset(struct fs *fs)
{
    assert(!fs->jobs);
    handles_drop(fs);
    nodes_drop(fs);
    fs->minor = 0;
}

void fs_destroy(struct fs *fs)
{
    if (!fs)
        return;
    handles_drop(fs);
    nodes_fini(fs);
    cow_fini(fs);
    cleanup_fd_(&fs->root_fd);
    cleanup_fd_(&fs->proc_fd);
    free(fs->handles);
    free(fs->dir);
    free(fs);
}

bool fs_mounted(const struct fs *fs)
{
    return fs->minor;
}
