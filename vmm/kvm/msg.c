/* [Intel SDM vol. 3A, message signalled interrupts] */
#include "vmm/kvm/msg.h"

#include "vmm/kvm/vm.h"

enum { WINDOW_BITS = 20, VECTOR_MIN = 16 };
enum { MODE_FIXED = 0, MODE_LOWEST = 1, MODE_SMI = 2, MODE_NMI = 4, MODE_INIT = 5 };

bool irq_msg_from_msi(struct msi m, bool wide, struct irq_msg *ret)
{
    unsigned vector = m.data & 0xff, mode = m.data >> 8 & 7;
    uint32_t ext_dest = (uint32_t)m.addr >> 5 & 0x7f;

    if (m.addr >> WINDOW_BITS != VM_LAPIC_BASE >> WINDOW_BITS)
        return false;
    switch (mode) {
    case MODE_FIXED:
    case MODE_LOWEST:
        if (vector < VECTOR_MIN)
            return false;
        break;
    case MODE_SMI:
    case MODE_NMI:
    case MODE_INIT:
        break;
    default: /* 3 and 6 are reserved; 7 asks for a vector from an i8259, which has its own wire to the CPU */
        return false;
    }
    *ret = (struct irq_msg){
        .addr_lo = (uint32_t)m.addr & ~(wide ? 0x7fu << 5 : 0),
        .addr_hi = wide ? ext_dest << 8 : 0,
        .data = m.data & 0xffff,
    };
    return true;
}
