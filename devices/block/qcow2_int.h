/* What the files of the qcow2 driver share.  Theory of operation: qcow2.c.  Unless said otherwise, functions are called
 * with q->lock held, offsets and lengths are bytes, and "index" is of a cluster of the image file. */
#pragma once
#include <pthread.h>
#include <stdatomic.h>

#include "devices/block/luks.h"
#include "devices/block/qcow2.h"
#include "vmm/base/log.h"

enum {
    QCOW2_CLUSTER_BITS_MIN = 9,
    QCOW2_CLUSTER_BITS_MAX = 21,
    QCOW2_EXTL2_BITS_MIN = 14,
    QCOW2_L1_MAX = 32 << 20, /* bytes of an L1 table */
    QCOW2_RT_MAX = 8 << 20,  /* bytes of a refcount table */
    QCOW2_NAME_MAX = 1023,   /* bytes of a file's name inside the image */
    QCOW2_V2_HEADER = 72,
    QCOW2_V3_HEADER = 104,
    QCOW2_OUR_HEADER = 112,     /* with the compression type */
    QCOW2_SLICE = 4096,         /* bytes of L2 tables and refcount blocks that are cached together */
    QCOW2_L2_CACHE = 32 << 20,  /* bytes at most */
    QCOW2_RB_CACHE = 8 << 20,   /* bytes at most */
    QCOW2_FLIGHT_MAX = 8 << 20, /* bytes that one write allocates at a time */
    QCOW2_UNPACKED = 4,         /* decompressed clusters that are kept */
    QCOW2_FREES_MAX = 64 << 10, /* runs of clusters that wait to be free, before a commit is forced */
    QCOW2_META_MAX = 8 << 20,   /* clusters of metadata in an image that is written to */
    QCOW2_SNAPSHOTS_MAX = 65536,
    QCOW2_SNAPSHOT_TABLE_MAX = 64 << 20,
};

#define QCOW2_MAGIC     0x514649fbu
#define QCOW2_COPIED    (1ull << 63)
#define QCOW2_PACKED    (1ull << 62) /* compressed */
#define QCOW2_ZERO      1ull
#define QCOW2_OFF_MASK  0x00fffffffffffe00ull /* of L1 and L2 entries */
#define QCOW2_OFF_END   (1ull << 56)          /* what they can name lies below */
#define QCOW2_RESERVED2 0x3f000000000001feull /* bits of a standard L2 entry that must be 0 */

#define QCOW2_IN_DIRTY     1ull
#define QCOW2_IN_CORRUPT   2ull
#define QCOW2_IN_DATA_FILE 4ull
#define QCOW2_IN_PACKING   8ull
#define QCOW2_IN_EXTL2     16ull
#define QCOW2_CO_LAZY      1ull
#define QCOW2_AU_BITMAPS   1ull
#define QCOW2_AU_RAW       2ull

enum qcow2_ext_type {
    QCOW2_EXT_END = 0,
    QCOW2_EXT_BACKING_FORMAT = 0xe2792aca,
    QCOW2_EXT_FEATURES = 0x6803f857,
    QCOW2_EXT_BITMAPS = 0x23852875,
    QCOW2_EXT_LUKS = 0x0537be77,
    QCOW2_EXT_DATA_FILE = 0x44415441,
};

struct qcow2_ext {
    uint32_t type, len;
    uint8_t *data; /* owned */
};

struct qcow2_header {
    uint32_t version, cluster_bits, crypt, l1_size, rt_clusters, nsnapshots, refcount_order, len;
    uint64_t size, l1_off, rt_off, snapshots_off;
    uint64_t incompat, compat, autoclear;
    uint8_t packing;  /* compression type: 0 zlib, 1 zstd */
    uint8_t *unknown; /* len - QCOW2_OUR_HEADER bytes that later versions defined; owned; may be NULL */
    char *backing;    /* owned; NULL: none */
    struct qcow2_ext *ext;
    unsigned next;
};

/* A part of a table in the file.  Entries of one cache have one size. */
struct qcow2_slice {
    struct list lru;
    struct qcow2_slice *next; /* in its bucket */
    uint64_t off;             /* in the file */
    bool dirty;
    uint8_t data[];
};

struct qcow2_cache {
    uint32_t unit;
    unsigned n, max, ndirty, nbuckets;
    struct qcow2_slice **buckets;
    struct list lru; /* the longest unused first */
};

