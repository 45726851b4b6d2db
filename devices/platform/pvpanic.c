/* pvpanic: the port at which a guest's kernel says that it crashed [QEMU docs/specs/pvpanic.rst]. */
#include "devices/core/device.h"
#include "vmm/base/log.h"

enum { PANICKED = 1 << 0, CRASH_LOADED = 1 << 1, SHUTDOWN = 1 << 2 };

struct pvpanic {
    struct device dev;
    uint32_t iobase;
    struct region regs;
    struct log_limit limit;
};

static uint64_t pvpanic_read(struct region *r, uint64_t off, unsigned size)
{
    (void)r;
    (void)off;
    (void)size;
    return PANICKED | CRASH_LOADED | SHUTDOWN; /* what we understand */
}

static void pvpanic_write(struct region *r, uint64_t off, uint64_t val, unsigned size)
{
    struct pvpanic *p = container_of(r, struct pvpanic, regs);
    struct device_env *env = p->dev.env;

    (void)off;
    (void)size;
    if (val & PANICKED) {
        log_guest(&p->limit, "%s: the guest says that it crashed", p->dev.id);
        env->request(env, REQ_CRASHED, 0);
    } else if (val & CRASH_LOADED) { /* it goes on: its crash kernel starts */
        log_guest(&p->limit, "%s: the guest crashed and starts its crash kernel", p->dev.id);
    } else if (val & SHUTDOWN) {
        env->request(env, REQ_POWEROFF, 0);
    }
}

static const struct region_ops pvpanic_ops = {.read = pvpanic_read, .write = pvpanic_write, .sizes = 1};

static int pvpanic_init(struct device *d, struct err *err)
{
    struct pvpanic *p = container_of(d, struct pvpanic, dev);

    p->regs = (struct region){.name = d->id, .ops = &pvpanic_ops, .lane = &d->lane, .len = 1};
    return bus_map(d->env->pio, &p->regs, p->iobase, err);
}

static void pvpanic_fini(struct device *d)
{
    bus_unmap(&container_of(d, struct pvpanic, dev)->regs);
}

static const struct opt pvpanic_opts[] = {
    O_U32(struct pvpanic, iobase, "iobase", "0x505", 0, 0xffff, "the port"),
    O_END,
};

const struct device_class platform_pvpanic = {
    .name = "pvpanic",
    .summary = "lets the guest's kernel report that it crashed",
    .size = DEVICE_SIZE(struct pvpanic, dev),
    .opts = pvpanic_opts,
    .internal = true,
    .init = pvpanic_init,
    .fini = pvpanic_fini,
};
