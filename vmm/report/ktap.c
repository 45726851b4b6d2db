#include "vmm/report/ktap.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"

enum { NAME_MAX_BYTES = 512, REASON_MAX = 1024 };

/* ---- One line. ---- */

struct span {
    const char *p;
    size_t n;
};

enum kind { LINE_OTHER, LINE_VERSION, LINE_PLAN, LINE_RESULT, LINE_SUBTEST, LINE_BAIL };

struct line {
    enum kind kind;
    unsigned indent;
    bool hashed;     /* behind "# ", so that it might as well be somebody's comment */
    bool stamped;    /* by a kernel */
    uint64_t number; /* of a plan or a result; 0: it has none */
    bool ok;         /* a result's first word */
    enum outcome outcome;
    struct span name, reason;
};

static struct span skip(struct span s, size_t n)
{
    return (struct span){s.p + n, s.n - n};
}

static struct span trim(struct span s)
{
    while (s.n && isspace((unsigned char)s.p[0]))
        s = skip(s, 1);
    while (s.n && isspace((unsigned char)s.p[s.n - 1]))
        s.n--;
    return s;
}

static bool starts(struct span s, const char *word)
{
    return s.n >= strlen(word) && !memcmp(s.p, word, strlen(word));
}

static bool eat(struct span *s, const char *word)
{
    if (!starts(*s, word))
        return false;
    *s = skip(*s, strlen(word));
    return true;
}

/* Digits; beyond 2^63 it stays there. */
static bool eat_number(struct span *s, uint64_t *ret)
{
    struct span start = *s;
    uint64_t v = 0;

    for (; s->n && isdigit((unsigned char)s->p[0]); *s = skip(*s, 1))
        v = v > INT64_MAX / 10 - 1 ? INT64_MAX : v * 10 + (uint64_t)(s->p[0] - '0');
    *ret = v;
    return s->n < start.n;
}

static void eat_blanks(struct span *s)
{
    while (s->n && s->p[0] == ' ')
        *s = skip(*s, 1);
}

/* What printk puts in front: "[    1.234567] ", with CONFIG_PRINTK_CALLER "[    1.234567][    T1] "; both may have
 * "<LEVEL>" before them. */
static bool eat_stamp(struct span *text, uint64_t *ret_ns)
{
    struct span s = *text;
    uint64_t level, seconds, micros, caller;

    if (eat(&s, "<") && !(eat_number(&s, &level) && eat(&s, ">")))
        return false;
    if (!eat(&s, "["))
        return false;
    eat_blanks(&s);
    if (!eat_number(&s, &seconds) || !eat(&s, ".") || !eat_number(&s, &micros) || !eat(&s, "]"))
        return false;
    if (eat(&s, "[")) {
        eat_blanks(&s);
        if ((!eat(&s, "T") && !eat(&s, "C")) || !eat_number(&s, &caller) || !eat(&s, "]"))
            return false;
    }
    eat(&s, " ");
    *text = s;
    if (seconds > UINT32_MAX || micros >= 1000000)
        return false;
    *ret_ns = seconds * NS_PER_SEC + micros * 1000;
    return true;
}

static bool parse_version(struct span s)
{
    uint64_t version;

    return (eat(&s, "KTAP version ") || eat(&s, "TAP version ")) && eat_number(&s, &version) && !trim(s).n;
}

static bool parse_plan(struct span s, struct line *l)
{
    if (!eat(&s, "1..") || !eat_number(&s, &l->number))
        return false;
    s = trim(s);
    if (s.n && !eat(&s, "#"))
        return false;
    l->reason = trim(s);
    if (l->reason.n >= 4 && !strncasecmp(l->reason.p, "skip", 4))
        l->reason = trim(skip(l->reason, 4));
    return true;
}

/* What a directive, any word that begins so, makes of a test. */
static const struct directive {
    const char *word;
    enum outcome ok, not_ok;
    bool told; /* the word says what no outcome does */
} directives[] = {
    {"skip", OUTCOME_SKIP, OUTCOME_SKIP, false},    {"todo", OUTCOME_PASS, OUTCOME_XFAIL, false},
    {"xfail", OUTCOME_XFAIL, OUTCOME_XFAIL, false}, {"xpass", OUTCOME_PASS, OUTCOME_FAIL, true},
    {"timeout", OUTCOME_FAIL, OUTCOME_FAIL, true},  {"error", OUTCOME_FAIL, OUTCOME_FAIL, false},
};

