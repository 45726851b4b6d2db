/* `bothy test`: a command on a kernel, or on many, with the host's files around it. */
#include "vmm/cli/test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/report/ktap.h"

enum { SECONDS_MAX = 1000000, COMMAND_WORDS_MAX = 16384, JOBS_MAX = 4096, RETRY_MAX = 1000, FOLDER_MAX = 200 };

static const struct opt test_options[] = {
    O_STR(struct test_opts, root, "root", "/",
          "directory, or image of a disk, that the guest has as its root; what it writes is thrown away",
          .arg = "DIR|FILE"),
    O_STR(struct test_opts, modules, "modules", NULL, "the kernel's modules; found for kernels that tell their version",
          .arg = "DIR"),
    O_STR(struct test_opts, cwd, "cwd", NULL, "the command's directory; bothy's own where the root is /", .arg = "DIR"),
    O_STR(struct test_opts, user, "user", NULL, "who runs the command; root unless told", .arg = "NAME|UID[:GID]"),
    O_BOOL(struct test_opts, shell, "shell", "off", "run a shell"),
    O_BOOL(struct test_opts, shell_on_failure, "shell-on-failure", "off",
           "when the command has failed, run a shell in the same guest; limits of time hold for it, too"),
    O_BOOL(struct test_opts, systemd, "systemd", "off",
           "boot the root's own systemd, and run the command as a unit of it, after basic.target"),
    O_STR(struct test_opts, kselftest, "kselftest", NULL,
          "run installed kselftests; PATTERN is a collection, or COLLECTION:TEST with * and ?", .arg = "DIR[:PATTERN]"),
    O_STR(struct test_opts, kunit, "kunit", NULL, "run the KUnit tests that are built into the kernel; * is all",
          .arg = "PATTERN"),
    O_STR(struct test_opts, serve, "serve", NULL, "start guests and run commands in them for whoever connects there",
          .arg = "unix:FILE"),
    O_LIST(struct test_opts, matrix, "matrix",
           "run with each of an option's values, as in cpus=1,2; or a file of such lines",
           .arg = "KEY=VALUE,VALUE...|FILE"),
    O_U32(struct test_opts, jobs, "jobs", "0", 0, JOBS_MAX, "guests at a time; 0: as many as there are CPUs for",
          .letter = 'j'),
    O_U32(struct test_opts, retry, "retry", "0", 0, RETRY_MAX, "how often what failed is run again"),
    O_ENUM(struct test_opts, format, "format", "human", report_format_words, "of the report"),
    O_STR(struct test_opts, report, "report", NULL, "where the report goes; standard output unless told",
          .arg = "FILE"),
    O_U32(struct test_opts, timeout, "timeout", "0", 0, SECONDS_MAX, "seconds for all of a run; 0: no limit"),
    O_U32(struct test_opts, all_timeout, "all-timeout", "0", 0, SECONDS_MAX, "seconds for all runs; 0: no limit"),
    O_U32(struct test_opts, boot_timeout, "boot-timeout", "120", 0, SECONDS_MAX,
          "seconds until the command starts; 0: no limit"),
    O_U32(struct test_opts, silence_timeout, "silence-timeout", "0", 0, SECONDS_MAX,
          "seconds that the command may be silent, and the kernel's log with it; 0: no limit"),
    O_BOOL(struct test_opts, keep, "keep", "off",
           "a guest whose command failed or ran out of time stays for --gdb or --control, until Ctrl-C"),
    O_BOOL(struct test_opts, profile_boot, "profile-boot", "off",
           "tell on standard error where the time until the command's first byte went"),
    O_STR(struct test_opts, log, "log", NULL, "write the kernel's log there", .arg = "FILE"),
    CRASH_OPTIONS(struct test_opts, crash.),
    CONFIG_OPTIONS(struct test_opts, c.),
    O_ENUM(struct test_opts, log_level, "log-level", "warn", log_level_words, "how much bothy says on standard error"),
    O_END,
};

static int check_systemd(const struct test_opts *o, struct err *err)
{
    char *path cleanup_free = NULL;

    if (asprintf(&path, "%s/lib/systemd/systemd", o->root) < 0)
        abort();
    if (!access(path, F_OK))
        return 0;
    return err_set(err, errno, "--systemd: root \"%s\" has no lib/systemd/systemd: %s; install systemd there", o->root,
                   strerror(errno));
}

