/* `bothy help`: all that the verbs' tables say, as text, manual page or completion script. */
#include "vmm/cli/cli.h"

#include <ctype.h>

enum { COLUMNS = 80, HELP_COLUMN = 30 };

const struct cli_exit_text cli_exit_texts[] = {
    {"0", "the guest powered off in good order, or the verb did what was asked"},
    {"124", "a time limit passed"},
    {"125", "bothy itself failed; one line on standard error says why"},
    {"126", "the guest crashed: panic, triple fault, or code that this host cannot run"},
    {"130", "interrupted"},
    {"other", "the code that the guest gave"},
    {NULL, NULL},
};

static const char *const kind_args[] = {
    [OPT_BOOL] = NULL,     [OPT_U32] = "N",   [OPT_U64] = "N",     [OPT_SIZE] = "SIZE",
    [OPT_STRING] = "TEXT", [OPT_ENUM] = NULL, [OPT_LIST] = "TEXT", [OPT_CHOICE] = NULL,
};

const char *cli_arg_name(const struct opt *o, char *buf, size_t n)
{
    size_t len = 0;

    if (o->arg || (o->kind != OPT_ENUM && o->kind != OPT_CHOICE))
        return o->arg ? o->arg : kind_args[o->kind];
    for (unsigned i = 0; len < n; i++) {
        const char *word = o->kind == OPT_ENUM ? o->words[i] : o->choice(i).name;

        if (!word)
            break;
        len += (size_t)snprintf(buf + len, n - len, "%s%s", i ? "|" : "", word);
    }
    return buf;
}

const char *cli_opt_dashes(const struct opt *o)
{
    return o->kind == OPT_BOOL && o->dflt && !strcmp(o->dflt, "on") ? "--[no-]" : "--";
}

/* Words from column `col` on, lines of COLUMNS, later ones from column `indent`. */
static unsigned print_wrapped(FILE *f, const char *text, size_t n, unsigned col, unsigned indent)
{
    while (n) {
        size_t word = 0;

        while (word < n && text[word] != ' ' && text[word] != '\n')
            word++;
        if (col > indent && col + 1 + word > COLUMNS) {
            fprintf(f, "\n%*s", (int)indent, "");
            col = indent;
        } else if (word && col > indent) {
            fputc(' ', f);
            col++;
        }
        fwrite(text, 1, word, f);
        col += (unsigned)word;
        while (word < n && (text[word] == ' ' || text[word] == '\n'))
            word++;
        text += word;
        n -= word;
    }
    return col;
}

static void print_paragraphs(FILE *f, const char *text)
{
    while (*text) {
        const char *end = strstr(text, "\n\n");
        size_t n = end ? (size_t)(end - text) : strlen(text);

        fputc('\n', f);
        if (*text == ' ')
            fwrite(text, 1, n, f);
        else
            print_wrapped(f, text, n, 0, 0);
        fputc('\n', f);
        text += end ? n + 2 : n;
    }
}

static void print_row(FILE *f, const char *left, const char *right)
{
    int n = fprintf(f, "  %s", left);
    unsigned col = n < 0 ? 0 : (unsigned)n;

    if (col + 2 > HELP_COLUMN)
        fprintf(f, "\n%*s", HELP_COLUMN, "");
    else
        fprintf(f, "%*s", (int)(HELP_COLUMN - col), "");
    print_wrapped(f, right, strlen(right), HELP_COLUMN, HELP_COLUMN);
    fputc('\n', f);
}

static void print_opt(FILE *f, const struct opt *o)
{
    char left[128], right[512], words[CLI_ARG_MAX], letter[8] = "    ";
    const char *arg = cli_arg_name(o, words, sizeof(words));
    const char *note = o->kind == OPT_LIST ? "; may be repeated" : "";

    if (o->letter)
        snprintf(letter, sizeof(letter), "-%c, ", o->letter);
    snprintf(left, sizeof(left), "%s%s%s%s%s", letter, cli_opt_dashes(o), o->name, arg ? " " : "", arg ? arg : "");
    if (o->dflt && strcmp(o->dflt, "off"))
        snprintf(right, sizeof(right), "%s (default: %s)", o->help, o->dflt);
    else
        snprintf(right, sizeof(right), "%s%s", o->help, note);
    print_row(f, left, right);
}

static void print_verbs(FILE *f, const struct cli_verb *const *v)
{
    fprintf(f, "\nVerbs:\n");
    for (; *v; v++)
        print_row(f, cli_verb_word(*v), (*v)->summary);
}

void cli_print_help(FILE *f, const struct cli_verb *v)
{
    if (v->verbs)
        fprintf(f, "Usage: bothy %s VERB [OPTION]... [ARGUMENT]...\n\n", v->name);
    else
        fprintf(f, "Usage: bothy %s%s%s%s\n\n", v->name, v->opts ? " [OPTION]..." : "", v->args ? " " : "",
                v->args ? v->args : "");
    fprintf(f, "%c%s.\n", toupper((unsigned char)v->summary[0]), v->summary + 1);
    if (v->text)
        print_paragraphs(f, v->text);
    if (v->verbs) {
        print_verbs(f, v->verbs);
        fprintf(f, "\n\"bothy help %s VERB\" tells more about one.\n", v->name);
        return;
    }
    fprintf(f, "\nOptions:\n");
    for (const struct opt *o = v->opts; o && o->name; o++)
        print_opt(f, o);
    print_row(f, "-h, --help", "this text");
}

void cli_print_overview(FILE *f)
{
    fprintf(f, "Usage: bothy VERB [OPTION]... [ARGUMENT]...\n\nRuns virtual machines on KVM.\n");
    print_verbs(f, cli_verbs);
    fprintf(f, "\nExit code:\n");
    for (const struct cli_exit_text *e = cli_exit_texts; e->code; e++)
        print_row(f, e->code, e->meaning);
    fprintf(f, "\n\"bothy help VERB\" tells more about one.\n");
}

enum { PRINT_TEXT, PRINT_MAN, PRINT_BASH };

static const char *const print_words[] = {"text", "man", "bash", NULL};

struct help_opts {
    uint32_t as;
};

static const struct opt help_opts[] = {
    O_ENUM(struct help_opts, as, "as", "text", print_words,
           "text for people, the manual page in roff, or the completion script for bash"),
    O_END,
};

static int help_run(struct cli_line *l, struct err *err)
{
    const struct help_opts *o = l->opts;
    const struct cli_verb *v;
    char *const *rest;
    int r;

    if (o->as != PRINT_TEXT && l->nargs)
        return err_set(err, EINVAL, "--as %s takes no verb", print_words[o->as]);
    if (o->as == PRINT_MAN) {
        cli_print_man(stdout);
    } else if (o->as == PRINT_BASH) {
        cli_print_completion(stdout);
    } else if (!l->nargs) {
        cli_print_overview(stdout);
    } else {
        r = cli_verb_find(l->args, &v, &rest, err);
        if (r)
            return r;
        if (*rest)
            return err_set(err, EINVAL, "\"%s\" is no group of verbs, so it has no \"%s\"", v->name, *rest);
        cli_print_help(stdout, v);
    }
    return 0;
}

const struct cli_verb verb_help = {
    .name = "help",
    .summary = "tell about bothy or about one verb",
    .args = "[VERB [VERB]]",
    .max_args = 2,
    .opts = help_opts,
    .size = sizeof(struct help_opts),
    .run = help_run,
};
