#include "devices/fs/fs_rig.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/base/cleanup.h"

enum { REQUEST = 2 << 20 };

static void ends(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    abort();
}

int fs_rig_start(struct fs_rig *g)
{
    struct fuse_init_in in = {.major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION, .flags = ~0u};

    return fs_rig_call(g, FUSE_INIT, 0, &in, sizeof(in), NULL, 0);
}

void fs_rig_init(struct fs_rig *g, const struct fs_opts *o)
{
    const char *tmp = getenv("TMPDIR");
    struct fs_opts opts = *o;
    struct err err;

    *g = (struct fs_rig){.room = RIG_REPLY};
    snprintf(g->top, sizeof(g->top), "%.40s/bothy-fs-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(g->top))
        ends(g->top, strerror(errno));
    snprintf(g->dir, sizeof(g->dir), "%s/share", g->top);
    if (mkdir(g->dir, 0755))
        ends(g->dir, strerror(errno));
    if (loop_create("test", &g->loop, &err))
        ends("loop", err.msg);
    lane_init(&g->lane, g->loop);
    lane_lock(&g->lane);
    if (!opts.dir)
        opts.dir = g->dir;
    if (fs_create(&opts, &g->lane, &g->fs, &err))
        ends("fs_create", err.msg);
    g->request = xcalloc(1, REQUEST);
    g->whole = xcalloc(1, RIG_REPLY);
    g->reply = g->whole + sizeof(struct fuse_out_header);
    if (fs_rig_start(g))
        ends("FUSE_INIT", "refused");
}

static int delete_one(const char *path, const struct stat *st, int type, struct FTW *f)
{
    (void)st;
    (void)type;
    (void)f;
    return remove(path);
}

void fs_rig_fini(struct fs_rig *g)
{
    lane_drain(&g->lane);
    fs_destroy(g->fs);
    lane_unlock(&g->lane);
    lane_fini(&g->lane);
    loop_destroy(g->loop);
    nftw(g->top, delete_one, 16, FTW_DEPTH | FTW_PHYS);
    free(g->request);
    free(g->whole);
}

static void done(struct fs_req *r)
{
    container_of(r, struct fs_rig, req)->later = false;
}

/* In pieces, as a guest's memory is. */
int fs_rig_raw(struct fs_rig *g, const void *request, size_t len)
{
    size_t cut = min_u64(len, sizeof(struct fuse_in_header)), rest = len - cut, half = rest / 2;
    struct fuse_out_header h;

    if (len > REQUEST)
        ends("request", "too long for the rig");
    if (request != g->request)
        memcpy(g->request, request, len);
    g->in[0] = (struct iovec){g->request, cut};
    g->in[1] = (struct iovec){g->request + cut, half};
    g->in[2] = (struct iovec){g->request + cut + half, rest - half};
    g->out[0] = (struct iovec){g->whole, min_u64(g->room, 20)};
    g->out[1] = (struct iovec){g->whole + g->out[0].iov_len, g->room - g->out[0].iov_len};
    memset(g->whole, 0xaa, 64);
    g->req = (struct fs_req){
        .in = g->in, .nin = 3, .in_len = len, .out = g->out, .nout = 2, .out_len = g->room, .done = done};
    g->later = true;
    if (fs_request(g->fs, &g->req))
        g->later = false;
    while (g->later)
        lane_drain(&g->lane);
    g->len = 0;
    if (!g->req.written)
        return 1;
    memcpy(&h, g->whole, sizeof(h));
    if (g->req.written < sizeof(h) || h.len != g->req.written || h.len > g->room || h.error > 0 || h.error < -1000 ||
        (h.error && h.len != sizeof(h)))
        ends("reply", "not one that a kernel accepts");
    if (len >= sizeof(struct fuse_in_header) &&
        memcmp(&h.unique, g->request + offsetof(struct fuse_in_header, unique), sizeof(h.unique)))
        ends("reply", "to another request");
    g->len = h.len - sizeof(h);
    return h.error;
}

int fs_rig_call(struct fs_rig *g, uint32_t opcode, uint64_t node, const void *args, size_t len, const void *tail,
                size_t tail_len)
{
    struct fuse_in_header h = {.len = (uint32_t)(sizeof(h) + len + tail_len),
                               .opcode = opcode,
                               .unique = g->unique += 2,
                               .nodeid = node,
                               .uid = geteuid(),
                               .gid = getegid()};

    if (h.len > REQUEST)
        ends("request", "too long for the rig");
    memcpy(g->request, &h, sizeof(h));
    if (len)
        memcpy(g->request + sizeof(h), args, len);
    if (tail_len)
        memcpy(g->request + sizeof(h) + len, tail, tail_len);
    return fs_rig_raw(g, g->request, h.len);
}

static int call_named(struct fs_rig *g, uint32_t opcode, uint64_t node, const void *args, size_t len, const char *name)
{
    return fs_rig_call(g, opcode, node, args, len, name, strlen(name) + 1);
}

int fs_rig_lookup(struct fs_rig *g, uint64_t dir, const char *name, uint64_t *ret)
{
    int rc = call_named(g, FUSE_LOOKUP, dir, NULL, 0, name);

    if (!rc)
        *ret = ((struct fuse_entry_out *)g->reply)->nodeid;
    return rc;
}

int fs_rig_open(struct fs_rig *g, uint64_t node, uint32_t flags, uint64_t *ret)
{
    struct fuse_open_in in = {.flags = flags};
    int rc = fs_rig_call(g, flags & O_DIRECTORY ? FUSE_OPENDIR : FUSE_OPEN, node, &in, sizeof(in), NULL, 0);

    if (!rc)
        *ret = ((struct fuse_open_out *)g->reply)->fh;
    return rc;
}

uint64_t fs_rig_found(struct fs_rig *g, uint64_t dir, const char *name)
{
    uint64_t n;
    int rc = fs_rig_lookup(g, dir, name, &n);

    if (rc)
        ends(name, strerror(-rc));
    return n;
}

uint64_t fs_rig_opened(struct fs_rig *g, uint64_t node, uint32_t flags)
{
    uint64_t fh;
    int rc = fs_rig_open(g, node, flags, &fh);

    if (rc)
        ends("open", strerror(-rc));
    return fh;
}

int fs_rig_create(struct fs_rig *g, uint64_t dir, const char *name, uint32_t mode, uint64_t *node, uint64_t *fh)
{
    struct fuse_create_in in = {.flags = O_RDWR, .mode = mode};
    int rc = call_named(g, FUSE_CREATE, dir, &in, sizeof(in), name);
    const struct fuse_entry_out *e = (const struct fuse_entry_out *)g->reply;

    if (!rc) {
        *node = e->nodeid;
        *fh = ((const struct fuse_open_out *)(e + 1))->fh;
    }
    return rc;
}

int fs_rig_mkdir(struct fs_rig *g, uint64_t dir, const char *name, uint64_t *ret)
{
    struct fuse_mkdir_in in = {.mode = 0755};
    int rc = call_named(g, FUSE_MKDIR, dir, &in, sizeof(in), name);

    if (!rc)
        *ret = ((struct fuse_entry_out *)g->reply)->nodeid;
    return rc;
}

int fs_rig_remove(struct fs_rig *g, uint64_t dir, const char *name, bool is_dir)
{
    return call_named(g, is_dir ? FUSE_RMDIR : FUSE_UNLINK, dir, NULL, 0, name);
}

int fs_rig_rename(struct fs_rig *g, uint64_t dir, const char *name, uint64_t to, const char *new_name, uint32_t flags)
{
    struct fuse_rename2_in in = {.newdir = to, .flags = flags};
    char names[600];
    int n = snprintf(names, sizeof(names), "%s%c%s", name, 0, new_name);

    return fs_rig_call(g, FUSE_RENAME2, dir, &in, sizeof(in), names, (size_t)n + 1);
}

int fs_rig_getattr(struct fs_rig *g, uint64_t node, struct fuse_attr *ret)
{
    struct fuse_getattr_in in = {0};
    int rc = fs_rig_call(g, FUSE_GETATTR, node, &in, sizeof(in), NULL, 0);

    if (!rc)
        *ret = ((struct fuse_attr_out *)g->reply)->attr;
    return rc;
}

int fs_rig_read(struct fs_rig *g, uint64_t node, uint64_t fh, uint64_t off, uint32_t size)
{
    struct fuse_read_in in = {.fh = fh, .offset = off, .size = size};

    return fs_rig_call(g, FUSE_READ, node, &in, sizeof(in), NULL, 0);
}

int fs_rig_write(struct fs_rig *g, uint64_t node, uint64_t fh, uint64_t off, const void *data, uint32_t size)
{
    struct fuse_write_in in = {.fh = fh, .offset = off, .size = size};

    return fs_rig_call(g, FUSE_WRITE, node, &in, sizeof(in), data, size);
}

int fs_rig_release(struct fs_rig *g, uint64_t node, uint64_t fh, bool is_dir)
{
    struct fuse_release_in in = {.fh = fh};

    return fs_rig_call(g, is_dir ? FUSE_RELEASEDIR : FUSE_RELEASE, node, &in, sizeof(in), NULL, 0);
}

int fs_rig_forget(struct fs_rig *g, uint64_t node, uint64_t lookups)
{
    struct fuse_forget_in in = {.nlookup = lookups};

    return fs_rig_call(g, FUSE_FORGET, node, &in, sizeof(in), NULL, 0);
}

enum { NAMES = 4096 };

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int fs_rig_names(struct fs_rig *g, uint64_t node, bool plus, char *ret, size_t size)
{
    struct fuse_read_in in = {.size = 512};
    char *names[NAMES];
    size_t n = 0, at, used = 0;
    int rc = fs_rig_open(g, node, O_DIRECTORY, &in.fh);

    while (!rc) {
        rc = fs_rig_call(g, plus ? FUSE_READDIRPLUS : FUSE_READDIR, node, &in, sizeof(in), NULL, 0);
        if (rc || !g->len)
            break;
        for (at = 0; at < g->len;) {
            const struct fuse_entry_out *e = (const struct fuse_entry_out *)(g->reply + at);
            const struct fuse_dirent *d = plus ? (const struct fuse_dirent *)(e + 1) : (const struct fuse_dirent *)e;
            size_t len = FUSE_REC_ALIGN((plus ? sizeof(*e) : 0) + FUSE_NAME_OFFSET + d->namelen);

            if (len > g->len - at || n == NAMES)
                ends("listing", "too long");
            if (strncmp(d->name, ".", d->namelen) && strncmp(d->name, "..", d->namelen))
                names[n++] = strndup(d->name, d->namelen);
            in.offset = d->off;
            at += len;
        }
    }
    if (in.fh && fs_rig_release(g, node, in.fh, true))
        ends("FUSE_RELEASEDIR", "refused");
    qsort(names, n, sizeof(names[0]), compare);
    *ret = 0;
    for (size_t i = 0; i < n; i++) {
        used += (size_t)snprintf(ret + used, size - used, "%s%s", i ? " " : "", names[i]);
        if (used >= size)
            ends("listing", "too long");
        free(names[i]);
    }
    return rc;
}

void fs_rig_put(struct fs_rig *g, const char *name, const char *content)
{
    char path[256];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", g->top, name);
    f = fopen(path, "we");
    if (!f || fputs(content, f) < 0 || fclose(f))
        ends(path, strerror(errno));
}

char *fs_rig_get(struct fs_rig *g, const char *name)
{
    char path[256], *ret = NULL;
    size_t n = 0;
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", g->top, name);
    f = fopen(path, "re");
    if (!f || getdelim(&ret, &n, 0, f) < 0) {
        free(ret);
        ret = xstrdup(f ? "" : "(none)");
    }
    if (f)
        fclose(f);
    return ret;
}
