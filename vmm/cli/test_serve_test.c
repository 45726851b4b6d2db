/* `bothy test --serve`, in a process that is this program again, as are its machines, which play guests. */
#include <dirent.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/base/base.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/file.h"
#include "vmm/base/test.h"
#include "vmm/cli/cli.h"

/* ---- The machine. ---- */

/* Descriptors, as runner/guest_config.h has them. */
enum { CONTROL = 5, STDIN, OUT, ERR };
enum { FILE_MAX = 8192, FLOOD = 3 << 20, MOMENT_US = 1000 };

static void say(int fd, const void *bytes, size_t n)
{
    while (n) {
        ssize_t r = write(fd, bytes, n);

        if (r <= 0)
            _exit(99);
        bytes = (const char *)bytes + r;
        n -= (size_t)r;
    }
}

/* Until it is asked how it is. */
static void hang(const sigset_t *quit)
{
    static const char words[] = "bothy run: it hangs; see there\n";
    int sig;

    sigwait(quit, &sig);
    say(STDERR_FILENO, words, sizeof(words) - 1);
    _exit(EXIT_CRASHED);
}

/* A command that writes `n` bytes; returns the code that it ends with. */
static unsigned play_command(const char *name, const char *second, const char *file, size_t file_n, size_t *n,
                             const sigset_t *quit)
{
    static char flood[FLOOD];

    *n = 0;
    if (!strcmp(name, "hang"))
        hang(quit);
    if (!strcmp(name, "die"))
        _exit(EXIT_CRASHED);
    if (!strcmp(name, "cat")) { /* of "--", "/x" or another */
        bool there = file_n && strstr(second + strlen(second) + 1, "/x");

        say(OUT, file, *n = there ? file_n : 1);
        return there ? 0 : 1;
    }
    if (!strcmp(name, "echo"))
        say(OUT, second, *n = strlen(second));
    if (!strcmp(name, "bytes"))
        for (unsigned b = 0; b < 256; b++)
            say(OUT, &(char){(char)b}, 1), ++*n;
    if (!strcmp(name, "flood"))
        say(OUT, flood, *n = sizeof(flood));
    return 0;
}

static void play(void)
{
    FILE *f = fdopen(dup(CONTROL), "r");
    char words[4096], file[FILE_MAX];
    size_t file_n = 0, all = 0, n;
    unsigned long len, input;
    sigset_t quit;

    sigemptyset(&quit);
    sigaddset(&quit, SIGQUIT);
    sigprocmask(SIG_SETMASK, &quit, NULL); /* who starts machines has blocked SIGINT */
    say(CONTROL, "ready\n", 6);
    while (fscanf(f, "run %lu %lu", &len, &input) == 2 && fgetc(f) == '\n' && fread(words, 1, len, f) == len) {
        const char *name = words + strlen("arg="), *second = name + strlen(name) + 1 + strlen("arg=");
        unsigned code;
        bool killed;

        if (!strcmp(name, "/bin/sh"))
            for (file_n = 0; file_n < input;) {
                ssize_t r = read(STDIN, file + file_n, min_u64(FILE_MAX, input) - file_n);

                if (r <= 0)
                    _exit(99);
                file_n += (size_t)r;
            }
        code = play_command(name, second, file, file_n, &n, &quit);
        all += n;
        killed = !strcmp(name, "kill");
        dprintf(CONTROL, "%s %u %zu 0 0\n", killed ? "signal" : "exit", killed ? SIGKILL : code, all);
    }
    _exit(98);
}

/* ---- The server and its clients. ---- */

static char dir[32], path[64];
static pid_t server;

struct client {
    FILE *in;
    int fd, asked;
    char out[FLOOD + 1]; /* what commands wrote */
    size_t n;
    char over[512]; /* why a guest is; empty: none is */
};
static struct client one, two;

static void client_connect(struct client *c)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    *c = (struct client){.fd = socket(AF_UNIX, SOCK_STREAM, 0)};
    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/socket", dir);
    while (connect(c->fd, (struct sockaddr *)&addr, sizeof(addr)))
        usleep(MOMENT_US); /* it has not come so far */
    c->in = fdopen(c->fd, "r");
}

static int set_up(void **s)
{
    char socket_word[64], bundle[64];

    (void)s;
    strcpy(dir, "/tmp/bothy-serve-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/kernel", dir);
    fclose(fopen(path, "w"));
    snprintf(socket_word, sizeof(socket_word), "unix:%s/socket", dir);
    snprintf(bundle, sizeof(bundle), "%s/dead", dir);
    server = fork();
    if (!server) {
        execl("/proc/self/exe", "bothy", "test", "-k", path, "-j2", "--bundle", bundle, "--serve", socket_word, NULL);
        _exit(97);
    }
    client_connect(&one);
    return 0;
}