static const struct directive *find_directive(struct span s)
{
    for (size_t i = 0; i < array_len(directives); i++) {
        size_t n = strlen(directives[i].word);

        if (s.n >= n && !strncasecmp(s.p, directives[i].word, n))
            return &directives[i];
    }
    return NULL;
}

/* Behind the number: "[-] NAME [# [DIRECTIVE] REASON]".  '#' is part of a name unless a directive or a blank follows.
 */
static void parse_description(struct span s, struct line *l)
{
    const struct directive *d = NULL;

    s = trim(s);
    if (eat(&s, "- ") || (s.n == 1 && eat(&s, "-")))
        s = trim(s);
    l->outcome = l->ok ? OUTCOME_PASS : OUTCOME_FAIL;
    l->name = s;
    for (size_t i = 0; i < s.n; i++) {
        struct span rest = skip(s, i + 1);

        if (s.p[i] != '#' || (i && s.p[i - 1] == '\\'))
            continue;
        d = find_directive(trim(rest));
        if (!d && !((!i || s.p[i - 1] == ' ') && starts(rest, " ")))
            continue;
        l->name = trim((struct span){s.p, i});
        l->reason = trim(rest);
        if (d) {
            l->outcome = l->ok ? d->ok : d->not_ok;
            while (!d->told && l->reason.n && isalpha((unsigned char)l->reason.p[0]))
                l->reason = skip(l->reason, 1);
            eat(&l->reason, ":");
            l->reason = trim(l->reason);
        }
        break;
    }
    if (!l->name.n) { /* "ok 3 # SKIP no such device" */
        l->name = l->reason;
        l->reason.n = 0;
    }
}

static bool parse_result(struct span s, struct line *l)
{
    l->ok = !eat(&s, "not ");
    if (!eat(&s, "ok") || (s.n && !isspace((unsigned char)s.p[0])))
        return false;
    s = trim(s);
    if (isdigit(s.n ? (unsigned char)s.p[0] : 0)) {
        struct span digits = s;

        eat_number(&s, &l->number);
        if (s.n && !isspace((unsigned char)s.p[0])) { /* "ok 2nd try" */
            l->number = 0;
            s = digits;
        }
    }
    parse_description(s, l);
    return true;
}

static enum kind parse_kind(struct span s, struct line *l)
{
    if (parse_version(s))
        return LINE_VERSION;
    if (parse_plan(s, l))
        return LINE_PLAN;
    if (parse_result(s, l))
        return LINE_RESULT;
    if (eat(&s, "# Subtest")) {
        eat(&s, ":");
        l->name = trim(s);
        return LINE_SUBTEST;
    }
    if (eat(&s, "Bail out!")) {
        l->reason = trim(s);
        return LINE_BAIL;
    }
    return LINE_OTHER;
}

/* All of `l` but the stamp.  Indentation is blanks, tabs, and each "# " before what is no comment. */
static void parse_line(struct span s, struct line *l)
{
    for (;; l->indent += 2, l->hashed = true) {
        for (; s.n && (s.p[0] == ' ' || s.p[0] == '\t'); s = skip(s, 1))
            l->indent += s.p[0] == ' ' ? 1 : 8;
        l->kind = parse_kind(s, l);
        if (l->kind != LINE_OTHER || !eat(&s, "# "))
            return;
    }
}

/* ---- The list. ---- */

static char *keep(struct ktap *k, const char *p, size_t n, size_t max)
{
    char *copy;

    n = min_u64(n, max);
    copy = n + 1 > k->memory ? NULL : malloc(n + 1);
    if (!copy) {
        k->full = true;
        return NULL;
    }
    k->memory -= n + 1;
    memcpy(copy, p, n);
    copy[text_clean(copy, n)] = 0;
    return copy;
}

/* NULL: no more is kept. */
static struct test *add_test(struct ktap *k, struct list *to, struct span name, enum outcome outcome,
                             struct span reason)
{
    struct test *t = k->full || k->tests == KTAP_TESTS ? NULL : calloc(1, sizeof(*t));

