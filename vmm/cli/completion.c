/*
 * Completion for bash: verbs, options, the words that an option knows, files elsewhere.  Bash splits words at '=' and
 * ':', so `--option=VALUE` arrives as three words and the path in `file:PATH` stands alone.
 */
#include "devices/net/net.h"
#include "vmm/cli/cli.h"

static const char head[] = "# bash completion for bothy; made by bothy help --as bash\n"
                           "_bothy()\n"
                           "{\n"
                           "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}\n"
                           "    local options words verb=${COMP_WORDS[1]} files=\n"
                           "\n"
                           "    [ \"$cur\" != = ] || cur=\n"
                           "    [ \"$prev\" != = ] || prev=${COMP_WORDS[COMP_CWORD - 2]}\n"
                           "    [ \"$prev\" != : ] || files=-f\n";

static const char tail[] = "    *)\n"
                           "        return;;\n"
                           "    esac\n"
                           "    case $cur in\n"
                           "    -*) words=$options;;\n"
                           "    esac\n"
                           "    [ -z \"$files\" ] || compopt -o filenames\n"
                           "    COMPREPLY=($(compgen $files -W \"$words\" -- \"$cur\"))\n"
                           "    [[ $COMPREPLY != *: ]] || compopt -o nospace\n"
                           "}\n"
                           "complete -F _bothy bothy\n";

/* What compgen is told for a value that help calls `arg`: files for "[FILE]", directories for "DIR". */
static const char *path_flag(const char *arg)
{
    if (!arg || strchr(arg, '|'))
        return "";
    if (strstr(arg, "DIR"))
        return "-d";
    return strstr(arg, "FILE") || strstr(arg, "PATH") ? "-f" : "";
}

/* The fixed beginnings of "stdio|file:PATH|pty[:LINK]": stdio file: pty. */
static void print_alternatives(FILE *f, const char *arg)
{
    while (*arg) {
        fwrite(arg, 1, strspn(arg, "abcdefghijklmnopqrstuvwxyz0123456789-_:"), f);
        fputc(' ', f);
        arg = strchrnul(arg, '|');
        arg += *arg == '|';
    }
}

static void print_verbs(FILE *f, const struct cli_verb *const *v)
{
    for (; *v; v++)
        fprintf(f, "%s ", cli_verb_word(*v));
}

static void print_devices(FILE *f)
{
    for (const struct device_class *const *cls = device_classes; *cls; cls++)
        if (!(*cls)->internal)
            fprintf(f, "%s ", (*cls)->name);
}

static void print_networks(FILE *f)
{
    struct opt_choice c;

    for (unsigned i = 0; (c = net_choice(i)).name; i++)
        fprintf(f, "%s ", c.name);
    fputs("none ", f);
}

static void print_value(FILE *f, const struct opt *o)
{
    char buf[CLI_ARG_MAX];
    const char *arg = cli_arg_name(o, buf, sizeof(buf));

    if (o->letter)
        fprintf(f, "        -%c|--%s) ", o->letter, o->name);
    else
        fprintf(f, "        --%s) ", o->name);
    fputs("words='", f);
    if (arg && strchr(arg, '|'))
        print_alternatives(f, arg);
    if (arg && !strncmp(arg, "DEVICE", 6))
        print_devices(f);
    if (arg && !strncmp(arg, "NETWORK", 7))
        print_networks(f);
    fprintf(f, "' files=%s;;\n", path_flag(arg));
}

/* While the word after a group's is typed there is a choice of its verbs; later on both words are the verb. */
static void print_group(FILE *f, const struct cli_verb *v)
{
    fprintf(f, "    %s)\n        if [ \"$COMP_CWORD\" = 2 ]; then\n            COMPREPLY=($(compgen -W '", v->name);
    print_verbs(f, v->verbs);
    fputs("--help' -- \"$cur\"))\n            return\n        fi\n        verb=\"$verb ${COMP_WORDS[2]}\";;\n", f);
}

static void print_verb(FILE *f, const struct cli_verb *v)
{
    for (const struct cli_verb *const *p = v->verbs; p && *p; p++)
        print_verb(f, *p);
    if (v->verbs)
        return;
    fprintf(f, "    '%s')\n        options='", v->name);
    for (const struct opt *o = v->opts; o && o->name; o++)
        fprintf(f, "--%s%s ", strlen(cli_opt_dashes(o)) > 2 ? "no-" : "", o->name);
    fputs("--help'\n        words='", f);
    if (v->args && strstr(v->args, "VERB"))
        print_verbs(f, cli_verbs);
    fprintf(f, "' files=${files:-%s}\n        case $prev in\n", path_flag(v->args));
    for (const struct opt *o = v->opts; o && o->name; o++)
        if (o->kind != OPT_BOOL)
            print_value(f, o);
    fputs("        esac;;\n", f);
}

void cli_print_completion(FILE *f)
{
    fputs(head, f);
    fputs("    if [ \"$COMP_CWORD\" = 1 ]; then\n        COMPREPLY=($(compgen -W '", f);
    print_verbs(f, cli_verbs);
    fputs("--help --version' -- \"$cur\"))\n        return\n    fi\n    case $verb in\n", f);
    for (const struct cli_verb *const *v = cli_verbs; *v; v++)
        if ((*v)->verbs)
            print_group(f, *v);
    fputs("    esac\n    case $verb in\n", f);
    for (const struct cli_verb *const *v = cli_verbs; *v; v++)
        print_verb(f, *v);
    fputs(tail, f);
}
