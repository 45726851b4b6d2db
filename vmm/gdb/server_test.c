/* The server, whose machine is not there; gdb is the other end of a socket. */
#include "vmm/gdb/server.h"

#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "devices/testing/fake_machine.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"
#include "vmm/kvm/vm.h"

/* Two CPUs that never meet anything, in place of the engine. */
struct vm {
    struct cpu_state cpus[2];
    bool debugged;
};

int vm_cpu_get(struct vm *vm, unsigned cpu, struct cpu_state *ret)
{
    *ret = vm->cpus[cpu];
    return 0;
}

int vm_cpu_set(struct vm *vm, unsigned cpu, const struct cpu_state *s)
{
    vm->cpus[cpu] = *s;
    return 0;
}

void vm_debug(struct vm *vm, const struct vm_debug *d)
{
    vm->debugged = d->on;
}

void vm_cpu_plan(struct vm *vm, unsigned cpu, enum vm_plan plan)
{
    (void)vm, (void)cpu, (void)plan;
}

struct vm_hit vm_cpu_hit(struct vm *vm, unsigned cpu)
{
    (void)vm, (void)cpu;
    return (struct vm_hit){.what = VM_HIT_NONE};
}

struct world {
    struct machine m;
    struct vm vm;
    struct gdb *gdb;
    int client;
    char heard[256];
};

/* Where nobody else looks: a name that the kernel chooses, in no directory. */
static int connect_to_server(struct machine *m, struct gdb **ret)
{
    int server = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    socklen_t len = sizeof(addr);
    char where[16];
    struct err err;

    assert_int_equal(bind(server, (struct sockaddr *)&addr, sizeof(addr.sun_family)), 0);
    assert_int_equal(listen(server, 1), 0);
    assert_int_equal(getsockname(server, (struct sockaddr *)&addr, &len), 0);
    snprintf(where, sizeof(where), "fd:%d", server);
    assert_int_equal(gdb_open(m, where, ret, &err), 0);
    assert_int_equal(connect(client, (struct sockaddr *)&addr, len), 0);
    return client;
}

static int setup(void **s)
{
    struct world *w = xcalloc(1, sizeof(*w));

    fake_machine_init(&w->m);
    w->m.config.cpus = 2;
    w->m.vm = &w->vm;
    w->client = connect_to_server(&w->m, &w->gdb);
    *s = w;
    return 0;
}

static int teardown(void **s)
{
    struct world *w = *s;

    close(w->client);
    gdb_close(w->gdb, 0);
    assert_false(w->vm.debugged);
    fake_machine_fini(&w->m);
    free(w);
    return 0;
}

/* All that a few bytes lead to: that they are read, dealt with, and answered. */
static void turn(struct world *w)
{
    for (int i = 0; i < 4; i++) {
        loop_once(machine_loop(&w->m), 0);
        fake_machine_run_job(&w->m);
    }
}

static void say(struct world *w, const char *bytes)
{
    if (send(w->client, bytes, strlen(bytes), MSG_DONTWAIT) < 0)
        assert_int_equal(errno, EAGAIN);
    turn(w);
}

static const char *hear(struct world *w)
{
    ssize_t n = recv(w->client, w->heard, sizeof(w->heard) - 1, MSG_DONTWAIT);

    w->heard[n > 0 ? n : 0] = 0;
    return w->heard;
}

static void who_connects_stops_the_guest_and_lets_it_go(void **s)
{
    struct world *w = *s;

    say(w, "$QStartNoAckMode#b0");
    assert_string_equal(hear(w), "+$OK#9a");
    assert_true(w->m.paused && w->vm.debugged);
    close(w->client);
    w->client = -1;
    turn(w);
    assert_true(w->m.running && !w->m.paused && !w->vm.debugged);
}

/* It reads nothing either, so that an answer to each would soon be in the way of the one that is due. */
static void who_speaks_out_of_turn_gets_the_one_answer(void **s)
{
    struct world *w = *s;

    say(w, "$QStartNoAckMode#b0");
    assert_string_equal(hear(w), "+$OK#9a");
    say(w, "$c#63");
    assert_true(w->m.running);
    for (int i = 0; i < 1000; i++)
        say(w, "-$g#67");
    machine_pause(&w->m, NULL);
    w->m.observer->paused(w->m.observer);
    assert_string_equal(hear(w), "$T02thread:1;#d4");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(who_connects_stops_the_guest_and_lets_it_go),
        TEST(who_speaks_out_of_turn_gets_the_one_answer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
