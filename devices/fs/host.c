/* The tree as the host has it: names and attributes are the host's own, and change there. */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "devices/fs/private.h"
#include "vmm/base/cleanup.h"

static int not_ok(int rc)
{
    return rc < 0 ? -errno : 0;
}

/* Only a descriptor tells whether it is; of all else the attributes are enough. */
static bool may_be_hollow(struct fs *fs, const struct statx *st)
{
    return S_ISDIR(st->stx_mode) && st->stx_mnt_id != node_root(fs)->id.mount;
}

/* The node of what `fd` is open on, which is called `name` in `dir`; takes fd. */
static int adopt(struct fs *fs, struct node *dir, const char *name, int fd, struct node **ret, struct statx *st)
{
    struct node *n;
    int rc = fs_statx(fd, st);

    if (!rc && !(n = node_find(fs, st))) {
        rc = node_new(fs, st, &n);
        if (!rc)
            n->hollow = may_be_hollow(fs, st) && fs_is_hollow(fd);
    }
    if (rc) {
        close(fd);
        return rc;
    }
    node_give_fd(fs, n, fd);
    if (name)
        node_place(fs, n, dir, name);
    *ret = n;
    return 0;
}

static int host_lookup(struct fs *fs, struct node *dir, const char *name, struct node **ret, struct statx *st)
{
    struct node *n;
    int at, rc;

    if (dir->id.type != S_IFDIR)
        return -ENOTDIR;
    if (dir->hollow)
        return -ENOENT;
    at = node_fd(fs, dir);
    rc = at < 0 ? at : fs_statx_at(at, name, st);
    if (rc)
        return rc;
    n = node_find(fs, st);
    if (!n && may_be_hollow(fs, st)) {
        rc = fs_open_beneath(at, name);
        return rc < 0 ? rc : adopt(fs, dir, name, rc, ret, st);
    }
    if (!n && (rc = node_new(fs, st, &n)))
        return rc;
    node_place(fs, n, dir, name);
    *ret = n;
    return 0;
}

/* Owner and mode as asked for, whatever the umask is, for what is new in `dir`. */
static int dress(struct fs *fs, struct node *dir, struct node *n, const struct make *m)
{
    int fd = node_fd(fs, n), rc = fd < 0 ? fd : 0;
    struct proc_name at = fs_proc_name(fd);
    mode_t mode = m->mode & 07777;
    struct statx st;

    if (!rc)
        rc = fs_statx(fd, &st);
    if (rc)
        return rc;
    if (fs->privileged) {
        struct statx above;
        bool inherits = !fs_statx(dir->fd, &above) && above.stx_mode & S_ISGID;

        rc = not_ok(fchownat(fd, "", m->uid, inherits ? (gid_t)-1 : m->gid, AT_EMPTY_PATH));
        if (inherits && S_ISDIR(m->mode))
            mode |= S_ISGID;
    } else {
        mode |= st.stx_mode & S_ISGID;
    }
    if (!rc && !S_ISLNK(m->mode))
        rc = not_ok(fchmodat(fs->proc_fd, at.s, mode, 0));
    return rc;
}

static int make_file(struct fs *fs, int dir, struct node *parent, const char *name, const struct make *m,
                     struct node **ret, int *fd)
{
    int flags = (m->flags & ~O_TRUNC) | O_CLOEXEC | O_NOFOLLOW;
    cleanup_fd int file =
        name ? openat(dir, name, flags | O_CREAT | O_EXCL, m->mode & 0777)
             : openat(dir, ".", ((m->flags & ~(O_TRUNC | O_NOFOLLOW)) | O_CLOEXEC) | O_TMPFILE, m->mode & 0777);
    struct statx st;
    int path, rc;

    if (file < 0)
        return -errno;
    path = openat(fs->proc_fd, fs_proc_name(file).s, O_PATH | O_CLOEXEC);
    if (path < 0)
        return -errno;
    rc = adopt(fs, parent, name, path, ret, &st);
    if (!rc)
        *fd = take_fd(&file);
    return rc;
}

static int make_other(int dir, const char *name, const struct make *m)
{
    if (S_ISLNK(m->mode))
        return not_ok(symlinkat(m->target, dir, name));
    if (S_ISDIR(m->mode))
        return not_ok(mkdirat(dir, name, m->mode & 0777));
    assert(S_ISFIFO(m->mode) || S_ISSOCK(m->mode));
    return not_ok(mknodat(dir, name, m->mode & (S_IFMT | 0777), 0));
}

