#include "vmm/runner/kernel.h"

#include <dirent.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include "firmware/load/load.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/file.h"
#include "vmm/runner/modules.h"
#include "vmm/runner/package.h"

#define BOOT    "/boot"
#define PREFIX  "vmlinuz-"
#define MODULES "/lib/modules"

enum {                 /* [Linux x86 boot protocol] */
       HEAD = 0x10000, /* what is read of a bzImage: where its version lies is 16 bits */
       MAGIC_AT = 0x202,
       VERSION_AT = 0x20e, /* less 0x200 */
};
enum { KCONFIG_MAX = 4 << 20 };

static char *join(const char *a, const char *b)
{
    char *ret;

    if (asprintf(&ret, "%s/%s", a, b) < 0)
        abort();
    return ret;
}

static bool exists(const char *path)
{
    return !access(path, F_OK);
}

static void copy_version(const char *text, size_t n, char ret[128])
{
    size_t len = 0;

    while (len < n && len < 127 && text[len] > ' ' && text[len] < 127 && text[len] != '/')
        len++;
    memcpy(ret, text, len);
    ret[len] = 0;
}

/* A bzImage has it in its header. */
static void version_of_file(const char *path, char ret[128])
{
    int fd cleanup_fd = open(path, O_RDONLY | O_CLOEXEC);
    char *head cleanup_free = xcalloc(1, HEAD);
    ssize_t n = fd < 0 ? 0 : read(fd, head, HEAD);
    size_t at;

    if (n < VERSION_AT + 2 || memcmp(head + MAGIC_AT, "HdrS", 4) != 0)
        return;
    at = get_le16(head + VERSION_AT) + 0x200u;
    if (at > 0x200 && at < (size_t)n)
        copy_version(head + at, (size_t)n - at, ret);
}

/* A build tree has it in a file; `tree` is the directory that has arch/ and include/. */
static void version_of_tree(const char *tree, char ret[128])
{
    char *path cleanup_free = join(tree, "include/config/kernel.release"), *text cleanup_free = NULL;
    size_t n;

    if (!file_read(path, 4096, &text, &n))
        copy_version(text, n, ret);
}

/* A tree that modules were built in, two or no directories above the kernel's own. */
static bool in_build_tree(struct kernel_place *k)
{
    static const char *const above[] = {"../../..", "."};
    char *file cleanup_free = xstrdup(k->file);
    const char *dir = dirname(file);

    for (size_t i = 0; i < array_len(above); i++) {
        char *tree cleanup_free = join(dir, above[i]);

        if (!modules_in_build_tree(tree))
            continue;
        k->modules = take_ptr(tree);
        return true;
    }
    return false;
}

/* Beside a kernel of a package, which has boot/ and lib/, or where they are installed. */
static void find_modules(struct kernel_place *k)
{
    char *file cleanup_free = xstrdup(k->file), *installed cleanup_free = NULL;

    if (in_build_tree(k) || !*k->version)
        return;
    if (asprintf(&k->modules, "%s/../lib/modules/%s", dirname(file), k->version) < 0 ||
        asprintf(&installed, MODULES "/%s", k->version) < 0)
        abort();
    if (exists(k->modules))
        return;
    free(take_ptr(k->modules));
    if (exists(installed))
        k->modules = take_ptr(installed);
}

/* Beside the kernel, or at the top of its build tree. */
static void find_config(struct kernel_place *k)
{
    char *file cleanup_free = xstrdup(k->file), *installed cleanup_free = NULL;
    const char *dir = dirname(file), *names[] = {NULL, "../../../.config", ".config"};

    if (asprintf(&installed, "config-%s", k->version) < 0)
        abort();
    names[0] = installed;
    for (size_t i = 0; i < array_len(names) && !k->config; i++) {
        char *path cleanup_free = join(dir, names[i]);

        if (exists(path))
            k->config = take_ptr(path);
    }
}

static bool is_package(const char *path)
{
    static const char magic[] = "!<arch>\n"; /* [ar(5)] */
    int fd cleanup_fd = open(path, O_RDONLY | O_CLOEXEC);
    char head[sizeof(magic) - 1];

    return fd >= 0 && read(fd, head, sizeof(head)) == sizeof(head) && !memcmp(head, magic, sizeof(head));
}

