/* What the files of this folder share. */
#pragma once
#include <stdatomic.h>

#include "vmm/loop/loop.h"

enum { WATCH_BUCKETS = 64, WORKERS_MAX = 4 };

struct loop {
    char name[16];
    int epfd, wakefd, timerfd;
    atomic_bool quit;
    pthread_mutex_t lock; /* a leaf; guards all below and the private parts of watches, timers and work */
    pthread_t owner;      /* who runs it */
    bool threaded;        /* … started by loop_thread() */
    uint64_t round;

    struct lane *busy;    /* the owner is about to take this lane, holds it, or has just released it */
    pthread_cond_t quiet; /* busy has changed, or a lane that somebody drains */

    uint64_t last_id;
    struct list watches[WATCH_BUCKETS]; /* by id */
    unsigned nwatches, nalways;

    struct list timers[2]; /* by clock; earliest first */
    unsigned ntimers;
    uint64_t programmed; /* when the timerfd goes off, host clock; UINT64_MAX: never; 0: it just did */
    uint64_t lost_ns;    /* how far the guest clock is behind the host's */
    uint64_t frozen_ns;  /* what the guest clock shows while it is stopped */
    bool frozen;

    struct list posted; /* work to be done() */
    unsigned nposted;

    struct list todo; /* work to be run() */
    unsigned ntodo;
    pthread_cond_t work; /* todo has grown, or stopping is set */
    pthread_t workers[WORKERS_MAX];
    unsigned nworkers, nrunning;
    bool stopping;
};

static inline bool loop_is_mine(const struct loop *l)
{
    return pthread_equal(l->owner, pthread_self());
}

/* l->lock is held around both calls, not in between.  Returns what loop_leave() wants. */
struct lane *loop_enter(struct loop *l, struct lane *lane);
void loop_leave(struct loop *l, struct lane *lane, struct lane *outer);

/* A thread with a small stack that no signal reaches. */
int loop_start_thread(const char *name, void *(*run)(void *), void *arg, pthread_t *ret);

/* l->lock is held: whoever waits for something looks again. */
void loop_tell(struct loop *l);

/* What is posted in the lane, which is held; NULL: nothing.  Then its done().  l->lock is held, but not in done(). */
struct work *loop_take_posted(struct loop *l, struct lane *lane);
void loop_finish(struct loop *l, struct work *w);

/* l->lock is held. */
void loop_post_locked(struct loop *l, struct work *w);
void loop_program_timer(struct loop *l);

/* l->lock is not held; on the owner's thread. */
void loop_run_timers(struct loop *l);

/* Joins the workers. */
void loop_stop_workers(struct loop *l);
