/*
 * Opening trees of nodes: which format a file has, and which files an image may lead to.
 *
 * Format: what the user says, else what the ending of the file's name says.  The header only confirms that.  It alone
 * never decides, since a guest can write it into its raw disk, and would then choose which files we open next.
 *
 * Names inside images come from whoever made the image.  Such a file is opened by path only (which neither waits nor
 * has effects on it), then asked where it really lies; what is not beneath the image's folder or one that the user
 * named, or no regular file, is refused.  The file that was looked at is the one that is then opened.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <strings.h>
#include <sys/vfs.h>

#include "devices/block/file.h"
#include "vmm/base/cleanup.h"

enum {
    CHAIN_MAX = 64, /* images that lead to one another */
    SECTOR = 512,
};

/* ---- Formats. ---- */

static bool has_ending(const char *path, const char *ending)
{
    const char *name = strrchr(path, '/'), *dot;

    name = name ? name + 1 : path;
    dot = strrchr(name, '.');
    return dot && dot != name && !strcasecmp(dot + 1, ending);
}

static const struct blk_driver *by_name(const char *path)
{
    for (const struct blk_driver *const *d = blk_drivers; *d; d++)
        for (const char *const *e = (*d)->endings; e && *e; e++)
            if (has_ending(path, *e))
                return *d;
    return blk_driver_find("raw");
}

struct head {
    uint8_t head[BLK_HEAD], tail[SECTOR];
    size_t n;
};

static int read_head(struct blk *file, struct head *ret)
{
    uint64_t size = file->lim.size;
    int rc;

    *ret = (struct head){.n = min_u64(size, BLK_HEAD)};
    if (!size)
        return 0;
    rc = blk_pread(file, ret->head, ret->n, 0);
    return rc ? rc : blk_pread(file, ret->tail, SECTOR, size - SECTOR);
}

static bool looks_like(const struct head *h, const struct blk_driver *d)
{
    return d->probe && d->probe(h->head, h->n, h->tail);
}

static const struct blk_driver *by_header(const struct head *h)
{
    for (const struct blk_driver *const *d = blk_drivers; *d; d++)
        if (looks_like(h, *d))
            return *d;
    return NULL;
}

int blk_probe(struct blk *file, const struct blk_driver **ret)
{
    cleanup_free struct head *h = xcalloc(1, sizeof(*h));
    int rc = read_head(file, h);

    if (!rc)
        *ret = by_header(h);
    return rc;
}

/* The format or the filter of that name. */
static int find_driver(const char *what, const char *name, bool format, const struct blk_driver **ret, struct err *err)
{
    const struct blk_driver *found = blk_driver_find(name);
    char list[256] = "";
    size_t n = 0;

    if (found && !found->endings == !format) {
        *ret = found;
        return 0;
    }
    for (const struct blk_driver *const *d = blk_drivers; *d && n < sizeof(list); d++)
        if (!(*d)->endings == !format)
            n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s", n ? ", " : "", (*d)->name);
    return err_set(err, EINVAL, "%s \"%s\" is unknown; there is %s", what, name, list);
}

/* The format of `file`.  `inside`: an image names it, so that its format is to be said there. */
static int choose(struct blk *file, const struct blk_open_opts *o, bool inside, const struct blk_driver **ret,
                  struct err *err)
{
    const char *remedy = inside ? "say which in the image above, with: bothy img rebase -u -F " : "say format=";
    cleanup_free struct head *h = xcalloc(1, sizeof(*h));
    const struct blk_driver *d, *other;
    struct stat st;
    int rc;

    if (o->format)
        return find_driver("format", o->format, true, ret, err);
    rc = file_stat(file, &st);
    d = !rc && S_ISBLK(st.st_mode) ? blk_driver_find("raw") : by_name(file->name);
    if (!rc)
        rc = read_head(file, h);
    if (rc)
        return err_set(err, -rc, "read %s: %s", file->name, strerror(-rc));
    if (!looks_like(h, d)) {
        other = by_header(h);
        if (other && !other->guests_too)
            return err_set(err, EINVAL,
                           "%s looks like a %s image, but its name says %s; %s%s, or raw if it is a raw disk that "
                           "happens to begin so",
                           file->name, other->name, d->name, remedy, other->name);
        if (d->probe)
            return err_set(err, EINVAL, "%s does not begin as a %s image does; %sraw if it is a raw disk", file->name,
                           d->name, remedy);
    }
    *ret = d;
    return 0;
}

