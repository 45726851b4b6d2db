/* A guest's memory with a kernel in it that has been found, for tests: what cmocka sets up and takes down. */
#pragma once
#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"
#include "vmm/inspect/fake_kernel.h"
#include "vmm/inspect/symbols.h"

struct fake_world {
    struct gmem *mem;
    struct vmcoreinfo k;
    struct symbols sym;
};

static inline int fake_world_setup(void **s)
{
    struct fake_world *w = xcalloc(1, sizeof(*w));

    w->mem = fake_kernel_create();
    assert_int_equal(vmcoreinfo_find(w->mem, &w->k), 0);
    assert_int_equal(symbols_read(&w->k, &w->sym), 0);
    *s = w;
    return 0;
}

static inline int fake_world_teardown(void **s)
{
    struct fake_world *w = *s;

    symbols_fini(&w->sym);
    vmcoreinfo_fini(&w->k);
    gmem_destroy(w->mem);
    free(w);
    return 0;
}
