/*
 * names rw|cow SHARE REFERENCE SEED COUNT: does the same things at random, as root and as another user, to names and
 * attributes in a directory on a share and in one on a file system of the guest's own, each as the root of its own
 * little world.  Results, errors and what is then there are compared; it ends at the first difference that is not by
 * design, with the seed and the last things done.  For Linux guests, static.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "guest-tests/linux/dice.h"

enum { PATHS = PATH_MAX + 64, SLOTS = 6, NOTED = 24, USER = 1000, TEXT = 4 << 20, MANY = 40, WALK_EACH = 600 };

/* What is done, the same on both sides. */
struct step {
    const struct action *action;
    char p[PATHS], q[PATHS];
    uid_t uid, owner, group;
    mode_t mode, mask;
    int flags;
    unsigned slot, a, b;
};

static struct side {
    const char *path;
    int root, fds[SLOTS];
    char *text; /* what came of the last step */
    size_t len;
} sides[2]; /* the share, the reference */

struct action {
    const char *name;
    unsigned often;
    void (*run)(const struct step *s, struct side *w);
};

static bool cow;
static unsigned seed, count;

/* ---- What is said of a result ---- */

static void say(struct side *w, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    w->len += (size_t)vsnprintf(w->text + w->len, TEXT - w->len, format, args);
    va_end(args);
    if (w->len >= TEXT) {
        fprintf(stderr, "names: too much to say\n");
        exit(2);
    }
}

static bool result(struct side *w, long rc)
{
    if (rc < 0)
        say(w, "%s", strerrorname_np(errno));
    else
        say(w, "%ld", rc);
    return rc >= 0;
}

/* Sizes of directories are each file system's own, and in a cow share each has one link. */
static void say_stat(struct side *w, const struct stat *st)
{
    bool dir = S_ISDIR(st->st_mode);

    say(w, " mode %o links %ld owner %d:%d", st->st_mode, dir && cow ? 1 : (long)st->st_nlink, st->st_uid, st->st_gid);
    if (S_ISREG(st->st_mode) || S_ISLNK(st->st_mode))
        say(w, " size %ld", (long)st->st_size);
}

static uint64_t sum(const void *data, size_t n)
{
    uint64_t h = 0xcbf29ce484222325; /* FNV-1a */

    for (size_t i = 0; i < n; i++)
        h = (h ^ ((const uint8_t *)data)[i]) * 0x100000001b3;
    return h;
}

/* ---- Steps ---- */

static void do_open(const struct step *s, struct side *w)
{
    int fd = openat(AT_FDCWD, s->p, s->flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, s->mode);
    struct stat st;

    if (fd < 0) {
        result(w, -1);
        return;
    }
    if (w->fds[s->slot] >= 0)
        close(w->fds[s->slot]);
    w->fds[s->slot] = fd;
    if (result(w, fstat(fd, &st)))
        say_stat(w, &st);
}

static void do_close(const struct step *s, struct side *w)
{
    result(w, close(w->fds[s->slot]));
    w->fds[s->slot] = -1;
}

static void do_fstat(const struct step *s, struct side *w)
{
    struct stat st;

    if (result(w, fstat(w->fds[s->slot], &st)))
        say_stat(w, &st);
}

static void do_stat(const struct step *s, struct side *w)
{
    struct stat st;

    if (result(w, fstatat(AT_FDCWD, s->p, &st, s->a % 2 ? AT_SYMLINK_NOFOLLOW : 0)))
        say_stat(w, &st);
}

static void do_mkdir(const struct step *s, struct side *w)
{
    result(w, mkdir(s->p, s->mode));
}

static void do_rmdir(const struct step *s, struct side *w)
{
    result(w, rmdir(s->p));
}

static void do_unlink(const struct step *s, struct side *w)
{
    result(w, unlink(s->p));
}

static void do_rename(const struct step *s, struct side *w)
{
    static const unsigned flags[] = {0, 0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_EXCHANGE | RENAME_NOREPLACE};

    result(w, syscall(SYS_renameat2, AT_FDCWD, s->p, AT_FDCWD, s->q, flags[s->a % (sizeof(flags) / sizeof(flags[0]))]));
}

