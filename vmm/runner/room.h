/* How much this host can carry at a time. */
#pragma once
#include "vmm/base/base.h"

struct room {
    unsigned cpus;   /* that we may run on */
    uint64_t memory; /* bytes that guests can take without pushing others out; UINT64_MAX: unknown */
};
void room_look(struct room *ret);

/* "MemAvailable:  123 kB" of /proc/meminfo in bytes, UINT64_MAX where there is none. */
uint64_t room_available(const char *meminfo);