/* ---- Trees. ---- */

static void put_above(struct blk *b, struct blk *file)
{
    b->file = file;
    file->parent = b;
}

static int set_options(struct blk *b, const char *options, struct err *err)
{
    const struct opt *opts = b->drv->opts;
    int rc;

    if (!opts && *options)
        return err_set(err, EINVAL, "%s: %s has no options, so \"%s\" means nothing", b->name, b->drv->name, options);
    if (!opts)
        return 0;
    opts_default(opts, b);
    rc = opts_parse(opts, b, NULL, options, err);
    return rc ? err_wrap(err, "%s: %s", b->name, b->drv->name) : 0;
}

int blk_filter(struct blk *below, const char *text, struct blk **ret, struct err *err)
{
    cleanup_free char *name = xstrdup(text);
    char *options = strchrnul(name, ':');
    const struct blk_driver *d;
    struct blk *b;
    int rc;

    if (*options)
        *options++ = 0;
    rc = find_driver("filter", name, false, &d, err);
    if (rc)
        return rc;
    for (char *c = options; *c; c++)
        if (*c == ':')
            *c = ',';
    b = blk_node(d, below->name, below->lane);
    rc = set_options(b, options, err);
    if (!rc) {
        b->parent = below->parent;
        put_above(b, below);
        b->lim = below->lim;
        rc = d->open ? d->open(b, NULL, err) : 0;
    }
    if (rc) {
        below->parent = b->parent;
        b->file = NULL;
        blk_close(b);
        return rc;
    }
    *ret = b;
    return 0;
}

/* The filters of a list above *b, which is the topmost afterwards, also on failure. */
static int put_filters(struct blk **b, const struct opt_list *filters, struct err *err)
{
    int rc = 0;

    for (size_t i = 0; filters && i < filters->n && !rc; i++)
        rc = blk_filter(*b, filters->v[i], b, err);
    return rc;
}

static int open_format(struct blk *file, struct blk *parent, const struct blk_open_opts *o, struct blk **ret,
                       struct err *err)
{
    const struct blk_driver *d;
    struct blk *b;
    int rc = choose(file, o, parent, &d, err);

    if (rc) {
        blk_close(file);
        return rc;
    }
    b = blk_node(d, file->name, file->lane);
    b->parent = parent;
    put_above(b, file);
    if (d->opts) {
        opts_default(d->opts, b);
        rc = opts_parse(d->opts, b, NULL, o->options ? o->options : "", err);
        if (rc)
            rc = err_wrap(err, "%s", b->name);
    } else if (o->options && *o->options) {
        rc =
            err_set(err, EINVAL, "%s: format %s has no options, so \"%s\" means nothing", b->name, d->name, o->options);
    }
    if (!rc)
        rc = d->open(b, o, err);
    if (rc) {
        blk_close(b);
        return rc;
    }
    *ret = b;
    return 0;
}

/* A new file in the folder for temporary ones that nobody else sees, and that is gone when it is closed. */
static int open_temporary(const struct blk_open_opts *o, struct lane *lane, struct blk **ret, struct err *err)
{
    const struct blk_open_opts temporary = {.cache = BLK_CACHE_UNSAFE, .unlocked = true, .workers = o->workers};
    const char *dir = getenv("TMPDIR");
    char path[PATH_MAX];
    cleanup_fd int fd = -1;
    int rc;

    snprintf(path, sizeof(path), "%s/bothy-disk-XXXXXX", dir && *dir ? dir : "/var/tmp");
    fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        return err_set(err, errno, "a file for what is written to the snapshot, %s: %s; set TMPDIR to another folder",
                       path, strerror(errno));
    rc = file_open(path, path, &temporary, 0, lane, ret, err);
    unlink(path);
    return rc;
}

