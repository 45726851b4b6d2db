/* What guests do that ends in our hands: accesses to buses, doorbells, crashes. */
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/base/cleanup.h"
#include "vmm/kvm/decode.h"
#include "vmm/kvm/engine_rig.h"

CODE(code_ports, 32,
     "in $0x10, %al\n out %al, $0x11\n"
     "in $0x10, %ax\n out %ax, $0x12\n"
     "in $0x10, %eax\n out %eax, $0x14\n"
     "mov $0x300, %dx\n in %dx, %al\n out %al, $0x18\n" /* nobody is there */
     "hlt");

static void ports_have_three_sizes_and_holes_read_ones(void **s)
{
    struct guest *g = *s;

    RUN(g, code_ports);
    wait_writes(g, 4);
    guest_stop(g);
    guest_check_write(g, 0, 0x11, 1, READS & 0xff);
    guest_check_write(g, 1, 0x12, 2, READS & 0xffff);
    guest_check_write(g, 2, 0x14, 4, READS & 0xffffffff);
    guest_check_write(g, 3, 0x18, 1, 0xff);
}

enum { STRING_LEN = 5000, STRING_AT = DATA_AT + 0x0ff3 }; /* across pages, and more than one exit can carry */
CODE(code_string, 32,
     "cld\n mov $0x9ff3, %esi\n mov $5000, %ecx\n mov $0x10, %edx\n rep outsb\n"
     "mov $0xcffe, %edi\n mov $3, %ecx\n mov $0x14, %edx\n rep insl\n"
     "out %al, $0x11\n hlt");

static void strings_of_ports_cross_pages(void **s)
{
    struct guest *g = *s;
    uint8_t text[STRING_LEN], read[14];

    for (unsigned i = 0; i < STRING_LEN; i++)
        text[i] = (uint8_t)(i * 7);
    guest_write(g, STRING_AT, text, sizeof(text));
    RUN(g, code_string);
    wait_writes(g, STRING_LEN + 1);
    guest_stop(g);
    for (unsigned i = 0; i < STRING_LEN; i++)
        guest_check_write(g, i, 0x10, 1, text[i]);
    guest_check_write(g, STRING_LEN, 0x11, 1, g->writes[STRING_LEN].val);
    assert_int_equal(gmem_read(g->mem, 0xcffe, read, sizeof(read)), 0);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(get_le32(read + 4 * i), READS & 0xffffffff);
    assert_int_equal(get_le16(read + 12), 0);
}

CODE(code_mmio, 64,
     "mov $0xd0000000, %ebx\n"
     "mov 8(%rbx), %al\n mov %al, (%rbx)\n"
     "mov 8(%rbx), %ax\n mov %ax, 2(%rbx)\n"
     "mov 8(%rbx), %eax\n mov %eax, 4(%rbx)\n"
     "mov 8(%rbx), %rax\n mov %rax, 8(%rbx)\n"
     "mov $0xe0000000, %ebx\n mov (%rbx), %rax\n mov $0xd0000000, %ebx\n mov %rax, 16(%rbx)\n"
     "hlt");

static void mmio_has_four_sizes_in_long_mode(void **s)
{
    struct guest *g = *s;

    guest_identity_map(g);
    RUN(g, code_mmio);
    wait_writes(g, 5);
    guest_stop(g);
    guest_check_write(g, 0, WINDOW, 1, READS & 0xff);
    guest_check_write(g, 1, WINDOW + 2, 2, READS & 0xffff);
    guest_check_write(g, 2, WINDOW + 4, 4, READS & 0xffffffff);
    guest_check_write(g, 3, WINDOW + 8, 8, READS);
    guest_check_write(g, 4, WINDOW + 16, 8, UINT64_MAX);
}

CODE(code_doorbells, 32,
     "mov $7, %eax\n out %ax, $0x14\n mov $8, %eax\n out %ax, $0x14\n" /* only 7 is a doorbell */
     "mov %al, 0xd0000100\n mov %ax, 0xd0000100\n mov %eax, 0xd0000100\n"
     "mov %eax, 0xd0000104\n"
     "out %al, $0x11\n hlt");

