/*
 * Where code runs.  A lane belongs to one component (a device): one lock, one loop, one count of unfinished operations.
 * Whoever calls into a component takes its lane first; the component itself never locks.  Nobody holds two lanes: one
 * component talks to another by irq_set(), the bus, or work_post().  Lock order: lane, then leaf locks inside bus, irq
 * and mem.
 *
 * A loop is an epoll set, timers and posted work, run by one thread.  Moving a component to an I/O thread of its own is
 * giving its lane another loop.
 *
 * watch, timer and work are embedded in their owner: adding one never allocates and so never fails.
 */
#pragma once
#include <pthread.h>
#include <sys/epoll.h>

#include "vmm/base/base.h"
#include "vmm/base/err.h"
#include "vmm/base/list.h"

struct loop;

struct lane {
    struct loop *loop; /* borrowed */
    pthread_mutex_t lock;
    unsigned inflight;
    unsigned draining; /* threads in lane_drain() */
    unsigned posted;   /* work whose done() is due; under the loop's lock */
};

struct watch {
    struct lane *lane; /* borrowed */
    int fd;            /* borrowed */
    uint32_t events;   /* EPOLLIN | EPOLLOUT …; 0: keep, but sleep */
    void (*ready)(struct watch *w, uint32_t revents);
    struct list link; /* private to the loop, as is all below in the others */
    uint64_t id;      /* never used twice by a loop; 0: not added */
    bool always;      /* a regular file, which epoll refuses and which never blocks */
};

enum clk { CLK_HOST, CLK_GUEST }; /* CLK_GUEST stands still while the machine is stopped */

struct timer {
    struct lane *lane; /* borrowed */
    enum clk clk;
    void (*fire)(struct timer *t);
    uint64_t due_ns;
    struct list link;
    bool armed;
};

struct work {
    struct lane *lane;                     /* borrowed */
    int (*run)(struct work *w);            /* on a worker thread, no lane held; may block */
    void (*done)(struct work *w, int ret); /* in the lane */
    int ret;
    bool queued, submitted;
    struct list link;
};

/* A loop that nobody runs yet.  It belongs to the calling thread, which calls loop_run(), or loop_thread() instead to
 * start one for it. */
int loop_create(const char *name, struct loop **ret, struct err *err) must_check;
/* Stops and joins the thread if there is one.  All watches and timers must be gone.  Accepts NULL. */
void loop_destroy(struct loop *l);
int loop_thread(struct loop *l, struct err *err) must_check;
/* Until loop_quit(). */
void loop_run(struct loop *l);
/* One round: waits at most `timeout_ms` (-1: until something happens), then calls what is ready. */
void loop_once(struct loop *l, int timeout_ms);
void loop_quit(struct loop *l); /* any thread, signal-safe */
/* Now, on a clock of the loop's; ns. */
uint64_t loop_now(struct loop *l, enum clk clk);
/* Stops and restarts the guest clock of this loop; the machine does, for all its loops. */
void loop_clock_stop(struct loop *l);
void loop_clock_start(struct loop *l);

void lane_init(struct lane *lane, struct loop *loop);
void lane_fini(struct lane *lane); /* nothing in flight, lane not held */
static inline void lane_lock(struct lane *lane)
{
    pthread_mutex_lock(&lane->lock);
}
static inline void lane_unlock(struct lane *lane)
{
    pthread_mutex_unlock(&lane->lock);
}
/* Bracket an operation that completes later.  In the lane. */
void lane_begin(struct lane *lane);
void lane_end(struct lane *lane);
/*
 * Waits, lane held on entry and exit and released in between, until no operation is in flight and no posted work
 * waits.  Calls the lane's done() functions itself meanwhile, and runs the loop if that is the calling thread's.
 */
void lane_drain(struct lane *lane);

/* In the lane, or before the loop runs.  watch_del: when it returns, ready() will not be called again; then close the
 * descriptor.  Regular files are always ready.  EPOLLHUP and EPOLLERR come unasked, but not while `events` is 0. */
void watch_add(struct watch *w);
void watch_set(struct watch *w, uint32_t events); /* change what to wait for; no-op when not added */
void watch_del(struct watch *w);                  /* no-op when not added */
void timer_arm(struct timer *t, uint64_t due_ns); /* absolute, on its clock; re-arms */
void timer_disarm(struct timer *t);               /* no-op when not armed */
/* run() on a worker, then done() in the lane.  Counts as in flight in the lane from here to done().  In the lane.
 * done() gets what run() returned, or -EAGAIN when the host has no thread for it. */
void work_submit(struct work *w);
/* done(w, 0) in the lane, soon; once, however often it was posted until then.  Any thread, any lane held. */
void work_post(struct work *w);
