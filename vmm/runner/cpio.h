/* Writes a cpio archive as Linux unpacks into its initramfs [Documentation/driver-api/early-userspace/buffer-format].
 */
#pragma once
#include <stdio.h>

#include "vmm/base/base.h"

/* A file or, with S_IFDIR in `mode`, a directory; `f` began with the archive.  Errors stay in `f`. */
void cpio_add(FILE *f, const char *name, uint32_t mode, const void *data, uint32_t n);
void cpio_end(FILE *f);
