#include "vmm/runner/cpio.h"

enum { CPIO_ALIGN = 4 };

static void pad(FILE *f)
{
    while (ftell(f) % CPIO_ALIGN > 0)
        fputc(0, f);
}

void cpio_put(FILE *f, const struct cpio_file *file)
{
    /* Inode, mode, owner, group, links, time, size, device and device number, length of the name, no checksum. */
    fprintf(f, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s", 0, file->mode, file->uid, file->gid, 1,
            file->mtime, file->n, 0, 0, 0, 0, (unsigned)strlen(file->name) + 1, 0, file->name);
    fputc(0, f);
    pad(f);
    if (file->n)
        fwrite(file->data, 1, file->n, f);
    pad(f);
}

void cpio_add(FILE *f, const char *name, uint32_t mode, const void *data, uint32_t n)
{
    cpio_put(f, &(struct cpio_file){.name = name, .mode = mode, .data = data, .n = n});
}

void cpio_end(FILE *f)
{
    cpio_add(f, "TRAILER!!!", 0, NULL, 0);
}
