#include "firmware/load/cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <zlib.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/file.h"
#include "vmm/base/log.h"

enum {
    FORMAT = 3,         /* of the files and of what is kept in them; part of the key */
    SETTLED_S = 3,      /* a file that changed later than this may change again without a new time stamp */
    TOUCH_S = 3600,     /* how exact "recently used" is */
    TEMPORARY_S = 3600, /* a writer older than this is dead */
};
static const char magic[8] = "bothykrn", temporary[] = ".tmp-";

/* The first page; pages of the extents follow, then the relocations. */
struct cache_head {
    char magic[8];
    uint32_t format;
    uint32_t crc; /* of the page from here on */
    uint64_t size, relocs;
    uint64_t phys, memsz, entry;
    struct extent extents[KERNEL_EXTENTS_MAX];
    uint32_t nextents, nrelocs[RELOC_KINDS];
    struct setup_header hdr;
};
static_assert(sizeof(struct cache_head) <= KERNEL_PAGE, "the head is a page");

static uint32_t page_crc(const uint8_t page[KERNEL_PAGE])
{
    enum { FROM = offsetof(struct cache_head, size) };

    return (uint32_t)crc32(0, page + FROM, KERNEL_PAGE - FROM);
}

/* Is it ours, and can nobody else write to it? */
static bool trusted(const struct stat *st)
{
    return st->st_uid == geteuid() && (st->st_mode & 022) == 0;
}

/* A directory in `at`, made where it is missing.  Symbolic links are not followed. */
static int open_dir(int at, const char *name)
{
    cleanup_fd int fd = -1;
    struct stat st;

    if (mkdirat(at, name, 0700) < 0 && errno != EEXIST)
        return -errno;
    fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    if (!trusted(&st)) {
        log_msg(LOG_WARN, "cache not used: its directory %s is not ours alone; check its owner and mode", name);
        return -EPERM;
    }
    return take_fd(&fd);
}

int cache_folder(const char *name)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    cleanup_fd int base = -1, ours = -1;
    char path[4096];
    int n;

    if (xdg && xdg[0] == '/') /* others are to be ignored [XDG Base Directory Specification] */
        n = snprintf(path, sizeof(path), "%s", xdg);
    else if (home && home[0] == '/')
        n = snprintf(path, sizeof(path), "%s/.cache", home);
    else
        return -ENOENT;
    if (n >= (int)sizeof(path))
        return -ENAMETOOLONG;
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return -errno;
    base = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (base < 0)
        return -errno;
    ours = open_dir(base, "bothy");
    return ours < 0 ? ours : open_dir(ours, name);
}

bool cache_identity(int fd, char ret[CACHE_NAME_MAX])
{
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0 || time(NULL) - st.st_ctim.tv_sec < SETTLED_S)
        return false;
    snprintf(ret, CACHE_NAME_MAX, "%jx-%jx-%jx-%jx.%lx-%jx.%lx", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino,
             (uintmax_t)st.st_size, (uintmax_t)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, (uintmax_t)st.st_ctim.tv_sec,
             st.st_ctim.tv_nsec);
    return true;
}

void cache_digest(const struct iovec *parts, unsigned n, char ret[CACHE_KEY_LEN + 1])
{
    uint8_t digest[SHA256_DIGEST_SIZE];
    struct sha256_ctx sha;

    sha256_init(&sha);
    for (unsigned i = 0; i < n; i++)
        sha256_update(&sha, parts[i].iov_len, parts[i].iov_base);
    sha256_digest(&sha, sizeof(digest), digest);
    for (size_t i = 0; i < sizeof(digest); i++)
        snprintf(ret + 2 * i, 3, "%02x", digest[i]);
}

bool cache_follow(int dir, const char *link, char ret[CACHE_KEY_LEN + 1])
{
    char name[CACHE_KEY_LEN + 1] = "";

    if (readlinkat(dir, link, name, sizeof(name)) != CACHE_KEY_LEN || strspn(name, "0123456789abcdef") != CACHE_KEY_LEN)
        return false;
    strcpy(ret, name);
    return true;
}