struct qcow2_set {   /* of cluster indices */
    uint64_t *slots; /* index + 1; 0: empty */
    size_t n, size;  /* size: power of two */
};

struct qcow2_run {
    uint64_t index, n;
    bool punch; /* give the space back to the host */
};
struct qcow2_runs {
    struct qcow2_run *v;
    size_t n, room;
};

struct qcow2_check;
struct qcow2_bitmaps;

struct qcow2_flight { /* guest clusters that are being allocated */
    struct list link;
    uint64_t first, n;
};

struct qcow2_unpacked {
    uint64_t desc; /* L2 entry; 0: empty */
    uint8_t *data;
};

struct qcow2 {
    struct blk b;
    struct blk *data;   /* where guest clusters are: b.file or a file of its own, which is then owned */
    struct blk *guest;  /* the same, or above it what encrypts them: the guest's bytes go this way */
    char *snapshot;     /* option: which to show */
    bool repair;        /* option: open what is corrupt or dirty as it is, for a check */
    uint32_t bits;      /* of the cluster size */
    uint32_t cluster;   /* bytes */
    uint32_t per_l2;    /* entries of an L2 table */
    uint32_t entry;     /* bytes of an L2 entry */
    uint32_t grains;    /* subclusters of a cluster; 1 without them */
    uint32_t grain;     /* bytes of one */
    uint32_t per_rb;    /* refcounts in a block */
    uint64_t ref_max;   /* that a refcount can be */
    bool writable, raw; /* raw: the data file is a raw image of its own */

    pthread_mutex_t lock;
    struct qcow2_header h;
    uint64_t *l1; /* the active one, of h.l1_size entries, or the snapshot's that is shown */
    uint64_t *rt; /* of rt_size entries */
    uint32_t rt_size;
    uint32_t l1_lo, l1_hi; /* entries that differ from the file's */
    uint32_t rt_lo, rt_hi;
    struct qcow2_cache l2, rb;
    struct qcow2_set meta;     /* every cluster that holds metadata; empty unless writable */
    bool started;              /* the file is prepared for writes */
    bool changed;              /* it was at some time */
    bool unsynced;             /* metadata in memory says more than the file's */
    bool broken;               /* corruption was found: no more writes */
    uint64_t file_end;         /* no byte of the file was written at or beyond */
    uint64_t end;              /* clusters from this index on are probably free */
    uint64_t cursor;           /* where the search for free clusters goes on */
    uint64_t packed;           /* where the next compressed data go; 0: into a new cluster */
    struct qcow2_runs freed;   /* no longer referenced in memory */
    struct qcow2_runs synced;  /* nor in the file */
    struct qcow2_runs drained; /* requests of the epoch that is not the current one may still touch these */
    unsigned epoch;
    atomic_uint inside[2]; /* requests of each epoch */
    struct list flights;
    pthread_cond_t landed;
    struct qcow2_snapshot *snaps;       /* h.nsnapshots of them */
    struct qcow2_bitmaps *bitmaps;      /* NULL: none */
    const struct qcow2_check *checking; /* while refcounts are mended: what is really in use; else NULL */

    pthread_mutex_t unpacked_lock; /* a leaf */
    struct qcow2_unpacked unpacked[QCOW2_UNPACKED];
    unsigned unpacked_next;
};

static inline struct qcow2 *qcow2_of(struct blk *b)
{
    return container_of(b, struct qcow2, b);
}

static inline uint64_t qcow2_clusters(const struct qcow2 *q, uint64_t bytes)
{
    return (bytes >> q->bits) + !!(bytes & (q->cluster - 1));
}

/* ---- qcow2_header.c ---- */

/* Reads and checks the first cluster. */
int qcow2_header_read(struct blk *file, struct qcow2_header *ret, struct err *err) must_check;
void qcow2_header_fini(struct qcow2_header *h);
/* The whole first cluster anew, with extensions; -ENOSPC: they do not fit. */
int qcow2_header_write(struct blk *file, const struct qcow2_header *h) must_check;
/* The fixed fields alone, which lie in one sector. */
int qcow2_header_update(struct blk *file, const struct qcow2_header *h) must_check;
const struct qcow2_ext *qcow2_ext_find(const struct qcow2_header *h, uint32_t type);
/* Sets, replaces or (data NULL) removes an extension. */
void qcow2_ext_set(struct qcow2_header *h, uint32_t type, const void *data, uint32_t len);
/* A string extension as a string, owned by the caller; NULL: none. */
char *qcow2_ext_string(const struct qcow2_header *h, uint32_t type);
/* Writes the extension that names the features. */
void qcow2_ext_features(struct qcow2_header *h);

