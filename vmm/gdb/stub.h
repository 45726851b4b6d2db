/*
 * gdb's remote protocol over a guest [gdb manual, appendix E]: threads are CPUs, thread 1 the first.  Pure: what comes
 * in a packet is answered from the guest's memory and registers, and what gdb wants of the machine is handed to the
 * caller.  Memory is by linear address of the CPU that gdb looks at, or physical after `maintenance packet
 * Qqemu.PhyMemMode:1`, as with QEMU.
 */
#pragma once
#include "vmm/cpu/state.h"
#include "vmm/gdb/packet.h"
#include "vmm/kvm/vm.h"
#include "vmm/mem/gmem.h"

enum { GDB_BREAKS_MAX = 256 };

/* The guest, standing still; -errno: it cannot be done. */
struct gdb_guest { /* embedded in its owner */
    struct gmem *mem;
    unsigned ncpus;
    int (*get)(struct gdb_guest *g, unsigned cpu, struct cpu_state *ret);
    int (*set)(struct gdb_guest *g, unsigned cpu, const struct cpu_state *s);
    void (*debug)(struct gdb_guest *g, const struct vm_debug *d);
};

/* What the machine shall do after a packet. */
enum gdb_wish { GDB_STAY, GDB_RESUME /* by `plans` */, GDB_DETACH, GDB_KILL };

struct gdb_break {
    uint64_t addr;
    gpa_t at; /* where that was when it was set */
    uint8_t was;
};

struct gdb_stub {
    struct gdb_guest *guest; /* borrowed */
    char *xml;
    enum vm_plan *plans; /* of each CPU */
    unsigned cpu;        /* that gdb looks at */
    unsigned listed;     /* of the CPUs, to gdb's question for threads */
    bool physical, no_ack;
    char why[64]; /* it stands still: the answer to "?" */
    struct vm_debug debug;
    uint64_t addrs[GDB_BREAKS_MAX]; /* of `breaks`, for `debug` */
    struct gdb_break breaks[GDB_BREAKS_MAX];
    unsigned nbreaks;
};

void gdb_stub_init(struct gdb_stub *s, struct gdb_guest *guest);
/* The guest is as if nobody had debugged it; standing still. */
void gdb_stub_fini(struct gdb_stub *s);
/* One packet, which ends with a zero byte behind its n; with GDB_RESUME there is no answer yet. */
enum gdb_wish gdb_stub_packet(struct gdb_stub *s, const char *payload, size_t n, struct gdb_reply *reply);
/* It has stopped, or stands still from the start: `cpu` for the reason `hit`; VM_HIT_NONE: it was asked to. */
void gdb_stub_stopped(struct gdb_stub *s, unsigned cpu, struct vm_hit hit, struct gdb_reply *reply);
