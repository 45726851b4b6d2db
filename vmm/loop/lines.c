#include "vmm/loop/lines.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"

static bool has_line(const struct lines_client *c)
{
    return c->in_len && memchr(c->in, '\n', c->in_len);
}

bool lines_full(const struct lines_client *c)
{
    return c->out_len >= LINES_FULL;
}

static bool may_take(const struct lines_client *c)
{
    return !c->held && !lines_full(c) && has_line(c);
}

static void choose_events(struct lines_client *c)
{
    bool listens = !c->held && !c->last && !lines_full(c) && !has_line(c);

    watch_set(&c->watch, (listens ? EPOLLIN : 0) | (c->out_len && !c->held ? EPOLLOUT : 0));
}

static void drop(struct lines_client *c)
{
    watch_del(&c->watch);
    close(c->watch.fd);
    free(c->in);
    free(c->out);
    c->in = c->out = NULL;
    c->in_len = c->out_len = 0;
}

static void leave(struct lines_client *c)
{
    drop(c);
    if (c->lines->gone)
        c->lines->gone(c);
}

/* False: it is gone. */
static bool receive(struct lines_client *c)
{
    ssize_t n = recv(c->watch.fd, c->in + c->in_len, LINES_MAX - c->in_len, 0);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    c->in_len += (size_t)n;
    if (!n)
        c->last = true;
    return true;
}

/* False: it is gone. */
static bool send_some(struct lines_client *c)
{
    ssize_t n = send(c->watch.fd, c->out, c->out_len, MSG_NOSIGNAL);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    c->out_len -= (size_t)n;
    memmove(c->out, c->out + n, c->out_len);
    return true;
}

static void client_ready(struct watch *w, uint32_t revents)
{
    static const char too_long[] = "{\"error\":\"a line of more than 64 KiB\"}";
    struct lines_client *c = container_of(w, struct lines_client, watch);
    bool had = c->out_len, there = true;

    static_assert(LINES_MAX == 64 << 10, "the message says so");
    if (w->events & EPOLLIN && revents & ~(uint32_t)EPOLLOUT)
        there = receive(c);
    if (there && c->in_len == LINES_MAX && !has_line(c)) {
        c->in_len = 0;
        c->last = true;
        lines_say(c, too_long, sizeof(too_long) - 1);
    }
    if (there && c->out_len)
        there = send_some(c);
    if (!there || (c->last && !c->out_len)) {
        leave(c);
        return;
    }
    choose_events(c);
    if (had && !c->out_len && c->lines->room)
        c->lines->room(c);
    if (may_take(c))
        c->lines->ready(c);
}

char *lines_take(struct lines_client *c, size_t *n)
{
    char *end, *ret;

    if (!may_take(c))
        return NULL;
    end = memchr(c->in, '\n', c->in_len);
    *n = (size_t)(end - c->in);
    ret = xcalloc(1, *n + 1);
    memcpy(ret, c->in, *n);
    c->in_len -= *n + 1;
    memmove(c->in, end + 1, c->in_len);
    choose_events(c);
    return ret;
}

void lines_say(struct lines_client *c, const char *text, size_t n)
{
    if (c->out_len + n + 1 > c->out_size) {
        c->out_size = 2 * (c->out_len + n + 1);
        c->out = realloc(c->out, c->out_size);
        if (!c->out)
            abort();
    }
    memcpy(c->out + c->out_len, text, n);
    c->out[c->out_len + n] = '\n';
    c->out_len += n + 1;
    choose_events(c);
}

void lines_hold(struct lines_client *c, bool on)
{
    c->held = on;
    choose_events(c);
}

static void welcome(struct lines *l, int fd)
{
    static const char full[] = "{\"error\":\"8 clients are connected already; end one of them\"}\n";
    struct lines_client *c = l->clients;

    static_assert(LINES_CLIENTS == 8, "the message says so");
    while (c < l->clients + LINES_CLIENTS && c->in)
        c++;
    if (c == l->clients + LINES_CLIENTS) {
        if (send(fd, full, sizeof(full) - 1, MSG_NOSIGNAL) < 0)
            log_msg(LOG_DEBUG, "socket \"%s\": a client too many left at once", l->listener.addr.sun_path);
        close(fd);
        return;
    }
    *c = (struct lines_client){
        .lines = l,
        .watch = {.lane = l->lane, .fd = fd, .events = EPOLLIN, .ready = client_ready},
        .in = xcalloc(1, LINES_MAX),
    };
    watch_add(&c->watch);
}

static void accepted(struct acceptor *a, int fd)
{
    welcome(container_of(a, struct lines, more), fd);
}

int lines_open(struct lines *l, struct lane *lane, const char *path, struct err *err)
{
    int r = listener_open(&l->listener, SOCK_STREAM, path, LINES_CLIENTS, err);

    if (r)
        return r;
    l->lane = lane;
    l->more = (struct acceptor){.name = l->listener.addr.sun_path, .accepted = accepted};
    acceptor_open(&l->more, lane, l->listener.fd);
    return 0;
}

void lines_adopt(struct lines *l, struct lane *lane, int fd)
{
    l->listener.fd = -1;
    l->lane = lane;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    welcome(l, fd);
}

void lines_close(struct lines *l)
{
    acceptor_close(&l->more);
    for (struct lines_client *c = l->clients; c < l->clients + LINES_CLIENTS; c++)
        if (c->in) {
            if (c->out_len)
                send_some(c); /* such as the answer to who asked for the end */
            drop(c);
        }
    listener_close(&l->listener);
}
