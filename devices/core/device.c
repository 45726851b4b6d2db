#include "devices/core/device.h"

#include <ctype.h>
#include <stdio.h>

#include "vmm/base/cleanup.h"

static const struct opt no_opts[] = {O_END};

static int check_id(const char *id, struct err *err)
{
    size_t n = strlen(id);

    if (!n || n >= sizeof(((struct device *)0)->id))
        return err_set(err, EINVAL, "device name \"%s\" has %zu letters; use 1 to %zu", id, n,
                       sizeof(((struct device *)0)->id) - 1);
    for (const char *s = id; *s; s++)
        if (!isalnum((unsigned char)*s) && !strchr("-_", *s))
            return err_set(err, EINVAL, "device name \"%s\": use letters, digits, - and _", id);
    return 0;
}

int device_create(const struct device_class *cls, const char *id, const char *options, struct device **ret,
                  struct err *err)
{
    const struct opt *opts = cls->opts ? cls->opts : no_opts;
    struct device *d;
    int rc = check_id(id, err);

    if (rc)
        return rc;
    d = xcalloc(1, cls->size);
    d->cls = cls;
    strcpy(d->id, id);
    opts_default(opts, d);
    rc = opts_parse(opts, d, cls->first, options, err);
    if (rc) {
        device_destroy(d);
        return rc;
    }
    *ret = d;
    return 0;
}

int device_init(struct device *d, struct device_env *env, struct loop *loop, struct err *err)
{
    int rc;

    d->env = env;
    lane_init(&d->lane, loop);
    lane_lock(&d->lane);
    rc = d->cls->init ? d->cls->init(d, err) : 0;
    lane_unlock(&d->lane);
    return rc;
}

void device_destroy(struct device *d)
{
    if (!d)
        return;
    if (d->env) {
        lane_lock(&d->lane);
        lane_drain(&d->lane);
        if (d->cls->fini)
            d->cls->fini(d);
        lane_unlock(&d->lane);
        lane_fini(&d->lane);
    }
    if (d->cls->opts)
        opts_clear(d->cls->opts, d);
    free(d);
}

void device_add_state(struct device *d, const char *name, const struct state_desc *desc, void *obj, unsigned count)
{
    assert(d->nparts < DEVICE_PARTS_MAX);
    d->parts[d->nparts++] = (struct device_part){.name = name, .desc = desc, .obj = obj, .count = count};
}

void device_add_hook(struct device *d, struct device_hook *h)
{
    struct device_hook **end = &d->hooks;

    while (*end)
        end = &(*end)->next;
    h->next = NULL;
    *end = h;
}

/* One step of the life cycle, in the lane: the hooks' part, then the class's. */
#define RUN_STEP(d, step)                                        \
    do {                                                         \
        for (struct device_hook *h = (d)->hooks; h; h = h->next) \
            if (h->step)                                         \
                h->step(h);                                      \
        if ((d)->cls->step)                                      \
            (d)->cls->step(d);                                   \
    } while (0)

void device_reset(struct device *d)
{
    lane_lock(&d->lane);
    RUN_STEP(d, reset);
    lane_unlock(&d->lane);
}

void device_settle(struct device *d)
{
    lane_lock(&d->lane);
    RUN_STEP(d, settle);
    lane_unlock(&d->lane);
}

void device_start(struct device *d)
{
    lane_lock(&d->lane);
    RUN_STEP(d, start);
    lane_unlock(&d->lane);
}

void device_stop(struct device *d)
{
    lane_lock(&d->lane);
    RUN_STEP(d, stop);
    lane_drain(&d->lane);
    lane_unlock(&d->lane);
}

struct part_id {
    char text[STATE_NAME_MAX + 1];
};

/* "com1", "disk0.virtio", "disk0.queue3" */
static struct part_id part_id(const struct device *d, const struct device_part *p, unsigned index)
{
    struct part_id id;

    if (!*p->name)
        snprintf(id.text, sizeof(id.text), "%s", d->id);
    else if (p->count == 1)
        snprintf(id.text, sizeof(id.text), "%s.%s", d->id, p->name);
    else
        snprintf(id.text, sizeof(id.text), "%s.%s%u", d->id, p->name, index);
    return id;
}

void device_save(struct device *d, struct state_writer *w)
{
    lane_lock(&d->lane);
    for (const struct device_part *p = d->parts; p < d->parts + d->nparts; p++)
        for (unsigned i = 0; i < p->count; i++)
            state_save(w, part_id(d, p, i).text, p->desc, (const char *)p->obj + (size_t)i * p->desc->size);
    lane_unlock(&d->lane);
}

int device_load(struct device *d, struct state_reader *r, struct err *err)
{
    int rc = 0;

    device_reset(d);
    lane_lock(&d->lane);
    for (const struct device_part *p = d->parts; p < d->parts + d->nparts && !rc; p++)
        for (unsigned i = 0; i < p->count && !rc; i++)
            rc = state_load(r, part_id(d, p, i).text, p->desc, (char *)p->obj + (size_t)i * p->desc->size, err);
    lane_unlock(&d->lane);
    return rc;
}

const struct device_command *device_command_find(const struct device *d, const char *name)
{
    for (const struct device_command *c = d->cls->commands; c && c->name; c++)
        if (!strcmp(c->name, name))
            return c;
    return NULL;
}

int device_command_run(struct device *d, const struct device_command *cmd, const char *text, json_t *reply,
                       struct err *err)
{
    const struct opt *opts = cmd->opts ? cmd->opts : no_opts;
    cleanup_free void *args = xcalloc(1, cmd->size);
    int rc;

    opts_default(opts, args);
    rc = opts_parse(opts, args, NULL, text, err);
    if (!rc) {
        lane_lock(&d->lane);
        rc = cmd->run(d, args, reply, err);
        lane_unlock(&d->lane);
    }
    opts_clear(opts, args);
    return rc;
}

json_t *device_info(struct device *d)
{
    json_t *ret = json_object(), *state = json_object(), *more;

    json_object_set_new(ret, "class", json_string(d->cls->name));
    lane_lock(&d->lane);
    more = d->cls->info ? d->cls->info(d) : NULL;
    for (const struct device_part *p = d->parts; p < d->parts + d->nparts; p++) {
        json_t *v = p->count == 1 ? state_to_json(p->desc, p->obj) : json_array();

        for (unsigned i = 0; p->count != 1 && i < p->count; i++)
            json_array_append_new(v, state_to_json(p->desc, (const char *)p->obj + (size_t)i * p->desc->size));
        json_object_set_new(state, *p->name ? p->name : d->cls->name, v);
    }
    lane_unlock(&d->lane);
    json_object_update(ret, more);
    json_object_set_new(ret, "state", state);
    json_decref(more);
    return ret;
}