void cache_link(int dir, const char *link, const char *name)
{
    unlinkat(dir, link, 0);
    if (symlinkat(name, dir, link) < 0 && errno != EEXIST)
        log_msg(LOG_DEBUG, "cache: link: %s", strerror(errno));
}

void cache_open(struct cache *c, bool use, const struct image *im)
{
    *c = (struct cache){.dir = use ? cache_folder("kernels") : -1};
    if (c->dir < 0) {
        if (use)
            log_msg(LOG_DEBUG, "no kernel cache: %s", strerror(-c->dir));
        c->dir = -1;
        return;
    }
    if (!cache_identity(im->fd, c->link))
        c->link[0] = 0;
}

void cache_close(struct cache *c)
{
    if (c->dir >= 0)
        close(c->dir);
    c->dir = -1;
}

/* The head, believed only as far as memory safety does not depend on it; kernel_valid() does the rest. */
static int read_head(int fd, const struct stat *st, struct cache_head *ret)
{
    uint8_t page[KERNEL_PAGE];
    struct cache_head h;
    uint64_t relocs = 0;

    if (!S_ISREG(st->st_mode) || !trusted(st) || pread(fd, page, sizeof(page), 0) != sizeof(page))
        return -EINVAL;
    memcpy(&h, page, sizeof(h));
    for (unsigned kind = 0; kind < RELOC_KINDS; kind++)
        relocs += h.nrelocs[kind];
    if (memcmp(h.magic, magic, sizeof(magic)) != 0 || h.format != FORMAT || h.crc != page_crc(page) ||
        h.size != (uint64_t)st->st_size || h.relocs % 4 || !range_fits(h.relocs, relocs * 4, h.size))
        return -EINVAL;
    *ret = h;
    return 0;
}

