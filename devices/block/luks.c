/*
 * Encrypted disks: the format `luks`, a raw disk behind a LUKS header, and the layer of a qcow2 image that encrypts its
 * guest's clusters.
 *
 * Both are a node that turns sectors of the node below into those of the disk, by the number that a sector has there.
 * It goes through a buffer: the guest, whose memory the request's may be, must not see what is not yet decrypted, and
 * may change what it writes while that is being encrypted.  map() is not there, so every request runs on a worker, and
 * many of them at once.
 */
#include "devices/block/luks.h"

#include <pthread.h>

#include "devices/block/file.h"
#include "vmm/base/cleanup.h"

enum { CHUNK = 256 << 10, SECTOR = CRYPT_SECTOR }; /* CHUNK: bytes at a time */

struct luks {
    struct blk b;
    struct luks_header h;
    uint64_t start; /* of sector 0 in b.file */
    bool locked;    /* there is no key */
    struct crypt crypt;
    pthread_mutex_t halves; /* whoever writes parts of sectors */
};

static struct luks *luks_of(struct blk *b)
{
    return container_of(b, struct luks, b);
}

/* ---- Data. ---- */

static int read_sectors(struct luks *l, uint8_t *buf, size_t n, uint64_t off)
{
    int rc = blk_pread(l->b.file, buf, n, l->start + off);

    if (!rc)
        crypt_decrypt(&l->crypt, off / SECTOR, buf, n);
    return rc;
}

static int write_sectors(struct luks *l, uint8_t *buf, size_t n, uint64_t off)
{
    crypt_encrypt(&l->crypt, off / SECTOR, buf, n);
    return blk_pwrite(l->b.file, buf, n, l->start + off);
}

/* What the request has for `n` bytes from `skip` on. */
static void get_data(const struct blk_io *io, uint64_t skip, uint8_t *buf, size_t n)
{
    if (io->op == BLK_ZERO)
        memset(buf, 0, n);
    else
        iov_get(io->iov, skip, buf, n);
}

/* `n` bytes at `off`, in the midst of `size` bytes of sectors. */
static int write_inside(struct luks *l, const struct blk_io *io, uint64_t skip, uint8_t *buf, size_t size, uint64_t off,
                        size_t n)
{
    uint64_t first = align_down(off, SECTOR);
    int rc;

    pthread_mutex_lock(&l->halves);
    rc = read_sectors(l, buf, size, first);
    if (!rc) {
        get_data(io, skip, buf + (off - first), n);
        rc = write_sectors(l, buf, size, first);
    }
    pthread_mutex_unlock(&l->halves);
    return rc;
}

static int transfer(struct luks *l, const struct blk_io *io)
{
    cleanup_free uint8_t *buf = malloc(min_u64(io->len, CHUNK) + 2ull * SECTOR);
    int rc = buf ? 0 : -ENOMEM;

    for (uint64_t at = 0, n; !rc && at < io->len; at += n) {
        uint64_t off = io->off + at, first = align_down(off, SECTOR), size;

        n = min_u64(io->len - at, CHUNK);
        size = align_up(off + n, SECTOR) - first;
        if (io->op == BLK_READ) {
            rc = read_sectors(l, buf, size, first);
            if (!rc)
                iov_put(io->iov, at, buf + (off - first), n);
        } else if (size != n) {
            rc = write_inside(l, io, at, buf, size, off, n);
        } else {
            get_data(io, at, buf, n);
            rc = write_sectors(l, buf, n, off);
        }
    }
    return rc;
}

static int luks_rw(struct blk *b, const struct blk_io *io)
{
    struct luks *l = luks_of(b);

    switch (io->op) {
    case BLK_READ:
    case BLK_WRITE:
    case BLK_ZERO:
        return l->locked ? -ENOKEY : transfer(l, io);
    case BLK_FLUSH:
        return blk_flush(b->file);
    case BLK_DISCARD: /* may be without effect; a hole would read as noise */
        return 0;
    case BLK_COPY:
        break;
    }
    return -EINVAL;
}

/* ---- Opening. ---- */

static int unlock(struct luks *l, struct blk *file, uint64_t off, const struct blk_open_opts *o, struct err *err)
{
    uint8_t key[CRYPT_KEY_MAX];
    int rc;

    l->locked = o->keyless;
    if (l->locked)
        return 0;
    if (!o->keys || !o->keys->n)
        return err_set(err, ENOKEY,
                       "%s is encrypted; give a file with its key by key-file=FILE (bothy img: --object "
                       "secret,id=key,file=FILE)",
                       file->name);
    rc = luks_unlock(file, off, &l->h, o->keys, key, err);
    if (!rc)
        crypt_init(&l->crypt, &l->h.kind, key);
    explicit_bzero(key, sizeof(key));
    return rc;
}

/* The header at `off` of `file`; `area`: what it may take, 0: as it says itself. */
static int open_header(struct luks *l, struct blk *file, uint64_t off, uint64_t area, const struct blk_open_opts *o,
                       struct err *err)
{
    uint8_t p[LUKS_HEADER];
    int rc;

    pthread_mutex_init(&l->halves, NULL);
    if (!file->lim.grows && !range_fits(off, sizeof(p), file->lim.size))
        return err_set(err, EINVAL, "%s has no LUKS header", file->name);
    rc = blk_pread(file, p, sizeof(p), off);
    if (rc)
        return err_set(err, -rc, "read %s: %s", file->name, strerror(-rc));
    rc = luks_parse(p, area, file->name, &l->h, err);
    return rc ? rc : unlock(l, file, off, o, err);
}

static void luks_close(struct blk *b)
{
    struct luks *l = luks_of(b);

    crypt_fini(&l->crypt);
    pthread_mutex_destroy(&l->halves);
}

