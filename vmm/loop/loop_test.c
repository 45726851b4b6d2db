#include "vmm/base/test.h"
#include "vmm/loop/loop.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/base/clock.h"
#include "vmm/loop/loop_private.h"

struct rig {
    struct loop *loop;
    struct lane lane;
};

static int with_loop(void **s)
{
    static struct rig rig;
    struct err err;

    if (loop_create("test", &rig.loop, &err))
        fail_msg("%s", err.msg);
    lane_init(&rig.lane, rig.loop);
    *s = &rig;
    return 0;
}

static int without_loop(void **s)
{
    struct rig *rig = *s;

    lane_fini(&rig->lane);
    loop_destroy(rig->loop);
    return 0;
}

static bool held(struct lane *lane)
{
    if (pthread_mutex_trylock(&lane->lock))
        return true;
    lane_unlock(lane);
    return false;
}

/* Watches */

struct bell { /* an eventfd that counts its calls */
    struct watch w;
    unsigned calls;
    uint32_t revents;
    struct bell *kills; /* deletes this one when called */
    bool drains;
};

static void bell_ready(struct watch *w, uint32_t revents)
{
    struct bell *b = container_of(w, struct bell, w);
    uint64_t n;

    assert_true(held(w->lane));
    b->calls++;
    b->revents = revents;
    if (b->drains)
        assert_int_equal(read(w->fd, &n, sizeof(n)), sizeof(n));
    if (b->kills)
        watch_del(&b->kills->w);
}

static void bell_add(struct bell *b, struct lane *lane, unsigned count)
{
    *b = (struct bell){.w = {.lane = lane, .fd = eventfd(count, EFD_NONBLOCK | EFD_CLOEXEC), .events = EPOLLIN}};
    b->w.ready = bell_ready;
    watch_add(&b->w);
}

static void bell_remove(struct bell *b)
{
    watch_del(&b->w);
    watch_del(&b->w); /* no-op */
    close(b->w.fd);
}

static void a_watch_is_called_in_its_lane_while_ready(void **s)
{
    struct rig *rig = *s;
    struct bell b;

    bell_add(&b, &rig->lane, 0);
    loop_once(rig->loop, 0);
    assert_int_equal(b.calls, 0);
    eventfd_write(b.w.fd, 1);
    loop_once(rig->loop, -1);
    loop_once(rig->loop, -1);
    assert_int_equal(b.calls, 2);
    assert_int_equal(b.revents, EPOLLIN);
    watch_set(&b.w, EPOLLIN | EPOLLOUT);
    loop_once(rig->loop, -1);
    assert_int_equal(b.revents, EPOLLIN | EPOLLOUT);
    watch_set(&b.w, 0);
    loop_once(rig->loop, 0);
    assert_int_equal(b.calls, 3);
    watch_set(&b.w, EPOLLOUT);
    loop_once(rig->loop, -1);
    assert_int_equal(b.revents, EPOLLOUT);
    bell_remove(&b);
    loop_once(rig->loop, 0);
    assert_int_equal(b.calls, 4);
    watch_set(&b.w, EPOLLIN); /* not added: no-op */
    assert_int_equal(b.w.id, 0);
}

static void a_watch_deleted_by_another_in_the_same_round_is_not_called(void **s)
{
    struct rig *rig = *s;
    struct bell a, b;

    bell_add(&a, &rig->lane, 1);
    bell_add(&b, &rig->lane, 1);
    a.kills = &b;
    b.kills = &a;
    loop_once(rig->loop, -1);
    assert_int_equal(a.calls + b.calls, 1);
    bell_remove(&a);
    bell_remove(&b);
}

static void readd(struct watch *w, uint32_t revents)
{
    struct bell *b = container_of(w, struct bell, w);

    (void)revents;
    b->calls++;
    watch_del(&b->kills->w);
    close(b->kills->w.fd);
    bell_add(b->kills, w->lane, 0);
}

static void a_watch_added_anew_gets_no_event_of_its_former_self(void **s)
{
    struct rig *rig = *s;
    struct bell a, b;

    bell_add(&a, &rig->lane, 1);
    bell_add(&b, &rig->lane, 1);
    a.w.ready = b.w.ready = readd;
    a.kills = &b;
    b.kills = &a;
    loop_once(rig->loop, -1); /* one of them replaces the other, whose event was fetched as well */
    assert_int_equal(a.calls + b.calls, 1);
    bell_remove(&a);
    bell_remove(&b);
}

