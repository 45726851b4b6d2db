#include "vmm/runner/matrix.h"

#include <ctype.h>
#include <stdio.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/file.h"

static const struct opt *find_key(const struct opt *opts, const char *key, struct err *err)
{
    const struct opt *o = opts_find(opts, key);
    const char *words[64], *near;
    size_t n = 0;

    if (o)
        return o;
    for (; opts->name && n < array_len(words) - 1; opts++)
        words[n++] = opts->name;
    words[n] = NULL;
    near = nearest_word(key, words);
    if (near)
        err_set(err, EINVAL, "a matrix has no \"%s\"; did you mean \"%s\"?", key, near);
    else
        err_set(err, EINVAL, "a matrix has no \"%s\"; it varies options of the machine, as in cpus=1,2", key);
    return NULL;
}

/* From `text` to a comma, without blanks around; the caller's.  *rest is behind the comma, NULL at the end. */
static char *take_value(const char *text, const char **rest)
{
    char *value = xcalloc(strlen(text) + 1, 1), *to = value;

    while (isspace((unsigned char)*text))
        text++;
    for (; *text && (*text != ',' || text[1] == ','); text++) {
        *to++ = *text;
        text += *text == ',';
    }
    *rest = *text ? text + 1 : NULL;
    while (to > value && isspace((unsigned char)to[-1]))
        *--to = 0;
    return value;
}

static int add_values(struct matrix_axis *a, const char *text, struct err *err)
{
    a->values = xcalloc(MATRIX_VALUES, sizeof(*a->values));
    do {
        if (a->n == MATRIX_VALUES)
            return err_set(err, EINVAL, "more than %d values of %s", MATRIX_VALUES, a->opt->name);
        a->values[a->n++] = take_value(text, &text);
    } while (text);
    return 0;
}

int matrix_add(struct matrix *m, const struct opt *opts, const char *axis, struct err *err)
{
    const char *eq = strchr(axis, '=');
    char *key cleanup_free = strndup(axis, strcspn(axis, "= \t"));
    struct matrix_axis *a = &m->axes[m->naxes];
    const struct opt *o;
    int r;

    if (!key)
        abort();
    if (!eq)
        return err_set(err, EINVAL, "\"%s\" is no part of a matrix; write KEY=VALUE,VALUE... as in cpus=1,2", axis);
    o = find_key(opts, key, err);
    if (!o)
        return -EINVAL;
    for (unsigned i = 0; i < m->naxes; i++)
        if (m->axes[i].opt == o)
            return err_set(err, EINVAL, "the matrix has %s twice; give all its values at once, with commas", key);
    if (m->naxes == MATRIX_AXES)
        return err_set(err, EINVAL, "a matrix of more than %d options", MATRIX_AXES);
    a->opt = o;
    m->naxes++;
    r = add_values(a, eq + 1, err);
    if (r < 0)
        return r;
    if (matrix_runs(m) > MATRIX_RUNS)
        return err_set(err, EINVAL, "a matrix of more than %d runs; split it", MATRIX_RUNS);
    return 0;
}

int matrix_add_lines(struct matrix *m, const struct opt *opts, const char *text, const char *where, struct err *err)
{
    for (unsigned number = 1; *text; number++) {
        size_t n = strcspn(text, "\n");
        char *line cleanup_free = strndup(text, n), *start = line;
        int r;

        if (!line)
            abort();
        while (isspace((unsigned char)*start))
            start++;
        if (*start && *start != '#') {
            r = matrix_add(m, opts, start, err);
            if (r < 0) {
                err_wrap(err, "%s, line %u", where, number);
                return r;
            }
        }
        text += n + (text[n] == '\n');
    }
    return 0;
}

static int add_file(struct matrix *m, const struct opt *opts, const char *path, struct err *err)
{
    char *text cleanup_free = NULL;

    if (!file_drain(path, MATRIX_FILE_MAX, &text)) {
        unsigned before = m->naxes;
        int r = matrix_add_lines(m, opts, text, path, err);

        if (r >= 0 && m->naxes == before)
            r = err_set(err, EINVAL, "matrix \"%s\": no line in it says anything; write lines like cpus=1,2", path);
        return r;
    }
    if (errno == ENOENT)
        return err_set(err, ENOENT, "matrix \"%s\": there is no such file; name one, or write an axis like cpus=1,2",
                       path);
    if (errno == EFBIG)
        return err_set(err, EFBIG, "matrix \"%s\": more than %d KiB; give a file with lines like cpus=1,2", path,
                       MATRIX_FILE_MAX >> 10);
    return err_file(err, errno, "matrix", path);
}

int matrix_add_word(struct matrix *m, const struct opt *opts, const char *word, struct err *err)
{
    return word[strcspn(word, "=/")] == '=' ? matrix_add(m, opts, word, err) : add_file(m, opts, word, err);
}

void matrix_fini(struct matrix *m)
{
    for (unsigned i = 0; i < m->naxes; i++) {
        for (unsigned v = 0; v < m->axes[i].n; v++)
            free(m->axes[i].values[v]);
        free(m->axes[i].values);
    }
    *m = (struct matrix){.naxes = 0};
}

unsigned matrix_runs(const struct matrix *m)
{
    unsigned runs = 1;

    for (unsigned i = 0; i < m->naxes && runs <= MATRIX_RUNS; i++)
        runs *= m->axes[i].n;
    return runs;
}

/* Of the axis in this run. */
static const char *value_of(const struct matrix *m, unsigned axis, unsigned run)
{
    for (unsigned i = m->naxes - 1; i > axis; i--)
        run /= m->axes[i].n;
    return m->axes[axis].values[run % m->axes[axis].n];
}

int matrix_apply(const struct matrix *m, unsigned run, const struct opt *opts, void *obj, struct err *err)
{
    for (unsigned i = 0; i < m->naxes; i++) {
        const struct opt *o = m->axes[i].opt;
        const char *value = value_of(m, i, run);
        int r = o->kind == OPT_LIST && !*value ? 0 : opts_set(opts, obj, o->name, value, err);

        if (r < 0) {
            err_wrap(err, "matrix");
            return r;
        }
    }
    return 0;
}

char *matrix_axis_of(const struct matrix *m, unsigned axis, unsigned run)
{
    const char *value = value_of(m, axis, run);
    char *ret;
    size_t n;
    FILE *f = open_memstream(&ret, &n);

    if (!f)
        abort();
    fprintf(f, "%s=", m->axes[axis].opt->name);
    for (; *value; value++)
        fputs(*value == ',' ? ",," : (const char[]){*value, 0}, f);
    fclose(f);
    return ret;
}

char *matrix_name(const struct matrix *m, unsigned run)
{
    char *name = NULL;
    size_t n;
    FILE *f;

    if (!m->naxes)
        return NULL;
    f = open_memstream(&name, &n);
    if (!f)
        abort();
    for (unsigned i = 0; i < m->naxes; i++)
        fprintf(f, "%s%s=%s", i ? " " : "", m->axes[i].opt->name, value_of(m, i, run));
    fclose(f);
    return name;
}
