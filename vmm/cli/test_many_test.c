/* Matrices of runs whose machines are this program again, which does what the kernel's command line asks for. */
#include "vmm/cli/test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"

extern const struct cli_verb verb_test;

/* Descriptors of the machine, as run.c has them. */
enum { CONTROL = 5, OUT = 7, SERIAL = 10 };
enum { CODE_TOO_MANY = 77 };

/* ---- The machine. ---- */

static void say(int fd, const char *text)
{
    if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        _exit(99);
}

static void end(unsigned code, size_t out)
{
    char line[64];

    snprintf(line, sizeof(line), "exit %u %zu 0 0\n", code, out);
    say(CONTROL, line);
    for (;;)
        pause();
}

/* Takes one of two places until this process ends; false: both are taken. */
static bool take_place(const char *dir)
{
    for (int i = 0; i < 2; i++) {
        char *path cleanup_free = NULL;
        int fd;

        if (asprintf(&path, "%s/place%d", dir, i) < 0 || (fd = open(path, O_RDWR | O_CREAT, 0600)) < 0)
            _exit(99);
        if (!flock(fd, LOCK_EX | LOCK_NB))
            return true;
        close(fd);
    }
    return false;
}

static unsigned count_tries(const char *dir)
{
    char *path cleanup_free = NULL;
    struct stat st;
    int fd;

    if (asprintf(&path, "%s/tries", dir) < 0)
        abort();
    fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (write(fd, "x", 1) != 1 || fstat(fd, &st))
        _exit(99);
    close(fd);
    return (unsigned)st.st_size;
}

static void play(void)
{
    static const char tap[] = "1..2\nok 1 - a\nnot ok 2 - b\n";
    const char *dir = getenv("BOTHY_TEST_DIR");
    int fd = open("/proc/self/fd/3", O_RDONLY | O_CLOEXEC);
    char config[65536];
    ssize_t n = read(fd, config, sizeof(config) - 1);
    sigset_t none;

    config[n > 0 ? n : 0] = 0;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);     /* who starts machines has blocked SIGINT */
    if (strstr(config, "filter_glob=list*")) { /* it comes to no first process */
        say(SERIAL, "[    0.100000] KTAP version 1\r\n[    0.100000] 1..1\r\n[    0.200000] ok 1 list\r\n");
        _exit(0);
    }
    if (strstr(config, "filter_glob=none")) {
        say(SERIAL, "[    0.100000] KTAP version 1\r\n[    0.100000] 1..0\r\n");
        _exit(0);
    }
    say(CONTROL, "ready\n");
    if (!take_place(dir))
        end(CODE_TOO_MANY, 0);
    if (strstr(config, "die"))
        _exit(EXIT_CRASHED);
    if (strstr(config, "third"))
        end(count_tries(dir) < 3, 0);
    if (strstr(config, "tap")) {
        say(OUT, tap);
        end(0, strlen(tap));
    }
    if (strstr(config, "never"))
        for (;;)
            pause();
    end(strstr(config, "fail") ? 5 : 0, 0);
}

/* ---- The tests. ---- */

struct bench {
    char dir[32], kernel[48];
    struct test_opts opts;
    struct cli_line line;
    struct test_plan plan;
    struct report report;
    char *words[32], *args[32];
};

/* `words`: of the command line, between "-k KERNEL --report X" and "-- command". */
static void set_up(struct bench *b, const char *const *words)
{
    struct err err;
    size_t n = 0;

    *b = (struct bench){.dir = "/tmp/bothy-many-XXXXXX"};
    assert_non_null(mkdtemp(b->dir));
    snprintf(b->kernel, sizeof(b->kernel), "%s/kernel", b->dir);
    close(creat(b->kernel, 0600));
    setenv("BOTHY_TEST_DIR", b->dir, 1);
    b->words[n++] = "-k";
    b->words[n++] = b->kernel;
    b->words[n++] = "--report=unused";
    while (*words)
        b->words[n++] = (char *)*words++;
    b->words[n++] = "--";
    b->words[n++] = "command";
    b->line = (struct cli_line){.verb = &verb_test, .words = b->words, .opts = &b->opts, .args = b->args};
    opts_default(verb_test.opts, &b->opts);
    assert_int_equal(cli_parse(&b->line, &err), 0);
    b->plan = (struct test_plan){.line = &b->line, .opts = &b->opts, .command = b->line.args, .words = b->line.args};
    for (size_t i = 0; i < b->opts.matrix.n; i++)
        assert_int_equal(matrix_add_word(&b->plan.matrix, config_opts, b->opts.matrix.v[i], &err), 0);
    report_init(&b->report);
}

