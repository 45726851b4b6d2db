#include "vmm/control/command.h"

#include <stdio.h>
#include <unistd.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"

enum { WORDS_MAX = 128 }; /* to choose from, when a name is misspelt */

static void cleanup_json_(json_t **j)
{
    json_decref(*j);
}
#define cleanup_json __attribute__((cleanup(cleanup_json_)))

struct command {
    const char *name, *help;
    int (*run)(struct machine *m, json_t *reply, struct err *err);
};

static int run_help(struct machine *m, json_t *reply, struct err *err); /* it lists the table below */

static int run_status(struct machine *m, json_t *reply, struct err *err)
{
    struct machine_status s;
    json_t *devices = json_object();

    (void)err;
    machine_status(m, &s);
    json_object_set_new(reply, "name", json_string(s.config->name));
    json_object_set_new(reply, "state", json_string(s.paused ? "paused" : "running"));
    if (s.why)
        json_object_set_new(reply, "reason", json_string(s.why));
    json_object_set_new(reply, "uptime", json_real((double)(s.up_ns / 1000000) / 1000));
    json_object_set_new(reply, "pid", json_integer(getpid()));
    json_object_set_new(reply, "cpus", json_integer(s.config->cpus));
    json_object_set_new(reply, "memory", json_integer((json_int_t)s.config->memory));
    for (unsigned i = 0; i < s.ndevices; i++)
        json_object_set_new(devices, s.devices[i]->id, json_string(s.devices[i]->cls->name));
    json_object_set_new(reply, "devices", devices);
    return 0;
}

static int run_pause(struct machine *m, json_t *reply, struct err *err)
{
    (void)reply;
    (void)err;
    machine_pause(m, NULL);
    return 0;
}

static int run_resume(struct machine *m, json_t *reply, struct err *err)
{
    (void)reply;
    return machine_resume(m, err);
}

static int run_reset(struct machine *m, json_t *reply, struct err *err)
{
    (void)reply;
    (void)err;
    machine_request(m, REQ_RESET, 0);
    return 0;
}

static int run_powerdown(struct machine *m, json_t *reply, struct err *err)
{
    struct machine_status s;

    (void)reply;
    machine_status(m, &s);
    if (s.paused)
        return err_set(err, EAGAIN, "%s is paused, so it cannot power itself down; resume it first, or quit",
                       s.config->name);
    machine_request(m, REQ_BUTTON, 0);
    return 0;
}

static int run_quit(struct machine *m, json_t *reply, struct err *err)
{
    (void)reply;
    (void)err;
    machine_request(m, REQ_QUIT, 0);
    return 0;
}

static json_t *seconds(uint64_t ns)
{
    return json_real((double)(ns / 1000) / 1000000);
}

static int run_profile(struct machine *m, json_t *reply, struct err *err)
{
    json_t *exits = json_object();
    struct machine_profile p;

    (void)err;
    machine_profile(m, &p);
    json_object_set_new(reply, "begun", seconds(p.begun_ns));
    json_object_set_new(reply, "made", seconds(p.made_ns - p.begun_ns));
    json_object_set_new(reply, "loaded", seconds(p.loaded_ns - p.begun_ns));
    json_object_set_new(reply, "entered", seconds(p.entered_ns ? p.entered_ns - p.begun_ns : 0));
    for (unsigned i = 0; i < p.nexits; i++)
        json_object_set_new(exits, p.exits[i].cause, json_integer((json_int_t)p.exits[i].n));
    json_object_set_new(reply, "exits", exits);
    return 0;
}

static const struct command commands[] = {
    {"help", "what can be asked", run_help},
    {"status", "is it running or paused, for how long; its devices", run_status},
    {"profile", "when it was made, its kernel loaded and the guest entered; by what, and how often, it was left since",
     run_profile},
    {"pause", "let the guest stand still, its clocks too", run_pause},
    {"resume", "let it go on, and have what failed tried again", run_resume},
    {"reset", "start the guest anew; a paused one stays paused", run_reset},
    {"powerdown", "press the guest's power button", run_powerdown},
    {"quit", "end the guest at once", run_quit},
};

/* ---- Devices' commands. ---- */

#define INFO "info" /* every device has it */

static json_t *describe(const struct device_command *c)
{
    json_t *ret = json_object();

    json_object_set_new(ret, "does", json_string(c->help));
    for (const struct opt *o = c->opts; o && o->name; o++)
        json_object_set_new(ret, o->name, json_string(o->help));
    return ret;
}

static int run_help(struct machine *m, json_t *reply, struct err *err)
{
    struct machine_status s;
    char name[64];

    (void)err;
    for (size_t i = 0; i < array_len(commands); i++)
        json_object_set_new(reply, commands[i].name, json_string(commands[i].help));
    json_object_set_new(reply, "DEVICE." INFO, json_string("a device's state, and what it counts"));
    machine_status(m, &s);
    for (unsigned i = 0; i < s.ndevices; i++)
        for (const struct device_command *c = s.devices[i]->cls->commands; c && c->name; c++) {
            snprintf(name, sizeof(name), "%s.%s", s.devices[i]->id, c->name);
            json_object_set_new(reply, name, describe(c));
        }
    return 0;
}

