/*
 * Many runs at a time.  Each is a slot from before its start until its result is in the report.  What ends is put aside
 * and looked at in a callback of its own, where nothing of the run is in use any more; then as many of the next start
 * as have room.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/cli/test.h"
#include "vmm/cli/test_progress.h"
#include "vmm/report/reader.h"
#include "vmm/runner/room.h"

struct item { /* what is to be run, or has been */
    struct list link;
    unsigned index, tries;
    struct report_run *report;
};

struct slot {
    struct list link;
    struct many *many;
    struct item *item;
    struct test_job job;
    struct test_run run;
    struct reader *reader;
    enum test_phase phase;
    uint64_t start_ns;
};

struct many {
    const struct test_plan *plan;
    struct report *report;
    struct loop *loop;
    struct lane lane;
    struct item *items;
    struct list todo, running, ended; /* items; slots */
    struct slot *next;                /* waits for room; NULL: none is made */
    struct room room, used;           /* cpus: jobs, where the user said how many */
    unsigned runs, done, bad;
    const char *stopped; /* why nothing more starts; NULL: nothing is amiss */
    enum test_outcome stopped_as;
    struct work settle;
    struct timer limit, tick;
    struct watch signals;
    struct progress progress;
    bool streams; /* the report for people goes to standard output as it comes */
};

/* ---- What is shown. ---- */

static void draw(struct many *m)
{
    static const char *const phases[] = {"boots", "runs", "ends", "over"};
    struct progress *p = &m->progress;

    progress_clear(p);
    progress_line(p, "%u of %u runs done, %u failed", m->done, m->runs, m->bad);
    list_for_each (l, &m->running) {
        const struct slot *s = container_of(l, struct slot, link);

        progress_line(p, "%-7s  %s  %u s", phases[s->phase], s->job.name,
                      (unsigned)((clock_now_ns() - s->start_ns) / NS_PER_SEC));
    }
}

static void tick(struct timer *t)
{
    struct many *m = container_of(t, struct many, tick);

    draw(m);
    timer_arm(t, loop_now(m->loop, CLK_HOST) + NS_PER_SEC);
}

static void show_result(struct many *m, const struct report_run *run)
{
    progress_clear(&m->progress);
    if (m->streams) {
        report_write_run(run, stdout);
        fflush(stdout);
    } else {
        report_write_line(run, stderr);
    }
}

/* ---- One run. ---- */

static struct slot *slot_of(struct test_run *r)
{
    return container_of(r, struct slot, run);
}

static size_t output(struct test_run *r, enum test_stream s, const void *bytes, size_t n)
{
    reader_feed(slot_of(r)->reader, s, bytes, n, clock_now_ns());
    return n;
}

static void phase(struct test_run *r, enum test_phase p)
{
    slot_of(r)->phase = p;
    if (p != TEST_OVER)
        draw(slot_of(r)->many);
}

static void done(struct test_run *r)
{
    struct slot *s = slot_of(r);

    list_del(&s->link);
    list_add_tail(&s->many->ended, &s->link);
    work_post(&s->many->settle);
}

static void slot_destroy(struct slot *s)
{
    if (!s)
        return;
    if (s->run.child)
        test_run_fini(&s->run);
    reader_destroy(s->reader);
    test_job_fini(&s->job);
    free(s);
}

static int slot_create(struct many *m, struct item *item, struct slot **ret, struct err *err)
{
    struct slot *s = xcalloc(1, sizeof(*s));
    int r = test_job_init(&s->job, m->plan, item->index, err);

    s->many = m;
    s->item = item;
    s->reader = reader_create();
    s->run = (struct test_run){.output = output, .phase = phase, .done = done};
    if (r < 0)
        slot_destroy(s);
    else
        *ret = s;
    return r;
}

/* ---- All of them. ---- */

static void finish(struct many *m, struct item *item)
{
    m->done++;
    m->bad += test_bad(&item->report->test);
    show_result(m, item->report);
}

static void fail(struct item *item, enum test_outcome outcome, int code, const char *why)
{
    struct test_result *res = &item->report->result;

    *res = (struct test_result){.outcome = outcome, .code = code};
    snprintf(res->why, sizeof(res->why), "%s", why);
    report_settle(item->report);
}

/* What it takes of room.cpus. */
static unsigned cpus_of(const struct slot *s)
{
    return s->job.o.jobs ? 1 : s->job.o.c.cpus;
}

/* One has ended: once more, or is that its result? */
static void settle_slot(struct many *m, struct slot *s)
{
    struct item *item = s->item;
    struct report_run *run = item->report;

    m->used.cpus -= cpus_of(s);
    m->used.memory -= s->job.o.c.memory;
    run->tries = ++item->tries;
    run->result = s->run.result;
    if (run->result.outcome == TEST_STOPPED && m->stopped_as == TEST_TIMEOUT) {
        run->result.outcome = TEST_TIMEOUT;
        run->result.code = EXIT_TIMEOUT;
    }
    reader_settle(s->reader, run);
    test_job_judge(&s->job, run);
    slot_destroy(s);
    if (test_bad(&run->test) && run->result.outcome != TEST_ERROR && !m->stopped &&
        item->tries <= m->plan->opts->retry) {
        progress_clear(&m->progress);
        fprintf(stderr, "again    %s: %s\n", run->test.name, run->test.reason ? run->test.reason : "tests failed");
        list_add_tail(&m->todo, &item->link);
        return;
    }
    finish(m, item);
}

/* Where nothing runs there is room for any. */
static bool has_room(const struct many *m, const struct slot *s)
{
    return list_empty(&m->running) || (range_fits(m->used.cpus, cpus_of(s), m->room.cpus) &&
                                       range_fits(m->used.memory, s->job.o.c.memory, m->room.memory));
}