static void tear_down(struct bench *b)
{
    char *command cleanup_free = NULL;

    assert_true(asprintf(&command, "rm -r %s", b->dir) > 0);
    assert_int_equal(system(command), 0);
    report_fini(&b->report);
    matrix_fini(&b->plan.matrix);
    opts_clear(verb_test.opts, &b->opts);
}

static const struct report_run *run_at(const struct bench *b, unsigned i)
{
    const struct list *l = b->report.runs.next;

    while (i--)
        l = l->next;
    assert_ptr_not_equal(l, &b->report.runs);
    return container_of(l, struct report_run, link);
}

#define SET_UP(b, ...) set_up(b, (const char *const[]){__VA_ARGS__, NULL})

static void every_run_is_reported_in_order(void **state)
{
    static const struct {
        const char *name, *word;
        int code;
    } wanted[] = {
        {"append= cpus=1", "pass", 0},
        {"append= cpus=2", "pass", 0},
        {"append=fail cpus=1", "fail", 5},
        {"append=fail cpus=2", "fail", 5},
        {"append=die cpus=1", "crash", EXIT_CRASHED},
        {"append=die cpus=2", "crash", EXIT_CRASHED},
        {"append=tap cpus=1", "fail", 0},
        {"append=tap cpus=2", "fail", 0},
    };
    struct bench b;
    struct err err;

    (void)state;
    SET_UP(&b, "-j2", "--matrix", "append=,fail,die,tap", "--matrix", "cpus=1,2");
    assert_int_equal(test_many(&b.plan, &b.report, &err), 0);
    for (unsigned i = 0; i < array_len(wanted); i++) {
        const struct report_run *run = run_at(&b, i);

        assert_string_equal(run->test.name, wanted[i].name);
        assert_string_equal(report_word(run), wanted[i].word);
        assert_int_equal(run->result.code, wanted[i].code); /* 77: more than two at a time */
        assert_int_equal(run->tries, 1);
    }
    assert_int_equal(report_code(&b.report), EXIT_CRASHED);
    tear_down(&b);
}

static void what_fails_is_tried_again(void **state)
{
    struct bench b;
    struct err err;

    (void)state;
    SET_UP(&b, "--retry=5", "-a", "third");
    assert_int_equal(test_many(&b.plan, &b.report, &err), 0);
    assert_int_equal(run_at(&b, 0)->tries, 3);
    assert_int_equal(report_code(&b.report), 0);
    tear_down(&b);

    SET_UP(&b, "--retry=1", "-a", "third");
    assert_int_equal(test_many(&b.plan, &b.report, &err), 0);
    assert_int_equal(run_at(&b, 0)->tries, 2);
    assert_int_equal(report_code(&b.report), 1);
    tear_down(&b);
}

static void all_together_have_a_limit(void **state)
{
    struct bench b;
    struct err err;

    (void)state;
    SET_UP(&b, "-j1", "--all-timeout=1", "--matrix", "append=never,");
    assert_int_equal(test_many(&b.plan, &b.report, &err), 0);
    assert_string_equal(report_word(run_at(&b, 0)), "timeout");
    assert_string_equal(report_word(run_at(&b, 1)), "timeout");
    assert_string_equal(run_at(&b, 1)->result.why, "not started");
    assert_int_equal(report_code(&b.report), EXIT_TIMEOUT);
    tear_down(&b);
}