/* The guest stands still meanwhile, if it has to. */
static int run_on_device(struct machine *m, struct device *d, const struct device_command *c, const char *args,
                         json_t *reply, struct err *err)
{
    struct machine_status s;
    struct err again;
    bool stop;
    int r;

    machine_status(m, &s);
    stop = c->still && !s.paused;
    if (stop)
        machine_stop(m);
    r = device_command_run(d, c, args, reply, err);
    if (stop && machine_start(m, &again) < 0)
        machine_pause(m, again.msg);
    return r;
}

static int unknown(const char *what, const char *name, const char *const *words, const char *list, struct err *err)
{
    const char *near = nearest_word(name, words);

    if (near)
        return err_set(err, ENOENT, "unknown %s \"%.64s\"; did you mean \"%s\"?", what, name, near);
    return err_set(err, ENOENT, "unknown %s \"%.64s\"; \"%s\" lists what there is", what, name, list);
}

static int unknown_device(const struct machine_status *s, const char *id, struct err *err)
{
    const char *words[WORDS_MAX + 1];
    unsigned n = 0;

    for (; n < s->ndevices && n < WORDS_MAX; n++)
        words[n] = s->devices[n]->id;
    words[n] = NULL;
    return unknown("device", id, words, "status", err);
}

static int unknown_device_command(const struct device *d, const char *name, struct err *err)
{
    char what[64];
    const char *words[WORDS_MAX + 1] = {INFO};
    unsigned n = 1;

    for (const struct device_command *c = d->cls->commands; c && c->name && n < WORDS_MAX; c++)
        words[n++] = c->name;
    words[n] = NULL;
    snprintf(what, sizeof(what), "command of %s", d->id);
    return unknown(what, name, words, "help", err);
}

static int no_arguments(const char *args, struct err *err)
{
    return *args ? err_set(err, EINVAL, "it takes no arguments") : 0;
}

/* "blk0", "resize" */
static int device_command(struct machine *m, const char *id, const char *name, const char *args, json_t *reply,
                          struct err *err)
{
    const struct device_command *c;
    struct device *d = NULL;
    struct machine_status s;
    json_t *info;
    int r;

    machine_status(m, &s);
    for (unsigned i = 0; i < s.ndevices && !d; i++)
        if (!strcmp(s.devices[i]->id, id))
            d = s.devices[i];
    if (!d)
        return unknown_device(&s, id, err);
    c = device_command_find(d, name);
    if (!c && strcmp(name, INFO))
        return unknown_device_command(d, name, err);
    r = c ? run_on_device(m, d, c, args, reply, err) : no_arguments(args, err);
    if (r)
        return err_wrap(err, "%s.%s", id, name);
    if (c)
        return 0;
    info = device_info(d);
    json_object_update(reply, info);
    json_decref(info);
    return 0;
}

static int machine_command(struct machine *m, const char *name, const char *args, json_t *reply, struct err *err)
{
    const char *words[array_len(commands) + 1];
    size_t i = 0;

    for (; i < array_len(commands); i++) {
        words[i] = commands[i].name;
        if (!strcmp(commands[i].name, name)) {
            int r = no_arguments(args, err);

            r = r ? r : commands[i].run(m, reply, err);
            return r ? err_wrap(err, "%s", name) : 0;
        }
    }
    words[i] = NULL;
    return unknown("command", name, words, "help", err);
}

/* ---- Requests. ---- */

static int serve(struct machine *m, json_t *request, json_t *reply, struct err *err)
{
    static const char *const command[] = {"command", NULL};
    const char *text = json_string_value(json_object_get(request, *command));
    char *args cleanup_free = NULL, *name cleanup_free = NULL, *dot;
    int r;

    if (!text)
        return err_set(err, EINVAL, "no \"command\"; ask as in {\"command\": \"help\"}");
    name = xstrdup(text);
    r = config_options_from_json(request, command, &args, err);
    if (r < 0)
        return r;
    dot = strchr(name, '.');
    if (dot)
        *dot = 0;
    return dot ? device_command(m, name, dot + 1, args, reply, err) : machine_command(m, name, args, reply, err);
}

char *command_answer(struct machine *m, const char *line, size_t n)
{
    json_t *reply cleanup_json = json_object(), *request cleanup_json = NULL, *answer cleanup_json = NULL;
    json_error_t je;
    struct err err;
    char *ret;
    int r;

    request = json_loadb(line, n, JSON_REJECT_DUPLICATES, &je);
    if (!request)
        r = err_set(&err, EINVAL, "not JSON: %s", je.text);
    else if (!json_is_object(request))
        r = err_set(&err, EINVAL, "not an object; ask as in {\"command\": \"help\"}");
    else
        r = serve(m, request, reply, &err);
    answer = r ? json_pack("{s:s}", "error", err.msg) : json_pack("{s:O}", "result", reply);
    if (!answer) { /* a name in it, or one that was cut, is no UTF-8 */
        for (char *c = err.msg; *c; c++)
            *c = *c & 0x80 ? '?' : *c;
        answer = json_pack("{s:s}", "error", err.msg);
    }
    ret = json_dumps(answer, JSON_COMPACT | JSON_REAL_PRECISION(12));
    if (!ret)
        abort();
    return ret;
}
