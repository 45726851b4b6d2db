/* Block device [VIRTIO-v1.2 5.2]: up to 64 queues in front of one disk image.  No SCSI commands. */
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <stdio.h>

#include "devices/block/filter.h"
#include "devices/block/key.h"
#include "devices/virtio/virtio.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"

enum {
    QUEUES_MAX = 64,
    QUEUE_SIZE = 256,
    SEGS_MAX = QUEUE_SIZE - 2, /* a header and a status besides */
    SECTOR = 512,
    PAGE = 4096,                 /* what host file systems like */
    RANGE_SECTORS_MAX = 1 << 21, /* of a discard: 1 GiB, so that one does not hold the disk for long */
    GEOMETRY_HEADS = 16,
    GEOMETRY_SECTORS = 63, /* what everybody pretends */
};

static const char *const cache_words[] = {
    [BLK_CACHE_WRITEBACK] = "writeback",
    [BLK_CACHE_NONE] = "none",
    [BLK_CACHE_WRITETHROUGH] = "writethrough",
    [BLK_CACHE_UNSAFE] = "unsafe",
    NULL,
};
/* What follows when the host's disk fails; QEMU's words. */
enum { ON_ERROR_REPORT, ON_ERROR_IGNORE, ON_ERROR_STOP, ON_ERROR_ENOSPC };
#define READ_ERROR_WORDS [ON_ERROR_REPORT] = "report", [ON_ERROR_IGNORE] = "ignore", [ON_ERROR_STOP] = "stop"
static const char *const read_error_words[] = {READ_ERROR_WORDS, NULL};
static const char *const write_error_words[] = {READ_ERROR_WORDS, [ON_ERROR_ENOSPC] = "enospc", NULL};

struct vblk_req { /* one for each descriptor head */
    struct blk_req io;
    struct vq_chain chain;
    struct vq *q;
    struct gspan status;
    uint32_t reply; /* bytes that the guest gets when all goes well */
    struct list kept;
};

struct vblk_counter {
    uint64_t requests, bytes, errors;
};

struct vblk_state {
    uint8_t writeback; /* the driver's choice, where it negotiated that */
};

struct vblk {
    struct virtio v;
    char *path, *serial, *format, *allow;
    bool read_only, snapshot, discard;
    uint32_t cache, queues, block_size, werror, rerror;
    struct opt_list format_options, key_files, filters, file_filters;
    struct blk *disk;
    struct blk_user user;
    struct vblk_req *reqs;
    uint64_t unflushed; /* queues with pushed chains, a bit each */
    struct list kept;   /* requests that failed, until the machine starts again */
    struct vblk_counter counters[BLK_ZERO + 1];
    struct log_limit limit;
    struct vblk_state s;
};

static const struct opt vblk_opts[] = {
    O_STR(struct vblk, path, "path", NULL, "image file or block device", .arg = "FILE"),
    O_BOOL(struct vblk, read_only, "ro", "off", "the guest may not write"),
    O_BOOL(struct vblk, snapshot, "snapshot", "off",
           "what the guest writes goes to a temporary file in $TMPDIR or /var/tmp and is gone afterwards"),
    O_STR(struct vblk, serial, "serial", NULL, "serial number, up to 20 bytes"),
    O_ENUM(struct vblk, cache, "cache", "writeback", cache_words,
           "writeback: the host's page cache; none: past it; writethrough: every write is safe when it is answered; "
           "unsafe: flushes are nothing"),
    O_BOOL(struct vblk, discard, "discard", "on", "blocks that the guest discards are freed in the image"),
    O_U32(struct vblk, queues, "queues", "1", 1, QUEUES_MAX, "request queues; best one for each vCPU"),
    O_U32(struct vblk, block_size, "block-size", "512", SECTOR, PAGE, "logical block size, 512 or 4096"),
    O_STR(struct vblk, format, "format", NULL, "the image's format; by default what the ending of its name says"),
    O_LIST(struct vblk, format_options, "format-option", "an option of the format, KEY=VALUE"),
    O_STR(struct vblk, allow, "allow", NULL,
          "folders, : between, in which files that the image names may lie besides its own", .arg = "DIR"),
    O_LIST(struct vblk, key_files, "key-file",
           "file with the key of an encrypted image, as it is; where more images of a chain have one, all are tried",
           .arg = "FILE"),
    O_LIST(struct vblk, filters, "filter", "a filter above the image and its options, as in throttle:iops=100"),
    O_LIST(struct vblk, file_filters, "file-filter", "a filter between the image's format and its file"),
    O_ENUM(struct vblk, werror, "werror", "report", write_error_words,
           "when a write fails, tell the guest; say nothing; pause the guest and try again when it continues; or pause "
           "it if the host's disk is full, and tell it of all else"),
    O_ENUM(struct vblk, rerror, "rerror", "report", read_error_words, "when a read fails, as above"),
    O_END,
};