static int luks_open(struct blk *b, const struct blk_open_opts *o, struct err *err)
{
    struct luks *l = luks_of(b);
    uint64_t size = b->file->lim.size;
    int rc = open_header(l, b->file, 0, size, o, err);

    if (rc)
        return rc;
    l->start = l->h.payload;
    if (l->start < LUKS_HEADER || l->start >= size)
        return err_set(err, EINVAL, "%s is damaged: its LUKS header says that the disk is at byte %llu of %llu",
                       b->name, (unsigned long long)l->start, (unsigned long long)size);
    b->lim = (struct blk_limits){
        .size = size - l->start, .align = SECTOR, .read_only = o->read_only || b->file->lim.read_only};
    return 0;
}

int luks_layer(struct blk *file, uint64_t off, uint64_t area, struct blk *data, const struct blk_open_opts *o,
               struct blk **ret, struct err *err)
{
    struct blk *b = blk_node(&luks_driver, file->name, data->lane);
    int rc = open_header(luks_of(b), file, off, area, o, err);

    b->file = data;
    b->lim = data->lim;
    if (rc)
        luks_layer_close(b);
    else
        *ret = b;
    return rc;
}

void luks_layer_close(struct blk *b)
{
    if (b)
        b->file = NULL;
    blk_close(b);
}

/* ---- What it is like. ---- */

json_t *luks_info(struct blk *b)
{
    const struct luks_header *h = &luks_of(b)->h;
    json_t *slots = json_array(), *j;

    for (unsigned i = 0; i < LUKS_SLOTS; i++) {
        const struct luks_slot *s = &h->slots[i];

        j = json_pack("{s:b, s:I}", "active", s->active, "key-offset", (json_int_t)s->off);

        if (s->active) {
            json_object_set_new(j, "iters", json_integer(s->rounds));
            json_object_set_new(j, "stripes", json_integer(LUKS_STRIPES));
        }
        json_array_append_new(slots, j);
    }
    j = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:o}", "cipher-alg", luks_ciphers[h->kind.aes], "cipher-mode",
                  luks_modes[h->kind.mode], "ivgen-alg", luks_ivs[h->kind.iv], "hash-alg", luks_hashes[h->hash], "uuid",
                  h->uuid, "payload-offset", (json_int_t)h->payload, "master-key-iters", (json_int_t)h->rounds, "slots",
                  slots);

    if (h->kind.iv == CRYPT_ESSIV)
        json_object_set_new(j, "ivgen-hash-alg", json_string("sha256"));
    return j;
}

static json_t *disk_info(struct blk *b)
{
    json_t *j = luks_info(b);

    json_object_set_new(j, "encrypted", json_true());
    return j;
}

static int luks_resize(struct blk *b, uint64_t size, struct err *err)
{
    uint64_t start = luks_of(b)->start, whole;
    int rc;

    if (__builtin_add_overflow(start, size, &whole) || whole > INT64_MAX)
        return err_set(err, EFBIG, "resize %s: %s", b->name, strerror(EFBIG));
    rc = b->file->drv->resize(b->file, whole, err);
    b->lim.size = b->file->lim.size - start;
    return rc;
}

static int luks_create(struct blk *file, uint64_t size, const void *opts, const struct blk_keys *keys, struct err *err)
{
    const struct luks_create *c = opts;
    const struct blk_key *key;
    cleanup_free uint8_t *p = NULL;
    struct luks_header h;
    int rc = luks_create_check(c, keys, file->name, &key, err);

    if (rc)
        return rc;
    p = luks_format(c, key, &h);
    if (size > INT64_MAX - h.payload)
        return err_set(err, EFBIG, "%s", strerror(EFBIG));
    rc = blk_pwrite(file, p, h.payload, 0);
    if (!rc && h.payload + size > file->lim.size) /* else a device that is large enough */
        rc = blk_pwrite(file, "", 1, h.payload + size - 1);
    return rc ? err_set(err, -rc, "write: %s", strerror(-rc)) : 0;
}

static int luks_overhead(uint64_t size, const void *opts, uint64_t *ret, uint64_t *unit, struct err *err)
{
    const struct luks_create *c = opts;

    (void)size;
    (void)err;
    *ret = luks_area(&c->kind);
    *unit = SECTOR;
    return 0;
}

static int amend(struct blk *b, const void *opts, const struct blk_keys *keys, bool force, struct err *err)
{
    return luks_amend(b->file, 0, luks_of(b)->start, opts, keys, force, err);
}

static bool luks_probe(const uint8_t *head, size_t n, const uint8_t *tail)
{
    (void)tail;
    return n >= LUKS_HEADER && !memcmp(head, "LUKS\xba\xbe\0\1", 8);
}

static const char *const endings[] = {"luks", NULL};
static const struct opt create_opts[] = {LUKS_CREATE_OPTIONS(struct luks_create, , ""), O_END};
static const struct opt amend_opts[] = {LUKS_AMEND_OPTIONS(struct luks_amend, , ""), O_END};

const struct blk_driver luks_driver = {
    .name = "luks",
    .summary = "encrypted disk (LUKS version 1)",
    .endings = endings,
    .size = sizeof(struct luks),
    .guests_too = true,
    .noise = true,
    .probe = luks_probe,
    .open = luks_open,
    .close = luks_close,
    .rw = luks_rw,
    .resize = luks_resize,
    .info = disk_info,
    .create = luks_create,
    .overhead = luks_overhead,
    .create_opts = create_opts,
    .create_size = sizeof(struct luks_create),
    .amend = amend,
    .amend_opts = amend_opts,
    .amend_size = sizeof(struct luks_amend),
};
