#include "vmm/runner/cpio.h"

enum { CPIO_ALIGN = 4 };

static void pad(FILE *f)
{
    while (ftell(f) % CPIO_ALIGN > 0)
        fputc(0, f);
}

void cpio_add(FILE *f, const char *name, uint32_t mode, const void *data, uint32_t n)
{
    /* Inode, mode, owner, group, links, time, size, device and device number, length of the name, no checksum. */
    fprintf(f, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s", 0, mode, 0, 0, 1, 0, n, 0, 0, 0, 0,
            (unsigned)strlen(name) + 1, 0, name);
    fputc(0, f);
    pad(f);
    if (n)
        fwrite(data, 1, n, f);
    pad(f);
}

void cpio_end(FILE *f)
{
    cpio_add(f, "TRAILER!!!", 0, NULL, 0);
}
