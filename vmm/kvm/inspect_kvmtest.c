/* A debugger's view of a guest on the KVM that is here. */
#include "vmm/kvm/engine_rig.h"

enum { PORT = PORTS };

/* mov $1, %eax; nop; mov %eax, DATA_AT; mov DATA_AT, %ebx; out %al, $0x10; jmp . */
static const uint8_t code[] = {0xb8, 1,    0,    0,    0, 0x90, 0x89, 0x04, 0x25, 0,    0x90, 0,
                               0,    0x8b, 0x1c, 0x25, 0, 0x90, 0,    0,    0xe6, PORT, 0xeb, 0xfe};
enum { AT_NOP = CODE_AT + 5, AT_STORE = CODE_AT + 6, AT_LOAD = CODE_AT + 13, AT_OUT = CODE_AT + 20 };

/* A guest of this code, in long mode. */
static struct guest *made(void **s)
{
    struct guest *g = *s;

    guest_identity_map(g);
    guest_make(g, 1, false);
    guest_load(g, code, code + sizeof(code));
    guest_reset(g);
    return g;
}

/* To its next write or event. */
static void run_to_news(struct guest *g)
{
    unsigned before = g->nwrites;

    g->nevents = 0;
    guest_start(g);
    if (!guest_reached(g, &g->nwrites, before + 1) && !g->nevents)
        fail_msg("neither a write nor an event came");
    guest_stop(g);
}

static struct vm_hit run_to_hit(struct guest *g)
{
    run_to_news(g);
    assert_int_equal(g->nevents, 1);
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
    struct guest *g = made(s);

    guest_write(g, AT_NOP, "\xcc", 1);
    vm_debug(g->vm, &d);
    assert_int_equal(run_to_hit(g).what, VM_HIT_BREAK);
    assert_int_equal(vm_cpu_hit(g->vm, 0).what, VM_HIT_NONE);
    assert_true(state(g).rip == AT_NOP && state(g).gpr[0] == 1);
    guest_write(g, AT_NOP, "\x90", 1);
    vm_debug(g->vm, &(struct vm_debug){0});
    run_to_news(g);
    assert_int_equal(g->nwrites, 1);
}

static void a_step_is_one_instruction(void **s)
{
    static const uint64_t ends[] = {AT_NOP, AT_STORE, AT_LOAD, AT_OUT};
    struct guest *g = made(s);

    vm_cpu_plan(g->vm, 0, VM_STEP);
    for (size_t i = 0; i < array_len(ends); i++) {
        assert_int_equal(run_to_hit(g).what, VM_HIT_STEP);
        assert_true(state(g).rip == ends[i]);
    }
    assert_true(state(g).gpr[1] == 1);
    vm_cpu_plan(g->vm, 0, VM_RUN);
    run_to_news(g);
    assert_int_equal(g->nwrites, 1);
}

static void a_cpu_that_stays_does_not_run(void **s)
{
    struct guest *g = made(s);
    struct err err;

    vm_cpu_plan(g->vm, 0, VM_STAY);
    assert_int_equal(vm_start(g->vm, &err), 0);
    vm_stop(g->vm);
    assert_true(state(g).rip == CODE_AT);
}

static void execution_stops_at_an_address(void **s)
{
    const struct vm_debug d = {
        .on = true, .nhw = 2, .hw = {{DATA_AT + 0x100, 8, VM_BREAK_WRITE}, {AT_OUT, 1, VM_BREAK_EXECUTE}}};
    struct guest *g = made(s);
    struct vm_hit hit;

    vm_debug(g->vm, &d);
    hit = run_to_hit(g);
    assert_true(hit.what == VM_HIT_HW && hit.hw == 1 && state(g).rip == AT_OUT);
    assert_int_equal(vm_cpu_hit(g->vm, 0).what, VM_HIT_NONE);
    vm_debug(g->vm, &(struct vm_debug){0});
    run_to_news(g);
    assert_int_equal(g->nwrites, 1);
}

static void watchpoints_are_told_apart(void **s)
{
    const struct vm_debug d = {
        .on = true, .nhw = 2, .hw = {{DATA_AT + 0x100, 8, VM_BREAK_WRITE}, {DATA_AT, 4, VM_BREAK_WRITE}}};
    struct guest *g = made(s);
    struct vm_hit hit;

    vm_debug(g->vm, &d);
    hit = run_to_hit(g);
    assert_true(hit.what == VM_HIT_HW && hit.hw == 1 && state(g).rip == AT_LOAD);
}

static void a_watchpoint_sees_reads(void **s)
{
    const struct vm_debug d = {.on = true, .nhw = 1, .hw = {{DATA_AT, 4, VM_BREAK_ACCESS}}};
    struct guest *g = made(s);

    vm_debug(g->vm, &d);
    assert_int_equal(run_to_hit(g).what, VM_HIT_HW);
    assert_true(state(g).rip == AT_LOAD);
    assert_int_equal(run_to_hit(g).what, VM_HIT_HW);
    assert_true(state(g).rip == AT_OUT);
}

static void registers_are_written_and_read(void **s)
{
    struct guest *g = made(s);
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
    assert_int_equal(g->nwrites, 1);
    assert_true(state(g).gpr[15] == a.gpr[15]);
    a.cr4 = UINT64_MAX;
    assert_true(vm_cpu_set(g->vm, 0, &a) < 0);
}

/* [PATTERN]: of the tests to run; --breakpoints: those that need a processor, not an emulator */
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

    bool breakpoints = argc > 1 && !strcmp(argv[1], "--breakpoints");
    int rc = guest_tests_begin(breakpoints ? 1 : argc, argv);

    if (rc)
        return rc;
    return breakpoints ? cmocka_run_group_tests(more, NULL, NULL) : cmocka_run_group_tests(tests, NULL, NULL);
}
