/* A task's pieces on a few threads: whoever is free takes the next. */
#include <sched.h>
#include <stdlib.h>

#include "vmm/base/cleanup.h"
#include "vmm/cli/img.h"

enum { ALIGN = 4096 };

static bool take(struct img_task *t, struct img_item *ret)
{
    int rc;

    pthread_mutex_lock(&t->lock);
    rc = t->ended ? 1 : t->next(t, ret);
    if (rc)
        t->ended = true;
    if (rc < 0) {
        t->ret = rc;
        t->failed = *ret;
    }
    pthread_mutex_unlock(&t->lock);
    return !rc;
}

static void fail(struct img_task *t, const struct img_item *item, int rc)
{
    pthread_mutex_lock(&t->lock);
    t->ended = true;
    if (!t->ret) {
        t->ret = rc;
        t->failed = *item;
    }
    pthread_mutex_unlock(&t->lock);
}

static void *work(void *arg)
{
    struct img_task *t = arg;
    cleanup_free void *buf = aligned_alloc(ALIGN, align_up(t->buf_size, ALIGN));
    struct img_item item = {0};

    if (!buf)
        fail(t, &item, -ENOMEM);
    while (take(t, &item)) {
        int rc = t->run(t, &item, buf);

        if (rc)
            fail(t, &item, rc);
    }
    return NULL;
}

static unsigned cores(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof(set), &set) ? 1 : (unsigned)CPU_COUNT(&set);
}

int img_task_run(struct img_task *t)
{
    pthread_t threads[IMG_THREADS_MAX];
    unsigned want = (unsigned)min_u64(t->threads ? t->threads : cores(), IMG_THREADS_MAX), n = 0;

    pthread_mutex_init(&t->lock, NULL);
    t->ret = 0;
    t->ended = false;
    while (n + 1 < want && !pthread_create(&threads[n], NULL, work, t)) /* fewer will do */
        n++;
    work(t);
    while (n)
        pthread_join(threads[--n], NULL);
    pthread_mutex_destroy(&t->lock);
    return t->ret;
}
