/* `bothy ctl`: asks a running guest's control socket for something (vmm/control/command.h). */
#include <jansson.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmm/base/cleanup.h"
#include "vmm/cli/cli.h"

enum { ARGS_MAX = 64 };

struct ctl_opts {
    bool json;
};

static const struct opt ctl_opts[] = {
    O_BOOL(struct ctl_opts, json, "json", "off", "print the answer as it came, one line of JSON"),
    O_END,
};

static int connect_to(const char *path, int *ret, struct err *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd cleanup_fd = -1;

    if (strlen(path) >= sizeof(addr.sun_path))
        return err_set(err, ENAMETOOLONG, "socket \"%s\": its path is longer than %zu bytes", path,
                       sizeof(addr.sun_path) - 1);
    strcpy(addr.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr))) {
        if (errno == ECONNREFUSED)
            return err_set(err, errno, "nobody listens at \"%s\": its bothy has ended", path);
        if (errno == ENOENT)
            return err_set(err, errno, "there is no \"%s\"; start the guest with: bothy run --control %s …", path,
                           path);
        return err_file(err, errno, "socket", path);
    }
    *ret = take_fd(&fd);
    return 0;
}

/* The command and its arguments as a line of JSON, the caller's. */
static int make_request(const struct cli_line *l, char **ret, struct err *err)
{
    json_t *o = json_object();
    char *text;
    int r = json_object_set_new(o, "command", json_string(l->args[1]));

    for (unsigned i = 2; !r && i < l->nargs; i++) {
        cleanup_free char *key = xstrdup(l->args[i]);
        char *eq = strchr(key, '=');

        if (eq)
            *eq = 0;
        if (json_object_get(o, key))
            r = err_set(err, EINVAL, "%s is given twice", key);
        else if (json_object_set_new(o, key, eq ? json_string(eq + 1) : json_true()))
            r = -1;
    }
    text = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    if (r == -1)
        r = err_set(err, EILSEQ, "the command and its arguments must be UTF-8");
    if (!r && asprintf(ret, "%s\n", text) < 0)
        abort();
    free(text);
    return r;
}

static int send_all(int fd, const char *text)
{
    for (size_t n = strlen(text); n;) {
        ssize_t done = send(fd, text, n, MSG_NOSIGNAL);

        if (done < 0)
            return -errno;
        text += done;
        n -= (size_t)done;
    }
    return 0;
}

/* What bothy made of it; the caller's. */
static int get_answer(int fd, const char *path, const char *request, json_t **ret, struct err *err)
{
    char *line cleanup_free = NULL;
    size_t cap = 0;
    ssize_t n = -1;
    FILE *f = fdopen(dup(fd), "re");

    if (f && !send_all(fd, request))
        n = getline(&line, &cap, f);
    if (f)
        fclose(f);
    if (n < 0)
        return err_set(err, EPIPE, "\"%s\": bothy has ended, or the connection has", path);
    *ret = json_loadb(line, (size_t)n, 0, NULL);
    return *ret ? 0 : err_set(err, EPROTO, "\"%s\": what answers there is no bothy", path);
}

static void print_value(const char *name, json_t *v, int indent);

static void print_scalar(json_t *v)
{
    char *text = json_is_string(v) ? NULL : json_dumps(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(12));

    fputs(text ? text : json_string_value(v), stdout);
    free(text);
}

/* Numbers and switches only, which read best side by side? */
static bool is_row(json_t *o)
{
    const char *key;
    json_t *v;

    json_object_foreach(o, key, v)
    {
        if (!json_is_number(v) && !json_is_boolean(v))
            return false;
    }
    return true;
}

static void print_row(json_t *o)
{
    const char *key;
    json_t *v;

    json_object_foreach(o, key, v)
    {
        printf(" %s=", key);
        print_scalar(v);
    }
    putchar('\n');
}

static void print_members(json_t *o, int indent)
{
    const char *key;
    json_t *v;

    json_object_foreach(o, key, v)
    {
        print_value(key, v, indent);
    }
}

static void print_elements(json_t *a, int indent)
{
    for (size_t i = 0; i < json_array_size(a); i++) {
        char number[24];

        snprintf(number, sizeof(number), "%zu", i);
        print_value(number, json_array_get(a, i), indent);
    }
}

static void print_value(const char *name, json_t *v, int indent)
{
    printf("%*s%s:", indent, "", name);
    if (json_is_object(v) && is_row(v)) {
        print_row(v);
    } else if (json_is_object(v)) {
        putchar('\n');
        print_members(v, indent + 2);
    } else if (json_is_array(v)) {
        putchar('\n');
        print_elements(v, indent + 2);
    } else {
        putchar(' ');
        print_scalar(v);
        putchar('\n');
    }
}

static int print_answer(const struct ctl_opts *o, json_t *answer, struct err *err)
{
    const char *error = json_string_value(json_object_get(answer, "error"));

    if (o->json) {
        json_dumpf(answer, stdout, JSON_COMPACT | JSON_REAL_PRECISION(12));
        putchar('\n');
        return error ? 1 : 0;
    }
    if (error)
        return err_set(err, EIO, "%s", error);
    print_members(json_object_get(answer, "result"), 0);
    return 0;
}

static int ctl_run(struct cli_line *l, struct err *err)
{
    char *request cleanup_free = NULL;
    int fd cleanup_fd = -1, r;
    json_t *answer;

    if (l->nargs < 2)
        return err_set(err, EINVAL, "give a socket and a command, as in: bothy ctl SOCKET help");
    if ((r = make_request(l, &request, err)) < 0 || (r = connect_to(l->args[0], &fd, err)) < 0 ||
        (r = get_answer(fd, l->args[0], request, &answer, err)) < 0)
        return r;
    r = print_answer(l->opts, answer, err);
    json_decref(answer);
    return r;
}

const struct cli_verb verb_ctl = {
    .name = "ctl",
    .summary = "ask something of a running guest",
    .args = "SOCKET COMMAND [KEY=VALUE]...",
    .max_args = ARGS_MAX,
    .text = "SOCKET is what \"bothy run --control\" was given.  The command \"help\" lists all there are, those of the "
            "guest's devices as \"disk0.resize\".\n\n"
            "On the socket a request is a line, {\"command\": \"disk0.resize\", \"size\": \"20G\"}, and its answer "
            "another, "
            "{\"result\": {...}} or {\"error\": \"one line\"}.",
    .opts = ctl_opts,
    .size = sizeof(struct ctl_opts),
    .run = ctl_run,
    .fail_code = 1,
};
