/*
 * Interrupt messages in the form that KVM takes.  Address and data come from the guest (MSI-X tables, I/O APIC
 * entries), so they are judged here, before any ioctl sees them.
 */
#pragma once
#include "vmm/irq/irq.h"

struct irq_msg {
    uint32_t addr_lo, addr_hi, data;
};

/*
 * False when no processor would take the write for an interrupt message: an address outside the local APICs' window, a
 * reserved delivery mode, an exception's vector.  `wide`: address bits 11:5 are bits 14:8 of the APIC id
 * [Documentation/virt/kvm/x86/cpuid.rst, KVM_FEATURE_MSI_EXT_DEST_ID], and KVM wants those in the upper half.
 */
bool irq_msg_from_msi(struct msi m, bool wide, struct irq_msg *ret);
