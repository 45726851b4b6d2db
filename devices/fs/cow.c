/*
 * The tree of a share whose changes are thrown away.  The host's files are only read.  What the guest changes is kept
 * with the node: attributes, names and links in memory, the content of files in a temporary directory, to which a
 * file's content is copied when it is first opened for writing.  So a guest may rename and give away whatever it likes,
 * whoever runs bothy.
 *
 * A directory's entries here hide those of the host: one with a node says what the name means, one without that it is
 * gone.  Where a node was placed is where the host has it, whatever it is called in the guest.
 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "devices/fs/private.h"
#include "vmm/base/cleanup.h"

enum {
    UPPERS_MAX = 1 << 19,  /* files with changes */
    ENTRIES_MAX = 1 << 20, /* names with changes */
    ENTRY_BUCKETS = 1 << 16,
    OURS = UINT32_MAX, /* device number of files that the host does not have */
};

struct upper {
    struct statx st; /* size, blocks and times: of the data, where there is any */
    uint64_t data;   /* its name; 0: the content is the host's, or none */
    char *target;    /* of a symbolic link */
    bool own;        /* the host has no such file */
    struct list entries;
};

struct entry {
    struct list link;
    struct entry *next; /* in its bucket */
    struct node *dir, *node;
    char name[];
};

struct cow {
    char *path;
    int dir;       /* of the data, locked as long as we live */
    uint64_t last; /* number given to data or a file */
    unsigned uppers, entries;
    struct entry *buckets[ENTRY_BUCKETS];
};

static struct proc_name data_name(uint64_t number)
{
    struct proc_name ret;

    snprintf(ret.s, sizeof(ret.s), "%llu", (unsigned long long)number);
    return ret;
}

/* ---- Entries ---- */

static struct entry **entry_at(struct cow *w, const struct node *dir, const char *name)
{
    uint64_t h = 0xcbf29ce484222325 ^ dir->slot; /* FNV-1a */
    struct entry **at;

    for (const char *p = name; *p; p++)
        h = (h ^ (uint8_t)*p) * 0x100000001b3;
    at = &w->buckets[(h ^ h >> 32) % ENTRY_BUCKETS];
    while (*at && ((*at)->dir != dir || strcmp((*at)->name, name)))
        at = &(*at)->next;
    return at;
}

/* For nodes that go, with all that they have, or where there is no node. */
static void entry_free(struct cow *w, struct entry *e)
{
    *entry_at(w, e->dir, e->name) = e->next;
    list_del(&e->link);
    free(e);
    w->entries--;
}

/* What the name means now. */
static void entry_set(struct fs *fs, struct entry *e, struct node *n)
{
    if (n)
        node_hold(n);
    if (e->node)
        node_release(fs, e->node);
    e->node = n;
}

/* The entry of that name; a new one says what is so already. */
static int entry_need(struct fs *fs, struct node *dir, const char *name, struct node *now, struct entry **ret)
{
    struct cow *w = fs->cow;
    struct entry **at = entry_at(w, dir, name), *e = *at;

    if (!e) {
        if (w->entries == ENTRIES_MAX || !(e = malloc(sizeof(*e) + strlen(name) + 1)))
            return -ENOSPC;
        *e = (struct entry){.dir = dir};
        strcpy(e->name, name);
        entry_set(fs, e, now);
        list_add_tail(&dir->up->entries, &e->link);
        *at = e;
        w->entries++;
    }
    *ret = e;
    return 0;
}

/* The name means nothing any more. */
static void entry_hide(struct fs *fs, struct entry *e)
{
    int fd = e->dir->up->own ? -ENOENT : node_fd(fs, e->dir);
    struct stat st;

    entry_set(fs, e, NULL);
    if (fd == -ENOENT || (fd >= 0 && fstatat(fd, e->name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT)))
        entry_free(fs->cow, e);
}

/* ---- Changed files ---- */

static struct statx_timestamp now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (struct statx_timestamp){.tv_sec = ts.tv_sec, .tv_nsec = (uint32_t)ts.tv_nsec};
}

