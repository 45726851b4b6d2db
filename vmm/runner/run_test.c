/* Runs whose machine is this program again, which plays a guest of the kind that the environment names. */
#include "vmm/runner/run.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/exit_code.h"
#include "vmm/base/test.h"

/* Its descriptors, as run.c has them. */
enum { CONTROL = 5, STDIN, OUT, ERR, LOG, SERIAL, MACHINE };

static void say(int fd, const char *text)
{
    if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        _exit(99);
}

static void wait_for_the_end(void)
{
    for (;;)
        pause();
}

static void guest_echo(void)
{
    static const char log_lines[] = "[    1.000000] one\n[    2.500000] two\n";
    char buf[4096];
    size_t all = 0;
    ssize_t n;
    FILE *f = fdopen(CONTROL, "w");

    say(CONTROL, "ready\n");
    while ((n = read(STDIN, buf, sizeof(buf))) > 0) {
        if (write(OUT, buf, (size_t)n) != n)
            _exit(99);
        all += (size_t)n;
    }
    say(ERR, "aside");
    say(SERIAL, "[    1.000000] one\r\n[    2.600000] three\r\n");
    fprintf(f, "exit 7 %zu 5 %zu\n", all, sizeof(log_lines) - 1);
    fflush(f);
    say(LOG, log_lines); /* it is on its way yet */
    wait_for_the_end();
}
static void guest_killed(void)
{
    say(CONTROL, "ready\nsignal 11 0 0 0\n");
    wait_for_the_end();
}
static void guest_true(void)
{
    say(CONTROL, "ready\nexit 0 0 0 0\n");
    wait_for_the_end();
}
/* Its kernel starts something, although it was to test only itself. */
static void guest_kernel(void)
{
    static const char log_line[] = "[    1.000000] ok 1 itself\n";

    say(SERIAL, log_line);
    say(LOG, log_line);
    guest_true();
}
static void guest_speaks(void)
{
    say(OUT, "x");
    say(CONTROL, "ready\nexit 0 1 0 0\n");
    wait_for_the_end();
}
/* Echoes each command's input, and ends with how long its orders were. */
static void guest_serves(void)
{
    FILE *f = fdopen(dup(CONTROL), "r");
    unsigned long n, input, all = 0;
    char buf[4096];

    say(CONTROL, "ready\n");
    while (fscanf(f, "run %lu %lu", &n, &input) == 2 && fgetc(f) == '\n' && fread(buf, 1, n, f) == n) {
        for (unsigned long left = input; left;) {
            ssize_t some = read(STDIN, buf, min_u64(left, sizeof(buf)));

            if (some <= 0 || write(OUT, buf, (size_t)some) != some)
                _exit(99);
            left -= (unsigned long)some;
        }
        all += input;
        dprintf(CONTROL, input ? "exit %lu %lu 0 0\n" : "signal %lu %lu 0 0\n", n, all);
    }
}
/* Its command is over before its machine says how it started. */
static void guest_profiled(void)
{
    char buf[64];

    say(CONTROL, "ready\n");
    say(OUT, "x");
    say(CONTROL, "exit 0 1 0 0\n");
    if (read(MACHINE, buf, sizeof(buf)) <= 0)
        _exit(99);
    say(MACHINE, "{\"result\": ");
    say(MACHINE, "{}}\n");
    wait_for_the_end();
}
static void guest_silent(void)
{
    say(CONTROL, "ready\n");
    wait_for_the_end();
}
static void guest_stubborn(void)
{
    signal(SIGINT, SIG_IGN);
    say(CONTROL, "ready\n");
    wait_for_the_end();
}
static void guest_error(void)
{
    say(CONTROL, "error 19 mount its root\n");
    wait_for_the_end();
}
static void guest_no_ports(void)
{
    say(SERIAL, "[    1.0] noise\r\n[    1.000001] bothy-init: 0 find its ports\r\n");
    _exit(EXIT_BOTHY);
}
static void guest_nonsense(void)
{
    say(CONTROL, "exit 0 0 0 0\n");
    wait_for_the_end();
}
static void guest_panic(void)
{
    say(CONTROL, "ready\n");
    say(OUT, "said before");
    say(LOG, "[    5.000000] fine\n");
    say(SERIAL, "[    6.000000] Kernel panic - not syncing: because\r\n[    6.1");
    _exit(EXIT_CRASHED);
}
static void guest_powers_off(void)
{
    say(CONTROL, "ready\n");
    _exit(0);
}
static void guest_quits(void)
{
    say(CONTROL, "ready\n");
    _exit(EXIT_INTERRUPTED);
}
/* It passes, and the machine finds afterwards what its kernel said. */
static void guest_warns(void)
{
    sigset_t end;
    int sig;

    sigemptyset(&end);
    sigaddset(&end, SIGINT);
    sigprocmask(SIG_BLOCK, &end, NULL);
    say(CONTROL, "ready\nexit 0 0 0 0\n");
    sigwait(&end, &sig);
    say(STDERR_FILENO, "bothy run: the guest's kernel says: WARNING: f\n");
    _exit(EXIT_CRASHED);
}
static void guest_cannot_start(void)
{
    say(STDERR_FILENO, "bothy: a warning\nbothy run: /dev/kvm: it is not there\n");
    _exit(EXIT_BOTHY);
}
static void guest_dies(void)
{
    raise(SIGKILL);
}

