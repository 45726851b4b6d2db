/*
 * What a Linux kernel says when something is wrong with it, recognised in its log, line by line.  A splat begins at its
 * first line; the function that is to blame follows in it ("RIP: 0010:f+0x1/0x2"), or is in the first line.
 */
#pragma once
#include "vmm/base/base.h"

enum splat_kind {
    SPLAT_PANIC,
    SPLAT_OOPS,
    SPLAT_BUG,
    SPLAT_WARN,
    SPLAT_KASAN,
    SPLAT_UBSAN,
    SPLAT_LOCKDEP,
    SPLAT_LOCKUP,
    SPLAT_HUNG,
    SPLAT_RCU,
    SPLAT_KINDS
};
extern const char *const splat_names[SPLAT_KINDS + 1]; /* "panic", "oops" …, NULL */

struct splat_watch {
    uint32_t seen;         /* 1 << kind */
    enum splat_kind first; /* of those of `wanted`, if any was seen */
    uint32_t wanted;
    char title[160], function[96]; /* of that; "": not known (yet) */
    bool in_trace;
};
/* A line without its end and without a time stamp, or with one. */
void splat_line(struct splat_watch *w, const char *line);
/* "panic,oops" as bits; "all"; -EINVAL with the word in *bad. */
int splat_kinds(const char *words, uint32_t *ret, char *bad, size_t n);
