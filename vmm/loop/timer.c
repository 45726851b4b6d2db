#include <sys/timerfd.h>

#include "vmm/base/clock.h"
#include "vmm/loop/loop_private.h"

/* l->lock is held here and in all static functions below. */
static uint64_t now_on(const struct loop *l, enum clk clk)
{
    if (clk == CLK_HOST)
        return clock_now_ns();
    return l->frozen ? l->frozen_ns : clock_now_ns() - l->lost_ns;
}

uint64_t loop_now(struct loop *l, enum clk clk)
{
    uint64_t now;

    pthread_mutex_lock(&l->lock);
    now = now_on(l, clk);
    pthread_mutex_unlock(&l->lock);
    return now;
}

void loop_clock_stop(struct loop *l)
{
    pthread_mutex_lock(&l->lock);
    l->frozen_ns = now_on(l, CLK_GUEST);
    l->frozen = true;
    loop_program_timer(l);
    pthread_mutex_unlock(&l->lock);
}

void loop_clock_start(struct loop *l)
{
    pthread_mutex_lock(&l->lock);
    if (l->frozen)
        l->lost_ns = clock_now_ns() - l->frozen_ns;
    l->frozen = false;
    loop_program_timer(l);
    pthread_mutex_unlock(&l->lock);
}

static struct timer *first(const struct loop *l, enum clk clk)
{
    return list_empty(&l->timers[clk]) ? NULL : container_of(l->timers[clk].next, struct timer, link);
}

/* When the first timer is due, host clock. */
static uint64_t next_ns(const struct loop *l)
{
    const struct timer *h = first(l, CLK_HOST), *g = l->frozen ? NULL : first(l, CLK_GUEST);
    uint64_t next = h ? h->due_ns : UINT64_MAX, guest;

    if (g && !__builtin_add_overflow(g->due_ns, l->lost_ns, &guest) && guest < next)
        next = guest;
    return next;
}

void loop_program_timer(struct loop *l)
{
    uint64_t next = max_u64(next_ns(l), 1); /* 0 would mean never */
    struct itimerspec its = {0};

    if (next == l->programmed)
        return;
    l->programmed = next;
    if (next != UINT64_MAX) {
        its.it_value.tv_sec = (time_t)(next / NS_PER_SEC);
        its.it_value.tv_nsec = (long)(next % NS_PER_SEC);
    }
    timerfd_settime(l->timerfd, TFD_TIMER_ABSTIME, &its, NULL);
}

static void take_off(struct loop *l, struct timer *t)
{
    list_del(&t->link);
    t->armed = false;
    l->ntimers--;
}

void timer_arm(struct timer *t, uint64_t due_ns)
{
    struct loop *l = t->lane->loop;
    struct list *at;

    pthread_mutex_lock(&l->lock);
    if (t->armed)
        take_off(l, t);
    at = &l->timers[t->clk];
    for (struct list *n = at->prev; n != &l->timers[t->clk]; n = n->prev) {
        if (container_of(n, struct timer, link)->due_ns <= due_ns)
            break;
        at = n;
    }
    list_add_tail(at, &t->link);
    t->due_ns = due_ns;
    t->armed = true;
    l->ntimers++;
    /* Earlier than the loop sleeps for: now; it sees to all else before it sleeps. */
    if (next_ns(l) < l->programmed)
        loop_program_timer(l);
    pthread_mutex_unlock(&l->lock);
}

void timer_disarm(struct timer *t)
{
    struct loop *l;

    if (!t->armed)
        return;
    l = t->lane->loop;
    pthread_mutex_lock(&l->lock);
    take_off(l, t);
    pthread_mutex_unlock(&l->lock);
}

/* The first timer that is due, of `lane` or of any (NULL). */
static struct timer *first_due(const struct loop *l, const struct lane *lane)
{
    for (enum clk clk = CLK_HOST; clk <= CLK_GUEST; clk++) {
        uint64_t now = now_on(l, clk);

        if (clk == CLK_GUEST && l->frozen)
            continue;
        list_for_each (n, &l->timers[clk]) {
            struct timer *t = container_of(n, struct timer, link);

            if (t->due_ns > now)
                break;
            if (!lane || t->lane == lane)
                return t;
        }
    }
    return NULL;
}

void loop_run_timers(struct loop *l)
{
    pthread_mutex_lock(&l->lock);
    /* At most as many as there are: one that is due again at once must not keep the rest from running. */
    for (unsigned n = l->ntimers; n; n--) {
        struct timer *t = first_due(l, NULL);
        struct lane *lane, *outer;

        if (!t)
            break;
        lane = t->lane;
        outer = loop_enter(l, lane);
        t = first_due(l, lane); /* the one from before may be gone */
        if (t)
            take_off(l, t);
        pthread_mutex_unlock(&l->lock);
        if (t)
            t->fire(t);
        pthread_mutex_lock(&l->lock);
        loop_leave(l, lane, outer);
    }
    pthread_mutex_unlock(&l->lock);
}
