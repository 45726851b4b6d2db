/*
 * One log, to standard error, a line a message: "bothy: disk0: …".  What a guest can trigger is counted and limited, so
 * that a guest can neither flood the log nor slow the host with it.
 */
#pragma once
#include "vmm/base/base.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
extern const char *const log_level_words[]; /* "error", "warn", "info", "debug", NULL: for option tables */

/* Messages above the level are dropped; the default is LOG_WARN.  Called once, before threads start. */
void log_set_level(enum log_level level);
/* Any thread; one write(2) a line.  Lines end in CR LF while the terminal is raw (log_set_raw). */
void log_msg(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void log_set_raw(bool raw);

/* A budget of messages for one cause that a guest can repeat: LOG_BURST at once, then one a second. */
struct log_limit {
    uint64_t next_ns;
    unsigned used;
    unsigned long dropped;
};
enum { LOG_BURST = 5 };
/* True when a message may be printed now.  The caller serialises (a device: its lane). */
bool log_limit_ok(struct log_limit *l);
#define log_guest(limit, ...)               \
    do {                                    \
        if (log_limit_ok(limit))            \
            log_msg(LOG_WARN, __VA_ARGS__); \
    } while (0)
