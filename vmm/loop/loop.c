/*
 * Nothing here frees or outlives what it calls.  A watch, timer or piece of work may be deleted by another thread, in
 * its lane, while this one is on its way to it.  So what epoll reports is a number, not a pointer: it is looked up
 * under the loop's lock to learn the lane, and looked up again once the lane is held, when nobody can delete it any
 * more. `busy` keeps lane_fini() from pulling the lane itself away in between.
 */
#include "vmm/loop/loop.h"

#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"
#include "vmm/loop/loop_private.h"

enum { ID_WAKE, ID_TIMER, ID_LAST };
enum { EVENTS_MAX = 64 }; /* taken in one round */

static int add_own(struct loop *l, int fd, uint64_t id)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = id};

    return epoll_ctl(l->epfd, EPOLL_CTL_ADD, fd, &ev);
}

int loop_create(const char *name, struct loop **ret, struct err *err)
{
    struct loop *l = xcalloc(1, sizeof(*l));

    snprintf(l->name, sizeof(l->name), "%s", name);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->quiet, NULL);
    pthread_cond_init(&l->work, NULL);
    l->owner = pthread_self();
    l->last_id = ID_LAST;
    l->programmed = UINT64_MAX;
    for (size_t i = 0; i < array_len(l->watches); i++)
        list_init(&l->watches[i]);
    list_init(&l->timers[CLK_HOST]);
    list_init(&l->timers[CLK_GUEST]);
    list_init(&l->posted);
    list_init(&l->todo);
    l->epfd = epoll_create1(EPOLL_CLOEXEC);
    l->wakefd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    l->timerfd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (l->epfd < 0 || l->wakefd < 0 || l->timerfd < 0 || add_own(l, l->wakefd, ID_WAKE) ||
        add_own(l, l->timerfd, ID_TIMER)) {
        int code = errno;

        loop_destroy(l);
        return err_set(err, code, "event loop %s: %s", name, strerror(code));
    }
    *ret = l;
    return 0;
}