    if (!t) {
        k->full = true;
        return NULL;
    }
    list_init(&t->children);
    t->name = keep(k, name.p, name.n, NAME_MAX_BYTES);
    if (reason.n)
        t->reason = keep(k, reason.p, reason.n, REASON_MAX);
    if (k->full) {
        test_destroy(t);
        return NULL;
    }
    t->outcome = outcome;
    list_add_tail(to, &t->link);
    k->tests++;
    return t;
}

static struct span of(const char *s)
{
    return (struct span){s, s ? strlen(s) : 0};
}

/* What was said belongs to `t`, if that is of interest. */
static void settle_said(struct ktap *k, struct ktap_group *g, struct test *t)
{
    char *said = text_take(&g->said), *all;

    if (!said || !t || !test_bad(t)) {
        free(said);
        return;
    }
    if (asprintf(&all, "%s%s", t->output ? t->output : "", said) >= 0) {
        char *kept = keep(k, all, strlen(all), 2 * KTAP_OUTPUT_MAX);

        free(all);
        if (kept) {
            free(t->output);
            t->output = kept;
        }
    }
    free(said);
}

/* ---- Groups. ---- */

static struct ktap_group *top(struct ktap *k)
{
    return &k->group[k->depth - 1];
}

static void __attribute__((format(printf, 2, 3))) note(struct ktap_group *g, const char *fmt, ...)
{
    va_list ap;

    if (g->trouble)
        return;
    va_start(ap, fmt);
    if (vasprintf(&g->trouble, fmt, ap) < 0)
        g->trouble = NULL;
    va_end(ap);
}

static void rename_to(char **name, char *taken)
{
    free(*name);
    *name = taken;
}

static bool open_group(struct ktap *k, const struct line *l)
{
    struct ktap_group *g;

    if (k->depth == KTAP_DEPTH)
        return false;
    g = &k->group[k->depth];
    *g = (struct ktap_group){
        .indent = l->indent, .hashed = l->hashed, .due = 1, .said.max = KTAP_OUTPUT_MAX, .since_ns = k->now_ns};
    list_init(&g->tests);
    list_init(&g->orphans);
    if (k->depth)
        g->name = take_ptr(top(k)->next_name);
    k->depth++;
    return true;
}

/* A group inside has ended, and so did the time for its parent's result. */
static void adopt_orphans(struct ktap *k, struct ktap_group *g)
{
    struct test *t;

    if (list_empty(&g->orphans))
        return;
    t = add_test(k, &g->tests, of(g->orphans_name ? g->orphans_name : "(unnamed)"), OUTCOME_ERROR,
                 of("its subtests have ended, and it has no result"));
    list_move_all(t ? &t->children : &g->tests, &g->orphans);
    rename_to(&g->orphans_name, NULL);
}

/* A document, or a group in one, has ended: has it kept its plan?  Another may follow in its place. */
static void end_plan(struct ktap *k, struct ktap_group *g)
{
    adopt_orphans(k, g);
    if (g->after)
        settle_said(k, g, g->last);
    if (g->planned && !g->plan && !g->count)
        add_test(k, &g->tests, of(KTAP_NO_TESTS), OUTCOME_SKIP, of(g->skip));
    else if (g->planned && g->plan != g->count)
        note(g, "planned %" PRIu64 ", got %" PRIu64 " results", g->plan, g->count);
    else if (g->versioned && !g->count)
        note(g, "neither a plan nor a result");
    if (g->trouble)
        add_test(k, &g->tests, of("(results)"), OUTCOME_ERROR, of(g->trouble));
    rename_to(&g->trouble, NULL);
    rename_to(&g->skip, NULL);
    g->planned = g->versioned = g->after = false;
    g->count = 0;
    g->due = 1;
    g->last = NULL;
}

