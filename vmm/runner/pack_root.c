#include "vmm/runner/pack_root.h"

#include <fts.h>
#include <limits.h>
#include <sys/stat.h>

#include "firmware/abi/init.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/file.h"
#include "vmm/runner/cpio.h"

#define KERNEL_BYTES MiB(96) /* what a guest needs besides, at the least */

/* The archive and what is unpacked from it are there at the same time. */
static uint64_t memory_for(uint64_t bytes)
{
    return 2 * bytes + KERNEL_BYTES;
}

static int too_large(const struct test_spec *s, uint64_t bytes, struct err *err)
{
    return err_set(err, EFBIG,
                   "root \"%s\" has %llu MiB or more, and the kernel no CONFIG_VIRTIO_FS to have it elsewhere than in "
                   "memory: give it -m %lluM, a smaller --root, or a disk's image",
                   s->root, (unsigned long long)(bytes >> 20), (unsigned long long)(memory_for(bytes) >> 20) + 1);
}

static int pack_file(FILE *f, const FTSENT *e, const char *name, uint64_t max, struct err *err)
{
    const struct stat *st = e->fts_statp;
    char *data cleanup_free = NULL;
    struct cpio_file file = {
        .name = name,
        .mode = st->st_mode,
        /* As virtio-fs has it: who runs bothy is the guest's root. */
        .uid = st->st_uid == geteuid() ? 0 : st->st_uid,
        .gid = st->st_gid == getegid() ? 0 : st->st_gid,
        .mtime = (uint32_t)st->st_mtim.tv_sec,
    };
    size_t n = 0;

    if (S_ISREG(st->st_mode) && file_read(e->fts_accpath, max, &data, &n) < 0)
        return err_file(err, errno, "root", e->fts_path);
    if (S_ISLNK(st->st_mode)) {
        ssize_t len;

        data = xcalloc(1, PATH_MAX);
        len = readlink(e->fts_accpath, data, PATH_MAX);
        if (len < 0)
            return err_file(err, errno, "root", e->fts_path);
        n = (size_t)len;
    }
    file.data = data;
    file.n = (uint32_t)n;
    cpio_put(f, &file);
    return 0;
}

static int pack_entry(FILE *f, const struct test_spec *s, const FTSENT *e, struct err *err)
{
    const uint64_t memory = s->config->memory, room = memory > KERNEL_BYTES ? (memory - KERNEL_BYTES) / 2 : 0;
    uint64_t used = (uint64_t)ftell(f);
    char *name cleanup_free = NULL;

    if (e->fts_info == FTS_DP)
        return 0;
    if (e->fts_info == FTS_DNR || e->fts_info == FTS_ERR || e->fts_info == FTS_NS)
        return err_file(err, e->fts_errno, "root", e->fts_path);
    if (S_ISREG(e->fts_statp->st_mode))
        used += (uint64_t)e->fts_statp->st_size;
    if (used > room || used > UINT32_MAX)
        return too_large(s, used, err);
    if (asprintf(&name, INIT_ROOT "%s", e->fts_path + strlen(s->root)) < 0)
        abort();
    return pack_file(f, e, name, UINT32_MAX, err);
}

int pack_root(FILE *f, const struct test_spec *s, struct err *err)
{
    char *const roots[] = {(char *)s->root, NULL};
    FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    FTSENT *e;
    int r = 0;

    if (!fts)
        return err_file(err, errno, "root", s->root);
    while (r >= 0 && (errno = 0, e = fts_read(fts)))
        r = pack_entry(f, s, e, err);
    if (r >= 0 && errno)
        r = err_file(err, errno, "root", s->root);
    fts_close(fts);
    return r;
}
