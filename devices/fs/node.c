/*
 * Nodes: the files that the guest knows by number.  A node has an O_PATH descriptor or knows the way to one: the name
 * in its parent.  Most files of a tree are only looked at, so that they get a descriptor when it is first needed, by
 * name, with a check that it is still the same file (device, mount, inode number, type, time of birth).  When it is
 * not, the node is stale.  Descriptors are bounded; those used least recently are closed.  Nodes with open handles keep
 * theirs, so that what is open can lose its name.
 */
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "devices/fs/private.h"
#include "vmm/base/cleanup.h"

#ifndef BPF_FS_MAGIC
#define BPF_FS_MAGIC 0xcafe4a11
#endif

struct proc_name fs_proc_name(int fd)
{
    struct proc_name ret;

    snprintf(ret.s, sizeof(ret.s), "%d", fd);
    return ret;
}

int fs_open_beneath(int dir, const char *name)
{
    struct open_how how = {.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
    int fd = (int)syscall(SYS_openat2, dir, name, &how, sizeof(how));

    return fd < 0 ? -errno : fd;
}

enum { STATX_WANTED = STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID };

int fs_statx(int fd, struct statx *ret)
{
    return statx(fd, "", AT_EMPTY_PATH | AT_STATX_SYNC_AS_STAT | AT_NO_AUTOMOUNT, STATX_WANTED, ret) ? -errno : 0;
}

int fs_statx_at(int dir, const char *name, struct statx *ret)
{
    return statx(dir, name, AT_SYMLINK_NOFOLLOW | AT_STATX_SYNC_AS_STAT | AT_NO_AUTOMOUNT, STATX_WANTED, ret) ? -errno
                                                                                                              : 0;
}

static struct file_id id_of(const struct statx *st)
{
    bool born = st->stx_mask & STATX_BTIME;

    return (struct file_id){.ino = st->stx_ino,
                            .mount = st->stx_mask & STATX_MNT_ID ? st->stx_mnt_id : 0,
                            .born = born ? st->stx_btime.tv_sec : 0,
                            .born_ns = born ? st->stx_btime.tv_nsec : 0,
                            .major = st->stx_dev_major,
                            .minor = st->stx_dev_minor,
                            .type = st->stx_mode & S_IFMT};
}

static bool same(const struct file_id *a, const struct file_id *b)
{
    return a->ino == b->ino && a->mount == b->mount && a->born == b->born && a->born_ns == b->born_ns &&
           a->major == b->major && a->minor == b->minor && a->type == b->type;
}

static struct node **bucket_of(struct fs *fs, const struct file_id *id)
{
    uint64_t x = (id->ino ^ (uint64_t)id->minor << 40 ^ (uint64_t)id->major << 52) * 0x9e3779b97f4a7c15;

    return &fs->buckets[(x >> 40) % NODE_BUCKETS];
}

static struct node *node_at(struct fs *fs, uint32_t slot)
{
    return &fs->chunks[slot / NODE_CHUNK][slot % NODE_CHUNK];
}

struct node *node_root(struct fs *fs)
{
    return node_at(fs, 0);
}

struct node *node_by_id(struct fs *fs, uint64_t id)
{
    uint32_t slot = (uint32_t)id - 1;
    struct node *n;

    if (slot >= fs->nodes)
        return NULL;
    n = node_at(fs, slot);
    return n->used && n->gen == id >> 32 && (n->lookups || !slot) ? n : NULL;
}

struct node *node_find(struct fs *fs, const struct statx *st)
{
    struct file_id id = id_of(st);

    for (struct node *n = *bucket_of(fs, &id); n; n = n->next)
        if (same(&n->id, &id)) {
            node_hold(n);
            return n;
        }
    return NULL;
}

static struct node *take_slot(struct fs *fs)
{
    struct node *n = fs->free_nodes;
    uint32_t slot = fs->nodes;

    if (n) {
        fs->free_nodes = n->next;
        return n;
    }
    if (slot == NODES_MAX)
        return NULL;
    if (!fs->chunks[slot / NODE_CHUNK])
        fs->chunks[slot / NODE_CHUNK] = calloc(NODE_CHUNK, sizeof(struct node));
    if (!fs->chunks[slot / NODE_CHUNK])
        return NULL;
    fs->nodes++;
    n = node_at(fs, slot);
    n->slot = slot;
    return n;
}

int node_new(struct fs *fs, const struct statx *st, struct node **ret)
{
    struct node *n = take_slot(fs), **bucket;

    if (!n)
        return -ENFILE;
    *n = (struct node){.slot = n->slot, .gen = n->gen, .used = true, .refs = 1, .fd = -1, .id = id_of(st)};
    list_init(&n->recent);
    bucket = bucket_of(fs, &n->id);
    n->next = *bucket;
    *bucket = n;
    *ret = n;
    return 0;
}

static void close_fd(struct fs *fs, struct node *n)
{
    if (n->fd < 0)
        return;
    close(take_fd(&n->fd));
    if (!list_empty(&n->recent)) {
        list_del(&n->recent);
        fs->nrecent--;
    }
}

/* Not its parent: that is the caller's. */
static void node_free(struct fs *fs, struct node *n)
{
    struct node **at = bucket_of(fs, &n->id);

    while (*at != n)
        at = &(*at)->next;
    *at = n->next;
    close_fd(fs, n);
    if (fs->tree->drop)
        fs->tree->drop(fs, n);
    free(n->name);
    n->used = false;
    n->gen++;
    n->next = fs->free_nodes;
    fs->free_nodes = n;
}

void node_release(struct fs *fs, struct node *n)
{
    assert(n->refs);
    n->refs--;
    while (n && !n->refs && !n->lookups && n->slot) {
        struct node *parent = n->parent;

        node_free(fs, n);
        if (parent)
            parent->refs--;
        n = parent;
    }
}

void node_forget(struct fs *fs, struct node *n, uint64_t lookups)
{
    node_hold(n);
    n->lookups -= min_u64(lookups, n->lookups);
    node_release(fs, n);
}

static void unplace(struct fs *fs, struct node *n)
{
    struct node *parent = n->parent;

    free(take_ptr(n->name));
    n->parent = NULL;
    if (parent)
        node_release(fs, parent);
}

/* The host may have moved directories while we looked elsewhere, so that what we remember would close a circle. */
static void break_circle(struct fs *fs, struct node *n, struct node *parent)
{
    for (struct node *a = parent, *below = NULL; a; below = a, a = a->parent)
        if (a == n) {
            if (below)
                unplace(fs, below);
            return;
        }
}

void node_place(struct fs *fs, struct node *n, struct node *parent, const char *name)
{
    char *copy;

    if (!n->slot || n == parent || (parent && n->parent == parent && !strcmp(n->name, name)))
        return;
    node_hold(n);
    unplace(fs, n);
    copy = parent ? strdup(name) : NULL; /* without memory it has no name */
    if (copy) {
        if (n->refs > 1)
            break_circle(fs, n, parent);
        node_hold(parent);
        n->parent = parent;
        n->name = copy;
    }
    node_release(fs, n);
}

static void touch(struct fs *fs, struct node *n)
{
    if (n->handles || !n->slot)
        return;
    if (list_empty(&n->recent))
        fs->nrecent++;
    else
        list_del(&n->recent);
    list_add_tail(fs->recent.next, &n->recent); /* in front of the first */
}

void node_give_fd(struct fs *fs, struct node *n, int fd)
{
    if (n->fd >= 0)
        close(fd);
    else
        n->fd = fd;
    touch(fs, n);
}

void node_pin(struct fs *fs, struct node *n)
{
    n->handles++;
    if (!list_empty(&n->recent)) {
        list_del(&n->recent);
        fs->nrecent--;
    }
}

void node_unpin(struct fs *fs, struct node *n)
{
    n->handles--;
    if (n->fd >= 0)
        touch(fs, n);
}

void nodes_trim(struct fs *fs)
{
    while (fs->nrecent > fs->open_max)
        close_fd(fs, container_of(fs->recent.prev, struct node, recent));
}

/* `rc` is what became of the way to the node by its name; found: a file with these attributes. */
static int check_found(const struct node *n, int rc, const struct statx *st)
{
    struct file_id id;

    if (rc < 0)
        return rc == -ENOENT || rc == -ENOTDIR ? -ESTALE : rc;
    id = id_of(st);
    return same(&id, &n->id) ? 0 : -ESTALE;
}

static int reopen(struct fs *fs, struct node *n)
{
    int fd = fs_open_beneath(n->parent->fd, n->name), rc;
    struct statx st;

    if (fd < 0)
        return check_found(n, fd, NULL);
    rc = check_found(n, fs_statx(fd, &st), &st);
    if (rc)
        close(fd);
    else
        node_give_fd(fs, n, fd);
    return rc;
}

int node_fd(struct fs *fs, struct node *n)
{
    struct node *way[DEPTH_MAX];
    unsigned depth = 0;

    for (struct node *a = n; a->fd < 0; a = a->parent) {
        if (!a->parent)
            return -ESTALE;
        if (depth == DEPTH_MAX)
            return -ENAMETOOLONG;
        way[depth++] = a;
    }
    while (depth) {
        int rc = reopen(fs, way[--depth]);

        if (rc)
            return rc;
    }
    touch(fs, n);
    return n->fd;
}

int node_stat(struct fs *fs, struct node *n, struct statx *ret)
{
    int fd = node_fd(fs, n->fd < 0 && n->parent ? n->parent : n);

    if (fd < 0)
        return fd;
    return n->fd < 0 ? check_found(n, fs_statx_at(fd, n->name, ret), ret) : fs_statx(fd, ret);
}

/* What the kernel makes up, and what would mount something when looked into. */
bool fs_is_hollow(int fd)
{
    static const uint32_t magics[] = {PROC_SUPER_MAGIC,
                                      SYSFS_MAGIC,
                                      DEBUGFS_MAGIC,
                                      TRACEFS_MAGIC,
                                      SECURITYFS_MAGIC,
                                      CGROUP_SUPER_MAGIC,
                                      CGROUP2_SUPER_MAGIC,
                                      BPF_FS_MAGIC,
                                      DEVPTS_SUPER_MAGIC,
                                      PSTOREFS_MAGIC,
                                      EFIVARFS_MAGIC,
                                      SELINUX_MAGIC,
                                      SMACK_MAGIC,
                                      AUTOFS_SUPER_MAGIC,
                                      BINFMTFS_MAGIC,
                                      NSFS_MAGIC,
                                      0x19800202 /* mqueue */,
                                      0x62656570 /* configfs */,
                                      0x65735543 /* fusectl */};
    struct statfs sf;

    if (fstatfs(fd, &sf))
        return true;
    for (size_t i = 0; i < array_len(magics); i++)
        if ((uint32_t)sf.f_type == magics[i])
            return true;
    return false;
}

int nodes_init(struct fs *fs)
{
    struct statx st;
    struct node *root;
    int rc = fs_statx(fs->root_fd, &st), fd;

    fs->buckets = calloc(NODE_BUCKETS, sizeof(*fs->buckets));
    list_init(&fs->recent);
    if (!rc && !fs->buckets)
        rc = -ENOMEM;
    if (!rc)
        rc = node_new(fs, &st, &root);
    if (rc)
        return rc;
    fd = fcntl(fs->root_fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    root->fd = fd;
    return 0;
}

void nodes_drop(struct fs *fs)
{
    for (uint32_t slot = 1; slot < fs->nodes; slot++) {
        struct node *n = node_at(fs, slot);

        if (n->used)
            node_free(fs, n);
    }
    if (fs->nodes && fs->tree->drop)
        fs->tree->drop(fs, node_root(fs));
    if (fs->nodes)
        node_root(fs)->refs = 1;
}

void nodes_fini(struct fs *fs)
{
    nodes_drop(fs);
    if (fs->nodes)
        node_free(fs, node_root(fs));
    for (size_t i = 0; i < array_len(fs->chunks); i++)
        free(fs->chunks[i]);
    free(fs->buckets);
}
