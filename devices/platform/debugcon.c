/* The debug console that emulators have at port 0xe9: bytes written come out, reads tell that it is there. */
#include "devices/platform/tx.h"
#include "vmm/base/log.h"

struct debugcon {
    struct device dev;
    uint32_t iobase;
    char *spec;
    struct chardev *chardev;
    struct chardev_user user;
    struct region regs;
    struct tx tx;
    struct log_limit limit;
};

static uint64_t debugcon_read(struct region *r, uint64_t off, unsigned size)
{
    (void)r;
    (void)off;
    (void)size;
    return 0xe9;
}

/* The guest cannot be told to wait: what the host does not take is lost. */
static void debugcon_write(struct region *r, uint64_t off, uint64_t val, unsigned size)
{
    struct debugcon *c = container_of(r, struct debugcon, regs);

    (void)off;
    (void)size;
    if (!tx_put(&c->tx, val))
        log_guest(&c->limit, "%s: output lost: nobody reads it", c->dev.id);
}

static const struct region_ops debugcon_ops = {.read = debugcon_read, .write = debugcon_write, .sizes = 1};

static void writable(struct chardev_user *user)
{
    tx_flush(&container_of(user, struct debugcon, user)->tx);
}

static int debugcon_init(struct device *d, struct err *err)
{
    struct debugcon *c = container_of(d, struct debugcon, dev);
    int ret;

    c->regs = (struct region){.name = d->id, .ops = &debugcon_ops, .lane = &d->lane, .len = 1};
    c->user = (struct chardev_user){.writable = writable};
    ret = chardev_open(c->spec, d, &c->chardev, err);
    if (ret)
        return ret;
    tx_init(&c->tx, d, c->chardev);
    chardev_attach(c->chardev, &c->user);
    return bus_map(d->env->pio, &c->regs, c->iobase, err);
}

static void debugcon_fini(struct device *d)
{
    struct debugcon *c = container_of(d, struct debugcon, dev);

    bus_unmap(&c->regs);
    chardev_close(c->chardev);
}

static void debugcon_stop(struct device *d)
{
    tx_finish(&container_of(d, struct debugcon, dev)->tx);
}

static const struct opt debugcon_opts[] = {
    O_U32(struct debugcon, iobase, "iobase", "0xe9", 0, 0xffff, "the port"),
    O_STR(struct debugcon, spec, "chardev", "null", "where the bytes go", .arg = CHARDEV_ARG),
    O_END,
};

const struct device_class platform_debugcon = {
    .name = "debugcon",
    .summary = "debug console, a port that prints",
    .size = DEVICE_SIZE(struct debugcon, dev),
    .opts = debugcon_opts,
    .init = debugcon_init,
    .fini = debugcon_fini,
    .stop = debugcon_stop,
};
