/* Operations on names. */
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <unistd.h>

#include "devices/fs/private.h"
#include "vmm/base/cleanup.h"

/* The last name of a request: nothing follows it. */
static int last_name(struct call *c, const char **ret)
{
    int rc = call_name(c, ret);

    return rc ? rc : c->rest_len ? -EINVAL : 0;
}

/* Answers with the node, which has those attributes, and lets go of it. */
static int reply_entry(struct fs *fs, struct node *n, const struct statx *st)
{
    call_entry(fs, n, st, (struct fuse_entry_out *)fs->reply);
    node_release(fs, n);
    return sizeof(struct fuse_entry_out);
}

/* The same for one that has just changed. */
static int reply_changed(struct fs *fs, struct node *n)
{
    struct statx st;
    int rc = fs->tree->stat(fs, n, &st);

    if (!rc)
        return reply_entry(fs, n, &st);
    node_release(fs, n);
    return rc;
}

int op_lookup(struct fs *fs, struct call *c, const void *args)
{
    struct statx st;
    struct node *n;
    const char *name;
    int rc = last_name(c, &name);

    (void)args;
    if (!rc)
        rc = fs->tree->lookup(fs, c->node, name, &n, &st);
    if (rc == -ENOENT && fs->cache == FS_CACHE_ALWAYS) { /* that it is not there may be remembered, too */
        *(struct fuse_entry_out *)fs->reply = (struct fuse_entry_out){.entry_valid = fs_timeout(fs)};
        return sizeof(struct fuse_entry_out);
    }
    if (rc)
        return rc;
    /* Who is in there does not look for it again.  So it gets its descriptor, which it soon needs anyway, while the
     * name is right: the host may rename it. */
    if (n->id.type == S_IFDIR)
        node_fd(fs, n);
    return reply_entry(fs, n, &st);
}

static int make(struct fs *fs, struct call *c, const struct make *m)
{
    cleanup_fd int fd = -1;
    struct node *n;
    const char *name;
    struct make whose = *m;
    int rc = last_name(c, &name);

    whose.uid = c->h.uid;
    whose.gid = c->h.gid;
    if (!rc)
        rc = fs->tree->make(fs, c->node, name, &whose, &n, &fd);
    return rc ? rc : reply_changed(fs, n);
}

int op_mknod(struct fs *fs, struct call *c, const void *args)
{
    const struct fuse_mknod_in *in = args;
    struct make m = {.mode = in->mode, .flags = O_RDONLY};

    if (!S_ISREG(in->mode) && !S_ISFIFO(in->mode) && !S_ISSOCK(in->mode))
        return -EPERM;
    return make(fs, c, &m);
}

int op_mkdir(struct fs *fs, struct call *c, const void *args)
{
    const struct fuse_mkdir_in *in = args;

    return make(fs, c, &(struct make){.mode = S_IFDIR | (in->mode & 07777)});
}

/* The request has the name first, then the target. */
int op_symlink(struct fs *fs, struct call *c, const void *args)
{
    const char *name, *target, *end;
    struct node *n;
    int fd = -1, rc = call_name(c, &name);

    (void)args;
    if (rc)
        return rc;
    target = c->rest;
    end = memchr(target, 0, c->rest_len);
    if (!end || end == target || end + 1 != target + c->rest_len)
        return -EINVAL;
    if (end - target >= PATH_MAX)
        return -ENAMETOOLONG;
    rc = fs->tree->make(fs, c->node, name,
                        &(struct make){.mode = S_IFLNK | 0777, .uid = c->h.uid, .gid = c->h.gid, .target = target}, &n,
                        &fd);
    return rc ? rc : reply_changed(fs, n);
}

static int drop(struct fs *fs, struct call *c, bool is_dir)
{
    const char *name;
    int rc = last_name(c, &name);

    return rc ? rc : fs->tree->remove(fs, c->node, name, is_dir);
}

int op_unlink(struct fs *fs, struct call *c, const void *args)
{
    (void)args;
    return drop(fs, c, false);
}

