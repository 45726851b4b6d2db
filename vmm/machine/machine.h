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

void machine_stop(struct machine *m);
int machine_start(struct machine *m, struct err *err) must_check;
/* Stopped only: everything as at power-on, the kernel loaded anew. */
int machine_reset(struct machine *m, struct err *err) must_check;

/*
 * Any thread; acted on by machine_run().  REQ_EXIT ends with `code`.  All but REQ_BUTTON end or reset the guest, so
 * that a CPU that asks for it runs no further.
 */
void machine_request(struct machine *m, enum request r, int code);
struct loop *machine_loop(struct machine *m);

/* The device tree of a resolved config's board, as a kernel would get it; the caller's to free. */
int machine_device_tree(const struct config *c, uint8_t **ret, size_t *len, struct err *err) must_check;
