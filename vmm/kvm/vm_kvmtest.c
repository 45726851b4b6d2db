/*
 * The engine on the KVM that is here.  Guests are a few instructions at GUEST_CODE in flat 32-bit mode (or long mode,
 * on tables that we write), and report by ports and MMIO that we watch.  They stay short: some hosts emulate all of
 * this.
 */
#include "vmm/kvm/vm.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"
#include "vmm/kvm/decode.h"
#include "vmm/kvm/probe.h"

enum { RAM = 1 << 20, GUEST_CODE = 0x8000, GUEST_DATA = 0x9000, GUEST_IDT = 0x6000, GUEST_IDTR = 0x5000 };
enum { GUEST_ENTRY = 0x5010, GUEST_STACK = 0x5ff0, GUEST_AP = 0x7000, PML4 = 0x1000, VECTOR = 0x40 };
enum { PORTS = 0x10, PORTS_LEN = 0x10, WINDOW_LEN = 0x1000, PIN = 5, LOG_MAX = 8192, PATIENCE_S = 30 };
#define WINDOW 0xd0000000u
#define READS  0xf1e2d3c4b5a69788ull

/* Machine code between two labels. */
#define GUEST(name, bits, text)                                                                                   \
    extern const uint8_t name[], name##_end[];                                                                    \
    asm(".pushsection .rodata\n.balign 16\n.code" #bits "\n.globl " #name "\n" #name ":\n" text "\n.globl " #name \
        "_end\n" #name "_end:\n.code64\n.popsection\n")

struct access {
    uint64_t addr, val;
    unsigned size;
};

struct guest {
    struct gmem *mem;
    struct bus *pio, *mmio;
    struct vm *vm;
    struct vm_user user;
    struct region ports, window;
    struct vm_boot boot;
    bool running;

    pthread_mutex_t lock; /* what follows */
    pthread_cond_t news;
    unsigned nwrites, nevents;
    struct access writes[LOG_MAX];
    enum vm_event event;
    unsigned event_cpu;
    void (*on_write)(struct guest *g); /* on the CPU's thread, before the write is logged */
};

static uint64_t on_read(struct region *r, uint64_t off, unsigned size)
{
    (void)r, (void)off;
    return mask_bytes(READS, size);
}

static void logged_write(struct guest *g, uint64_t addr, uint64_t val, unsigned size)
{
    if (g->on_write)
        g->on_write(g);
    pthread_mutex_lock(&g->lock);
    if (g->nwrites < LOG_MAX)
        g->writes[g->nwrites] = (struct access){addr, val, size};
    g->nwrites++;
    pthread_cond_broadcast(&g->news);
    pthread_mutex_unlock(&g->lock);
}

static void ports_write(struct region *r, uint64_t off, uint64_t val, unsigned size)
{
    logged_write(container_of(r, struct guest, ports), r->base + off, val, size);
}

static void window_write(struct region *r, uint64_t off, uint64_t val, unsigned size)
{
    logged_write(container_of(r, struct guest, window), r->base + off, val, size);
}

static const struct region_ops ports_ops = {.read = on_read, .write = ports_write, .sizes = 1 | 2 | 4};
static const struct region_ops window_ops = {.read = on_read, .write = window_write, .sizes = 1 | 2 | 4 | 8};

static void on_event(struct vm_user *u, enum vm_event e, unsigned cpu)
{
    struct guest *g = container_of(u, struct guest, user);

    pthread_mutex_lock(&g->lock);
    g->nevents++;
    g->event = e;
    g->event_cpu = cpu;
    pthread_cond_broadcast(&g->news);
    pthread_mutex_unlock(&g->lock);
}

static bool reached(struct guest *g, const unsigned *counter, unsigned n)
{
    struct timespec until;
    bool yes;
    int rc = 0;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S;
    pthread_mutex_lock(&g->lock);
    while (*counter < n && !g->nevents && !rc)
        rc = pthread_cond_timedwait(&g->news, &g->lock, &until);
    yes = *counter >= n;
    pthread_mutex_unlock(&g->lock);
    return yes;
}

/* Fail the test when nothing is heard of the guest. */
#define wait_writes(g, n)                                                                             \
    do {                                                                                              \
        if (!reached(g, &(g)->nwrites, n))                                                            \
            fail_msg("%u writes came, not %u; %u events", (g)->nwrites, (unsigned)(n), (g)->nevents); \
    } while (0)
#define wait_event(g)                      \
    do {                                   \
        if (!reached(g, &(g)->nevents, 1)) \
            fail_msg("no event came");     \
    } while (0)

static void write_ram(struct guest *g, gpa_t at, const void *bytes, size_t n)
{
    assert_int_equal(gmem_write(g->mem, at, bytes, n), 0);
}

static void make(struct guest *g, unsigned cpus, bool pit)
{
    const struct vm_opts opts = {.topology = {1, cpus, 1}, .pit = pit};
    struct err err;

    if (vm_create(&opts, g->mem, g->pio, g->mmio, &g->user, &g->vm, &err))
        fail_msg("%s", err.msg);
}

static void load(struct guest *g, const uint8_t *code, const uint8_t *end)
{
    write_ram(g, GUEST_CODE, code, (size_t)(end - code));
    g->boot.rip = GUEST_CODE;
}
#define LOAD(g, name) load(g, name, name##_end)

static void reset(struct guest *g)
{
    struct err err;

    if (vm_reset(g->vm, &g->boot, &err))
        fail_msg("%s", err.msg);
    g->nwrites = g->nevents = 0;
}

static void start(struct guest *g)
{
    struct err err;

    if (vm_start(g->vm, &err))
        fail_msg("%s", err.msg);
    g->running = true;
}

static void stop(struct guest *g)
{
    vm_stop(g->vm);
    g->running = false;
}

/* One CPU, the code, go. */
#define RUN(g, name)       \
    do {                   \
        make(g, 1, false); \
        LOAD(g, name);     \
        reset(g);          \
        start(g);          \
    } while (0)

static int setup(void **s)
{
    struct guest *g = xcalloc(1, sizeof(*g));
    struct err err;

    if (gmem_create(RAM, GMEM_ANON, 0, &g->mem, &err))
        fail_msg("%s", err.msg);
    g->pio = bus_create("ports", 0x10000);
    g->mmio = bus_create("memory", 1ull << 48);
    g->ports = (struct region){.name = "ports", .ops = &ports_ops, .len = PORTS_LEN};
    g->window = (struct region){.name = "window", .ops = &window_ops, .len = WINDOW_LEN};
    assert_int_equal(bus_map(g->pio, &g->ports, PORTS, NULL), 0);
    assert_int_equal(bus_map(g->mmio, &g->window, WINDOW, NULL), 0);
    g->user.event = on_event;
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->news, NULL);
    *s = g;
    return 0;
}

