/*
 * Theory of operation.  The socket and its clients belong to the main loop.  A client's line is served as a job of the
 * machine's, with no lane held, since it may stop it.  While it does, the loop may run and hear others, but not that
 * client.
 */
#include "vmm/control/control.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "vmm/base/cleanup.h"
#include "vmm/control/command.h"
#include "vmm/loop/lines.h"

struct control {
    struct machine *machine; /* borrowed */
    struct machine_job job;
    struct lane lane;
    struct lines lines;
};

static void line_waits(struct lines_client *c)
{
    struct control *control = container_of(c->lines, struct control, lines);

    machine_do(control->machine, &control->job);
}

/* In the lane, and out of it while the command runs. */
static void serve(struct control *c, struct lines_client *client)
{
    char *line cleanup_free = NULL, *answer cleanup_free = NULL;
    size_t n;

    line = lines_take(client, &n);
    if (!line)
        return;
    lines_hold(client, true);
    lane_unlock(&c->lane);
    answer = command_answer(c->machine, line, n);
    lane_lock(&c->lane);
    lines_hold(client, false);
    lines_say(client, answer, strlen(answer));
}

static void serve_all(struct machine_job *j)
{
    struct control *c = container_of(j, struct control, job);

    lane_lock(&c->lane);
    for (unsigned i = 0; i < LINES_CLIENTS; i++)
        serve(c, &c->lines.clients[i]);
    lane_unlock(&c->lane);
}

static int listen_at(struct control *c, const char *path, struct err *err)
{
    struct stat st;
    int fd, end = 0;

    if (strncmp(path, "fd:", 3))
        return lines_open(&c->lines, &c->lane, path, err);
    if (sscanf(path, "fd:%d%n", &fd, &end) != 1 || path[end] || fstat(fd, &st) || !S_ISSOCK(st.st_mode))
        return err_set(err, EBADF, "--control %s: give the number of a socket that somebody is connected to", path);
    lines_adopt(&c->lines, &c->lane, fd);
    return 0;
}

int control_open(struct machine *m, const char *path, struct control **ret, struct err *err)
{
    struct control *c = xcalloc(1, sizeof(*c));
    int r;

    c->machine = m;
    c->job.run = serve_all;
    c->lines.ready = line_waits;
    lane_init(&c->lane, machine_loop(m));
    lane_lock(&c->lane);
    r = listen_at(c, path, err);
    lane_unlock(&c->lane);
    if (r) {
        lane_fini(&c->lane);
        free(c);
        return r;
    }
    *ret = c;
    return 0;
}

void control_close(struct control *c)
{
    if (!c)
        return;
    machine_cancel(c->machine, &c->job);
    lane_lock(&c->lane);
    lines_close(&c->lines);
    lane_unlock(&c->lane);
    lane_fini(&c->lane);
    free(c);
}