static int load_file(int dir, const char *name, struct kernel *ret)
{
    cleanup_fd int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct cache_head h;
    struct kernel k;
    struct stat st;
    void *p;

    if (fd < 0 || fstat(fd, &st) < 0)
        return -ENOENT;
    if (read_head(fd, &st, &h) < 0) {
        log_msg(LOG_DEBUG, "kernel cache: %s is damaged", name);
        return -ENOENT;
    }
    p = mmap(NULL, h.size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
        return -ENOENT;
    k = (struct kernel){.hdr = h.hdr,
                        .phys = h.phys,
                        .memsz = h.memsz,
                        .entry = h.entry,
                        .nextents = h.nextents,
                        .map = {.p = p, .n = h.size},
                        .data = p,
                        .relocs = (const uint32_t *)((char *)p + h.relocs),
                        .fd = take_fd(&fd)};
    memcpy(k.extents, h.extents, sizeof(k.extents));
    memcpy(k.nrelocs, h.nrelocs, sizeof(k.nrelocs));
    if (!kernel_valid(&k)) {
        log_msg(LOG_DEBUG, "kernel cache: %s is damaged", name);
        kernel_fini(&k);
        return -ENOENT;
    }
    if (time(NULL) - st.st_mtim.tv_sec > TOUCH_S)
        futimens(k.fd, NULL);
    *ret = k;
    return 0;
}

int cache_find_file(struct cache *c, struct kernel *ret)
{
    char name[sizeof(c->name)];

    if (c->dir < 0 || !c->link[0] || !cache_follow(c->dir, c->link, name))
        return -ENOENT;
    return load_file(c->dir, name, ret);
}

static void set_link(const struct cache *c)
{
    if (c->link[0])
        cache_link(c->dir, c->link, c->name);
}

int cache_find_content(struct cache *c, const struct setup_header *hdr, const struct buf *payload, struct kernel *ret)
{
    uint32_t format = FORMAT;
    const struct iovec parts[] = {{&format, sizeof(format)}, {(void *)hdr, sizeof(*hdr)}, {payload->p, payload->n}};
    int rc;

    if (c->dir < 0)
        return -ENOENT;
    cache_digest(parts, array_len(parts), c->name);
    rc = load_file(c->dir, c->name, ret);
    if (rc == 0)
        set_link(c);
    return rc;
}

static int write_kernel(int fd, const struct kernel *k)
{
    uint8_t page[KERNEL_PAGE] = {0};
    uint64_t at = sizeof(page);
    struct cache_head h = {.format = FORMAT,
                           .phys = k->phys,
                           .memsz = k->memsz,
                           .entry = k->entry,
                           .nextents = k->nextents,
                           .hdr = k->hdr};
    int rc;

    memcpy(h.magic, magic, sizeof(magic));
    memcpy(h.nrelocs, k->nrelocs, sizeof(k->nrelocs));
    for (unsigned i = 0; i < k->nextents; i++) {
        h.extents[i] = k->extents[i];
        h.extents[i].pos = at;
        at += k->extents[i].len;
    }
    h.relocs = at;
    h.size = at + kernel_relocs(k) * 4ull;
    memcpy(page, &h, sizeof(h));
    h.crc = page_crc(page);
    memcpy(page, &h, sizeof(h));
    rc = file_write(fd, page, sizeof(page));
    for (unsigned i = 0; rc == 0 && i < k->nextents; i++)
        rc = file_write(fd, k->data + k->extents[i].pos, k->extents[i].len);
    return rc < 0 ? rc : file_write(fd, k->relocs, kernel_relocs(k) * 4ull);
}

/* One look through the directory: sums up, sweeps what is dead, and finds the file that was used longest ago. */
static uint64_t survey(int dir, const char *keep, char *oldest, size_t n)
{
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    time_t now = time(NULL), oldest_used = 0;
    uint64_t total = 0;
    struct dirent *e;
    struct stat st;

    oldest[0] = 0;
    while (d && (e = readdir(d))) {
        bool dead = false;

        if (fstatat(dir, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        if (S_ISLNK(st.st_mode))
            dead = faccessat(dir, e->d_name, F_OK, 0) < 0;
        else if (S_ISREG(st.st_mode) && strncmp(e->d_name, temporary, sizeof(temporary) - 1) == 0)
            dead = now - st.st_mtim.tv_sec > TEMPORARY_S;
        if (dead)
            unlinkat(dir, e->d_name, 0);
        if (dead || !S_ISREG(st.st_mode))
            continue;
        total += (uint64_t)st.st_size;
        if (strcmp(e->d_name, keep) != 0 && (!oldest[0] || st.st_mtim.tv_sec < oldest_used)) {
            snprintf(oldest, n, "%s", e->d_name);
            oldest_used = st.st_mtim.tv_sec;
        }
    }
    if (d)
        closedir(d);
    return total;
}

static void prune(int dir, const char *keep)
{
    char oldest[NAME_MAX + 1];

    while (survey(dir, keep, oldest, sizeof(oldest)) > CACHE_MAX && oldest[0] && unlinkat(dir, oldest, 0) == 0)
        log_msg(LOG_DEBUG, "kernel cache: %s removed to stay within %u MiB", oldest, (unsigned)(CACHE_MAX >> 20));
}

void cache_put(struct cache *c, struct kernel *k)
{
    cleanup_fd int fd = -1;
    struct kernel kept;
    char name[32];
    uint64_t id;
    int rc = 0;

    if (c->dir < 0 || getrandom(&id, sizeof(id), 0) != sizeof(id))
        return;
    snprintf(name, sizeof(name), "%s%" PRIx64, temporary, id);
    fd = openat(c->dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        rc = -errno;
    else
        rc = write_kernel(fd, k);
    if (rc == 0 && renameat(c->dir, name, c->dir, c->name) < 0)
        rc = -errno;
    if (rc < 0) {
        log_msg(LOG_DEBUG, "kernel cache: not written: %s", strerror(-rc));
        if (fd >= 0)
            unlinkat(c->dir, name, 0);
        return;
    }
    set_link(c);
    prune(c->dir, c->name);
    if (load_file(c->dir, c->name, &kept) == 0) {
        kernel_fini(k);
        *k = kept;
    }
}
