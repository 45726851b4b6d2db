#include "vmm/bundle/samples.h"

#include <stdlib.h>

#include "vmm/base/cleanup.h"

enum { FUNCTION_MAX = SYMBOL_NAME_MAX + CODE_NAME_MAX, RFLAGS_IF = 1 << 9 };

/* What one CPU did, over all moments. */
struct doing {
    unsigned kernel, user, halted, waits, irqs_off;
    char place[FUNCTION_MAX]; /* where in the kernel most often; "": nowhere */
    unsigned in_place;
};

void samples_init(struct samples *s, unsigned ncpus)
{
    *s = (struct samples){.ncpus = ncpus, .s = xcalloc((size_t)ncpus * SAMPLES_MAX, sizeof(*s->s))};
}

void samples_fini(struct samples *s)
{
    free(s->s);
}

static struct sample *sample(const struct samples *s, unsigned cpu, unsigned moment)
{
    return &s->s[cpu * SAMPLES_MAX + moment];
}

void samples_take(struct samples *s, const struct guest_kernel *k, const struct cpu_state *cpus)
{
    assert(s->n < SAMPLES_MAX);
    for (unsigned cpu = 0; cpu < s->ncpus; cpu++) {
        const struct cpu_state *c = &cpus[cpu];
        struct sample *one = sample(s, cpu, s->n);
        uint64_t trace[TRACE_MAX];
        unsigned n = symbols_trace(&k->symbols, &k->info, c, trace);

        n = (unsigned)min_u64(n, SAMPLE_PLACES - 1);
        *one = (struct sample){.activity = c->activity,
                               .user = c->level,
                               .irqs_on = c->rflags & RFLAGS_IF,
                               .n = n + 1,
                               .places = {c->rip}};
        memcpy(one->places + 1, trace, n * sizeof(*trace));
    }
    s->n++;
}

/* What only waits for others, or returns: who called it is of interest. */
static bool only_waits(const char *function)
{
    static const char *const beginnings[] = {
        "native_queued_spin_lock",
        "__pv_queued_spin_lock",
        "queued_",
        "_raw_spin_",
        "_raw_read_",
        "_raw_write_",
        "kvm_wait",
        "delay_",
        "__delay",
        "__const_udel",
        "__udelay",
        "__ndelay",
        "native_halt",
        "native_safe_halt",
        "mutex_spin_",
        "osq_lock",
        "srso_",
        "retbleed_",
    };

    for (size_t i = 0; i < array_len(beginnings); i++)
        if (!strncmp(function, beginnings[i], strlen(beginnings[i])))
            return true;
    return false;
}

static void name_place(const struct sample *one, const struct guest_kernel *k, char buf[FUNCTION_MAX])
{
    for (unsigned i = 0; i < one->n; i++) {
        symbols_function(&k->symbols, one->places[i], buf, FUNCTION_MAX);
        if (!only_waits(buf))
            return;
    }
    symbols_function(&k->symbols, one->places[0], buf, FUNCTION_MAX);
}

static void sum_up(const struct samples *s, const struct guest_kernel *k, unsigned cpu, struct doing *ret)
{
    char places[SAMPLES_MAX][FUNCTION_MAX] = {0};

    *ret = (struct doing){0};
    for (unsigned i = 0; i < s->n; i++) {
        const struct sample *one = sample(s, cpu, i);
        unsigned same = 0;

        ret->waits += one->activity == CPU_WAITS;
        ret->halted += one->activity == CPU_HALTED;
        ret->user += one->activity == CPU_RUNS && one->user;
        ret->kernel += one->activity == CPU_RUNS && !one->user;
        ret->irqs_off += !one->irqs_on;
        if (one->user || one->activity == CPU_WAITS)
            continue;
        name_place(one, k, places[i]);
        for (unsigned j = 0; j <= i; j++)
            same += !strcmp(places[j], places[i]);
        if (same > ret->in_place) {
            ret->in_place = same;
            strcpy(ret->place, places[i]);
        }
    }
}

/* The more, the likelier it is stuck; each with what to say of it. */
enum suspicion { IDLE_AT_TIMES, BUSY, BUSY_IN_KERNEL, HALTED_FOR_EVER, SPINS };

static enum suspicion suspect(const struct samples *s, const struct doing *d)
{
    if (d->irqs_off == s->n && d->kernel == s->n)
        return SPINS;
    if (d->irqs_off == s->n && d->halted == s->n)
        return HALTED_FOR_EVER;
    if (d->kernel == s->n)
        return BUSY_IN_KERNEL;
    return d->kernel + d->user == s->n ? BUSY : IDLE_AT_TIMES;
}

void samples_verdict(const struct samples *s, const struct guest_kernel *k, char *buf, size_t n)
{
    enum suspicion most = IDLE_AT_TIMES;
    struct doing worst = {0};
    unsigned who = 0;

    for (unsigned cpu = 0; cpu < s->ncpus; cpu++) {
        enum suspicion now;
        struct doing d;

        sum_up(s, k, cpu, &d);
        now = suspect(s, &d);
        if (now > most) {
            most = now;
            worst = d;
            who = cpu;
        }
    }
    switch (most) {
    case SPINS:
        snprintf(buf, n, "CPU %u spins in %s with interrupts off", who, worst.place);
        break;
    case HALTED_FOR_EVER:
        snprintf(buf, n, "CPU %u has halted for ever in %s, with interrupts off", who, worst.place);
        break;
    case BUSY_IN_KERNEL:
        snprintf(buf, n, "CPU %u is busy in the kernel, in %s", who, worst.place);
        break;
    case BUSY:
        snprintf(buf, n, "CPU %u is busy with a program", who);
        break;
    case IDLE_AT_TIMES:
        snprintf(buf, n, "no CPU is busy");
        break;
    }
}

static void put_trace(const struct sample *one, const struct guest_kernel *k, FILE *f)
{
    for (unsigned i = 0; i < one->n; i++) {
        char name[FUNCTION_MAX];

        symbols_name(&k->symbols, one->places[i], name, sizeof(name));
        fprintf(f, "%s%s", i ? " < " : "  ", name);
    }
    fprintf(f, "\n");
}

void samples_put(const struct samples *s, const struct guest_kernel *k, unsigned cpu, bool trace, FILE *f)
{
    struct doing d;

    sum_up(s, k, cpu, &d);
    if (d.waits == s->n)
        return;
    fprintf(f, "CPU %u, looked at %u times: in the kernel %u, in a program %u, halted %u, with interrupts off %u", cpu,
            s->n, d.kernel, d.user, d.halted, d.irqs_off);
    if (d.in_place)
        fprintf(f, "; in %s %u", d.place, d.in_place);
    fprintf(f, "\n");
    for (unsigned i = 0; trace && i < s->n; i++)
        if (!sample(s, cpu, i)->user)
            put_trace(sample(s, cpu, i), k, f);
}