static int tear_down(void **s)
{
    char command[64];
    int status;

    (void)s;
    fclose(one.in);
    kill(server, SIGTERM);
    assert_int_equal(waitpid(server, &status, 0), server);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), EXIT_INTERRUPTED);
    snprintf(path, sizeof(path), "%s/socket", dir);
    assert_int_equal(access(path, F_OK), -1);
    snprintf(command, sizeof(command), "rm -r %s", dir);
    return system(command);
}

static void keep_output(struct client *c, json_t *data)
{
    const uint8_t *p = (const uint8_t *)json_string_value(data), *end = p + json_string_length(data);

    while (p < end) {
        assert_true(c->n < sizeof(c->out) - 1);
        c->out[c->n++] = (char)(*p < 0x80 ? *p : (*p & 3) << 6 | (p[1] & 0x3f));
        p += *p < 0x80 ? 1 : 2;
    }
}

/* The answer to the last request, after all that came before; the caller's. */
static json_t *hear(struct client *c)
{
    char *line cleanup_free = NULL;
    size_t size = 0;

    while (getline(&line, &size, c->in) > 0) {
        json_t *m = json_loads(line, JSON_ALLOW_NUL, NULL);

        assert_non_null(m);
        if (json_integer_value(json_object_get(m, "id")) == c->asked)
            return m;
        keep_output(c, json_object_get(m, "data"));
        if (json_object_get(m, "why"))
            snprintf(c->over, sizeof(c->over), "%s", json_string_value(json_object_get(m, "why")));
        json_decref(m);
    }
    fail_msg("the server has gone");
    return NULL;
}

static void tell(struct client *c, const char *request)
{
    dprintf(c->fd, "{\"id\": %d, %s}\n", ++c->asked, request);
}

static void does(struct client *c, const char *request, const char *result)
{
    json_t *got, *want = json_loads(result, 0, NULL);

    tell(c, request);
    got = hear(c);
    if (!json_equal(json_object_get(got, "result"), want))
        fail_msg("%s: %s", request, json_dumps(got, 0));
    json_decref(got);
    json_decref(want);
}

static void fails(struct client *c, const char *request, const char *why)
{
    json_t *got;

    tell(c, request);
    got = hear(c);
    assert_string_equal(json_string_value(json_object_get(got, "error")), why);
    json_decref(got);
}

#define CREATE   "\"command\": \"create\""
#define VM(n, c) "\"vm\": " #n ", \"command\": \"" c "\""
#define RUN(...) VM(1, "run") ", \"argv\": [" __VA_ARGS__ "]"

static void commands_run_one_after_the_other(void **s)
{
    (void)s;
    does(&one, CREATE, "{\"vms\": [1]}");
    does(&one, RUN("\"echo\", \"hello\""), "{\"code\": 0}"); /* it may still boot */
    assert_string_equal(one.out, "hello");
    does(&one, RUN("\"kill\""), "{\"code\": 137, \"signal\": 9}");
    one.n = 0;
    does(&one, RUN("\"bytes\""), "{\"code\": 0}");
    assert_int_equal(one.n, 256);
    for (unsigned i = 0; i < 256; i++)
        assert_int_equal((uint8_t)one.out[i], i);
}

/* Names in a directory that begin as "back" does. */
static unsigned copies_in(const char *folder)
{
    DIR *d = opendir(folder);
    unsigned n = 0;

    for (struct dirent *e; (e = readdir(d));)
        n += !strncmp(e->d_name, "back", 4);
    closedir(d);
    return n;
}