static int check_root(struct test_opts *o, struct err *err)
{
    struct stat st;
    char *full;

    if (stat(o->root, &st))
        return err_file(err, errno, "root", o->root);
    o->root_kind = S_ISDIR(st.st_mode) ? TEST_ROOT_SHARED : TEST_ROOT_DISK;
    full = realpath(o->root, NULL);
    if (!full)
        return err_file(err, errno, "root", o->root);
    free(o->root);
    o->root = full;
    return o->systemd && o->root_kind == TEST_ROOT_SHARED ? check_systemd(o, err) : 0;
}

static int choose_cwd(struct test_opts *o, struct err *err)
{
    if (!o->cwd && strcmp(o->root, "/") != 0)
        o->cwd = xstrdup("/");
    if (!o->cwd)
        o->cwd = getcwd(NULL, 0);
    if (!o->cwd)
        return err_set(err, errno, "the current directory: %s; change to one that is there", strerror(errno));
    if (*o->cwd != '/')
        return err_set(err, EINVAL, "--cwd %s: give the whole path", o->cwd);
    return 0;
}

static int choose_kernel(struct test_job *j, struct err *err)
{
    struct test_opts *o = &j->o;
    struct kernel_place *k = &j->kernel;
    int r = kernel_find(o->c.kernel, k, err);

    if (r < 0)
        return r;
    if (!o->modules)
        o->modules = take_ptr(k->modules);
    if (!o->modules)
        j->kconfig = kernel_config(k, o->c.kernel_cache);
    free(o->c.kernel);
    o->c.kernel = take_ptr(k->file);
    return 0;
}

/* The words of a kernel that tests itself before it starts anything, and then ends. */
static int ask_for_kunit(struct test_opts *o, struct err *err)
{
    char *words cleanup_free = NULL;

    if (!o->kunit)
        return 0;
    if (!*o->kunit || strpbrk(o->kunit, " \t\n\""))
        return err_set(err, EINVAL, "--kunit \"%s\": give a pattern like list*, or * for all", o->kunit);
    if (asprintf(&words, "loglevel=8 kunit.enable=1 kunit.filter_glob=%s kunit_shutdown=reboot", o->kunit) < 0)
        abort();
    return opts_set(config_opts, &o->c, "append", words, err);
}

static int set_options(struct test_job *j, const struct test_plan *p, unsigned run, struct err *err)
{
    struct test_opts *o = &j->o;
    struct cli_line again = {.verb = p->line->verb, .words = p->line->words, .opts = o, .args = p->line->args};
    int r;

    opts_default(test_options, o);
    if ((r = cli_parse(&again, err)) < 0 || (r = matrix_apply(&p->matrix, run, config_opts, &o->c, err)) < 0 ||
        (p->machine && (r = config_from_json(&o->c, p->machine, "machine", err)) < 0) || (r = check_root(o, err)) < 0 ||
        (r = choose_cwd(o, err)) < 0 || (r = ask_for_kunit(o, err)) < 0)
        return r;
    return choose_kernel(j, err);
}

/* A folder of its own below --bundle, where there are several guests; the run's number tells long names apart. */
static char *bundle_of(const struct test_job *j, const struct test_plan *p, unsigned run)
{
    char *name cleanup_free = xstrdup(j->name), *ret, number[16] = "";

    if (!p->matrix.naxes && !p->name)
        return xstrdup(j->o.crash.bundle);
    for (char *c = name; (c = strchr(c, '/'));)
        *c = '_';
    if (strlen(name) > FOLDER_MAX) {
        name[FOLDER_MAX] = 0;
        snprintf(number, sizeof(number), " #%u", run + 1);
    }
    if (asprintf(&ret, "%s/%s%s", j->o.crash.bundle, name, number) < 0)
        abort();
    return ret;
}

