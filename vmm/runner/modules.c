#include "vmm/runner/modules.h"

#include <stdio.h>

#include "firmware/load/payload.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/file.h"

enum { DEP_MAX = 16 << 20, DEPTH_MAX = 16 };

/* What is installed has modules.order as well. */
static bool has(const char *dir, const char *name)
{
    char *path cleanup_free = NULL;

    if (asprintf(&path, "%s/%s", dir, name) < 0)
        abort();
    return !access(path, F_OK);
}

bool modules_in_build_tree(const char *dir)
{
    return has(dir, "include/config/kernel.release") && has(dir, "modules.order");
}

int modules_open(struct modules *m, const char *dir, struct err *err)
{
    char *dep cleanup_free = NULL, *builtin cleanup_free = NULL, *order cleanup_free = NULL;
    size_t n;

    *m = (struct modules){.dir = dir, .tree = modules_in_build_tree(dir)};
    if (asprintf(&dep, "%s/modules.dep", dir) < 0 || asprintf(&builtin, "%s/modules.builtin", dir) < 0 ||
        asprintf(&order, "%s/modules.order", dir) < 0)
        abort();
    if (m->tree || file_read(dep, DEP_MAX, &m->dep, &n) < 0) {
        if (file_read(order, DEP_MAX, &m->order, &n) < 0)
            return err_set(err, errno,
                           "modules \"%s\": neither modules.dep nor modules.order: %s; give --modules a kernel's "
                           "lib/modules/VERSION or build tree",
                           dir, strerror(errno));
        m->dep = xstrdup("");
    }
    if (file_read(builtin, DEP_MAX, &m->builtin, &n) < 0)
        m->builtin = xstrdup(""); /* old kernels have none */
    return 0;
}

void modules_close(struct modules *m)
{
    free(m->dep);
    free(m->order);
    free(m->builtin);
    *m = (struct modules){0};
}

/* The name in a path: up to `ending`, where '-' and '_' are the same. */
static bool is_named(const char *path, size_t len, const char *name, const char *ending)
{
    const char *base = memrchr(path, '/', len);
    size_t n = strlen(name);

    base = base ? base + 1 : path;
    if ((size_t)(path + len - base) < n + strlen(ending) || memcmp(base + n, ending, strlen(ending)) != 0)
        return false;
    for (size_t i = 0; i < n; i++)
        if (base[i] != name[i] && !(strchr("-_", base[i]) && strchr("-_", name[i])))
            return false;
    return true;
}

static int put(struct module_list *list, const char *path, size_t len, struct err *err)
{
    for (unsigned i = 0; i < list->n; i++)
        if (list->len[i] == len && !memcmp(list->paths[i], path, len))
            return 0;
    if (list->n == MODULES_MAX)
        return err_set(err, E2BIG, "modules.dep wants more than %d modules loaded; is it damaged?", MODULES_MAX);
    list->paths[list->n] = path;
    list->len[list->n++] = len;
    return 0;
}

/* A line is "PATH: NEEDED…", each of which comes before what it needs itself. */
static int put_line(struct module_list *list, const char *line, size_t len, struct err *err)
{
    const char *end = line + len;
    int r = 0;

    while (end > line && r >= 0) {
        const char *start = end;

        while (start > line && start[-1] != ' ')
            start--;
        if (end > start)
            r = put(list, start, (size_t)(end - start) - (end[-1] == ':'), err);
        end = start - (start > line);
    }
    return r;
}

/* In modules.order: "kernel/fs/fuse/fuse.ko" or, in newer trees, "fs/fuse/fuse.o"; false: not there. */
static bool find_ordered(const struct modules *m, const char *name, const char **path, size_t *len)
{
    for (const char *line = m->order; *line;) {
        size_t n = strcspn(line, "\n");

        if (is_named(line, n, name, ".ko") || is_named(line, n, name, ".o")) {
            size_t skip = m->tree && !strncmp(line, "kernel/", 7) ? 7 : 0;

            *path = line + skip;
            *len = (size_t)((const char *)memrchr(line, '.', n) - *path);
            return true;
        }
        line += n + (line[n] == '\n');
    }
    return false;
}

static int read_file(const struct modules *m, const char *path, size_t n, uint8_t **ret, size_t *size, struct err *err);