static void guest_mute(void)
{
    wait_for_the_end();
}

/* What the machine was told after its configuration becomes its last words. */
static void leave_bundle(int sig)
{
    char words[4096];
    int fd = open("/proc/self/cmdline", O_RDONLY);
    ssize_t n = read(fd, words, sizeof(words) - 1);

    for (ssize_t i = 0; i < n; i++)
        if (!words[i])
            words[i] = ' ';
    words[n] = 0;
    dprintf(STDERR_FILENO, "bothy run: place %d%s; see there\n", sig, strstr(words, " --bundle"));
    _exit(EXIT_CRASHED);
}
static void guest_hangs(void)
{
    sigset_t quit;
    int sig;

    sigemptyset(&quit);
    sigaddset(&quit, SIGQUIT);
    sigprocmask(SIG_BLOCK, &quit, NULL);
    say(CONTROL, "ready\n");
    sigwait(&quit, &sig);
    leave_bundle(sig);
}
static void guest_panics_unnoticed(void)
{
    say(SERIAL, "KernKernel panic - not sync");
    say(SERIAL, "ing: Kernel\r\n");
    guest_hangs();
}
static void guest_crashes(void)
{
    say(CONTROL, "ready\n");
    say(LOG, "Kernel panic - not syncing: because\n");
    leave_bundle(0);
}

static const struct {
    const char *name;
    void (*play)(void);
} guests[] = {
    {"echo", guest_echo},
    {"killed", guest_killed},
    {"true", guest_true},
    {"kernel", guest_kernel},
    {"speaks", guest_speaks},
    {"serves", guest_serves},
    {"profiled", guest_profiled},
    {"silent", guest_silent},
    {"stubborn", guest_stubborn},
    {"error", guest_error},
    {"no ports", guest_no_ports},
    {"nonsense", guest_nonsense},
    {"panic", guest_panic},
    {"off", guest_powers_off},
    {"quits", guest_quits},
    {"warns", guest_warns},
    {"no start", guest_cannot_start},
    {"dies", guest_dies},
    {"mute", guest_mute},
    {"hangs", guest_hangs},
    {"crashes", guest_crashes},
    {"unnoticed", guest_panics_unnoticed},
};

static void play(void)
{
    const char *name = getenv("BOTHY_TEST_GUEST");

    for (size_t i = 0; i < array_len(guests); i++)
        if (!strcmp(guests[i].name, name))
            guests[i].play();
    _exit(98);
}

struct bench {
    struct test_run run;
    struct test_spec spec;
    struct config config;
    struct loop *loop;
    struct lane lane;
    bool over, slow, stuck, up, kept;
    unsigned ends;
    const char *input; /* what is left of it */
    size_t input_n, take;
    char text[TEST_STREAMS][1 << 20];
    size_t n[TEST_STREAMS];
};

static size_t output(struct test_run *r, enum test_stream s, const void *bytes, size_t n)
{
    struct bench *b = container_of(r, struct bench, run);

    if (b->stuck && s == TEST_OUT)
        return 0;
    if (b->slow && n > 1 && s == TEST_OUT)
        n /= 2;
    assert_true(b->n[s] + n <= sizeof(b->text[s]));
    memcpy(b->text[s] + b->n[s], bytes, n);
    b->n[s] += n;
    return n;
}

static void input(struct test_run *r)
{
    struct bench *b = container_of(r, struct bench, run);
    size_t took = b->input_n ? test_run_input(r, b->input, b->input_n) : 0;

    b->input += took;
    b->input_n -= took;
    if (!b->input_n)
        test_run_input(r, NULL, 0);
}

static void phase(struct test_run *r, enum test_phase p)
{
    if (p == TEST_COMMAND)
        container_of(r, struct bench, run)->up = true;
}