static void close_group(struct ktap *k)
{
    struct ktap_group *g = top(k), *parent;

    end_plan(k, g);
    k->depth--;
    if (!k->depth) {
        list_move_all(k->ret, &g->tests);
    } else {
        parent = top(k);
        adopt_orphans(k, parent);
        list_move_all(&parent->orphans, &g->tests);
        rename_to(&parent->orphans_name, take_ptr(g->name));
        if (g->said.len)
            text_add(&parent->said, g->said.p, g->said.len);
    }
    free(text_take(&g->said));
    rename_to(&g->name, NULL);
    rename_to(&g->next_name, NULL);
    rename_to(&g->orphans_name, NULL);
}

/* Leaves the groups that are further in. */
static void close_beyond(struct ktap *k, unsigned indent)
{
    while (k->depth && top(k)->indent > indent)
        close_group(k);
}

/* ---- What a line does. ---- */

static bool complete(const struct ktap_group *g)
{
    return g->count && (!g->planned || g->count >= g->plan);
}

static void say(struct ktap *k, struct span s)
{
    struct ktap_group *g;
    struct span said;
    size_t n;

    if (!k->depth)
        return;
    g = top(k);
    said = trim(s);
    if (g->last && !g->said.len && (starts(said, "---") || starts(said, "#   Failed") || starts(said, "# Failed")))
        g->after = true;              /* YAML; Test::More */
    n = text_clean((char *)s.p, s.n); /* in k->line, which is needed no more */
    text_add(&g->said, s.p, n);
    text_add(&g->said, "\n", 1);
}

static bool take_version(struct ktap *k, const struct line *l)
{
    close_beyond(k, l->indent);
    if (k->depth > 1 && top(k)->indent == l->indent && top(k)->name)
        close_group(k); /* KUnit's next suite, where the last one's result is missing */
    if (k->depth && top(k)->indent == l->indent)
        end_plan(k, top(k));
    else if (!open_group(k, l))
        return false;
    top(k)->versioned = true;
    return true;
}

static bool take_plan(struct ktap *k, const struct line *l)
{
    struct ktap_group *g;

    if (!k->depth && l->stamped)
        return false;
    close_beyond(k, l->indent);
    if ((!k->depth || top(k)->indent < l->indent) && !open_group(k, l))
        return false;
    g = top(k);
    if (g->planned && complete(g))
        end_plan(k, g);
    if (g->planned)
        note(g, "a second plan, of %" PRIu64 ", before the first was kept", l->number);
    g->planned = true;
    g->plan = l->number;
    if (l->reason.n)
        rename_to(&g->skip, keep(k, l->reason.p, l->reason.n, REASON_MAX));
    return true;
}

static bool begins_group(const struct ktap *k, const struct line *l)
{
    return k->depth ? l->number <= 1 : l->number == 1 && !l->stamped;
}

static void excuse(struct list *tests)
{
    list_for_each (l, tests) {
        struct test *t = container_of(l, struct test, link);

        if (outcome_bad(t->outcome))
            t->outcome = OUTCOME_XFAIL;
        excuse(&t->children);
    }
}

/* What report_tap.c, as TAP 14 wants it, puts before a '#' that begins no directive. */
static void unescape(char *s)
{
    char *to = s;

    for (; s && *s; s++)
        if (s[0] != '\\' || s[1] != '#')
            *to++ = *s;
    if (to)
        *to = 0;
}

static bool take_result(struct ktap *k, const struct line *l)
{
    struct ktap_group *g;
    uint64_t number;
    struct test *t;
    char unnamed[24];

    if (!k->depth || top(k)->indent < l->indent) {
        if (!begins_group(k, l) || !open_group(k, l))
            return false;
    }
    close_beyond(k, l->indent);
    if (!k->depth && !(begins_group(k, l) && open_group(k, l)))
        return false;
    g = top(k);
    if (g->after) {
        settle_said(k, g, g->last);
        g->after = false;
    }
    if (l->number == 1 && complete(g))
        end_plan(k, g);
    number = l->number ? l->number : g->due;
    if (number != g->due)
        note(g, "result %" PRIu64 " came where %" PRIu64 " was due", number, g->due);
    snprintf(unnamed, sizeof(unnamed), "%" PRIu64, number);
    t = add_test(k, &g->tests, l->name.n ? l->name : of(unnamed), l->outcome, l->reason);
    g->due = number + 1;
    g->count++;
    g->last = t;
    if (t) {
        unescape(t->name);
        unescape(t->reason);
        t->ns = k->now_ns > g->since_ns ? k->now_ns - g->since_ns : 0;
        list_move_all(&t->children, &g->orphans);
        if (t->outcome == OUTCOME_XFAIL || t->outcome == OUTCOME_SKIP)
            excuse(&t->children);
    }
    rename_to(&g->orphans_name, NULL);
    g->since_ns = k->now_ns;
    settle_said(k, g, t);
    return true;
}