/* Its changes are kept as long as it has a name: one reference. */
static int upper_new(struct fs *fs, struct node *n, const struct statx *st)
{
    struct upper *up = fs->cow->uppers < UPPERS_MAX ? calloc(1, sizeof(*up)) : NULL;

    if (!up)
        return -ENOSPC;
    fs->cow->uppers++;
    up->st = *st;
    if (S_ISDIR(st->stx_mode))
        up->st.stx_nlink = 1; /* links of directories in it are not counted */
    list_init(&up->entries);
    n->up = up;
    if (up->st.stx_nlink)
        node_hold(n);
    return 0;
}

static int upper_of(struct fs *fs, struct node *n)
{
    struct statx st;
    int rc;

    if (n->up)
        return 0;
    rc = host_tree.stat(fs, n, &st);
    return rc ? rc : upper_new(fs, n, &st);
}

static void cow_drop(struct fs *fs, struct node *n)
{
    struct upper *up = n->up;

    if (!up)
        return;
    while (!list_empty(&up->entries))
        entry_free(fs->cow, container_of(up->entries.next, struct entry, link));
    if (up->data)
        unlinkat(fs->cow->dir, data_name(up->data).s, 0);
    free(up->target);
    free(up);
    n->up = NULL;
    fs->cow->uppers--;
}

static void lost_name(struct fs *fs, struct node *n)
{
    n->up->st.stx_ctime = now();
    if (n->up->st.stx_nlink && !--n->up->st.stx_nlink)
        node_release(fs, n);
}

static void touched(struct node *dir)
{
    dir->up->st.stx_mtime = dir->up->st.stx_ctime = now();
}

/* ---- Content ---- */

static int data_open(struct fs *fs, uint64_t data, int flags)
{
    int fd = openat(fs->cow->dir, data_name(data).s, flags | O_CLOEXEC | O_NOFOLLOW, 0600);

    return fd < 0 ? -errno : fd;
}

static int copy(int from, int to, off_t size)
{
    for (off_t at = 0, end; at < size; at = end) {
        at = lseek(from, at, SEEK_DATA);
        if (at < 0 && errno == ENXIO)
            break; /* a hole to the end */
        end = at < 0 ? -1 : lseek(from, at, SEEK_HOLE);
        if (end < 0 || lseek(to, at, SEEK_SET) < 0)
            return -errno;
        end = (off_t)min_u64((uint64_t)end, (uint64_t)size);
        while (at < end) {
            ssize_t n = sendfile(to, from, &at, (size_t)(end - at));

            if (n < 0)
                return -errno;
            if (!n)
                return 0; /* it has become shorter */
        }
    }
    return ftruncate(to, size) ? -errno : 0;
}

static struct timespec timespec_of(const struct statx_timestamp *t)
{
    return (struct timespec){.tv_sec = (time_t)t->tv_sec, .tv_nsec = t->tv_nsec};
}

static int set_times(struct fs *fs, uint64_t data, const struct statx *st)
{
    const struct timespec ts[2] = {timespec_of(&st->stx_atime), timespec_of(&st->stx_mtime)};

    return utimensat(fs->cow->dir, data_name(data).s, ts, 0) ? -errno : 0;
}

/* Those that have the host's file open get ours, at the same number. */
static int turn_handles(struct fs *fs, struct node *n, int fd)
{
    for (unsigned i = 0; i < fs->nhandles && n->handles; i++) {
        struct fs_handle *h = &fs->handles[i];

        if (h->refs && h->node == n && dup3(fd, h->fd, O_CLOEXEC) < 0)
            return -errno;
    }
    return 0;
}

/* The file's first `most` bytes are ours from now on. */
static int copy_up(struct fs *fs, struct node *n, uint64_t most)
{
    cleanup_fd int from = -1, to = -1;
    struct statx st;
    uint64_t data;
    int rc = upper_of(fs, n);

    if (rc || n->up->data)
        return rc;
    from = host_tree.open(fs, n, O_RDONLY);
    if (from < 0)
        return from;
    data = ++fs->cow->last;
    to = data_open(fs, data, O_RDWR | O_CREAT | O_EXCL);
    if (to < 0)
        return to;
    rc = fs_statx(from, &st);
    if (!rc && (most < st.stx_size || ioctl(to, FICLONE, from)))
        rc = copy(from, to, (off_t)min_u64(most, st.stx_size));
    if (!rc)
        rc = set_times(fs, data, &n->up->st);
    if (!rc)
        rc = turn_handles(fs, n, to);
    if (rc)
        unlinkat(fs->cow->dir, data_name(data).s, 0);
    else
        n->up->data = data;
    return rc;
}

