#include "vmm/irq/irq.h"

static void or_set(void *far, unsigned pin, bool level)
{
    struct irq_or *o = far;
    uint32_t was, now;

    /* Most calls change nothing.  An input is one component's, and so has one caller at a time. */
    if ((__atomic_load_n(&o->high, __ATOMIC_RELAXED) >> pin & 1) == level)
        return;
    /* Held while passing on, so that the far end sees changes in the order in which they happened. */
    pthread_mutex_lock(&o->lock);
    was = o->high;
    now = level ? was | 1u << pin : was & ~(1u << pin);
    __atomic_store_n(&o->high, now, __ATOMIC_RELAXED);
    if (!was != !now)
        irq_set(o->out, now);
    pthread_mutex_unlock(&o->lock);
}

void irq_or_init(struct irq_or *o, struct irq out)
{
    *o = (struct irq_or){.out = out};
    pthread_mutex_init(&o->lock, NULL);
}

struct irq irq_or_input(struct irq_or *o)
{
    assert(o->ninputs < 8 * sizeof(o->high));
    return (struct irq){.set = or_set, .far = o, .pin = o->ninputs++};
}

void irq_or_reset(struct irq_or *o)
{
    pthread_mutex_lock(&o->lock);
    __atomic_store_n(&o->high, 0, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&o->lock);
}
