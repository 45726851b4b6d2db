/*
 * The kernel's log, read from its ring of records in guest memory, whether any console showed it or not
 * [kernel/printk/printk_ringbuffer.c, since Linux 5.10].  The guest may run meanwhile: a record that changes under the
 * reader's hands is left out, and so is what makes no sense.
 */
#pragma once
#include "vmm/inspect/vmcoreinfo.h"

struct printk_record {
    uint64_t seq, ns;
    char *text; /* `len` bytes and a zero; lines are separated by '\n', other control characters replaced */
    size_t len;
};
struct printk_reader { /* embedded in its owner */
    void (*record)(struct printk_reader *r, const struct printk_record *rec);
    uint64_t next; /* the first seq that is wanted, then that behind the last one read */
    uint64_t id;   /* private: of that last one in the ring */
};
/* All records from r->next on, oldest first.  -ENOTSUP: an older kernel; -EFAULT: its ring is damaged. */
int printk_read(const struct vmcoreinfo *k, struct printk_reader *r) must_check;
