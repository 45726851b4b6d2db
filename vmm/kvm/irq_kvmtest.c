/* Interrupts of the engine: lines, levels, messages. */
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/kvm/engine_rig.h"

enum { GUEST_IDT = 0x6000, GUEST_IDTR = 0x5000, GUEST_ENTRY = 0x5010, VECTOR = 0x40, PIN = 5 };

/*
 * Takes vector 0x40; the I/O APIC's entry of pin 5 is at GUEST_ENTRY.  The handler does not return but waits for the
 * next interrupt itself, since KVM's emulator, which some hosts run all this by, has no IRET for protected mode.
 */
CODE(
    code_irq, 32,
    "jmp 1f\n"
    ".balign 16\n" /* the handler: CODE_AT + 16 */
    "out %al, $0x11\n movl $0, 0xfee000b0\n jmp 2f\n"
    "1: mov $0xff, %al\n out %al, $0x21\n out %al, $0xa1\n" /* where there are i8259s: they are wired to the CPU, too */
    "lidt 0x5000\n movl $0x1ff, 0xfee000f0\n"
    "movl $0x1b, 0xfec00000\n movl $0, 0xfec00010\n"
    "movl $0x1a, 0xfec00000\n mov 0x5010, %eax\n mov %eax, 0xfec00010\n"
    "out %al, $0x10\n"
    "2: mov $0x5ff0, %esp\n sti\n"
    "3: hlt\n jmp 3b");

static void load_irq_guest(struct guest *g, uint32_t entry)
{
    /* A 32-bit interrupt gate, code segment 0x10. */
    const uint64_t gate = (CODE_AT + 16) | 0x10ull << 16 | 0x8e00ull << 32;
    /* Flat code and data, where boot registers say they are: the gate loads code anew. */
    const uint64_t gdt[4] = {0, 0, 0x00cf9b000000ffff, 0x00cf93000000ffff};
    uint8_t idtr[6];

    put_le16(idtr, 8 * 256 - 1);
    put_le32(idtr + 2, GUEST_IDT);
    guest_write(g, GUEST_IDTR, idtr, sizeof(idtr));
    guest_write(g, GUEST_IDT + 8 * VECTOR, &gate, sizeof(gate));
    guest_write(g, GUEST_ENTRY, &entry, sizeof(entry));
    guest_write(g, DATA_AT, gdt, sizeof(gdt));
    g->boot.gdt = DATA_AT;
    LOAD(g, code_irq);
}

static void run_irq_guest(struct guest *g, uint32_t entry, bool pit)
{
    guest_make(g, 1, pit);
    load_irq_guest(g, entry);
    guest_reset(g);
    guest_start(g);
    wait_writes(g, 1);
}

static void edges_wake_a_halted_cpu(struct guest *g, bool pit)
{
    struct irq line;

    run_irq_guest(g, VECTOR, pit);
    line = vm_line(g->vm, PIN);
    for (unsigned i = 0; i < 10; i++) {
        irq_set(line, true);
        wait_writes(g, 2 + i);
        irq_set(line, false);
    }
    guest_stop(g);
    assert_int_equal(g->nwrites, 11);
}

static void a_line_edge_wakes_a_halted_cpu(void **s)
{
    edges_wake_a_halted_cpu(*s, false);
}

static void a_line_edge_wakes_a_halted_cpu_with_pit(void **s)
{
    edges_wake_a_halted_cpu(*s, true);
}

static void lower_on_third(struct guest *g)
{
    if (g->nwrites == 1 + 2)
        irq_set(vm_line(g->vm, PIN), false);
}

/* The handler runs again until its write lowers the line: every EOI has come through. */
static void levels_interrupt_until_lowered(struct guest *g, bool pit)
{
    enum { LEVEL = 1 << 15 };

    g->on_write = lower_on_third;
    run_irq_guest(g, VECTOR | LEVEL, pit);
    irq_set(vm_line(g->vm, PIN), true);
    wait_writes(g, 1 + 3);
    irq_set(vm_line(g->vm, PIN), true);
    wait_writes(g, 1 + 4);
    irq_set(vm_line(g->vm, PIN), false);
    guest_stop(g);
}

