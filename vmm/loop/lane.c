#include "vmm/loop/loop_private.h"

void lane_init(struct lane *lane, struct loop *loop)
{
    *lane = (struct lane){.loop = loop};
    pthread_mutex_init(&lane->lock, NULL);
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
    pthread_mutex_destroy(&lane->lock);
}

void lane_begin(struct lane *lane)
{
    lane->inflight++;
}

void lane_end(struct lane *lane)
{
    assert(lane->inflight);
    if (--lane->inflight || !lane->draining)
        return;
    pthread_mutex_lock(&lane->loop->lock);
    loop_tell(lane->loop);
    pthread_mutex_unlock(&lane->loop->lock);
}

void lane_drain(struct lane *lane)
{
    struct loop *l = lane->loop;

    lane->draining++;
    pthread_mutex_lock(&l->lock);
    while (lane->inflight || lane->posted) {
        /* The loop's thread may be waiting for us (machine stopped), so we do of its work what we can. */
        struct work *w = loop_take_posted(l, lane);

        if (w) {
            loop_finish(l, w);
            continue;
        }
        /* From here to the wait l->lock is held, so that no lane_end() is missed. */
        lane_unlock(lane);
        if (!loop_is_mine(l))
            pthread_cond_wait(&l->quiet, &l->lock);
        pthread_mutex_unlock(&l->lock);
        if (loop_is_mine(l))
            loop_once(l, -1);
        lane_lock(lane);
        pthread_mutex_lock(&l->lock);
    }
    pthread_mutex_unlock(&l->lock);
    lane->draining--;
}