static void do_link(const struct step *s, struct side *w)
{
    result(w, linkat(AT_FDCWD, s->p, AT_FDCWD, s->q, s->a % 3 ? 0 : AT_SYMLINK_FOLLOW));
}

static void do_flink(const struct step *s, struct side *w)
{
    result(w, linkat(w->fds[s->slot], "", AT_FDCWD, s->q, AT_EMPTY_PATH));
}

static void do_symlink(const struct step *s, struct side *w)
{
    char target[PATH_MAX + 8];
    size_t n = s->a % 16 ? 0 : PATH_MAX - 2 + s->b % 3; /* one of those is too long */

    memset(target, 't', n);
    target[n] = 0;
    result(w, symlink(n ? target : s->q, s->p));
}

static void do_readlink(const struct step *s, struct side *w)
{
    char target[PATH_MAX];
    ssize_t n = readlink(s->p, target, s->a % 4 ? sizeof(target) : 3);

    if (result(w, n))
        say(w, " %.*s", (int)n, target);
}

static void do_chmod(const struct step *s, struct side *w)
{
    result(w, chmod(s->p, s->mode));
}

static void do_fchmod(const struct step *s, struct side *w)
{
    result(w, fchmod(w->fds[s->slot], s->mode));
}

static void do_chown(const struct step *s, struct side *w)
{
    result(w, fchownat(AT_FDCWD, s->p, s->owner, s->group, s->a % 2 ? AT_SYMLINK_NOFOLLOW : 0));
}

static void do_fchown(const struct step *s, struct side *w)
{
    result(w, fchown(w->fds[s->slot], s->owner, s->group));
}

static void do_truncate(const struct step *s, struct side *w)
{
    result(w, truncate(s->p, s->a % 10000));
}

static void do_ftruncate(const struct step *s, struct side *w)
{
    result(w, ftruncate(w->fds[s->slot], s->a % 10000));
}

static void do_write(const struct step *s, struct side *w)
{
    char data[256];

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (char)(s->b + i);
    result(w, s->a % 2 ? write(w->fds[s->slot], data, s->b % sizeof(data))
                       : pwrite(w->fds[s->slot], data, s->b % sizeof(data), s->a % 5000));
}

static void do_read(const struct step *s, struct side *w)
{
    char data[4096];
    ssize_t n = s->a % 2 ? read(w->fds[s->slot], data, s->b % sizeof(data))
                         : pread(w->fds[s->slot], data, s->b % sizeof(data), s->a % 5000);

    if (result(w, n))
        say(w, " %lx", (long)sum(data, (size_t)n));
}

static void do_fsync(const struct step *s, struct side *w)
{
    result(w, s->a % 2 ? fsync(w->fds[s->slot]) : fdatasync(w->fds[s->slot]));
}

