/* The control socket: clients on this host, of the same user, send a line and get a line (see command.h). */
#pragma once
#include "vmm/machine/machine.h"

struct control;

/* At the path of the machine's configuration.  Main thread, as the next. */
int control_open(struct machine *m, const char *path, struct control **ret, struct err *err) must_check;
void control_close(struct control *c); /* the socket is removed.  Accepts NULL */