static int host_make(struct fs *fs, struct node *dir, const char *name, const struct make *m, struct node **ret,
                     int *fd)
{
    int at = node_fd(fs, dir), rc;
    struct statx st;
    struct node *n;

    if (at < 0)
        return at;
    if (S_ISREG(m->mode)) {
        rc = make_file(fs, at, dir, name, m, &n, fd);
    } else {
        rc = make_other(at, name, m);
        if (!rc)
            rc = host_lookup(fs, dir, name, &n, &st);
    }
    if (rc)
        return rc;
    rc = (n->id.type == (m->mode & S_IFMT)) ? dress(fs, dir, n, m) : -ESTALE; /* somebody on the host was faster */
    if (rc) {
        if (name)
            unlinkat(at, name, S_ISDIR(m->mode) ? AT_REMOVEDIR : 0);
        if (*fd >= 0)
            close(take_fd(fd));
        node_release(fs, n);
        return rc;
    }
    *ret = n;
    return 0;
}

static int host_link(struct fs *fs, struct node *n, struct node *dir, const char *name)
{
    int to = node_fd(fs, dir), from = node_fd(fs, n), rc;

    if (to < 0 || from < 0)
        return to < 0 ? to : from;
    rc = not_ok(linkat(fs->proc_fd, fs_proc_name(from).s, to, name, AT_SYMLINK_FOLLOW));
    if (!rc)
        node_place(fs, n, dir, name);
    return rc;
}

/* The node that we know by that name, with a descriptor, so that it outlives the name; NULL: none. */
static struct node *known(struct fs *fs, struct node *dir, int at, const char *name)
{
    struct statx st;
    struct node *n;

    if (fs_statx_at(at, name, &st) || !(n = node_find(fs, &st)))
        return NULL;
    if (n->parent == dir && !strcmp(n->name, name)) {
        if (node_fd(fs, n) >= 0)
            return n;
    }
    node_release(fs, n);
    return NULL;
}

static int host_remove(struct fs *fs, struct node *dir, const char *name, bool is_dir)
{
    int at = node_fd(fs, dir), rc;
    struct node *n;

    if (at < 0)
        return at;
    n = known(fs, dir, at, name);
    rc = not_ok(unlinkat(at, name, is_dir ? AT_REMOVEDIR : 0));
    if (n) {
        if (!rc)
            node_place(fs, n, NULL, NULL);
        node_release(fs, n);
    }
    return rc;
}

static int host_rename(struct fs *fs, struct node *dir, const char *name, struct node *to, const char *new_name,
                       unsigned flags)
{
    int at = node_fd(fs, dir), there = node_fd(fs, to), rc;
    struct node *n, *old;

    if (at < 0 || there < 0)
        return at < 0 ? at : there;
    n = known(fs, dir, at, name);
    old = known(fs, to, there, new_name);
    rc = not_ok((int)syscall(SYS_renameat2, at, name, there, new_name, flags));
    if (!rc && n == old && n) /* two names of one file: nothing happened */
        node_release(fs, take_ptr(old));
    if (!rc && old)
        node_place(fs, old, flags & RENAME_EXCHANGE ? dir : NULL, name);
    if (!rc && n)
        node_place(fs, n, to, new_name);
    if (n)
        node_release(fs, n);
    if (old)
        node_release(fs, old);
    return rc;
}

static struct timespec time_of(bool set, bool now, uint64_t s, uint32_t ns)
{
    if (!set)
        return (struct timespec){.tv_nsec = UTIME_OMIT};
    return now ? (struct timespec){.tv_nsec = UTIME_NOW} : (struct timespec){.tv_sec = (time_t)s, .tv_nsec = ns};
}

static int truncate_to(struct fs *fs, int path, int fd, uint64_t size)
{
    cleanup_fd int mine = -1;

    if (fd < 0) {
        mine = fd = openat(fs->proc_fd, fs_proc_name(path).s, O_WRONLY | O_CLOEXEC);
        if (fd < 0)
            return -errno;
    }
    return not_ok(ftruncate(fd, (off_t)size));
}

