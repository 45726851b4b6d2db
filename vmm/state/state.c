#include "vmm/state/state.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"

enum { MAGIC = 0x53594842 }; /* "BHYS" */

static void mark(uint8_t *seen, const struct state_desc *d)
{
    for (const struct field *f = d->fields; f->kind != FIELD_END; f++)
        for (uint32_t i = 0; i < f->count; i++) {
            uint8_t *at = seen + f->off + (size_t)i * f->size;

            if (f->kind == FIELD_STRUCT)
                mark(at, f->sub);
            else
                memset(at, 1, f->size);
        }
}

size_t state_uncovered(const struct state_desc *d)
{
    cleanup_free uint8_t *seen = xcalloc(1, d->size);
    size_t n = 0;

    mark(seen, d);
    for (uint32_t i = 0; i < d->size; i++)
        n += !seen[i];
    return n;
}

/* Writing */

static void *room(struct state_writer *w, size_t n)
{
    if (n > w->cap - w->len) {
        w->cap = 2 * w->cap + n;
        w->buf = realloc(w->buf, w->cap);
        if (!w->buf)
            abort();
    }
    w->len += n;
    return w->buf + w->len - n;
}

static void put_uint(struct state_writer *w, uint64_t v, unsigned size)
{
    v = htole64(v);
    memcpy(room(w, size), &v, size);
}

static void put_name(struct state_writer *w, const char *name)
{
    size_t n = strlen(name);

    assert(n && n <= STATE_NAME_MAX);
    put_uint(w, n, 1);
    memcpy(room(w, n), name, n);
}

/* A length that is known later: its place, for close_length(). */
static size_t open_length(struct state_writer *w)
{
    put_uint(w, 0, 4);
    return w->len;
}

static void close_length(struct state_writer *w, size_t start)
{
    assert(w->len - start <= STATE_PAYLOAD_MAX);
    put_le32(w->buf + start - 4, (uint32_t)(w->len - start));
}

static uint64_t load_uint(const void *p, unsigned size)
{
    switch (size) {
    case 1:
        return *(const uint8_t *)p;
    case 2:
        return *(const uint16_t *)p;
    case 4:
        return *(const uint32_t *)p;
    default:
        return *(const uint64_t *)p;
    }
}

static void store_uint(void *p, uint64_t v, unsigned size)
{
    switch (size) {
    case 1:
        *(uint8_t *)p = (uint8_t)v;
        break;
    case 2:
        *(uint16_t *)p = (uint16_t)v;
        break;
    case 4:
        *(uint32_t *)p = (uint32_t)v;
        break;
    default:
        *(uint64_t *)p = v;
    }
}

static void save_struct(struct state_writer *w, const char *name, const struct state_desc *d, const void *obj)
{
    size_t section, field;

    put_uint(w, d->version, 2);
    put_name(w, name);
    section = open_length(w);
    for (const struct field *f = d->fields; f->kind != FIELD_END; f++) {
        const uint8_t *at = (const uint8_t *)obj + f->off;

        put_name(w, f->name);
        put_uint(w, f->kind, 1);
        field = open_length(w);
        switch (f->kind) {
        case FIELD_END:
            break;
        case FIELD_UINT:
            put_uint(w, load_uint(at, f->size), f->size);
            break;
        case FIELD_BOOL:
            put_uint(w, *(const bool *)at, 1);
            break;
        case FIELD_BYTES:
            memcpy(room(w, f->count), at, f->count);
            break;
        case FIELD_STRUCT:
            assert(f->sub->size == f->size);
            for (uint32_t i = 0; i < f->count; i++)
                save_struct(w, f->sub->name, f->sub, at + (size_t)i * f->size);
            break;
        }
        close_length(w, field);
    }
    close_length(w, section);
}

void state_save(struct state_writer *w, const char *id, const struct state_desc *d, const void *obj)
{
    put_uint(w, MAGIC, 4);
    save_struct(w, id, d, obj);
}

void state_writer_fini(struct state_writer *w)
{
    free(w->buf);
    *w = (struct state_writer){0};
}

/* Reading: nothing in the stream is believed. */

