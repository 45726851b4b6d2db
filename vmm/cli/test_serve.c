/*
 * Guests for others: a socket whose clients create them, run commands in them, and get what comes of it.
 *
 * Theory of operation.  A guest belongs to the client that created it, and ends with it.  It is one test_run for every
 * time it boots.  Its client may have one request at a time to it; what comes while it boots waits until it is up.
 * Files are copied by commands like any other, whose input we have or whose output we keep.  A command that takes too
 * long is answered and goes on, so that there is something to diagnose; until it ends the guest is busy.
 */
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <sys/stat.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/file.h"
#include "vmm/cli/serve_request.h"
#include "vmm/cli/test.h"
#include "vmm/loop/lines.h"
#include "vmm/runner/room.h"

enum {
    COPY_MAX = 256 << 20, /* bytes of a file that is copied */
    CHUNK = 16 << 10,     /* of output in one line */
};

enum state { BOOTS, IDLE, BUSY, OVER };

struct serve {
    const struct test_plan *plan;
    struct loop *loop;
    struct lane lane;
    struct lines lines;
    struct watch signals;
    struct list guests;
    unsigned nguests;
    uint32_t last;          /* guest's number */
    struct room room, used; /* cpus: guests, where -j says how many */
};

struct guest {
    struct list link;
    struct serve *serve;
    struct lines_client *client;
    uint32_t number;
    unsigned boots;
    char *machine; /* what its client wants of it; NULL: nothing */
    struct test_job job;
    struct test_run run;
    enum state state;
    struct serve_request request; /* the last one */
    bool asked;                   /* and it is not answered */
    struct timer limit;
    char *in; /* the file that is copied into it; NULL: none */
    size_t in_at, in_n;
    char mode[8];
    int out;              /* where one goes that is copied out of it; -1: nowhere */
    char *beside, *whole; /* that file's path, and the one that it gets when it is whole */
    uint64_t out_n;
    struct room took; /* of what there is */
};

/* ---- What clients are told. ---- */

static void say(struct lines_client *c, json_t *message)
{
    char *text cleanup_free = json_dumps(message, JSON_COMPACT);

    if (!text)
        abort();
    lines_say(c, text, strlen(text));
    json_decref(message);
}

/* A string each of whose characters is a byte's number. */
static json_t *bytes_json(const void *bytes, size_t n)
{
    const uint8_t *from = bytes;
    char *text cleanup_free = xcalloc(2, n), *to = text;

    for (size_t i = 0; i < n; i++) {
        if (from[i] >= 0x80)
            *to++ = (char)(0xc0 | from[i] >> 6);
        *to++ = (char)(from[i] < 0x80 ? from[i] : 0x80 | (from[i] & 0x3f));
    }
    return json_stringn(text, (size_t)(to - text));
}

static json_t *text_json(const char *text)
{
    json_t *ret = json_string(text);

    return ret ? ret : bytes_json(text, strlen(text)); /* it is no UTF-8 */
}

static void answer(struct lines_client *c, const struct serve_request *q, const char *what, json_t *value)
{
    json_t *message = json_object();

    if (q->has_id)
        json_object_set_new(message, "id", json_integer(q->id));
    json_object_set_new(message, what, value);
    say(c, message);
}

/* To the request that waits for it, if one does. */
static void settle(struct guest *g, const char *what, json_t *value)
{
    if (!g->asked) {
        json_decref(value);
        return;
    }
    g->asked = false;
    timer_disarm(&g->limit);
    answer(g->client, &g->request, what, value);
}

__attribute__((format(printf, 2, 3))) static void settle_error(struct guest *g, const char *fmt, ...)
{
    struct err err;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(err.msg, sizeof(err.msg), fmt, ap);
    va_end(ap);
    settle(g, "error", text_json(err.msg));
}

static json_t *event(const struct guest *g, const char *what)
{
    return json_pack("{s:I,s:s}", "vm", (json_int_t)g->number, "event", what);
}

/* ---- What guests do. ---- */

static struct guest *guest_of(struct test_run *r)
{
    return container_of(r, struct guest, run);
}

