#include "vmm/machine/slow_host.h"

#include <stdio.h>

#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/kvm/probe.h"

enum { PATIENCE_S = 2 };

static bool cpu_shows_virtualisation(void)
{
    char line[8192];
    bool found = false;
    FILE *f = fopen("/proc/cpuinfo", "re");

    while (f && !found && fgets(line, sizeof(line), f))
        found = !strncmp(line, "flags", 5) && (strstr(line, " vmx") || strstr(line, " svm"));
    if (f)
        fclose(f);
    return found;
}

static int measure(struct work *w)
{
    struct slow_host *s = container_of(w, struct slow_host, work);
    struct probe p;

    if (!cpu_shows_virtualisation() && !probe_run(&p, NULL) && probe_judge(&p) != PROBE_KERNELS)
        probe_explain(&p, s->text, sizeof(s->text));
    return 0;
}

static void measured(struct work *w, int ret)
{
    struct slow_host *s = container_of(w, struct slow_host, work);

    (void)ret;
    if (s->text[0])
        log_msg(LOG_WARN, "%s", s->text);
}

static void still_running(struct timer *t)
{
    work_submit(&container_of(t, struct slow_host, timer)->work);
}

void slow_host_watch(struct slow_host *s, struct loop *loop)
{
    *s = (struct slow_host){
        .timer = {.lane = &s->lane, .clk = CLK_HOST, .fire = still_running},
        .work = {.lane = &s->lane, .run = measure, .done = measured},
    };
    lane_init(&s->lane, loop);
    lane_lock(&s->lane);
    timer_arm(&s->timer, loop_now(loop, CLK_HOST) + PATIENCE_S * NS_PER_SEC);
    lane_unlock(&s->lane);
}

void slow_host_fini(struct slow_host *s)
{
    lane_lock(&s->lane);
    timer_disarm(&s->timer);
    lane_drain(&s->lane);
    lane_unlock(&s->lane);
    lane_fini(&s->lane);
}
