/* What filters share. */
#include "devices/block/filter.h"

int filter_resize(struct blk *b, uint64_t size, struct err *err)
{
    int rc;

    if (!b->file->drv->resize)
        return err_set(err, EOPNOTSUPP, "%s: format %s cannot be resized", b->name, b->file->drv->name);
    rc = b->file->drv->resize(b->file, size, err);
    b->lim.size = b->file->lim.size;
    return rc;
}
