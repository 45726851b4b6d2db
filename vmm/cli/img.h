/*
 * What the verbs of `bothy img` share: opening and making images, looking through a backing chain, threads, the
 * progress bar.  All block calls are the blocking ones.
 */
#pragma once
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "devices/block/driver.h"
#include "devices/block/key.h"
#include "vmm/cli/cli.h"

/* ---- Opening. ---- */

struct img_open { /* options of an image that a verb opens */
    char *format, *allow;
    struct opt_list objects;
    bool image_opts; /* paths are QEMU's words for an image */
    char *options;   /* the driver's own; no option of the verbs */
    uint32_t cache;  /* enum blk_cache */
    bool share;
};

extern const char *const img_cache_words[]; /* as enum blk_cache */

#define IMG_FORMAT(T, f, n, l) \
    O_STR(T, f, n, NULL, "the image's format; without this its name's ending says", .letter = (l), .arg = "FORMAT")
#define IMG_CACHE(T, f, n, d, l) \
    O_ENUM(T, f, n, d, img_cache_words, "how it goes through the host's page cache", .letter = (l))
#define IMG_OBJECTS(T, f)                                                                                   \
    O_LIST(T, f, "object", "the key of an encrypted image, the whole of a file, as secret,id=ID,file=FILE", \
           .arg = "OBJECT")
/* Rows of a verb with one image (`f` is its struct img_open, with a dot behind). */
#define IMG_OPEN_OPTIONS(T, f)                                                                                        \
    IMG_FORMAT(T, f format, "format", 'f'),                                                                           \
        O_STR(T, f allow, "allow", NULL, "where images that it names may lie besides its own folder; ':' in between", \
              .arg = "DIRS"),                                                                                         \
        IMG_OBJECTS(T, f objects),                                                                                    \
        O_BOOL(T, f image_opts, "image-opts", "off",                                                                  \
               "name images as driver=FORMAT,file.filename=FILE,encrypt.key-secret=ID"),                              \
        O_BOOL(T, f share, "force-share", "off", "open it though others write to it", .letter = 'U')

enum img_mode {
    IMG_READ,
    IMG_WRITE,
    IMG_ALONE = 2,   /* or'ed: without its backing image */
    IMG_DAMAGED = 4, /* or'ed: also what only a check should open */
    IMG_FRESH = 8,   /* or'ed: it was just made, to be filled */
    IMG_ABOUT = 16,  /* or'ed: not what it holds: needs no key */
};
/* The keys that --object gives.  blk_keys_fini() is due also after failure. */
int img_keys(const struct opt_list *objects, struct blk_keys *ret, struct err *err) must_check;
#define cleanup_keys __attribute__((cleanup(blk_keys_fini)))
int img_open(const char *path, const struct img_open *o, unsigned mode, struct blk **ret, struct err *err) must_check;

/* `rc` of what opened it for reading; where somebody writes to it, the message gets what may be said then. */
int img_not_read(int rc, struct err *err);

static inline void img_close_(struct blk **b)
{
    blk_close(*b);
}
#define cleanup_blk __attribute__((cleanup(img_close_)))

/* The verb's `n` arguments are there: -EINVAL otherwise, with what is missing. */
/* The format that a file's name says, or NULL. */
const struct blk_driver *img_by_ending(const char *path);
/* -EINVAL, naming what there is. */
int img_bad_format(const char *name, struct err *err);
/* The list of snapshots as qemu-img prints it; nothing for an empty one or NULL. */
/* The snapshots inside it, as info --output=json lists them; NULL: none. */
json_t *img_snapshots(struct blk *b);
void img_print_snapshots(const json_t *list);
/* What a file beside `path` called `name` is called from here. */
int img_beside(const char *path, const char *name, char ret[PATH_MAX], struct err *err) must_check;
/* "NAME=VALUE" for a driver's options, its commas doubled; the caller frees it. */
char *img_option(const char *name, const char *value);
/* "B: at OFF: what `rc` means". */
int img_io_failed(const struct blk *b, uint64_t off, int rc, struct err *err);
/* A disk's size as an argument: -EINVAL with the text.  Rounded up to sectors. */
int img_parse_size(const char *text, uint64_t *ret, struct err *err) must_check;
int img_need(const struct cli_line *l, unsigned n, struct err *err) must_check;
/* "1.5 GiB", in `buf`. */
enum { IMG_SIZE_TEXT = 24 };
const char *img_size_text(uint64_t bytes, char buf[IMG_SIZE_TEXT]);
/* One of the verb's words for --output. */
enum img_output { IMG_HUMAN, IMG_JSON };
extern const char *const img_output_words[];
#define IMG_OUTPUT(T, f) O_ENUM(T, f, "output", "human", img_output_words, "text for people, or JSON")
/* Prints it to stdout and drops it. */
void img_print_json(json_t *j);

/* ---- Making. ---- */