int op_rmdir(struct fs *fs, struct call *c, const void *args)
{
    (void)args;
    return drop(fs, c, true);
}

static int do_rename(struct fs *fs, struct call *c, uint64_t newdir, uint32_t flags)
{
    struct node *to = node_by_id(fs, newdir);
    const char *name, *new_name;
    int rc = call_name(c, &name);

    if (!rc)
        rc = last_name(c, &new_name);
    if (rc)
        return rc;
    if (!to)
        return -ESTALE;
    if (to->hollow)
        return -EROFS;
    if (flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE) || flags == (RENAME_NOREPLACE | RENAME_EXCHANGE))
        return -EINVAL;
    return fs->tree->rename(fs, c->node, name, to, new_name, flags);
}

int op_rename(struct fs *fs, struct call *c, const void *args)
{
    const struct fuse_rename_in *in = args;

    return do_rename(fs, c, in->newdir, 0);
}

int op_rename2(struct fs *fs, struct call *c, const void *args)
{
    const struct fuse_rename2_in *in = args;

    return do_rename(fs, c, in->newdir, in->flags);
}

int op_link(struct fs *fs, struct call *c, const void *args)
{
    const struct fuse_link_in *in = args;
    struct node *n = node_by_id(fs, in->oldnodeid);
    const char *name;
    int rc = last_name(c, &name);

    if (rc)
        return rc;
    if (!n)
        return -ESTALE;
    if (n->id.type == S_IFDIR)
        return -EPERM;
    rc = fs->tree->link(fs, n, c->node, name);
    if (rc)
        return rc;
    node_hold(n);
    return reply_changed(fs, n);
}

/* Entry and handle of what was just made. */
static int reply_created(struct fs *fs, struct node *n, int fd, uint32_t flags)
{
    struct fuse_entry_out *entry = (struct fuse_entry_out *)fs->reply;
    struct fuse_open_out *open = (struct fuse_open_out *)(entry + 1);
    struct statx st;
    int rc = file_opened(fs, n, fd, flags, open);

    if (!rc) {
        rc = fs->tree->stat(fs, n, &st);
        if (rc)
            handle_put(fs, handle_by_id(fs, open->fh, n, false));
        else
            call_entry(fs, n, &st, entry);
    }
    node_release(fs, n);
    return rc ? rc : (int)(sizeof(*entry) + sizeof(*open));
}

int op_create(struct fs *fs, struct call *c, const void *args)
{
    const struct fuse_create_in *in = args;
    struct make m = {.mode = S_IFREG | (in->mode & 07777), .uid = c->h.uid, .gid = c->h.gid};
    struct statx st;
    struct node *n;
    const char *name;
    int fd = -1, rc = last_name(c, &name);

    if (!rc)
        rc = file_flags(fs, in->flags, &m.flags);
    if (rc)
        return rc;
    rc = fs->tree->make(fs, c->node, name, &m, &n, &fd);
    if (rc == -EEXIST && !(in->flags & O_EXCL)) { /* somebody else was faster; it need not be a file */
        rc = fs->tree->lookup(fs, c->node, name, &n, &st);
        if (rc)
            return rc;
        rc = fd = n->id.type == S_IFREG ? node_open(fs, n, m.flags, in->open_flags) : -EEXIST;
        if (rc < 0)
            node_release(fs, n);
    }
    return rc < 0 ? rc : reply_created(fs, n, fd, in->flags);
}

int op_tmpfile(struct fs *fs, struct call *c, const void *args)
{
    const struct fuse_create_in *in = args;
    struct make m = {.mode = S_IFREG | (in->mode & 07777), .uid = c->h.uid, .gid = c->h.gid};
    struct node *n;
    int fd = -1, rc = file_flags(fs, in->flags, &m.flags);

    if (!rc)
        rc = fs->tree->make(fs, c->node, NULL, &m, &n, &fd);
    return rc ? rc : reply_created(fs, n, fd, in->flags);
}