static struct vblk *vblk_of(struct virtio *v)
{
    return container_of(v, struct vblk, v);
}

/* Must a write be on stable storage before it is answered? [5.2.6.2] */
static bool write_through(const struct vblk *b)
{
    if (virtio_has(&b->v, VIRTIO_BLK_F_CONFIG_WCE))
        return !b->s.writeback;
    return !virtio_has(&b->v, VIRTIO_BLK_F_FLUSH);
}

static void answer(struct vblk *b, struct vblk_req *r, uint8_t status)
{
    gspan_put(r->status, 0, &status, 1);
    chain_wrote(&r->chain, 1 + (status == VIRTIO_BLK_S_OK ? r->reply : 0));
    vq_push(r->q, &r->chain);
    b->unflushed |= 1ull << vq_index(r->q);
}

/* The disk answered a run of requests. */
static void vblk_batch(struct blk_user *u)
{
    struct vblk *b = container_of(u, struct vblk, user);

    while (b->unflushed) {
        unsigned i = (unsigned)__builtin_ctzll(b->unflushed);

        b->unflushed &= b->unflushed - 1;
        vq_flush(virtio_queue(&b->v, i));
    }
}

static const char *const op_names[] = {
    [BLK_READ] = "read",       [BLK_WRITE] = "write",       [BLK_FLUSH] = "flush",
    [BLK_DISCARD] = "discard", [BLK_ZERO] = "write zeroes",
};

/* Would it do better later?  What no disk can do is the guest's mistake, not the host's. */
static bool worth_keeping(uint32_t on_error, int ret)
{
    bool full = ret == -ENOSPC || ret == -EDQUOT;

    if (ret == -EINVAL || ret == -EROFS || ret == -EOPNOTSUPP)
        return false;
    return on_error == ON_ERROR_STOP || (on_error == ON_ERROR_ENOSPC && full);
}

/* Unanswered, with the machine paused, until vblk_start(). */
static void keep(struct vblk *b, struct vblk_req *r, int ret)
{
    char why[256];

    list_add_tail(&b->kept, &r->kept);
    snprintf(why, sizeof(why), "%s: %s at byte %llu of %s: %s; %s", b->v.dev.id, op_names[r->io.io.op],
             (unsigned long long)r->io.off, b->path, strerror(-ret), ret == -EIO ? "mend the disk" : "make room");
    b->v.dev.env->pause(b->v.dev.env, why);
}

static void vblk_done(struct blk_req *io, int ret)
{
    struct vblk_req *r = container_of(io, struct vblk_req, io);
    struct vblk *b = container_of(io->top->user, struct vblk, user);
    uint32_t on_error = io->io.op == BLK_READ ? b->rerror : b->werror;

    b->counters[io->io.op].errors += ret != 0;
    if (!ret && io->io.op != BLK_READ && io->io.op != BLK_FLUSH && write_through(b)) {
        io->io.op = BLK_FLUSH;
        blk_submit(b->disk, io);
        blk_kick(b->disk);
        return;
    }
    if (ret && worth_keeping(on_error, ret)) {
        keep(b, r, ret);
        return;
    }
    if (ret && ret != -EOPNOTSUPP)
        log_guest(&b->limit, "%s: %s at byte %llu of %s: %s", b->v.dev.id, op_names[io->io.op],
                  (unsigned long long)io->off, b->path, strerror(-ret));
    if (ret && on_error == ON_ERROR_IGNORE)
        ret = 0;
    answer(b, r, !ret ? VIRTIO_BLK_S_OK : ret == -EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR);
}

