#include "vmm/base/opt.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>

#include "vmm/base/cleanup.h"

enum {
    OPTS_MAX = 64,     /* rows of one table */
    WORD_MAX = 48,     /* longer words are not compared */
    FRACTION_MAX = 18, /* digits; 10^18 fits in 64 bits */
};

static const char units[] = "KMGTPE";

/* Digits only, decimal or 0x…; moves *text behind them.  -EINVAL without any, -ERANGE beyond 64 bits. */
static int digits(const char **text, uint64_t *ret)
{
    const char *s = *text;
    bool hex = s[0] == '0' && (s[1] == 'x' || s[1] == 'X') && isxdigit((unsigned char)s[2]);
    char *end;

    if (!isdigit((unsigned char)s[0]))
        return -EINVAL;
    errno = 0;
    *ret = strtoull(s, &end, hex ? 16 : 10);
    *text = end;
    return -errno;
}

static int parse_number(const char *text, uint64_t *ret)
{
    uint64_t v;
    int rc = digits(&text, &v);

    if (rc || *text)
        return rc ? rc : -EINVAL;
    *ret = v;
    return 0;
}

int parse_size(const char *text, uint64_t *ret)
{
    uint64_t whole, part = 0, scale = 1, unit = 1;
    const char *suffix;
    __uint128_t sum;
    int rc = digits(&text, &whole);

    if (rc)
        return rc;
    if (*text == '.') {
        const char *first = ++text;

        for (; isdigit((unsigned char)*text); text++) {
            if (text - first == FRACTION_MAX)
                return -EINVAL;
            part = part * 10 + (uint64_t)(*text - '0');
            scale *= 10;
        }
        if (text == first)
            return -EINVAL;
    }
    suffix = *text ? strchr(units, toupper((unsigned char)*text)) : NULL;
    if (suffix) {
        unit <<= 10 * (suffix - units + 1);
        text++;
    }
    /* No bytes are rounded away: 1.5K is a size, 1.3K is not. */
    sum = (__uint128_t)part * unit;
    if (*text || sum % scale)
        return -EINVAL;
    sum = sum / scale + (__uint128_t)whole * unit;
    if (sum > UINT64_MAX)
        return -ERANGE;
    *ret = (uint64_t)sum;
    return 0;
}

/* With the largest suffix that loses nothing. */
static void print_size(uint64_t v, char *buf, size_t n)
{
    unsigned i = 0;

    while (i < strlen(units) && v && !(v & 1023)) {
        v >>= 10;
        i++;
    }
    snprintf(buf, n, "%" PRIu64 "%.*s", v, i ? 1 : 0, i ? &units[i - 1] : "");
}