static void what_is_wrong_with_any_is_told_first(void **state)
{
    struct bench b;
    struct err err;

    (void)state;
    SET_UP(&b, "--matrix", "cpus=1,none");
    assert_int_equal(test_many(&b.plan, &b.report, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "matrix: cpus"));
    tear_down(&b);

    SET_UP(&b, "--matrix", "kernel=/nonexistent/bzImage");
    assert_int_equal(test_many(&b.plan, &b.report, &err), -ENOENT);
    tear_down(&b);
}

static void kunit_has_results_or_it_is_an_error(void **state)
{
    struct bench b;
    struct err err;

    (void)state;
    SET_UP(&b, "--kunit=list*");
    assert_int_equal(test_many(&b.plan, &b.report, &err), 0);
    assert_int_equal(report_code(&b.report), 0);
    assert_false(list_empty(&run_at(&b, 0)->test.children));
    tear_down(&b);

    SET_UP(&b, "--kunit=none");
    assert_int_equal(test_many(&b.plan, &b.report, &err), 0);
    assert_string_equal(report_word(run_at(&b, 0)), "error");
    assert_non_null(strstr(run_at(&b, 0)->result.why, "\"none\""));
    tear_down(&b);

    SET_UP(&b, "--kunit=*");
    assert_int_equal(test_many(&b.plan, &b.report, &err), 0);
    assert_string_equal(report_word(run_at(&b, 0)), "error");
    assert_non_null(strstr(run_at(&b, 0)->result.why, "CONFIG_KUNIT=y"));
    tear_down(&b);
}

static void one_of_many_can_be_done_again(void **state)
{
    static const char first[] = " test --matrix 'append=a b,,c' --matrix cpus=2 -k /";
    char *again cleanup_free = NULL, *words;
    struct bench b;

    (void)state;
    SET_UP(&b, "--matrix=append=a b,,c,", "--retry", "3", "-j", "4", "--format=tap", "--timeout", "9", "--matrix",
           "cpus=1,2", "-a", "it's");
    again = test_again(&b.plan, 1);
    words = strstr(again, " test ");
    assert_true(!strncmp(again, "cd /", 4) && strstr(again, " && /") && words);
    assert_false(strncmp(words, first, strlen(first)));
    words = strstr(words, "/kernel ");
    assert_non_null(words);
    assert_string_equal(words, "/kernel --timeout 9 -a 'it'\\''s' -- command");
    tear_down(&b);
}

/* Of a run that has our own streams: who cannot write them is told, and that is not the command's fault. */
static void output_without_room_is_an_error(void **state)
{
    struct bench b;
    char said[256] = "";
    int err[2], status;
    pid_t pid;

    (void)state;
    set_up(&b, (const char *const[]){NULL});
    assert_int_equal(pipe(err), 0);
    pid = fork();
    if (!pid) {
        dup2(open("/dev/full", O_WRONLY), STDOUT_FILENO);
        dup2(err[1], STDERR_FILENO);
        execl("/proc/self/exe", "bothy", "test", "-k", b.kernel, "-a", "tap", "--", "command", NULL);
        _exit(97);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), EXIT_BOTHY);
    assert_true(read(err[0], said, sizeof(said) - 1) > 0);
    assert_string_equal(strstr(said, "bothy test: command: output"),
                        "bothy test: command: output \"standard output\": No space left on device; make room there, or "
                        "choose another place\n");
    close(err[0]);
    close(err[1]);
    tear_down(&b);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_run_is_reported_in_order),      cmocka_unit_test(what_fails_is_tried_again),
        cmocka_unit_test(all_together_have_a_limit),           cmocka_unit_test(what_is_wrong_with_any_is_told_first),
        cmocka_unit_test(kunit_has_results_or_it_is_an_error), cmocka_unit_test(output_without_room_is_an_error),
        cmocka_unit_test(one_of_many_can_be_done_again),
    };

    if (argc > 1 && !strcmp(argv[1], "run"))
        play();
    if (argc > 1 && !strcmp(argv[1], "test"))
        return cli_main(argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
