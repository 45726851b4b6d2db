/*
 * qcow2 images (devices/block/qcow2.c): opened, read, checked, mended, written to, with a backing image below.  An
 * image is the first bytes of a file in memory, which cannot grow beyond a limit.
 */
#include "devices/block/qcow2.h"
#include "tools/fuzz/fuzz.h"
#include "vmm/base/cleanup.h"

enum { FILE_MAX = 4 << 20, LOOK = 64 << 10 };

struct mem {
    struct blk b;
    uint8_t *bytes; /* FILE_MAX of them */
};

static int mem_rw(struct blk *b, const struct blk_io *io)
{
    struct mem *m = container_of(b, struct mem, b);

    if (io->op == BLK_FLUSH)
        return 0;
    if (!range_fits(io->off, io->len, FILE_MAX))
        return -ENOSPC;
    if (io->op == BLK_READ)
        iov_put(io->iov, 0, m->bytes + io->off, io->len);
    else if (io->op == BLK_WRITE)
        iov_get(io->iov, 0, m->bytes + io->off, io->len);
    else
        memset(m->bytes + io->off, 0, io->len);
    return 0;
}

static void mem_close(struct blk *b)
{
    free(container_of(b, struct mem, b)->bytes);
}

static const struct blk_driver mem_driver = {
    .name = "mem", .size = sizeof(struct mem), .rw = mem_rw, .close = mem_close};

static struct blk *new_mem(const uint8_t *data, size_t size)
{
    struct blk *b = blk_node(&mem_driver, "image", NULL);
    struct mem *m = container_of(b, struct mem, b);

    m->bytes = xcalloc(1, FILE_MAX);
    memcpy(m->bytes, data, size);
    b->lim = (struct blk_limits){.size = align_up(size, 512), .align = 512, .grows = true};
    return b;
}

/* NULL: refused, with a reason. */
static struct blk *open_image(const uint8_t *data, size_t size, bool read_only, const char *options)
{
    const struct blk_open_opts o = {.read_only = read_only, .no_backing = true};
    struct blk *b = blk_node(&qcow2_driver, "image", NULL);
    struct err err = {0};

    b->file = new_mem(data, size);
    opts_default(qcow2_driver.opts, b);
    if (!opts_parse(qcow2_driver.opts, b, NULL, options, &err) && !qcow2_driver.open(b, &o, &err)) {
        b->backing = new_mem((const uint8_t *)"what is below", 13);
        return b;
    }
    assert(err.code && err.msg[0]);
    blk_close(b);
    return NULL;
}

static void look_at(struct blk *b, uint64_t off)
{
    static uint8_t buf[LOOK];
    struct blk_status status;

    if (off >= b->lim.size)
        return;
    if (!blk_pread(b, buf, min_u64(LOOK, b->lim.size - off), off) &&
        !b->drv->status(b, off, b->lim.size - off, &status))
        assert(status.len);
}

static void check_image(const uint8_t *data, size_t size, enum blk_fix fix)
{
    struct blk *b = open_image(data, size, fix == BLK_FIX_NONE, "repair");
    struct blk_check found;
    struct err err = {0};

    if (b && b->drv->check(b, fix, &found, &err))
        assert(err.code && err.msg[0]);
    blk_close(b);
}

static void write_to(struct blk *b)
{
    uint64_t half = b->lim.size / 2;
    struct err err = {0};
    int rc = 0;

    if (b->lim.size < 512)
        return;
    rc |= blk_pwrite(b, "first", 5, 0);
    rc |= blk_pwrite(b, "last", 4, b->lim.size - 4);
    rc |= blk_flush(b);
    rc |= blk_zero(b, half, min_u64(LOOK, b->lim.size - half), true);
    rc |= blk_discard(b, 0, min_u64(LOOK, b->lim.size));
    rc |= qcow2_snapshot_create(b, "fuzz", &err);
    rc |= blk_pwrite(b, "again", 5, half);
    if (!rc)
        look_at(b, half);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct blk *b;

    if (size > FILE_MAX / 4)
        return 0;
    b = open_image(data, size, true, "");
    if (b) {
        look_at(b, 0);
        look_at(b, b->lim.size / 2);
        look_at(b, b->lim.size - 1);
    }
    blk_close(b);
    check_image(data, size, BLK_FIX_NONE);
    check_image(data, size, BLK_FIX_ALL);
    b = open_image(data, size, false, "");
    if (b)
        write_to(b);
    blk_close(b);
    return 0;
}