static void a_sleeping_watch_hears_no_hangup(void **s)
{
    struct rig *rig = *s;
    struct bell b = {0};
    int p[2];

    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    b.w = (struct watch){.lane = &rig->lane, .fd = p[0], .events = 0, .ready = bell_ready};
    watch_add(&b.w);
    close(p[1]);
    loop_once(rig->loop, 0);
    assert_int_equal(b.calls, 0);
    watch_set(&b.w, EPOLLIN);
    loop_once(rig->loop, -1);
    assert_int_equal(b.revents, EPOLLHUP);
    bell_remove(&b);
}

static void a_regular_file_is_always_ready(void **s)
{
    struct rig *rig = *s;
    struct bell b = {0};

    b.w = (struct watch){.lane = &rig->lane, .fd = memfd_create("file", MFD_CLOEXEC), .ready = bell_ready};
    b.w.events = EPOLLIN;
    watch_add(&b.w);
    loop_once(rig->loop, -1);
    loop_once(rig->loop, -1);
    assert_int_equal(b.calls, 2);
    assert_int_equal(b.revents, EPOLLIN);
    watch_set(&b.w, 0);
    loop_once(rig->loop, 0);
    assert_int_equal(b.calls, 2);
    watch_set(&b.w, EPOLLOUT);
    loop_once(rig->loop, -1);
    assert_int_equal(b.revents, EPOLLOUT);
    bell_remove(&b);
    loop_once(rig->loop, 0);
    assert_int_equal(b.calls, 3);
}

/* Timers */

struct alarm {
    struct timer t;
    unsigned fired, order;
    bool again;
};

static unsigned order;

static void alarm_fire(struct timer *t)
{
    struct alarm *a = container_of(t, struct alarm, t);

    assert_true(held(t->lane));
    assert_false(t->armed);
    a->fired++;
    a->order = order++;
    if (a->again)
        timer_arm(t, 0);
}

static struct alarm alarm_on(struct rig *rig, enum clk clk)
{
    return (struct alarm){.t = {.lane = &rig->lane, .clk = clk, .fire = alarm_fire}};
}

static void timers_fire_once_and_in_order(void **s)
{
    struct rig *rig = *s;
    uint64_t now = loop_now(rig->loop, CLK_HOST);
    struct alarm a = alarm_on(rig, CLK_HOST), b = a, c = a;

    order = 0;
    timer_arm(&b.t, now + 2000);
    timer_arm(&a.t, now + 1000);
    timer_arm(&c.t, now + 2000); /* as b, but later */
    while (!c.fired)
        loop_once(rig->loop, -1);
    assert_int_equal(a.order, 0);
    assert_int_equal(b.order, 1);
    assert_int_equal(c.order, 2);
    assert_true(loop_now(rig->loop, CLK_HOST) >= now + 2000);
    loop_once(rig->loop, 0);
    assert_int_equal(a.fired + b.fired + c.fired, 3);
}

static void a_disarmed_timer_neither_fires_nor_wakes(void **s)
{
    struct rig *rig = *s;
    struct alarm a = alarm_on(rig, CLK_HOST), unused = {0};

    timer_disarm(&unused.t);
    timer_arm(&a.t, loop_now(rig->loop, CLK_HOST) + NS_PER_SEC);
    timer_arm(&a.t, 1); /* re-armed: long due */
    timer_disarm(&a.t);
    loop_once(rig->loop, 0);
    assert_int_equal(a.fired, 0);
    loop_once(rig->loop, 0);
    assert_int_equal(rig->loop->programmed, UINT64_MAX);
}

static void a_timer_that_is_always_due_starves_nobody(void **s)
{
    struct rig *rig = *s;
    struct alarm a = alarm_on(rig, CLK_HOST);
    struct bell b;

    a.again = true;
    timer_arm(&a.t, 0);
    loop_once(rig->loop, -1);
    assert_int_equal(a.fired, 1);
    bell_add(&b, &rig->lane, 1);
    loop_once(rig->loop, -1);
    loop_once(rig->loop, -1);
    assert_true(b.calls > 0);
    a.again = false;
    timer_disarm(&a.t);
    bell_remove(&b);
}

