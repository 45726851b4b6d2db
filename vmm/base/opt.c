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

const struct opt *opts_chosen(const struct opt *opts, const void *obj, void **ret)
{
    for (; opts->name; opts++)
        if (opts->kind == OPT_CHOICE) {
            const struct opt_chosen *c = (const struct opt_chosen *)((const char *)obj + opts->off);

            *ret = c->obj;
            return c->is.opts;
        }
    return NULL;
}

/* The table, and the one that comes with what is chosen in it (or NULL). */
struct parse {
    const struct opt *opts[2];
    void *obj[2];
    uint64_t seen[2]; /* opts_parse(): rows that were in the text */
};

/* A row, and where it belongs. */
struct target {
    const struct opt *o;
    void *obj;
    uint64_t *seen, bit;
};

/* The tables as they are now that a choice may have been made. */
static void open_tables(struct parse *p, const struct opt *opts, void *obj)
{
    p->opts[0] = opts;
    p->obj[0] = obj;
    p->opts[1] = opts_chosen(opts, obj, &p->obj[1]);
}

static struct target find_row(struct parse *p, const char *name)
{
    for (int i = 0; i < 2 && p->opts[i]; i++) {
        const struct opt *o = opts_find(p->opts[i], name);

        if (o)
            return (struct target){o, p->obj[i], &p->seen[i], 1ull << (o - p->opts[i])};
    }
    return (struct target){NULL, NULL, NULL, 0};
}

static int unknown_option(const struct parse *p, const char *name, struct err *err)
{
    const char *words[2 * OPTS_MAX + 1];
    char refused[128];
    size_t n = 0;

    for (int i = 0; i < 2; i++)
        for (const struct opt *o = p->opts[i]; o && o->name; o++) {
            assert(o - p->opts[i] < OPTS_MAX);
            words[n++] = o->name;
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

static void drop_choice(struct opt_chosen *c)
{
    if (c->is.opts)
        opts_clear(c->is.opts, c->obj);
    free(c->obj);
    *c = (struct opt_chosen){.obj = NULL};
}

static int choose(const struct opt *o, struct opt_chosen *ret, const char *value, struct err *err)
{
    const char *words[OPTS_MAX + 1];
    struct opt_choice c;
    char refused[128];
    unsigned n = 0;

    for (; (c = o->choice(n)).name && strcmp(c.name, value); n++) {
        assert(n < OPTS_MAX);
        words[n] = c.name;
    }
    words[n] = NULL;
    snprintf(refused, sizeof(refused), "%s \"%s\" is unknown", o->name, value);
    if (!c.name)
        return suggest(err, EINVAL, refused, value, words);
    drop_choice(ret);
    *ret = (struct opt_chosen){.is = c, .obj = xcalloc(1, c.size)};
    if (c.opts)
        opts_default(c.opts, ret->obj);
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
    case OPT_CHOICE:
        return choose(o, at, value, err);
    }
    return -EINVAL;
}

int opts_set(const struct opt *opts, void *obj, const char *name, const char *value, struct err *err)
{
    struct parse p = {.seen = {0}};
    struct target t;

    open_tables(&p, opts, obj);
    t = find_row(&p, name);
    return t.o ? set(t.o, t.obj, value, err) : unknown_option(&p, name, err);
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
        } else if (opts->kind == OPT_CHOICE) {
            drop_choice(at);
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

        if (opts->kind < array_len(size_of) && size_of[opts->kind])
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

static int check_required(const struct parse *p, bool choices, struct err *err)
{
    for (int i = 0; i < 2; i++)
        for (const struct opt *o = p->opts[i]; o && o->name; o++)
            if ((o->kind == OPT_CHOICE) == choices && required(o) && !(p->seen[i] & 1ull << (o - p->opts[i])))
                return err_set(err, EINVAL, "%s is missing; write %s=…", o->name, o->name);
    return 0;
}

/* Of "NAME=VALUE" where one of the choices of `first` is called so, the option that VALUE is for; NULL: it is not that.
 */
static const char *option_of_choice(const struct parse *p, const char *first, const char *name)
{
    const struct opt *o = first ? opts_find(p->opts[0], first) : NULL;
    struct opt_choice c;

    for (unsigned i = 0; o && o->kind == OPT_CHOICE && (c = o->choice(i)).name; i++)
        if (!strcmp(c.name, name))
            return c.first;
    return NULL;
}

/* Choices (or all else), since what they bring may stand before them. */
static int parse_items(struct parse *p, bool choices, const char *first, const char *text, struct err *err)
{
    const char *rest = *text ? text : NULL;

    while (rest) {
        cleanup_free char *item = next_item(&rest);
        char *value = strchr(item, '=');
        const char *name = item, *of_choice = NULL;
        struct target t;
        int rc;

        if (value)
            *value++ = 0;
        else if (first)
            value = item;
        if (value && (of_choice = option_of_choice(p, first, item)) && choices)
            value = item;
        t = find_row(p, value == item ? first : of_choice ? of_choice : name);
        first = NULL; /* the leading word only */
        if ((t.o && t.o->kind == OPT_CHOICE) != choices)
            continue;
        if (!*name)
            return err_set(err, EINVAL, "\"%s\" has an empty option; write ,, for a comma in a value", text);
        if (!t.o)
            return unknown_option(p, name, err);
        if (*t.seen & t.bit && t.o->kind != OPT_LIST)
            return err_set(err, EINVAL, "%s is given twice", t.o->name);
        *t.seen |= t.bit;
        if (!value && t.o->kind != OPT_BOOL)
            return err_set(err, EINVAL, "%s needs a value; write %s=…", t.o->name, t.o->name);
        rc = set(t.o, t.obj, value ? value : "on", err);
        if (rc)
            return rc;
    }
    return 0;
}

int opts_parse(const struct opt *opts, void *obj, const char *first, const char *text, struct err *err)
{
    struct parse p = {.seen = {0}};
    int rc;

    open_tables(&p, opts, obj);
    if ((rc = parse_items(&p, true, first, text, err)) || (rc = check_required(&p, true, err)))
        return rc;
    open_tables(&p, opts, obj);
    rc = parse_items(&p, false, first, text, err);
    return rc ? rc : check_required(&p, false, err);
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
    case OPT_CHOICE:
        return ((const struct opt_chosen *)at)->is.name;
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
