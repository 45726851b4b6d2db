#include "devices/platform/tx.h"

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