static void the_guest_clock_stands_still_while_stopped(void **s)
{
    struct rig *rig = *s;
    struct alarm g = alarm_on(rig, CLK_GUEST), h = alarm_on(rig, CLK_HOST);
    uint64_t frozen, host;

    loop_clock_stop(rig->loop);
    loop_clock_stop(rig->loop);
    frozen = loop_now(rig->loop, CLK_GUEST);
    timer_arm(&g.t, frozen);
    host = loop_now(rig->loop, CLK_HOST);
    timer_arm(&h.t, host + 1000);
    while (!h.fired)
        loop_once(rig->loop, -1);
    assert_int_equal(g.fired, 0);
    assert_int_equal(loop_now(rig->loop, CLK_GUEST), frozen);
    loop_clock_start(rig->loop);
    loop_clock_start(rig->loop);
    while (!g.fired)
        loop_once(rig->loop, -1);
    /* The guest has not seen the time that passed while it was stopped. */
    assert_true(loop_now(rig->loop, CLK_HOST) - loop_now(rig->loop, CLK_GUEST) >= 1000);
    timer_arm(&g.t, UINT64_MAX); /* never, and no overflow */
    loop_once(rig->loop, 0);
    assert_int_equal(rig->loop->programmed, UINT64_MAX);
    timer_disarm(&g.t);
}

/* Work */

struct job {
    struct work w;
    pthread_t ran_on;
    unsigned done;
    int ret;
    unsigned again;         /* posts itself so many times more */
    pthread_barrier_t *bar; /* meets others while it runs */
};

static int job_run(struct work *w)
{
    struct job *j = container_of(w, struct job, w);

    j->ran_on = pthread_self();
    if (j->bar)
        pthread_barrier_wait(j->bar);
    return 42;
}

static void job_done(struct work *w, int ret)
{
    struct job *j = container_of(w, struct job, w);

    assert_true(held(w->lane));
    j->done++;
    j->ret = ret;
    if (j->again) {
        j->again--;
        work_post(w);
    }
}

static struct job job_in(struct lane *lane)
{
    return (struct job){.w = {.lane = lane, .run = job_run, .done = job_done}, .ret = -1};
}

static void posted_work_is_done_once_by_the_loop(void **s)
{
    struct rig *rig = *s;
    struct job j = job_in(&rig->lane);

    work_post(&j.w);
    work_post(&j.w);
    assert_int_equal(j.done, 0);
    loop_once(rig->loop, -1);
    loop_once(rig->loop, 0);
    assert_int_equal(j.done, 1);
    assert_int_equal(j.ret, 0);
    j.again = 2;
    work_post(&j.w);
    loop_once(rig->loop, -1);
    assert_int_equal(j.done, 2); /* once a round: it starves nobody */
    loop_once(rig->loop, -1);
    loop_once(rig->loop, -1);
    assert_int_equal(j.done, 4);
}

static void submitted_work_runs_elsewhere_and_ends_here(void **s)
{
    struct rig *rig = *s;
    pthread_barrier_t bar;
    struct job j[WORKERS_MAX];

    pthread_barrier_init(&bar, NULL, WORKERS_MAX);
    lane_lock(&rig->lane);
    for (int i = 0; i < WORKERS_MAX; i++) {
        j[i] = job_in(&rig->lane);
        j[i].bar = &bar; /* none ends before all have begun */
        work_submit(&j[i].w);
    }
    assert_int_equal(rig->lane.inflight, WORKERS_MAX);
    lane_drain(&rig->lane);
    assert_int_equal(rig->lane.inflight, 0);
    lane_unlock(&rig->lane);
    for (int i = 0; i < WORKERS_MAX; i++) {
        assert_int_equal(j[i].done, 1);
        assert_int_equal(j[i].ret, 42);
        assert_false(pthread_equal(j[i].ran_on, pthread_self()));
    }
    pthread_barrier_destroy(&bar);
}

static void workers_come_on_demand_and_are_few(void **s)
{
    struct rig *rig = *s;
    struct job j[100];

    assert_int_equal(rig->loop->nworkers, 0);
    j[0] = job_in(&rig->lane);
    for (int i = 0; i < 50; i++) { /* one at a time needs one worker */
        lane_lock(&rig->lane);
        work_submit(&j[0].w);
        lane_drain(&rig->lane);
        lane_unlock(&rig->lane);
    }
    assert_int_equal(rig->loop->nworkers, 1);
    lane_lock(&rig->lane);
    for (size_t i = 0; i < array_len(j); i++) {
        j[i] = job_in(&rig->lane);
        work_submit(&j[i].w);
    }
    lane_drain(&rig->lane);
    lane_unlock(&rig->lane);
    assert_true(rig->loop->nworkers <= WORKERS_MAX);
    for (size_t i = 0; i < array_len(j); i++)
        assert_int_equal(j[i].done, 1);
}

static void drain_waits_for_posted_work_and_for_lane_end(void **s)
{
    struct rig *rig = *s;
    struct job j = job_in(&rig->lane);

    j.again = 3;
    work_post(&j.w);
    lane_lock(&rig->lane);
    lane_drain(&rig->lane);
    assert_int_equal(j.done, 4);
    lane_begin(&rig->lane);
    lane_end(&rig->lane);
    lane_drain(&rig->lane);
    lane_unlock(&rig->lane);
}

