/* Operations on attributes, plain and extended, and on the file system's. */
#include <fcntl.h>
#include <limits.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

#include "devices/fs/private.h"

int op_getattr(struct fs *fs, struct call *c, const void *args)
{
    struct fuse_attr_out *out = (struct fuse_attr_out *)fs->reply;
    struct statx st;
    int rc = fs->tree->stat(fs, c->node, &st);

    (void)args; /* a handle's file is the node's */
    if (rc)
        return rc;
    *out = (struct fuse_attr_out){.attr_valid = fs_timeout(fs)};
    fs_attr(fs, &st, &out->attr);
    return sizeof(*out);
}

int op_setattr(struct fs *fs, struct call *c, const void *args)
{
    struct fuse_setattr_in in = *(const struct fuse_setattr_in *)args;
    struct fs_handle *h = NULL;
    int rc;

    if (in.valid & FATTR_FH && !(h = handle_by_id(fs, in.fh, c->node, false)))
        return -EBADF;
    if (in.valid & FATTR_SIZE && (c->node->id.type != S_IFREG || in.size > INT64_MAX))
        return c->node->id.type == S_IFDIR ? -EISDIR : -EINVAL;
    if (in.atimensec >= 1000000000 || in.mtimensec >= 1000000000)
        return -EINVAL;
    if (in.valid & FATTR_MODE)
        in.mode &= 07777;
    rc = fs->tree->change(fs, c->node, h && (h->flags & O_ACCMODE) != O_RDONLY ? h->fd : -1, &in);
    return rc ? rc : op_getattr(fs, c, args);
}

int op_readlink(struct fs *fs, struct call *c, const void *args)
{
    (void)args;
    if (c->node->id.type != S_IFLNK)
        return -EINVAL;
    return fs->tree->readlink(fs, c->node, (char *)fs->reply, PATH_MAX);
}

int op_statfs(struct fs *fs, struct call *c, const void *args)
{
    struct fuse_statfs_out *out = (struct fuse_statfs_out *)fs->reply;
    struct statvfs sv;
    int fd, rc = fs->tree->statfs(fs, c->node, &fd);

    (void)args;
    if (rc)
        return rc;
    if (fstatvfs(fd, &sv))
        return -errno;
    *out = (struct fuse_statfs_out){.st = {.blocks = sv.f_blocks,
                                           .bfree = sv.f_bfree,
                                           .bavail = sv.f_bavail,
                                           .files = sv.f_files,
                                           .ffree = sv.f_ffree,
                                           .bsize = (uint32_t)sv.f_bsize,
                                           .namelen = NAME_MAX,
                                           .frsize = (uint32_t)sv.f_frsize}};
    return sizeof(*out);
}

/* Only what users may set: labels, capabilities and what else the kernel believes are the host's alone. */
static bool is_users(const char *name)
{
    return !strncmp(name, "user.", 5) && name[5];
}

/* The attribute's name, and a path to the file. */
static int xattr_of(struct fs *fs, struct call *c, bool write, const char **name, char *path, size_t size)
{
    int rc = call_string(c, name);

    if (rc)
        return rc;
    if (!is_users(*name))
        return -EOPNOTSUPP;
    return fs->tree->xattr_path(fs, c->node, write, path, size);
}

int op_setxattr(struct fs *fs, struct call *c, const void *args)
{
    uint32_t size = ((const uint32_t *)args)[0], flags = ((const uint32_t *)args)[1];
    const char *name;
    char path[64];
    int rc = xattr_of(fs, c, true, &name, path, sizeof(path));

    if (rc)
        return rc;
    if (size != c->rest_len || flags & ~(XATTR_CREATE | XATTR_REPLACE))
        return -EINVAL;
    return setxattr(path, name, c->rest, size, (int)flags) ? -errno : 0;
}

/* A value or list of `got` bytes is in fs->reply; the guest has asked for `size` of it, or (0) how long it is. */
static int reply_xattr(struct fs *fs, ssize_t got, uint32_t size)
{
    if (got < 0)
        return -errno;
    if (size)
        return got > size ? -ERANGE : (int)got;
    *(struct fuse_getxattr_out *)fs->reply = (struct fuse_getxattr_out){.size = (uint32_t)got};
    return sizeof(struct fuse_getxattr_out);
}

int op_getxattr(struct fs *fs, struct call *c, const void *args)
{
    const struct fuse_getxattr_in *in = args;
    const char *name;
    char path[64];
    int rc = xattr_of(fs, c, false, &name, path, sizeof(path));

    return rc ? rc : reply_xattr(fs, getxattr(path, name, fs->reply, sizeof(fs->reply)), in->size);
}

int op_listxattr(struct fs *fs, struct call *c, const void *args)
{
    const struct fuse_getxattr_in *in = args;
    char path[64], *names = (char *)fs->request; /* the arguments are read: */
    uint32_t size = in->size;
    ssize_t got, kept = 0;
    int rc = fs->tree->xattr_path(fs, c->node, false, path, sizeof(path));

    if (rc == -EOPNOTSUPP) /* what cannot have any has none */
        return reply_xattr(fs, 0, size);
    if (rc)
        return rc;
    got = listxattr(path, names, XATTR_MAX);
    if (got < 0)
        return -errno;
    for (const char *name = names; name < names + got; name += strlen(name) + 1)
        if (is_users(name)) {
            memcpy(fs->reply + kept, name, strlen(name) + 1);
            kept += (ssize_t)strlen(name) + 1;
        }
    return reply_xattr(fs, kept, size);
}

int op_removexattr(struct fs *fs, struct call *c, const void *args)
{
    const char *name;
    char path[64];
    int rc = xattr_of(fs, c, true, &name, path, sizeof(path));

    (void)args;
    if (rc)
        return rc;
    return removexattr(path, name) ? -errno : 0;
}