static int teardown(void **s)
{
    struct guest *g = *s;

    if (g->running) { /* the test failed half-way */
        char *text cleanup_free = NULL;

        stop(g);
        text = vm_report(g->vm, 0);
        fputs(text, stderr);
    }
    vm_destroy(g->vm);
    bus_unmap(&g->ports);
    bus_unmap(&g->window);
    bus_destroy(g->pio);
    bus_destroy(g->mmio);
    gmem_destroy(g->mem);
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->news);
    free(g);
    return 0;
}

static void check_write(const struct guest *g, unsigned i, uint64_t addr, unsigned size, uint64_t val)
{
    assert_int_equal(g->writes[i].addr, addr);
    assert_int_equal(g->writes[i].size, size);
    assert_true(g->writes[i].val == val);
}

GUEST(guest_ports, 32,
      "in $0x10, %al\n out %al, $0x11\n"
      "in $0x10, %ax\n out %ax, $0x12\n"
      "in $0x10, %eax\n out %eax, $0x14\n"
      "mov $0x300, %dx\n in %dx, %al\n out %al, $0x18\n" /* nobody is there */
      "hlt");

static void ports_have_three_sizes_and_holes_read_ones(void **s)
{
    struct guest *g = *s;

    RUN(g, guest_ports);
    wait_writes(g, 4);
    stop(g);
    check_write(g, 0, 0x11, 1, READS & 0xff);
    check_write(g, 1, 0x12, 2, READS & 0xffff);
    check_write(g, 2, 0x14, 4, READS & 0xffffffff);
    check_write(g, 3, 0x18, 1, 0xff);
}