static void drains_in_ready(struct watch *w, uint32_t revents)
{
    bell_ready(w, revents);
    watch_set(w, 0);
    lane_drain(w->lane);
    assert_true(held(w->lane));
}

static void a_callback_may_drain_its_lane(void **s)
{
    struct rig *rig = *s;
    struct job j = job_in(&rig->lane);
    struct bell a, b;

    bell_add(&a, &rig->lane, 1);
    bell_add(&b, &rig->lane, 1);
    a.w.ready = b.w.ready = drains_in_ready;
    a.drains = b.drains = true;
    lane_lock(&rig->lane);
    work_submit(&j.w);
    lane_unlock(&rig->lane);
    while (a.calls + b.calls < 2)
        loop_once(rig->loop, -1);
    assert_int_equal(a.calls, 1); /* not again for what the inner round has seen to */
    assert_int_equal(b.calls, 1);
    assert_int_equal(j.done, 1);
    bell_remove(&a);
    bell_remove(&b);
}

/* Threads */

static void *quit_thread(void *arg)
{
    loop_quit(arg);
    return NULL;
}

static void quit_ends_run_from_any_thread(void **s)
{
    struct rig *rig = *s;
    pthread_t t;

    loop_quit(rig->loop);
    loop_run(rig->loop); /* asked before it began */
    assert_int_equal(pthread_create(&t, NULL, quit_thread, rig->loop), 0);
    loop_run(rig->loop);
    pthread_join(t, NULL);
}

static void *drain_thread(void *arg)
{
    struct lane *lane = arg;

    lane_lock(lane);
    lane_drain(lane);
    lane_unlock(lane);
    return NULL;
}

static void drain_does_not_need_the_loops_thread_for_work(void **s)
{
    struct rig *rig = *s;
    struct job submitted = job_in(&rig->lane), posted = submitted;
    pthread_t t;

    lane_lock(&rig->lane);
    work_submit(&submitted.w);
    lane_unlock(&rig->lane);
    work_post(&posted.w);
    assert_int_equal(pthread_create(&t, NULL, drain_thread, &rig->lane), 0);
    pthread_join(t, NULL); /* nobody has run the loop */
    assert_int_equal(submitted.done, 1);
    assert_int_equal(submitted.ret, 42);
    assert_int_equal(posted.done, 1);
}

static void ends_operation(struct watch *w, uint32_t revents)
{
    bell_ready(w, revents);
    watch_set(w, 0);
    lane_end(w->lane);
}

static void another_thread_drains_what_the_loop_ends(void **s)
{
    struct rig *rig = *s;
    struct bell b;
    pthread_t t;

    bell_add(&b, &rig->lane, 1);
    b.w.ready = ends_operation;
    lane_lock(&rig->lane);
    lane_begin(&rig->lane);
    lane_unlock(&rig->lane);
    assert_int_equal(pthread_create(&t, NULL, drain_thread, &rig->lane), 0);
    loop_once(rig->loop, -1);
    pthread_join(t, NULL);
    assert_int_equal(b.calls, 1);
    bell_remove(&b);
}

static void *signal_mask_thread(void *arg)
{
    sigset_t *set = arg;

    pthread_sigmask(SIG_SETMASK, NULL, set);
    return NULL;
}

static void threads_of_ours_get_no_signals(void **s)
{
    sigset_t mask;
    pthread_t t;

    (void)s;
    sigemptyset(&mask);
    assert_int_equal(loop_start_thread("test", signal_mask_thread, &mask, &t), 0);
    pthread_join(t, NULL);
    assert_true(sigismember(&mask, SIGTERM));
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    assert_false(sigismember(&mask, SIGTERM));
}

enum { LANES = 3, HAMMERS = 4, BLOWS = 300 };

struct anvil { /* what the hammers share */
    struct loop *loop;
    struct lane lanes[LANES];
    struct job posts[LANES];
    atomic_uint submitted, ended, fired;
};

struct blow {
    struct work w;
    struct anvil *anvil;
};

static int blow_run(struct work *w)
{
    (void)w;
    return 0;
}

static void blow_done(struct work *w, int ret)
{
    struct blow *b = container_of(w, struct blow, w);

    (void)ret;
    atomic_fetch_add(&b->anvil->ended, 1);
    free(b);
}

struct guest { /* a component that comes and goes: its memory tells when it is used too late */
    struct lane lane;
    struct watch w;
    struct timer t;
    bool gone;
    unsigned calls;
};