void loop_destroy(struct loop *l)
{
    if (!l)
        return;
    if (l->threaded) {
        loop_quit(l);
        pthread_join(l->owner, NULL);
    }
    loop_stop_workers(l);
    assert(!l->nwatches && !l->ntimers && !l->nposted);
    if (l->epfd >= 0)
        close(l->epfd);
    if (l->wakefd >= 0)
        close(l->wakefd);
    if (l->timerfd >= 0)
        close(l->timerfd);
    pthread_cond_destroy(&l->work);
    pthread_cond_destroy(&l->quiet);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

static void wake(struct loop *l)
{
    int saved = errno; /* a signal handler may be our caller */
    uint64_t one = 1;

    if (write(l->wakefd, &one, sizeof(one)) < 0)
        errno = saved; /* the counter is full: it is awake */
}

void loop_tell(struct loop *l)
{
    pthread_cond_broadcast(&l->quiet);
    if (!loop_is_mine(l))
        wake(l);
}

struct lane *loop_enter(struct loop *l, struct lane *lane)
{
    struct lane *outer = l->busy;

    l->busy = lane;
    pthread_mutex_unlock(&l->lock);
    lane_lock(lane);
    pthread_mutex_lock(&l->lock);
    return outer;
}

void loop_leave(struct loop *l, struct lane *lane, struct lane *outer)
{
    pthread_mutex_unlock(&l->lock);
    lane_unlock(lane);
    pthread_mutex_lock(&l->lock);
    l->busy = outer;
    pthread_cond_broadcast(&l->quiet);
}

static struct watch *find_watch(struct loop *l, uint64_t id)
{
    list_for_each (n, &l->watches[id % WATCH_BUCKETS]) {
        struct watch *w = container_of(n, struct watch, link);

        if (w->id == id)
            return w;
    }
    return NULL;
}

static void run_watch(struct loop *l, uint64_t id, uint32_t revents)
{
    struct lane *lane, *outer;
    struct watch *w;

    pthread_mutex_lock(&l->lock);
    w = find_watch(l, id);
    if (w) {
        lane = w->lane;
        outer = loop_enter(l, lane);
        w = find_watch(l, id);
        pthread_mutex_unlock(&l->lock);
        if (w && w->events && revents & (w->events | EPOLLHUP | EPOLLERR))
            w->ready(w, revents & (w->events | EPOLLHUP | EPOLLERR));
        pthread_mutex_lock(&l->lock);
        loop_leave(l, lane, outer);
    }
    pthread_mutex_unlock(&l->lock);
}

struct work *loop_take_posted(struct loop *l, struct lane *lane)
{
    list_for_each (n, &l->posted) {
        struct work *w = container_of(n, struct work, link);

        if (w->lane != lane)
            continue;
        list_del(n);
        w->queued = false;
        lane->posted--;
        l->nposted--;
        return w;
    }
    return NULL;
}

void loop_finish(struct loop *l, struct work *w)
{
    bool submitted = w->submitted;

    pthread_mutex_unlock(&l->lock);
    if (submitted)
        lane_end(w->lane);
    w->done(w, submitted ? w->ret : 0);
    pthread_mutex_lock(&l->lock);
}

static void run_posted(struct loop *l)
{
    pthread_mutex_lock(&l->lock);
    /* Only what is there now: work that posts itself again must not keep the rest from running. */
    for (unsigned n = l->nposted; n && l->nposted; n--) {
        struct lane *lane = container_of(l->posted.next, struct work, link)->lane, *outer = loop_enter(l, lane);
        struct work *w = loop_take_posted(l, lane); /* whoever drains the lane may have been faster */

        if (w)
            loop_finish(l, w);
        loop_leave(l, lane, outer);
    }
    pthread_mutex_unlock(&l->lock);
}

/* Regular files, as if epoll had reported them. */
static unsigned add_always(struct loop *l, struct epoll_event *ev, unsigned n)
{
    pthread_mutex_lock(&l->lock);
    for (size_t i = 0; i < WATCH_BUCKETS && l->nalways; i++)
        list_for_each (node, &l->watches[i]) {
            struct watch *w = container_of(node, struct watch, link);

            if (w->always && n < EVENTS_MAX)
                ev[n++] = (struct epoll_event){.events = w->events & (EPOLLIN | EPOLLOUT), .data.u64 = w->id};
        }
    pthread_mutex_unlock(&l->lock);
    return n;
}

void loop_once(struct loop *l, int timeout_ms)
{
    struct epoll_event ev[EVENTS_MAX];
    uint64_t round, count;
    int n;

    assert(loop_is_mine(l));
    pthread_mutex_lock(&l->lock);
    loop_program_timer(l);
    if (l->nposted || l->nalways)
        timeout_ms = 0;
    round = ++l->round;
    pthread_mutex_unlock(&l->lock);
    n = epoll_wait(l->epfd, ev, EVENTS_MAX, timeout_ms);
    n = (int)add_always(l, ev, n < 0 ? 0 : (unsigned)n);
    /* A callback may run the loop (lane_drain): what it has seen to since, we would see to again. */
    for (int i = 0; i < n && round == l->round; i++) {
        if (ev[i].data.u64 == ID_WAKE) {
            while (read(l->wakefd, &count, sizeof(count)) < 0 && errno == EINTR)
                ;
        } else if (ev[i].data.u64 == ID_TIMER) {
            pthread_mutex_lock(&l->lock);
            l->programmed = 0;
            pthread_mutex_unlock(&l->lock);
        } else {
            run_watch(l, ev[i].data.u64, ev[i].events);
        }
    }
    loop_run_timers(l);
    run_posted(l);
}

void loop_run(struct loop *l)
{
    while (!atomic_exchange(&l->quit, false))
        loop_once(l, -1);
}

void loop_quit(struct loop *l)
{
    atomic_store(&l->quit, true);
    wake(l);
}

static void *thread_main(void *arg)
{
    struct loop *l = arg;

    /* Whoever started us may not have written l->owner yet. */
    pthread_mutex_lock(&l->lock);
    pthread_mutex_unlock(&l->lock);
    loop_run(l);
    return NULL;
}

int loop_thread(struct loop *l, struct err *err)
{
    int rc;

    pthread_mutex_lock(&l->lock);
    rc = loop_start_thread(l->name, thread_main, l, &l->owner);
    l->threaded = !rc;
    pthread_mutex_unlock(&l->lock);
    return rc ? err_set(err, rc, "start thread %s: %s", l->name, strerror(rc)) : 0;
}

/* The loop's lock is held.  A sleeping watch is not in the epoll set, which would report hang-ups even so. */
static void change(struct loop *l, struct watch *w, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.u64 = w->id};
    int op = !events ? EPOLL_CTL_DEL : w->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

    if (w->always)
        l->nalways += !!events - !!w->events;
    else if (events != w->events && epoll_ctl(l->epfd, op, w->fd, &ev)) {
        if (errno != EPERM) {
            log_msg(LOG_ERROR, "%s: cannot watch descriptor %d: %s", l->name, w->fd, strerror(errno));
            abort();
        }
        w->always = true;
        l->nalways++;
    }
    w->events = events;
}

void watch_add(struct watch *w)
{
    struct loop *l = w->lane->loop;
    uint32_t events = w->events;

    assert(!w->id);
    pthread_mutex_lock(&l->lock);
    w->id = ++l->last_id;
    w->always = false;
    w->events = 0;
    list_add_tail(&l->watches[w->id % WATCH_BUCKETS], &w->link);
    l->nwatches++;
    change(l, w, events);
    pthread_mutex_unlock(&l->lock);
}

void watch_set(struct watch *w, uint32_t events)
{
    struct loop *l = w->lane->loop;

    pthread_mutex_lock(&l->lock);
    if (w->id)
        change(l, w, events);
    pthread_mutex_unlock(&l->lock);
}

void watch_del(struct watch *w)
{
    struct loop *l;

    if (!w->id)
        return;
    l = w->lane->loop;
    pthread_mutex_lock(&l->lock);
    change(l, w, 0);
    list_del(&w->link);
    l->nwatches--;
    w->id = 0;
    pthread_mutex_unlock(&l->lock);
}

void loop_post_locked(struct loop *l, struct work *w)
{
    list_add_tail(&l->posted, &w->link);
    if (!w->lane->posted++)
        pthread_cond_broadcast(&l->quiet);
    /* The owner looks before it sleeps, and whoever came first has woken it. */
    if (!l->nposted++ && !loop_is_mine(l))
        wake(l);
}

void work_post(struct work *w)
{
    struct loop *l = w->lane->loop;

    pthread_mutex_lock(&l->lock);
    if (!w->queued) {
        w->queued = true;
        w->submitted = false;
        loop_post_locked(l, w);
    }
    pthread_mutex_unlock(&l->lock);
}
