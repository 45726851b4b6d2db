#include "vmm/inspect/kernel_config.h"

#include <stdlib.h>

#include "firmware/load/ikconfig.h"
#include "vmm/base/cleanup.h"

enum {
    PAGE = 4096,
    IMAGE_MAX = 64 << 20, /* of the kernel's image: code, and behind it the data that is only read */
    HOLE_MAX = 4 << 20,   /* between two parts of it, which are each aligned to 2 MiB; a larger one is its end */
};

char *kernel_config_read(const struct vmcoreinfo *k)
{
    uint8_t *image cleanup_free = xcalloc(1, IMAGE_MAX);
    size_t at = 0, end = 0;
    char *text = NULL;
    uint64_t stext;

    if (!vmcoreinfo_symbol(k, "_stext", &stext))
        return NULL;
    for (stext &= ~(uint64_t)(PAGE - 1); at < IMAGE_MAX && at - end < HOLE_MAX; at += PAGE)
        if (!vmcoreinfo_read(k, stext + at, image + at, PAGE))
            end = at + PAGE;
    return ikconfig_find(image, end, &text) ? NULL : text;
}
