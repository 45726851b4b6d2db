#include "devices/net/slirp.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>

#include "vmm/base/log.h"

const struct slirp_hole slirp_holes[] = {
    {"4.8.0", "TFTP server uses memory after it is freed: do without tftp="},
    {"4.9.2", "CVE-2026-9539, TCP urgent pointer reads past a buffer: bothy clears the pointer before"},
    {NULL, NULL},
};

bool slirp_has_hole(const char *version, const struct slirp_hole *hole)
{
    unsigned v[3], f[3];

    if (sscanf(version, "%u.%u.%u", &v[0], &v[1], &v[2]) != 3 ||
        sscanf(hole->fixed, "%u.%u.%u", &f[0], &f[1], &f[2]) != 3)
        return true;
    for (unsigned i = 0; i < 3; i++)
        if (v[i] != f[i])
            return v[i] < f[i];
    return false;
}

/* GLib's, whose headers are needed for nothing else. */
typedef void log_func(const char *domain, int level, const char *message, void *data);
typedef unsigned set_log_func(const char *domain, int levels, log_func *f, void *data);
enum { GLIB_ALL_LEVELS = 0xff };

static void log_of_slirp(const char *domain, int level, const char *message, void *data)
{
    static _Thread_local struct log_limit limit;

    (void)domain, (void)level, (void)data;
    log_guest(&limit, "libslirp: %s", message);
}

static struct {
    pthread_once_t once;
    struct slirp_lib lib;
    struct err err;
} loaded = {.once = PTHREAD_ONCE_INIT};

static void load(void)
{
    void *so = dlopen("libslirp.so.0", RTLD_NOW);
    set_log_func *set_log;

    if (!so) {
        err_set(&loaded.err, ENOENT, "user network: %s; install libslirp0, or choose another network", dlerror());
        return;
    }
#define SLIRP_RESOLVE(name)                                                  \
    loaded.lib.name = (__typeof__(slirp_##name) *)dlsym(so, "slirp_" #name); \
    if (!loaded.lib.name)                                                    \
        err_set(&loaded.err, ENOSYS, "user network: libslirp lacks slirp_%s; install version 4.7 or a newer", #name);
    SLIRP_FUNCTIONS(SLIRP_RESOLVE)
#undef SLIRP_RESOLVE
    set_log = (set_log_func *)dlsym(so, "g_log_set_handler");
    if (set_log)
        set_log("Slirp", GLIB_ALL_LEVELS, log_of_slirp, NULL);
}

int slirp_load(const struct slirp_lib **ret, struct err *err)
{
    pthread_once(&loaded.once, load);
    if (loaded.err.code) {
        *err = loaded.err;
        return -err->code;
    }
    *ret = &loaded.lib;
    return 0;
}
