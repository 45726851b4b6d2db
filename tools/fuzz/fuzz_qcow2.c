/*
 * qcow2 images (devices/block/qcow2.c): opened, read, checked, mended, written to, with a backing image below.  An
 * image is the first bytes of a file in memory, which cannot grow beyond a limit.
 */
#include "devices/block/qcow2_int.h"
#include "tools/fuzz/fuzz.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"

enum { FILE_MAX = 1 << 20, PAGE = 4096, LOOK = 64 << 10, L1_MAX = 4096 };

/* One file for all inputs: a new one of this size for each would cost more than all that is done with it. */
static uint8_t bytes[FILE_MAX];
static bool touched[FILE_MAX / PAGE]; /* pages that are perhaps not zero */

static void touch(uint64_t off, uint64_t len)
{
    for (uint64_t page = off / PAGE; page <= (off + len - 1) / PAGE; page++)
        touched[page] = true;
}

static int mem_rw(struct blk *b, const struct blk_io *io)
{
    (void)b;
    if (io->op == BLK_FLUSH)
        return 0;
    if (!range_fits(io->off, io->len, FILE_MAX))
        return -ENOSPC;
    if (io->op == BLK_READ) {
        iov_put(io->iov, 0, bytes + io->off, io->len);
        return 0;
    }
    touch(io->off, io->len);
    if (io->op == BLK_WRITE)
        iov_get(io->iov, 0, bytes + io->off, io->len);
    else
        memset(bytes + io->off, 0, io->len);
    return 0;
}

static void mem_close(struct blk *b)
{
    (void)b;
    for (unsigned page = 0; page < array_len(touched); page++)
        if (touched[page])
            memset(bytes + (size_t)page * PAGE, 0, PAGE);
    memset(touched, 0, sizeof(touched));
}

static const struct blk_driver mem_driver = {
    .name = "mem", .size = sizeof(struct blk), .rw = mem_rw, .close = mem_close};

static struct blk *new_mem(const uint8_t *data, size_t size)
{
    struct blk *b = blk_node(&mem_driver, "image", NULL);

    if (size) {
        memcpy(bytes, data, size);
        touch(0, size);
    }
    b->lim = (struct blk_limits){.size = align_up(size, 512), .align = 512, .grows = true};
    return b;
}

static const char below[512] = "what is below";

static int base_rw(struct blk *b, const struct blk_io *io)
{
    (void)b;
    iov_put(io->iov, 0, below + io->off, io->len);
    return 0;
}

static const struct blk_driver base_driver = {.name = "base", .size = sizeof(struct blk), .rw = base_rw};

static struct blk *new_base(void)
{
    struct blk *b = blk_node(&base_driver, "base", NULL);

    b->lim = (struct blk_limits){.size = sizeof(below), .align = 512, .read_only = true};
    return b;
}

/* NULL: refused, with a reason. */
static struct blk *open_image(const uint8_t *data, size_t size, bool read_only, const char *options)
{
    const struct blk_open_opts o = {.read_only = read_only, .no_backing = true, .keyless = true};
    struct blk *b = blk_node(&qcow2_driver, "image", NULL);
    struct err err = {0};

    b->file = new_mem(data, size);
    opts_default(qcow2_driver.opts, b);
    if (!opts_parse(qcow2_driver.opts, b, NULL, options, &err) && !qcow2_driver.open(b, &o, &err)) {
        b->backing = new_base();
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

/* A table of millions of zeroes tells nothing that one of thousands does not, and takes as long as all other inputs. */
static bool takes_long(const uint8_t *data, size_t size)
{
    uint32_t l1 = size < 40 ? 0 : get_be32(data + 36);

    return l1 > L1_MAX && l1 <= QCOW2_L1_MAX / 8;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct blk *b;

    if (size > FILE_MAX / 4 || takes_long(data, size))
        return 0;
    log_set_level(LOG_ERROR); /* what the check finds would take longer to print than to find */
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