static bool take_subtest(struct ktap *k, const struct line *l)
{
    struct ktap_group *g;
    char **name;

    if (!k->depth)
        return false;
    close_beyond(k, l->indent);
    if (!k->depth || (top(k)->indent < l->indent && !open_group(k, l)))
        return false;
    g = top(k);
    /* Inside its group, as KUnit has it, or before it, as TAP 14 has. */
    name = k->depth > 1 && !g->name && !g->planned && !g->count ? &g->name : &g->next_name;
    rename_to(name, keep(k, l->name.p, l->name.n, NAME_MAX_BYTES));
    return true;
}

/* All ends here; behind "# " what kselftest's runner indented so, and it goes on with the next test. */
static bool take_bail(struct ktap *k, const struct line *l)
{
    if (l->stamped)
        return false;
    while (k->depth && (!l->hashed || top(k)->indent >= l->indent)) {
        top(k)->planned = top(k)->versioned = false; /* one error is enough */
        close_group(k);
    }
    add_test(k, k->depth ? &top(k)->orphans : k->ret, of("Bail out!"), OUTCOME_ERROR, l->reason);
    return true;
}

/* A comment may look like a result: behind "# " it is one only in a group whose version or plan stood there too. */
static bool is_comment(const struct ktap *k, const struct line *l)
{
    for (unsigned i = 0; i < k->depth; i++)
        if (k->group[i].hashed && k->group[i].indent <= l->indent)
            return false;
    return !k->depth || k->group[k->depth - 1].indent >= l->indent || (l->kind != LINE_VERSION && l->kind != LINE_PLAN);
}

static void take_line(struct ktap *k, uint64_t now_ns)
{
    struct span s = {k->line, k->len};
    struct line l = {0};
    bool taken = false;

    if (k->full)
        return;
    l.stamped = eat_stamp(&s, &now_ns);
    k->now_ns = now_ns;
    while (s.n && s.p[s.n - 1] == '\r')
        s.n--;
    parse_line(s, &l);
    if (l.hashed && is_comment(k, &l))
        l.kind = LINE_OTHER;
    switch (l.kind) {
    case LINE_VERSION:
        taken = take_version(k, &l);
        break;
    case LINE_PLAN:
        taken = take_plan(k, &l);
        break;
    case LINE_RESULT:
        taken = take_result(k, &l);
        break;
    case LINE_SUBTEST:
        taken = take_subtest(k, &l);
        break;
    case LINE_BAIL:
        taken = take_bail(k, &l);
        break;
    case LINE_OTHER:
        break;
    }
    if (!taken)
        say(k, s);
}

void ktap_init(struct ktap *k, struct list *ret)
{
    *k = (struct ktap){.ret = ret, .memory = KTAP_MEMORY};
}

void ktap_feed(struct ktap *k, const void *data, size_t n, uint64_t now_ns)
{
    const char *p = data;

    while (n) {
        const char *end = memchr(p, '\n', n);
        size_t part = end ? (size_t)(end - p) : n, room = min_u64(part, KTAP_LINE_MAX - k->len);

        memcpy(k->line + k->len, p, room);
        k->len += room;
        if (end) {
            take_line(k, now_ns);
            k->len = 0;
            part++;
        }
        p += part;
        n -= part;
    }
}

void ktap_end(struct ktap *k)
{
    if (k->len)
        take_line(k, k->now_ns);
    k->len = 0;
    while (k->depth)
        close_group(k);
    if (k->full) {
        k->full = false;
        k->tests = 0;
        k->memory = KTAP_MEMORY;
        add_test(k, k->ret, of("(results)"), OUTCOME_ERROR,
                 of("more results, or more about failures, than are kept: the rest was not read"));
    }
}
