/* Lines at the end of standard error that are drawn anew while things go on, where that is a terminal. */
#pragma once
#include "vmm/base/base.h"

struct progress {
    bool live; /* else nothing is ever drawn */
    unsigned drawn, width, height;
};

void progress_init(struct progress *p);
/* The lines go: before anything else is printed, and before they are drawn anew. */
void progress_clear(struct progress *p);
/* One more, cut to the terminal's width; none where it is full. */
void progress_line(struct progress *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
