/*
 * A guest without KVM, for tests of the stub: two CPUs that stand still in long mode, 1 MiB of RAM, of which the first
 * 2 MiB of linear addresses are an image, and again from FAKE_KERNEL on.
 */
#pragma once
#include "vmm/base/cleanup.h"
#include "vmm/gdb/stub.h"

enum { FAKE_CPUS = 2, FAKE_RAM = 1 << 20, FAKE_PML4 = 0x1000, FAKE_PDPT = 0x2000, FAKE_DIRECTORY = 0x3000 };
#define FAKE_KERNEL 0xffff800000000000ull

struct fake_guest {
    struct gdb_guest guest;
    struct cpu_state cpus[FAKE_CPUS];
    struct vm_debug debug;
};

static inline int fake_get(struct gdb_guest *g, unsigned cpu, struct cpu_state *ret)
{
    assert(cpu < FAKE_CPUS);
    *ret = container_of(g, struct fake_guest, guest)->cpus[cpu];
    return 0;
}

static inline int fake_set(struct gdb_guest *g, unsigned cpu, const struct cpu_state *s)
{
    assert(cpu < FAKE_CPUS);
    container_of(g, struct fake_guest, guest)->cpus[cpu] = *s;
    return 0;
}

static inline void fake_debug(struct gdb_guest *g, const struct vm_debug *d)
{
    assert(d->nhw <= VM_HW_BREAKS && d->nbreaks <= GDB_BREAKS_MAX);
    container_of(g, struct fake_guest, guest)->debug = *d;
}

static inline void fake_guest_init(struct fake_guest *f)
{
    const uint64_t tables[][2] = {{FAKE_PML4, FAKE_PDPT | 3},
                                  {FAKE_PML4 + 8 * 256, FAKE_PDPT | 3},
                                  {FAKE_PDPT, FAKE_DIRECTORY | 3},
                                  {FAKE_DIRECTORY, 0x80 | 3}};

    *f = (struct fake_guest){.guest = {.ncpus = FAKE_CPUS, .get = fake_get, .set = fake_set, .debug = fake_debug}};
    if (gmem_create(FAKE_RAM, GMEM_ANON, 0, &f->guest.mem, NULL))
        abort();
    for (size_t i = 0; i < array_len(tables); i++)
        if (gmem_write(f->guest.mem, tables[i][0], &tables[i][1], 8))
            abort();
    for (unsigned i = 0; i < FAKE_CPUS; i++)
        f->cpus[i] =
            (struct cpu_state){.cr0 = 0x80000001, .cr3 = FAKE_PML4, .cr4 = 0x20, .efer = 0x500, .rip = 0x100 + i};
}

static inline void fake_guest_fini(struct fake_guest *f)
{
    gmem_destroy(f->guest.mem);
}

/* Nobody debugs it. */
static inline bool fake_guest_is_clean(const struct fake_guest *f)
{
    return !f->debug.on && !f->debug.nbreaks && !f->debug.nhw;
}
