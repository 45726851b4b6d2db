/* Writes a cpio archive as Linux unpacks into its initramfs [Documentation/driver-api/early-userspace/buffer-format].
 */
#pragma once
#include <stdio.h>

#include "vmm/base/base.h"

struct cpio_file {
    const char *name;
    uint32_t mode; /* with S_IFREG, S_IFDIR, S_IFLNK (data: where to) … */
    uint32_t uid, gid, mtime;
    const void *data;
    uint32_t n;
};
/* `f` began with the archive.  Errors stay in `f`. */
void cpio_put(FILE *f, const struct cpio_file *file);
/* A file or directory of root's. */
void cpio_add(FILE *f, const char *name, uint32_t mode, const void *data, uint32_t n);
void cpio_end(FILE *f);
