/*
 * File system device [VIRTIO-v1.2 5.11]: FUSE requests for a directory of the host.  Queue 0 is for what must not wait
 * behind others (FUSE_FORGET), the others are all alike.  No DAX window, no notifications.
 */
#include <linux/virtio_fs.h>
#include <linux/virtio_ids.h>

#include "devices/fs/fs.h"
#include "devices/virtio/virtio.h"
#include "vmm/base/cleanup.h"

enum {
    QUEUES_MAX = 16,
    QUEUE_SIZE = 512, /* requests of 256 pages and more */
    TAG_MAX = sizeof(((struct virtio_fs_config *)0)->tag),
};

struct vfs_req { /* one for each descriptor head */
    struct fs_req io;
    struct vq_chain chain;
    struct vq *q;
};

struct vfs_state {
    uint8_t mounted;
};

struct vfs {
    struct virtio v;
    char *path, *tag;
    uint32_t mode, cache, owner, queues;
    struct fs *fs;
    struct vfs_req *reqs;
    struct vfs_state s;
};

static const struct opt vfs_opts[] = {
    O_STR(struct vfs, path, "path", NULL, "directory to share", .arg = "DIR"),
    O_STR(struct vfs, tag, "tag", NULL, "what the guest mounts, up to 36 bytes; the directory's last name unless told"),
    O_ENUM(struct vfs, mode, "mode", "ro", fs_mode_words,
           "ro: the guest may not write; rw: it may; cow: it may, and what it writes is thrown away"),
    O_ENUM(struct vfs, cache, "cache", "auto", fs_cache_words,
           "what the guest keeps: auto: for a second; always: as if only the guest changed anything; none: nothing, "
           "and no shared mappings either"),
    O_ENUM(struct vfs, owner, "owner", "auto", fs_owner_words,
           "host: owners as they are; root: who runs bothy is the guest's root; auto: root where the guest may write"),
    O_U32(struct vfs, queues, "queues", "1", 1, QUEUES_MAX, "request queues"),
    O_END,
};

static struct vfs *vfs_of(struct virtio *v)
{
    return container_of(v, struct vfs, v);
}

static void finish(struct vfs_req *r)
{
    chain_wrote(&r->chain, r->io.written);
    vq_push(r->q, &r->chain);
}

static void vfs_done(struct fs_req *io)
{
    struct vfs_req *r = container_of(io, struct vfs_req, io);

    finish(r);
    vq_flush(r->q);
}

static void vfs_queue(struct virtio *v, struct vq *q)
{
    struct vfs *f = vfs_of(v);
    struct vq_chain c;

    while (vq_pop(q, &c) > 0) {
        struct vfs_req *r = &f->reqs[vq_index(q) * QUEUE_SIZE + c.head];

        *r = (struct vfs_req){.chain = c, .q = q};
        r->io = (struct fs_req){.in = c.out.iov,
                                .nin = c.out.n,
                                .in_len = c.out.left,
                                .out = c.in.iov,
                                .nout = c.in.n,
                                .out_len = c.in.left,
                                .done = vfs_done};
        if (fs_request(f->fs, &r->io))
            finish(r);
    }
    vq_flush(q);
}

static void vfs_reset(struct virtio *v)
{
    fs_reset(vfs_of(v)->fs);
    vfs_of(v)->s = (struct vfs_state){0};
}

static const struct virtio_ops vfs_ops = {
    .id = VIRTIO_ID_FS,
    .queue_size = QUEUE_SIZE,
    .config_size = sizeof(struct virtio_fs_config),
    .reset = vfs_reset,
    .queue = vfs_queue,
};

/* What the guest has open cannot be carried over. */
static int check_state(void *obj, struct err *err)
{
    const struct vfs_state *s = obj;

    if (s->mounted)
        return err_set(err, EBUSY,
                       "the shared directory was mounted; unmount it in the guest before its state is saved");
    return 0;
}

static const struct field vfs_fields[] = {F_U8(struct vfs_state, mounted), F_END};
static const struct state_desc vfs_desc = {
    .name = "virtio-fs", .version = 1, .size = sizeof(struct vfs_state), .fields = vfs_fields, .check = check_state};

/* "/srv/data/" is data, and "/" is root. */
static char *tag_of(const char *path)
{
    size_t end = strlen(path), start;

    while (end && path[end - 1] == '/')
        end--;
    for (start = end; start && path[start - 1] != '/';)
        start--;
    return start == end ? xstrdup("root") : strndup(path + start, end - start);
}

static int check_options(struct vfs *f, struct err *err)
{
    if (!f->path || !*f->path)
        return err_set(err, EINVAL, "a shared directory needs a path=DIR");
    if (!f->tag)
        f->tag = tag_of(f->path);
    if (!*f->tag)
        return err_set(err, EINVAL, "tag=: give the guest a name to mount");
    if (strlen(f->tag) > TAG_MAX)
        return err_set(err, EINVAL, "tag=%s: %zu bytes, at most %d fit; give a shorter one", f->tag, strlen(f->tag),
                       (int)TAG_MAX);
    return 0;
}

static int vfs_init(struct device *d, struct err *err)
{
    struct vfs *f = container_of(d, struct vfs, v.dev);
    struct virtio_fs_config *config;
    int rc = check_options(f, err);

    if (!rc)
        rc = fs_create(&(struct fs_opts){.dir = f->path, .mode = f->mode, .cache = f->cache, .owner = f->owner},
                       &d->lane, &f->fs, err);
    if (rc)
        return rc;
    f->v.nqueues = 1 + f->queues;
    f->reqs = xcalloc((size_t)f->v.nqueues * QUEUE_SIZE, sizeof(f->reqs[0]));
    device_add_state(d, "", &vfs_desc, &f->s, 1);
    rc = virtio_init(&f->v, &vfs_ops, err);
    if (rc)
        return rc;
    config = (struct virtio_fs_config *)f->v.config;
    memcpy(config->tag, f->tag, strlen(f->tag));
    config->num_request_queues = htole32(f->queues);
    return 0;
}

static void vfs_stop(struct device *d)
{
    struct vfs *f = container_of(d, struct vfs, v.dev);

    f->s.mounted = fs_mounted(f->fs);
}

static void vfs_fini(struct device *d)
{
    struct vfs *f = container_of(d, struct vfs, v.dev);

    virtio_fini(&f->v);
    fs_destroy(f->fs);
    free(f->reqs);
}

const struct device_class virtio_fs = {
    .name = "virtio-fs",
    .summary = "a directory of the host",
    .size = DEVICE_SIZE(struct vfs, v.dev),
    .opts = vfs_opts,
    .first = "path",
    .loop = LOOP_OWN,
    .init = vfs_init,
    .fini = vfs_fini,
    .stop = vfs_stop,
};