/* ---- qcow2_meta.c: tables in memory, their way to the file, and what is freed ---- */

int qcow2_cache_init(struct qcow2_cache *c, uint32_t unit, uint64_t bytes) must_check;
void qcow2_cache_fini(struct qcow2_cache *c);
struct qcow2_slice *qcow2_cache_find(struct qcow2_cache *c, uint64_t off);
/* The slice at `off`, loaded.  A later call may take it away again. */
int qcow2_cache_get(struct qcow2 *q, struct qcow2_cache *c, uint64_t off, struct qcow2_slice **ret) must_check;
void qcow2_cache_dirty(struct qcow2_cache *c, struct qcow2_slice *s);
/* Forgets what is cached of a range. */
void qcow2_cache_drop(struct qcow2_cache *c, uint64_t off, uint64_t n);

/* Metadata of the image file; a table that the file's end cuts short reads on as zeroes. */
int qcow2_meta_read(struct qcow2 *q, void *buf, size_t n, uint64_t off) must_check;
int qcow2_meta_write(struct qcow2 *q, const void *buf, size_t n, uint64_t off) must_check;
/* Table entries in the machine's byte order. */
int qcow2_table_read(struct qcow2 *q, uint64_t *ret, size_t n, uint64_t off) must_check;
int qcow2_table_write(struct qcow2 *q, const uint64_t *v, size_t n, uint64_t off) must_check;
void qcow2_l1_set(struct qcow2 *q, uint32_t i, uint64_t entry);

