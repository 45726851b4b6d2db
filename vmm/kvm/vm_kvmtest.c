/* The engine's VM and CPUs on the KVM that is here: how they start, stop, are reset, and how many there may be. */
#include "vmm/kvm/vm.h"

#include <dirent.h>
#include <time.h>
#include <x86intrin.h>

#include "vmm/kvm/engine_rig.h"
#include "vmm/kvm/probe.h"

enum { GUEST_AP = 0x7000 };

/* What the boot protocols promise in registers: RSI, RBX, RAX. */
CODE(code_registers, 32, "out %eax, $0x10\n mov %ebx, %eax\n out %eax, $0x14\n mov %esi, %eax\n out %eax, $0x18\n hlt");

static void boot_registers_arrive(void **s)
{
    struct guest *g = *s;

    g->boot.rax = 0x2badb002;
    g->boot.rbx = 0x12345678;
    g->boot.rsi = 0x90000;
    RUN(g, code_registers);
    wait_writes(g, 3);
    guest_stop(g);
    guest_check_write(g, 0, 0x10, 4, 0x2badb002);
    guest_check_write(g, 1, 0x14, 4, 0x12345678);
    guest_check_write(g, 2, 0x18, 4, 0x90000);
}

CODE(code_counter, 32, "1: inc %eax\n out %eax, $0x10\n jmp 1b");

static void stops_and_starts_lose_nothing(void **s)
{
    enum { ROUNDS = 1000 };
    struct guest *g = *s;
    unsigned seen = 0;

    RUN(g, code_counter);
    for (unsigned i = 0; i < ROUNDS; i++) {
        /* Now and then at once, while the thread is still on its way into KVM_RUN. */
        if (i % 4)
            wait_writes(g, seen + 1);
        guest_stop(g);
        seen = g->nwrites;
        guest_start(g);
    }
    guest_stop(g);
    seen = g->nwrites < LOG_MAX ? g->nwrites : LOG_MAX;
    assert_true(seen >= ROUNDS / 4 * 3);
    for (unsigned i = 0; i < seen; i++)
        guest_check_write(g, i, 0x10, 4, i + 1);
}

CODE(code_clock, 32, "1: rdtsc\n shrd $20, %edx, %eax\n out %eax, $0x10\n jmp 1b");

/* What passes between two readings of the guest is at most what passed on the host less the pause. */
static void clocks_stand_still_while_it_is_stopped(void **s)
{
    const struct timespec pause = {.tv_nsec = 300000000};
    struct guest *g = *s;
    uint64_t before, stopped, started;
    unsigned seen;

    RUN(g, code_clock);
    before = __rdtsc();
    pthread_mutex_lock(&g->lock);
    seen = g->nwrites;
    pthread_mutex_unlock(&g->lock);
    wait_writes(g, seen + 2);
    guest_stop(g);
    stopped = __rdtsc();
    seen = g->nwrites;
    nanosleep(&pause, NULL);
    started = __rdtsc();
    guest_start(g);
    wait_writes(g, seen + 1);
    guest_stop(g);
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
    RUN(g, code_counter);
    for (unsigned i = 1; i <= 100; i++) {
        wait_writes(g, i);
        guest_stop(g);
        assert_int_equal(g->nwrites, i);
        guest_start(g);
    }
    guest_stop(g);
}

/* While all CPUs wait in the kernel: one halted, the others for their INIT. */
static void stops_reach_cpus_that_wait(void **s)
{
    static const uint8_t halt[] = {0xe6, 0x10, 0xf4, 0xeb, 0xfd}; /* out %al, $0x10; 1: hlt; jmp 1b */
    struct guest *g = *s;

    guest_make(g, 4, false);
    guest_load(g, halt, halt + sizeof(halt));
    guest_reset(g);
    for (unsigned i = 0; i < 200; i++) {
        guest_start(g);
        if (!i)
            wait_writes(g, 1);
        guest_stop(g);
    }
    assert_int_equal(g->nwrites, 1);
}