struct name {
    char text[STATE_NAME_MAX + 1];
};

static const uint8_t *take(struct state_reader *r, size_t n)
{
    if (n > r->len - r->off)
        return NULL;
    r->off += n;
    return r->buf + r->off - n;
}

static int cut_short(const struct state_reader *r, const char *what, struct err *err)
{
    return err_set(err, EBADMSG, "%s at byte %zu is cut short", what, r->off);
}

static int get_uint(struct state_reader *r, unsigned size, const char *what, uint64_t *ret, struct err *err)
{
    const uint8_t *p = take(r, size);
    uint64_t v = 0;

    if (!p)
        return cut_short(r, what, err);
    memcpy(&v, p, size);
    *ret = le64toh(v);
    return 0;
}

static int get_name(struct state_reader *r, struct name *ret, struct err *err)
{
    size_t at = r->off;
    const uint8_t *p;
    uint64_t n;
    int rc = get_uint(r, 1, "name", &n, err);

    if (rc)
        return rc;
    if (!n || n > STATE_NAME_MAX)
        return err_set(err, EBADMSG, "name at byte %zu has %" PRIu64 " letters", at, n);
    p = take(r, n);
    if (!p)
        return cut_short(r, "name", err);
    for (size_t i = 0; i < n; i++)
        if (p[i] <= ' ' || p[i] > '~')
            return err_set(err, EBADMSG, "name at byte %zu is not text", at);
    memcpy(ret->text, p, n);
    ret->text[n] = 0;
    return 0;
}

/* A length and a reader for just so many bytes, which `r` skips. */
static int get_part(struct state_reader *r, const char *what, struct state_reader *ret, struct err *err)
{
    uint64_t n = 0;
    int rc = get_uint(r, 4, what, &n, err);

    if (rc)
        return rc;
    if (n > STATE_PAYLOAD_MAX)
        return err_set(err, EBADMSG, "%s at byte %zu claims %" PRIu64 " bytes; at most %d are allowed", what, r->off, n,
                       STATE_PAYLOAD_MAX);
    if (!take(r, n))
        return cut_short(r, what, err);
    *ret = (struct state_reader){.buf = r->buf, .len = r->off, .off = r->off - n};
    return 0;
}

static int load_struct(struct state_reader *r, const char *name, const struct state_desc *d, void *obj, struct err *err)
    must_check;

static int load_bytes(struct state_reader *r, const struct field *f, void *at, struct err *err)
{
    size_t want = (size_t)f->size * f->count, n = r->len - r->off;
    const uint8_t *p = r->buf + r->off;
    uint64_t v = 0;

    if (n != want)
        return err_set(err, EBADMSG, "%zu bytes at byte %zu where %zu belong", n, r->off, want);
    if (f->kind == FIELD_BYTES) {
        memcpy(at, p, n);
        return 0;
    }
    memcpy(&v, p, n);
    v = le64toh(v);
    if (f->kind == FIELD_BOOL && v > 1)
        return err_set(err, EBADMSG, "%" PRIu64 " at byte %zu is neither 0 nor 1", v, r->off);
    if (f->kind == FIELD_BOOL)
        *(bool *)at = v;
    else
        store_uint(at, v, f->size);
    return 0;
}

static int load_field(struct state_reader *r, const struct field *f, void *at, struct err *err)
{
    if (f->kind != FIELD_STRUCT)
        return load_bytes(r, f, at, err);
    for (uint32_t i = 0; i < f->count; i++) {
        int rc = load_struct(r, f->sub->name, f->sub, (uint8_t *)at + (size_t)i * f->size, err);

        if (rc)
            return rc;
    }
    if (r->off != r->len)
        return err_set(err, EBADMSG, "more than %" PRIu32 " elements at byte %zu", f->count, r->off);
    return 0;
}

static const struct field *find_field(const struct state_desc *d, const char *name)
{
    for (const struct field *f = d->fields; f->kind != FIELD_END; f++)
        if (!strcmp(f->name, name))
            return f;
    return NULL;
}