/* ---- The tree ---- */

static int cow_stat(struct fs *fs, struct node *n, struct statx *ret)
{
    struct statx data;

    if (!n->up)
        return host_tree.stat(fs, n, ret);
    *ret = n->up->st;
    if (!n->up->data)
        return 0;
    if (statx(fs->cow->dir, data_name(n->up->data).s, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &data))
        return -errno;
    ret->stx_size = data.stx_size;
    ret->stx_blocks = data.stx_blocks;
    ret->stx_atime = data.stx_atime;
    ret->stx_mtime = data.stx_mtime;
    if (data.stx_ctime.tv_sec > ret->stx_ctime.tv_sec)
        ret->stx_ctime = data.stx_ctime;
    return 0;
}

static int cow_lookup(struct fs *fs, struct node *dir, const char *name, struct node **ret, struct statx *st)
{
    struct entry *e = dir->up ? *entry_at(fs->cow, dir, name) : NULL;
    struct node *n;
    int rc = 0;

    if (dir->id.type != S_IFDIR)
        return -ENOTDIR;
    if (e && e->node)
        node_hold(n = e->node);
    else if (e || (dir->up && dir->up->own))
        return -ENOENT;
    else
        rc = host_tree.lookup(fs, dir, name, &n, st);
    if (rc)
        return rc;
    if (n->up && !n->up->st.stx_nlink && !e) { /* the host has given it one more name, after it lost all here */
        n->up->st.stx_nlink = 1;
        node_hold(n);
    }
    rc = n->up ? cow_stat(fs, n, st) : 0;
    if (rc)
        node_release(fs, n);
    else
        *ret = n;
    return rc;
}

/* The entry for something new; -EEXIST when there is something. */
static int entry_new(struct fs *fs, struct node *dir, const char *name, struct entry **ret)
{
    struct statx st;
    struct node *old;
    int rc = cow_lookup(fs, dir, name, &old, &st);

    if (!rc) {
        node_release(fs, old);
        return -EEXIST;
    }
    if (rc == -ENOENT)
        rc = upper_of(fs, dir);
    if (!rc && !dir->up->st.stx_nlink)
        rc = -ENOENT;
    return rc ? rc : entry_need(fs, dir, name, NULL, ret);
}

static int node_make(struct fs *fs, struct node *dir, const struct make *m, bool named, struct node **ret)
{
    struct statx st = {.stx_mask = STATX_BASIC_STATS,
                       .stx_blksize = 4096,
                       .stx_nlink = named,
                       .stx_uid = m->uid,
                       .stx_gid = m->gid,
                       .stx_mode = (uint16_t)m->mode,
                       .stx_ino = ++fs->cow->last,
                       .stx_size = m->target ? strlen(m->target) : 0,
                       .stx_dev_major = OURS,
                       .stx_dev_minor = OURS};
    struct statx above;
    int rc = fs->tree->stat(fs, dir, &above);

    if (rc)
        return rc;
    st.stx_atime = st.stx_mtime = st.stx_ctime = now();
    if (above.stx_mode & S_ISGID) {
        st.stx_gid = above.stx_gid;
        st.stx_mode |= S_ISDIR(m->mode) ? S_ISGID : 0;
    }
    rc = node_new(fs, &st, ret);
    if (rc)
        return rc;
    rc = upper_new(fs, *ret, &st);
    if (rc)
        node_release(fs, *ret);
    else
        (*ret)->up->own = true;
    return rc;
}