int test_job_init(struct test_job *j, const struct test_plan *p, unsigned run, struct err *err)
{
    struct test_opts *o = &j->o;
    int r;

    j->kernel.hold = -1;
    j->command = p->command;
    r = set_options(j, p, run, err);
    j->name = p->name ? xstrdup(p->name) : matrix_name(&p->matrix, run);
    if (!j->name)
        j->name = xstrdup(o->kunit ? "kunit" : p->command[0]);
    if (o->crash.bundle)
        j->bundle = bundle_of(j, p, run);
    if (o->crash.bundle && !p->name)
        j->again = test_again(p, run);
    j->spec = (struct test_spec){
        .name = j->name,
        .config = &o->c,
        .command = p->words,
        .env = environ,
        .root = o->root,
        .root_kind = o->root_kind,
        .modules = o->modules,
        .kconfig = j->kconfig,
        .systemd = o->systemd,
        .cwd = o->cwd,
        .user = o->user,
        .hostname = o->c.name,
        .boot_ns = o->boot_timeout * NS_PER_SEC,
        .silence_ns = o->silence_timeout * NS_PER_SEC,
        .total_ns = p->name ? 0 : o->timeout * NS_PER_SEC,
        .serve = p->name,
        .keep = o->keep,
        .profile = o->profile_boot,
        .stdin_open = p->name,
        .bundle = j->bundle,
        .fail_on = o->crash.fail_on,
        .core = o->crash.core,
        .lean_core = o->crash.lean,
        .packed_core = o->crash.packed,
        .kernel_only = o->kunit,
    };
    return r;
}

void test_job_fini(struct test_job *j)
{
    config_fini(&j->o.c);
    opts_clear(test_options, &j->o);
    kernel_place_fini(&j->kernel);
    free(j->name);
    free(j->bundle);
    free(j->kconfig);
    free(j->again);
}

static void fact_words(struct report_run *run, const char *name, char *const *words, size_t n)
{
    char *text cleanup_free = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);

    if (!f)
        abort();
    for (size_t i = 0; i < n; i++)
        fprintf(f, "%s%s", i ? " " : "", words[i]);
    fclose(f);
    report_fact(run, name, text);
}

struct report_run *test_job_report(const struct test_job *j, struct report *r)
{
    const struct test_opts *o = &j->o;
    struct report_run *run = report_add(r, j->name);
    char text[32];
    size_t n = 0;

    while (j->command[n])
        n++;
    report_fact(run, "kernel", o->c.kernel);
    fact_words(run, "arguments", o->c.append.v, o->c.append.n);
    snprintf(text, sizeof(text), "%u", o->c.cpus);
    report_fact(run, "cpus", text);
    snprintf(text, sizeof(text), "%llu", (unsigned long long)o->c.memory);
    report_fact(run, "memory", text);
    fact_words(run, "command", j->command, n);
    return run;
}

static bool has_no_tests(const struct list *tests)
{
    const struct test *first = container_of(tests->next, struct test, link);

    return first->link.next == tests && !strcmp(first->name, KTAP_NO_TESTS);
}

/* The machine that wrote the bundle knows only what it was told itself. */
static void complete_summary(const struct test_job *j)
{
    int dir cleanup_fd = open(j->bundle, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int fd cleanup_fd = openat(dir, "summary", O_WRONLY | O_APPEND | O_NOFOLLOW | O_CLOEXEC);

    if (fd >= 0)
        dprintf(fd, "\nAgain: %s\n", j->again);
}

void test_job_judge(const struct test_job *j, struct report_run *run)
{
    const struct list *tests = &run->test.children;

    if (run->result.bundled) {
        report_fact(run, "bundle", j->bundle);
        complete_summary(j);
    }
    if (!j->o.kunit || run->result.outcome != TEST_PASS)
        return;
    if (list_empty(tests))
        snprintf(run->result.why, sizeof(run->result.why),
                 "the kernel's log has no KUnit results; it needs CONFIG_KUNIT=y and tests built in");
    else if (has_no_tests(tests))
        snprintf(run->result.why, sizeof(run->result.why), "no KUnit suite in this kernel is called \"%s\"",
                 j->o.kunit);
    else
        return;
    run->result.outcome = TEST_ERROR;
    run->result.code = EXIT_BOTHY;
    report_settle(run);
}

int test_watch_signals(struct watch *w, struct lane *lane, void (*ready)(struct watch *w, uint32_t revents),
                       struct err *err)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    *w = (struct watch){.lane = lane, .events = EPOLLIN, .ready = ready};
    w->fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (w->fd < 0)
        return err_set(err, errno, "signalfd: %s", strerror(errno));
    watch_add(w);
    return 0;
}