enum { STRING_LEN = 5000, STRING_AT = GUEST_DATA + 0x0ff3 }; /* across pages, and more than one exit can carry */
GUEST(guest_string, 32,
      "cld\n mov $0x9ff3, %esi\n mov $5000, %ecx\n mov $0x10, %edx\n rep outsb\n"
      "mov $0xcffe, %edi\n mov $3, %ecx\n mov $0x14, %edx\n rep insl\n"
      "out %al, $0x11\n hlt");

static void strings_of_ports_cross_pages(void **s)
{
    struct guest *g = *s;
    uint8_t text[STRING_LEN], read[14];

    for (unsigned i = 0; i < STRING_LEN; i++)
        text[i] = (uint8_t)(i * 7);
    write_ram(g, STRING_AT, text, sizeof(text));
    RUN(g, guest_string);
    wait_writes(g, STRING_LEN + 1);
    stop(g);
    for (unsigned i = 0; i < STRING_LEN; i++)
        check_write(g, i, 0x10, 1, text[i]);
    check_write(g, STRING_LEN, 0x11, 1, g->writes[STRING_LEN].val);
    assert_int_equal(gmem_read(g->mem, 0xcffe, read, sizeof(read)), 0);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(get_le32(read + 4 * i), READS & 0xffffffff);
    assert_int_equal(get_le16(read + 12), 0);
}

/* 2 MiB pages: the first GiB and the fourth, where the window and the APICs are, as they are. */
static void identity_map(struct guest *g)
{
    enum { PRESENT_WRITE = 3, LARGE = 1 << 7, PDPT = PML4 + 0x1000, DIRECTORIES = PML4 + 0x2000 };
    uint64_t table[512] = {PDPT | PRESENT_WRITE};

    write_ram(g, PML4, table, sizeof(table));
    table[0] = DIRECTORIES | PRESENT_WRITE;
    table[3] = (DIRECTORIES + 0x1000) | PRESENT_WRITE;
    write_ram(g, PDPT, table, sizeof(table));
    for (unsigned half = 0; half < 2; half++) {
        for (uint64_t i = 0; i < array_len(table); i++)
            table[i] = (half ? GiB(3) : 0) + i * MiB(2) + (LARGE | PRESENT_WRITE);
        write_ram(g, DIRECTORIES + half * 0x1000, table, sizeof(table));
    }
    g->boot.long_mode = true;
    g->boot.cr3 = PML4;
}

GUEST(guest_mmio, 64,
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

    identity_map(g);
    RUN(g, guest_mmio);
    wait_writes(g, 5);
    stop(g);
    check_write(g, 0, WINDOW, 1, READS & 0xff);
    check_write(g, 1, WINDOW + 2, 2, READS & 0xffff);
    check_write(g, 2, WINDOW + 4, 4, READS & 0xffffffff);
    check_write(g, 3, WINDOW + 8, 8, READS);
    check_write(g, 4, WINDOW + 16, 8, UINT64_MAX);
}

/* What the boot protocols promise in registers: RSI, RBX, RAX. */
GUEST(guest_registers, 32,
      "out %eax, $0x10\n mov %ebx, %eax\n out %eax, $0x14\n mov %esi, %eax\n out %eax, $0x18\n hlt");

static void boot_registers_arrive(void **s)
{
    struct guest *g = *s;

    g->boot.rax = 0x2badb002;
    g->boot.rbx = 0x12345678;
    g->boot.rsi = 0x90000;
    RUN(g, guest_registers);
    wait_writes(g, 3);
    stop(g);
    check_write(g, 0, 0x10, 4, 0x2badb002);
    check_write(g, 1, 0x14, 4, 0x12345678);
    check_write(g, 2, 0x18, 4, 0x90000);
}

/*
 * Takes vector 0x40; the I/O APIC's entry of pin 5 is at GUEST_ENTRY.  The handler does not return but waits for the
 * next interrupt itself, since KVM's emulator, which some hosts run all this by, has no IRET for protected mode.
 */