static int cow_make(struct fs *fs, struct node *dir, const char *name, const struct make *m, struct node **ret, int *fd)
{
    struct entry *e = NULL;
    struct node *n;
    int rc = name ? entry_new(fs, dir, name, &e) : 0;

    if (!rc)
        rc = node_make(fs, dir, m, name, &n);
    if (rc) {
        if (e)
            entry_hide(fs, e);
        return rc;
    }
    if (m->target && !(n->up->target = strdup(m->target)))
        rc = -ENOMEM;
    if (S_ISREG(m->mode)) {
        n->up->data = ++fs->cow->last;
        rc = data_open(fs, n->up->data, (m->flags & ~O_ACCMODE) | O_RDWR | O_CREAT | O_EXCL);
        if (rc >= 0)
            *fd = rc;
        else
            n->up->data = 0;
    }
    if (rc < 0) {
        if (e) {
            entry_hide(fs, e);
            lost_name(fs, n);
        }
        node_release(fs, n);
        return rc;
    }
    if (e) {
        entry_set(fs, e, n);
        touched(dir);
    }
    *ret = n;
    return 0;
}

static int cow_link(struct fs *fs, struct node *n, struct node *dir, const char *name)
{
    struct entry *e;
    int rc = upper_of(fs, n);

    if (!rc)
        rc = entry_new(fs, dir, name, &e);
    if (rc)
        return rc;
    entry_set(fs, e, n);
    if (!n->up->st.stx_nlink++)
        node_hold(n);
    n->up->st.stx_ctime = now();
    touched(dir);
    return 0;
}

static int cow_list(struct fs *fs, struct node *n, int fd, struct listing *l);

static int check_empty(struct fs *fs, struct node *n)
{
    cleanup_fd int fd = -1;
    struct listing l = {0};
    int rc = fs->tree->open_dir(fs, n, &fd);

    if (!rc)
        rc = cow_list(fs, n, fd, &l);
    if (!rc && l.n > 2) /* . and .. */
        rc = -ENOTEMPTY;
    listing_clear(fs, &l);
    return rc;
}

/* May `old` go: to rmdir(2), or for a directory that takes its name (`for_dir`); else to unlink(2), or for a file? */
static int check_goes(struct fs *fs, struct node *old, bool for_dir)
{
    if (old->hollow)
        return -EBUSY;
    if (old->id.type != S_IFDIR)
        return for_dir ? -ENOTDIR : 0;
    return for_dir ? check_empty(fs, old) : -EISDIR;
}

static int cow_remove(struct fs *fs, struct node *dir, const char *name, bool is_dir)
{
    struct statx st;
    struct entry *e;
    struct node *n;
    int rc = cow_lookup(fs, dir, name, &n, &st);

    if (rc)
        return rc;
    rc = check_goes(fs, n, is_dir);
    if (!rc)
        rc = upper_of(fs, dir);
    if (!rc)
        rc = upper_of(fs, n);
    if (!rc)
        rc = entry_need(fs, dir, name, n, &e);
    if (!rc) {
        entry_hide(fs, e);
        lost_name(fs, n);
        touched(dir);
    }
    node_release(fs, n);
    return rc;
}

/* All that can fail before anything changes; `old` may be NULL. */
static int prepare_rename(struct fs *fs, struct node *n, struct node *dir, const char *name, struct node *to,
                          const char *new_name, struct node *old, struct entry **from, struct entry **there)
{
    int rc = upper_of(fs, n);

    if (!rc)
        rc = upper_of(fs, dir);
    if (!rc)
        rc = upper_of(fs, to);
    if (!rc && !to->up->st.stx_nlink)
        rc = -ENOENT;
    if (!rc && old)
        rc = upper_of(fs, old);
    if (!rc)
        rc = entry_need(fs, dir, name, n, from);
    if (!rc)
        rc = entry_need(fs, to, new_name, old, there);
    return rc;
}

static int cow_rename(struct fs *fs, struct node *dir, const char *name, struct node *to, const char *new_name,
                      unsigned flags)
{
    struct node *n, *old = NULL;
    struct entry *from, *there;
    struct statx st;
    int rc = cow_lookup(fs, dir, name, &n, &st);

    if (rc)
        return rc;
    rc = cow_lookup(fs, to, new_name, &old, &st);
    if (rc == -ENOENT && !(flags & RENAME_EXCHANGE))
        rc = 0;
    if (!rc && old && flags & RENAME_NOREPLACE)
        rc = -EEXIST;
    if (!rc && (n->hollow || n == to))
        rc = n == to ? -EINVAL : -EBUSY;
    if (!rc && old && old != n && !(flags & RENAME_EXCHANGE))
        rc = check_goes(fs, old, n->id.type == S_IFDIR);
    if (!rc && old != n)
        rc = prepare_rename(fs, n, dir, name, to, new_name, old, &from, &there);
    if (!rc && old != n) {
        entry_set(fs, there, n);
        if (flags & RENAME_EXCHANGE)
            entry_set(fs, from, old);
        else
            entry_hide(fs, from);
        if (old && !(flags & RENAME_EXCHANGE))
            lost_name(fs, old);
        n->up->st.stx_ctime = now();
        touched(dir);
        touched(to);
    }
    if (old)
        node_release(fs, old);
    node_release(fs, n);
    return rc;
}

