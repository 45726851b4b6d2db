/* All block drivers of this build: the list comes from the meson.build files. */
#include "devices/block/driver.h"

#define BLOCK(name) extern const struct blk_driver name##_driver;
#include "block_list.h"
#undef BLOCK

const struct blk_driver *const blk_drivers[] = {
#define BLOCK(name) &name##_driver,
#include "block_list.h"
#undef BLOCK
    NULL,
};

const struct blk_driver *blk_driver_find(const char *name)
{
    for (const struct blk_driver *const *d = blk_drivers; *d; d++)
        if (!strcmp((*d)->name, name) || ((*d)->alias && !strcmp((*d)->alias, name)))
            return *d;
    return NULL;
}