/* A built module names what it needs in a string of its own: "depends=a,b". */
static int need_built(const struct modules *m, const char *name, struct module_list *list, unsigned depth,
                      struct err *err)
{
    static const char mark[] = "\0depends=";
    uint8_t *data cleanup_free = NULL;
    const char *path, *at, *end;
    size_t len, size;
    int r;

    if (!find_ordered(m, name, &path, &len))
        return -ENOENT;
    if (depth == DEPTH_MAX)
        return err_set(err, ELOOP, "module %s: too many modules need each other; build them anew", name);
    r = read_file(m, path, len, &data, &size, err);
    if (r < 0)
        return r;
    at = memmem(data, size, mark, sizeof(mark) - 1);
    end = at ? at + sizeof(mark) - 1 : NULL;
    while (end && *end && r >= 0) { /* the data has a NUL behind it */
        char needed[64];

        at = end + (*end == ',');
        end = at + strcspn(at, ",");
        snprintf(needed, sizeof(needed), "%.*s", (int)min_u64((uint64_t)(end - at), sizeof(needed)), at);
        r = need_built(m, needed, list, depth + 1, err);
        if (r == -ENOENT)
            r = err_set(err, ENOEXEC, "module %s needs %s, which modules.order has not; build the modules anew", name,
                        needed);
    }
    return r < 0 ? r : put(list, path, len, err);
}

int modules_need(const struct modules *m, const char *name, struct module_list *list, struct err *err)
{
    const char *texts[] = {m->dep, m->builtin};
    int r = m->order ? need_built(m, name, list, 0, err) : -ENOENT;

    if (r != -ENOENT)
        return r;
    for (unsigned i = 0; i < array_len(texts); i++)
        for (const char *line = texts[i]; *line;) {
            size_t len = strcspn(line, "\n");

            if (is_named(line, strcspn(line, ":\n"), name, ".ko"))
                return i == 0 ? put_line(list, line, len, err) : 0;
            line += len + (line[len] == '\n');
        }
    return err_set(err, ENOENT, "%s: neither a module nor built in", name);
}

static bool is_elf(const uint8_t *p, size_t n)
{
    return n > 4 && !memcmp(p, "\177ELF", 4);
}

/* modules.order does not tell how they are compressed. */
static char *path_of(const struct modules *m, const char *file, size_t n)
{
    static const char *const endings[] = {".ko", ".ko.xz", ".ko.zst", ".ko.gz"};
    char *path = NULL;

    for (size_t i = 0; i < (m->order ? array_len(endings) : 1); i++) {
        free(path);
        if (asprintf(&path, "%s/%.*s%s", m->dir, (int)n, file, m->order ? endings[i] : "") < 0)
            abort();
        if (!access(path, F_OK))
            break;
    }
    return path;
}

static int read_file(const struct modules *m, const char *file, size_t file_len, uint8_t **ret, size_t *n,
                     struct err *err)
{
    char *path cleanup_free = path_of(m, file, file_len), *data cleanup_free = NULL;
    struct buf out cleanup_buf = {0};
    size_t len;
    int r;

    if (file_read(path, MODULE_BYTES_MAX, &data, &len) < 0)
        return err_file(err, errno, "module", path);
    if (is_elf((uint8_t *)data, len)) {
        *ret = (uint8_t *)take_ptr(data);
        *n = len;
        return 0;
    }
    r = payload_decompress((uint8_t *)data, len, MODULE_BYTES_MAX, &out, &len);
    if (r < 0 || !is_elf(out.p, len))
        return err_set(err, r < 0 ? -r : ENOEXEC,
                       "module \"%s\": neither a module nor compressed in a way that this "
                       "bothy knows; bothy doctor lists what it was built with",
                       path);
    *ret = xcalloc(1, len + 1);
    memcpy(*ret, out.p, len);
    *n = len;
    return 0;
}

int modules_read(const struct modules *m, const struct module_list *list, unsigned at, uint8_t **ret, size_t *n,
                 struct err *err)
{
    return read_file(m, list->paths[at], list->len[at], ret, n, err);
}

void module_name(const struct module_list *list, unsigned at, char *ret, size_t size)
{
    const char *path = list->paths[at], *base = memrchr(path, '/', list->len[at]);
    size_t n;

    base = base ? base + 1 : path;
    n = (size_t)min_u64((size_t)(path + list->len[at] - base), size - 1);
    memcpy(ret, base, n);
    ret[n] = 0;
    ret[strcspn(ret, ".")] = 0;
}
