/*
 * A directory of the host for guests: a server of the kernel's FUSE protocol [linux/fuse.h] in process, with no
 * transport of its own.
 *
 * What the guest can reach is the directory and what lies below it.  Each step of a path is one name in a directory
 * that is open: statx() looks at it, openat2() opens it, and neither follows a symbolic link or leaves the directory
 * upwards.  Links are for the guest to resolve, and what is neither a file nor a directory is never opened.  Mount
 * points are crossed, but not into kernel interfaces (proc, sysfs and their like), which show as empty directories.
 */
#pragma once
#include "vmm/base/base.h"
#include "vmm/base/err.h"
#include "vmm/loop/loop.h"

enum fs_mode { FS_RO, FS_RW, FS_COW };
enum fs_cache { FS_CACHE_AUTO, FS_CACHE_ALWAYS, FS_CACHE_NONE };
enum fs_owner { FS_OWNER_AUTO, FS_OWNER_HOST, FS_OWNER_ROOT };
/* For option tables; NULL-terminated. */
extern const char *const fs_mode_words[], *const fs_cache_words[], *const fs_owner_words[];

struct fs_opts {
    const char *dir;
    enum fs_mode mode;
    enum fs_cache cache;
    enum fs_owner owner;
};

struct fs;
struct fs_handle;

enum { FS_OUT_IOVS_MAX = 512 }; /* iovecs in one direction of a request */

/* A request, in the guest's memory, and room for its reply.  The caller fills the first part; the iovecs stay valid
 * until it is answered. */
struct fs_req {
    const struct iovec *in, *out;
    unsigned nin, nout;
    uint64_t in_len, out_len;
    void (*done)(struct fs_req *r); /* in the lane */
    uint32_t written;               /* bytes of reply, when answered */
    /* The server's. */
    struct fs *fs;
    uint64_t unique;
    int (*job)(struct fs_req *r); /* on a worker: length of the reply's body, which it has written, or -errno */
    struct fs_handle *handles[2];
    int fds[2];
    uint64_t offs[2], len;
    uint32_t flags;
    struct work work;
};

/* Opens the directory; the errors name it and the remedy. */
int fs_create(const struct fs_opts *o, struct lane *lane, struct fs **ret, struct err *err) must_check;
void fs_destroy(struct fs *fs); /* accepts NULL */
/* As before the first request; nothing is in flight. */
void fs_reset(struct fs *fs);
/* Has a guest begun to use it? */
bool fs_mounted(const struct fs *fs);
/* In the lane.  True: answered (r->written bytes; 0: a request that has no reply).  False: r->done() follows. */
bool fs_request(struct fs *fs, struct fs_req *r) must_check;
