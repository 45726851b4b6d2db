/* What each CPU was doing at several moments, and what that says of a guest that hangs. */
#pragma once
#include "vmm/inspect/guest_kernel.h"

enum { SAMPLES_MAX = 5, SAMPLE_PLACES = 8 };

struct sample {
    enum cpu_activity activity;
    bool user, irqs_on;
    unsigned n;
    uint64_t places[SAMPLE_PLACES]; /* the instruction, and who called from where */
};
struct samples {
    unsigned ncpus, n; /* moments */
    struct sample *s;  /* SAMPLES_MAX of each CPU */
};

void samples_init(struct samples *s, unsigned ncpus);
void samples_fini(struct samples *s);
/* One more moment, of at most SAMPLES_MAX; `cpus` stand still. */
void samples_take(struct samples *s, const struct guest_kernel *k, const struct cpu_state *cpus);
/* "CPU 1 spins in f [module] with interrupts off": the CPU that is most likely to be stuck. */
void samples_verdict(const struct samples *s, const struct guest_kernel *k, char *buf, size_t n);
/* What one CPU did, in a line; `trace`: and below it, where it was each time. */
void samples_put(const struct samples *s, const struct guest_kernel *k, unsigned cpu, bool trace, FILE *f);