/* The rest of a side becomes the request's data; VIRTIO_BLK_S_*. */
static uint8_t io_data(struct vblk_req *r, enum blk_op op, uint64_t sector, const struct vq_side *data)
{
    r->io = (struct blk_req){.io = {.op = op, .len = data->left, .iov = data->iov, .niov = data->n}, .done = vblk_done};
    return __builtin_mul_overflow(sector, SECTOR, &r->io.io.off) ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK;
}

/* One segment of a discard or write-zeroes request; VIRTIO_BLK_S_*. */
static uint8_t io_range(struct vblk *b, struct vblk_req *r, enum blk_op op)
{
    struct virtio_blk_discard_write_zeroes seg;
    uint32_t flags, sectors;

    if (r->chain.out.left != sizeof(seg) || !b->discard)
        return VIRTIO_BLK_S_UNSUPP;
    chain_read(&r->chain, &seg, sizeof(seg));
    flags = le32toh(seg.flags);
    sectors = le32toh(seg.num_sectors);
    if (flags & ~(op == BLK_ZERO ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0u))
        return VIRTIO_BLK_S_UNSUPP;
    r->io = (struct blk_req){.io = {.op = op, .unmap = flags, .len = (uint64_t)sectors * SECTOR}, .done = vblk_done};
    if (sectors > RANGE_SECTORS_MAX || __builtin_mul_overflow(le64toh(seg.sector), SECTOR, &r->io.io.off))
        return VIRTIO_BLK_S_IOERR;
    return VIRTIO_BLK_S_OK;
}

static void get_id(struct vblk *b, struct vblk_req *r)
{
    char id[VIRTIO_BLK_ID_BYTES] = {0}; /* no terminator when full */

    if (b->serial)
        memcpy(id, b->serial, strlen(b->serial));
    chain_write(&r->chain, id, sizeof(id));
}

/* Fills r->io when there is something to do for the disk; VIRTIO_BLK_S_*. */
static uint8_t decode(struct vblk *b, struct vblk_req *r)
{
    struct virtio_blk_outhdr h;
    uint64_t sector;

    if (chain_read(&r->chain, &h, sizeof(h)) < sizeof(h))
        return VIRTIO_BLK_S_IOERR;
    sector = le64toh(h.sector);
    switch (le32toh(h.type)) {
    case VIRTIO_BLK_T_IN:
        r->reply = (uint32_t)r->chain.in.left;
        return io_data(r, BLK_READ, sector, &r->chain.in);
    case VIRTIO_BLK_T_OUT:
        return io_data(r, BLK_WRITE, sector, &r->chain.out);
    case VIRTIO_BLK_T_FLUSH:
        r->io = (struct blk_req){.io.op = BLK_FLUSH, .done = vblk_done};
        return VIRTIO_BLK_S_OK;
    case VIRTIO_BLK_T_GET_ID:
        get_id(b, r);
        return VIRTIO_BLK_S_OK;
    case VIRTIO_BLK_T_DISCARD:
        return io_range(b, r, BLK_DISCARD);
    case VIRTIO_BLK_T_WRITE_ZEROES:
        return io_range(b, r, BLK_ZERO);
    default:
        return VIRTIO_BLK_S_UNSUPP;
    }
}

static void kick(struct vblk *b)
{
    blk_kick(b->disk);
    vblk_batch(&b->user);
}

/* The guest may answer answers with requests, which then need no notification. */
static bool next_chain(struct vblk *b, struct vq *q, struct vq_chain *ret)
{
    if (vq_try_pop(q, ret) > 0)
        return true;
    kick(b);
    return vq_pop(q, ret) > 0;
}

static void vblk_queue(struct virtio *v, struct vq *q)
{
    struct vblk *b = vblk_of(v);
    struct vq_chain c;

    while (next_chain(b, q, &c)) {
        struct vblk_req *r = &b->reqs[vq_index(q) * QUEUE_SIZE + c.head];
        uint8_t status;

        *r = (struct vblk_req){.chain = c, .q = q};
        if (!chain_take_last(&r->chain.in, &r->status)) {
            virtio_broken(v, "a request has no room for its status");
            break;
        }
        status = decode(b, r);
        if (status == VIRTIO_BLK_S_OK && r->io.done) {
            b->counters[r->io.io.op].requests++;
            b->counters[r->io.io.op].bytes += r->io.io.len;
            blk_submit(b->disk, &r->io);
        } else {
            answer(b, r, status);
        }
    }
    kick(b);
}

