/* Everything that `bothy test` ran and what came of it, and its forms: for people, TAP, JSON, JUnit's XML. */
#pragma once
#include <stdio.h>

#include "vmm/base/err.h"
#include "vmm/report/result.h"
#include "vmm/runner/run.h"

enum report_format { REPORT_HUMAN, REPORT_TAP, REPORT_JSON, REPORT_JUNIT };
extern const char *const report_format_words[]; /* NULL-terminated: for option tables */

/* What tells one run from the others, as in "kernel" "6.1.0-56-amd64". */
struct report_fact {
    const char *name; /* borrowed */
    char *value;
};
enum { REPORT_FACTS = 8 };

struct report_run {
    struct list link;
    struct test test; /* the command, and below it the tests that its output and the kernel's log told of */
    struct report_fact facts[REPORT_FACTS]; /* name NULL behind the last */
    struct test_result result;
    unsigned tries;
    char *log; /* the end of the kernel's; NULL: not kept */
};

struct report {
    struct list runs; /* of struct report_run */
    uint64_t ns;      /* how long all took */
};

void report_init(struct report *r);
void report_fini(struct report *r);
/* A run in the report, with no outcome yet; both texts are copied and cleaned. */
struct report_run *report_add(struct report *r, const char *name);
/* One of that name is replaced. */
void report_fact(struct report_run *run, const char *name, const char *value);
/* Its result is known (run->result), and its tests are: sets the outcome of run->test. */
void report_settle(struct report_run *run);

/* What the process ends with: 0; 1 where only tests failed; a command's own code if it was the only run; else the
 * gravest of vmm/base/exit_code.h. */
int report_code(const struct report *r);
/* "12 tests: 10 passed, 2 failed"; of what is below `t`, or of itself. */
void report_counts_text(const unsigned counts[OUTCOME_MAX], char *buf, size_t n);

/* "pass", "fail", "crash": what came of it, its tests included. */
const char *report_word(const struct report_run *run);

/* -errno of the file's. */
int report_write(const struct report *r, enum report_format format, FILE *to) must_check;
/* One each. */
void report_write_human(const struct report *r, FILE *to);
void report_write_tap(const struct report *r, FILE *to);
void report_write_json(const struct report *r, FILE *to);
void report_write_junit(const struct report *r, FILE *to);

/* Parts of the one for people: a line about a run; its tests that failed, with what was said about each; how the
 * kernel's log ends; all of these; the last line. */
void report_write_line(const struct report_run *run, FILE *to);
void report_write_failures(const struct report_run *run, bool output, FILE *to);
void report_write_log(const struct report_run *run, FILE *to);
void report_write_run(const struct report_run *run, FILE *to);
void report_write_sum(const struct report *r, FILE *to);
