/*
 * Theory of operation.  The socket and its clients belong to the main loop.  A whole line makes its client due, which
 * is not read from until its answer is sent; commands run as a job of the machine's, with no lane held, since they may
 * stop it.  While they do, the loop may run, and serves other clients up to their becoming due.
 */
#include "vmm/control/control.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/listener.h"
#include "vmm/base/log.h"
#include "vmm/control/command.h"

struct client {
    struct control *control;
    struct watch watch; /* asleep while it is due */
    char *in;           /* CONTROL_LINE bytes; NULL: nobody */
    size_t in_len;
    char *out; /* what it has not got yet; NULL: nothing */
    size_t out_len, out_done;
    bool due;  /* `in` begins with a line */
    bool last; /* it is dropped when it has got what is in `out` */
};

struct control {
    struct machine *machine; /* borrowed */
    struct machine_job job;
    struct lane lane;
    struct listener listener;
    struct watch more;
    struct timer retry; /* when the host had no descriptor left to accept with */
    struct client clients[CONTROL_CLIENTS];
};

static void drop(struct client *cl)
{
    watch_del(&cl->watch);
    close(cl->watch.fd);
    free(cl->in);
    free(cl->out);
    cl->in = cl->out = NULL;
}

static void put_answer(struct client *cl, char *line);

/* Has it sent a whole line? */
static void look_for_line(struct client *cl)
{
    static const char too_long[] = "{\"error\":\"a line of more than 64 KiB\"}\n";

    if (memchr(cl->in, '\n', cl->in_len)) {
        cl->due = true;
        watch_set(&cl->watch, 0);
        machine_do(cl->control->machine, &cl->control->job);
    } else if (cl->in_len == CONTROL_LINE) {
        cl->last = true;
        put_answer(cl, xstrdup(too_long));
    } else {
        watch_set(&cl->watch, EPOLLIN);
    }
}

static void send_answer(struct client *cl)
{
    while (cl->out_done < cl->out_len) {
        ssize_t n = send(cl->watch.fd, cl->out + cl->out_done, cl->out_len - cl->out_done, MSG_NOSIGNAL);

        if (n > 0) {
            cl->out_done += (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            watch_set(&cl->watch, EPOLLOUT);
            return;
        } else if (n >= 0 || errno != EINTR) {
            drop(cl);
            return;
        }
    }
    free(take_ptr(cl->out));
    if (cl->last)
        drop(cl);
    else
        look_for_line(cl);
}

static void put_answer(struct client *cl, char *line)
{
    cl->out = line;
    cl->out_len = strlen(line);
    cl->out_done = 0;
    send_answer(cl);
}

static void receive(struct client *cl)
{
    ssize_t n = recv(cl->watch.fd, cl->in + cl->in_len, CONTROL_LINE - cl->in_len, 0);

    if (n > 0) {
        cl->in_len += (size_t)n;
        look_for_line(cl);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        drop(cl);
    }
}

static void client_ready(struct watch *w, uint32_t revents)
{
    struct client *cl = container_of(w, struct client, watch);

    (void)revents;
    if (cl->out)
        send_answer(cl);
    else
        receive(cl);
}

/* Its line, without its end, taken from its buffer; the caller's. */
static char *take_line(struct client *cl, size_t *n)
{
    char *end = memchr(cl->in, '\n', cl->in_len), *ret;

    *n = (size_t)(end - cl->in);
    ret = xcalloc(1, *n + 1);
    memcpy(ret, cl->in, *n);
    cl->in_len -= *n + 1;
    memmove(cl->in, end + 1, cl->in_len);
    cl->due = false;
    return ret;
}

/* In the lane, and out of it while the command runs. */
static void serve(struct client *cl)
{
    struct control *c = cl->control;
    char *line cleanup_free = NULL, *text cleanup_free = NULL, *answer;
    size_t n;

    line = take_line(cl, &n);
    lane_unlock(&c->lane);
    text = command_answer(c->machine, line, n);
    lane_lock(&c->lane);
    if (asprintf(&answer, "%s\n", text) < 0)
        abort();
    put_answer(cl, answer);
}

static void serve_all(struct machine_job *j)
{
    struct control *c = container_of(j, struct control, job);

    lane_lock(&c->lane);
    for (struct client *cl = c->clients; cl < c->clients + CONTROL_CLIENTS; cl++)
        if (cl->in && cl->due)
            serve(cl);
    lane_unlock(&c->lane);
}

static void welcome(struct control *c, int fd)
{
    static const char full[] = "{\"error\":\"8 clients are connected already; end one of them\"}\n";
    struct client *cl = c->clients;

    static_assert(CONTROL_CLIENTS == 8, "the message says so");
    while (cl < c->clients + CONTROL_CLIENTS && cl->in)
        cl++;
    if (cl == c->clients + CONTROL_CLIENTS) {
        if (send(fd, full, sizeof(full) - 1, MSG_NOSIGNAL) < 0)
            log_msg(LOG_DEBUG, "control: a client too many left at once");
        close(fd);
        return;
    }
    *cl = (struct client){
        .control = c,
        .watch = {.lane = &c->lane, .fd = fd, .events = EPOLLIN, .ready = client_ready},
        .in = xcalloc(1, CONTROL_LINE),
    };
    watch_add(&cl->watch);
}

static void accept_client(struct watch *w, uint32_t revents)
{
    struct control *c = container_of(w, struct control, more);
    int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    (void)revents;
    if (fd >= 0) {
        welcome(c, fd);
    } else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
        log_msg(LOG_WARN, "control: accept a client: %s", strerror(errno));
        watch_set(w, 0);
        timer_arm(&c->retry, loop_now(c->lane.loop, CLK_HOST) + NS_PER_SEC);
    }
}

static void retry(struct timer *t)
{
    watch_set(&container_of(t, struct control, retry)->more, EPOLLIN);
}

int control_open(struct machine *m, const char *path, struct control **ret, struct err *err)
{
    struct control *c = xcalloc(1, sizeof(*c));
    int r = listener_open(&c->listener, SOCK_STREAM, path, CONTROL_CLIENTS, err);

    if (r) {
        free(c);
        return r;
    }
    c->machine = m;
    c->job.run = serve_all;
    lane_init(&c->lane, machine_loop(m));
    c->more = (struct watch){.lane = &c->lane, .fd = c->listener.fd, .events = EPOLLIN, .ready = accept_client};
    c->retry = (struct timer){.lane = &c->lane, .clk = CLK_HOST, .fire = retry};
    lane_lock(&c->lane);
    watch_add(&c->more);
    lane_unlock(&c->lane);
    *ret = c;
    return 0;
}

void control_close(struct control *c)
{
    if (!c)
        return;
    machine_cancel(c->machine, &c->job);
    lane_lock(&c->lane);
    watch_del(&c->more);
    timer_disarm(&c->retry);
    for (struct client *cl = c->clients; cl < c->clients + CONTROL_CLIENTS; cl++)
        if (cl->in)
            drop(cl);
    lane_unlock(&c->lane);
    lane_fini(&c->lane);
    listener_close(&c->listener);
    free(c);
}
