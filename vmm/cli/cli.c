#include "vmm/cli/cli.h"

#include <ctype.h>
#include <stdlib.h>

#include "vmm/base/cleanup.h"

enum { WORDS_MAX = 64 }; /* options of one verb; verbs */

static const struct opt no_opts[] = {O_END};

static const struct opt *verb_opts(const struct cli_verb *v)
{
    return v->opts ? v->opts : no_opts;
}

static const struct opt *find_letter(const struct opt *opts, char letter)
{
    for (; opts->name; opts++)
        if (opts->letter == letter)
            return opts;
    return NULL;
}

struct parser {
    const struct cli_verb *verb;
    const struct opt *opts;
    void *obj;
    char *const *next; /* the words not yet looked at */
    bool seen[WORDS_MAX];
    bool help;
};

/* `value` is NULL when the option came without one: a switch is then on, another takes the next word. */
static int set_option(struct parser *p, const struct opt *o, const char *value, struct err *err)
{
    size_t index = (size_t)(o - p->opts);

    assert(index < WORDS_MAX);
    if (p->seen[index] && o->kind != OPT_LIST)
        return err_set(err, EINVAL, "option \"--%s\" is given twice", o->name);
    p->seen[index] = true;
    if (!value && o->kind == OPT_BOOL)
        value = "on";
    if (!value) {
        if (!*p->next)
            return err_set(err, EINVAL, "option \"--%s\" needs a value", o->name);
        value = *p->next++;
    }
    return opts_set(p->opts, p->obj, o->name, value, err);
}

/* The option that "--NAME" or, for a switch, "--no-NAME" may have been meant to be. */
static const char *nearest_option(const struct parser *p, const char *name, bool negated)
{
    const char *words[WORDS_MAX + 2];
    size_t n = 0;

    for (const struct opt *o = p->opts; o->name; o++)
        if (!negated || o->kind == OPT_BOOL)
            words[n++] = o->name;
    if (!negated)
        words[n++] = "help";
    words[n] = NULL;
    return nearest_word(name, words);
}

static int unknown_option(const struct parser *p, const char *name, bool negated, struct err *err)
{
    const char *no = negated ? "no-" : "", *near = nearest_option(p, name, negated);

    if (near)
        return err_set(err, EINVAL, "unknown option \"--%s%s\"; did you mean \"--%s%s\"?", no, name, no, near);
    return err_set(err, EINVAL, "unknown option \"--%s%s\"; \"bothy %s --help\" lists them", no, name, p->verb->name);
}

static int parse_long(struct parser *p, const char *word, struct err *err)
{
    const char *eq = strchrnul(word, '='), *value = *eq ? eq + 1 : NULL;
    cleanup_free char *full = strndup(word, (size_t)(eq - word));
    const char *name = full;
    const struct opt *o;
    bool negated;

    if (!full)
        abort();
    o = opts_find(p->opts, name);
    if (o)
        return set_option(p, o, value, err);
    negated = !strncmp(name, "no-", 3);
    if (negated)
        name += 3;
    o = opts_find(p->opts, name);
    if (!negated ? strcmp(name, "help") != 0 : !o || o->kind != OPT_BOOL)
        return unknown_option(p, name, negated, err);
    if (value)
        return err_set(err, EINVAL, "option \"--%s\" takes no value", full);
    if (negated)
        return set_option(p, o, "off", err);
    p->help = true;
    return 0;
}

/* The letters after one dash: switches up to the first that takes a value, which is the rest or the next word. */
static int parse_short(struct parser *p, const char *letters, struct err *err)
{
    for (; *letters; letters++) {
        const struct opt *o = find_letter(p->opts, *letters);
        int r;

        if (!o && *letters == 'h') {
            p->help = true;
            continue;
        }
        if (!o)
            return err_set(err, EINVAL, "unknown option \"-%c\"; \"bothy %s --help\" lists them", *letters,
                           p->verb->name);
        if (o->kind != OPT_BOOL)
            return set_option(p, o, letters[1] ? letters + 1 : NULL, err);
        r = set_option(p, o, NULL, err);
        if (r)
            return r;
    }
    return 0;
}

int cli_parse(struct cli_line *l, struct err *err)
{
    struct parser p = {.verb = l->verb, .opts = verb_opts(l->verb), .obj = l->opts, .next = l->words};
    bool ended = false;

    l->nargs = 0;
    while (*p.next) {
        char *word = *p.next++;
        int r = 0;

        if (ended || word[0] != '-' || !word[1] || isdigit((unsigned char)word[1])) {
            if (l->nargs == l->verb->max_args)
                return err_set(err, EINVAL, "unexpected argument \"%s\"; \"bothy %s --help\" lists what it takes", word,
                               l->verb->name);
            l->args[l->nargs++] = word;
        } else if (!strcmp(word, "--")) {
            ended = true;
        } else if (word[1] == '-') {
            r = parse_long(&p, word + 2, err);
        } else {
            r = parse_short(&p, word + 1, err);
        }
        if (r)
            return r;
    }
    l->args[l->nargs] = NULL;
    return p.help;
}