static void a_level_interrupts_until_lowered(void **s)
{
    levels_interrupt_until_lowered(*s, false);
}

static void a_level_interrupts_until_lowered_with_pit(void **s)
{
    levels_interrupt_until_lowered(*s, true);
}

static void a_message_interrupts(void **s)
{
    struct guest *g = *s;
    struct msi_sink *sink;

    run_irq_guest(g, 1 << 16, false);
    sink = vm_msi(g->vm);
    for (unsigned i = 0; i < 10; i++) {
        sink->send(sink, (struct msi){VM_LAPIC_BASE, VECTOR});
        wait_writes(g, 2 + i);
    }
    guest_stop(g);
}

/* And lines are lines all the same. */
static void signals_are_messages(struct guest *g, bool pit)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct msi_sink *sink;
    eventfd_t n;

    run_irq_guest(g, VECTOR, pit);
    sink = vm_msi(g->vm);
    assert_int_equal(sink->wire(sink, fd, (struct msi){VM_LAPIC_BASE, VECTOR}), 0);
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(eventfd_write(fd, 1), 0);
        wait_writes(g, 2 + i);
    }
    irq_set(vm_line(g->vm, PIN), true);
    wait_writes(g, 12);
    sink->unwire(sink, fd);
    assert_int_equal(eventfd_write(fd, 1), 0);
    assert_int_equal(eventfd_read(fd, &n), 0); /* it is left to others now */
    guest_stop(g);
    assert_int_equal(g->nwrites, 12);
    close(fd);
}

static void a_signal_is_a_message(void **s)
{
    signals_are_messages(*s, false);
}

static void a_signal_is_a_message_with_pit(void **s)
{
    signals_are_messages(*s, true);
}

static void rubbish_messages_interrupt_nobody(void **s)
{
    struct guest *g = *s;
    uint64_t x = 88172645463325252ull; /* xorshift64, any seed but 0 */
    struct msi_sink *sink;

    run_irq_guest(g, 1 << 16, false);
    sink = vm_msi(g->vm);
    for (unsigned i = 0; i < 2000; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        if (x >> 20 != VM_LAPIC_BASE >> 20)
            sink->send(sink, (struct msi){x, VECTOR});
        sink->send(sink, (struct msi){VM_LAPIC_BASE | (x & 0xfff), 0x700 | VECTOR});
        sink->send(sink, (struct msi){VM_LAPIC_BASE | 0xfe000, VECTOR}); /* there is no CPU 254 */
    }
    sink->send(sink, (struct msi){VM_LAPIC_BASE, VECTOR});
    wait_writes(g, 2);
    guest_stop(g);
    assert_int_equal(g->nwrites, 2);
}

static void reset_is_as_good_as_new(void **s)
{
    struct guest *g = *s;

    run_irq_guest(g, VECTOR | 1 << 15, false);
    irq_set(vm_line(g->vm, PIN), true);
    wait_writes(g, 3);
    guest_stop(g);
    for (unsigned i = 0; i < 20; i++) { /* with the line up, an interrupt in service, APICs programmed */
        load_irq_guest(g, VECTOR);
        guest_reset(g);
        guest_start(g);
        wait_writes(g, 1);
        irq_set(vm_line(g->vm, PIN), true);
        wait_writes(g, 2);
        guest_stop(g);
        assert_int_equal(g->nwrites, 2);
    }
}

/* [PATTERN]: of the tests to run */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(a_line_edge_wakes_a_halted_cpu),
        TEST(a_line_edge_wakes_a_halted_cpu_with_pit),
        TEST(a_level_interrupts_until_lowered),
        TEST(a_level_interrupts_until_lowered_with_pit),
        TEST(a_message_interrupts),
        TEST(a_signal_is_a_message),
        TEST(a_signal_is_a_message_with_pit),
        TEST(rubbish_messages_interrupt_nobody),
        TEST(reset_is_as_good_as_new),
    };
    int rc = guest_tests_begin(argc, argv);

    return rc ? rc : cmocka_run_group_tests(tests, NULL, NULL);
}
