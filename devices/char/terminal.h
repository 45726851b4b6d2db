/*
 * The terminal that bothy was started on: raw while a guest uses it, and as it was before whenever bothy ends, crashes,
 * is stopped or is in the background.
 *
 * There is one per process, and signal handlers must find it; hence its state is a global, the only one of its kind.
 */
#pragma once
#include "vmm/base/base.h"
#include "vmm/base/err.h"

/*
 * Takes over the terminal `fd` (borrowed), raw if we are in the foreground.  `wake_ret` becomes readable, an eventfd
 * owned here, when its size may have changed or bothy was continued: call terminal_resume() then.  Signals that would
 * end the process (as far as nobody handles them yet) or crash it restore the terminal first.  Set-up.
 */
int terminal_enter(int fd, int *wake_ret, struct err *err) must_check;
/* Gives it back.  No-op when not taken. */
void terminal_leave(void);
/* False while a shell has put us into the background: then it is not ours to read or change.  Else makes it raw. */
bool terminal_resume(void);