/* Refcounts, and what they belong to, to the file, and synced. */
int qcow2_commit_refcounts(struct qcow2 *q) must_check;
/* All metadata to the file, and synced. */
int qcow2_commit(struct qcow2 *q) must_check;
/* Lowers the refcounts of `n` clusters by one once no table in the file names them and no request can touch them. */
void qcow2_free(struct qcow2 *q, uint64_t index, uint64_t n, bool punch);
/* What an L2 entry names. */
void qcow2_free_entry(struct qcow2 *q, uint64_t desc, bool punch);
static inline unsigned qcow2_enter(struct qcow2 *q)
{
    q->inside[q->epoch]++;
    return q->epoch;
}
/* Without the lock. */
static inline void qcow2_leave(struct qcow2 *q, unsigned epoch)
{
    q->inside[epoch]--;
}
/* Once before the first write: what the header promises about others' data no longer holds. */
int qcow2_start(struct qcow2 *q) must_check;
/* Refuses writes from now on, marks the image and says why, once.  -EIO. */
int qcow2_corrupt(struct qcow2 *q, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- qcow2_alloc.c: refcounts ---- */

uint64_t qcow2_ref_load(const uint8_t *data, uint32_t order, uint64_t i);
void qcow2_ref_store(uint8_t *data, uint32_t order, uint64_t i, uint64_t v);
/* The slice that has the refcount of `index`; NULL: there is no block, so it is 0. */
int qcow2_ref_slice(struct qcow2 *q, uint64_t index, struct qcow2_slice **ret) must_check;
uint64_t qcow2_refs_per_slice(const struct qcow2 *q);
int qcow2_ref_get(struct qcow2 *q, uint64_t index, uint64_t *ret) must_check;
int qcow2_ref_set(struct qcow2 *q, uint64_t index, uint64_t v) must_check;
/* Of one cluster by +1 or -1; -ERANGE: it cannot be that often. */
int qcow2_ref_add(struct qcow2 *q, uint64_t index, int delta, uint64_t *ret) must_check;
/* Takes the first free clusters, at most `want` and as many as lie together. */
int qcow2_alloc(struct qcow2 *q, uint64_t want, uint64_t *first, uint64_t *got) must_check;
/* Takes `n` clusters that lie together, for metadata. */
int qcow2_alloc_meta(struct qcow2 *q, uint64_t n, uint64_t *first) must_check;
/* Gives back clusters at once that no table ever named. */
void qcow2_unalloc(struct qcow2 *q, uint64_t first, uint64_t n);
/* The refcount of a cluster has become 0. */
void qcow2_now_free(struct qcow2 *q, uint64_t index);
/* The header's fixed fields are those of `h` from now on, in memory and in the file, or, on failure, the old ones in
 * both. */
int qcow2_header_switch(struct qcow2 *q, const struct qcow2_header *h) must_check;
/* Is [off, off + n) of the file free of metadata? */
bool qcow2_clear_of_meta(const struct qcow2 *q, uint64_t off, uint64_t n);
int qcow2_set_add(struct qcow2_set *s, uint64_t index); /* -EEXIST: it is there */
void qcow2_set_del(struct qcow2_set *s, uint64_t index);
bool qcow2_set_has(const struct qcow2_set *s, uint64_t index);
/* Where a new refcount table for at least `need` entries goes, from cluster `from` on, together with the blocks for
 * all clusters from there: *blocks of them, then *table clusters. */
void qcow2_rt_layout(uint32_t bits, uint32_t order, uint64_t from, uint64_t extra, uint64_t need, uint64_t *blocks,
                     uint64_t *table);

/* ---- qcow2_cluster.c: where guest clusters are ---- */

struct qcow2_cl {
    uint64_t desc;        /* the L2 entry */
    uint64_t host;        /* of a standard cluster; 0: none */
    uint32_t alloc, zero; /* bits of grains */
    bool packed, copied, has_host;
};

enum qcow2_kind { QCOW2_KIND_NONE, QCOW2_KIND_ZERO, QCOW2_KIND_DATA, QCOW2_KIND_PACKED };

struct qcow2_place {
    enum qcow2_kind kind;
    uint64_t len;  /* as far as this holds, at most what was asked for */
    uint64_t host; /* QCOW2_KIND_DATA: of the first byte */
    uint64_t desc; /* QCOW2_KIND_PACKED: the L2 entry of one cluster */
    bool ours;     /* may be written in place */
};

/* -EAGAIN: `cached` was asked for, and it would have to be loaded. */
int qcow2_lookup(struct qcow2 *q, uint64_t off, uint64_t len, bool cached, struct qcow2_place *ret) must_check;
/* The L2 table of guest cluster `g`, in a state to be written: allocated, not shared.  *ret: where its slice for `g` is
 * in the file; *i: the entry's index there. */
int qcow2_l2_own(struct qcow2 *q, uint64_t g, uint64_t *ret, uint32_t *i) must_check;
/* The i-th entry of a slice; false: it means nothing.  decode() takes that for corruption. */
bool qcow2_parse(const struct qcow2 *q, const struct qcow2_slice *s, uint32_t i, struct qcow2_cl *ret);
int qcow2_decode(struct qcow2 *q, const struct qcow2_slice *s, uint32_t i, struct qcow2_cl *ret) must_check;
void qcow2_encode(struct qcow2 *q, struct qcow2_slice *s, uint32_t i, const struct qcow2_cl *cl);
uint32_t qcow2_per_slice(const struct qcow2 *q);
/* Where a compressed cluster's bytes are. */
void qcow2_packed_range(const struct qcow2 *q, uint64_t desc, uint64_t *off, uint64_t *len);

/* ---- qcow2_io.c: guest data; all without the lock ---- */

int qcow2_read(struct qcow2 *q, const struct blk_io *io) must_check;
int qcow2_write(struct qcow2 *q, const struct blk_io *io) must_check;
int qcow2_zero(struct qcow2 *q, const struct blk_io *io) must_check;
int qcow2_discard(struct qcow2 *q, uint64_t off, uint64_t len) must_check;
/* The same, but what is below shows through. */
int qcow2_drop(struct qcow2 *q, uint64_t off, uint64_t len) must_check;

/* With the lock: clusters that are being written anew, which others wait for. */
void qcow2_flight_wait(struct qcow2 *q, uint64_t first, uint64_t n);
void qcow2_flight_begin(struct qcow2 *q, struct qcow2_flight *f, uint64_t first, uint64_t n);
void qcow2_flight_end(struct qcow2 *q, struct qcow2_flight *f);
/* With the lock, before every change: -EIO when there must be none. */
int qcow2_begin(struct qcow2 *q) must_check;

/* ---- qcow2_pack.c: compressed clusters; without the lock ---- */

/* One decompressed cluster's bytes [at, at + n) into the request's data from `skip` on. */
int qcow2_unpack(struct qcow2 *q, uint64_t desc, uint32_t at, uint32_t n, const struct blk_io *io, uint64_t skip)
    must_check;
void qcow2_unpacked_drop(struct qcow2 *q);
int qcow2_write_compressed(struct blk *b, uint64_t off, const void *buf, size_t n) must_check;

/* ---- The rest. ---- */

int qcow2_check(struct blk *b, enum blk_fix fix, struct blk_check *ret, struct err *err) must_check;
int qcow2_resize(struct blk *b, uint64_t size, struct err *err) must_check;
int qcow2_create(struct blk *file, uint64_t size, const void *opts, const struct blk_keys *keys, struct err *err)
    must_check;
int qcow2_overhead(uint64_t size, const void *opts, uint64_t *ret, uint64_t *unit, struct err *err) must_check;
extern const struct opt qcow2_create_opts[];
struct qcow2_create {
    char *backing_file, *backing_fmt, *data_file;
    uint64_t cluster_size;
    uint32_t compat, refcount_bits, preallocation, compression_type, encrypt;
    bool lazy_refcounts, extended_l2, data_file_raw;
    struct luks_create luks;
};
extern const struct opt qcow2_amend_opts[];
struct qcow2_amend {
    uint32_t compat, lazy;
    char *backing, *format;
    struct luks_amend luks;
};
int qcow2_amend(struct blk *b, const void *opts, const struct blk_keys *keys, bool force, struct err *err) must_check;
/* Opens and closes a node on a file that somebody else owns. */
int qcow2_attach(struct blk *file, struct blk **ret, struct err *err) must_check;
int qcow2_detach(struct blk *b) must_check;

bool qcow2_check_uses(const struct qcow2_check *c, uint64_t index);
uint64_t qcow2_check_end(const struct qcow2_check *c); /* clusters of the file */

struct qcow2_visitor {
    void (*range)(struct qcow2_visitor *v, uint64_t off, uint64_t bytes, const char *what);
};

/* ---- qcow2_crypt.c ---- */

/* Sets q->guest. */
int qcow2_crypt_open(struct qcow2 *q, const struct blk_open_opts *o, struct err *err) must_check;
void qcow2_crypt_close(struct qcow2 *q);
static inline bool qcow2_encrypted(const struct qcow2 *q)
{
    return q->h.crypt;
}
/* What the header of the encryption takes of the file, if there is one. */
void qcow2_crypt_visit(struct qcow2 *q, struct qcow2_visitor *v);
json_t *qcow2_crypt_info(struct qcow2 *q); /* of an encrypted image */
/* Without the lock. */
int qcow2_crypt_amend(struct qcow2 *q, const struct luks_amend *a, const struct blk_keys *keys, bool force,
                      struct err *err) must_check;
int qcow2_crypt_create(struct qcow2 *q, const struct luks_create *c, const struct blk_key *key) must_check;

/* ---- qcow2_bitmap.c ---- */

/* The directory; -EINVAL: it makes no sense. */
int qcow2_bitmaps_load(struct qcow2 *q) must_check;
void qcow2_bitmaps_fini(struct qcow2 *q);
/* Before the first write; for each write; and once after the last. */
int qcow2_bitmaps_start(struct qcow2 *q) must_check;
void qcow2_bitmaps_mark(struct qcow2 *q, uint64_t off, uint64_t len);
int qcow2_bitmaps_store(struct qcow2 *q) must_check;
/* Takes all bitmaps out of the image, for a change of the disk's size, and puts them back, as long as the disk is then;
 * the lock is not held.  What is new counts as not changed. */
struct qcow2_taken;
int qcow2_bitmaps_take(struct qcow2 *q, struct qcow2_taken **ret, struct err *err) must_check;
int qcow2_bitmaps_put_back(struct qcow2 *q, struct qcow2_taken *t, struct err *err) must_check;
void qcow2_taken_free(struct qcow2_taken *t); /* accepts NULL */
/* Every range of the file that bitmaps use. */
int qcow2_bitmaps_visit(struct qcow2 *q, struct qcow2_visitor *v) must_check;

/* ---- qcow2_snapshot.c ---- */

/* The table; -EINVAL: it makes no sense. */
int qcow2_snapshots_load(struct qcow2 *q) must_check;
void qcow2_snapshots_fini(struct qcow2 *q);
uint64_t qcow2_snapshots_bytes(const struct qcow2 *q);
/* The flags that a cluster is ours alone, in the L1 table `l1` and all below, compared with the refcounts, and set by
 * them where `fix` says so.  Adds to *wrong. */
int qcow2_fix_flags(struct qcow2 *q, uint64_t *l1, uint32_t n, bool fix, uint64_t *wrong) must_check;