void test_unwatch_signals(struct watch *w)
{
    watch_del(w);
    if (w->fd >= 0)
        close(w->fd);
}

static int run_one(const struct test_plan *p, struct report *report, struct err *err)
{
    const struct test_opts *o = p->opts;
    struct test_job j = {.name = NULL};
    int log cleanup_fd = -1, r;

    if (o->log && (log = open(o->log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) < 0)
        return err_file(err, errno, "log", o->log);
    r = test_job_init(&j, p, 0, err);
    if (r >= 0)
        r = test_one(p, &j, log, test_job_report(&j, report), err);
    test_job_fini(&j);
    return r;
}

static int write_report(const struct test_plan *p, const struct report *r, FILE *f, struct err *err)
{
    const char *path = p->opts->report;
    int ret = f ? report_write(r, p->opts->format, f) : 0;

    if (f && f != stdout && fclose(f) && !ret)
        ret = -errno;
    return ret < 0 ? err_file(err, -ret, "report", path ? path : "standard output") : 0;
}

/* With `f`, the file of the report.  A run alone has our own streams, unless the report needs one of them. */
static int run_plan(const struct test_plan *p, FILE *f, struct err *err)
{
    const struct test_opts *o = p->opts;
    bool alone =
        !p->matrix.naxes && !o->retry && !o->all_timeout && !o->kunit && (o->report || o->format == REPORT_HUMAN);
    struct report report;
    int r;

    report_init(&report);
    if (o->keep && (!alone || (!o->c.gdb && !o->c.control)))
        r = err_set(err, EINVAL,
                    "--keep: give --gdb or --control, too, to look at the guest by; only a single run with its own "
                    "output is kept");
    else if (!alone && o->profile_boot)
        r = err_set(err, EINVAL, "--profile-boot: only a single run with its own output has a profile");
    else if (!alone && o->shell_on_failure)
        r = err_set(err, EINVAL, "--shell-on-failure: only a single run with its own output has a shell");
    else if (!alone && o->log)
        r = err_set(err, EINVAL,
                    "--log: only a single run with its own output has one; a report has the logs of what failed");
    else
        r = alone ? run_one(p, &report, err) : test_many(p, &report, err);
    if (r >= 0 && !alone && o->format == REPORT_HUMAN && !o->report)
        report_write_sum(&report, stdout);
    else if (r >= 0)
        r = write_report(p, &report, f, err);
    if (r >= 0)
        r = report_code(&report);
    report_fini(&report);
    return r;
}

static int open_report(const struct test_opts *o, FILE **ret, struct err *err)
{
    if (!o->report) {
        *ret = o->format == REPORT_HUMAN ? NULL : stdout;
        return 0;
    }
    *ret = fopen(o->report, "we");
    return *ret ? 0 : err_file(err, errno, "report", o->report);
}

/* The machines write there; that it can be made is better known before they start. */
static int make_bundles(const struct crash_opts *o, struct err *err)
{
    int r = crash_opts_check(o, NULL, err);

    if (r >= 0 && o->bundle && mkdir(o->bundle, 0700) && errno != EEXIST)
        r = err_file(err, errno, "bundle", o->bundle);
    return r;
}

/* The command with a shell behind it; the words are borrowed.  Ctrl-C is for the command alone. */
static char **add_shell(char *const *command)
{
    static const char script[] =
        "trap : INT; (exec \"$@\"); code=$?; [ $code = 0 ] && exit; "
        "echo \"bothy test: $1 ended with code $code; here is a shell, whose end is the guest's\" >&2; "
        "/bin/sh; exit $code";
    const char *const before[] = {"/bin/sh", "-c", script, "sh"};
    size_t n = 0;
    char **ret;

    while (command[n])
        n++;
    ret = xcalloc(array_len(before) + n + 1, sizeof(*ret));
    memcpy(ret, before, sizeof(before));
    memcpy(ret + array_len(before), command, n * sizeof(*ret));
    return ret;
}

/* What has no meaning where the socket's clients say what runs. */
static int check_serve(const struct test_opts *o, struct err *err)
{
    const struct {
        const char *name;
        bool given;
    } others[] = {
        {"--matrix", o->matrix.n},
        {"--retry", o->retry},
        {"--report", o->report},
        {"--format", o->format != REPORT_HUMAN},
        {"--all-timeout", o->all_timeout},
        {"--silence-timeout", o->silence_timeout},
        {"--log", o->log},
        {"--shell-on-failure", o->shell_on_failure},
        {"--profile-boot", o->profile_boot},
        {"--keep", o->keep},
    };

    for (size_t i = 0; i < array_len(others); i++)
        if (others[i].given)
            return err_set(err, EINVAL, "--serve: who connects gets every result and says what runs; leave out %s",
                           others[i].name);
    if (strncmp(o->serve, "unix:", 5) || !o->serve[5])
        return err_set(err, EINVAL, "--serve %s: give a socket's name, as in unix:pool.sock", o->serve);
    return 0;
}

static int serve(struct test_plan *p, struct err *err)
{
    char *no_command = NULL;
    int r;

    p->command = p->words = &no_command;
    if ((r = check_serve(p->opts, err)) < 0 || (r = make_bundles(&p->opts->crash, err)) < 0)
        return r;
    return test_serve(p, err);
}

static int make_plan(struct test_plan *p, struct err *err)
{
    const struct test_opts *o = p->opts;
    char *shell[] = {"/bin/sh", NULL}, *nothing[] = {"/bin/true", NULL};
    FILE *f;
    int r;

    if ((r = make_bundles(&o->crash, err)) < 0)
        return r;
    for (size_t i = 0; i < o->matrix.n; i++)
        if ((r = matrix_add_word(&p->matrix, config_opts, o->matrix.v[i], err)) < 0)
            return r;
    if (o->kselftest) {
        r = test_kselftest(o->kselftest, &p->command, err);
        if (r < 0)
            return r;
    } else {
        p->command = o->shell ? shell : o->kunit ? nothing : p->line->args;
    }
    p->words = o->shell_on_failure ? add_shell(p->command) : p->command;
    r = open_report(o, &f, err);
    if (r >= 0)
        r = run_plan(p, f, err);
    if (p->words != p->command)
        free(p->words);
    if (o->kselftest)
        test_words_free(p->command);
    return r;
}

static int test_verb(struct cli_line *l, struct err *err)
{
    struct test_opts *o = l->opts;
    struct test_plan p = {.line = l, .opts = o, .begun_ns = clock_now_ns()};
    int given = o->shell + (o->kselftest != NULL) + (o->kunit != NULL) + (o->serve != NULL) + (l->nargs > 0), r;

    log_set_level(o->log_level);
    if (!given)
        return err_set(err, EINVAL, "no command; write it after --, as in: bothy test -- uname -r");
    if (given > 1)
        return err_set(err, EINVAL, "give only one of a command, --shell, --kselftest, --kunit and --serve");
    r = o->serve ? serve(&p, err) : make_plan(&p, err);
    matrix_fini(&p.matrix);
    config_fini(&o->c);
    return r;
}

const struct cli_verb verb_test = {
    .name = "test",
    .summary = "run a command on a kernel",
    .args = "-- COMMAND...",
    .max_args = COMMAND_WORDS_MAX,
    .text =
        "Boots a kernel with the host's files around it and runs the command there, with its standard streams and "
        "its environment, as root.  -k names a bzImage or vmlinux, a kernel's build tree, a Debian package, or the "
        "version of an installed kernel; without it the running kernel's file is taken, else the newest in /boot.\n\n"
        "What the guest writes to its files is thrown away.  The exit code is the command's own, 128 and the "
        "signal's number when one ended it, 124 when it ran out of time, 126 when the guest ended before the "
        "command did, and 125 when bothy could not do it.  Ctrl-] q ends it at a terminal.\n\n"
        "With --matrix there is a run for every combination of what its options are to be, as many at a time as "
        "CPUs and memory allow, or as -j says.  TAP and KTAP in the output or the kernel's log are results of their "
        "own: of several runs, or where only such a result is bad, the exit code is 1 for a failed test, else that "
        "of the worst that came up.\n\n"
        "With --serve it starts nothing by itself: programs connect to the socket and say in lines of JSON which "
        "guests there are to be, on top of the other options, and what runs in them; the README tells how.  What one "
        "client started ends when it leaves.",
    .opts = test_options,
    .size = sizeof(struct test_opts),
    .run = test_verb,
};