/* Only a whole file stays: 0, or -errno where it could not. */
static int end_copies(struct guest *g, bool whole)
{
    int fd = take_fd(&g->out), r = 0;

    free(take_ptr(g->in));
    g->in_at = g->in_n = 0;
    if (fd >= 0 && (close(fd) || (whole && rename(g->beside, g->whole))))
        r = -errno;
    if (fd >= 0 && (!whole || r < 0))
        unlink(g->beside);
    free(take_ptr(g->beside));
    free(take_ptr(g->whole));
    return r;
}

static void copy_failed(struct guest *g, const char *why)
{
    end_copies(g, false);
    settle_error(g, "get: \"%s\": %s", g->request.to, why);
}

/* What is there stays until the copy is whole. */
static int open_copy(struct guest *g, const char *to, struct err *err)
{
    struct stat st;

    g->whole = realpath(to, NULL); /* a link stays one */
    if (!g->whole && errno != ENOENT)
        return err_file(err, errno, "get", to);
    if (!g->whole)
        g->whole = xstrdup(to);
    if (!stat(g->whole, &st) && !S_ISREG(st.st_mode))
        return err_set(err, EINVAL, "get: \"%s\" is no regular file; name another", to);
    if (asprintf(&g->beside, "%s.%d-%u", g->whole, getpid(), g->number) < 0)
        abort();
    g->out = open(g->beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    return g->out < 0 ? err_file(err, errno, "get", g->beside) : 0;
}

static void keep(struct guest *g, const char *bytes, size_t n)
{
    int r;

    if (g->out < 0)
        return; /* that failed */
    g->out_n += n;
    if (g->out_n > COPY_MAX) {
        copy_failed(g, "more than 256 MiB; share a directory with the guest for files of that size");
        return;
    }
    r = file_write(g->out, bytes, n);
    if (r < 0)
        copy_failed(g, strerror(-r));
}

static size_t output(struct test_run *r, enum test_stream s, const void *bytes, size_t n)
{
    static const char *const names[] = {[TEST_OUT] = "out", [TEST_ERR] = "err", [TEST_LOG] = "log"};
    struct guest *g = guest_of(r);
    size_t done = 0;

    static_assert(COPY_MAX == 256 << 20, "the message says so");
    if (s == TEST_OUT && g->state == BUSY && g->request.verb == SERVE_GET) {
        keep(g, bytes, n);
        return n;
    }
    while (done < n && !lines_full(g->client)) {
        size_t some = min_u64(n - done, CHUNK);
        json_t *e = event(g, "output");

        json_object_set_new(e, "stream", json_string(names[s]));
        json_object_set_new(e, "data", bytes_json((const char *)bytes + done, some));
        say(g->client, e);
        done += some;
    }
    return done;
}

static void input(struct test_run *r)
{
    struct guest *g = guest_of(r);

    if (g->in_at < g->in_n)
        g->in_at += test_run_input(r, g->in + g->in_at, g->in_n - g->in_at);
}

static void too_late(struct timer *t)
{
    struct guest *g = container_of(t, struct guest, limit);

    settle_error(g, "%s: not ended in time; diagnose vm %u, reset it, or wait", serve_verb_name(g->request.verb),
                 g->number);
}

static void begin(struct guest *g)
{
    struct serve_request *q = &g->request;
    uint32_t seconds = q->timeout ? q->timeout : g->serve->plan->opts->timeout;
    char *const put[] = {"/bin/sh", "-c", "cat >\"$1\" && chmod -- \"$2\" \"$1\"", "bothy", q->to, g->mode, NULL};
    char *const get[] = {"cat", "--", q->from, NULL};
    char *const *words = q->verb == SERVE_PUT ? put : q->verb == SERVE_GET ? get : q->argv;

    g->state = BUSY;
    if (test_run_command(&g->run, words, g->in_n) < 0) {
        settle_error(g, "%s: vm %u does not listen; diagnose or reset it", serve_verb_name(q->verb), g->number);
        return;
    }
    if (g->in_n)
        input(&g->run);
    if (seconds)
        timer_arm(&g->limit, loop_now(g->serve->loop, CLK_HOST) + seconds * NS_PER_SEC);
}

static void phase(struct test_run *r, enum test_phase p)
{
    struct guest *g = guest_of(r);

    if (p != TEST_COMMAND)
        return;
    g->state = IDLE;
    say(g->client, event(g, "ready"));
    if (g->asked)
        begin(g);
}

/* A command. */
static void ended(struct test_run *r)
{
    struct guest *g = guest_of(r);
    const struct test_result *res = &r->result;
    const char *verb = serve_verb_name(g->request.verb);
    uint64_t copied = g->request.verb == SERVE_PUT ? g->in_n : g->out_n;
    int bad = end_copies(g, !res->code);
    json_t *result;

    g->state = IDLE;
    if (g->request.verb != SERVE_RUN && res->code) {
        settle_error(g, "%s: the guest's command for it ended with code %d; its standard error says why", verb,
                     res->code);
    } else if (bad) {
        copy_failed(g, strerror(-bad));
    } else {
        result = g->request.verb == SERVE_RUN ? json_pack("{s:i}", "code", res->code)
                                              : json_pack("{s:I}", "bytes", (json_int_t)copied);
        if (res->signal)
            json_object_set_new(result, "signal", json_integer(res->signal));
        settle(g, "result", result);
    }
}

static void tell_of_bundle(struct guest *g)
{
    settle(g, "result",
           json_pack("{s:o,s:o}", "bundle", text_json(g->job.bundle), "why", text_json(g->run.result.why)));
}

/* The guest. */
static void done(struct test_run *r)
{
    struct guest *g = guest_of(r);
    const struct test_result *res = &r->result;
    json_t *e = event(g, "over");

    g->state = OVER;
    json_object_set_new(e, "outcome", json_string(test_outcome_words[res->outcome]));
    json_object_set_new(e, "why", text_json(res->why));
    if (res->bundled)
        json_object_set_new(e, "bundle", text_json(g->job.bundle));
    say(g->client, e);
    if (g->request.verb == SERVE_DIAGNOSE && res->bundled)
        tell_of_bundle(g);
    settle_error(g, "vm %u is over: %s", g->number, res->why);
    end_copies(g, false);
}

/* ---- Their lives. ---- */

static int take_room(struct guest *g, struct err *err)
{
    struct serve *s = g->serve;
    const struct test_opts *o = &g->job.o;
    struct room need = {.cpus = o->jobs ? 1 : o->c.cpus, .memory = o->c.memory};

    if (s->nguests > 1 && (!range_fits(s->used.cpus, need.cpus, s->room.cpus) ||
                           !range_fits(s->used.memory, need.memory, s->room.memory)))
        return err_set(err, EBUSY,
                       "no room for a guest of %u CPUs and %llu MiB beside the others; destroy one of them, or start "
                       "bothy with -j, which counts guests instead of CPUs",
                       o->c.cpus, (unsigned long long)(o->c.memory >> 20));
    s->used.cpus += need.cpus;
    s->used.memory += need.memory;
    g->took = need;
    return 0;
}

static int start(struct guest *g, struct err *err)
{
    struct test_plan plan = *g->serve->plan;
    char name[32];
    int r;

    snprintf(name, sizeof(name), "vm%u-%u", g->number, ++g->boots);
    plan.name = name;
    plan.machine = g->machine;
    g->run = (struct test_run){.output = output, .phase = phase, .input = input, .ended = ended, .done = done};
    g->state = BOOTS;
    r = test_job_init(&g->job, &plan, 0, err);
    if (r >= 0 && !g->took.cpus)
        r = take_room(g, err);
    return r < 0 ? r : test_run_start(&g->run, &g->job.spec, &g->serve->lane, err);
}

static void stop(struct guest *g)
{
    end_copies(g, false);
    if (g->run.child)
        test_run_fini(&g->run);
    test_job_fini(&g->job);
    g->job = (struct test_job){.name = NULL};
}

static void guest_destroy(struct guest *g)
{
    g->asked = false;
    timer_disarm(&g->limit);
    stop(g);
    list_del(&g->link);
    g->serve->nguests--;
    g->serve->used.cpus -= g->took.cpus;
    g->serve->used.memory -= g->took.memory;
    serve_request_clear(&g->request);
    free(g->machine);
    free(g);
}

static int guest_create(struct serve *s, struct lines_client *c, const char *machine, struct guest **ret,
                        struct err *err)
{
    struct guest *g = xcalloc(1, sizeof(*g));
    int r;

    *g = (struct guest){.serve = s, .client = c, .number = ++s->last, .out = -1};
    g->limit = (struct timer){.lane = &s->lane, .clk = CLK_HOST, .fire = too_late};
    g->machine = machine ? xstrdup(machine) : NULL;
    list_add_tail(&s->guests, &g->link);
    s->nguests++;
    r = start(g, err);
    if (r < 0)
        guest_destroy(g);
    else
        *ret = g;
    return r;
}

/* ---- Requests: 0, and they are or will be answered, or -errno. ---- */

static int do_create(struct serve *s, struct lines_client *c, struct serve_request *q, struct err *err)
{
    struct guest *made[SERVE_GUESTS_MAX];
    json_t *numbers = json_array();
    int r = 0;

    if (q->count > SERVE_GUESTS_MAX - s->nguests)
        r = err_set(err, EBUSY, "create: there would be more than %d guests", SERVE_GUESTS_MAX);
    for (unsigned i = 0; i < q->count && r >= 0; i++) {
        r = guest_create(s, c, q->machine, &made[i], err);
        if (r >= 0)
            json_array_append_new(numbers, json_integer(made[i]->number));
    }
    if (r >= 0) {
        answer(c, q, "result", json_pack("{s:o}", "vms", numbers));
        return 0;
    }
    for (size_t i = json_array_size(numbers); i-- > 0;)
        guest_destroy(made[i]);
    json_decref(numbers);
    return r;
}

static int load(struct guest *g, const char *path, struct err *err)
{
    struct stat st;

    if (stat(path, &st))
        return err_file(err, errno, "put", path);
    if (!S_ISREG(st.st_mode))
        return err_set(err, EINVAL, "put: \"%s\" is no regular file", path);
    if (file_read(path, COPY_MAX, &g->in, &g->in_n) < 0 && errno != EFBIG)
        return err_file(err, errno, "put", path);
    if (!g->in)
        return err_set(err, EFBIG, "put: \"%s\" has more than 256 MiB; share its directory with the guest", path);
    snprintf(g->mode, sizeof(g->mode), "%o", st.st_mode & 0777);
    return 0;
}

static int ask(struct guest *g, struct serve_request *q, struct err *err)
{
    int r;

    if (g->state == OVER)
        return err_set(err, EPIPE, "vm %u is over: %s", g->number, g->run.result.why);
    if (g->asked || g->state == BUSY)
        return err_set(err, EBUSY, "vm %u is busy with \"%s\"; wait until that has ended, or reset it", g->number,
                       serve_verb_name(g->request.verb));
    if (q->verb == SERVE_PUT && (r = load(g, q->from, err)) < 0)
        return r;
    if (q->verb == SERVE_GET && (r = open_copy(g, q->to, err)) < 0) {
        end_copies(g, false);
        return r;
    }
    serve_request_clear(&g->request);
    g->request = *q;
    *q = (struct serve_request){.verb = SERVE_VERBS};
    g->asked = true;
    g->out_n = 0;
    if (g->state == IDLE)
        begin(g);
    return 0;
}

static int diagnose(struct guest *g, struct serve_request *q, struct err *err)
{
    const struct test_result *res = &g->run.result;

    if (!g->job.spec.bundle)
        return err_set(err, ENOENT, "diagnose: start bothy test with --bundle DIR, for what is found out");
    if (g->state == OVER && !res->bundled)
        return err_set(err, ENOENT, "vm %u is over and left no bundle: %s", g->number, res->why);
    settle_error(g, "vm %u is being diagnosed", g->number);
    end_copies(g, false);
    serve_request_clear(&g->request);
    g->request = *q;
    *q = (struct serve_request){.verb = SERVE_VERBS};
    g->asked = true;
    if (g->state == OVER)
        tell_of_bundle(g);
    else
        test_run_diagnose(&g->run);
    return 0;
}

static int reset(struct guest *g, struct serve_request *q, struct err *err)
{
    int r;

    settle_error(g, "vm %u is being reset", g->number);
    stop(g);
    r = start(g, err);
    if (r < 0) {
        g->state = OVER;
        snprintf(g->run.result.why, sizeof(g->run.result.why), "%s", err->msg);
        return r;
    }
    answer(g->client, q, "result", json_object());
    return 0;
}

static int destroy(struct guest *g, struct serve_request *q, struct err *err)
{
    struct lines_client *c = g->client;

    (void)err;
    settle_error(g, "vm %u is being destroyed", g->number);
    guest_destroy(g);
    answer(c, q, "result", json_object());
    return 0;
}

static int serve_request(struct serve *s, struct lines_client *c, struct serve_request *q, struct err *err)
{
    static int (*const verbs[SERVE_VERBS])(struct guest * g, struct serve_request * q, struct err * err) = {
        [SERVE_RUN] = ask,           [SERVE_PUT] = ask,     [SERVE_GET] = ask,
        [SERVE_DIAGNOSE] = diagnose, [SERVE_RESET] = reset, [SERVE_DESTROY] = destroy,
    };

    if (q->verb == SERVE_CREATE)
        return do_create(s, c, q, err);
    list_for_each (l, &s->guests) {
        struct guest *g = container_of(l, struct guest, link);

        if (g->number == q->vm && g->client == c)
            return verbs[q->verb](g, q, err);
    }
    return err_set(err, ENOENT, "%s: you have no vm %u", serve_verb_name(q->verb), q->vm);
}

/* ---- Clients. ---- */

static void line_waits(struct lines_client *c)
{
    struct serve *s = container_of(c->lines, struct serve, lines);
    char *line;
    size_t n;

    while ((line = lines_take(c, &n))) {
        struct serve_request q;
        struct err err;
        int r = serve_request_parse(line, n, &q, &err);

        free(line);
        if (r >= 0)
            r = serve_request(s, c, &q, &err);
        if (r < 0)
            answer(c, &q, "error", text_json(err.msg));
        serve_request_clear(&q);
    }
}

/* What waited for it to read goes on. */
static void has_room(struct lines_client *c)
{
    struct serve *s = container_of(c->lines, struct serve, lines);

    list_for_each (l, &s->guests) {
        struct guest *g = container_of(l, struct guest, link);

        for (int i = 0; g->client == c && g->state != OVER && i < TEST_STREAMS; i++)
            test_run_continue(&g->run, (enum test_stream)i);
    }
}

static void destroy_all(struct serve *s, const struct lines_client *c)
{
    struct list *l = s->guests.next;

    while (l != &s->guests) {
        struct guest *g = container_of(l, struct guest, link);

        l = l->next;
        if (!c || g->client == c)
            guest_destroy(g);
    }
}

static void client_gone(struct lines_client *c)
{
    destroy_all(container_of(c->lines, struct serve, lines), c);
}

static void signal_arrived(struct watch *w, uint32_t revents)
{
    struct signalfd_siginfo si;

    (void)revents;
    if (read(w->fd, &si, sizeof(si)) == sizeof(si))
        loop_quit(w->lane->loop);
}

/* With the lane, which others have meanwhile. */
static int serve_all(struct serve *s, struct err *err)
{
    const struct test_opts *o = s->plan->opts;
    int r = test_watch_signals(&s->signals, &s->lane, signal_arrived, err);

    if (r >= 0)
        r = lines_open(&s->lines, &s->lane, o->serve + strlen("unix:"), err);
    if (r < 0)
        return r;
    lane_unlock(&s->lane);
    loop_run(s->loop);
    lane_lock(&s->lane);
    destroy_all(s, NULL);
    lines_close(&s->lines);
    return EXIT_INTERRUPTED;
}

int test_serve(const struct test_plan *p, struct err *err)
{
    struct serve s = {
        .plan = p,
        .signals.fd = -1,
        .lines = {.ready = line_waits, .room = has_room, .gone = client_gone},
    };
    int r;

    list_init(&s.guests);
    room_look(&s.room);
    if (p->opts->jobs)
        s.room.cpus = p->opts->jobs;
    r = loop_create("test", &s.loop, err);
    if (r < 0)
        return r;
    lane_init(&s.lane, s.loop);
    lane_lock(&s.lane);
    r = serve_all(&s, err);
    test_unwatch_signals(&s.signals);
    lane_unlock(&s.lane);
    lane_fini(&s.lane);
    loop_destroy(s.loop);
    return r;
}