static uint64_t bell_count(int fd)
{
    uint64_t n = 0;

    return read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

static void doorbells_ring_instead_of_exits(void **s)
{
    struct guest *g = *s;
    cleanup_fd int port_fd = eventfd(0, EFD_NONBLOCK), window_fd = eventfd(0, EFD_NONBLOCK);
    struct doorbell port = {.region = &g->ports, .off = 4, .len = 2, .match = true, .value = 7, .fd = port_fd};
    struct doorbell any = {.region = &g->window, .off = 0x100, .fd = window_fd};

    guest_make(g, 1, false);
    LOAD(g, code_doorbells);
    assert_int_equal(vm_doorbell_add(g->vm, &port), 0);
    assert_int_equal(vm_doorbell_add(g->vm, &any), 0);
    for (unsigned round = 0; round < 2; round++) { /* and again after a reset */
        guest_reset(g);
        guest_start(g);
        wait_writes(g, 3);
        guest_stop(g);
        guest_check_write(g, 0, 0x14, 2, 8);
        guest_check_write(g, 1, WINDOW + 0x104, 4, 8);
        guest_check_write(g, 2, 0x11, 1, 8);
        assert_int_equal(bell_count(port_fd), 1);
        assert_int_equal(bell_count(window_fd), 3);
    }
    vm_doorbell_del(g->vm, &port);
    vm_doorbell_del(g->vm, &any);
    vm_doorbell_del(g->vm, &any); /* nothing left to do */
    guest_reset(g);
    guest_start(g);
    wait_writes(g, 7);
    guest_stop(g);
    assert_int_equal(bell_count(port_fd), 0);
    assert_int_equal(bell_count(window_fd), 0);
}

static void doorbells_end_at_a_limit(void **s)
{
    struct guest *g = *s;
    cleanup_fd int fd = eventfd(0, EFD_NONBLOCK);
    struct doorbell d = {.region = &g->window, .len = 4, .match = true, .fd = fd};
    unsigned n;
    int rc = 0;

    guest_make(g, 1, false);
    for (n = 0; !rc && n < 5000; n++) {
        d.value = n;
        rc = vm_doorbell_add(g->vm, &d);
    }
    assert_int_equal(rc, -ENOSPC);
    d.value = 0;
    vm_doorbell_del(g->vm, &d);
    assert_int_equal(vm_doorbell_add(g->vm, &d), 0);
}

/* What the engine says of CPU 0 then; the caller's to free. */
static char *ends_with(struct guest *g, enum vm_event event)
{
    wait_event(g);
    guest_stop(g);
    assert_int_equal(g->event, event);
    return vm_report(g->vm, 0);
}

CODE(code_triple_fault, 32, "mov $0x77, %al\n out %al, $0x10\n lidt 0x5000\n ud2"); /* an IDT of nothing */

static void a_triple_fault_is_an_event(void **s)
{
    struct guest *g = *s;
    char *text cleanup_free = NULL;

    RUN(g, code_triple_fault);
    text = ends_with(g, VM_TRIPLE_FAULT);
    assert_int_equal(g->event_cpu, 0);
    assert_non_null(strstr(text, "CPU 0: triple fault"));
    assert_non_null(strstr(text, "IO write8 0x10 <- 0x77"));
}

/* KVM's emulator has no x87 arithmetic, and must emulate what touches MMIO: this fails on every host. */
CODE(code_unknown_insn, 32, "mov $0x1234abcd, %edi\n fadds 0xd0000000\n hlt");

static void an_emulation_failure_is_reported_with_its_instruction(void **s)
{
    struct guest *g = *s;
    char *text cleanup_free = NULL;

    RUN(g, code_unknown_insn);
    text = ends_with(g, VM_EMULATION_FAILED);
    assert_non_null(strstr(text, "d8 05 00 00 00 d0"));
    assert_non_null(strstr(text, "rdi 000000001234abcd"));
    assert_true(strstr(text, "fadd") || !decode_available());
}

CODE(code_nowhere, 32, "mov $0xe0000000, %eax\n jmp *%eax");

static void code_outside_memory_ends_in_an_event(void **s)
{
    struct guest *g = *s;
    char *text cleanup_free = NULL;

    RUN(g, code_nowhere);
    text = ends_with(g, VM_EMULATION_FAILED);
    assert_non_null(strstr(text, "at e0000000, level 0, 32-bit: no memory there"));
}

static void a_crashed_machine_can_be_reset(void **s)
{
    struct guest *g = *s;

    RUN(g, code_triple_fault);
    wait_event(g);
    guest_stop(g);
    LOAD(g, code_ports);
    guest_reset(g);
    guest_start(g);
    wait_writes(g, 4);
    guest_stop(g);
    assert_int_equal(g->nevents, 0);
}

/* [PATTERN]: of the tests to run */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(ports_have_three_sizes_and_holes_read_ones),
        TEST(strings_of_ports_cross_pages),
        TEST(mmio_has_four_sizes_in_long_mode),
        TEST(doorbells_ring_instead_of_exits),
        TEST(doorbells_end_at_a_limit),
        TEST(a_triple_fault_is_an_event),
        TEST(an_emulation_failure_is_reported_with_its_instruction),
        TEST(code_outside_memory_ends_in_an_event),
        TEST(a_crashed_machine_can_be_reset),
    };
    int rc = guest_tests_begin(argc, argv);

    return rc ? rc : cmocka_run_group_tests(tests, NULL, NULL);
}
