/* New images: their format, its options, and a name that they get only when they are whole. */
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "devices/block/file.h"
#include "vmm/base/cleanup.h"
#include "vmm/cli/img.h"

/* ---- Format and options. ---- */

const struct blk_driver *img_by_ending(const char *path)
{
    const char *dot = strrchr(path, '.');

    for (const struct blk_driver *const *d = blk_drivers; dot && !strchr(dot, '/') && *d; d++)
        for (const char *const *e = (*d)->endings; e && *e; e++)
            if (!strcasecmp(*e, dot + 1))
                return *d;
    return NULL;
}

int img_bad_format(const char *name, struct err *err)
{
    const char *words[64];
    const char *near;
    char list[256] = "";
    size_t n = 0, len = 0;

    for (const struct blk_driver *const *d = blk_drivers; *d && n < array_len(words) - 1; d++)
        if ((*d)->endings) {
            words[n++] = (*d)->name;
            if (len < sizeof(list))
                len += (size_t)snprintf(list + len, sizeof(list) - len, "%s%s", len ? ", " : "", (*d)->name);
        }
    words[n] = NULL;
    near = nearest_word(name, words);
    if (near)
        return err_set(err, EINVAL, "unknown format \"%s\"; did you mean \"%s\"?", name, near);
    return err_set(err, EINVAL, "unknown format \"%s\"; there is %s", name, list);
}

int img_new_init(struct img_new *n, const char *format, const char *path, struct err *err)
{
    const struct blk_driver *drv = format ? blk_driver_find(format) : img_by_ending(path);

    if (format && (!drv || !drv->endings))
        return img_bad_format(format, err);
    if (!drv)
        drv = blk_driver_find("raw");
    if (!drv->create)
        return err_set(err, ENOTSUP, "images of format %s are only read; make a qcow2 or raw one", drv->name);
    *n = (struct img_new){.drv = drv, .opts = xcalloc(1, drv->create_size)};
    if (drv->create_opts)
        opts_default(drv->create_opts, n->opts);
    return 0;
}

void img_new_fini(struct img_new *n)
{
    if (n->drv && n->drv->create_opts)
        opts_clear(n->drv->create_opts, n->opts);
    free(take_ptr(n->opts));
}

void img_list_options(const char *what, const struct opt *o)
{
    printf("Supported options of %s:\n", what);
    for (; o && o->name; o++) {
        char buf[CLI_ARG_MAX], left[CLI_ARG_MAX + 64];
        const char *arg = cli_arg_name(o, buf, sizeof(buf));

        snprintf(left, sizeof(left), "%s=%s", o->name, arg ? arg : "on|off");
        printf("  %-34s %s%s%s%s\n", left, o->help, o->dflt ? " (default: " : "", o->dflt ? o->dflt : "",
               o->dflt ? ")" : "");
    }
}

int img_new_options(struct img_new *n, const struct opt_list *texts, struct err *err)
{
    if (img_wants_help(texts)) {
        img_list_options(n->drv->name, n->drv->create_opts);
        return 1;
    }
    for (size_t i = 0; i < texts->n; i++) {
        int rc;

        if (!n->drv->create_opts)
            return err_set(err, EINVAL, "-o %s: format %s has no options", texts->v[i], n->drv->name);
        rc = opts_parse(n->drv->create_opts, n->opts, NULL, texts->v[i], err);
        if (rc)
            return err_wrap(err, "-o %s", texts->v[i]);
    }
    return 0;
}

bool img_wants_help(const struct opt_list *texts)
{
    for (size_t i = 0; i < texts->n; i++)
        if (!strcmp(texts->v[i], "help") || !strcmp(texts->v[i], "?"))
            return true;
    return false;
}

const char *img_new_option(const struct img_new *n, const char *name, char buf[IMG_VALUE])
{
    const struct opt *o = n->drv->create_opts ? opts_find(n->drv->create_opts, name) : NULL;

    return o ? opts_get(o, n->opts, buf, IMG_VALUE) : NULL;
}

