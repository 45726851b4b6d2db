#include "vmm/loop/loop.h"

void lane_init(struct lane *lane, struct loop *loop)
{
    lane->loop = loop;
    lane->inflight = 0;
    pthread_mutex_init(&lane->lock, NULL);
    pthread_cond_init(&lane->idle, NULL);
}

void lane_fini(struct lane *lane)
{
    assert(!lane->inflight);
    pthread_cond_destroy(&lane->idle);
    pthread_mutex_destroy(&lane->lock);
}
