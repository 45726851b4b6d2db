/*
 * What tests of the engine share: a guest of a few instructions at CODE_AT, in flat 32-bit mode (or long mode, on
 * tables that we write), which reports by ports and MMIO that we watch.  Guests stay short: some hosts emulate all of
 * this.
 */
#pragma once
#include <pthread.h>

#include "vmm/base/test.h"
#include "vmm/kvm/vm.h"

enum { RAM = 1 << 20, CODE_AT = 0x8000, DATA_AT = 0x9000, LOG_MAX = 8192 };
enum { PORTS = 0x10, PORTS_LEN = 0x10, WINDOW_LEN = 0x1000 };
#define WINDOW 0xd0000000u
#define READS  0xf1e2d3c4b5a69788ull /* what all of them hold */

/* Machine code between two labels. */
#define CODE(name, bits, text)                                                                                    \
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

/* A cmocka fixture. */
int guest_setup(void **s);
int guest_teardown(void **s);
#define TEST(name) cmocka_unit_test_setup_teardown(name, guest_setup, guest_teardown)
/* For main(), which may be given a pattern of the tests to run: 77, there is no /dev/kvm; 0: go on. */
int guest_tests_begin(int argc, char **argv);

void guest_make(struct guest *g, unsigned cpus, bool pit);
void guest_load(struct guest *g, const uint8_t *code, const uint8_t *end);
#define LOAD(g, name) guest_load(g, name, name##_end)
void guest_write(struct guest *g, gpa_t at, const void *bytes, size_t n);
/* Long mode with 2 MiB pages: the first GiB and the fourth, where the window and the APICs are, as they are. */
void guest_identity_map(struct guest *g);
void guest_reset(struct guest *g);
void guest_start(struct guest *g);
void guest_stop(struct guest *g);
/* One CPU, the code, go. */
#define RUN(g, name)             \
    do {                         \
        guest_make(g, 1, false); \
        LOAD(g, name);           \
        guest_reset(g);          \
        guest_start(g);          \
    } while (0)

/* Waits until *counter, nwrites or nevents, is n; false: an event, or too much time, came before. */
bool guest_reached(struct guest *g, const unsigned *counter, unsigned n);
/* Fail the test when nothing is heard of the guest. */
#define wait_writes(g, n)                                                                             \
    do {                                                                                              \
        if (!guest_reached(g, &(g)->nwrites, n))                                                      \
            fail_msg("%u writes came, not %u; %u events", (g)->nwrites, (unsigned)(n), (g)->nevents); \
    } while (0)
#define wait_event(g)                            \
    do {                                         \
        if (!guest_reached(g, &(g)->nevents, 1)) \
            fail_msg("no event came");           \
    } while (0)

void guest_check_write(const struct guest *g, unsigned i, uint64_t addr, unsigned size, uint64_t val);
