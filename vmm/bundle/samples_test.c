#include "vmm/bundle/samples.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"
#include "vmm/inspect/fake_kernel.h"

#define STEXT FAKE_IMAGE + FAKE_TEXT
enum { IRQS_ON = 1 << 9 };

struct world {
    struct gmem *mem;
    struct guest_kernel k;
    struct samples s;
};

static int setup(void **s)
{
    struct world *w = xcalloc(1, sizeof(*w));

    w->mem = fake_kernel_create();
    guest_kernel_init(&w->k, w->mem);
    samples_init(&w->s, 2);
    *s = w;
    return 0;
}

static int teardown(void **s)
{
    struct world *w = *s;

    samples_fini(&w->s);
    guest_kernel_fini(&w->k);
    gmem_destroy(w->mem);
    free(w);
    return 0;
}

static const struct cpu_state idle = {.rip = STEXT + 0x20, .rflags = IRQS_ON, .activity = CPU_HALTED};

/* CPU 1 is idle, CPU 0 is seen as the moments say. */
static void look(struct world *w, const struct cpu_state *moments, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        samples_take(&w->s, &w->k, (struct cpu_state[]){moments[i], idle});
}

static void check_verdict(struct world *w, const char *wanted)
{
    char text[256];

    samples_verdict(&w->s, &w->k, text, sizeof(text));
    assert_string_equal(text, wanted);
    w->s.n = 0;
}

static void who_is_stuck_is_named(void **s)
{
    const struct cpu_state spins = {.rip = FAKE_IMAGE + FAKE_BETA_TEXT + 0x10},
                           busy = {.rip = STEXT + 0x110, .rflags = IRQS_ON},
                           stopped = {.rip = STEXT + 0x120, .activity = CPU_HALTED},
                           program = {.rip = 0x401000, .level = 3, .rflags = IRQS_ON};
    const struct {
        struct cpu_state moments[3];
        const char *verdict;
    } cases[] = {
        {{spins, spins, spins}, "CPU 0 spins in beta_spin [beta] with interrupts off"},
        {{stopped, stopped, stopped}, "CPU 0 has halted for ever in panic, with interrupts off"},
        {{busy, spins, busy}, "CPU 0 is busy in the kernel, in panic"},
        {{spins, spins, busy}, "CPU 0 is busy in the kernel, in beta_spin [beta]"},
        {{program, busy, program}, "CPU 0 is busy with a program"},
        {{idle, idle, idle}, "no CPU is busy"},
        {{busy, busy, idle}, "no CPU is busy"},
        {{stopped, spins, stopped}, "no CPU is busy"},
    };
    struct world *w = *s;

    for (size_t i = 0; i < array_len(cases); i++) {
        look(w, cases[i].moments, 3);
        check_verdict(w, cases[i].verdict);
    }
}

/* Who waits for a lock is not to blame, but who called it. */
static void the_caller_of_what_only_waits_is_blamed(void **s)
{
    const struct cpu_state waits = {.rip = STEXT + 0x10, .gpr[CPU_RSP] = FAKE_IMAGE + FAKE_STACK};
    struct world *w = *s;

    assert_int_equal(symbols_add(&w->k.symbols, STEXT + 8, "_raw_spin_lock"), 0);
    symbols_sort(&w->k.symbols);
    look(w, (struct cpu_state[]){waits}, 1);
    check_verdict(w, "CPU 0 spins in panic with interrupts off");
}

static void what_each_did_is_told(void **s)
{
    const struct cpu_state moments[] = {
        {.rip = STEXT + 0x234, .gpr[CPU_RSP] = FAKE_IMAGE + FAKE_STACK}, idle, {.rip = 0x401000, .level = 3}};
    struct world *w = *s;
    char *text;
    size_t n;
    FILE *f = open_memstream(&text, &n);

    look(w, moments, 3);
    samples_put(&w->s, &w->k, 0, true, f);
    samples_put(&w->s, &w->k, 1, false, f);
    fclose(f);
    assert_string_equal(
        text,
        "CPU 0, looked at 3 times: in the kernel 1, in a program 1, halted 1, with interrupts off 2; in "
        "sysrq_handle_crash 1\n"
        "  sysrq_handle_crash+0x34/0xe00 < panic+0x22/0x100 < sysrq_handle_crash+0x15/0xe00\n"
        "  _stext+0x20/0x100\n"
        "CPU 1, looked at 3 times: in the kernel 0, in a program 0, halted 3, with interrupts off 0; in _stext 3\n");
    free(text);
}

static void a_cpu_that_was_never_started_did_nothing(void **s)
{
    const struct cpu_state waits = {.activity = CPU_WAITS};
    struct world *w = *s;
    char *text;
    size_t n;
    FILE *f = open_memstream(&text, &n);

    look(w, (struct cpu_state[]){waits, waits}, 2);
    samples_put(&w->s, &w->k, 0, true, f);
    fclose(f);
    assert_string_equal(text, "");
    free(text);
    check_verdict(w, "no CPU is busy");
}

static void without_a_kernel_there_are_addresses(void **s)
{
    const struct cpu_state spins = {.rip = 0x1234};
    struct world *w = *s;
    struct guest_kernel none = {0};
    char text[256];

    for (unsigned i = 0; i < SAMPLES_MAX; i++)
        samples_take(&w->s, &none, (struct cpu_state[]){idle, spins});
    samples_verdict(&w->s, &none, text, sizeof(text));
    assert_string_equal(text, "CPU 1 spins in 0x1234 with interrupts off");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(who_is_stuck_is_named),
        TEST(the_caller_of_what_only_waits_is_blamed),
        TEST(what_each_did_is_told),
        TEST(a_cpu_that_was_never_started_did_nothing),
        TEST(without_a_kernel_there_are_addresses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
