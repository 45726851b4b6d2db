#include "vmm/runner/package.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "firmware/load/cache.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/file.h"
#include "vmm/base/log.h"
#include "vmm/runner/deb.h"

enum {
    PACKAGE_BYTES_MAX = 1 << 30,
    KEPT = 4, /* packages; one that is in use stays besides */
};
static const char temporary[] = ".tmp-", prefix[] = "vmlinuz-";

/* What the folder holds is found by this from where it is open. */
static char *path_of(int folder, const char *name)
{
    char *ret;

    if (asprintf(&ret, "/proc/self/fd/%d/%s", folder, name) < 0)
        abort();
    return ret;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st, (void)type, (void)where;
    return remove(path);
}

/* Under another name first, so that nobody takes what is left for the whole.  False: it is still there. */
static bool remove_tree(int folder, const char *name)
{
    enum { DIRECTORIES = 32 }; /* open at a time */
    char *path cleanup_free = NULL, gone[NAME_MAX + 1];
    bool moved = false;

    snprintf(gone, sizeof(gone), "%s%.64s", temporary, name);
    if (strncmp(name, temporary, strlen(temporary)) != 0 && renameat(folder, name, folder, gone) == 0) {
        name = gone;
        moved = true;
    }
    path = path_of(folder, name);
    if (!nftw(path, remove_one, DIRECTORIES, FTW_DEPTH | FTW_PHYS))
        return true;
    log_msg(LOG_DEBUG, "packages: %s: %s", name, strerror(errno));
    return moved;
}

/* Keeps it from being removed; -1: it is not there. */
static int hold_tree(int folder, const char *name, int how)
{
    int fd cleanup_fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    return fd < 0 || flock(fd, how) ? -1 : take_fd(&fd);
}

/* The one used longest ago among those nobody uses, when there are more than enough; sweeps what is dead. */
static bool look_for_oldest(int folder, char oldest[NAME_MAX + 1])
{
    int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    unsigned kept = 0;
    time_t used = 0;
    struct dirent *e;
    struct stat st;

    oldest[0] = 0;
    while (d && (e = readdir(d))) {
        int held cleanup_fd = -1;

        if (strncmp(e->d_name, temporary, strlen(temporary)) == 0)
            remove_tree(folder, e->d_name);
        if (e->d_name[0] == '.' || fstatat(folder, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        if (S_ISLNK(st.st_mode) && faccessat(folder, e->d_name, F_OK, 0) < 0)
            unlinkat(folder, e->d_name, 0);
        if (!S_ISDIR(st.st_mode))
            continue;
        kept++;
        held = hold_tree(folder, e->d_name, LOCK_EX | LOCK_NB);
        if (held < 0 || (oldest[0] && st.st_mtim.tv_sec >= used))
            continue;
        strcpy(oldest, e->d_name);
        used = st.st_mtim.tv_sec;
    }
    if (d)
        closedir(d);
    return kept > KEPT && oldest[0];
}

static void prune(int folder)
{
    char oldest[NAME_MAX + 1];

    while (look_for_oldest(folder, oldest) && remove_tree(folder, oldest))
        ;
}

/* "vmlinuz-VERSION" in the boot/ of a tree. */
static int find_kernel(int tree, char ret[NAME_MAX + 1], struct err *err)
{
    int fd = openat(tree, "boot", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;
    bool found = false;

    while (d && !found && (e = readdir(d)))
        if ((found = strncmp(e->d_name, prefix, strlen(prefix)) == 0))
            strcpy(ret, e->d_name);
    if (d)
        closedir(d);
    return found ? 0
                 : err_set(err, ENOENT, "it has no boot/%s...; give the linux-image-VERSION package itself", prefix);
}

static int unpack(int folder, const void *bytes, size_t n, const char *name, struct err *err)
{
    char temp[32], kernel[NAME_MAX + 1];
    int tree cleanup_fd = -1, r;
    uint64_t id;

    if (getrandom(&id, sizeof(id), 0) != sizeof(id))
        return err_set(err, EAGAIN, "no random numbers");
    snprintf(temp, sizeof(temp), "%s%" PRIx64, temporary, id);
    if (mkdirat(folder, temp, 0700) || (tree = openat(folder, temp, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        return err_set(err, errno, "make a folder in the cache: %s", strerror(errno));
    r = deb_unpack(bytes, n, tree, err);
    if (r >= 0)
        r = find_kernel(tree, kernel, err);
    if (r >= 0 && (syncfs(tree) || renameat(folder, temp, folder, name)))
        r = err_set(err, errno, "keep it: %s", strerror(errno));
    if (r < 0)
        remove_tree(folder, temp);
    return r;
}

/* Its name in the folder, where it then is. */
static int find_or_unpack(int folder, int package, const char *path, char name[CACHE_KEY_LEN + 1], struct err *err)
{
    char identity[CACHE_NAME_MAX] = "", *data cleanup_free = NULL;
    struct iovec part;
    int r = 0;

    if (!cache_identity(package, identity))
        identity[0] = 0;
    else if (cache_follow(folder, identity, name) && faccessat(folder, name, F_OK, 0) == 0)
        return 0;
    if (file_read(path, PACKAGE_BYTES_MAX, &data, &part.iov_len) < 0)
        return err_set(err, errno, "%s%s", strerror(errno), errno == EFBIG ? "; is it a kernel's package?" : "");
    part.iov_base = data;
    cache_digest(&part, 1, name);
    if (faccessat(folder, name, F_OK, 0) < 0)
        r = unpack(folder, data, part.iov_len, name, err);
    if (r >= 0 && identity[0])
        cache_link(folder, identity, name);
    return r;
}

/* With the folder locked, so that a package is unpacked once, and nothing is removed that is just looked for. */
static int find(int folder, int package, const char *path, char **ret, int *hold, struct err *err)
{
    char name[CACHE_KEY_LEN + 1], kernel[NAME_MAX + 1], *tree cleanup_free = NULL, *real cleanup_free = NULL;
    int held cleanup_fd = -1, r = find_or_unpack(folder, package, path, name, err);

    if (r < 0)
        return r;
    held = hold_tree(folder, name, LOCK_SH);
    if (held < 0)
        return err_set(err, errno, "its folder in the cache: %s", strerror(errno));
    if ((r = find_kernel(held, kernel, err)) < 0)
        return r;
    futimens(held, NULL);
    prune(folder);
    tree = path_of(folder, name);
    real = realpath(tree, NULL);
    if (!real)
        return err_set(err, errno, "its folder in the cache: %s", strerror(errno));
    if (asprintf(ret, "%s/boot/%s", real, kernel) < 0)
        abort();
    *hold = take_fd(&held);
    return 0;
}

int package_kernel(const char *path, char **ret, int *hold, struct err *err)
{
    int folder cleanup_fd = cache_folder("packages"), package cleanup_fd = open(path, O_RDONLY | O_CLOEXEC), r;

    if (package < 0)
        return err_file(err, errno, "package", path);
    if (folder < 0)
        return err_set(err, -folder,
                       "package \"%s\": no place to unpack it: %s; set XDG_CACHE_HOME to a directory of yours", path,
                       strerror(-folder));
    if (flock(folder, LOCK_EX))
        return err_set(err, errno, "package \"%s\": lock the cache: %s", path, strerror(errno));
    r = find(folder, package, path, ret, hold, err);
    return r < 0 ? err_wrap(err, "package \"%s\"", path) : r;
}
