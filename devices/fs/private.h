/* What the files of this folder share.  All of it is used in the lane only. */
#pragma once
#include <linux/fuse.h>
#include <sys/stat.h>

#include "devices/fs/fs.h"
#include "vmm/base/list.h"

/* What a guest can make the server keep. */
enum {
    NODES_MAX = 1 << 20, /* files that it knows by number */
    NODE_CHUNK = 1024,
    NODE_BUCKETS = 1 << 16,
    OPEN_MAX = 16384, /* handles; nodes with a descriptor but no handle; fewer where RLIMIT_NOFILE is low */
    OPEN_MIN = 64,
    FILES_MIN = 4 * OPEN_MIN, /* where it is lower there is no share: handles and their nodes, other nodes, the rest */
    LISTED_MAX = 64 << 20,    /* bytes of listings of open directories */
    DEPTH_MAX = 2048,         /* directories that are opened anew on the way to one node */
    XATTR_MAX = 65536,        /* a value, or a list of names, as in Linux */
    REQUEST_MAX = XATTR_MAX + 1024,
    REPLY_MAX = XATTR_MAX,
    READ_MAX = 1 << 20,  /* of one FUSE_READ, as of all requests in Linux */
    COPY_MAX = 16 << 20, /* of one FUSE_COPY_FILE_RANGE, so that a reset need not wait long; the guest goes on */
};

struct cow; /* cow.c's, as the next */
struct upper;

/* Which file of the host's it is, also when its number is used again. */
struct file_id {
    uint64_t ino, mount;
    int64_t born;
    uint32_t major, minor, born_ns;
    uint32_t type; /* S_IF* */
};

/* A file or directory that the guest knows, or a directory above one. */
struct node {
    uint32_t slot, gen; /* nodeid: slot + 1, gen << 32 */
    bool used;
    bool hollow;      /* a mount point that is not crossed */
    unsigned refs;    /* children placed in it, handles, our own use */
    unsigned handles; /* its descriptor stays open as long as there are any */
    uint64_t lookups; /* what FUSE_FORGET counts down */
    int fd;           /* O_PATH; -1: to be opened when needed */
    struct file_id id;
    struct node *parent; /* where it was seen last; NULL: nowhere, or the root */
    char *name;
    struct node *next;  /* in its bucket, or free */
    struct list recent; /* nodes with a descriptor and no handle */
    struct upper *up;   /* what the guest changed; NULL: nothing */
};

/* Names in a directory, as they were at the first read. */
struct listing {
    char *buf;
    size_t len, cap;
    uint32_t *at; /* where each begins */
    unsigned n, max;
    bool filled;
};

struct listed {
    uint64_t ino;
    unsigned type; /* DT_* */
    unsigned len;
    const char *name; /* no NUL */
};

struct fs_handle {
    uint32_t slot, gen; /* fh: as nodeid */
    unsigned refs;      /* 0: free */
    bool released, dir;
    int fd;    /* -1: a directory that has none */
    int flags; /* of open(2) */
    struct node *node;
    struct listing names;
    struct fs_handle *next; /* free */
};

/* Something new: a regular file, fifo or socket, a directory, or a link to `target`. */
struct make {
    mode_t mode; /* and type */
    uint32_t uid, gid;
    const char *target;
    int flags; /* of open(2), for regular files */
};

