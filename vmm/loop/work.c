#include <signal.h>

#include "vmm/loop/loop_private.h"

enum { THREAD_STACK = 512 << 10 };

int loop_start_thread(const char *name, void *(*run)(void *), void *arg, pthread_t *ret)
{
    sigset_t all, before;
    pthread_attr_t attr;
    int rc;

    sigfillset(&all);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, THREAD_STACK);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(ret, &attr, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    if (!rc)
        pthread_setname_np(*ret, name);
    return rc;
}

static void *worker_main(void *arg)
{
    struct loop *l = arg;

    pthread_mutex_lock(&l->lock);
    for (;;) {
        struct work *w;

        while (!l->ntodo && !l->stopping)
            pthread_cond_wait(&l->work, &l->lock);
        if (!l->ntodo)
            break;
        l->ntodo--;
        l->nrunning++;
        w = container_of(list_pop(&l->todo), struct work, link);
        pthread_mutex_unlock(&l->lock);
        w->ret = w->run(w);
        pthread_mutex_lock(&l->lock);
        l->nrunning--;
        loop_post_locked(l, w);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

void work_submit(struct work *w)
{
    struct loop *l = w->lane->loop;

    lane_begin(w->lane);
    pthread_mutex_lock(&l->lock);
    assert(!w->queued);
    w->queued = w->submitted = true;
    if (l->ntodo >= l->nworkers - l->nrunning && l->nworkers < WORKERS_MAX &&
        !loop_start_thread("worker", worker_main, l, &l->workers[l->nworkers]))
        l->nworkers++;
    if (l->nworkers) {
        list_add_tail(&l->todo, &w->link);
        l->ntodo++;
        pthread_cond_signal(&l->work);
    } else {
        w->ret = -EAGAIN;
        loop_post_locked(l, w);
    }
    pthread_mutex_unlock(&l->lock);
}

void loop_stop_workers(struct loop *l)
{
    pthread_mutex_lock(&l->lock);
    l->stopping = true;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    for (unsigned i = 0; i < l->nworkers; i++)
        pthread_join(l->workers[i], NULL);
}
