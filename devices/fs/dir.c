/*
 * Operations on open directories.  A listing is made at the first read and stays until the directory is closed or read
 * from its beginning again, so that positions are plain indices and mean the same all the time.
 */
#include <dirent.h>
#include <limits.h>

#include "devices/fs/private.h"

int op_opendir(struct fs *fs, struct call *c, const void *args)
{
    struct fs_handle *h;
    int fd = -1, rc;

    (void)args;
    if (c->node->id.type != S_IFDIR)
        return -ENOTDIR;
    rc = fs->tree->open_dir(fs, c->node, &fd);
    if (!rc)
        rc = handle_new(fs, c->node, fd, 0, true, &h);
    if (rc)
        return rc;
    *(struct fuse_open_out *)fs->reply =
        (struct fuse_open_out){.fh = handle_id(h), .open_flags = fs->cache == FS_CACHE_ALWAYS ? FOPEN_CACHE_DIR : 0};
    return sizeof(struct fuse_open_out);
}

int op_releasedir(struct fs *fs, struct call *c, const void *args)
{
    const struct fuse_release_in *in = args;
    struct fs_handle *h = handle_by_id(fs, in->fh, c->node, true);

    if (!h)
        return -EBADF;
    h->released = true;
    handle_put(fs, h);
    return 0;
}

int op_fsyncdir(struct fs *fs, struct call *c, const void *args)
{
    const struct fuse_fsync_in *in = args;
    struct fs_handle *h = handle_by_id(fs, in->fh, c->node, true);

    if (!h)
        return -EBADF;
    if (h->fd < 0)
        return 0;
    c->r->flags = in->fsync_flags;
    return call_submit(fs, c, h, file_job_fsync);
}

/* What an entry looks like to the guest, and a reference for it; all zeroes when it has gone meanwhile, or for "." and
 * "..". */
static void look_up(struct fs *fs, struct node *dir, const struct listed *l, struct fuse_entry_out *ret)
{
    char name[NAME_MAX + 1];
    struct statx st;
    struct node *n;

    *ret = (struct fuse_entry_out){0};
    if (l->name[0] == '.' && (l->len == 1 || (l->len == 2 && l->name[1] == '.')))
        return;
    memcpy(name, l->name, l->len);
    name[l->len] = 0;
    if (fs->tree->lookup(fs, dir, name, &n, &st))
        return;
    call_entry(fs, n, &st, ret);
    node_release(fs, n);
}

static int read_dir(struct fs *fs, struct call *c, const struct fuse_read_in *in, bool plus)
{
    struct fs_handle *h = handle_by_id(fs, in->fh, c->node, true);
    size_t room = min_u64(min_u64(in->size, c->room), sizeof(fs->reply)), at = 0;
    uint64_t offset = in->offset; /* the request's place is needed no more once names are looked up */

    if (!h)
        return -EBADF;
    if (!offset || !h->names.filled) {
        int rc;

        listing_clear(fs, &h->names);
        rc = fs->tree->list(fs, c->node, h->fd, &h->names);
        if (rc)
            return rc;
        h->names.filled = true;
    }
    for (; offset < h->names.n; offset++) {
        struct listed l = listing_get(&h->names, (unsigned)offset);
        struct fuse_dirent d = {.ino = l.ino, .off = offset + 1, .namelen = l.len, .type = l.type};
        size_t head = plus ? sizeof(struct fuse_entry_out) : 0, len = FUSE_REC_ALIGN(head + FUSE_NAME_OFFSET + l.len);

        if (len > room - at)
            break;
        memset(fs->reply + at, 0, len);
        if (plus) {
            struct fuse_entry_out e;

            look_up(fs, c->node, &l, &e);
            if (e.nodeid)
                d.ino = e.attr.ino;
            memcpy(fs->reply + at, &e, sizeof(e));
        }
        memcpy(fs->reply + at + head, &d, FUSE_NAME_OFFSET);
        memcpy(fs->reply + at + head + FUSE_NAME_OFFSET, l.name, l.len);
        at += len;
    }
    return at || offset >= h->names.n ? (int)at : -EINVAL; /* no room for even one */
}

int op_readdir(struct fs *fs, struct call *c, const void *args)
{
    return read_dir(fs, c, args, false);
}

int op_readdirplus(struct fs *fs, struct call *c, const void *args)
{
    return read_dir(fs, c, args, true);
}
