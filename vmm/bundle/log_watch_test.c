/* The watch over the kernel's log, with a machine that is not there. */
#include "vmm/base/test.h"
#include "vmm/bundle/bundle.h"
#include "vmm/bundle/fake_vm.h"

enum { WANTED = 1u << SPLAT_OOPS | 1u << SPLAT_PANIC };

struct world {
    struct machine m;
    struct vm vm;
    struct log_watch *watch;
    uint64_t pos; /* of the next record's text */
};

static int setup(void **state)
{
    struct world *w = xcalloc(1, sizeof(*w));

    fake_vm_init(&w->m, &w->vm);
    log_watch_create(&w->m, WANTED, &w->watch);
    w->pos = 0x1000;
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    log_watch_destroy(w->watch);
    assert_null(w->m.observer);
    fake_machine_fini(&w->m);
    free(w);
    return 0;
}

static void say(struct world *w, uint64_t id, const char *text)
{
    fake_record(w->m.e.env.mem, id, &w->pos, text);
    fake_put64(w->m.e.env.mem, FAKE_RING + 24, 2ull << 62 | id);
    fake_put64(w->m.e.env.mem, FAKE_RING + 32, 2ull << 62 | (id - 7));
}

static void a_splat_ends_the_guest(void **state)
{
    struct world *w = *state;

    say(w, 11, "Oops: 0002 [#1]");
    say(w, 12, "RIP: 0010:f+0x1/0x2");
    while (!w->m.requests[REQ_CRASHED])
        loop_once(machine_loop(&w->m), -1);
}

/* The function to blame may take the kernel a while, as long as there is news. */
static void a_splat_is_left_the_time_to_be_printed(void **state)
{
    struct world *w = *state;
    unsigned lines = 3;

    say(w, 11, "Oops: 0002 [#1]");
    for (unsigned id = 12; !w->m.requests[REQ_CRASHED]; id++) {
        loop_once(machine_loop(&w->m), -1);
        if (lines) {
            assert_false(w->m.requests[REQ_CRASHED]);
            lines--;
            say(w, id, "more");
        }
    }
    assert_int_equal(lines, 0);
}

/* The guest has powered off, or its command has ended, sooner than the next turn comes. */
static void what_was_said_last_is_seen(void **state)
{
    struct world *w = *state;

    assert_false(log_watch_last(w->watch));
    say(w, 11, "WARNING: CPU: 0 PID: 1 at f.c:1 f+0x1/0x2"); /* of no interest */
    assert_false(log_watch_last(w->watch));
    say(w, 12, "Oops: 0002 [#1]");
    assert_true(log_watch_last(w->watch));
    assert_false(log_watch_last(NULL));
}

static void a_reset_after_a_panic_is_a_crash(void **state)
{
    struct world *w = *state;

    say(w, 11, "Kernel panic - not syncing: f");
    assert_true(w->m.observer->resets(w->m.observer));
}

static void a_reset_without_one_begins_anew(void **state)
{
    struct world *w = *state;

    say(w, 11, "WARNING: CPU: 0 PID: 1 at f.c:1 f+0x1/0x2"); /* of no interest */
    assert_false(w->m.observer->resets(w->m.observer));
    fake_put32(w->m.e.env.mem, FAKE_NOTE, 0); /* memory is cleared, and no kernel has come up yet */
    assert_false(w->m.observer->resets(w->m.observer));
    fake_kernel_write(w->m.e.env.mem);
    w->pos = 0x1000;
    say(w, 10, "Kernel panic - not syncing: g"); /* by its number it has been read */
    assert_true(w->m.observer->resets(w->m.observer));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_splat_ends_the_guest),          TEST(a_splat_is_left_the_time_to_be_printed),
        TEST(what_was_said_last_is_seen),      TEST(a_reset_after_a_panic_is_a_crash),
        TEST(a_reset_without_one_begins_anew),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
