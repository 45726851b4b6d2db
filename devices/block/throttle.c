/*
 * A filter that lets only so many requests, or bytes of them, pass in a second.  Each limit remembers when all that it
 * let through will be paid for; a request starts once that time has come, or comes within the burst.
 */
#include <errno.h>
#include <time.h>

#include "devices/block/filter.h"
#include "vmm/base/clock.h"

struct throttle {
    struct blk b;
    struct throttle_limits l;
    pthread_mutex_t lock; /* of the rates */
    struct rate requests, bytes;
    struct list waiting; /* in the lane */
    struct timer timer;
};

static const struct opt throttle_opts[] = {
    O_U64(struct throttle, l.iops, "iops", "0", 0, 1000000000, "requests per second; 0: no limit"),
    O_SIZE(struct throttle, l.bps, "bps", "0", 0, 0, "bytes per second; 0: no limit"),
    O_U32(struct throttle, l.burst_ms, "burst", "100", 0, THROTTLE_BURST_MAX_MS,
          "after a pause so many milliseconds' worth may pass at once"),
    O_END,
};

extern const struct blk_driver throttle_driver;

static struct throttle *throttle_of(struct blk *b)
{
    return container_of(b, struct throttle, b);
}

uint64_t rate_start(const struct rate *r, uint64_t now)
{
    return r->next_ns > now + r->burst_ns ? r->next_ns - r->burst_ns : now;
}

void rate_charge(struct rate *r, uint64_t start, uint64_t n)
{
    if (r->per_sec)
        r->next_ns = max_u64(r->next_ns, start) + (uint64_t)((__uint128_t)n * NS_PER_SEC / r->per_sec);
}

static uint64_t start_time(struct throttle *t, uint64_t now)
{
    return max_u64(rate_start(&t->requests, now), rate_start(&t->bytes, now));
}

static void charge(struct throttle *t, uint64_t start, const struct blk_io *io)
{
    if (io->op == BLK_FLUSH)
        return;
    rate_charge(&t->requests, start, 1);
    if (io->op == BLK_READ || io->op == BLK_WRITE)
        rate_charge(&t->bytes, start, io->len);
}

static int throttle_rw(struct blk *b, const struct blk_io *io)
{
    struct throttle *t = throttle_of(b);
    uint64_t start;
    struct timespec ts;

    pthread_mutex_lock(&t->lock);
    start = start_time(t, clock_now_ns());
    charge(t, start, io);
    pthread_mutex_unlock(&t->lock);
    ts = (struct timespec){.tv_sec = (time_t)(start / NS_PER_SEC), .tv_nsec = (long)(start % NS_PER_SEC)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
        ;
    return blk_rw(b->file, io);
}

/* Lets through what may go now, or all, and sets the timer for the next. */
static void pump(struct throttle *t, bool all)
{
    while (!list_empty(&t->waiting)) {
        struct blk_req *r = container_of(t->waiting.next, struct blk_req, link);
        uint64_t now = loop_now(t->b.lane->loop, CLK_HOST), start;

        pthread_mutex_lock(&t->lock);
        start = all ? now : start_time(t, now);
        if (start <= now)
            charge(t, now, &r->io);
        pthread_mutex_unlock(&t->lock);
        if (start > now) {
            timer_arm(&t->timer, start);
            return;
        }
        list_del(&r->link);
        blk_forward(r);
    }
}

static void fire(struct timer *timer)
{
    struct throttle *t = container_of(timer, struct throttle, timer);

    pump(t, false);
    blk_kick(t->b.file);
}

static void throttle_submit(struct blk *b, struct blk_req *r)
{
    struct throttle *t = throttle_of(b);

    if (r->again) { /* it was let through as a whole */
        blk_forward(r);
        return;
    }
    list_add_tail(&t->waiting, &r->link);
    if (!t->timer.armed)
        pump(t, false);
}

static void set_rates(struct throttle *t)
{
    uint64_t burst_ns = t->l.burst_ms * (NS_PER_SEC / 1000);

    t->requests = (struct rate){.per_sec = t->l.iops, .burst_ns = burst_ns};
    t->bytes = (struct rate){.per_sec = t->l.bps, .burst_ns = burst_ns};
}

struct blk *throttle_find(struct blk *b)
{
    while (b && b->drv != &throttle_driver)
        b = b->file;
    return b;
}

void throttle_set(struct blk *b, const struct throttle_limits *l)
{
    struct throttle *t = throttle_of(b);

    pthread_mutex_lock(&t->lock);
    t->l = *l;
    set_rates(t);
    pthread_mutex_unlock(&t->lock);
    timer_disarm(&t->timer);
    pump(t, false);
    blk_kick(b->file);
}

void throttle_release(struct blk *b)
{
    struct throttle *t = throttle_of(b);

    timer_disarm(&t->timer);
    pump(t, true);
    blk_kick(b->file);
}

struct throttle_limits throttle_get(struct blk *b)
{
    return throttle_of(b)->l;
}

static int throttle_open(struct blk *b, const struct blk_open_opts *o, struct err *err)
{
    struct throttle *t = throttle_of(b);

    (void)o;
    pthread_mutex_init(&t->lock, NULL);
    set_rates(t);
    list_init(&t->waiting);
    t->timer = (struct timer){.lane = b->lane, .clk = CLK_HOST, .fire = fire};
    if (!t->l.iops && !t->l.bps)
        return err_set(err, EINVAL, "%s: throttle has no limit; give it iops=… or bps=…", b->name);
    return 0;
}

static void throttle_close(struct blk *b)
{
    struct throttle *t = throttle_of(b);

    timer_disarm(&t->timer);
}

const struct blk_driver throttle_driver = {
    .name = "throttle",
    .summary = "limits requests and bytes per second",
    .size = sizeof(struct throttle),
    .opts = throttle_opts,
    .open = throttle_open,
    .close = throttle_close,
    .rw = throttle_rw,
    .submit = throttle_submit,
    .resize = filter_resize,
};