GUEST(
    guest_irq, 32,
    "jmp 1f\n"
    ".balign 16\n" /* the handler: GUEST_CODE + 16 */
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
    const uint64_t gate = (GUEST_CODE + 16) | 0x10ull << 16 | 0x8e00ull << 32;
    /* Flat code and data, where boot registers say they are: the gate loads code anew. */
    const uint64_t gdt[4] = {0, 0, 0x00cf9b000000ffff, 0x00cf93000000ffff};
    uint8_t idtr[6];

    put_le16(idtr, 8 * 256 - 1);
    put_le32(idtr + 2, GUEST_IDT);
    write_ram(g, GUEST_IDTR, idtr, sizeof(idtr));
    write_ram(g, GUEST_IDT + 8 * VECTOR, &gate, sizeof(gate));
    write_ram(g, GUEST_ENTRY, &entry, sizeof(entry));
    write_ram(g, GUEST_DATA, gdt, sizeof(gdt));
    g->boot.gdt = GUEST_DATA;
    LOAD(g, guest_irq);
}

static void run_irq_guest(struct guest *g, uint32_t entry, bool pit)
{
    make(g, 1, pit);
    load_irq_guest(g, entry);
    reset(g);
    start(g);
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
    stop(g);
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
    stop(g);
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
    stop(g);
}

static void a_signal_is_a_message(void **s)
{
    struct guest *g = *s;
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct msi_sink *sink;
    eventfd_t n;

    run_irq_guest(g, 1 << 16, false);
    sink = vm_msi(g->vm);
    assert_int_equal(sink->wire(sink, fd, (struct msi){VM_LAPIC_BASE, VECTOR}), 0);
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(eventfd_write(fd, 1), 0);
        wait_writes(g, 2 + i);
    }
    sink->unwire(sink, fd);
    assert_int_equal(eventfd_write(fd, 1), 0);
    assert_int_equal(eventfd_read(fd, &n), 0); /* it is left to others now */
    stop(g);
    assert_int_equal(g->nwrites, 11);
    close(fd);
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
    stop(g);
    assert_int_equal(g->nwrites, 2);
}

GUEST(guest_doorbells, 32,
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

    make(g, 1, false);
    LOAD(g, guest_doorbells);
    assert_int_equal(vm_doorbell_add(g->vm, &port), 0);
    assert_int_equal(vm_doorbell_add(g->vm, &any), 0);
    for (unsigned round = 0; round < 2; round++) { /* and again after a reset */
        reset(g);
        start(g);
        wait_writes(g, 3);
        stop(g);
        check_write(g, 0, 0x14, 2, 8);
        check_write(g, 1, WINDOW + 0x104, 4, 8);
        check_write(g, 2, 0x11, 1, 8);
        assert_int_equal(bell_count(port_fd), 1);
        assert_int_equal(bell_count(window_fd), 3);
    }
    vm_doorbell_del(g->vm, &port);
    vm_doorbell_del(g->vm, &any);
    vm_doorbell_del(g->vm, &any); /* nothing left to do */
    reset(g);
    start(g);
    wait_writes(g, 7);
    stop(g);
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

    make(g, 1, false);
    for (n = 0; !rc && n < 5000; n++) {
        d.value = n;
        rc = vm_doorbell_add(g->vm, &d);
    }
    assert_int_equal(rc, -ENOSPC);
    d.value = 0;
    vm_doorbell_del(g->vm, &d);
    assert_int_equal(vm_doorbell_add(g->vm, &d), 0);
}

GUEST(guest_triple_fault, 32, "mov $0x77, %al\n out %al, $0x10\n lidt 0x5000\n ud2"); /* an IDT of nothing */

static void a_triple_fault_is_an_event(void **s)
{
    struct guest *g = *s;
    char *text cleanup_free = NULL;

    RUN(g, guest_triple_fault);
    wait_event(g);
    stop(g);
    assert_int_equal(g->event, VM_TRIPLE_FAULT);
    assert_int_equal(g->event_cpu, 0);
    text = vm_report(g->vm, 0);
    assert_non_null(strstr(text, "CPU 0: triple fault"));
    assert_non_null(strstr(text, "IO write8 0x10 <- 0x77"));
}

/* KVM's emulator has no x87 arithmetic, and must emulate what touches MMIO: this fails on every host. */
GUEST(guest_unknown_insn, 32, "mov $0x1234abcd, %edi\n fadds 0xd0000000\n hlt");

