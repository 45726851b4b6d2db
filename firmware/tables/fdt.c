/*
 * A device tree [devicetree 0.4] as Linux for x86 reads it: processors and interrupt controllers have the bindings that
 * began with the CE4100, and devices are looked for on buses of its kinds only.
 */
#include <libfdt.h>
#include <stdio.h>
#include <stdlib.h>

#include "firmware/tables/tables.h"
#include "vmm/base/cleanup.h"

enum {
    IOAPIC_PHANDLE = 1,
    SENSE_LEVEL_HIGH = 2, /* second cell of an interrupt at intel,ce4100-ioapic */
    FIXED_ROOM = 4096,    /* all but what is counted */
    NODE_ROOM = 256,      /* a processor or a device */
};

/* Sequential writing with libfdt: the first error stays. */
struct writer {
    void *fdt;
    int err;
};

static void step(struct writer *w, int err)
{
    if (!w->err)
        w->err = err;
}

static void node(struct writer *w, const char *name)
{
    step(w, fdt_begin_node(w->fdt, name));
}

static void node_at(struct writer *w, const char *name, uint64_t address)
{
    char full[64];

    snprintf(full, sizeof(full), "%s@%llx", name, (unsigned long long)address);
    node(w, full);
}

static void node_end(struct writer *w)
{
    step(w, fdt_end_node(w->fdt));
}

static void cell(struct writer *w, const char *name, uint32_t v)
{
    step(w, fdt_property_u32(w->fdt, name, v));
}

static void flag(struct writer *w, const char *name)
{
    step(w, fdt_property(w->fdt, name, NULL, 0));
}

static void string(struct writer *w, const char *name, const char *s)
{
    step(w, fdt_property_string(w->fdt, name, s));
}

/* #address-cells and #size-cells for the node's children. */
static void cells(struct writer *w, uint32_t address, uint32_t size)
{
    cell(w, "#address-cells", address);
    cell(w, "#size-cells", size);
}

struct range {
    uint64_t base, len;
};

static void reg(struct writer *w, const struct range *r, unsigned n)
{
    uint64_t v[2][2];

    assert(n <= array_len(v));
    for (unsigned i = 0; i < n; i++) {
        v[i][0] = htobe64(r[i].base);
        v[i][1] = htobe64(r[i].len);
    }
    step(w, fdt_property(w->fdt, "reg", v, n * sizeof(v[0])));
}

static void put_cpus(struct writer *w, const struct board_desc *d)
{
    node(w, "cpus");
    cells(w, 1, 0);
    for (unsigned i = 0; i < d->cpus; i++) {
        node_at(w, "cpu", d->apic_ids[i]);
        string(w, "device_type", "cpu");
        cell(w, "reg", d->apic_ids[i]);
        node_end(w);
    }
    node_end(w);
}

static void put_memory(struct writer *w, const struct board_desc *d)
{
    const struct range r[] = {{0, d->ram_low}, {GiB(4), d->ram_high}};

    node_at(w, "memory", 0);
    string(w, "device_type", "memory");
    reg(w, r, d->ram_high ? 2 : 1);
    node_end(w);
}

static void put_bus(struct writer *w, const struct board_desc *d)
{
    static const char bus[] = "intel,ce4100-cp\0simple-bus";

    node(w, "bus");
    step(w, fdt_property(w->fdt, "compatible", bus, sizeof(bus)));
    cells(w, 2, 2);
    flag(w, "ranges");
    cell(w, "interrupt-parent", IOAPIC_PHANDLE);

    node_at(w, "interrupt-controller", d->lapic);
    string(w, "compatible", "intel,ce4100-lapic");
    reg(w, &(struct range){d->lapic, 0x1000}, 1);
    node_end(w);

    node_at(w, "interrupt-controller", d->ioapic);
    string(w, "compatible", "intel,ce4100-ioapic");
    reg(w, &(struct range){d->ioapic, 0x1000}, 1);
    flag(w, "interrupt-controller");
    cell(w, "#interrupt-cells", 2);
    cell(w, "#address-cells", 0);
    cell(w, "phandle", IOAPIC_PHANDLE);
    node_end(w);

    for (unsigned i = 0; i < d->nvirtio_mmio; i++) {
        const uint32_t interrupt[] = {htobe32(d->virtio_mmio[i].gsi), htobe32(SENSE_LEVEL_HIGH)};

        node_at(w, "virtio_mmio", d->virtio_mmio[i].base);
        string(w, "compatible", "virtio,mmio");
        reg(w, &(struct range){d->virtio_mmio[i].base, d->virtio_mmio[i].len}, 1);
        step(w, fdt_property(w->fdt, "interrupts", interrupt, sizeof(interrupt)));
        node_end(w);
    }
    node_end(w);
}

struct blob fdt_build(const struct board_desc *d, const char *cmdline)
{
    struct blob b = {0};
    size_t room = FIXED_ROOM + strlen(cmdline) + NODE_ROOM * (d->cpus + d->nvirtio_mmio);
    struct writer w = {.fdt = blob_insert(&b, 0, room)};

    step(&w, fdt_create(w.fdt, room));
    step(&w, fdt_finish_reservemap(w.fdt));
    node(&w, "");
    cells(&w, 2, 2);
    string(&w, "compatible", "bothy,mmio");
    string(&w, "model", "bothy");
    node(&w, "chosen");
    string(&w, "bootargs", cmdline);
    node_end(&w);
    put_cpus(&w, d);
    put_memory(&w, d);
    put_bus(&w, d);
    node_end(&w);
    step(&w, fdt_finish(w.fdt));
    assert(!w.err); /* there was room for all */
    b.len = fdt_totalsize(w.fdt);
    return b;
}
