/*
 * What can be asked of a running machine: one table of commands of its own, and those of its devices' classes, as
 * "disk0.resize".  A request is a JSON object: {"command": "disk0.resize", "size": "20G"}.  The answer is
 * {"result": {…}} or {"error": "one line"}.
 */
#pragma once
#include <jansson.h>

#include "vmm/machine/machine.h"

/* Does what `line` says; the answer's text without a newline, the caller's.  Main thread, no lane held. */
char *command_answer(struct machine *m, const char *line, size_t n) must_check;
