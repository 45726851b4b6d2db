/*
 * A PCI device for tests: a 32-bit BAR 0 and a 64-bit BAR 2 that answer with a number of their own plus the offset, and
 * MSI-X in BAR 4.
 */
#pragma once
#include "devices/pci/pci.h"
#include "devices/testing/env.h"

enum { PROBE_SMALL = 0x1000, PROBE_LARGE = 0x10000, PROBE_VECTORS = 40 };
enum { PROBE_SMALL_IS = 0x51000000, PROBE_LARGE_IS = 0x1a000000 };

struct probe {
    struct device dev;
    struct pci_func func;
    struct region small, large;
    uint64_t written; /* last */
    unsigned writes;
};

/* In the next free slot; failures end the process. */
struct probe *probe_create(struct test_env *t, const char *id);
extern const struct device_class probe_class;
