/* The config as JSON: an object with a member per option, and "devices", an array of objects with a member per option.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "vmm/base/cleanup.h"
#include "vmm/machine/config.h"

static void cleanup_json(json_t **j)
{
    json_decref(*j);
}
#define cleanup_json __attribute__((cleanup(cleanup_json)))

/* New reference, or NULL for what is not set. */
static json_t *value_to_json(const struct opt *o, const void *obj)
{
    char buf[64];
    const char *text;
    json_t *list;

    if (o->kind == OPT_LIST) {
        const struct opt_list *l = opts_list(o, obj);

        list = json_array();
        for (size_t i = 0; i < l->n; i++)
            json_array_append_new(list, json_string(l->v[i]));
        return list;
    }
    text = opts_get(o, obj, buf, sizeof(buf));
    if (!text)
        return NULL;
    if (o->kind == OPT_BOOL)
        return json_boolean(!strcmp(text, "on"));
    if (o->kind == OPT_U32 || o->kind == OPT_U64)
        return json_integer((json_int_t)strtoull(text, NULL, 0));
    return json_string(text);
}

/* -EINVAL where a string cannot be written as JSON (not UTF-8). */
static int put_options(json_t *into, const struct opt *opts, const void *obj, struct err *err)
{
    const struct opt *more;
    void *chosen;

    for (const struct opt *o = opts; o && o->name; o++) {
        bool set = o->kind == OPT_LIST || opts_get(o, obj, (char[64]){0}, 64);
        json_t *v = value_to_json(o, obj);

        if (set && !v)
            return err_set(err, EINVAL, "--%s is not UTF-8, which JSON needs", o->name);
        if (v)
            json_object_set_new(into, o->name, v);
    }
    more = opts ? opts_chosen(opts, obj, &chosen) : NULL;
    return more ? put_options(into, more, chosen, err) : 0;
}

int config_to_json(const struct config *c, char **ret, struct err *err)
{
    json_t *root cleanup_json = json_object();
    json_t *devices = json_array();
    char *text;
    size_t n;
    int r;

    if ((r = put_options(root, config_opts, c, err)) < 0) {
        json_decref(devices);
        return r;
    }
    json_object_set_new(root, "devices", devices);
    for (unsigned i = 0; i < c->ndevices; i++) {
        const struct config_device *cd = &c->devices[i];
        json_t *o = json_object();
        struct device *d;

        json_array_append_new(devices, o);
        json_object_set_new(o, "device", json_string(cd->cls->name));
        json_object_set_new(o, "id", json_string(cd->id));
        if ((r = device_create(cd->cls, cd->id, cd->options, &d, err)) < 0)
            return err_wrap(err, "%s", cd->id);
        r = put_options(o, cd->cls->opts, d, err);
        device_destroy(d);
        if (r < 0)
            return r;
    }
    text = json_dumps(root, JSON_INDENT(2));
    if (!text || !(n = strlen(text), text = realloc(text, n + 2)))
        abort();
    memcpy(text + n, "\n", 2);
    *ret = text;
    return 0;
}

/* A JSON scalar as the text that opts_set() takes; NULL for what is none. */
static const char *scalar_text(json_t *v, char *buf, size_t n)
{
    if (json_is_string(v))
        return json_string_value(v);
    if (json_is_boolean(v))
        return json_is_true(v) ? "on" : "off";
    if (!json_is_integer(v))
        return NULL;
    snprintf(buf, n, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    return buf;
}

/* Calls set(name, text) for a scalar, or for each element of a list. */
static int each_value(const char *key, json_t *v,
                      int (*set)(void *far, const char *key, const char *text, struct err *err), void *far,
                      struct err *err)
{
    size_t n = json_is_array(v) ? json_array_size(v) : 1;

    for (size_t i = 0; i < n; i++) {
        char buf[32];
        const char *text = scalar_text(json_is_array(v) ? json_array_get(v, i) : v, buf, sizeof(buf));
        int r = text ? set(far, key, text, err)
                     : err_set(err, EINVAL, "\"%s\" has a value that is no string, integer or boolean", key);

        if (r < 0)
            return r;
    }
    return 0;
}

static int set_config(void *far, const char *key, const char *text, struct err *err)
{
    return opts_set(config_opts, far, key, text, err);
}

/* Collects a device's options as the text that device_create() parses. */
static int append_option(void *far, const char *key, const char *text, struct err *err)
{
    FILE *f = far;

    (void)err;
    config_put_option(f, key, text);
    return 0;
}

static bool among(const char *key, const char *const *words)
{
    while (*words && strcmp(key, *words))
        words++;
    return *words;
}

int config_options_from_json(json_t *o, const char *const *but, char **ret, struct err *err)
{
    char *text cleanup_free = NULL;
    const char *key;
    size_t len;
    json_t *v;
    FILE *f = open_memstream(&text, &len);
    int r = 0;

    if (!f)
        abort();
    json_object_foreach(o, key, v)
    {
        if (r >= 0 && !among(key, but))
            r = each_value(key, v, append_option, f, err);
    }
    fclose(f);
    if (r >= 0)
        *ret = take_ptr(text);
    return r;
}

static int device_from_json(struct config *c, json_t *o, struct err *err)
{
    static const char *const own[] = {"device", "id", NULL};
    const char *cls = json_string_value(json_object_get(o, "device"));
    const char *id = json_string_value(json_object_get(o, "id"));
    char *text cleanup_free = NULL;
    int r;

    if (!cls)
        return err_set(err, EINVAL, "an element of \"devices\" has no \"device\", the name of its class");
    r = config_options_from_json(o, own, &text, err);
    return r < 0 ? r : config_add_class(c, cls, text, id, err);
}

int config_from_json(struct config *c, const char *text, const char *where, struct err *err)
{
    json_error_t je;
    json_t *root cleanup_json = json_loads(text, JSON_REJECT_DUPLICATES, &je);
    const char *key;
    json_t *v;

    if (!root)
        return err_set(err, EINVAL, "%s: line %d: %s; give what \"bothy run --dry-run\" printed", where, je.line,
                       je.text);
    if (!json_is_object(root))
        return err_set(err, EINVAL, "%s: not a JSON object; give what \"bothy run --dry-run\" printed", where);
    json_object_foreach(root, key, v)
    {
        int r = 0;

        if (strcmp(key, "devices"))
            r = each_value(key, v, set_config, c, err);
        else
            for (size_t i = 0; i < json_array_size(v) && r >= 0; i++)
                r = device_from_json(c, json_array_get(v, i), err);
        if (r < 0)
            return err_wrap(err, "%s", where);
    }
    return 0;
}
