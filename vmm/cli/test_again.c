/* The line for a shell that does one of a plan's runs again, alone. */
#include <limits.h>
#include <stdio.h>

#include "vmm/base/cleanup.h"
#include "vmm/cli/test.h"

/* What belongs to all runs together. */
static bool is_of_all(const struct opt *o)
{
    static const char *const names[] = {"matrix", "jobs", "retry", "format", "report", "all-timeout"};

    for (size_t i = 0; i < array_len(names); i++)
        if (!strcmp(o->name, names[i]))
            return true;
    return false;
}

/* The option that a word is, which has been parsed before; NULL: it is none.  *apart: its value is the next word. */
static const struct opt *option_of(const struct opt *opts, const char *word, bool *apart)
{
    char *name cleanup_free = NULL;

    *apart = false;
    if (word[0] != '-' || !word[1])
        return NULL;
    if (word[1] != '-') { /* no letter is a switch's */
        while (opts->name && opts->letter != word[1])
            opts++;
        *apart = !word[2];
        return opts->name ? opts : NULL;
    }
    name = strndup(word + 2, strcspn(word + 2, "="));
    if (!name)
        abort();
    opts = opts_find(opts, name);
    *apart = opts && opts->kind != OPT_BOOL && !strchr(word, '=');
    return opts;
}

static void put_word(FILE *f, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=:,./@%";

    if (*word && !word[strspn(word, plain)]) {
        fprintf(f, " %s", word);
        return;
    }
    fputs(" '", f);
    for (; *word; word++)
        *word == '\'' ? fputs("'\\''", f) : fputc(*word, f);
    fputc('\'', f);
}

static void put_words(FILE *f, const struct test_plan *p)
{
    bool ended = false;

    for (char *const *w = p->line->words; *w; w++) {
        bool apart = false;
        const struct opt *o = ended ? NULL : option_of(p->line->verb->opts, *w, &apart);

        ended |= !strcmp(*w, "--");
        if (!o || !is_of_all(o))
            put_word(f, *w);
        if (apart && w[1] && (w++, !is_of_all(o)))
            put_word(f, *w);
    }
}

char *test_again(const struct test_plan *p, unsigned run)
{
    char *cwd cleanup_free = getcwd(NULL, 0), self[PATH_MAX], *ret;
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    size_t len;
    FILE *f = open_memstream(&ret, &len);

    if (!f)
        abort();
    self[n > 0 ? n : 0] = 0;
    fputs("cd", f);
    put_word(f, cwd ? cwd : "/");
    fputs(" &&", f);
    put_word(f, self);
    fputs(" test", f);
    for (unsigned i = 0; i < p->matrix.naxes; i++) {
        char *axis cleanup_free = matrix_axis_of(&p->matrix, i, run);

        fputs(" --matrix", f);
        put_word(f, axis);
    }
    put_words(f, p);
    fclose(f);
    return ret;
}
