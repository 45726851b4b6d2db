/*
 * A matrix of runs.  An axis is "KEY=VALUE,VALUE...": an option's name and what it is to be, one after the other; ",,"
 * is a comma in a value.  Every combination of all axes' values is a run, the last axis' value changing first.  A file
 * has an axis on each line; empty lines and those that begin with '#' say nothing.
 */
#pragma once
#include "vmm/base/opt.h"

enum { MATRIX_AXES = 16, MATRIX_VALUES = 256, MATRIX_RUNS = 4096, MATRIX_FILE_MAX = 64 << 10 };

struct matrix {
    struct matrix_axis {
        const struct opt *opt; /* borrowed */
        char **values;
        unsigned n;
    } axes[MATRIX_AXES];
    unsigned naxes;
};

/* One more axis over the options `opts` (borrowed until matrix_fini). */
int matrix_add(struct matrix *m, const struct opt *opts, const char *axis, struct err *err) must_check;
/* A file's text; `where` names it in messages, with the line. */
int matrix_add_lines(struct matrix *m, const struct opt *opts, const char *text, const char *where, struct err *err)
    must_check;
/* As `word` is what was said on a command line: an axis, or a file of them. */
int matrix_add_word(struct matrix *m, const struct opt *opts, const char *word, struct err *err) must_check;
void matrix_fini(struct matrix *m);

/* 1 without an axis. */
unsigned matrix_runs(const struct matrix *m);
/* Sets in `obj`, the options' struct, what run number `run` has of its own; an empty value adds nothing to a list. */
int matrix_apply(const struct matrix *m, unsigned run, const struct opt *opts, void *obj, struct err *err) must_check;
/* An axis with no other value than this run's, "cpus=2", as matrix_add() takes it; the caller's. */
char *matrix_axis_of(const struct matrix *m, unsigned axis, unsigned run);
/* "cpus=2 memory=1G"; the caller's.  NULL without an axis. */
char *matrix_name(const struct matrix *m, unsigned run);
