#include "vmm/base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "vmm/base/clock.h"

const char *const log_level_words[] = {
    [LOG_ERROR] = "error", [LOG_WARN] = "warn", [LOG_INFO] = "info", [LOG_DEBUG] = "debug", NULL,
};

/* Set once at start-up, before threads. */
static enum log_level log_level = LOG_WARN;
/* The terminal's mode may change while other threads log. */
static atomic_bool log_raw;

void log_set_level(enum log_level level)
{
    log_level = level;
}

void log_set_raw(bool raw)
{
    atomic_store(&log_raw, raw);
}

void log_msg(enum log_level level, const char *fmt, ...)
{
    char line[600];
    va_list ap;
    size_t n;

    if (level > log_level)
        return;
    n = (size_t)snprintf(line, sizeof(line), "bothy: ");
    va_start(ap, fmt);
    vsnprintf(line + n, sizeof(line) - n - 2, fmt, ap);
    va_end(ap);
    n = strlen(line);
    if (atomic_load(&log_raw))
        line[n++] = '\r';
    line[n++] = '\n';
    if (write(STDERR_FILENO, line, n) < 0)
        return; /* nowhere left to say it */
}

bool log_limit_ok(struct log_limit *l)
{
    uint64_t now = clock_now_ns();

    if (now >= l->next_ns)
        l->used = l->used ? l->used - 1 : 0;
    if (l->used >= LOG_BURST) {
        l->dropped++;
        return false;
    }
    l->used++;
    l->next_ns = now + NS_PER_SEC;
    return true;
}