static void set_time(struct statx_timestamp *t, bool to_now, uint64_t s, uint32_t ns)
{
    *t = to_now ? now() : (struct statx_timestamp){.tv_sec = (int64_t)s, .tv_nsec = ns};
}

static int set_size(struct fs *fs, struct node *n, int fd, uint64_t size)
{
    cleanup_fd int mine = -1;
    int rc = copy_up(fs, n, size);

    if (rc)
        return rc;
    if (fd < 0) {
        fd = mine = data_open(fs, n->up->data, O_WRONLY);
        if (fd < 0)
            return fd;
    }
    return ftruncate(fd, (off_t)size) ? -errno : 0;
}

static int cow_change(struct fs *fs, struct node *n, int fd, const struct fuse_setattr_in *c)
{
    bool owner = c->valid & (FATTR_UID | FATTR_GID), times = c->valid & (FATTR_ATIME | FATTR_MTIME);
    struct statx st, *mine;
    int rc = upper_of(fs, n);

    if (!rc && c->valid & FATTR_SIZE)
        rc = set_size(fs, n, fd, c->size);
    if (!rc)
        rc = cow_stat(fs, n, &st);
    if (rc)
        return rc;
    mine = &n->up->st;
    if (c->valid & FATTR_UID)
        mine->stx_uid = c->uid;
    if (c->valid & FATTR_GID)
        mine->stx_gid = c->gid;
    if (c->valid & FATTR_MODE)
        mine->stx_mode = (uint16_t)((mine->stx_mode & S_IFMT) | c->mode);
    else if ((owner || c->valid & FATTR_KILL_SUIDGID) && n->id.type != S_IFDIR)
        mine->stx_mode &= (uint16_t) ~(S_ISUID | (mine->stx_mode & S_IXGRP ? S_ISGID : 0));
    if (c->valid & FATTR_ATIME)
        set_time(&st.stx_atime, c->valid & FATTR_ATIME_NOW, c->atime, c->atimensec);
    if (c->valid & FATTR_MTIME)
        set_time(&st.stx_mtime, c->valid & FATTR_MTIME_NOW, c->mtime, c->mtimensec);
    if (times) {
        mine->stx_atime = st.stx_atime;
        mine->stx_mtime = st.stx_mtime;
    }
    if (c->valid & ~(uint32_t)FATTR_KILL_SUIDGID)
        mine->stx_ctime = now();
    return times && n->up->data ? set_times(fs, n->up->data, &st) : 0;
}

static int cow_readlink(struct fs *fs, struct node *n, char *buf, size_t size)
{
    size_t len;

    if (!n->up || !n->up->target)
        return host_tree.readlink(fs, n, buf, size);
    len = min_u64(strlen(n->up->target), size);
    memcpy(buf, n->up->target, len);
    return (int)len;
}