/* Where names and attributes are: on the host, or above it.  Nodes come with a reference that the caller releases. */
struct tree {
    int (*lookup)(struct fs *fs, struct node *dir, const char *name, struct node **ret, struct statx *st);
    /* `name` NULL: a file without one.  A regular file is returned open in *fd, too. */
    int (*make)(struct fs *fs, struct node *dir, const char *name, const struct make *m, struct node **ret, int *fd);
    int (*link)(struct fs *fs, struct node *n, struct node *dir, const char *name);
    int (*remove)(struct fs *fs, struct node *dir, const char *name, bool is_dir);
    int (*rename)(struct fs *fs, struct node *dir, const char *name, struct node *to, const char *new_name,
                  unsigned flags);
    int (*stat)(struct fs *fs, struct node *n, struct statx *ret);
    /* `fd` is open for writing, or -1. */
    int (*change)(struct fs *fs, struct node *n, int fd, const struct fuse_setattr_in *c);
    int (*readlink)(struct fs *fs, struct node *n, char *buf, size_t size); /* its length */
    int (*open)(struct fs *fs, struct node *n, int flags);                  /* a regular file; a descriptor */
    int (*open_dir)(struct fs *fs, struct node *n, int *ret);               /* -1: needs none */
    int (*list)(struct fs *fs, struct node *n, int fd, struct listing *l);
    /* A path to a file for extended attributes; -EOPNOTSUPP where there are none. */
    int (*xattr_path)(struct fs *fs, struct node *n, bool write, char *buf, size_t size);
    int (*statfs)(struct fs *fs, struct node *n, int *ret); /* a descriptor on the file system, borrowed */
    void (*drop)(struct fs *fs, struct node *n);            /* the node's end; NULL: nothing to do */
};
extern const struct tree host_tree, cow_tree;

struct fs {
    char *dir;
    enum fs_mode mode;
    enum fs_cache cache;
    struct lane *lane; /* borrowed */
    const struct tree *tree;
    bool privileged;             /* may give files away */
    uint32_t root_uid, root_gid; /* host's, which the guest sees as 0 */
    int root_fd;                 /* open, for syncfs(2) */
    int proc_fd;                 /* /proc/self/fd: the way from O_PATH to a file */
    unsigned open_max;
    uint32_t minor; /* of the protocol; 0: not mounted */

    struct node *chunks[NODES_MAX / NODE_CHUNK];
    unsigned nodes; /* slots that were ever used */
    struct node *free_nodes;
    struct node **buckets;
    struct list recent; /* nodes, latest first */
    unsigned nrecent;

    struct fs_handle *handles; /* open_max */
    unsigned nhandles;         /* slots that were ever used */
    struct fs_handle *free_handles;
    size_t listed; /* bytes of all listings */
    unsigned jobs; /* under way: they have handles */
    struct cow *cow;

    _Alignas(8) uint8_t request[REQUEST_MAX];
    _Alignas(8) uint8_t reply[REPLY_MAX]; /* its body */
};

/* What an operation gets. */
struct call {
    struct fs_req *r;
    struct fuse_in_header h;
    struct node *node;
    const char *rest; /* of the request, after the fixed arguments */
    size_t rest_len;
    size_t room; /* for the reply's body */
};
/* Results of an operation: a job answers; the body is in the guest's memory already. */
enum { LATER = 1 << 30, IN_PLACE = 1 << 29 };

/* node.c */
int nodes_init(struct fs *fs);
void nodes_drop(struct fs *fs); /* all but the root */
void nodes_fini(struct fs *fs);
struct node *node_root(struct fs *fs);
static inline uint64_t node_id(const struct node *n)
{
    return (uint64_t)n->gen << 32 | (n->slot + 1);
}
struct node *node_by_id(struct fs *fs, uint64_t id); /* one that the guest may use; NULL: stale */
/* One for that file, or NULL; a new one (or -ENFILE).  Both with a reference. */
struct node *node_find(struct fs *fs, const struct statx *st);
int node_new(struct fs *fs, const struct statx *st, struct node **ret);
static inline void node_hold(struct node *n)
{
    n->refs++;
}
void node_release(struct fs *fs, struct node *n);
void node_forget(struct fs *fs, struct node *n, uint64_t lookups);
/* Its name is now that, in `parent`; NULL: it has none. */
void node_place(struct fs *fs, struct node *n, struct node *parent, const char *name);
/* Its O_PATH descriptor, valid until the request ends; -ESTALE when the file is not where it was. */
int node_fd(struct fs *fs, struct node *n);
void node_give_fd(struct fs *fs, struct node *n, int fd);        /* takes it over */
int node_stat(struct fs *fs, struct node *n, struct statx *ret); /* -ESTALE as node_fd() */
void node_pin(struct fs *fs, struct node *n);
void node_unpin(struct fs *fs, struct node *n);
void nodes_trim(struct fs *fs); /* between requests */
int fs_statx(int fd, struct statx *ret);
/* Of a name in a directory: one name, not a path, which is not followed where it is a link. */
int fs_statx_at(int dir, const char *name, struct statx *ret);
bool fs_is_hollow(int fd); /* on something that the kernel makes up */
int fs_open_beneath(int dir, const char *name);
/* "N", to be used with fs->proc_fd. */
struct proc_name {
    char s[24];
} fs_proc_name(int fd);

