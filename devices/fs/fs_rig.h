/* For tests of the server: a tree in a temporary directory, something to guard beside it, and requests. */
#pragma once
#include <linux/fuse.h>

#include "devices/fs/fs.h"

enum { RIG_REPLY = 256 << 10 };

struct fs_rig {
    char top[64]; /* holds "share" and what the guest must not see */
    char dir[80]; /* top/share */
    struct loop *loop;
    struct lane lane;
    struct fs *fs;
    uint64_t unique; /* of the last request */
    bool later;      /* it is not answered yet */
    uint8_t *reply;  /* its body, of len bytes */
    size_t len;
    size_t room; /* for the next reply; RIG_REPLY unless changed */
    /* private */
    struct fs_req req;
    struct iovec in[3], out[2];
    uint8_t *request, *whole;
};

/* Failures end the process.  `options` may have a dir of NULL: the rig's.  The guest has said FUSE_INIT. */
void fs_rig_init(struct fs_rig *g, const struct fs_opts *o);
void fs_rig_fini(struct fs_rig *g); /* and its files */
/* A request as it is, header included; the error that it was answered with (0, -errno), or 1: no reply. */
int fs_rig_raw(struct fs_rig *g, const void *request, size_t len);
/* One with that body: `args`, then `tail`. */
int fs_rig_call(struct fs_rig *g, uint32_t opcode, uint64_t node, const void *args, size_t len, const void *tail,
                size_t tail_len);
int fs_rig_start(struct fs_rig *g);

/* Shorts for requests; node ids and handles in *ret, the reply's error as result. */
int fs_rig_lookup(struct fs_rig *g, uint64_t dir, const char *name, uint64_t *ret);
int fs_rig_open(struct fs_rig *g, uint64_t node, uint32_t flags, uint64_t *ret);
uint64_t fs_rig_found(struct fs_rig *g, uint64_t dir, const char *name); /* lookup, which must succeed */
uint64_t fs_rig_opened(struct fs_rig *g, uint64_t node, uint32_t flags); /* open, which must succeed */
int fs_rig_create(struct fs_rig *g, uint64_t dir, const char *name, uint32_t mode, uint64_t *node, uint64_t *fh);
int fs_rig_mkdir(struct fs_rig *g, uint64_t dir, const char *name, uint64_t *ret);
int fs_rig_remove(struct fs_rig *g, uint64_t dir, const char *name, bool is_dir);
int fs_rig_rename(struct fs_rig *g, uint64_t dir, const char *name, uint64_t to, const char *new_name, uint32_t flags);
int fs_rig_getattr(struct fs_rig *g, uint64_t node, struct fuse_attr *ret);
int fs_rig_read(struct fs_rig *g, uint64_t node, uint64_t fh, uint64_t off, uint32_t size); /* into reply */
int fs_rig_write(struct fs_rig *g, uint64_t node, uint64_t fh, uint64_t off, const void *data, uint32_t size);
int fs_rig_release(struct fs_rig *g, uint64_t node, uint64_t fh, bool is_dir);
int fs_rig_forget(struct fs_rig *g, uint64_t node, uint64_t lookups);
/* The names in a directory but "." and "..", sorted, with blanks between. */
int fs_rig_names(struct fs_rig *g, uint64_t node, bool plus, char *ret, size_t size);
/* The host's side: a file below the rig's top with that content, or what is in it (the caller frees). */
void fs_rig_put(struct fs_rig *g, const char *name, const char *content);
char *fs_rig_get(struct fs_rig *g, const char *name);