static struct virtio_blk_config *config_of(struct vblk *b)
{
    return (struct virtio_blk_config *)b->v.config;
}

static void vblk_reset(struct virtio *v)
{
    struct vblk *b = vblk_of(v);

    b->s = (struct vblk_state){.writeback = 1};
    b->unflushed = 0;
    list_init(&b->kept);
    config_of(b)->wce = b->s.writeback;
}

static void vblk_queue_reset(struct virtio *v, struct vq *q)
{
    struct vblk *b = vblk_of(v);

    for (struct list *n = b->kept.next, *next; n != &b->kept; n = next) {
        next = n->next;
        if (container_of(n, struct vblk_req, kept)->q == q)
            list_del(n);
    }
}

static void vblk_config_written(struct virtio *v, size_t off, size_t n)
{
    struct vblk *b = vblk_of(v);

    (void)off;
    (void)n;
    b->s.writeback = config_of(b)->wce & 1;
}

static const struct virtio_ops vblk_ops = {
    .id = VIRTIO_ID_BLOCK,
    .queue_size = QUEUE_SIZE,
    .features = 1ull << VIRTIO_BLK_F_SEG_MAX | 1ull << VIRTIO_BLK_F_GEOMETRY | 1ull << VIRTIO_BLK_F_BLK_SIZE |
                1ull << VIRTIO_BLK_F_FLUSH | 1ull << VIRTIO_BLK_F_TOPOLOGY | 1ull << VIRTIO_BLK_F_CONFIG_WCE |
                1ull << VIRTIO_BLK_F_MQ,
    .config_size = sizeof(struct virtio_blk_config),
    .config_wr_off = offsetof(struct virtio_blk_config, wce),
    .config_wr_len = 1,
    .reset = vblk_reset,
    .queue = vblk_queue,
    .queue_reset = vblk_queue_reset,
    .config_written = vblk_config_written,
};

static void fill_config(struct vblk *b)
{
    uint64_t sectors = b->disk->lim.size / SECTOR;
    uint32_t block = b->block_size / SECTOR;

    *config_of(b) = (struct virtio_blk_config){
        .capacity = htole64(sectors),
        .seg_max = htole32(SEGS_MAX),
        .geometry.cylinders = htole16((uint16_t)min_u64(sectors / (GEOMETRY_HEADS * GEOMETRY_SECTORS), UINT16_MAX)),
        .geometry.heads = GEOMETRY_HEADS,
        .geometry.sectors = GEOMETRY_SECTORS,
        .blk_size = htole32(b->block_size),
        .physical_block_exp = (uint8_t)__builtin_ctz(PAGE / b->block_size),
        .min_io_size = htole16((uint16_t)(PAGE / b->block_size)),
        .num_queues = htole16((uint16_t)b->queues),
        .max_discard_sectors = htole32(RANGE_SECTORS_MAX),
        .max_discard_seg = htole32(1),
        .discard_sector_alignment = htole32(block),
        .max_write_zeroes_sectors = htole32(RANGE_SECTORS_MAX),
        .max_write_zeroes_seg = htole32(1),
        .write_zeroes_may_unmap = 1,
        .wce = b->s.writeback,
    };
}

/* ---- While it runs. ---- */

struct resize_args {
    uint64_t size;
};

static const struct opt resize_opts[] = {
    O_SIZE(struct resize_args, size, "size", NULL, 1, 0, "the new one, no less than now"),
    O_END,
};

