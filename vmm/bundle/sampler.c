/*
 * Theory of operation.  A timer on the main loop asks for a job, which the main thread does with no lane held: it stops
 * the machine, which takes each vCPU out of the guest wherever that is, copies what they were doing, and starts it
 * again.  After the last look it stays stopped, and ends as crashed.
 */
#include <stdlib.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/bundle/bundle.h"
#include "vmm/kvm/vm.h"

enum { INTERVAL_MS = 200 };

struct sampler {
    struct machine *machine;
    struct lane lane;
    struct timer timer;
    struct machine_job job;
    struct guest_kernel kernel;
    struct samples samples;
    struct cpu_state *cpus;
    bool on;
};

static void look(struct sampler *s)
{
    if (!s->samples.n)
        guest_kernel_init(&s->kernel, machine_memory(s->machine));
    for (unsigned i = 0; i < s->samples.ncpus; i++)
        if (vm_cpu_get(machine_vm(s->machine), i, &s->cpus[i]) < 0)
            s->cpus[i] = (struct cpu_state){.activity = CPU_WAITS};
    samples_take(&s->samples, &s->kernel, s->cpus);
}

static void serve(struct machine_job *j)
{
    struct sampler *s = container_of(j, struct sampler, job);
    struct machine_status status;
    struct err err;

    machine_status(s->machine, &status);
    machine_stop(s->machine);
    look(s);
    if (status.paused || s->samples.n == SAMPLES_MAX) {
        machine_request(s->machine, REQ_CRASHED, 0);
    } else if (machine_start(s->machine, &err) < 0) {
        log_msg(LOG_ERROR, "%s", err.msg);
        machine_request(s->machine, REQ_CRASHED, 0);
    } else {
        lane_lock(&s->lane);
        timer_arm(&s->timer, loop_now(s->lane.loop, CLK_HOST) + INTERVAL_MS * NS_PER_MS);
        lane_unlock(&s->lane);
    }
}

static void again(struct timer *t)
{
    struct sampler *s = container_of(t, struct sampler, timer);

    machine_do(s->machine, &s->job);
}

void sampler_create(struct machine *m, struct sampler **ret)
{
    struct sampler *s = xcalloc(1, sizeof(*s));
    struct machine_status status;

    machine_status(m, &status);
    s->machine = m;
    s->job.run = serve;
    s->cpus = xcalloc(status.config->cpus, sizeof(*s->cpus));
    samples_init(&s->samples, status.config->cpus);
    lane_init(&s->lane, machine_loop(m));
    s->timer = (struct timer){.lane = &s->lane, .clk = CLK_HOST, .fire = again};
    *ret = s;
}

void sampler_destroy(struct sampler *s)
{
    if (!s)
        return;
    lane_lock(&s->lane);
    timer_disarm(&s->timer);
    lane_unlock(&s->lane);
    machine_cancel(s->machine, &s->job);
    lane_fini(&s->lane);
    guest_kernel_fini(&s->kernel);
    samples_fini(&s->samples);
    free(s->cpus);
    free(s);
}

void sampler_start(struct sampler *s)
{
    if (!s->on)
        machine_do(s->machine, &s->job);
    s->on = true;
}

const struct samples *sampler_samples(const struct sampler *s)
{
    return s && s->samples.n ? &s->samples : NULL;
}
