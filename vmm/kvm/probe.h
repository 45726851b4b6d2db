/*
 * What the KVM of this host offers and how well it runs what kernels are made of.  Some KVMs emulate privileged code
 * instruction by instruction; on those bare guests run, stock kernels do not.
 */
#pragma once
#include "vmm/base/base.h"
#include "vmm/base/err.h"

enum probe_verdict {
    PROBE_KERNELS,    /* stock kernels run here */
    PROBE_SLOW,       /* kernel code is emulated: they may run, at no useful speed */
    PROBE_NO_KERNELS, /* kernel code is emulated, and what kernels need is not */
};

struct probe_cap {
    const char *name;
    int value; /* 0: absent */
    bool required;
};

enum { PROBE_CAPS_MAX = 64, PROBE_INSNS_MAX = 16 };
struct probe {
    unsigned ncaps;
    struct probe_cap caps[PROBE_CAPS_MAX];
    /* Instructions a second in a loop at privilege level 0 and 3, measured for a few hundredths of a second each. */
    uint64_t level0, level3;
    unsigned nmissing;
    const char *missing[PROBE_INSNS_MAX]; /* instructions of kernels that do not run at level 0 */
};

/* Fails as vm_create() does.  Any thread; needs no machine. */
int probe_run(struct probe *ret, struct err *err) must_check;
/* Both pure.  The text is one line: what is wrong and what to do, or that all is well. */
enum probe_verdict probe_judge(const struct probe *p);
void probe_explain(const struct probe *p, char *text, size_t n);