int img_new_backing(struct img_new *n, const char *name, const char *format, struct err *err)
{
    const struct opt *opts = n->drv->create_opts;
    int rc;

    if (!opts || !opts_find(opts, "backing_file"))
        return err_set(err, ENOTSUP, "images of format %s are not based on others; use qcow2", n->drv->name);
    rc = opts_set(opts, n->opts, "backing_file", name, err);
    if (!rc && format)
        rc = opts_set(opts, n->opts, "backing_fmt", format, err);
    return rc;
}

/* ---- The file. ---- */

/* The name without links at its end, so that the file they lead to is the one replaced. */
static char *resolve(const char *path)
{
    char full[PATH_MAX];

    return xstrdup(realpath(path, full) ? full : path);
}

static void *guard(void *arg)
{
    struct img_target *t = arg;
    sigset_t set;
    int sig;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    if (!sigwait(&set, &sig) && !atomic_load(&t->ending)) {
        unlink(t->temp);
        _exit(EXIT_INTERRUPTED);
    }
    return NULL;
}

/* Signals go to a thread of their own from here on; all others inherit the mask. */
static int start_guard(struct img_target *t, struct err *err)
{
    sigset_t set;
    int rc;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    rc = pthread_create(&t->guard, NULL, guard, t);
    t->guarded = !rc;
    return rc ? err_set(err, rc, "thread: %s", strerror(rc)) : 0;
}

/* What has the name now is locked: a machine that runs from it must not lose it. */
static int lock_old(struct img_target *t, struct err *err)
{
    struct stat st;

    t->old = open(t->path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (t->old < 0)
        return errno == ENOENT ? 0 : err_set(err, errno, "%s: %s", t->path, strerror(errno));
    if (fstat(t->old, &st))
        return err_set(err, errno, "%s: %s", t->path, strerror(errno));
    if (S_ISBLK(st.st_mode)) { /* the block layer locks it itself */
        close(take_fd(&t->old));
        free(take_ptr(t->temp));
        return 0;
    }
    if (!S_ISREG(st.st_mode))
        return err_set(err, EINVAL, "%s is neither a file nor a block device, so it cannot hold an image", t->path);
    return file_lock(t->old, true, t->path, err);
}

int img_target_create(struct img_target *t, const char *path, const struct img_new *n, const struct opt_list *objects,
                      uint64_t size, struct err *err)
{
    struct blk_keys keys cleanup_keys = {0};
    struct blk *file cleanup_blk = NULL;
    struct stat st;
    int rc;

    *t = (struct img_target){.old = -1, .path = resolve(path)};
    if (asprintf(&t->temp, "%s.%ld.part", t->path, (long)getpid()) < 0)
        abort();
    rc = img_keys(objects, &keys, err);
    if (!rc)
        rc = lock_old(t, err);
    if (!rc && t->temp)
        rc = start_guard(t, err);
    if (!rc)
        rc = blk_create_file(img_target_name(t), !t->temp, &file, err);
    if (rc)
        return rc;
    if (t->old >= 0 && !fstat(t->old, &st) && chmod(t->temp, st.st_mode & 0777))
        return err_set(err, errno, "%s: %s", t->temp, strerror(errno));
    free(file->name); /* formats that hold their own name need the one in the end */
    file->name = xstrdup(t->path);
    rc = n->drv->create(file, size, n->opts, &keys, err);
    return rc ? err_wrap(err, "%s", path) : 0;
}

const char *img_target_name(const struct img_target *t)
{
    return t->temp ? t->temp : t->path;
}

int img_target_done(struct img_target *t, struct err *err)
{
    if (!t->temp)
        return 0;
    if (rename(t->temp, t->path))
        return err_set(err, errno, "%s: %s", t->path, strerror(errno));
    t->whole = true;
    return 0;
}

void img_target_fini(struct img_target *t)
{
    if (t->guarded) {
        atomic_store(&t->ending, true);
        pthread_kill(t->guard, SIGHUP);
        pthread_join(t->guard, NULL);
    }
    if (t->temp && !t->whole)
        unlink(t->temp);
    if (t->old >= 0)
        close(t->old);
    free(take_ptr(t->temp));
    free(take_ptr(t->path));
}
