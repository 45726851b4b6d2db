/* A debugger's view of a guest on the KVM that is here; at level 3, where every host runs code rather than emulating
 * it. */
#include <semaphore.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "vmm/base/test.h"
#include "vmm/kvm/engine.h"

enum { RAM = 4 << 20, PML4 = 0x1000, PDPT = 0x2000, DIRECTORY = 0x3000, GDT = 0x4000, CODE = 0x8000, DATA = 0x9000 };
enum { TABLE = 3, LARGE = 0x80, PORT = 0x10, PATIENCE_S = 30 };

/* mov $1, %eax; nop; mov %eax, DATA; mov DATA, %ebx; out %al, $0x10; jmp . */
static const uint8_t code[] = {0xb8, 1,    0,    0,    0, 0x90, 0x89, 0x04, 0x25, 0,    0x90, 0,
                               0,    0x8b, 0x1c, 0x25, 0, 0x90, 0,    0,    0xe6, PORT, 0xeb, 0xfe};
enum { AT_NOP = CODE + 5, AT_STORE = CODE + 6, AT_LOAD = CODE + 13, AT_OUT = CODE + 20, AT_END = CODE + 22 };

struct guest {
    struct gmem *mem;
    struct bus *pio, *mmio;
    struct region port;
    struct vm *vm;
    struct vm_user user;
    sem_t news;
    enum vm_event event;
    unsigned writes, nevents;
};

static void on_event(struct vm_user *u, enum vm_event e, unsigned cpu)
{
    struct guest *g = container_of(u, struct guest, user);

    g->event = e;
    g->nevents++;
    (void)cpu;
    sem_post(&g->news);
}

static void on_write(struct region *r, uint64_t off, uint64_t val, unsigned size)
{
    struct guest *g = container_of(r, struct guest, port);

    (void)off, (void)val, (void)size;
    g->writes++;
    sem_post(&g->news);
}

static const struct region_ops port_ops = {.write = on_write, .sizes = 1};

static int setup(void **s)
{
    const struct vm_opts opts = {.topology = {1, 1, 1}};
    const uint64_t tables[][2] = {{PML4, PDPT | TABLE}, {PDPT, DIRECTORY | TABLE}, {DIRECTORY, LARGE | TABLE}};
    const struct vm_boot boot = {.long_mode = true, .rip = CODE, .cr3 = PML4, .gdt = GDT};
    struct guest *g = calloc(1, sizeof(*g));
    struct err err;

    g->pio = bus_create("ports", 0x10000);
    g->mmio = bus_create("memory", 1ull << 48);
    g->port = (struct region){.name = "port", .ops = &port_ops, .len = 1};
    g->user.event = on_event;
    sem_init(&g->news, 0, 0);
    assert_int_equal(bus_map(g->pio, &g->port, PORT, NULL), 0);
    if (gmem_create(RAM, GMEM_ANON, 0, &g->mem, &err) ||
        vm_create(&opts, g->mem, g->pio, g->mmio, &g->user, &g->vm, &err) || vm_reset(g->vm, &boot, &err))
        fail_msg("%s", err.msg);
    for (size_t i = 0; i < array_len(tables); i++)
        assert_int_equal(gmem_write(g->mem, tables[i][0], &tables[i][1], 8), 0);
    assert_int_equal(gmem_write(g->mem, CODE, code, sizeof(code)), 0);
    *s = g;
    return 0;
}

static int teardown(void **s)
{
    struct guest *g = *s;

    if (g->vm->running)
        vm_stop(g->vm);
    vm_destroy(g->vm);
    bus_unmap(&g->port);
    bus_destroy(g->pio);
    bus_destroy(g->mmio);
    gmem_destroy(g->mem);
    sem_destroy(&g->news);
    free(g);
    return 0;
}

static void run_to_news(struct guest *g)
{
    struct timespec until;
    struct err err;

    if (vm_start(g->vm, &err))
        fail_msg("%s", err.msg);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S;
    assert_int_equal(sem_timedwait(&g->news, &until), 0);
    vm_stop(g->vm);
}

static struct vm_hit run_to_hit(struct guest *g)
{
    unsigned before = g->nevents;

    run_to_news(g);
    assert_int_equal(g->nevents, before + 1);
    assert_int_equal(g->event, VM_DEBUG);
    return vm_cpu_hit(g->vm, 0);
}

static struct cpu_state state(struct guest *g)
{
    struct cpu_state s;

    assert_int_equal(vm_cpu_get(g->vm, 0, &s), 0);
    return s;
}

static void a_software_breakpoint_stops_before_its_instruction(void **s)
{
    static const uint64_t breaks[] = {AT_NOP};
    const struct vm_debug d = {.on = true, .breaks = breaks, .nbreaks = 1};
    struct guest *g = *s;

    assert_int_equal(gmem_write(g->mem, AT_NOP, "\xcc", 1), 0);
    vm_debug(g->vm, &d);
    assert_int_equal(run_to_hit(g).what, VM_HIT_BREAK);
    assert_int_equal(vm_cpu_hit(g->vm, 0).what, VM_HIT_NONE);
    assert_true(state(g).rip == AT_NOP && state(g).gpr[0] == 1);
    assert_int_equal(gmem_write(g->mem, AT_NOP, "\x90", 1), 0);
    vm_debug(g->vm, &(struct vm_debug){0});
    run_to_news(g);
    assert_int_equal(g->writes, 1);
}

