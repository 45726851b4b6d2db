/*
 * An I/O APIC: 24 lines in, interrupt messages out [Intel 82093AA data sheet; the EOI register as in version 0x20].
 *
 * KVM could do this in the kernel, together with an i8259 pair that no kernel of today wants.  Ours costs nothing where
 * interrupts are messages, spares each new VM the grace periods that KVM waits out for the other (some 7 ms on Linux
 * 6.18), and lets lines reach CPUs beyond 255.
 */
#pragma once
#include <pthread.h>

#include "vmm/bus/bus.h"
#include "vmm/irq/irq.h"

enum { IOAPIC_PINS = 24, IOAPIC_LEN = 0x100 };

struct ioapic_state {
    uint64_t entry[IOAPIC_PINS]; /* the redirection table */
    uint32_t lines;              /* levels of the pins */
    uint8_t select, id;
};

struct ioapic { /* embedded in its owner */
    struct region region;
    struct msi_sink *out; /* borrowed */
    /*
     * Level-triggered entries have changed: whoever delivers messages must now pass on the EOIs of other vectors than
     * before.  The lock is held; may be NULL.
     */
    void (*level_changed)(struct ioapic *io);
    pthread_mutex_t lock; /* a leaf, but for `out` and `level_changed` */
    struct ioapic_state s;
};

void ioapic_init(struct ioapic *io, struct msi_sink *out, void (*level_changed)(struct ioapic *io));
void ioapic_fini(struct ioapic *io);
/* As at power-on, all lines low; nothing is sent. */
void ioapic_reset(struct ioapic *io);
/* Any thread, any lane held. */
void ioapic_set(struct ioapic *io, unsigned pin, bool level);
/* A CPU has finished with `vector`.  Any thread. */
void ioapic_eoi(struct ioapic *io, uint8_t vector);
/* In level_changed() only: the message of a level-triggered pin; false for an edge-triggered one. */
bool ioapic_level_msi(const struct ioapic *io, unsigned pin, struct msi *ret);