struct img_new { /* an image to be made */
    const struct blk_driver *drv;
    void *opts; /* of drv->create_opts */
};

/* By format, or else by the name's ending; -ENOTSUP for those that cannot be made. */
int img_new_init(struct img_new *n, const char *format, const char *path, struct err *err) must_check;
void img_new_fini(struct img_new *n);
/* "key=value,…" for each -o; `help` among them: prints what there is and returns 1. */
int img_new_options(struct img_new *n, const struct opt_list *texts, struct err *err) must_check;
/* What `-o help` prints. */
void img_list_options(const char *what, const struct opt *o);
/* Is `help` among them? */
bool img_wants_help(const struct opt_list *texts);
/* An option's value as text, in `buf` perhaps; NULL: it is not set, or there is none of that name. */
enum { IMG_VALUE = 64 };
const char *img_new_option(const struct img_new *n, const char *name, char buf[IMG_VALUE]);
int img_new_backing(struct img_new *n, const char *name, const char *format, struct err *err) must_check;

/* An image in the making: under a name of its own until it is whole, and gone when anything ends before that. */
struct img_target {
    char *path;      /* in the end */
    char *temp;      /* meanwhile; NULL: a device, written in place */
    int old;         /* what has the name now, locked; -1: nothing */
    pthread_t guard; /* removes `temp` when a signal ends us */
    bool guarded, whole;
    atomic_bool ending; /* the signal is ours: the guard just returns */
};

/* Makes the empty image.  img_target_fini() is due also after failure. */
int img_target_create(struct img_target *t, const char *path, const struct img_new *n, const struct opt_list *objects,
                      uint64_t size, struct err *err) must_check;
/* The name to open it by. */
const char *img_target_name(const struct img_target *t);
/* It is whole, and closed: gives it its name. */
int img_target_done(struct img_target *t, struct err *err) must_check;
void img_target_fini(struct img_target *t);

/* ---- Looking through a backing chain. ---- */

struct img_part {
    enum blk_place place; /* BLK_AT: data; BLK_ZEROES; BLK_BACKING: of images below the last that was asked */
    uint64_t len;
    unsigned depth;  /* which image of the chain; 0 is the top */
    bool present;    /* that image says so itself: it is not zero for lack of an image below */
    struct blk *blk; /* that image */
    struct blk_status status;
};

/* What [off, off + len) begins with, looking at `images` of the chain at most (0: all). */
int img_part(struct blk *b, uint64_t off, uint64_t len, unsigned images, struct img_part *ret) must_check;

/* The same piece by piece: asking a file system where a hole ends can take as long as what follows is large. */
struct img_walk {
    struct blk *blk;
    uint64_t off; /* of `part`, in blk */
    struct img_part part;
};
int img_walk(struct img_walk *w, struct blk *b, uint64_t off, uint64_t len, unsigned images, struct img_part *ret)
    must_check;

bool img_is_zero(const void *buf, size_t n);

/* ---- Work on many threads, with its progress. ---- */

struct img_progress {
    bool shown;
    pthread_mutex_t lock;
    _Atomic uint64_t done;
    uint64_t total, start_ns, next_ns;
};

/* Shown on a terminal; `force` shows it anywhere, `quiet` nowhere. */
void img_progress_init(struct img_progress *p, uint64_t total, bool force, bool quiet);
void img_progress_add(struct img_progress *p, uint64_t n); /* any thread */
void img_progress_fini(struct img_progress *p);

#define IMG_PROGRESS_OPTIONS(T, f)                                                                                 \
    O_BOOL(T, f progress, "progress", "off", "show how far it is, also where that is no terminal", .letter = 'p'), \
        O_BOOL(T, f quiet, "quiet", "off", "say nothing but errors", .letter = 'q')
struct img_say {
    bool progress, quiet;
};

struct img_item {
    uint64_t off, len;
    unsigned kind; /* the verb's */
    struct blk *blk;
    uint64_t at; /* where it is there */
};

struct img_task { /* embedded in the verb's own */
    /* One thread at a time, in order: the next piece; 0, 1 when there is none, or -errno. */
    int (*next)(struct img_task *t, struct img_item *ret);
    /* Many at a time; `buf` has buf_size bytes, aligned for O_DIRECT.  0 or -errno, which ends the task. */
    int (*run)(struct img_task *t, const struct img_item *item, void *buf);
    unsigned threads; /* 0: one for each core */
    size_t buf_size;
    /* Below: the pool's. */
    pthread_mutex_t lock;
    int ret;
    bool ended;
    struct img_item failed;
};

/* 0, or the first failure; t->failed is then the piece. */
int img_task_run(struct img_task *t) must_check;
enum { IMG_THREADS_MAX = 64 };

/* ---- The verbs. ---- */

extern const struct cli_verb img_info, img_create, img_convert, img_check, img_map, img_compare, img_resize, img_dd,
    img_bench, img_measure, img_rebase, img_commit, img_snapshot, img_replay, img_bitmap, img_amend;