static void a_step_is_one_instruction(void **s)
{
    static const uint64_t ends[] = {AT_NOP, AT_STORE, AT_LOAD, AT_OUT};
    struct guest *g = *s;

    vm_cpu_plan(g->vm, 0, VM_STEP);
    for (size_t i = 0; i < array_len(ends); i++) {
        assert_int_equal(run_to_hit(g).what, VM_HIT_STEP);
        assert_true(state(g).rip == ends[i]);
    }
    assert_true(state(g).gpr[1] == 1);
    vm_cpu_plan(g->vm, 0, VM_RUN);
    run_to_news(g);
    assert_int_equal(g->writes, 1);
}

static void a_cpu_that_stays_does_not_run(void **s)
{
    struct guest *g = *s;
    struct err err;

    vm_cpu_plan(g->vm, 0, VM_STAY);
    assert_int_equal(vm_start(g->vm, &err), 0);
    vm_stop(g->vm);
    assert_true(state(g).rip == CODE);
}

static void execution_stops_at_an_address(void **s)
{
    const struct vm_debug d = {
        .on = true, .nhw = 2, .hw = {{DATA + 0x100, 8, VM_BREAK_WRITE}, {AT_OUT, 1, VM_BREAK_EXECUTE}}};
    struct guest *g = *s;
    struct vm_hit hit;

    vm_debug(g->vm, &d);
    hit = run_to_hit(g);
    assert_true(hit.what == VM_HIT_HW && hit.hw == 1 && state(g).rip == AT_OUT);
    assert_int_equal(vm_cpu_hit(g->vm, 0).what, VM_HIT_NONE);
    vm_debug(g->vm, &(struct vm_debug){0});
    run_to_news(g);
    assert_int_equal(g->writes, 1);
}

static void watchpoints_are_told_apart(void **s)
{
    const struct vm_debug d = {
        .on = true, .nhw = 2, .hw = {{DATA + 0x100, 8, VM_BREAK_WRITE}, {DATA, 4, VM_BREAK_WRITE}}};
    struct guest *g = *s;
    struct vm_hit hit;

    vm_debug(g->vm, &d);
    hit = run_to_hit(g);
    assert_true(hit.what == VM_HIT_HW && hit.hw == 1 && state(g).rip == AT_LOAD);
}

static void a_watchpoint_sees_reads(void **s)
{
    const struct vm_debug d = {.on = true, .nhw = 1, .hw = {{DATA, 4, VM_BREAK_ACCESS}}};
    struct guest *g = *s;

    vm_debug(g->vm, &d);
    assert_int_equal(run_to_hit(g).what, VM_HIT_HW);
    assert_true(state(g).rip == AT_LOAD);
    assert_int_equal(run_to_hit(g).what, VM_HIT_HW);
    assert_true(state(g).rip == AT_OUT);
}

static void registers_are_written_and_read(void **s)
{
    struct guest *g = *s;
    struct cpu_state a = state(g), b;

    for (unsigned i = 0; i < CPU_GPRS; i++)
        a.gpr[i] = 0x0123456789abcd00 + i;
    a.base[CPU_FS] = 0x7000;
    a.kernel_gs_base = 0x12345000;
    a.cr2 = 0x123456;
    a.xmm[15][15] = 0x77;
    a.st[7][9] = 0x55;
    a.rip = AT_OUT;
    assert_int_equal(vm_cpu_set(g->vm, 0, &a), 0);
    b = state(g);
    assert_memory_equal(a.gpr, b.gpr, sizeof(a.gpr));
    assert_true(b.base[CPU_FS] == 0x7000 && b.kernel_gs_base == 0x12345000 && b.cr2 == 0x123456);
    assert_true(b.xmm[15][15] == 0x77 && b.st[7][9] == 0x55);
    run_to_news(g);
    assert_int_equal(g->writes, 1);
    assert_true(state(g).gpr[15] == a.gpr[15]);
    a.cr4 = UINT64_MAX;
    assert_true(vm_cpu_set(g->vm, 0, &a) < 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(a_step_is_one_instruction),
        TEST(a_cpu_that_stays_does_not_run),
        TEST(registers_are_written_and_read),
    };
    const struct CMUnitTest more[] = {
        TEST(execution_stops_at_an_address),
        TEST(a_software_breakpoint_stops_before_its_instruction),
        TEST(watchpoints_are_told_apart),
        TEST(a_watchpoint_sees_reads),
    };

    if (access("/dev/kvm", R_OK | W_OK)) {
        printf("skipped: /dev/kvm: %s\n", strerror(errno));
        return 77;
    }
    if (argc > 1 && !strcmp(argv[1], "--breakpoints"))
        return cmocka_run_group_tests(more, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
