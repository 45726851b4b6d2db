/*
 * A KVM that emulates kernel code gives no sign of it: a kernel just takes hours, or ends at an instruction that is not
 * emulated.  So a guest that still runs after a moment, on a processor that shows no virtualisation, has its host
 * measured, once, on a worker; where kernels cannot run the log says so.  Fast hosts and short guests pay nothing.
 */
#pragma once
#include "vmm/loop/loop.h"

struct slow_host {
    struct lane lane;
    struct timer timer;
    struct work work;
    char text[400]; /* what is wrong; empty: nothing */
};

void slow_host_watch(struct slow_host *s, struct loop *loop);
void slow_host_fini(struct slow_host *s); /* waits for a measurement that is under way */