static int host_change(struct fs *fs, struct node *n, int fd, const struct fuse_setattr_in *c)
{
    int path = node_fd(fs, n), rc = 0;
    struct proc_name at = fs_proc_name(path);
    bool kill = c->valid & FATTR_KILL_SUIDGID;
    struct statx st;

    if (path < 0)
        return path;
    if (c->valid & FATTR_MODE)
        rc = n->id.type == S_IFLNK ? -EOPNOTSUPP : not_ok(fchmodat(fs->proc_fd, at.s, c->mode, 0));
    if (!rc && c->valid & (FATTR_UID | FATTR_GID))
        rc = not_ok(fchownat(path, "", c->valid & FATTR_UID ? c->uid ? c->uid : fs->root_uid : (uid_t)-1,
                             c->valid & FATTR_GID ? c->gid ? c->gid : fs->root_gid : (gid_t)-1, AT_EMPTY_PATH));
    if (!rc && c->valid & FATTR_SIZE)
        rc = truncate_to(fs, path, fd, c->size);
    if (!rc && kill && !fs_statx(path, &st) && st.stx_mode & (S_ISUID | S_ISGID) && n->id.type == S_IFREG)
        rc = not_ok(fchmodat(fs->proc_fd, at.s,
                             st.stx_mode & 07777 & ~(mode_t)(S_ISUID | (st.stx_mode & S_IXGRP ? S_ISGID : 0)), 0));
    if (!rc && c->valid & (FATTR_ATIME | FATTR_MTIME)) {
        const struct timespec ts[2] = {
            time_of(c->valid & FATTR_ATIME, c->valid & FATTR_ATIME_NOW, c->atime, c->atimensec),
            time_of(c->valid & FATTR_MTIME, c->valid & FATTR_MTIME_NOW, c->mtime, c->mtimensec)};

        rc = not_ok(utimensat(fs->proc_fd, at.s, ts, 0));
    }
    return rc;
}

static int host_readlink(struct fs *fs, struct node *n, char *buf, size_t size)
{
    int fd = node_fd(fs, n);
    ssize_t len = fd < 0 ? fd : readlinkat(fd, "", buf, size);

    return fd < 0 ? fd : len < 0 ? -errno : (int)len;
}

static int host_open(struct fs *fs, struct node *n, int flags)
{
    int fd = node_fd(fs, n);

    assert(n->id.type == S_IFREG); /* opening anything else may do something */
    if (fd < 0)
        return fd;
    fd = openat(fs->proc_fd, fs_proc_name(fd).s, flags | O_CLOEXEC | O_NOCTTY);
    return fd < 0 ? -errno : fd;
}

static int host_open_dir(struct fs *fs, struct node *n, int *ret)
{
    int fd = node_fd(fs, n);

    if (fd < 0 || n->hollow)
        return fd < 0 ? fd : 0;
    fd = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    *ret = fd;
    return 0;
}

static int host_list(struct fs *fs, struct node *n, int fd, struct listing *l)
{
    _Alignas(struct dirent64) char buf[32768];
    ssize_t got;
    int rc = 0;

    if (fd < 0) {
        rc = listing_add(fs, l, node_ino(fs, n, n->id.ino), DT_DIR, ".");
        return rc ? rc : listing_add(fs, l, node_ino(fs, n, n->id.ino), DT_DIR, "..");
    }
    if (lseek(fd, 0, SEEK_SET) < 0)
        return -errno;
    while (!rc && (got = getdents64(fd, buf, sizeof(buf))) > 0)
        for (ssize_t at = 0; at < got && !rc;) {
            const struct dirent64 *d = (const struct dirent64 *)(buf + at);

            if (strlen(d->d_name) <= NAME_MAX)
                rc = listing_add(fs, l, node_ino(fs, n, d->d_ino), d->d_type, d->d_name);
            at += d->d_reclen;
        }
    return rc ? rc : not_ok((int)got);
}

static int host_xattr_path(struct fs *fs, struct node *n, bool write, char *buf, size_t size)
{
    int fd = node_fd(fs, n);

    (void)write;
    if (fd < 0)
        return fd;
    if (n->id.type != S_IFREG && n->id.type != S_IFDIR)
        return -EOPNOTSUPP;
    snprintf(buf, size, "/proc/self/fd/%d", fd);
    return 0;
}

static int host_statfs(struct fs *fs, struct node *n, int *ret)
{
    int fd = node_fd(fs, n);

    *ret = fd;
    return fd < 0 ? fd : 0;
}

const struct tree host_tree = {
    .lookup = host_lookup,
    .make = host_make,
    .link = host_link,
    .remove = host_remove,
    .rename = host_rename,
    .stat = node_stat,
    .change = host_change,
    .readlink = host_readlink,
    .open = host_open,
    .open_dir = host_open_dir,
    .list = host_list,
    .xattr_path = host_xattr_path,
    .statfs = host_statfs,
};
