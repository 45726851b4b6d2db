#include "vmm/runner/deb.h"

#include <archive.h>
#include <archive_entry.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/file.h"

enum { CHUNK = 1 << 20 };

#define ARCHIVE_FUNCTIONS(F)     \
    F(read_new);                 \
    F(read_free);                \
    F(read_support_format_ar);   \
    F(read_support_format_tar);  \
    F(read_support_filter_gzip); \
    F(read_support_filter_xz);   \
    F(read_support_filter_zstd); \
    F(read_open);                \
    F(read_open_memory);         \
    F(read_next_header);         \
    F(read_data);                \
    F(error_string);             \
    F(entry_pathname);           \
    F(entry_filetype);           \
    F(entry_size)

struct archive_lib {
#define ARCHIVE_MEMBER(name) __typeof__(archive_##name) *name
    ARCHIVE_FUNCTIONS(ARCHIVE_MEMBER);
#undef ARCHIVE_MEMBER
};

struct unpack {
    struct archive_lib lib;
    struct archive *deb, *tar; /* the outer, the inner */
    int dir;
    uint64_t bytes; /* of all files so far */
    unsigned files;
    char *in, *out; /* CHUNK bytes on their way into `tar` and from it */
};

static int load(struct archive_lib *ret, struct err *err)
{
    void *so = dlopen("libarchive.so.13", RTLD_NOW);

    if (!so)
        return err_set(err, ENOENT, "%s; install libarchive13", dlerror());
#define ARCHIVE_RESOLVE(name)                                              \
    if (!(ret->name = (__typeof__(ret->name))dlsym(so, "archive_" #name))) \
    return err_set(err, ENOSYS, "libarchive lacks archive_%s; install version 3.4 or a newer", #name)
    ARCHIVE_FUNCTIONS(ARCHIVE_RESOLVE);
#undef ARCHIVE_RESOLVE
    return 0;
}

static int damaged(struct unpack *u, struct archive *a, struct err *err)
{
    const char *why = u->lib.error_string(a);

    return err_set(err, EINVAL, "%s; it is damaged or no Debian package: get it anew", why ? why : "it ends early");
}

/* 1 and the next entry, or 0 at the end. */
static int next_entry(struct unpack *u, struct archive *a, struct archive_entry **ret, struct err *err)
{
    int r = u->lib.read_next_header(a, ret);

    if (r == ARCHIVE_EOF)
        return 0;
    return r == ARCHIVE_OK || r == ARCHIVE_WARN ? 1 : damaged(u, a, err);
}

static la_ssize_t read_inner(struct archive *a, void *data, const void **ret)
{
    struct unpack *u = data;

    (void)a;
    *ret = u->in;
    return u->lib.read_data(u->deb, u->in, CHUNK);
}

static bool begins(const char *s, const char *with)
{
    return !strncmp(s, with, strlen(with));
}

/* The name under which it is unpacked, NULL: not at all.  Newer packages have lib below usr. */
static const char *wanted(const char *name)
{
    if (begins(name, "./"))
        name += 2;
    if (begins(name, "usr/lib/modules/"))
        name += 4;
    return begins(name, "boot/vmlinuz-") || begins(name, "boot/config-") || begins(name, "lib/modules/") ? name : NULL;
}

/* Opens a new file, in directories that are made where they are missing. */
static int make_file(struct unpack *u, const char *name, int *ret, struct err *err)
{
    char path[DEB_NAME_MAX];

    if (strlen(name) >= sizeof(path))
        return err_set(err, ENAMETOOLONG, "the name %.40s... is longer than %d bytes; is it a kernel's package?", name,
                       DEB_NAME_MAX - 1);
    strcpy(path, name);
    for (char *part = path, *end; (end = strchr(part, '/')); part = end + 1) {
        *end = 0;
        if (!*part || !strcmp(part, ".") || !strcmp(part, ".."))
            return err_set(err, EINVAL, "the name %s leads elsewhere; no good package has such", name);
        if (mkdirat(u->dir, path, 0700) && errno != EEXIST)
            return err_set(err, errno, "make %s: %s", path, strerror(errno));
        *end = '/';
    }
    *ret = openat(u->dir, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (*ret >= 0)
        return 0;
    return err_set(err, errno, "make %s: %s", name, errno == EEXIST ? "it is in the package twice" : strerror(errno));
}

static int take_file(struct unpack *u, const char *name, uint64_t size, struct err *err)
{
    int fd cleanup_fd = -1, r = make_file(u, name, &fd, err);
    la_ssize_t n;

    while (r >= 0 && (n = u->lib.read_data(u->tar, u->out, CHUNK)) != 0) {
        if (n < 0)
            return damaged(u, u->tar, err);
        if ((uint64_t)n > size)
            return err_set(err, EINVAL, "%s has more bytes than it says; no good package does that", name);
        size -= (uint64_t)n;
        r = file_write(fd, u->out, (size_t)n);
        if (r < 0)
            return err_set(err, -r, "write %s: %s", name, strerror(-r));
    }
    return r;
}

static int take_entry(struct unpack *u, struct archive_entry *e, struct err *err)
{
    const char *path = u->lib.entry_pathname(e), *name = path ? wanted(path) : NULL;
    int64_t size = u->lib.entry_size(e);

    /* What stays in it is unpacked on the way, too. */
    if (size < 0 || __builtin_add_overflow(u->bytes, (uint64_t)size, &u->bytes) || u->bytes > DEB_BYTES_MAX ||
        ++u->files > DEB_FILES_MAX)
        return err_set(err, EFBIG, "it has more than %d files or %llu GiB; is it a kernel's package?", DEB_FILES_MAX,
                       (unsigned long long)(DEB_BYTES_MAX / GiB(1)));
    if (!name || u->lib.entry_filetype(e) != AE_IFREG)
        return 0;
    return take_file(u, name, (uint64_t)size, err);
}

static int unpack_inner(struct unpack *u, struct err *err)
{
    const struct archive_lib *l = &u->lib;
    struct archive_entry *e;
    int r;

    l->read_support_format_tar(u->tar);
    l->read_support_filter_gzip(u->tar);
    l->read_support_filter_xz(u->tar);
    l->read_support_filter_zstd(u->tar);
    if (l->read_open(u->tar, u, NULL, read_inner, NULL) != ARCHIVE_OK)
        return damaged(u, u->tar, err);
    while ((r = next_entry(u, u->tar, &e, err)) > 0)
        if ((r = take_entry(u, e, err)) < 0)
            break;
    return r;
}

static int unpack_outer(struct unpack *u, const void *bytes, size_t n, struct err *err)
{
    struct archive_entry *e;
    int r;

    u->lib.read_support_format_ar(u->deb);
    if (u->lib.read_open_memory(u->deb, bytes, n) != ARCHIVE_OK)
        return damaged(u, u->deb, err);
    while ((r = next_entry(u, u->deb, &e, err)) > 0) {
        const char *name = u->lib.entry_pathname(e);

        if (name && begins(name, "data.tar"))
            return unpack_inner(u, err);
    }
    return r < 0 ? r : err_set(err, EINVAL, "it has no data.tar; it is no Debian package");
}

int deb_unpack(const void *bytes, size_t n, int dir, struct err *err)
{
    char *in cleanup_free = xcalloc(1, CHUNK), *out cleanup_free = xcalloc(1, CHUNK);
    struct unpack u = {.dir = dir, .in = in, .out = out};
    int r = load(&u.lib, err);

    if (r < 0)
        return r;
    u.deb = u.lib.read_new();
    u.tar = u.lib.read_new();
    r = u.deb && u.tar ? unpack_outer(&u, bytes, n, err) : err_set(err, ENOMEM, "no memory for libarchive");
    u.lib.read_free(u.tar);
    u.lib.read_free(u.deb);
    return r;
}