static int cow_open(struct fs *fs, struct node *n, int flags)
{
    int rc = 0;

    if ((flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC)
        rc = copy_up(fs, n, flags & O_TRUNC ? 0 : UINT64_MAX);
    if (rc)
        return rc;
    return n->up && n->up->data ? data_open(fs, n->up->data, flags) : host_tree.open(fs, n, flags);
}

static int cow_open_dir(struct fs *fs, struct node *n, int *ret)
{
    return n->up && n->up->own ? 0 : host_tree.open_dir(fs, n, ret);
}

/* The host's names without those that have an entry here. */
static int list_host(struct fs *fs, struct node *n, int fd, struct listing *l)
{
    struct listing all = {0};
    int rc = host_tree.list(fs, n, fd, &all);

    for (unsigned i = 0; i < all.n && !rc; i++) {
        struct listed at = listing_get(&all, i);
        char name[NAME_MAX + 1];

        memcpy(name, at.name, at.len);
        name[at.len] = 0;
        if (!*entry_at(fs->cow, n, name))
            rc = listing_add(fs, l, at.ino, at.type, name);
    }
    listing_clear(fs, &all);
    return rc;
}

static int cow_list(struct fs *fs, struct node *n, int fd, struct listing *l)
{
    int rc;

    if (!n->up)
        return host_tree.list(fs, n, fd, l);
    rc = list_host(fs, n, fd, l);
    for (struct list *at = n->up->entries.next; at != &n->up->entries && !rc; at = at->next) {
        struct entry *e = container_of(at, struct entry, link);

        if (e->node)
            rc = listing_add(fs, l, node_ino(fs, e->node, e->node->id.ino), IFTODT(e->node->id.type), e->name);
    }
    return rc;
}

static int cow_xattr_path(struct fs *fs, struct node *n, bool write, char *buf, size_t size)
{
    if (write || (n->up && n->up->own))
        return -EOPNOTSUPP;
    return host_tree.xattr_path(fs, n, false, buf, size);
}

static int cow_statfs(struct fs *fs, struct node *n, int *ret)
{
    (void)n;
    *ret = fs->cow->dir;
    return 0;
}

const struct tree cow_tree = {
    .lookup = cow_lookup,
    .make = cow_make,
    .link = cow_link,
    .remove = cow_remove,
    .rename = cow_rename,
    .stat = cow_stat,
    .change = cow_change,
    .readlink = cow_readlink,
    .open = cow_open,
    .open_dir = cow_open_dir,
    .list = cow_list,
    .xattr_path = cow_xattr_path,
    .statfs = cow_statfs,
    .drop = cow_drop,
};

/* ---- The temporary directory ---- */

#define PREFIX "bothy-share-"

/* What a bothy left behind that was killed: nobody holds its lock. */
static void clean_one(int base, const char *name)
{
    cleanup_fd int fd = openat(base, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;
    DIR *d;

    if (fd < 0 || fstat(fd, &st) || st.st_uid != geteuid() || flock(fd, LOCK_EX | LOCK_NB))
        return;
    d = fdopendir(dup(fd));
    for (struct dirent *e; d && (e = readdir(d));)
        unlinkat(fd, e->d_name, 0);
    if (d)
        closedir(d);
    unlinkat(base, name, AT_REMOVEDIR);
}

static void clean_up(const char *base)
{
    DIR *d = opendir(base);

    for (struct dirent *e; d && (e = readdir(d));)
        if (!strncmp(e->d_name, PREFIX, strlen(PREFIX)))
            clean_one(dirfd(d), e->d_name);
    if (d)
        closedir(d);
}

/* Until it is locked, another one's clean_up() may take it for one that was left behind. */
static int make_dir(struct cow *w, const char *base)
{
    struct stat st;

    for (;;) {
        char path[PATH_MAX];

        snprintf(path, sizeof(path), "%s/" PREFIX "XXXXXX", base);
        if (!mkdtemp(path))
            return -errno;
        w->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (w->dir < 0 && errno == ENOENT)
            continue;
        if (w->dir < 0 || flock(w->dir, LOCK_EX) || fstat(w->dir, &st))
            return -errno;
        if (st.st_nlink) {
            w->path = xstrdup(path);
            return 0;
        }
        close(take_fd(&w->dir));
    }
}

int cow_init(struct fs *fs, struct err *err)
{
    const char *base = getenv("TMPDIR");
    int rc;

    base = base && *base ? base : "/var/tmp";
    fs->cow = xcalloc(1, sizeof(*fs->cow));
    fs->cow->dir = -1;
    clean_up(base);
    rc = make_dir(fs->cow, base);
    return rc ? err_set(err, -rc, "a directory for what is written to the share, in %s: %s; set TMPDIR to another one",
                        base, strerror(-rc))
              : 0;
}

void cow_fini(struct fs *fs)
{
    if (!fs->cow)
        return;
    if (fs->cow->path)
        rmdir(fs->cow->path);
    cleanup_fd_(&fs->cow->dir);
    free(fs->cow->path);
    free(fs->cow);
}
