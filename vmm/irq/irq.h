/*
 * The near ends of interrupt wires and of MSIs.  What stands at the far end (KVM's irqchip, or a recorder in a unit
 * test) is not a device's business.
 */
#pragma once
#include <pthread.h>

#include "vmm/base/base.h"

/* One wire, a value: copy it freely. */
struct irq {
    void (*set)(void *far, unsigned pin, bool level);
    void *far;
    unsigned pin;
};

/* Any thread, any lane held. */
static inline void irq_set(struct irq q, bool level)
{
    if (q.set)
        q.set(q.far, q.pin, level);
}

/*
 * A shared, level-triggered line: the OR of up to 32 inputs.  It passes on changes only, so devices may set their level
 * as often as they like without a system call each time.
 */
struct irq_or {
    struct irq out;
    pthread_mutex_t lock;
    uint32_t high; /* inputs that are up */
    unsigned ninputs;
};
void irq_or_init(struct irq_or *o, struct irq out);
/* The next free input.  Set-up only; asserts that there is one. */
struct irq irq_or_input(struct irq_or *o);
/* All inputs low, without telling the far end, which was reset as well. */
void irq_or_reset(struct irq_or *o);

struct msi {
    uint64_t addr;
    uint32_t data;
};

/* Whoever delivers MSIs.  Any thread, any lane held. */
struct msi_sink {
    void (*send)(struct msi_sink *s, struct msi m);
    /*
     * For signals that come from the host's kernel: the eventfd's next ones are `m`, and leave it, until unwire(),
     * which comes before it is closed and before the machine is reset.  0 or -errno; both NULL: cannot.
     */
    int (*wire)(struct msi_sink *s, int fd, struct msi m);
    void (*unwire)(struct msi_sink *s, int fd);
};
