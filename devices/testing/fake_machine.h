/*
 * A machine without KVM, for tests of who looks at machines and commands them: it has real devices in the world of
 * tests, and writes down what is asked of it.  It defines the machine's own functions, so that one file of a program
 * includes it, and the program has it in place of vmm/machine/machine.c.
 */
#pragma once
#include "devices/testing/env.h"
#include "vmm/machine/machine.h"

struct machine {
    struct test_env e;
    struct config config;
    struct device *devices[4];
    unsigned ndevices;
    bool running, paused;
    const char *why;
    unsigned stops; /* how often it was stopped */
    unsigned requests[REQ_COUNT];
    const char *start_fails; /* why, if it does */
    struct machine_job *job; /* to be run */
    struct machine_observer *observer;
    struct vm *vm;     /* the test's, if it has one */
    const char *crash; /* what the engine said */
};

static inline void fake_machine_init(struct machine *m)
{
    *m = (struct machine){.running = true};
    test_env_init(&m->e, MiB(16));
    config_init(&m->config);
    m->devices[m->ndevices++] = test_env_device(&m->e, "uart", "com1", "");
}

static inline void fake_machine_fini(struct machine *m)
{
    while (m->ndevices)
        device_destroy(m->devices[--m->ndevices]);
    config_fini(&m->config);
    test_env_fini(&m->e);
}

/* What machine_run() does between two rounds of its loop. */
static inline void fake_machine_run_job(struct machine *m)
{
    struct machine_job *j = m->job;

    m->job = NULL;
    if (j)
        j->run(j);
}

void machine_pause(struct machine *m, const char *why)
{
    machine_stop(m);
    m->paused = true;
    m->why = why ? "failed" : NULL;
}

int machine_resume(struct machine *m, struct err *err)
{
    int r = m->paused ? machine_start(m, err) : 0;

    m->paused = m->paused && r;
    return r;
}

void machine_status(struct machine *m, struct machine_status *ret)
{
    *ret = (struct machine_status){
        .paused = m->paused,
        .why = m->why,
        .up_ns = 1500000000,
        .devices = m->devices,
        .ndevices = m->ndevices,
        .config = &m->config,
        .crash = m->crash,
    };
}

void machine_profile(struct machine *m, struct machine_profile *ret)
{
    (void)m;
    *ret = (struct machine_profile){
        .begun_ns = 1000000000,
        .made_ns = 1001000000,
        .loaded_ns = 1003000000,
        .entered_ns = 1003500000,
        .exits = {{"com1", 5}, {"INTR", 2}},
        .nexits = 2,
    };
}

void machine_stop(struct machine *m)
{
    m->stops += m->running;
    m->running = false;
}

int machine_start(struct machine *m, struct err *err)
{
    if (m->start_fails)
        return err_set(err, EAGAIN, "%s", m->start_fails);
    m->running = true;
    return 0;
}

void machine_request(struct machine *m, enum request r, int code)
{
    (void)code;
    m->requests[r]++;
}

void machine_do(struct machine *m, struct machine_job *j)
{
    m->job = j;
}

void machine_cancel(struct machine *m, struct machine_job *j)
{
    if (m->job == j)
        m->job = NULL;
}

struct loop *machine_loop(struct machine *m)
{
    return m->e.env.loop;
}

void machine_observe(struct machine *m, struct machine_observer *o)
{
    m->observer = o;
}

void machine_unobserve(struct machine *m, struct machine_observer *o)
{
    assert(m->observer == o);
    m->observer = NULL;
}

struct vm *machine_vm(struct machine *m)
{
    return m->vm;
}

struct gmem *machine_memory(struct machine *m)
{
    return m->e.env.mem;
}