static int run_verb(const struct cli_verb *v, char *const *words)
{
    struct cli_line l = {.verb = v, .words = words};
    struct err err = {0};
    size_t nwords = 0;
    int r;

    while (words[nwords])
        nwords++;
    l.args = xcalloc(nwords + 1, sizeof(*l.args));
    l.opts = xcalloc(1, v->size);
    opts_default(verb_opts(v), l.opts);
    r = cli_parse(&l, &err);
    if (r > 0) {
        cli_print_help(stdout, v);
        r = 0;
    } else if (!r) {
        r = v->run(&l, &err);
    }
    opts_clear(verb_opts(v), l.opts);
    free(l.opts);
    free(l.args);
    if (r >= 0)
        return r;
    fprintf(stderr, "bothy %s: %s\n", v->name, err.msg);
    return v->fail_code ? v->fail_code : EXIT_BOTHY;
}

const char *cli_verb_word(const struct cli_verb *v)
{
    const char *blank = strrchr(v->name, ' ');

    return blank ? blank + 1 : v->name;
}

/* The verb of `list` that has this word, -ENOENT if none has. */
static int find_word(const struct cli_verb *const *list, const struct cli_verb *group, const char *word,
                     const struct cli_verb **ret, struct err *err)
{
    const char *words[WORDS_MAX];
    const char *before = group ? group->name : "", *blank = group ? " " : "";
    const char *near;
    size_t n = 0;

    for (; list[n]; n++) {
        assert(n < WORDS_MAX - 1);
        words[n] = cli_verb_word(list[n]);
        if (!strcmp(words[n], word)) {
            *ret = list[n];
            return 0;
        }
    }
    words[n] = NULL;
    near = nearest_word(word, words);
    if (near)
        return err_set(err, ENOENT, "unknown verb \"%s%s%s\"; did you mean \"%s%s%s\"?", before, blank, word, before,
                       blank, near);
    return err_set(err, ENOENT, "unknown verb \"%s%s%s\"; \"bothy help%s%s\" lists them", before, blank, word, blank,
                   before);
}

int cli_verb_find(char *const *words, const struct cli_verb **ret, char *const **rest, struct err *err)
{
    const struct cli_verb *const *list = cli_verbs;
    const struct cli_verb *v = NULL;

    while (list && *words && (!v || **words != '-')) {
        int rc = find_word(list, v, *words, &v, err);

        if (rc)
            return rc;
        list = v->verbs;
        words++;
    }
    *ret = v;
    *rest = words;
    return 0;
}

/* A group without one of its verbs. */
static int run_group(const struct cli_verb *v, const char *word)
{
    bool asked = word && (!strcmp(word, "--help") || !strcmp(word, "-h"));

    if (asked || !word) {
        cli_print_help(asked ? stdout : stderr, v);
        return asked ? 0 : EXIT_BOTHY;
    }
    fprintf(stderr, "bothy %s: the verb comes before its options; \"bothy help %s\" lists the verbs\n", v->name,
            v->name);
    return EXIT_BOTHY;
}

static int dispatch(char **argv)
{
    const char *first = argv[0] ? argv[1] : NULL;
    const struct cli_verb *v;
    char *const *rest;
    struct err err;

    if (!first) {
        cli_print_overview(stderr);
        return EXIT_BOTHY;
    }
    if (!strcmp(first, "--version")) {
        puts("bothy " BOTHY_VERSION);
        return 0;
    }
    if (!strcmp(first, "--help") || !strcmp(first, "-h")) {
        cli_print_overview(stdout);
        return 0;
    }
    if (cli_verb_find(argv + 1, &v, &rest, &err)) {
        fprintf(stderr, "bothy: %s\n", err.msg);
        return EXIT_BOTHY;
    }
    return v->verbs ? run_group(v, *rest) : run_verb(v, rest);
}

int cli_main(char **argv)
{
    int code = dispatch(argv);

    if ((fflush(stdout) || ferror(stdout)) && code != EXIT_BOTHY) { /* who failed has said why */
        fprintf(stderr, "bothy: write to standard output: %m\n");
        return EXIT_BOTHY;
    }
    return code;
}