/* handle.c */
int handle_new(struct fs *fs, struct node *n, int fd, int flags, bool dir, struct fs_handle **ret); /* takes fd */
static inline uint64_t handle_id(const struct fs_handle *h)
{
    return (uint64_t)h->gen << 32 | (h->slot + 1);
}
struct fs_handle *handle_by_id(struct fs *fs, uint64_t fh, const struct node *n, bool dir);
void handle_put(struct fs *fs, struct fs_handle *h);
void handles_drop(struct fs *fs);
int listing_add(struct fs *fs, struct listing *l, uint64_t ino, unsigned type, const char *name);
struct listed listing_get(const struct listing *l, unsigned i);
void listing_clear(struct fs *fs, struct listing *l);

/* cow.c */
int cow_init(struct fs *fs, struct err *err);
void cow_fini(struct fs *fs); /* nodes are dropped */

/* server.c */
int call_string(struct call *c, const char **ret); /* the next in c->rest, of 1 to NAME_MAX bytes */
int call_name(struct call *c, const char **ret);   /* the same: one that a directory can have */
/* The guest learns of the node, whose attributes are those. */
void call_entry(struct fs *fs, struct node *n, const struct statx *st, struct fuse_entry_out *ret);
void fs_attr(struct fs *fs, const struct statx *st, struct fuse_attr *ret);
/* The guest's inode number: those of other file systems, below mount points, are kept apart from the root's. */
uint64_t fs_ino(struct fs *fs, uint32_t major, uint32_t minor, uint64_t ino);
/* Of a file where that node's is. */
static inline uint64_t node_ino(struct fs *fs, const struct node *n, uint64_t ino)
{
    return fs_ino(fs, n->id.major, n->id.minor, ino);
}
int call_submit(struct fs *fs, struct call *c, struct fs_handle *h, int (*job)(struct fs_req *r));
uint32_t fs_timeout(const struct fs *fs);

/* The operations; their result is the length of the body in fs->reply, -errno or LATER. */
typedef int fs_op(struct fs *fs, struct call *c, const void *args);
/* name.c */
fs_op op_lookup, op_mknod, op_mkdir, op_symlink, op_unlink, op_rmdir, op_rename, op_rename2, op_link, op_create,
    op_tmpfile;
/* attr.c */
fs_op op_getattr, op_setattr, op_readlink, op_statfs, op_setxattr, op_getxattr, op_listxattr, op_removexattr;
/* file.c */
fs_op op_open, op_read, op_write, op_release, op_fsync, op_flush, op_fallocate, op_lseek, op_copy_file_range, op_syncfs;
int file_opened(struct fs *fs, struct node *n, int fd, uint32_t flags, struct fuse_open_out *ret);
int file_job_fsync(struct fs_req *r);
int file_flags(const struct fs *fs, uint32_t flags, int *ret);
int node_open(struct fs *fs, struct node *n, int flags, uint32_t how); /* `how`: FUSE_OPEN_* */
/* dir.c */
fs_op op_opendir, op_readdir, op_readdirplus, op_releasedir, op_fsyncdir;
