/* What the parts of `bothy test` share: its options, and one run of what they ask for. */
#pragma once
#include "vmm/cli/cli.h"
#include "vmm/cli/crash_opts.h"
#include "vmm/machine/config.h"
#include "vmm/report/report.h"
#include "vmm/runner/kernel.h"
#include "vmm/runner/matrix.h"

struct test_opts {
    struct config c;
    char *root, *modules, *cwd, *user, *log, *report, *kselftest, *kunit, *serve;
    struct opt_list matrix;
    struct crash_opts crash;
    enum test_root root_kind;
    bool shell, shell_on_failure, systemd, profile_boot, keep;
    uint32_t boot_timeout, silence_timeout, timeout, all_timeout, jobs, retry, format, log_level;
};

/* All runs. */
struct test_plan {
    const struct cli_line *line;
    const struct test_opts *opts;
    struct matrix matrix;
    char **command; /* that is tested; NULL-terminated */
    char **words;   /* that the guest runs: the same, or a shell's that runs it */
    /* Of one guest among those that serve; NULL elsewhere. */
    const char *name, *machine; /* what its owner wants of it, as JSON */
    uint64_t begun_ns;          /* when, on CLOCK_MONOTONIC */
};

/* One of them.  What it asks for is its own, since a run changes its machine's configuration. */
struct test_job {
    struct test_opts o;
    struct test_spec spec;
    struct kernel_place kernel;
    char *const *command; /* the plan's */
    char *name, *bundle, *kconfig, *again;
};
/* `run` is one of the matrix'. */
int test_job_init(struct test_job *j, const struct test_plan *p, unsigned run, struct err *err) must_check;
void test_job_fini(struct test_job *j);
/* What a report says about it: its name, kernel, and so on. */
struct report_run *test_job_report(const struct test_job *j, struct report *r);
/* What a result means in the light of the plan: call it when the tests are known. */
void test_job_judge(const struct test_job *j, struct report_run *run);

/* The line for a shell that does one of a plan's runs again, alone; the caller's. */
char *test_again(const struct test_plan *p, unsigned run);

/*
 * A run whose command has bothy's own standard streams, or its terminal: fills `run`, and tells of what went wrong on
 * standard error.  `log`: where the kernel's log goes besides, a descriptor, or -1.
 */
int test_one(const struct test_plan *p, struct test_job *j, int log, struct report_run *run, struct err *err)
    must_check;
/* All runs, as many at a time as they may be and as fit; fills the report. */
int test_many(const struct test_plan *p, struct report *r, struct err *err) must_check;

/* Guests for whoever connects to the socket; the exit code. */
int test_serve(const struct test_plan *p, struct err *err) must_check;

/* Has what would end the process arrive at *w, a signalfd, which is then the caller's to take away. */
int test_watch_signals(struct watch *w, struct lane *lane, void (*ready)(struct watch *w, uint32_t revents),
                       struct err *err) must_check;
/* Undoes that; copes with one whose fd is -1. */
void test_unwatch_signals(struct watch *w);
/* "DIR[:PATTERN]" as the command that runs an installed kselftest's tests; the caller's to free, with
 * test_words_free(). */
int test_kselftest(const char *what, char ***ret, struct err *err) must_check;
void test_words_free(char **words);