static int resize_run(struct device *d, const void *args, json_t *reply, struct err *err)
{
    struct vblk *b = container_of(d, struct vblk, v.dev);
    uint64_t size = ((const struct resize_args *)args)->size, now = b->disk->lim.size;
    int rc;

    if (size < now || size % b->block_size)
        return err_set(err, EINVAL, "size=%llu: the disk has %llu bytes and can only grow, by whole blocks of %u",
                       (unsigned long long)size, (unsigned long long)now, b->block_size);
    if (b->disk->lim.read_only)
        return err_set(err, EROFS, "%s is read-only", b->path);
    if (!b->disk->drv->resize)
        return err_set(err, EOPNOTSUPP, "%s: format %s keeps its size; only qcow2 and raw grow", b->path,
                       b->disk->drv->name);
    rc = b->disk->drv->resize(b->disk, size, err);
    if (!rc && (rc = blk_flush(b->disk)))
        err_set(err, -rc, "%s: %s", b->path, strerror(-rc));
    if (rc)
        return rc;
    fill_config(b);
    virtio_config_changed(&b->v);
    json_object_set_new(reply, "size", json_integer((json_int_t)b->disk->lim.size));
    return 0;
}

static const struct opt throttle_opts[] = {
    O_U64(struct throttle_limits, iops, "iops", "0", 0, 1000000000, "requests per second; 0: no limit"),
    O_SIZE(struct throttle_limits, bps, "bps", "0", 0, 0, "bytes per second; 0: no limit"),
    O_U32(struct throttle_limits, burst_ms, "burst", "100", 0, THROTTLE_BURST_MAX_MS,
          "after a pause so many milliseconds' worth may pass at once"),
    O_END,
};

static int throttle_run(struct device *d, const void *args, json_t *reply, struct err *err)
{
    struct vblk *b = container_of(d, struct vblk, v.dev);
    struct blk *t = throttle_find(b->disk);
    int rc = 0;

    (void)reply;
    if (!t) {
        rc = blk_filter(b->disk, "throttle:iops=1", &t, err);
        if (rc)
            return rc;
        t->user = b->disk->user;
        b->disk = t;
    }
    throttle_set(t, args);
    return 0;
}

static const struct device_command vblk_commands[] = {
    {.name = "resize",
     .help = "grow the image, and tell the guest",
     .opts = resize_opts,
     .size = sizeof(struct resize_args),
     .still = true,
     .run = resize_run},
    {.name = "throttle",
     .help = "limit requests and bytes per second; what is not given has no limit",
     .opts = throttle_opts,
     .size = sizeof(struct throttle_limits),
     .run = throttle_run},
    {.name = NULL},
};

static json_t *vblk_info(struct device *d)
{
    struct vblk *b = container_of(d, struct vblk, v.dev);
    struct blk *t = throttle_find(b->disk);
    json_t *ret = json_object();
    unsigned kept = 0;

    list_for_each (n, &b->kept)
        kept++;
    json_object_set_new(ret, "image", json_string(b->path));
    json_object_set_new(ret, "size", json_integer((json_int_t)b->disk->lim.size));
    for (size_t i = 0; i < array_len(b->counters); i++) {
        const struct vblk_counter *c = &b->counters[i];

        json_object_set_new(ret, op_names[i],
                            json_pack("{s:I, s:I, s:I}", "requests", (json_int_t)c->requests, "bytes",
                                      (json_int_t)c->bytes, "errors", (json_int_t)c->errors));
    }
    json_object_set_new(ret, "kept", json_integer(kept));
    if (t) {
        struct throttle_limits l = throttle_get(t);

        json_object_set_new(ret, "throttle",
                            json_pack("{s:I, s:I, s:I}", "iops", (json_int_t)l.iops, "bps", (json_int_t)l.bps, "burst",
                                      (json_int_t)l.burst_ms));
    }
    return ret;
}

/* The strings with commas between. */
static char *join(const struct opt_list *l)
{
    char *ret;
    size_t n = 1;

    for (size_t i = 0; i < l->n; i++)
        n += strlen(l->v[i]) + 1;
    ret = xcalloc(1, n);
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            strcat(ret, ",");
        strcat(ret, l->v[i]);
    }
    return ret;
}

static int check_options(const struct vblk *b, struct err *err)
{
    if (!b->path)
        return err_set(err, EINVAL, "a disk needs a path=FILE");
    if (b->block_size != SECTOR && b->block_size != PAGE)
        return err_set(err, EINVAL, "block-size=%u: must be 512 or 4096", b->block_size);
    if (b->serial && strlen(b->serial) > VIRTIO_BLK_ID_BYTES)
        return err_set(err, EINVAL, "serial=%s: %zu bytes, at most %d fit", b->serial, strlen(b->serial),
                       VIRTIO_BLK_ID_BYTES);
    return 0;
}

