#include "devices/testing/probe.h"

#include <stdio.h>
#include <stdlib.h>

static uint64_t small_read(struct region *r, uint64_t off, unsigned size)
{
    (void)r;
    (void)size;
    return PROBE_SMALL_IS + off;
}

static uint64_t large_read(struct region *r, uint64_t off, unsigned size)
{
    (void)r;
    (void)size;
    return PROBE_LARGE_IS + off;
}

static void note(struct probe *p, uint64_t val)
{
    p->written = val;
    p->writes++;
}

static void small_write(struct region *r, uint64_t off, uint64_t val, unsigned size)
{
    (void)off;
    (void)size;
    note(container_of(r, struct probe, small), val);
}

static void large_write(struct region *r, uint64_t off, uint64_t val, unsigned size)
{
    (void)off;
    (void)size;
    note(container_of(r, struct probe, large), val);
}

static const struct region_ops small_ops = {small_read, small_write, 1 | 2 | 4};
static const struct region_ops large_ops = {large_read, large_write, 4};

static int probe_init(struct device *d, struct err *err)
{
    static const struct pci_ids ids = {0x1234, 0x5678, 0x9abc, 0xdef0, 0x0c0330, 7};
    struct probe *p = container_of(d, struct probe, dev);
    int ret = pci_func_init(&p->func, d, -1, &ids, NULL, err);

    if (ret)
        return ret;
    p->small = (struct region){.name = "small", .ops = &small_ops};
    p->large = (struct region){.name = "large", .ops = &large_ops};
    pci_add_bar(&p->func, 0, false, &p->small, PROBE_SMALL);
    pci_add_bar(&p->func, 2, true, &p->large, PROBE_LARGE);
    pci_add_msix(&p->func, 4, PROBE_VECTORS);
    return 0;
}

static void probe_fini(struct device *d)
{
    pci_func_fini(&container_of(d, struct probe, dev)->func);
}

const struct device_class probe_class = {
    .name = "probe",
    .summary = "for tests",
    .size = DEVICE_SIZE(struct probe, dev),
    .init = probe_init,
    .fini = probe_fini,
};

struct probe *probe_create(struct test_env *t, const char *id)
{
    struct device *d;
    struct err err;

    if (device_create(&probe_class, id, "", &d, &err) || device_init(d, &t->env, t->env.loop, &err)) {
        fprintf(stderr, "%s: %s\n", id, err.msg);
        abort();
    }
    device_reset(d);
    device_settle(d);
    return container_of(d, struct probe, dev);
}