static void start(struct many *m, struct slot *s)
{
    struct err err = {0};
    int r;

    s->start_ns = clock_now_ns();
    m->used.cpus += cpus_of(s);
    m->used.memory += s->job.o.c.memory;
    list_add_tail(&m->running, &s->link);
    progress_clear(&m->progress); /* it may say what it does otherwise than asked */
    r = test_run_start(&s->run, &s->job.spec, &m->lane, &err);
    if (r >= 0)
        return;
    s->run.result = (struct test_result){.outcome = TEST_ERROR, .code = EXIT_BOTHY};
    snprintf(s->run.result.why, sizeof(s->run.result.why), "%s", err.msg);
    done(&s->run);
}

static void start_more(struct many *m)
{
    while (!m->stopped) {
        struct err err = {0};
        struct list *l;

        if (!m->next && (l = list_pop(&m->todo))) {
            struct item *item = container_of(l, struct item, link);

            if (slot_create(m, item, &m->next, &err) < 0) { /* what was there at first is gone */
                item->report->tries = ++item->tries;
                fail(item, TEST_ERROR, EXIT_BOTHY, err.msg);
                finish(m, item);
                continue;
            }
        }
        if (!m->next || !has_room(m, m->next))
            break;
        start(m, take_ptr(m->next));
    }
}

static void settle(struct work *w, int ret)
{
    struct many *m = container_of(w, struct many, settle);
    struct list *l;

    (void)ret;
    while ((l = list_pop(&m->ended)))
        settle_slot(m, container_of(l, struct slot, link));
    start_more(m);
    draw(m);
    if (list_empty(&m->running) && list_empty(&m->ended))
        loop_quit(m->loop);
}

/* Nothing more starts, and what runs ends soon. */
static void stop_all(struct many *m, enum test_outcome as, const char *why)
{
    m->stopped_as = as;
    m->stopped = why;
    list_for_each (l, &m->running)
        test_run_stop(&container_of(l, struct slot, link)->run, why);
    work_post(&m->settle);
}

static void out_of_time(struct timer *t)
{
    stop_all(container_of(t, struct many, limit), TEST_TIMEOUT, "all runs had too little time together");
}

static void signal_arrived(struct watch *w, uint32_t revents)
{
    struct signalfd_siginfo si;

    (void)revents;
    if (read(w->fd, &si, sizeof(si)) == sizeof(si))
        stop_all(container_of(w, struct many, signals), TEST_STOPPED, strsignal((int)si.ssi_signo));
}

/* Every run is asked for once before the first starts, so that what is wrong with any is told at once. */
static int fill(struct many *m, struct err *err)
{
    m->runs = matrix_runs(&m->plan->matrix);
    m->items = xcalloc(m->runs, sizeof(*m->items));
    for (unsigned i = 0; i < m->runs; i++) {
        struct item *item = &m->items[i];
        struct test_job j = {.name = NULL};
        int r = test_job_init(&j, m->plan, i, err);

        item->index = i;
        if (r >= 0) {
            item->report = test_job_report(&j, m->report);
            list_add_tail(&m->todo, &item->link);
        }
        test_job_fini(&j);
        if (r < 0)
            return r;
    }
    return 0;
}

static void run_all(struct many *m)
{
    const struct test_opts *o = m->plan->opts;

    m->settle = (struct work){.lane = &m->lane, .done = settle};
    m->limit = (struct timer){.lane = &m->lane, .clk = CLK_HOST, .fire = out_of_time};
    m->tick = (struct timer){.lane = &m->lane, .clk = CLK_HOST, .fire = tick};
    if (o->all_timeout)
        timer_arm(&m->limit, loop_now(m->loop, CLK_HOST) + o->all_timeout * NS_PER_SEC);
    if (m->progress.live)
        timer_arm(&m->tick, loop_now(m->loop, CLK_HOST) + NS_PER_SEC);
    work_post(&m->settle);
    lane_unlock(&m->lane);
    loop_run(m->loop);
    lane_lock(&m->lane);
    timer_disarm(&m->limit);
    timer_disarm(&m->tick);
    progress_clear(&m->progress);
    slot_destroy(take_ptr(m->next));
    for (unsigned i = 0; i < m->runs; i++) {
        if (m->items[i].report->tries)
            continue;
        fail(&m->items[i], m->stopped_as, m->stopped_as == TEST_TIMEOUT ? EXIT_TIMEOUT : EXIT_INTERRUPTED,
             "not started");
        show_result(m, m->items[i].report);
    }
}

int test_many(const struct test_plan *p, struct report *r, struct err *err)
{
    struct many m = {
        .plan = p,
        .report = r,
        .signals.fd = -1,
        .streams = p->opts->format == REPORT_HUMAN && !p->opts->report,
    };
    uint64_t start_ns = clock_now_ns();
    int ret;

    list_init(&m.todo);
    list_init(&m.running);
    list_init(&m.ended);
    room_look(&m.room);
    if (p->opts->jobs)
        m.room.cpus = p->opts->jobs;
    progress_init(&m.progress);
    ret = loop_create("test", &m.loop, err);
    if (ret < 0)
        return ret;
    lane_init(&m.lane, m.loop);
    lane_lock(&m.lane);
    ret = fill(&m, err);
    if (ret >= 0)
        ret = test_watch_signals(&m.signals, &m.lane, signal_arrived, err);
    if (ret >= 0)
        run_all(&m);
    test_unwatch_signals(&m.signals);
    lane_unlock(&m.lane);
    lane_fini(&m.lane);
    loop_destroy(m.loop);
    free(m.items);
    r->ns = clock_now_ns() - start_ns;
    return ret;
}