static void an_emulation_failure_is_reported_with_its_instruction(void **s)
{
    struct guest *g = *s;
    char *text cleanup_free = NULL;

    RUN(g, guest_unknown_insn);
    wait_event(g);
    stop(g);
    assert_int_equal(g->event, VM_EMULATION_FAILED);
    text = vm_report(g->vm, 0);
    assert_non_null(strstr(text, "d8 05 00 00 00 d0"));
    assert_non_null(strstr(text, "rdi 000000001234abcd"));
    assert_true(strstr(text, "fadd") || !decode_available());
}

GUEST(guest_nowhere, 32, "mov $0xe0000000, %eax\n jmp *%eax");

static void code_outside_memory_ends_in_an_event(void **s)
{
    struct guest *g = *s;
    char *text cleanup_free = NULL;

    RUN(g, guest_nowhere);
    wait_event(g);
    stop(g);
    assert_int_equal(g->event, VM_EMULATION_FAILED);
    text = vm_report(g->vm, 0);
    assert_non_null(strstr(text, "at e0000000, level 0, 32-bit: no memory there"));
}

GUEST(guest_counter, 32, "1: inc %eax\n out %eax, $0x10\n jmp 1b");

static void stops_and_starts_lose_nothing(void **s)
{
    enum { ROUNDS = 1000 };
    struct guest *g = *s;
    unsigned seen = 0;

    RUN(g, guest_counter);
    for (unsigned i = 0; i < ROUNDS; i++) {
        /* Now and then at once, while the thread is still on its way into KVM_RUN. */
        if (i % 4)
            wait_writes(g, seen + 1);
        stop(g);
        seen = g->nwrites;
        start(g);
    }
    stop(g);
    seen = g->nwrites < LOG_MAX ? g->nwrites : LOG_MAX;
    assert_true(seen >= ROUNDS / 4 * 3);
    for (unsigned i = 0; i < seen; i++)
        check_write(g, i, 0x10, 4, i + 1);
}

GUEST(guest_clock, 32, "1: rdtsc\n shrd $20, %edx, %eax\n out %eax, $0x10\n jmp 1b");

/* What passes between two readings of the guest is at most what passed on the host less the pause. */
static void clocks_stand_still_while_it_is_stopped(void **s)
{
    const struct timespec pause = {.tv_nsec = 300000000};
    struct guest *g = *s;
    uint64_t before, stopped, started;
    unsigned seen;

    RUN(g, guest_clock);
    before = __rdtsc();
    pthread_mutex_lock(&g->lock);
    seen = g->nwrites;
    pthread_mutex_unlock(&g->lock);
    wait_writes(g, seen + 2);
    stop(g);
    stopped = __rdtsc();
    seen = g->nwrites;
    nanosleep(&pause, NULL);
    started = __rdtsc();
    start(g);
    wait_writes(g, seen + 1);
    stop(g);
    assert_true(seen < LOG_MAX);
    if (g->writes[0].val >= before >> 20)
        skip(); /* this KVM shows the host's counter as it is, not one that began with the guest */
    assert_in_range(g->writes[seen].val - g->writes[seen - 1].val, 0,
                    ((__rdtsc() - before - (started - stopped)) >> 20) + 1);
}

static void hold(struct guest *g)
{
    vm_hold(g->vm);
}

static void a_held_cpu_runs_no_further_until_it_is_started(void **s)
{
    struct guest *g = *s;

    g->on_write = hold;
    RUN(g, guest_counter);
    for (unsigned i = 1; i <= 100; i++) {
        wait_writes(g, i);
        stop(g);
        assert_int_equal(g->nwrites, i);
        start(g);
    }
    stop(g);
}

/* While all CPUs wait in the kernel: one halted, the others for their INIT. */
static void stops_reach_cpus_that_wait(void **s)
{
    static const uint8_t halt[] = {0xe6, 0x10, 0xf4, 0xeb, 0xfd}; /* out %al, $0x10; 1: hlt; jmp 1b */
    struct guest *g = *s;

    make(g, 4, false);
    load(g, halt, halt + sizeof(halt));
    reset(g);
    for (unsigned i = 0; i < 200; i++) {
        start(g);
        if (!i)
            wait_writes(g, 1);
        stop(g);
    }
    assert_int_equal(g->nwrites, 1);
}

