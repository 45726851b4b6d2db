#include "vmm/loop/loop_private.h"

void lane_init(struct lane *lane, struct loop *loop)
{
    *lane = (struct lane){.loop = loop};
    pthread_mutex_init(&lane->lock, NULL);
    pthread_cond_init(&lane->idle, NULL);
}

void lane_fini(struct lane *lane)
{
    struct loop *l = lane->loop;

    if (l) {
        pthread_mutex_lock(&l->lock);
        while (l->busy == lane) {
            assert(!loop_is_mine(l));
            pthread_cond_wait(&l->quiet, &l->lock);
        }
        assert(!lane->posted);
        pthread_mutex_unlock(&l->lock);
    }
    assert(!lane->inflight);
    pthread_cond_destroy(&lane->idle);
    pthread_mutex_destroy(&lane->lock);
}

void lane_begin(struct lane *lane)
{
    lane->inflight++;
}

void lane_end(struct lane *lane)
{
    assert(lane->inflight);
    if (!--lane->inflight)
        pthread_cond_broadcast(&lane->idle);
}

static bool is_idle(struct lane *lane)
{
    bool posted;

    pthread_mutex_lock(&lane->loop->lock);
    posted = lane->posted;
    pthread_mutex_unlock(&lane->loop->lock);
    return !posted && !lane->inflight;
}

void lane_drain(struct lane *lane)
{
    while (!is_idle(lane)) {
        if (loop_is_mine(lane->loop)) {
            lane_unlock(lane);
            loop_once(lane->loop, -1);
            lane_lock(lane);
        } else {
            pthread_cond_wait(&lane->idle, &lane->lock);
        }
    }
}
