/*
 * The control socket: clients on this host, of the same user, send a line and get a line (see command.h).  A client
 * that sends rubbish, leaves at any byte or never reads its answers harms itself only: there are CONTROL_CLIENTS of
 * them at most, each with one line of CONTROL_LINE bytes coming in and one answer going out.
 */
#pragma once
#include "vmm/machine/machine.h"

struct control;

enum { CONTROL_CLIENTS = 8, CONTROL_LINE = 64 << 10 };

/* At the path of the machine's configuration.  Main thread, as the next. */
int control_open(struct machine *m, const char *path, struct control **ret, struct err *err) must_check;
void control_close(struct control *c); /* the socket is removed.  Accepts NULL */
