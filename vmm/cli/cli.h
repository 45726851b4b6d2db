/*
 * The command line: `bothy VERB [OPTION…] [ARGUMENT…]`.  A verb is one file with one `struct cli_verb` and one row in
 * verbs.c; a group of verbs (`bothy img info`) is a row with a list of its own.  Its options are an option table
 * (vmm/base/opt.h) over a struct of its own; parsing, messages, help, the manual and shell completion all come from
 * that table.
 *
 * Long options are `--name VALUE` or `--name=VALUE`, short ones `-nVALUE` or `-n VALUE`.  Switches (OPT_BOOL) are
 * `--name`, `--no-name` or `--name=off`; their letters can be bundled (`-xy`).  Options and arguments mix; `--` ends
 * the options.
 */
#pragma once
#include <stdio.h>

#include "vmm/base/err.h"
#include "vmm/base/exit_code.h"
#include "vmm/base/opt.h"

struct cli_line;

struct cli_verb {
    const char *name;       /* with its group's before it: "img info" */
    const char *summary;    /* a few words, for lists */
    const char *args;       /* what follows the options, as in "[FILE…]"; NULL: nothing does */
    unsigned max_args;      /* how many of them */
    const char *text;       /* paragraphs for --help and the manual, with "\n\n" in between; may be NULL */
    const struct opt *opts; /* may be NULL; `help` and -h belong to all verbs */
    size_t size;            /* of the struct that they fill */
    /* The exit code (0 or more), or -errno with the reason in `err`: printed as "bothy VERB: REASON". */
    int (*run)(struct cli_line *l, struct err *err);
    int fail_code;                       /* the exit code then; 0: EXIT_BOTHY */
    const struct cli_verb *const *verbs; /* a group's, NULL-terminated: it has name, summary and text besides */
};

/* A command line, parsed. */
struct cli_line {
    const struct cli_verb *verb;
    char *const *words; /* all after the verb; NULL-terminated.  Borrowed */
    void *opts;         /* verb->size bytes; cleared after run */
    char **args;        /* the words that are no options, in order; NULL-terminated */
    unsigned nargs;
};

/*
 * Sets in l->opts what l->words ask for, over what is there, and l->args.  Has been called when a verb runs; one with a
 * configuration file clears l->opts, loads the file into it and calls again.  0, or 1 when help was asked for.  An
 * option given twice is an error unless it is a list.
 */
int cli_parse(struct cli_line *l, struct err *err) must_check;

/* NULL-terminated; verbs.c. */
extern const struct cli_verb *const cli_verbs[];
/* What the first of `words` name: a verb, or a group when they end there.  *rest is what follows them.  -ENOENT with
 * the nearest name in the message. */
int cli_verb_find(char *const *words, const struct cli_verb **ret, char *const **rest, struct err *err) must_check;
/* Its own word: "info" of "img info". */
const char *cli_verb_word(const struct cli_verb *v);

/* Finds the verb, parses, runs it, prints what went wrong.  Returns the exit code. */
int cli_main(char **argv);

/* What the codes mean, for help and the manual; ends with a NULL name. */
struct cli_exit_text {
    const char *code, *meaning;
};
extern const struct cli_exit_text cli_exit_texts[];

/* "--", or "--[no-]" for a switch that is on by default. */
const char *cli_opt_dashes(const struct opt *o);
/* What help calls an option's value ("FILE", "text|man"), maybe in `buf`; NULL for a switch. */
enum { CLI_ARG_MAX = 96 };
const char *cli_arg_name(const struct opt *o, char *buf, size_t n);
/* Plain text, 80 columns: all verbs; one verb. */
void cli_print_overview(FILE *f);
void cli_print_help(FILE *f, const struct cli_verb *v);
/* bothy(1) in roff, and one verb's part of it. */
void cli_print_man(FILE *f);
void cli_print_man_verb(FILE *f, const struct cli_verb *v);
/* The completion script for bash. */
void cli_print_completion(FILE *f);