static int prefix(struct err *err, const char *name)
{
    err_wrap(err, "%s", name);
    return -EBADMSG;
}

static int load_fields(struct state_reader *r, const struct state_desc *d, void *obj, struct err *err)
{
    while (r->off < r->len) {
        const struct field *f;
        struct state_reader part;
        struct name name;
        uint64_t kind;
        int rc = get_name(r, &name, err);

        if (!rc)
            rc = get_uint(r, 1, "kind", &kind, err);
        if (!rc)
            rc = get_part(r, "field", &part, err);
        if (rc)
            return rc;
        f = find_field(d, name.text);
        if (!f) {
            log_msg(LOG_DEBUG, "state: %s has no field %s: skipped", d->name, name.text);
            continue;
        }
        if (kind != f->kind)
            rc = err_set(err, EBADMSG, "kind %" PRIu64 " where %d belongs", kind, f->kind);
        else
            rc = load_field(&part, f, (uint8_t *)obj + f->off, err);
        if (rc)
            return prefix(err, name.text);
    }
    return 0;
}

static int load_struct(struct state_reader *r, const char *name, const struct state_desc *d, void *obj, struct err *err)
{
    struct state_reader part;
    struct name found;
    uint64_t version;
    int rc = get_uint(r, 2, "version", &version, err);

    if (!rc)
        rc = get_name(r, &found, err);
    if (!rc)
        rc = get_part(r, "section", &part, err);
    if (rc)
        return rc;
    if (strcmp(found.text, name))
        return err_set(err, EBADMSG, "section %s where %s belongs", found.text, name);
    if (version > d->version)
        return err_set(err, EBADMSG, "version %" PRIu64 " is of a newer bothy; this one knows %u", version, d->version);
    rc = load_fields(&part, d, obj, err);
    if (!rc && d->check && d->check(obj, err)) {
        if (err)
            err->code = EBADMSG;
        rc = -EBADMSG;
    }
    return rc;
}

int state_load(struct state_reader *r, const char *id, const struct state_desc *d, void *obj, struct err *err)
{
    uint64_t magic;
    int rc = get_uint(r, 4, "section", &magic, err);

    if (rc)
        return prefix(err, id);
    if (magic != MAGIC)
        return err_set(err, EBADMSG, "%s: no section at byte %zu", id, r->off - 4);
    return load_struct(r, id, d, obj, err) ? prefix(err, id) : 0;
}

/* For people */

static json_t *bytes_to_json(const uint8_t *at, uint32_t n)
{
    cleanup_free char *hex = xcalloc(2 * (size_t)n + 1, 1);

    for (uint32_t i = 0; i < n; i++)
        snprintf(hex + 2 * (size_t)i, 3, "%02x", at[i]);
    return json_string(hex);
}

static json_t *uint_to_json(uint64_t v)
{
    char text[24];

    if (v <= INT64_MAX)
        return json_integer((json_int_t)v);
    snprintf(text, sizeof(text), "%" PRIu64, v); /* JSON's integers end there */
    return json_string(text);
}

static json_t *element_to_json(const struct field *f, const uint8_t *at)
{
    switch (f->kind) {
    case FIELD_BOOL:
        return json_boolean(*at);
    case FIELD_STRUCT:
        return state_to_json(f->sub, at);
    case FIELD_UINT:
    case FIELD_BYTES:
    case FIELD_END:
        break;
    }
    return uint_to_json(load_uint(at, f->size));
}

json_t *state_to_json(const struct state_desc *d, const void *obj)
{
    json_t *ret = json_object();

    for (const struct field *f = d->fields; f->kind != FIELD_END; f++) {
        const uint8_t *at = (const uint8_t *)obj + f->off;
        json_t *v;

        if (f->kind == FIELD_BYTES) {
            v = bytes_to_json(at, f->count);
        } else if (f->count == 1) {
            v = element_to_json(f, at);
        } else {
            v = json_array();
            for (uint32_t i = 0; i < f->count; i++)
                json_array_append_new(v, element_to_json(f, at + (size_t)i * f->size));
        }
        json_object_set_new(ret, f->name, v);
    }
    return ret;
}