static int create_default(const struct blk_driver *d, struct blk *file, uint64_t size, struct err *err)
{
    cleanup_free void *opts = xcalloc(1, d->create_size);
    int rc;

    opts_default(d->create_opts, opts);
    rc = d->create(file, size, opts, NULL, err);
    opts_clear(d->create_opts, opts);
    return rc;
}

/* What is written goes into a temporary image above *b, which is the topmost afterwards; on failure it is as before. */
static int put_overlay(struct blk **b, const struct blk_open_opts *o, struct err *err)
{
    const struct blk_open_opts temporary = {.format = "qcow2", .no_backing = true};
    struct blk *base = *b, *file;
    int rc = open_temporary(o, base->lane, &file, err);

    if (rc)
        return rc;
    rc = create_default(blk_driver_find(temporary.format), file, base->lim.size, err);
    if (!rc)
        rc = file_grown(file, err);
    if (rc) {
        blk_close(file);
        return rc;
    }
    rc = open_format(file, NULL, &temporary, b, err);
    if (rc)
        return rc;
    (*b)->backing = base;
    base->parent = *b;
    return 0;
}

int blk_open(const char *path, const struct blk_open_opts *opts, struct lane *lane, struct blk_user *user,
             struct blk **ret, struct err *err)
{
    struct blk_open_opts o = *opts;
    struct blk *file, *b;
    int rc;

    if (has_ending(path, "iso") || o.snapshot)
        o.read_only = true;
    rc = file_open(path, path, &o, 0, lane, &file, err);
    if (rc)
        return rc;
    rc = put_filters(&file, o.file_filters, err);
    if (rc) {
        blk_close(file);
        return rc;
    }
    rc = open_format(file, NULL, &o, &b, err);
    if (rc)
        return rc;
    if (o.snapshot && !opts->read_only)
        rc = put_overlay(&b, &o, err);
    if (!rc)
        rc = put_filters(&b, o.filters, err);
    if (rc) {
        blk_close(b);
        return rc;
    }
    b->user = user;
    *ret = b;
    return 0;
}

int blk_create_file(const char *path, bool overwrite, struct blk **ret, struct err *err)
{
    struct blk_open_opts o = {0};
    struct blk *b;
    int rc = file_open(path, path, &o, O_CREAT, NULL, &b, err);

    if (rc)
        return rc;
    if (b->lim.size && !overwrite)
        rc = err_set(err, EEXIST, "%s exists and is not empty; remove it first, or take another name", path);
    else
        rc = file_empty(b, err);
    if (rc) {
        blk_close(b);
        return rc;
    }
    *ret = b;
    return 0;
}

/* ---- Files that images name. ---- */

/* The path of what `fd` is, without links. */
static int real_path(int fd, char *ret, size_t n)
{
    char link[64];
    ssize_t len;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    len = readlink(link, ret, n);
    if (len < 0)
        return -errno;
    if ((size_t)len == n)
        return -ENAMETOOLONG;
    ret[len] = 0;
    return 0;
}