static void files_are_copied(void **s)
{
    char text[512], *back cleanup_free = NULL;
    size_t n;

    (void)s;
    does(&one, CREATE, "{\"vms\": [1]}");
    snprintf(text, sizeof(text), VM(1, "get") ", \"from\": \"/x\", \"to\": \"%s/back\"", dir);
    fails(&one, text, "get: the guest's command for it ended with code 1; its standard error says why");
    snprintf(text, sizeof(text), "%s/back", dir);
    assert_int_equal(access(text, F_OK), -1);

    snprintf(text, sizeof(text), "%s/file", dir);
    FILE *f = fopen(text, "w");
    fprintf(f, "%*d", 5000, 1);
    fclose(f);
    snprintf(text, sizeof(text), VM(1, "put") ", \"from\": \"%s/file\", \"to\": \"/x\"", dir);
    does(&one, text, "{\"bytes\": 5000}");
    snprintf(text, sizeof(text), VM(1, "get") ", \"from\": \"/x\", \"to\": \"%s/back\"", dir);
    does(&one, text, "{\"bytes\": 5000}");
    snprintf(text, sizeof(text), "%s/back", dir);
    assert_int_equal(file_read(text, 10000, &back, &n), 0);
    assert_true(n == 5000 && back[4999] == '1');
    free(take_ptr(back));

    /* What fails leaves what was there, and nothing beside it. */
    snprintf(text, sizeof(text), VM(1, "get") ", \"from\": \"/y\", \"to\": \"%s/back\"", dir);
    fails(&one, text, "get: the guest's command for it ended with code 1; its standard error says why");
    snprintf(text, sizeof(text), "%s/back", dir);
    assert_int_equal(file_read(text, 10000, &back, &n), 0);
    assert_int_equal(n, 5000);
    assert_int_equal(copies_in(dir), 1);
    fails(&one, VM(1, "get") ", \"from\": \"/x\", \"to\": \"/dev/null\"",
          "get: \"/dev/null\" is no regular file; name another");
    fails(&one, VM(1, "put") ", \"from\": \"/\", \"to\": \"/x\"", "put: \"/\" is no regular file");
}

static void what_hangs_is_diagnosed_and_reset(void **s)
{
    char want[128];

    (void)s;
    does(&one, CREATE, "{\"vms\": [1]}");
    fails(&one, RUN("\"hang\"") ", \"timeout\": 1", "run: not ended in time; diagnose vm 1, reset it, or wait");
    fails(&one, RUN("\"echo\""), "vm 1 is busy with \"run\"; wait until that has ended, or reset it");
    snprintf(want, sizeof(want), "{\"bundle\": \"%s/dead/vm1-1\", \"why\": \"it hangs; see there\"}", dir);
    does(&one, VM(1, "diagnose"), want);
    assert_string_equal(one.over, "it hangs; see there");
    does(&one, VM(1, "diagnose"), want);
    fails(&one, RUN("\"echo\""), "vm 1 is over: it hangs; see there");
    does(&one, VM(1, "reset"), "{}");
    does(&one, RUN("\"echo\", \"back\""), "{\"code\": 0}");
    assert_string_equal(one.out, "back");
}

static void a_guest_that_dies_is_told(void **s)
{
    (void)s;
    does(&one, CREATE, "{\"vms\": [1]}");
    fails(&one, RUN("\"die\""), "vm 1 is over: the guest crashed");
    assert_string_equal(one.over, "the guest crashed");
    does(&one, VM(1, "destroy"), "{}");
    fails(&one, RUN("\"echo\""), "run: you have no vm 1");
}

static void guests_end_with_their_client(void **s)
{
    static const char full[] = "no room for a guest of 1 CPUs and 512 MiB beside the others; destroy one of them, or "
                               "start bothy with -j, which counts guests instead of CPUs";

    (void)s;
    fails(&one, CREATE ", \"count\": 3", full);
    fails(&one, CREATE ", \"machine\": {\"cpus\": 0}", "machine: cpus \"0\" is out of range; it is 1 to 4096");
    client_connect(&two);
    does(&two, CREATE ", \"count\": 2", "{\"vms\": [5, 6]}");
    fails(&one, CREATE, full);
    fails(&one, VM(5, "reset"), "reset: you have no vm 5");
    fclose(two.in);
    /* That it is gone is seen in a moment. */
    for (bool there = true; there;) {
        json_t *got;

        tell(&one, CREATE);
        got = hear(&one);
        there = !json_object_get(got, "result");
        json_decref(got);
    }
}

/* Its guest waits; others do not. */
static void who_does_not_read_loses_nothing(void **s)
{
    (void)s;
    does(&one, CREATE, "{\"vms\": [1]}");
    tell(&one, RUN("\"flood\""));
    client_connect(&two);
    does(&two, CREATE, "{\"vms\": [2]}");
    does(&two, VM(2, "run") ", \"argv\": [\"echo\", \"x\"]", "{\"code\": 0}");
    fclose(two.in);
    json_decref(hear(&one));
    assert_int_equal(one.n, FLOOD);
}

#define with_server(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        with_server(commands_run_one_after_the_other),  with_server(files_are_copied),
        with_server(what_hangs_is_diagnosed_and_reset), with_server(a_guest_that_dies_is_told),
        with_server(guests_end_with_their_client),      with_server(who_does_not_read_loses_nothing),
    };

    if (argc > 1 && !strcmp(argv[1], "run"))
        play();
    if (argc > 1 && !strcmp(argv[1], "test"))
        return cli_main(argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