static void guest_ready(struct watch *w, uint32_t revents)
{
    struct guest *g = container_of(w, struct guest, w);

    (void)revents;
    assert_false(g->gone);
    g->calls++;
}

static void guest_fire(struct timer *t)
{
    struct guest *g = container_of(t, struct guest, t);

    assert_false(g->gone);
    timer_arm(t, 0);
}

static void guest_lives(struct anvil *a, unsigned i)
{
    struct guest *g = calloc(1, sizeof(*g));

    lane_init(&g->lane, a->loop);
    g->w = (struct watch){.lane = &g->lane, .fd = eventfd(1, EFD_CLOEXEC), .events = EPOLLIN, .ready = guest_ready};
    g->t = (struct timer){.lane = &g->lane, .clk = i & 1 ? CLK_GUEST : CLK_HOST, .fire = guest_fire};
    lane_lock(&g->lane);
    watch_add(&g->w);
    timer_arm(&g->t, 0);
    lane_unlock(&g->lane);
    if (i % 3)
        sched_yield();
    lane_lock(&g->lane);
    watch_del(&g->w);
    timer_disarm(&g->t);
    g->gone = true;
    lane_unlock(&g->lane);
    close(g->w.fd);
    lane_fini(&g->lane);
    free(g);
}

static void *hammer(void *arg)
{
    struct anvil *a = arg;

    for (unsigned i = 0; i < BLOWS; i++) {
        struct lane *lane = &a->lanes[i % LANES];
        struct blow *b = calloc(1, sizeof(*b));

        work_post(&a->posts[i % LANES].w);
        *b = (struct blow){.w = {.lane = lane, .run = blow_run, .done = blow_done}, .anvil = a};
        lane_lock(lane);
        work_submit(&b->w);
        atomic_fetch_add(&a->submitted, 1);
        if (i % 16 == 0)
            lane_drain(lane);
        lane_unlock(lane);
        guest_lives(a, i);
        if (i % 64 == 0) {
            loop_clock_stop(a->loop);
            loop_clock_start(a->loop);
        }
    }
    return NULL;
}

static void many_threads_hammer_one_loop(void **s)
{
    struct anvil a = {0};
    pthread_t t[HAMMERS];
    struct err err;

    (void)s;
    if (loop_create("anvil", &a.loop, &err) || loop_thread(a.loop, &err))
        fail_msg("%s", err.msg);
    for (int i = 0; i < LANES; i++) {
        lane_init(&a.lanes[i], a.loop);
        a.posts[i] = job_in(&a.lanes[i]);
    }
    for (int i = 0; i < HAMMERS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, hammer, &a), 0);
    for (int i = 0; i < HAMMERS; i++)
        pthread_join(t[i], NULL);
    for (int i = 0; i < LANES; i++) {
        lane_lock(&a.lanes[i]);
        lane_drain(&a.lanes[i]);
        assert_true(a.posts[i].done > 0);
        lane_unlock(&a.lanes[i]);
        lane_fini(&a.lanes[i]);
    }
    assert_int_equal(a.submitted, HAMMERS * BLOWS);
    assert_int_equal(a.ended, HAMMERS * BLOWS);
    loop_destroy(a.loop);
    loop_destroy(NULL);
}

#define with_rig(test) cmocka_unit_test_setup_teardown(test, with_loop, without_loop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_rig(a_watch_is_called_in_its_lane_while_ready),
        with_rig(a_watch_deleted_by_another_in_the_same_round_is_not_called),
        with_rig(a_watch_added_anew_gets_no_event_of_its_former_self),
        with_rig(a_sleeping_watch_hears_no_hangup),
        with_rig(a_regular_file_is_always_ready),
        with_rig(timers_fire_once_and_in_order),
        with_rig(a_disarmed_timer_neither_fires_nor_wakes),
        with_rig(a_timer_that_is_always_due_starves_nobody),
        with_rig(the_guest_clock_stands_still_while_stopped),
        with_rig(posted_work_is_done_once_by_the_loop),
        with_rig(submitted_work_runs_elsewhere_and_ends_here),
        with_rig(workers_come_on_demand_and_are_few),
        with_rig(drain_waits_for_posted_work_and_for_lane_end),
        with_rig(a_callback_may_drain_its_lane),
        with_rig(quit_ends_run_from_any_thread),
        with_rig(drain_does_not_need_the_loops_thread_for_work),
        with_rig(another_thread_drains_what_the_loop_ends),
        cmocka_unit_test(threads_of_ours_get_no_signals),
        cmocka_unit_test(many_threads_hammer_one_loop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
