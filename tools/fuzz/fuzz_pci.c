/*
 * A guest that does what it likes to a PCI bus: configuration space by function, window and port pair, BARs moved and
 * accessed, guest RAM written, devices stopped, reset, saved and loaded in between.  The input is a list of steps, each
 * an opcode and its operands; what is missing at the end is 0.
 */
#include <stdio.h>
#include <stdlib.h>

#include "devices/pci/pci.h"
#include "devices/testing/probe.h"
#include "devices/virtio/pci.h"
#include "tools/fuzz/fuzz.h"
#include "vmm/base/log.h"

enum { RAM = 4 << 20, SCRATCH = 64 << 10, DEVICES = 6, STEPS = 256, MOVES = 2 }; /* moves take long */

struct input {
    const uint8_t *data;
    size_t left;
    unsigned moves; /* so far */
};

static uint64_t take(struct input *in, unsigned n)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < n && in->left; i++, in->left--)
        v |= (uint64_t)*in->data++ << 8 * i;
    return v;
}

/* Made once: a machine takes longer to make than an input to run.  Each input starts from reset. */
static struct world {
    struct test_env t;
    struct device *dev[DEVICES]; /* the bridge, in slot 0, and others in theirs */
} * world;

static int attach(struct device_env *env, struct virtio *v, struct err *err)
{
    (void)env;
    return virtio_pci_attach(v, -1, err);
}

static struct world *make_world(void)
{
    static struct world w;

    log_set_level(LOG_ERROR);
    test_env_init(&w.t, RAM);
    w.t.env.attach_virtio = attach;
    w.dev[0] = test_env_device(&w.t, "pci-host", "pci", "");
    w.dev[1] = &probe_create(&w.t, "probe")->dev;
    w.dev[2] = test_env_device(&w.t, "virtio-rng", "rng", "");
    w.dev[3] = test_env_device(&w.t, "virtio-balloon", "balloon", "");
    w.dev[4] = test_env_device(&w.t, "virtio-console", "console", "");
    w.dev[5] = test_env_device(&w.t, "virtio-rng", "rng2", "");
    return &w;
}

static void reset_world(struct world *w)
{
    const struct pci_window low = {0xc0000000, MiB(1)}, none = {0};
    struct err err;

    for (unsigned i = 0; i < DEVICES; i++)
        device_reset(w->dev[i]);
    for (unsigned i = 0; i < DEVICES; i++)
        device_settle(w->dev[i]);
    if (pci_bus_assign(w->t.env.pci, low, none, &err) || gmem_zero(w->t.env.mem, 0, SCRATCH))
        assert(!"a machine after reset is as it was");
    for (unsigned i = 0; i < DEVICES; i++)
        device_start(w->dev[i]);
}

/* Somewhere in the memory that a BAR asks for, so that most accesses meet something. */
static uint64_t bar_address(struct world *w, struct input *in)
{
    unsigned slot = take(in, 1) % DEVICES, reg = PCI_BASE_ADDRESS_0 + 4 * (take(in, 1) % PCI_STD_NUM_BARS);
    uint64_t addr = pci_cfg_read(w->t.env.pci, slot, reg, 4);

    if (addr & PCI_BASE_ADDRESS_MEM_TYPE_64)
        addr |= (uint64_t)pci_cfg_read(w->t.env.pci, slot, reg + 4, 4) << 32;
    return (addr & PCI_BASE_ADDRESS_MEM_MASK) + take(in, 2);
}

static unsigned take_size(struct input *in)
{
    return 1 + take(in, 1) % 8;
}

/* What is saved loads again. */
static void move(struct device *d)
{
    struct state_writer s = {0};
    struct state_reader r;
    struct err err;

    device_stop(d);
    device_save(d, &s);
    r = (struct state_reader){.buf = s.buf, .len = s.len};
    if (device_load(d, &r, &err)) {
        fprintf(stderr, "what was saved is refused: %s\n", err.msg);
        abort();
    }
    state_writer_fini(&s);
    device_settle(d);
    device_start(d);
}

static void step(struct world *w, struct input *in)
{
    struct pci_bus *pci = w->t.env.pci;
    struct bus *mmio = w->t.env.mmio, *pio = w->t.env.pio;
    uint64_t addr;
    unsigned slot, off, size;
    uint8_t bytes[8];

    switch (take(in, 1) % 9) {
    case 0:
        slot = take(in, 1) % (DEVICES + 1), off = take(in, 2) % 4096, size = 1 + take(in, 1) % 4;
        pci_cfg_write(pci, slot, off, take(in, 4), size);
        break;
    case 1:
        slot = take(in, 1) % (DEVICES + 1), off = take(in, 2) % 4096, size = 1 + take(in, 1) % 4;
        pci_cfg_read(pci, slot, off, size);
        break;
    case 2:
        addr = bar_address(w, in), size = take_size(in);
        test_env_write(&w->t, mmio, addr, take(in, size), size);
        break;
    case 3:
        addr = bar_address(w, in), size = take_size(in);
        test_env_read(&w->t, mmio, addr, size);
        break;
    case 4: /* the ports, or somewhere in the window */
        addr = take(in, 3), size = take_size(in);
        if (addr & 1)
            test_env_write(&w->t, pio, 0xcf0 + (addr >> 1) % 32, take(in, size), size);
        else
            test_env_write(&w->t, mmio, 0xe0000000 + (addr >> 1) % (DEVICES << 15), take(in, size), size);
        break;
    case 5:
        addr = take(in, 3), size = take_size(in);
        test_env_read(&w->t, addr & 1 ? pio : mmio, addr & 1 ? 0xcf0 + (addr >> 1) % 32 : 0xe0000000 + (addr >> 1),
                      size);
        break;
    case 6:
        addr = take(in, 2) % (SCRATCH - 8);
        put_le64(bytes, take(in, 8));
        if (gmem_write(w->t.env.mem, addr, bytes, sizeof(bytes)))
            assert(!"RAM is there");
        break;
    case 7:
        loop_once(w->t.env.loop, 0);
        break;
    case 8:
        slot = take(in, 1) % DEVICES;
        if (in->moves++ < MOVES)
            move(w->dev[slot]);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size, 0};

    if (!world)
        world = make_world();
    reset_world(world);
    for (unsigned i = 0; i < STEPS && in.left; i++)
        step(world, &in);
    for (unsigned i = 0; i < DEVICES; i++)
        device_stop(world->dev[i]);
    return 0;
}
