#include "firmware/init/orders.h"

static bool parse_number(const char **text, uint64_t max, uint64_t *ret)
{
    const char *p = *text;
    uint64_t v = 0;

    if (*p < '0' || *p > '9')
        return false;
    for (; *p >= '0' && *p <= '9'; p++)
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v) || v > max)
            return false;
    *text = p;
    *ret = v;
    return true;
}

bool parse_numbers(const char *text, uint64_t max, uint64_t *ret, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if ((i && *text++ != ' ') || !parse_number(&text, max, &ret[i]))
            return false;
    return !*text;
}

/* What follows "NAME=" when `word` begins so, else NULL. */
static char *value_of(char *word, const char *name)
{
    while (*name && *word == *name) {
        word++;
        name++;
    }
    return !*name && *word == '=' ? word + 1 : NULL;
}

static enum init_order kind_of(char *word, char **value)
{
    static const char names[][8] = INIT_ORDER_NAMES;
    unsigned kind;

    _Static_assert(sizeof(names) == INIT_ORDERS_KINDS * sizeof(names[0]), "each has a name");
    for (kind = 0; kind < INIT_ORDERS_KINDS; kind++)
        if ((*value = value_of(word, names[kind])))
            break;
    return (enum init_order)kind;
}

static const char *take(struct orders *o, enum init_order kind, char *value)
{
    uint64_t v = 0, several[3] = {0};

    switch (kind) {
    case ORDER_MODULE:
        if (o->nmodules == INIT_MODULES_MAX)
            return "too many modules";
        o->modules[o->nmodules++] = value;
        return NULL;
    case ORDER_ROOT:
        o->root = value;
        return NULL;
    case ORDER_HOST:
        o->host = value;
        return NULL;
    case ORDER_CWD:
        o->cwd = value;
        return NULL;
    case ORDER_DNS:
        o->dns = value;
        return NULL;
    case ORDER_CLOCK:
        return parse_numbers(value, INT64_MAX, &o->clock, 1) ? NULL : "a bad clock";
    case ORDER_UID:
    case ORDER_GID:
        if (!parse_numbers(value, UINT32_MAX - 1, &v, 1))
            return "a bad user";
        *(kind == ORDER_UID ? &o->uid : &o->gid) = (uint32_t)v;
        return NULL;
    case ORDER_GROUP:
        if (o->ngroups == INIT_GROUPS_MAX || !parse_numbers(value, UINT32_MAX - 1, &v, 1))
            return "a bad group";
        o->groups[o->ngroups++] = (uint32_t)v;
        return NULL;
    case ORDER_SIZE:
        if (!parse_numbers(value, UINT16_MAX, several, 2))
            return "a bad size";
        o->tty = true;
        o->cols = (uint16_t)several[0];
        o->rows = (uint16_t)several[1];
        return NULL;
    case ORDER_SYSTEMD:
        o->systemd = true;
        return NULL;
    case ORDER_SERVE:
        o->serve = true;
        return NULL;
    case ORDER_PROFILE:
        o->profile = true;
        return NULL;
    case ORDER_NET:
        if (!parse_numbers(value, UINT32_MAX, several, 3))
            return "a bad network";
        o->net = true;
        o->address = (uint32_t)several[0];
        o->mask = (uint32_t)several[1];
        o->gateway = (uint32_t)several[2];
        return NULL;
    case ORDER_ARG:
        *o->argv++ = value;
        return NULL;
    case ORDER_ENV:
        *o->envp++ = value;
        return NULL;
    case INIT_ORDERS_KINDS:
        break;
    }
    return "an unknown order";
}

/* How many of that kind there are; -1: an unknown word or too many. */
static long count(char *text, size_t n, enum init_order wanted)
{
    unsigned words = 0, found = 0;

    for (size_t at = 0; at < n; at++) {
        char *value;
        enum init_order kind = kind_of(text + at, &value);

        if (kind == INIT_ORDERS_KINDS || ++words > INIT_WORDS_MAX)
            return -1;
        found += kind == wanted;
        while (text[at])
            at++;
    }
    return (long)found;
}

const char *orders_parse(char *text, size_t n, char **pointers, struct orders *ret)
{
    struct orders o = {.cwd = "/", .host = "guest"};
    const char *wrong;
    long args;

    if (!n || n > INIT_ORDERS_MAX || text[n - 1])
        return "orders that do not end";
    args = count(text, n, ORDER_ARG);
    if (args < 0)
        return "orders that make no sense";
    o.argv = pointers;
    o.envp = pointers + args + 1;
    for (size_t at = 0; at < n; at++) {
        char *value;
        enum init_order kind = kind_of(text + at, &value);

        if ((wrong = take(&o, kind, value)))
            return wrong;
        while (text[at])
            at++;
    }
    if (!args && !o.serve)
        return "no command";
    *o.argv = *o.envp = NULL;
    o.argv = pointers;
    o.envp = pointers + args + 1;
    *ret = o;
    return NULL;
}
