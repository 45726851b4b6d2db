#include "vmm/cli/test_progress.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

void progress_init(struct progress *p)
{
    const char *term = getenv("TERM");

    *p = (struct progress){.live = isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0};
}

void progress_clear(struct progress *p)
{
    struct winsize size = {.ws_row = 24, .ws_col = 80};

    if (!p->live)
        return;
    if (p->drawn)
        fprintf(stderr, "\033[%uA\033[J", p->drawn); /* up, and clear to the end */
    fflush(stderr);
    p->drawn = 0;
    ioctl(STDERR_FILENO, TIOCGWINSZ, &size);
    p->width = size.ws_col > 1 ? size.ws_col - 1u : 79;
    p->height = size.ws_row > 1 ? size.ws_row - 1u : 23;
}

void progress_line(struct progress *p, const char *fmt, ...)
{
    char line[512];
    va_list ap;

    if (!p->live || p->drawn == p->height)
        return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    fprintf(stderr, "%.*s\n", (int)p->width, line);
    p->drawn++;
}
