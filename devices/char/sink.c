#include "devices/char/sink.h"

#include <limits.h>
#include <poll.h>
#include <unistd.h>

#include "vmm/base/log.h"

static void has_room(struct watch *w, uint32_t revents)
{
    struct sink *s = container_of(w, struct sink, room);

    (void)revents;
    watch_set(w, 0);
    chardev_tell(s->c, CHARDEV_WRITABLE);
}

void sink_init(struct sink *s, struct chardev *c, int fd)
{
    *s = (struct sink){.c = c, .fd = fd, .room = {.lane = &c->dev->lane, .fd = fd, .ready = has_room}};
    watch_add(&s->room);
}

void sink_fini(struct sink *s)
{
    watch_del(&s->room);
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
}

/* A descriptor that we share with others may be a blocking one.  Where poll sees room, PIPE_BUF bytes fit. */
static ssize_t write_some(int fd, const void *buf, size_t n)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    ssize_t r;

    if (poll(&p, 1, 0) == 0)
        return 0;
    r = write(fd, buf, min_u64(n, PIPE_BUF));
    if (r < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    return r < 0 ? -errno : r;
}

size_t sink_write(struct sink *s, const void *buf, size_t n)
{
    size_t done = 0;

    while (done < n && !s->dead) {
        ssize_t r = write_some(s->fd, (const char *)buf + done, n - done);

        if (r == 0) {
            watch_set(&s->room, EPOLLOUT);
            return done;
        }
        if (r < 0) {
            log_msg(LOG_WARN, "%s: %s output ends here: %s", s->c->dev->id, s->c->cls->name, strerror((int)-r));
            s->dead = true;
        } else {
            done += (size_t)r;
        }
    }
    return n;
}
