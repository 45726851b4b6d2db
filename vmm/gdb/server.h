/*
 * gdb at a running machine: one debugger at a time, at a unix socket, a TCP port, or a listening socket that the caller
 * left open.  The guest stands still while one is attached, but for what gdb lets it run; it goes on when gdb leaves.
 */
#pragma once
#include "vmm/machine/machine.h"

struct gdb;

/* `where`: "unix:PATH", "[HOST]:PORT" (127.0.0.1 without), "fd:N".  Main thread, as the next. */
int gdb_open(struct machine *m, const char *where, struct gdb **ret, struct err *err) must_check;
/* A debugger is told that the guest ended with `code`.  Accepts NULL. */
void gdb_close(struct gdb *g, int code);
