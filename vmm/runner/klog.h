/* The log of a guest's kernel as it comes, by whatever way: when, and why the guest came to its end.  Foreign bytes. */
#pragma once
#include "firmware/abi/init.h"
#include "vmm/base/base.h"

#define KLOG_PANIC "Kernel panic - not syncing"

struct klog {
    char told[INIT_LINE_MAX]; /* the first line that says why; "": none has */
    int64_t usec;             /* when the last line was written, by its stamp */
    char line[INIT_LINE_MAX]; /* private: so far */
    size_t n;
};

/* Into one that was all zeroes at first. */
void klog_feed(struct klog *k, const char *bytes, size_t n);
/* What can be done about what k->told says; "": nothing that is known. */
const char *klog_hint(const struct klog *k);
/* The kernel's stamp on a line, "[ SECONDS.MICROS]…", in microseconds; INT64_MAX where there is none. */
int64_t klog_usec(const char *line);