static void reset_is_as_good_as_new(void **s)
{
    struct guest *g = *s;

    run_irq_guest(g, VECTOR | 1 << 15, false);
    irq_set(vm_line(g->vm, PIN), true);
    wait_writes(g, 3);
    stop(g);
    for (unsigned i = 0; i < 20; i++) { /* with the line up, an interrupt in service, APICs programmed */
        load_irq_guest(g, VECTOR);
        reset(g);
        start(g);
        wait_writes(g, 1);
        irq_set(vm_line(g->vm, PIN), true);
        wait_writes(g, 2);
        stop(g);
        assert_int_equal(g->nwrites, 2);
    }
}

static void a_crashed_machine_can_be_reset(void **s)
{
    struct guest *g = *s;

    RUN(g, guest_triple_fault);
    wait_event(g);
    stop(g);
    LOAD(g, guest_ports);
    reset(g);
    start(g);
    wait_writes(g, 4);
    stop(g);
    assert_int_equal(g->nevents, 0);
}

/* The first CPU starts the others by INIT and SIPI, each counts itself, the first tells the sum. */
GUEST(guest_smp, 32,
      "movl $0x1ff, 0xfee000f0\n"
      "movl $0xc4500, 0xfee00300\n"
      "movl $0xc4607, 0xfee00300\n"
      "1: pause\n cmpl $3, 0x9000\n jne 1b\n"
      "mov 0x9000, %eax\n out %eax, $0x10\n hlt");
GUEST(guest_ap, 16, "xor %ax, %ax\n mov %ax, %ds\n lock incl 0x9000\n 1: hlt\n jmp 1b");

static void four_cpus_start(void **s)
{
    struct guest *g = *s;

    make(g, 4, false);
    for (unsigned round = 0; round < 2; round++) {
        const uint32_t zero = 0;

        write_ram(g, GUEST_DATA, &zero, sizeof(zero));
        write_ram(g, GUEST_AP, guest_ap, (size_t)(guest_ap_end - guest_ap));
        LOAD(g, guest_smp);
        reset(g);
        start(g);
        wait_writes(g, 1);
        stop(g);
        check_write(g, 0, 0x10, 4, 3);
    }
}

static void sixty_four_cpus_can_be_made(void **s)
{
    struct guest *g = *s;

    make(g, 64, false);
    LOAD(g, guest_ports);
    reset(g);
    start(g);
    wait_writes(g, 4);
    stop(g);
}

/*
 * x2APIC mode, INIT and SIPI to all others; the last of them gets an NMI by message, whose handler in real mode tells.
 * Ids beyond 255 need all of the wide forms: CPUs made with them, the ICR's 32 bits, the message's extended bits.
 */
enum { MANY_CPUS = 288, GUEST_NMI = 0x7100, NMI_VECTOR_AT = 2 * 4 };
GUEST(guest_many, 32,
      "mov $0x1b, %ecx\n rdmsr\n or $0xc00, %eax\n wrmsr\n"
      "xor %edx, %edx\n mov $0x80f, %ecx\n mov $0x1ff, %eax\n wrmsr\n"
      "mov $0x830, %ecx\n mov $0xc4500, %eax\n wrmsr\n mov $0xc4607, %eax\n wrmsr\n"
      "1: pause\n cmpl $287, 0x9000\n jne 1b\n"
      "out %al, $0x10\n 2: hlt\n jmp 2b");
GUEST(guest_nmi, 16, "mov $0x5a, %al\n out %al, $0x11\n 1: hlt\n jmp 1b");

static void cpus_beyond_255_start_and_get_messages(void **s)
{
    const uint32_t vector = GUEST_NMI, last = MANY_CPUS - 1; /* segment 0 */
    const struct vm_opts opts = {.topology = {1, MANY_CPUS, 1}};
    struct guest *g = *s;
    struct msi_sink *sink;
    struct err err;

    if (vm_create(&opts, g->mem, g->pio, g->mmio, &g->user, &g->vm, &err)) {
        assert_true(err.code == E2BIG || err.code == EOPNOTSUPP);
        print_message("%s\n", err.msg);
        skip();
    }
    write_ram(g, NMI_VECTOR_AT, &vector, sizeof(vector));
    write_ram(g, GUEST_NMI, guest_nmi, (size_t)(guest_nmi_end - guest_nmi));
    write_ram(g, GUEST_AP, guest_ap, (size_t)(guest_ap_end - guest_ap));
    LOAD(g, guest_many);
    reset(g);
    start(g);
    wait_writes(g, 1);
    sink = vm_msi(g->vm);
    sink->send(sink, (struct msi){VM_LAPIC_BASE | (last & 0xff) << 12 | (last >> 8) << 5, 0x400});
    wait_writes(g, 2);
    stop(g);
    check_write(g, 1, 0x11, 1, 0x5a);
}

