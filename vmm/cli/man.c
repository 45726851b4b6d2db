/* The manual page bothy(1), in the man(7) macros of roff. */
#include "vmm/cli/cli.h"

#include <ctype.h>

#include "devices/block/driver.h"
#include "devices/core/device.h"

/* Text such that roff prints it as it is. */
static void roff(FILE *f, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bool line_start = !i || text[i - 1] == '\n';

        if (line_start && (text[i] == '.' || text[i] == '\''))
            fputs("\\&", f);
        if (text[i] == '\\')
            fputs("\\e", f);
        else if (text[i] == '-')
            fputs("\\-", f);
        else
            fputc(text[i], f);
    }
}

static void roff_str(FILE *f, const char *text)
{
    roff(f, text, strlen(text));
}

/* As in help, a paragraph that starts with a blank is printed line by line. */
static void man_paragraphs(FILE *f, const char *text)
{
    while (*text) {
        const char *end = strstr(text, "\n\n");
        size_t n = end ? (size_t)(end - text) : strlen(text);

        fputs(*text == ' ' ? ".PP\n.nf\n" : ".PP\n", f);
        roff(f, text, n);
        fputs(*text == ' ' ? "\n.fi\n" : "\n", f);
        text += end ? n + 2 : n;
    }
}

/* What a row says of itself: "(default: 1G)." and the like follow the help. */
static void man_help(FILE *f, const struct opt *o)
{
    fputc('\n', f);
    roff_str(f, o->help);
    if (o->dflt && strcmp(o->dflt, "off")) {
        fputs(" (default: ", f);
        roff_str(f, o->dflt);
        fputc(')', f);
    }
    fputs(o->kind == OPT_LIST ? "; may be repeated.\n" : ".\n", f);
}

static void man_opt(FILE *f, const struct opt *o)
{
    char words[CLI_ARG_MAX];
    const char *arg = cli_arg_name(o, words, sizeof(words));

    fputs(".TP\n", f);
    if (o->letter)
        fprintf(f, "\\fB\\-%c\\fR, ", o->letter);
    fputs("\\fB", f);
    roff_str(f, cli_opt_dashes(o));
    roff_str(f, o->name);
    fputs("\\fR", f);
    if (arg) {
        fputs(" \\fI", f);
        roff_str(f, arg);
        fputs("\\fR", f);
    }
    man_help(f, o);
}

/* A device or a driver, and its options, which are written KEY=VALUE. */
static void man_keys(FILE *f, const char *name, const char *summary, const struct opt *opts)
{
    char words[CLI_ARG_MAX];

    fprintf(f, ".SS %s\n", name);
    fputc(toupper((unsigned char)summary[0]), f);
    roff_str(f, summary + 1);
    fputs(".\n", f);
    for (const struct opt *o = opts; o && o->name; o++) {
        const char *arg = cli_arg_name(o, words, sizeof(words));

        fputs(".TP\n\\fB", f);
        roff_str(f, o->name);
        fputs("\\fR=\\fI", f);
        roff_str(f, arg ? arg : "on|off");
        fputs("\\fR", f);
        man_help(f, o);
    }
}

void cli_print_man_verb(FILE *f, const struct cli_verb *v)
{
    fprintf(f, ".SS bothy %s%s%s%s\n", v->name,
            v->verbs  ? " VERB"
            : v->opts ? " [OPTION]..."
                      : "",
            v->args ? " " : "", v->args ? v->args : "");
    fputc(toupper((unsigned char)v->summary[0]), f);
    roff_str(f, v->summary + 1);
    fputs(".\n", f);
    if (v->text)
        man_paragraphs(f, v->text);
    for (const struct opt *o = v->opts; o && o->name; o++)
        man_opt(f, o);
    for (const struct cli_verb *const *p = v->verbs; p && *p; p++)
        cli_print_man_verb(f, *p);
}

void cli_print_man(FILE *f)
{
    fputs(".TH BOTHY 1 \"\" \"bothy " BOTHY_VERSION "\" \"User Commands\"\n"
          ".SH NAME\nbothy \\- run virtual machines on KVM\n"
          ".SH SYNOPSIS\n.B bothy\n\\fIVERB\\fR [\\fIOPTION\\fR]... [\\fIARGUMENT\\fR]...\n.br\n"
          ".B bothy\n\\fIVERB\\fR \\fB\\-\\-help\\fR\n.br\n.B bothy \\-\\-version\n"
          ".SH DESCRIPTION\nbothy runs virtual machines on /dev/kvm.  What it does is chosen by a verb.\n"
          "A long option's value is its next word or follows an equals sign.  A switch is turned\noff with "
          "\\fB\\-\\-no\\-\\fR before its name.  A word \\fB\\-\\-\\fR ends the options.\n"
          ".SH VERBS\n",
          f);
    for (const struct cli_verb *const *v = cli_verbs; *v; v++)
        cli_print_man_verb(f, *v);
    fputs(".SH DEVICES\nThe keys that a device takes after its class.  A comma within a value is doubled.\n", f);
    for (const struct device_class *const *cls = device_classes; *cls; cls++)
        if (!(*cls)->internal)
            man_keys(f, (*cls)->name, (*cls)->summary, (*cls)->opts);
    fputs(".SH DISK FORMATS AND FILTERS\nThe options of a format are values of its disk's format\\-option; those of a "
          "filter follow\nits name in its disk's filter, with colons between.\n",
          f);
    for (const struct blk_driver *const *d = blk_drivers; *d; d++)
        man_keys(f, (*d)->name, (*d)->summary, (*d)->opts);
    fputs(".SH EXIT STATUS\n", f);
    for (const struct cli_exit_text *e = cli_exit_texts; e->code; e++) {
        fprintf(f, ".TP\n.B %s\n", e->code);
        roff_str(f, e->meaning);
        fputs(".\n", f);
    }
}
