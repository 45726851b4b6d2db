#include "devices/platform/tx.h"

#include "vmm/base/clock.h"

#define TX_PATIENCE_NS (2 * NS_PER_SEC)

static void finished(struct tx *t)
{
    if (!t->finishing)
        return;
    t->finishing = false;
    timer_disarm(&t->patience);
    lane_end(t->patience.lane);
}

static void patience_ends(struct timer *timer)
{
    finished(container_of(timer, struct tx, patience));
}

static void wait_for_room(struct tx *t)
{
    timer_arm(&t->patience, loop_now(t->patience.lane->loop, CLK_HOST) + TX_PATIENCE_NS);
}

static void handover_done(struct work *w, int ret)
{
    struct tx *t = container_of(w, struct tx, handover);

    (void)ret;
    t->posted = false;
    tx_flush(t);
    lane_end(w->lane);
}

void tx_init(struct tx *t, struct device *d, struct chardev *to)
{
    t->to = to;
    t->handover = (struct work){.lane = &d->lane, .done = handover_done};
    t->patience = (struct timer){.lane = &d->lane, .clk = CLK_HOST, .fire = patience_ends};
}

bool tx_full(const struct tx *t)
{
    return t->len == TX_SIZE;
}

void tx_flush(struct tx *t)
{
    size_t n;

    if (!t->len)
        return;
    n = chardev_write(t->to, t->buf, t->len);
    assert(n <= t->len);
    memmove(t->buf, t->buf + n, t->len - n);
    t->len -= n;
    if (!t->len)
        finished(t);
    else if (t->finishing && n)
        wait_for_room(t);
}

void tx_finish(struct tx *t)
{
    tx_flush(t);
    if (!t->len || t->finishing)
        return;
    t->finishing = true;
    lane_begin(t->patience.lane);
    wait_for_room(t);
}

bool tx_put(struct tx *t, uint8_t byte)
{
    if (tx_full(t))
        return false;
    t->buf[t->len++] = byte;
    if (tx_full(t)) {
        tx_flush(t);
    } else if (!t->posted) {
        t->posted = true;
        lane_begin(t->handover.lane);
        work_post(&t->handover);
    }
    return true;
}