static int find_in_package(const char *path, struct kernel_place *k, struct err *err)
{
#ifdef HAVE_ARCHIVE
    return package_kernel(path, &k->file, &k->hold, err);
#else
    (void)k;
    return err_set(err, ENOTSUP,
                   "package \"%s\": this bothy was built without libarchive; unpack it with dpkg-deb -x, and name the "
                   "kernel in boot/",
                   path);
#endif
}

static int find_in_tree(const char *tree, struct kernel_place *k, struct err *err)
{
    static const char *const files[] = {"arch/x86/boot/bzImage", "vmlinux"};

    for (size_t i = 0; i < array_len(files); i++) {
        k->file = join(tree, files[i]);
        if (exists(k->file)) {
            version_of_tree(tree, k->version);
            return 0;
        }
        free(take_ptr(k->file));
    }
    return err_set(err, ENOENT,
                   "kernel \"%s\": no %s or %s in that directory; build the kernel there, or name its file", tree,
                   files[0], files[1]);
}

/* The newest, as versions are compared; NULL: none. */
static char *newest_installed(void)
{
    DIR *dir = opendir(BOOT);
    char *best = NULL;
    struct dirent *e;

    while (dir && (e = readdir(dir)))
        if (!strncmp(e->d_name, PREFIX, strlen(PREFIX)) && (!best || strverscmp(e->d_name, best) > 0)) {
            free(best);
            best = xstrdup(e->d_name);
        }
    if (dir)
        closedir(dir);
    return best;
}

static int find_installed(struct kernel_place *k, struct err *err)
{
    char *name cleanup_free = NULL;
    struct utsname u;

    uname(&u);
    if (asprintf(&k->file, BOOT "/" PREFIX "%s", u.release) < 0)
        abort();
    if (exists(k->file))
        return 0;
    free(take_ptr(k->file));
    name = newest_installed();
    if (!name)
        return err_set(err, ENOENT,
                       "no kernel in " BOOT "; install one (Debian: linux-image-cloud-amd64), or name its "
                       "file or build tree by -k");
    k->file = join(BOOT, name);
    return 0;
}

static int find(const char *what, struct kernel_place *k, struct err *err)
{
    struct stat st;
    int r = 0;

    if (what && strchr(what, '/') && stat(what, &st) && errno != ENOENT)
        return err_file(err, errno, "kernel", what);
    if (!what) {
        r = find_installed(k, err);
    } else if (stat(what, &st)) {
        if (asprintf(&k->file, BOOT "/" PREFIX "%s", what) < 0)
            abort();
        if (strchr(what, '/') || !exists(k->file))
            return err_set(err, ENOENT,
                           "kernel \"%s\": there is no such file, build tree or version in " BOOT "; check the name",
                           what);
    } else if (S_ISDIR(st.st_mode)) {
        r = find_in_tree(what, k, err);
    } else if (is_package(what)) {
        r = find_in_package(what, k, err);
    } else {
        k->file = xstrdup(what);
    }
    if (r < 0)
        return r;
    if (access(k->file, R_OK))
        return err_set(err, errno, "kernel \"%s\": %s; make it readable (chmod a+r), or name another", k->file,
                       strerror(errno));
    if (!*k->version)
        version_of_file(k->file, k->version);
    find_modules(k);
    find_config(k);
    return 0;
}

int kernel_find(const char *what, struct kernel_place *ret, struct err *err)
{
    struct kernel_place k = {.hold = -1};
    int r = find(what, &k, err);

    if (r < 0)
        kernel_place_fini(&k);
    else
        *ret = k;
    return r;
}

char *kernel_config(const struct kernel_place *k, bool cache)
{
    char *text;
    size_t n;

    if (k->config && !file_read(k->config, KCONFIG_MAX, &text, &n))
        return text;
    return boot_config(k->file, cache, &text) ? NULL : text;
}

void kernel_place_fini(struct kernel_place *k)
{
    free(k->file);
    free(k->modules);
    free(k->config);
    if (k->hold >= 0)
        close(k->hold);
    *k = (struct kernel_place){.hold = -1};
}