static void what_kvm_cannot_do_is_named(void **s)
{
    static const struct {
        struct cpu_topology topology;
        const char *cpu;
        int code;
        const char *in_message;
    } cases[] = {
        {{1, 1000000, 1}, NULL, -E2BIG, "1000000 CPUs: this host's KVM allows at most "},
        {{65536, 65536, 65536}, NULL, -E2BIG, "281474976710656 CPUs"},
        {{1, 0, 1}, NULL, -EINVAL, "0 CPUs"},
        {{1, 1, 1}, "host,+nosuch", -ENOENT, "\"nosuch\""},
        {{1, 1, 1}, "host,-avx22", -ENOENT, "avx2"},
    };
    struct guest *g = *s;

    for (size_t i = 0; i < array_len(cases); i++) {
        const struct vm_opts o = {.topology = cases[i].topology, .cpu = cases[i].cpu};
        struct err err;

        assert_int_equal(vm_create(&o, g->mem, g->pio, g->mmio, &g->user, &g->vm, &err), cases[i].code);
        assert_non_null(strstr(err.msg, cases[i].in_message));
        assert_null(g->vm);
    }
}

static void the_probe_measures_this_host(void **s)
{
    struct probe p;
    struct err err;

    (void)s;
    if (probe_run(&p, &err))
        fail_msg("%s", err.msg);
    assert_true(p.level0 && p.level3);
    for (unsigned i = 0; i < p.ncaps; i++)
        assert_true(p.caps[i].value || !p.caps[i].required);
}

static unsigned open_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    unsigned n = 0;

    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static void nothing_is_left_behind(void **s)
{
    struct guest *g = *s;
    unsigned before = open_fds();

    for (unsigned i = 0; i < 10; i++) {
        make(g, 2, i & 1);
        assert_true(vm_phys_bits(g->vm) >= 36);
        vm_destroy(g->vm);
        g->vm = NULL;
    }
    assert_int_equal(open_fds(), before);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* [PATTERN]: of the tests to run */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(ports_have_three_sizes_and_holes_read_ones),
        TEST(strings_of_ports_cross_pages),
        TEST(mmio_has_four_sizes_in_long_mode),
        TEST(boot_registers_arrive),
        TEST(a_line_edge_wakes_a_halted_cpu),
        TEST(a_line_edge_wakes_a_halted_cpu_with_pit),
        TEST(a_level_interrupts_until_lowered),
        TEST(a_level_interrupts_until_lowered_with_pit),
        TEST(a_message_interrupts),
        TEST(a_signal_is_a_message),
        TEST(rubbish_messages_interrupt_nobody),
        TEST(doorbells_ring_instead_of_exits),
        TEST(doorbells_end_at_a_limit),
        TEST(a_triple_fault_is_an_event),
        TEST(an_emulation_failure_is_reported_with_its_instruction),
        TEST(code_outside_memory_ends_in_an_event),
        TEST(stops_and_starts_lose_nothing),
        TEST(clocks_stand_still_while_it_is_stopped),
        TEST(a_held_cpu_runs_no_further_until_it_is_started),
        TEST(stops_reach_cpus_that_wait),
        TEST(reset_is_as_good_as_new),
        TEST(a_crashed_machine_can_be_reset),
        TEST(four_cpus_start),
        TEST(sixty_four_cpus_can_be_made),
        TEST(cpus_beyond_255_start_and_get_messages),
        TEST(what_kvm_cannot_do_is_named),
        TEST(the_probe_measures_this_host),
        TEST(nothing_is_left_behind),
    };
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    if (fd < 0) {
        printf("skipped: /dev/kvm: %s\n", strerror(errno));
        return 77;
    }
    close(fd);
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
