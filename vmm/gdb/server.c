/*
 * Theory of operation.  The socket belongs to the main loop, and all here runs on the main thread.  What gdb sends
 * wakes a job of the machine's, where the machine may be stopped and started; its socket sleeps until that is done. One
 * answer is on its way at a time: gdb waits for each.  While the guest runs for gdb, gdb waits for the answer that says
 * why it stopped, which comes from the machine's being paused by whomever.
 */
#include "vmm/gdb/server.h"

#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/listener.h"
#include "vmm/base/log.h"
#include "vmm/gdb/stub.h"
#include "vmm/kvm/vm.h"
#include "vmm/loop/acceptor.h"

enum { INPUT = 4096, SIGNAL_ABORT = 6 };

struct gdb {
    struct machine *machine; /* borrowed */
    struct machine_job job;
    struct machine_observer observer;
    struct lane lane;
    struct listener listener; /* of a unix socket */
    int fd;                   /* that listens, else; -1 */
    struct acceptor more;

    struct watch client; /* fd -1: nobody */
    bool greeted;        /* `stub` is there */
    bool left;           /* the client has gone, and its traces are to be removed */
    bool waits;          /* for the guest to stop */
    struct gdb_guest guest;
    struct gdb_stub stub;
    struct gdb_input input;
    struct gdb_reply reply;
    size_t in_len, in_done;
    uint8_t in[INPUT];
    size_t out_len, out_done, frame; /* frame: where in `out` the last one begins */
    char out[2 + GDB_FRAME_MAX];
};

static int get(struct gdb_guest *g, unsigned cpu, struct cpu_state *ret)
{
    return vm_cpu_get(machine_vm(container_of(g, struct gdb, guest)->machine), cpu, ret);
}

static int set(struct gdb_guest *g, unsigned cpu, const struct cpu_state *s)
{
    return vm_cpu_set(machine_vm(container_of(g, struct gdb, guest)->machine), cpu, s);
}

static void debug(struct gdb_guest *g, const struct vm_debug *d)
{
    vm_debug(machine_vm(container_of(g, struct gdb, guest)->machine), d);
}

static bool is_paused(const struct gdb *g)
{
    struct machine_status s;

    machine_status(g->machine, &s);
    return s.paused;
}

/* --- bytes --- */

/* Has it gone?  Its traces are removed where the machine stands still. */
static void leave(struct gdb *g)
{
    g->left = true;
    watch_set(&g->client, 0);
    machine_do(g->machine, &g->job);
}

