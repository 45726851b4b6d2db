/*
 * The machine: board, devices, memory and engine put together, and the one pair of functions that stops and starts all
 * of it. Reset and every change of the memory map happen between machine_stop() and machine_start(), so nothing below
 * needs reference counts or cancellation.
 *
 * All functions are for the main thread except machine_request().
 */
#pragma once
#include "devices/core/device.h"
#include "vmm/machine/config.h"

struct machine;

/* A resolved config (borrowed for the machine's life).  Devices are made, the kernel is loaded, nothing runs. */
int machine_create(const struct config *c, struct machine **ret, struct err *err) must_check;
void machine_destroy(struct machine *m); /* accepts NULL */
/* Runs the guest until it ends; returns the process's exit code (vmm/base/exit_code.h), or -errno: it did not start. */
int machine_run(struct machine *m, struct err *err) must_check;

/*
 * The guest's own standing still, which lasts until machine_resume(): its clocks stop as well.  `why` NULL: the user
 * wants it; else it is told on standard error, with the way to go on, and kept for machine_status().  Both do nothing
 * when it is so already.
 */
void machine_pause(struct machine *m, const char *why);
int machine_resume(struct machine *m, struct err *err) must_check;

struct machine_status {
    bool paused;
    const char *why;               /* what it was paused for; NULL: the user */
    uint64_t up_ns;                /* on the guest's clock */
    struct device *const *devices; /* in order of creation */
    unsigned ndevices;
    const struct config *config;
    const char *crash; /* what the engine said of CPU `crash_cpu`; NULL: nothing */
    unsigned crash_cpu;
};
/* All borrowed, until the machine changes. */
void machine_status(struct machine *m, struct machine_status *ret);

enum { MACHINE_CAUSES_MAX = 128 };
/* How it came to run, on CLOCK_MONOTONIC, and why its CPUs left the guest since. */
struct machine_profile {
    uint64_t begun_ns, made_ns, loaded_ns, entered_ns;
    struct machine_exits {
        const char *cause; /* a device's name, or KVM's word; borrowed */
        uint64_t n;
    } exits[MACHINE_CAUSES_MAX];
    unsigned nexits;
};
void machine_profile(struct machine *m, struct machine_profile *ret);

void machine_stop(struct machine *m);
int machine_start(struct machine *m, struct err *err) must_check;
/* Stopped only: everything as at power-on, the kernel loaded anew. */
int machine_reset(struct machine *m, struct err *err) must_check;

/*
 * Any thread; acted on by machine_run().  REQ_EXIT ends with `code`.  A CPU that asks for what ends, resets or pauses
 * the guest runs no further.
 */
void machine_request(struct machine *m, enum request r, int code);

/* What is to be done by the main thread with no lane held, where the machine may be stopped and started. */
struct machine_job { /* embedded in its owner */
    void (*run)(struct machine_job *j);
    bool queued;
    struct list link;
};
/* Soon, within machine_run(); once, however often until then.  From the main thread, any lane held. */
void machine_do(struct machine *m, struct machine_job *j);
/* It will not be run any more.  From the main thread. */
void machine_cancel(struct machine *m, struct machine_job *j);
struct loop *machine_loop(struct machine *m);

/* Who looks at the guest from outside.  Called by the main thread, no lane held; each may be NULL. */
struct machine_observer {                       /* embedded in its owner */
    void (*paused)(struct machine_observer *o); /* the machine has been paused, by whomever */
    /* The guest crashed and the machine stands still; true: keep it so, and let the guest end when it is resumed. */
    bool (*crashed)(struct machine_observer *o);
    /* The guest resets itself, and its memory is still there; true: that is a crash. */
    bool (*resets)(struct machine_observer *o);
    struct list link;
};
void machine_observe(struct machine *m, struct machine_observer *o);
void machine_unobserve(struct machine *m, struct machine_observer *o);
/* For those who look: borrowed. */
struct vm *machine_vm(struct machine *m);
struct gmem *machine_memory(struct machine *m);

/* The device tree of a resolved config's board, as a kernel would get it; the caller's to free. */
int machine_device_tree(const struct config *c, uint8_t **ret, size_t *len, struct err *err) must_check;