static void kept(struct test_run *r)
{
    container_of(r, struct bench, run)->kept = true;
}

static void ended(struct test_run *r)
{
    container_of(r, struct bench, run)->ends++;
}

static void done(struct test_run *r)
{
    container_of(r, struct bench, run)->over = true;
}

static struct bench *bench(const char *guest)
{
    static char *const command[] = {"command", NULL}, *const env[] = {NULL};
    struct bench *b = xcalloc(1, sizeof(*b));
    struct err err;

    b->run =
        (struct test_run){.output = output, .input = input, .phase = phase, .kept = kept, .ended = ended, .done = done};
    config_init(&b->config);
    b->config.kernel = xstrdup("/nowhere/kernel");
    b->spec = (struct test_spec){.name = "test",
                                 .config = &b->config,
                                 .command = command,
                                 .env = env,
                                 .root = "/",
                                 .cwd = "/",
                                 .hostname = "guest"};
    setenv("BOTHY_TEST_GUEST", guest, 1);
    assert_int_equal(loop_create("test", &b->loop, &err), 0);
    lane_init(&b->lane, b->loop);
    return b;
}

static void start(struct bench *b)
{
    struct err err;

    lane_lock(&b->lane);
    if (test_run_start(&b->run, &b->spec, &b->lane, &err) < 0)
        fail_msg("%s", err.msg);
    lane_unlock(&b->lane);
}

/* One that never ends is ended by the test's time limit. */
static void finish(struct bench *b)
{
    while (!b->over) {
        loop_once(b->loop, b->slow ? 0 : 1000);
        lane_lock(&b->lane);
        if (b->slow && !b->over)
            test_run_continue(&b->run, TEST_OUT);
        lane_unlock(&b->lane);
    }
    for (int i = 0; i < TEST_STREAMS; i++)
        assert_int_equal(b->run.result.bytes[i], b->n[i]);
}

static void tear_down(struct bench *b)
{
    lane_lock(&b->lane);
    test_run_fini(&b->run);
    lane_unlock(&b->lane);
    lane_fini(&b->lane);
    loop_destroy(b->loop);
    config_fini(&b->config);
    free(b);
}

static void echo(bool slow)
{
    static char text[300000];
    struct bench *b = bench("echo");

    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (char)(i * i >> 5);
    b->input = text;
    b->input_n = sizeof(text);
    b->slow = slow;
    b->spec.stdin_open = true;
    start(b);
    finish(b);
    assert_int_equal(b->run.result.outcome, TEST_FAIL);
    assert_int_equal(b->run.result.code, 7);
    assert_int_equal(b->n[TEST_OUT], sizeof(text));
    assert_memory_equal(b->text[TEST_OUT], text, sizeof(text));
    assert_string_equal(b->text[TEST_ERR], "aside");
    assert_string_equal(b->text[TEST_LOG], "[    1.000000] one\n[    2.500000] two\n[    2.600000] three\n");
    tear_down(b);
}

static void bytes_come_and_go_whole(void **state)
{
    (void)state;
    echo(false);
}

static void who_reads_slowly_loses_nothing(void **state)
{
    (void)state;
    echo(true);
}

static void every_end_is_told_from_the_others(void **state)
{
    static const struct {
        const char *guest;
        enum test_outcome outcome;
        int code, signal;
        const char *why;
    } cases[] = {
        {"true", TEST_PASS, 0, 0, ""},
        {"killed", TEST_FAIL, 139, 11, "signal 11"},
        {"error", TEST_ERROR, EXIT_BOTHY, 0, "cannot mount its root: No such device"},
        {"no ports", TEST_ERROR, EXIT_BOTHY, 0, "the guest cannot find its ports; no modules"},
        {"nonsense", TEST_ERROR, EXIT_BOTHY, 0, "never would"},
        {"panic", TEST_CRASH, EXIT_CRASHED, 0, "not syncing: because"},
        {"off", TEST_CRASH, EXIT_CRASHED, 0, "before its command ended"},
        {"quits", TEST_STOPPED, EXIT_INTERRUPTED, 0, "from outside"},
        {"warns", TEST_PASS, 0, 0, ""},
        {"no start", TEST_ERROR, EXIT_BOTHY, 0, "/dev/kvm: it is not there"},
        {"dies", TEST_ERROR, EXIT_BOTHY, 0, "signal 9"},
    };

    (void)state;
    for (size_t i = 0; i < array_len(cases); i++) {
        struct bench *b = bench(cases[i].guest);

        start(b);
        finish(b);
        assert_int_equal(b->run.result.outcome, cases[i].outcome);
        assert_int_equal(b->run.result.code, cases[i].code);
        assert_int_equal(b->run.result.signal, cases[i].signal);
        if (!strstr(b->run.result.why, cases[i].why))
            fail_msg("%s: %s", cases[i].guest, b->run.result.why);
        tear_down(b);
    }
}