static void send_out(struct gdb *g)
{
    while (g->out_done < g->out_len) {
        ssize_t n = send(g->client.fd, g->out + g->out_done, g->out_len - g->out_done, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n > 0) {
            g->out_done += (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            watch_set(&g->client, EPOLLOUT);
            return;
        } else if (n >= 0 || errno != EINTR) {
            leave(g);
            return;
        }
    }
    watch_set(&g->client, EPOLLIN);
}

static void put_ack(struct gdb *g, char c)
{
    g->out_len = g->out_done = g->frame = 0;
    g->out[g->out_len++] = c;
}

static void put_frame(struct gdb *g)
{
    if (g->out_done == g->out_len)
        g->out_len = g->out_done = 0;
    g->frame = g->out_len;
    assert(g->out_len <= 1);
    g->out_len += gdb_frame(&g->reply, g->out + g->out_len);
}

static void client_ready(struct watch *w, uint32_t revents)
{
    struct gdb *g = container_of(w, struct gdb, client);
    ssize_t n;

    (void)revents;
    if (g->out_done < g->out_len) {
        send_out(g);
        if (g->out_done < g->out_len || g->left)
            return;
    }
    if (g->in_done == g->in_len) {
        n = recv(w->fd, g->in, sizeof(g->in), MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            leave(g);
            return;
        }
        g->in_done = 0;
        g->in_len = (size_t)n;
    }
    watch_set(w, 0);
    machine_do(g->machine, &g->job);
}

/* --- the guest stops and goes on --- */

/* A CPU that met something, not yet told; the first one when none did. */
static unsigned take_hit(struct gdb *g, struct vm_hit *ret)
{
    struct vm *vm = machine_vm(g->machine);

    *ret = (struct vm_hit){.what = VM_HIT_NONE};
    for (unsigned i = 0; i < g->guest.ncpus; i++) {
        *ret = vm_cpu_hit(vm, i);
        if (ret->what != VM_HIT_NONE)
            return i;
    }
    return g->stub.cpu;
}

static void say_stopped(struct gdb *g, unsigned cpu, struct vm_hit hit)
{
    g->reply.n = 0;
    g->reply.overflow = false;
    gdb_stub_stopped(&g->stub, cpu, hit, &g->reply);
    g->waits = false;
    put_frame(g);
}

static void on_pause(struct machine_observer *o)
{
    struct gdb *g = container_of(o, struct gdb, observer);
    struct vm_hit hit;
    unsigned cpu;

    if (!g->waits)
        return;
    cpu = take_hit(g, &hit);
    say_stopped(g, cpu, hit);
    lane_lock(&g->lane);
    send_out(g);
    lane_unlock(&g->lane);
}

static bool on_crash(struct machine_observer *o)
{
    struct gdb *g = container_of(o, struct gdb, observer);

    if (!g->waits)
        return false;
    log_msg(LOG_WARN, "the guest crashed; gdb has it, and it ends when gdb continues or leaves");
    g->reply.n = 0;
    gdb_reply_text(&g->reply, "T%02xthread:%x;", (unsigned)SIGNAL_ABORT, g->stub.cpu + 1);
    g->waits = false;
    put_frame(g);
    lane_lock(&g->lane);
    send_out(g);
    lane_unlock(&g->lane);
    return true;
}

/* What another CPU met in the moment that this one stopped is told first.  Breakpoints are met again. */
static bool tell_other(struct gdb *g)
{
    struct vm_hit hit;
    unsigned cpu;

    do
        cpu = take_hit(g, &hit);
    while (
        hit.what == VM_HIT_BREAK || hit.what == VM_HIT_STEP ||
        (hit.what == VM_HIT_HW && (hit.hw >= g->stub.debug.nhw || g->stub.debug.hw[hit.hw].kind == VM_BREAK_EXECUTE)));
    if (hit.what == VM_HIT_NONE)
        return false;
    say_stopped(g, cpu, hit);
    return true;
}

static void resume(struct gdb *g)
{
    struct vm *vm = machine_vm(g->machine);
    struct err err;

    if (tell_other(g))
        return;
    for (unsigned i = 0; i < g->guest.ncpus; i++)
        vm_cpu_plan(vm, i, g->stub.plans[i]);
    g->waits = true;
    if (machine_resume(g->machine, &err) < 0) {
        log_msg(LOG_ERROR, "gdb: cannot continue: %s", err.msg);
        say_stopped(g, g->stub.cpu, (struct vm_hit){.what = VM_HIT_NONE});
    }
}

/* As if nobody had been there. */
static void let_go(struct gdb *g)
{
    struct vm *vm = machine_vm(g->machine);
    bool ends = !is_paused(g);
    struct err err;

    g->waits = false;
    if (ends)
        machine_pause(g->machine, NULL);
    gdb_stub_fini(&g->stub);
    g->greeted = false;
    for (unsigned i = 0; i < g->guest.ncpus; i++)
        vm_cpu_plan(vm, i, VM_RUN);
    if (machine_resume(g->machine, &err) < 0)
        log_msg(LOG_ERROR, "gdb: cannot continue: %s", err.msg);
}

/* --- its client --- */

static void greet(struct gdb *g)
{
    machine_pause(g->machine, NULL);
    gdb_stub_init(&g->stub, &g->guest);
    g->input = (struct gdb_input){0};
    g->greeted = true;
}

static void bid_farewell(struct gdb *g)
{
    if (g->greeted)
        let_go(g);
    lane_lock(&g->lane);
    watch_del(&g->client);
    close(g->client.fd);
    g->client.fd = -1;
    acceptor_listen(&g->more, true);
    lane_unlock(&g->lane);
}

static void packet(struct gdb *g)
{
    if (!g->stub.no_ack)
        put_ack(g, '+');
    if (!is_paused(g)) { /* somebody else has it running */
        g->reply.n = 0;
        gdb_reply_text(&g->reply, "E01");
        put_frame(g);
        return;
    }
    switch (gdb_stub_packet(&g->stub, g->input.payload, g->input.n, &g->reply)) {
    case GDB_STAY:
        put_frame(g);
        return;
    case GDB_RESUME:
        resume(g);
        return;
    case GDB_DETACH:
        put_frame(g);
        g->left = true;
        return;
    case GDB_KILL:
        put_frame(g);
        machine_request(g->machine, REQ_QUIT, 0);
        return;
    }
}

static void token(struct gdb *g, enum gdb_token t)
{
    if (g->waits && t != GDB_INTERRUPT)
        return; /* out of turn: the next answer is why the guest stopped, and there is room for one */
    switch (t) {
    case GDB_PACKET:
        packet(g);
        return;
    case GDB_BAD_PACKET:
        put_ack(g, '-');
        return;
    case GDB_NACK:
        g->out_done = min_u64(g->frame, g->out_len);
        return;
    case GDB_INTERRUPT:
        if (!is_paused(g))
            machine_pause(g->machine, NULL);
        return;
    case GDB_ACK:
    case GDB_MORE:
        return;
    }
}

static void serve(struct machine_job *j)
{
    struct gdb *g = container_of(j, struct gdb, job);

    if (!g->greeted && !g->left)
        greet(g);
    while (!g->left && g->out_done == g->out_len && g->in_done < g->in_len)
        token(g, gdb_input_byte(&g->input, g->in[g->in_done++]));
    lane_lock(&g->lane);
    send_out(g);
    lane_unlock(&g->lane);
    if (g->left) {
        bid_farewell(g);
        return;
    }
    if (g->in_done < g->in_len && g->out_done == g->out_len)
        machine_do(g->machine, &g->job);
}

static void accepted(struct acceptor *a, int fd)
{
    struct gdb *g = container_of(a, struct gdb, more);

    acceptor_listen(a, false); /* one at a time: others wait */
    g->left = g->waits = false;
    g->in_len = g->in_done = g->out_len = g->out_done = 0;
    g->client.fd = fd;
    watch_add(&g->client);
    watch_set(&g->client, 0);
    machine_do(g->machine, &g->job);
}

/* --- where it listens --- */

static int bind_tcp(const struct addrinfo *a, int *ret)
{
    int fd cleanup_fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) || bind(fd, a->ai_addr, a->ai_addrlen) ||
        listen(fd, 1))
        return -errno;
    *ret = take_fd(&fd);
    return 0;
}