static void do_times(const struct step *s, struct side *w)
{
    static const long special[] = {UTIME_NOW, UTIME_OMIT};
    struct timespec ts[2] = {{.tv_sec = s->a, .tv_nsec = s->b % 1000000000},
                             {.tv_sec = -(long)(s->b % 1000000), .tv_nsec = s->a % 1000000000}};
    int how = s->flags & O_APPEND ? AT_SYMLINK_NOFOLLOW : 0;
    struct stat st;

    if (s->flags & O_TRUNC)
        ts[s->a % 2].tv_nsec = special[s->b % 2];
    if (!result(w, utimensat(AT_FDCWD, s->p, ts, how)) || fstatat(AT_FDCWD, s->p, &st, how))
        return;
    if (ts[0].tv_nsec < 1000000000)
        say(w, " %ld.%ld", (long)st.st_atim.tv_sec, st.st_atim.tv_nsec);
    if (ts[1].tv_nsec < 1000000000)
        say(w, " %ld.%ld", (long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

static void do_access(const struct step *s, struct side *w)
{
    result(w, faccessat(AT_FDCWD, s->p, s->a % 8, AT_EACCESS));
}

static mode_t type_of(const struct step *s)
{
    static const mode_t types[] = {S_IFIFO, S_IFIFO, S_IFSOCK, S_IFREG, S_IFCHR, S_IFBLK};

    return types[s->a % 6];
}

static void do_mknod(const struct step *s, struct side *w)
{
    result(w, mknod(s->p, type_of(s) | s->mode, makedev(1, 3)));
}

static const char *xattr_name(const struct step *s)
{
    static const char *const names[] = {"user.a", "user.b", "user.a/b", "user.."};

    return names[s->a % 4];
}

static void do_setxattr(const struct step *s, struct side *w)
{
    static const int flags[] = {0, 0, 0, XATTR_CREATE, XATTR_REPLACE};

    result(w, (s->flags & O_APPEND ? lsetxattr : setxattr)(s->p, xattr_name(s), "a value of an attribute", s->b % 24,
                                                           flags[s->b % 5]));
}

static void do_getxattr(const struct step *s, struct side *w)
{
    char value[64];
    ssize_t n = (s->flags & O_APPEND ? lgetxattr : getxattr)(s->p, xattr_name(s), value, s->b % 40);

    if (result(w, n) && s->b % 40)
        say(w, " %.*s", (int)n, value);
}

static void do_removexattr(const struct step *s, struct side *w)
{
    result(w, removexattr(s->p, xattr_name(s)));
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* All xattrs with their values, sorted. */
static void say_xattrs(struct side *w, const char *path)
{
    char list[1024], value[64], *names[16];
    ssize_t n = llistxattr(path, list, sizeof(list)), len;
    unsigned found = 0;

    if (n < 0) {
        result(w, n);
        return;
    }
    for (char *name = list; name < list + n && found < 16; name += strlen(name) + 1)
        if (!strncmp(name, "user.", 5))
            names[found++] = name;
    qsort(names, found, sizeof(names[0]), by_name);
    for (unsigned i = 0; i < found; i++) {
        len = lgetxattr(path, names[i], value, sizeof(value));
        say(w, " %s=%.*s", names[i], len < 0 ? 0 : (int)len, value);
    }
}

static void do_listxattr(const struct step *s, struct side *w)
{
    say_xattrs(w, s->p);
}

/* The names in a directory, sorted, each only once; visit() is called when the kernel has told it, before the next. */
struct names {
    unsigned n;
    char *name[1024];
};

static int list(int fd, struct names *ret, void (*visit)(int dir, const char *name, unsigned char type))
{
    _Alignas(struct dirent64) char buf[600]; /* a few at a time */
    ssize_t got;

    while ((got = getdents64(fd, buf, sizeof(buf))) > 0)
        for (ssize_t at = 0; at < got;) {
            const struct dirent64 *d = (const struct dirent64 *)(buf + at);
            struct stat st;
            bool self = !strcmp(d->d_name, ".") || !strcmp(d->d_name, "..");

            at += d->d_reclen;
            if (ret->n == sizeof(ret->name) / sizeof(ret->name[0]))
                return errno = E2BIG, -1;
            if (!self && !fstatat(fd, d->d_name, &st, AT_SYMLINK_NOFOLLOW) &&
                (st.st_ino != d->d_ino || (d->d_type != DT_UNKNOWN && d->d_type != IFTODT(st.st_mode))))
                return errno = EBADE, -1; /* a name that says it is something else */
            if (asprintf(&ret->name[ret->n], "%s", d->d_name) < 0)
                return -1;
            ret->n++;
            if (visit && !self)
                visit(fd, d->d_name, d->d_type);
        }
    qsort(ret->name, ret->n, sizeof(ret->name[0]), by_name);
    return (int)got;
}

static void show(struct side *w, int fd, void (*visit)(int dir, const char *name, unsigned char type))
{
    struct names l = {0};

    result(w, list(fd, &l, visit));
    for (unsigned i = 0; i < l.n; i++) {
        say(w, " %s", l.name[i]);
        free(l.name[i]);
    }
}

static int open_dir(const struct step *s, struct side *w)
{
    int fd = open(s->p, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        result(w, -1);
    return fd;
}

static void do_list(const struct step *s, struct side *w)
{
    int fd = open_dir(s, w);

    if (fd < 0)
        return;
    show(w, fd, NULL);
    close(fd);
}

static void delete (int dir, const char *name, unsigned char type)
{
    unlinkat(dir, name, type == DT_DIR ? AT_REMOVEDIR : 0);
}

/* What is listed while it is deleted is all there was, and what is listed again is what is left. */
static void do_empty(const struct step *s, struct side *w)
{
    int fd = open_dir(s, w);

    if (fd < 0)
        return;
    show(w, fd, delete);
    result(w, lseek(fd, 0, SEEK_SET));
    show(w, fd, NULL);
    close(fd);
}

static void do_many(const struct step *s, struct side *w)
{
    char name[PATHS + 16];

    if (!result(w, mkdir(s->p, 0777)))
        return;
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(name, sizeof(name), "%s/%u", s->p, i);
        result(w, mknod(name, S_IFREG | 0600, 0));
    }
    do_empty(s, w);
}

/* ---- Differences by design ---- */

static bool is_device(const struct step *s)
{
    return S_ISCHR(type_of(s)) || S_ISBLK(type_of(s));
}

static bool is_on_cow(const struct step *s)
{
    (void)s;
    return cow;
}

static void undo_unlink(const struct step *s)
{
    unlink(s->p);
}

static void undo_setxattr(const struct step *s)
{
    (s->flags & O_APPEND ? lremovexattr : removexattr)(s->p, xattr_name(s));
}

/* Besides, say_stat() leaves out what is a file system's own. */
static const struct {
    const char *action, *share; /* what the share says */
    bool (*when)(const struct step *s);
    void (*undo)(const struct step *s); /* at the reference, where it went well */
} by_design[] = {
    /* a guest makes no devices on the host */
    {"mknod", "EPERM", is_device, undo_unlink},
    /* cow shares take no extended attributes, nor has what is new there any */
    {"setxattr", "EOPNOTSUPP", is_on_cow, undo_setxattr},
    {"removexattr", "EOPNOTSUPP", is_on_cow, NULL},
    {"getxattr", "EOPNOTSUPP", is_on_cow, NULL},
};

/* ---- Choosing ---- */

static const struct action actions[] = {
    {"open", 14, do_open},          {"close", 3, do_close},       {"fstat", 3, do_fstat},
    {"stat", 4, do_stat},           {"mkdir", 10, do_mkdir},      {"rmdir", 5, do_rmdir},
    {"unlink", 8, do_unlink},       {"rename", 12, do_rename},    {"link", 7, do_link},
    {"flink", 2, do_flink},         {"symlink", 5, do_symlink},   {"readlink", 3, do_readlink},
    {"chmod", 6, do_chmod},         {"fchmod", 2, do_fchmod},     {"chown", 5, do_chown},
    {"fchown", 2, do_fchown},       {"truncate", 4, do_truncate}, {"ftruncate", 3, do_ftruncate},
    {"write", 6, do_write},         {"read", 4, do_read},         {"fsync", 1, do_fsync},
    {"times", 4, do_times},         {"access", 4, do_access},     {"mknod", 4, do_mknod},
    {"setxattr", 4, do_setxattr},   {"getxattr", 2, do_getxattr}, {"removexattr", 2, do_removexattr},
    {"listxattr", 2, do_listxattr}, {"list", 4, do_list},         {"empty", 1, do_empty},
    {"many", 1, do_many},
};
enum { ACTIONS = sizeof(actions) / sizeof(actions[0]) };

static void choose_path(char *ret)
{
    static const char *const common[] = {"a", "b", "c", "d", "e"};
    unsigned depth = 1 + (unsigned)dice(1 + dice(3));
    char *at = ret;

    if (!dice(20))
        *at++ = '/';
    for (unsigned i = 0; i < depth; i++) {
        unsigned kind = (unsigned)dice(60);
        size_t n = kind == 0 ? NAME_MAX : NAME_MAX + 1;

        if (kind < 2) { /* as long as it may be, and longer */
            memset(at, 'x', n);
            at += n;
        } else {
            at = stpcpy(at, kind == 2 ? ".." : kind < 5 ? "." : common[dice(5)]);
        }
        if (i + 1 < depth || !dice(16))
            at = stpcpy(at, dice(20) ? "/" : "//");
    }
    *at = 0;
    if (!dice(150))
        *ret = 0;
}

static int choose_flags(void)
{
    static const struct {
        int flag;
        unsigned percent;
    } kinds[] = {{O_CREAT, 50}, {O_EXCL, 15}, {O_TRUNC, 20}, {O_APPEND, 25}, {O_NOFOLLOW, 10}, {O_PATH, 4}};
    static const int modes[] = {O_RDONLY, O_WRONLY, O_RDWR};
    int ret = modes[dice(3)];

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (dice(100) < kinds[i].percent)
            ret |= kinds[i].flag;
    if (!dice(12))
        ret = (ret & ~(O_CREAT | O_TRUNC)) | O_TMPFILE;
    else if (!dice(12))
        ret = (ret & ~O_CREAT) | O_DIRECTORY;
    return ret;
}

/* What FUSE does not tell a server is left out: chown(2) to nobody and no group, which takes set-user-id away; and by
 * whom, which matters for set-group-id without the group's right to execute. */
static void choose(struct step *s)
{
    static const mode_t modes[] = {0777, 0777, 0755, 0700, 0644, 0666, 0600, 0444, 0, 0222, 01777, 02775, 04755, 06777};
    static const mode_t masks[] = {0, 022, 077};
    static const uid_t owners[] = {0, USER, USER, 2000}, groups[] = {0, USER, 2000, (gid_t)-1};
    unsigned all = 0, which;

    for (unsigned i = 0; i < ACTIONS; i++)
        all += actions[i].often;
    which = (unsigned)dice(all);
    for (s->action = actions; which >= s->action->often; s->action++)
        which -= s->action->often;
    choose_path(s->p);
    choose_path(s->q);
    s->uid = dice(3) ? 0 : USER;
    s->owner = owners[dice(4)];
    s->group = groups[dice(4)];
    s->mode = modes[dice(sizeof(modes) / sizeof(modes[0]))];
    s->mask = s->mode & S_ISGID ? 0 : masks[dice(3)];
    s->flags = choose_flags();
    s->slot = (unsigned)dice(SLOTS);
    s->a = (unsigned)dice(1u << 31);
    s->b = (unsigned)dice(1u << 31);
}

/* ---- Doing ---- */

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "names: %s: %s\n", what, strerror(errno));
    exit(2);
}

/* Its directory is all there is, as for nobody who comes later. */
static void enter(const struct side *w)
{
    must(!fchdir(w->root) && !chroot("."), w->path);
}

static void become(uid_t uid)
{
    if (!uid)
        must(!seteuid(0), "seteuid");
    must(!setegid(uid), "setegid");
    if (uid)
        must(!seteuid(uid), "seteuid");
}

static void run(const struct step *s, struct side *w)
{
    w->len = 0;
    w->text[0] = 0;
    enter(w);
    umask(s->mask);
    become(s->uid);
    s->action->run(s, w);
    become(0);
}

/* All that is below, each file with the number that it has here. */
static ino_t seen[8192];
static unsigned nseen;

static void say_file(struct side *w, const char *path, const struct stat *st)
{
    char data[65536];
    int fd = S_ISREG(st->st_mode) ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    unsigned i = 0;
    ssize_t n;

    if (!S_ISDIR(st->st_mode)) {
        while (i < nseen && seen[i] != st->st_ino)
            i++;
        must(i < sizeof(seen) / sizeof(seen[0]), "too many files");
        seen[i] = st->st_ino;
        nseen += i == nseen;
        say(w, " file %u", i);
    }
    if (fd >= 0) {
        n = read(fd, data, sizeof(data));
        say(w, " %lx", n < 0 ? -1l : (long)sum(data, (size_t)n));
        close(fd);
    }
    if (S_ISLNK(st->st_mode) && (n = readlink(path, data, sizeof(data))) >= 0)
        say(w, " %lx", (long)sum(data, (size_t)n));
    if (!cow)
        say_xattrs(w, path);
}

/* Of the directory that we are in. */
static void walk(struct side *w, unsigned depth)
{
    int fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct names *l = calloc(1, sizeof(*l));

    must(fd >= 0 && l && !list(fd, l, NULL), "a directory");
    for (unsigned i = 0; i < l->n; i++) {
        const char *name = l->name[i];
        struct stat st;

        if (!strcmp(name, ".") || !strcmp(name, ".."))
            continue;
        must(!lstat(name, &st), name);
        say(w, "%*s%s", (int)depth, "", name);
        say_stat(w, &st);
        say_file(w, name, &st);
        say(w, "\n");
        if (S_ISDIR(st.st_mode)) {
            must(!chdir(name), name);
            walk(w, depth + 1);
            must(!fchdir(fd), name);
        }
    }
    for (unsigned i = 0; i < l->n; i++)
        free(l->name[i]);
    free(l);
    close(fd);
}

static void do_walk(const struct step *s, struct side *w)
{
    (void)s;
    nseen = 0;
    walk(w, 0);
}

static struct step noted[NOTED];

static void ends(void)
{
    fprintf(stderr, "names: seed %u, step %u:\n", seed, count);
    for (unsigned i = count > NOTED ? count - NOTED : 0; i < count; i++) {
        const struct step *s = &noted[i % NOTED];

        fprintf(stderr, "  %s %.80s %.80s uid %d mode %o mask %o flags %#o slot %u owner %d:%d a %u b %u\n",
                s->action->name, s->p, s->q, s->uid, s->mode, s->mask, s->flags, s->slot, s->owner, s->group, s->a,
                s->b);
    }
    for (int i = 0; i < 2; i++) {
        const char *at = sides[i].text, *other = sides[!i].text, *line = at;

        while (*at && *at == *other) { /* from the line that differs */
            if (*at == '\n')
                line = at + 1;
            at++;
            other++;
        }
        fprintf(stderr, "%s:\n  %.*s\n", sides[i].path, (int)strcspn(line, "\n"), line);
    }
    exit(1);
}

static bool is_by_design(const struct step *s)
{
    for (size_t i = 0; i < sizeof(by_design) / sizeof(by_design[0]); i++)
        if (!strcmp(by_design[i].action, s->action->name) && !strcmp(by_design[i].share, sides[0].text) &&
            by_design[i].when(s)) {
            if (by_design[i].undo && !strcmp(sides[1].text, "0"))
                by_design[i].undo(s); /* we are in there */
            return true;
        }
    return false;
}

static void judge(const struct step *s)
{
    for (int i = 0; i < 2; i++)
        run(s, &sides[i]);
    if (strcmp(sides[0].text, sides[1].text) && !is_by_design(s))
        ends();
}

int main(int argc, char **argv)
{
    const struct step whole = {.action = &(struct action){"walk", 0, do_walk}};

    if (argc != 6)
        return 2;
    cow = !strcmp(argv[1], "cow");
    seed = (unsigned)atoi(argv[4]);
    dice_seed(seed);
    signal(SIGPIPE, SIG_IGN);
    must(!setgroups(0, NULL), "setgroups");
    for (int i = 0; i < 2; i++) {
        struct side *w = &sides[i];

        w->path = argv[2 + i];
        w->root = open(w->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        w->text = malloc(TEXT);
        must(w->root >= 0 && w->text && !fchmod(w->root, 0777), w->path);
        for (int k = 0; k < SLOTS; k++)
            w->fds[k] = -1;
    }
    for (int i = atoi(argv[5]); i > 0; i--) {
        struct step *s = &noted[count++ % NOTED];

        choose(s);
        judge(s);
        if (i % WALK_EACH == 1)
            judge(&whole);
    }
    return 0;
}