/* The first CPU starts the others by INIT and SIPI, each counts itself, the first tells the sum. */
CODE(code_smp, 32,
     "movl $0x1ff, 0xfee000f0\n"
     "movl $0xc4500, 0xfee00300\n"
     "movl $0xc4607, 0xfee00300\n"
     "1: pause\n cmpl $3, 0x9000\n jne 1b\n"
     "mov 0x9000, %eax\n out %eax, $0x10\n hlt");
CODE(code_ap, 16, "xor %ax, %ax\n mov %ax, %ds\n lock incl 0x9000\n 1: hlt\n jmp 1b");

static void four_cpus_start(void **s)
{
    struct guest *g = *s;

    guest_make(g, 4, false);
    for (unsigned round = 0; round < 2; round++) {
        const uint32_t zero = 0;

        guest_write(g, DATA_AT, &zero, sizeof(zero));
        guest_write(g, GUEST_AP, code_ap, (size_t)(code_ap_end - code_ap));
        LOAD(g, code_smp);
        guest_reset(g);
        guest_start(g);
        wait_writes(g, 1);
        guest_stop(g);
        guest_check_write(g, 0, 0x10, 4, 3);
    }
}

static void sixty_four_cpus_can_be_made(void **s)
{
    struct guest *g = *s;

    guest_make(g, 64, false);
    LOAD(g, code_registers);
    guest_reset(g);
    guest_start(g);
    wait_writes(g, 3);
    guest_stop(g);
}

/*
 * x2APIC mode, INIT and SIPI to all others; the last of them gets an NMI by message, whose handler in real mode tells.
 * Ids beyond 255 need all of the wide forms: CPUs made with them, the ICR's 32 bits, the message's extended bits.
 */
enum { MANY_CPUS = 288, GUEST_NMI = 0x7100, NMI_VECTOR_AT = 2 * 4 };
CODE(code_many, 32,
     "mov $0x1b, %ecx\n rdmsr\n or $0xc00, %eax\n wrmsr\n"
     "xor %edx, %edx\n mov $0x80f, %ecx\n mov $0x1ff, %eax\n wrmsr\n"
     "mov $0x830, %ecx\n mov $0xc4500, %eax\n wrmsr\n mov $0xc4607, %eax\n wrmsr\n"
     "1: pause\n cmpl $287, 0x9000\n jne 1b\n"
     "out %al, $0x10\n 2: hlt\n jmp 2b");
CODE(code_nmi, 16, "mov $0x5a, %al\n out %al, $0x11\n 1: hlt\n jmp 1b");

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
    guest_write(g, NMI_VECTOR_AT, &vector, sizeof(vector));
    guest_write(g, GUEST_NMI, code_nmi, (size_t)(code_nmi_end - code_nmi));
    guest_write(g, GUEST_AP, code_ap, (size_t)(code_ap_end - code_ap));
    LOAD(g, code_many);
    guest_reset(g);
    guest_start(g);
    wait_writes(g, 1);
    sink = vm_msi(g->vm);
    sink->send(sink, (struct msi){VM_LAPIC_BASE | (last & 0xff) << 12 | (last >> 8) << 5, 0x400});
    wait_writes(g, 2);
    guest_stop(g);
    guest_check_write(g, 1, 0x11, 1, 0x5a);
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
        guest_make(g, 2, i & 1);
        assert_true(vm_phys_bits(g->vm) >= 36);
        vm_destroy(g->vm);
        g->vm = NULL;
    }
    assert_int_equal(open_fds(), before);
}

/* [PATTERN]: of the tests to run */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(boot_registers_arrive),
        TEST(stops_and_starts_lose_nothing),
        TEST(clocks_stand_still_while_it_is_stopped),
        TEST(a_held_cpu_runs_no_further_until_it_is_started),
        TEST(stops_reach_cpus_that_wait),
        TEST(four_cpus_start),
        TEST(sixty_four_cpus_can_be_made),
        TEST(cpus_beyond_255_start_and_get_messages),
        TEST(what_kvm_cannot_do_is_named),
        TEST(the_probe_measures_this_host),
        TEST(nothing_is_left_behind),
    };
    int rc = guest_tests_begin(argc, argv);

    return rc ? rc : cmocka_run_group_tests(tests, NULL, NULL);
}