static void what_the_kernel_said_last_counts(void **state)
{
    struct bench *b = bench("warns");

    (void)state;
    b->spec.fail_on = "warn";
    start(b);
    finish(b);
    assert_int_equal(b->run.result.outcome, TEST_CRASH);
    assert_int_equal(b->run.result.code, EXIT_CRASHED);
    assert_string_equal(b->run.result.why, "the guest crashed: the guest's kernel says: WARNING: f");
    tear_down(b);
}

static void the_log_of_a_crash_has_the_serial_ports_end(void **state)
{
    struct bench *b = bench("panic");

    (void)state;
    start(b);
    finish(b);
    assert_string_equal(b->text[TEST_OUT], "said before");
    assert_string_equal(b->text[TEST_LOG],
                        "[    5.000000] fine\n[    6.000000] Kernel panic - not syncing: because\n[    6.1");
    tear_down(b);
}

static void limits_of_time_end_it(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct bench *b = bench(i < 2 ? "silent" : "mute");

        *(i == 0 ? &b->spec.silence_ns : i == 1 ? &b->spec.total_ns : &b->spec.boot_ns) = NS_PER_SEC / 20;
        start(b);
        finish(b);
        assert_int_equal(b->run.result.outcome, TEST_TIMEOUT);
        assert_int_equal(b->run.result.code, EXIT_TIMEOUT);
        tear_down(b);
    }
}

/* Its command has ended well; but nobody knows, for nobody takes what it said. */
static void who_reads_nothing_does_not_keep_it(void **state)
{
    struct bench *b = bench("speaks");

    (void)state;
    b->stuck = true;
    b->spec.total_ns = NS_PER_SEC / 20;
    start(b);
    finish(b);
    assert_int_equal(b->run.result.outcome, TEST_TIMEOUT);
    tear_down(b);
}

static void a_kernel_that_tests_itself_may_start_something(void **state)
{
    struct bench *b = bench("kernel");

    (void)state;
    b->spec.kernel_only = true;
    start(b);
    finish(b);
    assert_int_equal(b->run.result.outcome, TEST_PASS);
    assert_string_equal(b->text[TEST_LOG], "[    1.000000] ok 1 itself\n");
    tear_down(b);
}

static void what_dies_or_hangs_leaves_a_bundle(void **state)
{
    static const char *const plays[] = {"hangs", "crashes", "unnoticed"},
                             *const whys[] = {
                                 "not a byte of output after 0 s; see there",
                                 "place 0 --bundle dir --core --lean-core --fail-on warn,oops ; see there",
                                 "KernKernel panic - not syncing: Kernel; see there",
                             };

    (void)state;
    for (size_t i = 0; i < array_len(plays); i++) {
        struct bench *b = bench(plays[i]);

        b->spec.bundle = "dir";
        b->spec.core = b->spec.lean_core = true;
        b->spec.fail_on = "warn,oops";
        b->spec.silence_ns = i ? 0 : NS_PER_SEC / 20;
        start(b);
        finish(b);
        assert_int_equal(b->run.result.outcome, i ? TEST_CRASH : TEST_TIMEOUT);
        assert_string_equal(b->run.result.why, whys[i]);
        assert_true(b->run.result.bundled);
        tear_down(b);
    }
}

/* Gives it a command with some of b->input, and waits until it has ended. */
static void command(struct bench *b, char *const *words, size_t n)
{
    unsigned ends = b->ends;

    lane_lock(&b->lane);
    assert_int_equal(test_run_command(&b->run, words, n), 0);
    if (n)
        n -= test_run_input(&b->run, b->input, n);
    lane_unlock(&b->lane);
    assert_int_equal(n, 0);
    while (b->ends == ends)
        loop_once(b->loop, 1000);
}