/* Is `path`, without links, somewhere below the folder `dir`, which may be given with them? */
static bool beneath(const char *path, const char *dir)
{
    cleanup_fd int fd = open(*dir ? dir : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    char real[PATH_MAX];
    size_t n;

    if (fd < 0 || real_path(fd, real, sizeof(real)))
        return false;
    n = strlen(real);
    return !strncmp(path, real, n) && (real[n - 1] == '/' || path[n] == '/');
}

static bool allowed(const char *path, const char *own, const char *allow)
{
    const char *end;

    if (beneath(path, own))
        return true;
    for (; allow && *allow; allow = *end ? end + 1 : end) {
        end = strchrnul(allow, ':');
        cleanup_free char *dir = strndup(allow, (size_t)(end - allow));

        if (dir && *dir && beneath(path, dir))
            return true;
    }
    return false;
}

/* Would it garble the message that names it? */
static bool has_controls(const char *name)
{
    for (; *name; name++)
        if ((unsigned char)*name < ' ' || *name == 0x7f)
            return true;
    return false;
}

/* "json:{…}", "nbd://…" */
static bool has_protocol(const char *name)
{
    return name[strcspn(name, ":/")] == ':';
}

/* Looks at `path`, which `b` calls `name`: *ret is a descriptor that only leads to it. */
static int locate(const struct blk *b, const char *name, const char *path, const char *own, const char *allow,
                  struct stat *st, int *ret, struct err *err)
{
    cleanup_fd int fd = open(path, O_PATH | O_CLOEXEC);
    char real[PATH_MAX];
    struct statfs fs;
    int rc;

    if (fd < 0)
        return err_set(err, errno, "%s names \"%s\": %s", b->name, name, strerror(errno));
    rc = real_path(fd, real, sizeof(real));
    if (!rc && (fstat(fd, st) || fstatfs(fd, &fs)))
        rc = -errno;
    if (rc)
        return err_set(err, -rc, "%s names \"%s\": %s", b->name, name, strerror(-rc));
    if (!allowed(real, own, allow))
        return err_set(err, EACCES,
                       "%s names \"%s\", which is %s, outside of its own folder; say allow=FOLDER with a folder above "
                       "that file if you trust the image",
                       b->name, name, real);
    if (!S_ISREG(st->st_mode) || fs.f_type == PROC_SUPER_MAGIC)
        return err_set(err, EACCES, "%s names \"%s\", which is not a regular file, so it is not opened", b->name, name);
    *ret = take_fd(&fd);
    return 0;
}

/* Does the file of any image from `b` up to the top lie there as well? */
static bool in_chain(struct blk *b, const struct stat *st)
{
    struct stat other;

    for (; b; b = b->parent)
        if (!file_stat(b, &other) && other.st_dev == st->st_dev && other.st_ino == st->st_ino)
            return true;
    return false;
}

int blk_open_named(struct blk *b, const char *name, const char *format, bool writable, const struct blk_open_opts *opts,
                   struct blk **ret, struct err *err)
{
    bool bytes = format && !strcmp(format, "file");
    const char *slash = strrchr(b->name, '/');
    size_t n = slash && *name != '/' ? (size_t)(slash - b->name) + 1 : 0;
    struct blk_open_opts o = {.format = format,
                              .read_only = !writable,
                              .workers = opts->workers,
                              .unlocked = opts->unlocked,
                              .cache = opts->cache,
                              .keys = opts->keys,
                              .keyless = opts->keyless,
                              .allow = opts->allow,
                              .depth = opts->depth + 1};
    char path[PATH_MAX], own[PATH_MAX], way[64];
    cleanup_fd int fd = -1;
    struct blk *file;
    struct stat st;
    int rc;

    if (has_controls(name))
        return err_set(err, EINVAL, "%s names a file with control characters in its name, which is not opened",
                       b->name);
    if (!*name || has_protocol(name))
        return err_set(err, EINVAL, "%s names \"%s\"; only files are opened, no protocols", b->name, name);
    if (o.depth >= CHAIN_MAX)
        return err_set(err, ELOOP, "%s is already %d images deep in its chain; shorten it with: bothy img commit",
                       b->name, CHAIN_MAX);
    if ((size_t)snprintf(path, sizeof(path), "%.*s%s", (int)n, b->name, name) >= sizeof(path) ||
        (size_t)snprintf(own, sizeof(own), "%.*s", slash ? (int)(slash - b->name) + 1 : 0, b->name) >= sizeof(own))
        return err_set(err, ENAMETOOLONG, "%s names a file with a path of more than %d bytes", b->name, PATH_MAX - 1);
    rc = locate(b, name, path, own, o.allow, &st, &fd, err);
    if (!rc && in_chain(b, &st))
        rc = err_set(err, ELOOP, "%s names \"%s\", which is itself or an image above it", b->name, name);
    if (rc)
        return rc;
    snprintf(way, sizeof(way), "/proc/self/fd/%d", fd);
    rc = file_open(way, path, &o, 0, b->lane, &file, err);
    if (!rc) {
        file->parent = b;
        rc = bytes ? 0 : open_format(file, b, &o, &file, err);
    }
    if (rc) /* the images between go without saying */
        return opts->depth ? rc : err_wrap(err, "%s", b->name);
    *ret = file;
    return 0;
}
