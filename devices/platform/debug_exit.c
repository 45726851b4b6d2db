/* A port that ends the machine: what a guest writes to it is the exit code that bothy ends with. */
#include "devices/core/device.h"

enum { DEBUG_EXIT_PORTS = 4 };

struct debug_exit {
    struct device dev;
    uint32_t iobase;
    struct region regs;
};

static uint64_t debug_exit_read(struct region *r, uint64_t off, unsigned size)
{
    (void)r;
    (void)off;
    (void)size;
    return UINT64_MAX;
}

static void debug_exit_write(struct region *r, uint64_t off, uint64_t val, unsigned size)
{
    struct device_env *env = container_of(r, struct debug_exit, regs)->dev.env;

    (void)size;
    if (!off)
        env->request(env, REQ_EXIT, val & 0xff);
}

static const struct region_ops debug_exit_ops = {
    .read = debug_exit_read, .write = debug_exit_write, .sizes = 1 | 2 | 4};

static int debug_exit_init(struct device *d, struct err *err)
{
    struct debug_exit *e = container_of(d, struct debug_exit, dev);

    e->regs = (struct region){.name = d->id, .ops = &debug_exit_ops, .lane = &d->lane, .len = DEBUG_EXIT_PORTS};
    return bus_map(d->env->pio, &e->regs, e->iobase, err);
}

static void debug_exit_fini(struct device *d)
{
    bus_unmap(&container_of(d, struct debug_exit, dev)->regs);
}

static const struct opt debug_exit_opts[] = {
    O_U32(struct debug_exit, iobase, "iobase", "0xf4", 0, 0x10000 - DEBUG_EXIT_PORTS,
          "the port; a write there may be 1, 2 or 4 bytes wide"),
    O_END,
};

const struct device_class platform_debug_exit = {
    .name = "debug-exit",
    .summary = "a port that ends bothy with the exit code written to it",
    .size = DEVICE_SIZE(struct debug_exit, dev),
    .opts = debug_exit_opts,
    .internal = true,
    .init = debug_exit_init,
    .fini = debug_exit_fini,
};