static const struct field vblk_fields[] = {F_U8(struct vblk_state, writeback), F_END};
static const struct state_desc vblk_desc = {
    .name = "virtio-blk", .version = 1, .size = sizeof(struct vblk_state), .fields = vblk_fields};

static int open_disk(struct vblk *b, struct err *err)
{
    cleanup_free char *options = join(&b->format_options);
    struct blk_keys keys __attribute__((cleanup(blk_keys_fini))) = {0};
    const struct blk_open_opts o = {.read_only = b->read_only,
                                    .snapshot = b->snapshot,
                                    .format = b->format,
                                    .options = options,
                                    .cache = b->cache,
                                    .allow = b->allow,
                                    .keys = &keys,
                                    .filters = &b->filters,
                                    .file_filters = &b->file_filters};

    for (size_t i = 0; i < b->key_files.n; i++) {
        int rc = blk_keys_add_file(&keys, b->key_files.v[i], b->key_files.v[i], err);

        if (rc)
            return rc;
    }
    return blk_open(b->path, &o, &b->v.dev.lane, &b->user, &b->disk, err);
}

static int vblk_init(struct device *d, struct err *err)
{
    struct vblk *b = container_of(d, struct vblk, v.dev);
    int rc = check_options(b, err);

    if (!rc)
        rc = open_disk(b, err);
    if (rc)
        return rc;
    b->user.batch = vblk_batch;
    list_init(&b->kept);
    b->block_size = (uint32_t)max_u64(b->block_size, b->disk->lim.align);
    if (b->disk->lim.size % b->block_size)
        return err_set(err, EINVAL, "%s has %llu bytes, not a multiple of its block-size %u", b->path,
                       (unsigned long long)b->disk->lim.size, b->block_size);
    b->reqs = xcalloc((size_t)b->queues * QUEUE_SIZE, sizeof(b->reqs[0]));
    b->v.nqueues = b->queues;
    b->v.offered = vblk_ops.features;
    if (b->cache == BLK_CACHE_WRITETHROUGH) /* a device that has neither writes through [5.2.6.2] */
        b->v.offered &= ~(1ull << VIRTIO_BLK_F_FLUSH | 1ull << VIRTIO_BLK_F_CONFIG_WCE);
    if (b->disk->lim.read_only)
        b->v.offered |= 1ull << VIRTIO_BLK_F_RO;
    if (b->discard)
        b->v.offered |= 1ull << VIRTIO_BLK_F_DISCARD | 1ull << VIRTIO_BLK_F_WRITE_ZEROES;
    device_add_state(d, "", &vblk_desc, &b->s, 1);
    rc = virtio_init(&b->v, &vblk_ops, err);
    if (!rc)
        fill_config(b);
    return rc;
}

/* In the order in which they failed. */
static void vblk_start(struct device *d)
{
    struct vblk *b = container_of(d, struct vblk, v.dev);
    struct list *n;

    while ((n = list_pop(&b->kept)))
        blk_retry(&container_of(n, struct vblk_req, kept)->io);
    blk_kick(b->disk);
}

/* The machine waits for what is in flight; it need not for what a limit holds up. */
static void vblk_stop(struct device *d)
{
    struct blk *t = throttle_find(container_of(d, struct vblk, v.dev)->disk);

    if (t)
        throttle_release(t);
}

static void vblk_settle(struct device *d)
{
    struct vblk *b = container_of(d, struct vblk, v.dev);

    config_of(b)->wce = b->s.writeback;
}

static void vblk_fini(struct device *d)
{
    struct vblk *b = container_of(d, struct vblk, v.dev);

    virtio_fini(&b->v);
    blk_close(b->disk);
    free(b->reqs);
}

const struct device_class virtio_blk = {
    .name = "virtio-blk",
    .summary = "a disk",
    .size = DEVICE_SIZE(struct vblk, v.dev),
    .opts = vblk_opts,
    .first = "path",
    .loop = LOOP_IO,
    .init = vblk_init,
    .fini = vblk_fini,
    .settle = vblk_settle,
    .start = vblk_start,
    .stop = vblk_stop,
    .commands = vblk_commands,
    .info = vblk_info,
};