/* Edits that make `b` of `a`: insert, delete, replace, swap two neighbours. */
static size_t distance(const char *a, const char *b)
{
    size_t d[3][WORD_MAX + 1], na = strlen(a), nb = strlen(b);

    if (na > WORD_MAX || nb > WORD_MAX)
        return SIZE_MAX;
    for (size_t j = 0; j <= nb; j++)
        d[0][j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t *row = d[i % 3], *up = d[(i + 2) % 3], *upup = d[(i + 1) % 3];

        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            row[j] = min_u64(min_u64(row[j - 1], up[j]) + 1, up[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = min_u64(row[j], upup[j - 2] + 1);
        }
    }
    return d[na % 3][nb];
}

const char *nearest_word(const char *text, const char *const *words)
{
    size_t len = strlen(text), best = max_u64(1, len / 3) + 1;
    const char *found = NULL;

    for (; *words; words++) {
        /* A beginning is as good as one mistake. */
        size_t d = len > 1 && !strncmp(*words, text, len) ? 1 : distance(text, *words);

        if (d < best && d < len) {
            best = d;
            found = *words;
        }
    }
    return found;
}

const struct opt *opts_find(const struct opt *opts, const char *name)
{
    for (; opts->name; opts++)
        if (!strcmp(opts->name, name))
            return opts;
    return NULL;
}

/* "REFUSED; did you mean …?", or else all there are. */
static int suggest(struct err *err, int code, const char *refused, const char *text, const char *const *words)
{
    const char *near = nearest_word(text, words);
    char list[256] = "";

    if (near)
        return err_set(err, code, "%s; did you mean \"%s\"?", refused, near);
    for (size_t n = 0; *words && n < sizeof(list); words++)
        n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s", n ? ", " : "", *words);
    return err_set(err, code, "%s; there is %s", refused, *list ? list : "none");
}

static int unknown_option(const struct opt *opts, const char *name, struct err *err)
{
    const char *words[OPTS_MAX + 1];
    char refused[128];
    size_t n = 0;

    for (; opts->name; opts++) {
        assert(n < OPTS_MAX);
        words[n++] = opts->name;
    }
    words[n] = NULL;
    snprintf(refused, sizeof(refused), "unknown option \"%s\"", name);
    return suggest(err, ENOENT, refused, name, words);
}

static uint64_t opt_max(const struct opt *o)
{
    if (o->max)
        return o->max;
    return o->kind == OPT_U32 ? UINT32_MAX : UINT64_MAX;
}

static int out_of_range(const struct opt *o, const char *value, struct err *err)
{
    char lo[32], hi[32];

    if (o->kind == OPT_SIZE) {
        print_size(o->min, lo, sizeof(lo));
        print_size(opt_max(o), hi, sizeof(hi));
    } else {
        snprintf(lo, sizeof(lo), "%" PRIu64, o->min);
        snprintf(hi, sizeof(hi), "%" PRIu64, opt_max(o));
    }
    return err_set(err, EINVAL, "%s \"%s\" is out of range; it is %s to %s", o->name, value, lo, hi);
}

static int set_number(const struct opt *o, void *at, const char *value, struct err *err)
{
    uint64_t v;
    int rc = o->kind == OPT_SIZE ? parse_size(value, &v) : parse_number(value, &v);

    if (rc == -EINVAL && o->kind == OPT_SIZE)
        return err_set(err, EINVAL, "%s \"%s\" is not a size; write 512M or 4G", o->name, value);
    if (rc == -EINVAL)
        return err_set(err, EINVAL, "%s \"%s\" is not a number; write 10 or 0x3f8", o->name, value);
    if (rc || v < o->min || v > opt_max(o))
        return out_of_range(o, value, err);
    if (o->kind == OPT_U32)
        *(uint32_t *)at = (uint32_t)v;
    else
        *(uint64_t *)at = v;
    return 0;
}

static int set_word(const struct opt *o, uint32_t *at, const char *value, struct err *err)
{
    char refused[128];

    for (uint32_t i = 0; o->words[i]; i++)
        if (!strcmp(o->words[i], value)) {
            *at = i;
            return 0;
        }
    snprintf(refused, sizeof(refused), "%s \"%s\" is unknown", o->name, value);
    return suggest(err, EINVAL, refused, value, o->words);
}

static int list_add(const struct opt *o, struct opt_list *l, const char *value, struct err *err)
{
    if (l->n == OPT_LIST_MAX)
        return err_set(err, EINVAL, "more than %d times %s", OPT_LIST_MAX, o->name);
    if (!l->v)
        l->v = xcalloc(OPT_LIST_MAX, sizeof(*l->v));
    l->v[l->n++] = xstrdup(value);
    return 0;
}

static int set(const struct opt *o, void *obj, const char *value, struct err *err)
{
    void *at = (char *)obj + o->off;

    switch (o->kind) {
    case OPT_BOOL:
        if (strcmp(value, "on") && strcmp(value, "off"))
            return err_set(err, EINVAL, "%s \"%s\" is neither on nor off", o->name, value);
        *(bool *)at = !strcmp(value, "on");
        return 0;
    case OPT_U32:
    case OPT_U64:
    case OPT_SIZE:
        return set_number(o, at, value, err);
    case OPT_STRING:
        free(*(char **)at);
        *(char **)at = xstrdup(value);
        return 0;
    case OPT_ENUM:
        return set_word(o, at, value, err);
    case OPT_LIST:
        return list_add(o, at, value, err);
    }
    return -EINVAL;
}

int opts_set(const struct opt *opts, void *obj, const char *name, const char *value, struct err *err)
{
    const struct opt *o = opts_find(opts, name);

    return o ? set(o, obj, value, err) : unknown_option(opts, name, err);
}

void opts_clear(const struct opt *opts, void *obj)
{
    for (; opts->name; opts++) {
        void *at = (char *)obj + opts->off;

        if (opts->kind == OPT_STRING) {
            free(take_ptr(*(char **)at));
        } else if (opts->kind == OPT_LIST) {
            struct opt_list *l = at;

            for (size_t i = 0; i < l->n; i++)
                free(l->v[i]);
            free(l->v);
            *l = (struct opt_list){0};
        }
    }
}

void opts_default(const struct opt *opts, void *obj)
{
    static const size_t size_of[] = {
        [OPT_BOOL] = sizeof(bool),     [OPT_U32] = sizeof(uint32_t),  [OPT_U64] = sizeof(uint64_t),
        [OPT_SIZE] = sizeof(uint64_t), [OPT_ENUM] = sizeof(uint32_t),
    };

    opts_clear(opts, obj);
    for (; opts->name; opts++) {
        struct err err;

        if (opts->kind != OPT_STRING && opts->kind != OPT_LIST)
            memset((char *)obj + opts->off, 0, size_of[opts->kind]);
        if (opts->dflt && set(opts, obj, opts->dflt, &err))
            assert(!"a table holds a default that its own row refuses");
    }
}

/* The next item of "a=1,b=x,,y,c" with its doubled commas made single; *text moves behind it and its comma. */
static char *next_item(const char **text)
{
    const char *s = *text;
    char *item = xcalloc(1, strlen(s) + 1);
    size_t n = 0;

    while (*s && (*s != ',' || s[1] == ',')) {
        s += *s == ',';
        item[n++] = *s++;
    }
    *text = *s ? s + 1 : NULL;
    return item;
}

static bool required(const struct opt *o)
{
    return !o->dflt && o->kind != OPT_BOOL && o->kind != OPT_STRING && o->kind != OPT_LIST;
}

int opts_parse(const struct opt *opts, void *obj, const char *first, const char *text, struct err *err)
{
    const char *rest = *text ? text : NULL;
    uint64_t seen = 0;

    while (rest) {
        cleanup_free char *item = next_item(&rest);
        char *name = item, *value = strchr(item, '=');
        const struct opt *o;
        uint64_t bit;
        int rc;

        if (value)
            *value++ = 0;
        if (!value && first) {
            value = item;
            o = opts_find(opts, first);
        } else {
            o = opts_find(opts, name);
        }
        first = NULL; /* the leading word only */
        if (!*name)
            return err_set(err, EINVAL, "\"%s\" has an empty option; write ,, for a comma in a value", text);
        if (!o)
            return unknown_option(opts, name, err);
        assert(o - opts < OPTS_MAX);
        bit = 1ull << (o - opts);
        if (seen & bit && o->kind != OPT_LIST)
            return err_set(err, EINVAL, "%s is given twice", o->name);
        seen |= bit;
        if (!value && o->kind != OPT_BOOL)
            return err_set(err, EINVAL, "%s needs a value; write %s=…", o->name, o->name);
        rc = set(o, obj, value ? value : "on", err);
        if (rc)
            return rc;
    }
    for (const struct opt *o = opts; o->name; o++)
        if (required(o) && !(seen & 1ull << (o - opts)))
            return err_set(err, EINVAL, "%s is missing; write %s=…", o->name, o->name);
    return 0;
}

const char *opts_get(const struct opt *o, const void *obj, char *buf, size_t n)
{
    const void *at = (const char *)obj + o->off;

    switch (o->kind) {
    case OPT_BOOL:
        return *(const bool *)at ? "on" : "off";
    case OPT_U32:
        snprintf(buf, n, "%" PRIu32, *(const uint32_t *)at);
        return buf;
    case OPT_U64:
        snprintf(buf, n, "%" PRIu64, *(const uint64_t *)at);
        return buf;
    case OPT_SIZE:
        print_size(*(const uint64_t *)at, buf, n);
        return buf;
    case OPT_STRING:
        return *(char *const *)at;
    case OPT_ENUM:
        return o->words[*(const uint32_t *)at];
    case OPT_LIST:
        return NULL;
    }
    return NULL;
}

const struct opt_list *opts_list(const struct opt *o, const void *obj)
{
    assert(o->kind == OPT_LIST);
    return (const struct opt_list *)((const char *)obj + o->off);
}