static void who_serves_runs_one_command_after_the_other(void **state)
{
    static char *const none[] = {NULL}, *const two[] = {"a", "word", NULL}, *const one[] = {"b", NULL};
    struct bench *b = bench("serves");

    (void)state;
    b->spec.serve = b->spec.stdin_open = true;
    b->spec.command = none;
    b->run.input = NULL;
    start(b);
    while (!b->up)
        loop_once(b->loop, 1000);
    b->input = "some input";
    command(b, two, 10);
    assert_int_equal(b->run.result.code, sizeof("arg=a") + sizeof("arg=word"));
    assert_int_equal(b->run.result.signal, 0);
    command(b, one, 0);
    assert_int_equal(b->run.result.signal, sizeof("arg=b"));
    command(b, one, 4);
    assert_memory_equal(b->text[TEST_OUT], "some inputsome", 14);
    assert_int_equal(b->n[TEST_OUT], 14);
    assert_false(b->over);
    lane_lock(&b->lane);
    test_run_diagnose(&b->run);
    lane_unlock(&b->lane);
    finish(b);
    assert_int_equal(b->run.result.outcome, TEST_CRASH);
    tear_down(b);
}

static void the_profile_is_waited_for(void **state)
{
    struct bench *b = bench("profiled");

    (void)state;
    b->spec.profile = true;
    start(b);
    assert_string_equal(b->config.control, "fd:11");
    assert_non_null(strstr(b->config.append.v[0], " initcall_debug"));
    finish(b);
    assert_int_equal(b->run.result.outcome, TEST_PASS);
    assert_string_equal(b->run.profile, "{\"result\": {}}\n");
    assert_true(b->run.result.byte_ns > 0);
    tear_down(b);
}

static void what_fails_is_kept(void **state)
{
    static const struct {
        const char *guest;
        enum test_outcome outcome;
    } cases[] = {{"killed", TEST_FAIL}, {"hangs", TEST_TIMEOUT}};
    struct bench *b = bench("true");

    (void)state;
    b->spec.keep = true;
    start(b);
    finish(b);
    assert_false(b->kept);
    tear_down(b);
    for (size_t i = 0; i < array_len(cases); i++) {
        b = bench(cases[i].guest);
        b->spec.keep = true;
        b->spec.bundle = "dir";
        b->spec.silence_ns = i ? NS_PER_SEC / 20 : 0; /* not before it is ready */
        start(b);
        while (!b->kept)
            loop_once(b->loop, 1000);
        assert_false(b->over);
        lane_lock(&b->lane);
        test_run_stop(&b->run, "enough");
        lane_unlock(&b->lane);
        finish(b);
        assert_int_equal(b->run.result.outcome, cases[i].outcome);
        assert_int_equal(b->run.result.bundled, i); /* as if it had ended when its time was up */
        tear_down(b);
    }
}

static void it_can_be_stopped_and_thrown_away(void **state)
{
    struct bench *b = bench("silent");

    (void)state;
    start(b);
    lane_lock(&b->lane);
    test_run_stop(&b->run, "enough");
    lane_unlock(&b->lane);
    finish(b);
    assert_int_equal(b->run.result.outcome, TEST_STOPPED);
    assert_string_equal(b->run.result.why, "enough");
    tear_down(b);

    b = bench("stubborn");
    start(b);
    assert_true(test_run_pid(&b->run) > 0);
    tear_down(b);
}

static void users_words_come_last(void **state)
{
    struct bench *b = bench("true");
    struct err err;

    (void)state;
    assert_int_equal(opts_set(config_opts, &b->config, "append", "loglevel=8", &err), 0);
    start(b);
    assert_non_null(strstr(b->config.append.v[0], "rdinit="));
    assert_string_equal(b->config.append.v[1], "loglevel=8");
    finish(b);
    tear_down(b);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_come_and_go_whole),
        cmocka_unit_test(who_reads_slowly_loses_nothing),
        cmocka_unit_test(every_end_is_told_from_the_others),
        cmocka_unit_test(the_log_of_a_crash_has_the_serial_ports_end),
        cmocka_unit_test(what_the_kernel_said_last_counts),
        cmocka_unit_test(limits_of_time_end_it),
        cmocka_unit_test(who_reads_nothing_does_not_keep_it),
        cmocka_unit_test(a_kernel_that_tests_itself_may_start_something),
        cmocka_unit_test(what_dies_or_hangs_leaves_a_bundle),
        cmocka_unit_test(who_serves_runs_one_command_after_the_other),
        cmocka_unit_test(the_profile_is_waited_for),
        cmocka_unit_test(what_fails_is_kept),
        cmocka_unit_test(it_can_be_stopped_and_thrown_away),
        cmocka_unit_test(users_words_come_last),
    };

    signal(SIGPIPE, SIG_IGN);
    if (argc > 1 && !strcmp(argv[1], "run"))
        play();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
