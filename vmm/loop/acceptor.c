#include "vmm/loop/acceptor.h"

#include <sys/socket.h>

#include "vmm/base/clock.h"
#include "vmm/base/log.h"

static void ready(struct watch *w, uint32_t revents)
{
    struct acceptor *a = container_of(w, struct acceptor, watch);
    int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    (void)revents;
    if (fd >= 0) {
        a->accepted(a, fd);
    } else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
        log_msg(LOG_WARN, "%s: accept a connection: %s; tried again in a second", a->name, strerror(errno));
        watch_set(w, 0);
        timer_arm(&a->retry, loop_now(w->lane->loop, CLK_HOST) + NS_PER_SEC);
    }
}

static void retry(struct timer *t)
{
    acceptor_listen(container_of(t, struct acceptor, retry), true);
}

void acceptor_open(struct acceptor *a, struct lane *lane, int fd)
{
    a->watch = (struct watch){.lane = lane, .fd = fd, .events = EPOLLIN, .ready = ready};
    a->retry = (struct timer){.lane = lane, .clk = CLK_HOST, .fire = retry};
    watch_add(&a->watch);
}

void acceptor_listen(struct acceptor *a, bool on)
{
    watch_set(&a->watch, on ? EPOLLIN : 0);
}

void acceptor_close(struct acceptor *a)
{
    watch_del(&a->watch);
    timer_disarm(&a->retry);
}
