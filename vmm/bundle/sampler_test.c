/* The sampler, with a machine and CPUs that are not there. */
#include "vmm/base/test.h"
#include "vmm/bundle/bundle.h"
#include "vmm/bundle/fake_vm.h"

struct world {
    struct machine m;
    struct vm vm;
    struct sampler *s;
};

static int setup(void **state)
{
    struct world *w = xcalloc(1, sizeof(*w));

    fake_vm_init(&w->m, &w->vm);
    sampler_create(&w->m, &w->s);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    sampler_destroy(w->s);
    assert_null(w->m.job);
    fake_machine_fini(&w->m);
    free(w);
    return 0;
}

/* Until the guest is to end, as the machine's main thread does it. */
static void run(struct world *w)
{
    while (!w->m.requests[REQ_CRASHED]) {
        if (w->m.job)
            fake_machine_run_job(&w->m);
        else
            loop_once(machine_loop(&w->m), -1);
    }
}

static void a_guest_is_looked_at_while_it_runs(void **state)
{
    struct world *w = *state;

    assert_null(sampler_samples(w->s));
    sampler_start(w->s);
    sampler_start(w->s);
    assert_true(w->m.running); /* nothing happens yet, as a lane may be held */
    run(w);
    assert_int_equal(w->m.stops, SAMPLES_MAX);
    assert_int_equal(w->vm.gets, SAMPLES_MAX * FAKE_CPUS);
    assert_false(w->m.running);
    assert_int_equal(sampler_samples(w->s)->n, SAMPLES_MAX);
}

static void a_guest_that_is_paused_is_seen_once(void **state)
{
    struct world *w = *state;

    machine_pause(&w->m, NULL);
    sampler_start(w->s);
    run(w);
    assert_int_equal(sampler_samples(w->s)->n, 1);
    assert_false(w->m.running);
}

static void a_guest_that_cannot_go_on_ends(void **state)
{
    struct world *w = *state;

    w->m.start_fails = "no more threads";
    sampler_start(w->s);
    run(w);
    assert_int_equal(sampler_samples(w->s)->n, 1);
}

static void it_may_be_gone_before_it_has_seen_all(void **state)
{
    struct world *w = *state;

    sampler_start(w->s);
    fake_machine_run_job(&w->m);
    sampler_destroy(w->s);
    sampler_create(&w->m, &w->s);
    sampler_start(w->s);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_guest_is_looked_at_while_it_runs),
        TEST(a_guest_that_is_paused_is_seen_once),
        TEST(a_guest_that_cannot_go_on_ends),
        TEST(it_may_be_gone_before_it_has_seen_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