static int listen_tcp(const char *where, const char *colon, int *ret, struct err *err)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found;
    char host[256];
    int rc;

    snprintf(host, sizeof(host), "%.*s", (int)(colon - where), where);
    rc = getaddrinfo(host[0] ? host : "127.0.0.1", colon + 1, &hints, &found);
    if (rc)
        return err_set(err, EINVAL, "--gdb %s: %s; give unix:FILE, [HOST]:PORT or fd:N", where, gai_strerror(rc));
    rc = bind_tcp(found, ret);
    freeaddrinfo(found);
    return rc ? err_set(err, -rc, "--gdb %s: %s; choose another port", where, strerror(-rc)) : 0;
}

static int listen_inherited(const char *where, int *ret, struct err *err)
{
    int listens = 0;
    socklen_t len = sizeof(listens);
    char *end;
    long fd = strtol(where + 3, &end, 10);

    if (*end || end == where + 3 || fd < 0 || fd > INT32_MAX ||
        getsockopt((int)fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) || !listens ||
        fcntl((int)fd, F_SETFL, fcntl((int)fd, F_GETFL) | O_NONBLOCK))
        return err_set(err, EINVAL, "--gdb %s: this is no open descriptor of a socket that listens", where);
    *ret = (int)fd;
    return 0;
}

static int listen_at(struct gdb *g, const char *where, struct err *err)
{
    const char *colon = strrchr(where, ':');

    if (!strncmp(where, "unix:", 5))
        return listener_open(&g->listener, SOCK_STREAM, where + 5, 1, err);
    if (!strncmp(where, "fd:", 3))
        return listen_inherited(where, &g->fd, err);
    if (!colon)
        return err_set(err, EINVAL, "--gdb %s: give unix:FILE, [HOST]:PORT or fd:N", where);
    return listen_tcp(where, colon, &g->fd, err);
}

int gdb_open(struct machine *m, const char *where, struct gdb **ret, struct err *err)
{
    struct gdb *g = xcalloc(1, sizeof(*g));
    struct machine_status s;
    int rc;

    g->listener.fd = g->fd = -1;
    rc = listen_at(g, where, err);
    if (rc) {
        free(g);
        return rc;
    }
    machine_status(m, &s);
    g->machine = m;
    g->job.run = serve;
    g->observer = (struct machine_observer){.paused = on_pause, .crashed = on_crash};
    g->guest =
        (struct gdb_guest){.mem = machine_memory(m), .ncpus = s.config->cpus, .get = get, .set = set, .debug = debug};
    lane_init(&g->lane, machine_loop(m));
    g->more = (struct acceptor){.name = "gdb", .accepted = accepted};
    g->client = (struct watch){.lane = &g->lane, .fd = -1, .events = EPOLLIN, .ready = client_ready};
    machine_observe(m, &g->observer);
    lane_lock(&g->lane);
    acceptor_open(&g->more, &g->lane, g->fd >= 0 ? g->fd : g->listener.fd);
    lane_unlock(&g->lane);
    *ret = g;
    return 0;
}

void gdb_close(struct gdb *g, int code)
{
    if (!g)
        return;
    machine_unobserve(g->machine, &g->observer);
    machine_cancel(g->machine, &g->job);
    if (g->greeted) {
        g->reply.n = 0;
        gdb_reply_text(&g->reply, "W%02x", (unsigned)code & 0xff);
        if (g->waits) {
            put_frame(g);
            send_out(g);
        }
        machine_stop(g->machine);
        gdb_stub_fini(&g->stub);
    }
    lane_lock(&g->lane);
    acceptor_close(&g->more);
    watch_del(&g->client);
    lane_unlock(&g->lane);
    if (g->client.fd >= 0)
        close(g->client.fd);
    if (g->fd >= 0)
        close(g->fd);
    listener_close(&g->listener);
    lane_fini(&g->lane);
    free(g);
}
