/* CPU features by the names that Linux prints in /proc/cpuinfo. */
#pragma once
#include "vmm/cpu/cpuid.h"

struct cpu_feature {
    uint32_t fn, idx;
    enum cpuid_reg reg;
    unsigned bit;
};

/* A name may stand for several bits: the n-th of them, from 0, until false. */
bool cpu_feature_find(const char *name, unsigned n, struct cpu_feature *ret);
/* The known name that `text` probably meant, in `buf`; NULL when none is near. */
const char *cpu_feature_nearest(const char *text, char *buf, size_t n);
