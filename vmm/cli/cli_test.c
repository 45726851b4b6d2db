#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"
#include "vmm/cli/cli.h"

struct toy {
    char *kernel;
    uint64_t memory;
    uint32_t cpus, board;
    bool quiet, keep, reboot;
    struct opt_list disks;
};

static const char *const boards[] = {"pci", "mmio", NULL};

static const struct opt toy_opts[] = {
    O_STR(struct toy, kernel, "kernel", NULL, "kernel to boot", .letter = 'k', .arg = "FILE"),
    O_SIZE(struct toy, memory, "memory", "256M", 1, GiB(64), "RAM", .letter = 'm'),
    O_U32(struct toy, cpus, "cpus", "1", 1, 64, "CPUs", .letter = 'c'),
    O_ENUM(struct toy, board, "machine", "pci", boards, "board"),
    O_BOOL(struct toy, quiet, "quiet", "off", "say less", .letter = 'q'),
    O_BOOL(struct toy, keep, "keep-going", "off", "do not stop", .letter = 'K'),
    O_BOOL(struct toy, reboot, "reboot", "on", "start anew"),
    O_LIST(struct toy, disks, "disk", "disk", .letter = 'd', .arg = "FILE"),
    O_END,
};

static int toy_run(struct cli_line *l, struct err *err)
{
    const struct toy *t = l->opts;

    if (t->quiet)
        return err_set(err, ENOENT, "no kernel; give one with --kernel FILE");
    return (int)t->cpus;
}

static const struct cli_verb toy = {
    .name = "toy",
    .summary = "play",
    .args = "[FILE] [FILE]",
    .max_args = 2,
    .text =
        "First paragraph.\n\n  bothy toy -m1G\n\nLast one, which is long enough that it must be broken at the column "
        "where lines of help end.",
    .opts = toy_opts,
    .size = sizeof(struct toy),
    .run = toy_run,
};

static int bare_run(struct cli_line *l, struct err *err)
{
    (void)l;
    (void)err;
    puts("bare");
    return 0;
}

static const struct cli_verb bare = {.name = "bare", .summary = "do nothing", .run = bare_run};

static const struct cli_verb bunch_play = {
    .name = "bunch play",
    .summary = "play, too",
    .max_args = 1,
    .opts = toy_opts,
    .size = sizeof(struct toy),
    .run = toy_run,
    .fail_code = 3,
};

static const struct cli_verb bunch = {
    .name = "bunch", .summary = "things to do", .verbs = (const struct cli_verb *const[]){&bunch_play, NULL}};

/* These stand in for the real table, which the linker then leaves in its library. */
const struct cli_verb *const cli_verbs[] = {&toy, &bare, &bunch, NULL};

enum { WORDS = 12 };

struct line {
    struct cli_line l;
    struct toy t;
    char *args[WORDS];
    struct err err;
};

static int parse(struct line *x, char *const *words)
{
    x->l = (struct cli_line){.verb = &toy, .words = words, .opts = &x->t, .args = x->args};
    opts_default(toy_opts, &x->t);
    return cli_parse(&x->l, &x->err);
}

#define PARSE(x, ...) parse(x, (char *[WORDS]){__VA_ARGS__})

static void long_and_short_forms_mean_the_same(void **s)
{
    static char *const forms[][3] = {
        {"-m1G"}, {"-m", "1G"}, {"--memory=1G"}, {"--memory", "1G"}, {"-qm1G"}, {"-qKm", "1G"},
    };

    (void)s;
    for (size_t i = 0; i < array_len(forms); i++) {
        struct line x = {0};

        assert_int_equal(parse(&x, forms[i]), 0);
        assert_int_equal(x.t.memory, GiB(1));
        assert_int_equal(x.t.quiet, i >= 4);
        assert_int_equal(x.t.keep, i >= 5);
        assert_int_equal(x.l.nargs, 0);
        opts_clear(toy_opts, &x.t);
    }
}

static void lists_keep_every_mention_in_order(void **s)
{
    struct line x = {0};

    (void)s;
    assert_int_equal(PARSE(&x, "-da", "--disk", "b", "--disk=c=d,ro"), 0);
    assert_int_equal(x.t.disks.n, 3);
    assert_string_equal(x.t.disks.v[0], "a");
    assert_string_equal(x.t.disks.v[1], "b");
    assert_string_equal(x.t.disks.v[2], "c=d,ro");
    opts_clear(toy_opts, &x.t);
}

static void arguments_mix_with_options_until_two_dashes(void **s)
{
    struct line x = {0};

    (void)s;
    assert_int_equal(PARSE(&x, "-", "-c3", "--", "-c4"), 0);
    assert_int_equal(x.t.cpus, 3);
    assert_int_equal(x.l.nargs, 2);
    assert_string_equal(x.args[0], "-");
    assert_string_equal(x.args[1], "-c4");
    assert_null(x.args[2]);
    opts_clear(toy_opts, &x.t);
}

static void values_may_look_like_options_or_be_empty(void **s)
{
    struct line x = {0};

    (void)s;
    assert_int_equal(PARSE(&x, "-k", "--help", "-d", "", "--disk="), 0);
    assert_string_equal(x.t.kernel, "--help");
    assert_int_equal(x.t.disks.n, 2);
    assert_string_equal(x.t.disks.v[1], "");
    opts_clear(toy_opts, &x.t);
}

static void switches_take_a_value_only_after_an_equals_sign(void **s)
{
    struct line x = {0};

    (void)s;
    assert_int_equal(PARSE(&x, "--quiet=off", "--keep-going", "off"), 0);
    assert_false(x.t.quiet);
    assert_true(x.t.keep);
    assert_string_equal(x.args[0], "off");
    opts_clear(toy_opts, &x.t);
}

static void switches_are_turned_off_by_no(void **s)
{
    struct line x = {0};

    (void)s;
    assert_int_equal(PARSE(&x, "-q"), 0);
    assert_true(x.t.reboot);
    opts_clear(toy_opts, &x.t);
    assert_int_equal(PARSE(&x, "--no-reboot", "--no-quiet"), 0);
    assert_false(x.t.reboot);
    assert_false(x.t.quiet);
    opts_clear(toy_opts, &x.t);
}

static void a_second_pass_goes_over_what_a_file_set(void **s)
{
    struct line x = {0};

    (void)s;
    assert_int_equal(PARSE(&x, "-c2", "-dx", "img"), 0);
    opts_default(toy_opts, &x.t);
    x.t.cpus = 7;
    x.t.memory = GiB(3);
    assert_int_equal(cli_parse(&x.l, &x.err), 0);
    assert_int_equal(x.t.cpus, 2);
    assert_int_equal(x.t.memory, GiB(3));
    assert_int_equal(x.t.disks.n, 1);
    assert_int_equal(x.l.nargs, 1);
    opts_clear(toy_opts, &x.t);
}

static void every_mistake_is_one_line_with_the_remedy(void **s)
{
    static const struct {
        char *words[4];
        const char *msg;
    } cases[] = {
        {{"--memry", "1G"}, "unknown option \"--memry\"; did you mean \"--memory\"?"},
        {{"--memry=1G"}, "unknown option \"--memry\"; did you mean \"--memory\"?"},
        {{"--hepl"}, "unknown option \"--hepl\"; did you mean \"--help\"?"},
        {{"--zzzzzz"}, "unknown option \"--zzzzzz\"; \"bothy toy --help\" lists them"},
        {{"-z"}, "unknown option \"-z\"; \"bothy toy --help\" lists them"},
        {{"-qz"}, "unknown option \"-z\"; \"bothy toy --help\" lists them"},
        {{"--memory"}, "option \"--memory\" needs a value"},
        {{"-qm"}, "option \"--memory\" needs a value"},
        {{"-c1", "--cpus=2"}, "option \"--cpus\" is given twice"},
        {{"-qq"}, "option \"--quiet\" is given twice"},
        {{"--no-reboto"}, "unknown option \"--no-reboto\"; did you mean \"--no-reboot\"?"},
        {{"--no-memory"}, "unknown option \"--no-memory\"; \"bothy toy --help\" lists them"},
        {{"--no-quiet=on"}, "option \"--no-quiet\" takes no value"},
        {{"--no-quiet", "-q"}, "option \"--quiet\" is given twice"},
        {{"--help=yes"}, "option \"--help\" takes no value"},
        {{"a", "b", "c"}, "unexpected argument \"c\"; \"bothy toy --help\" lists what it takes"},
        {{"--="}, "unknown option \"--\"; \"bothy toy --help\" lists them"},
    };

    (void)s;
    for (size_t i = 0; i < array_len(cases); i++) {
        struct line x = {0};

        assert_true(parse(&x, cases[i].words) < 0);
        assert_string_equal(x.err.msg, cases[i].msg);
        opts_clear(toy_opts, &x.t);
    }
}

static void a_value_is_checked_by_its_row(void **s)
{
    struct line x = {0};

    (void)s;
    assert_int_equal(PARSE(&x, "-c", "65"), -EINVAL);
    assert_non_null(strstr(x.err.msg, "cpus \"65\" is out of range"));
    assert_int_equal(PARSE(&x, "--machine", "mmoi"), -EINVAL);
    assert_non_null(strstr(x.err.msg, "did you mean \"mmio\"?"));
    opts_clear(toy_opts, &x.t);
}

/* cli_main() with both streams caught; the text is the caller's. */
static int run(char **argv, char **out, char **msg)
{
    FILE *old_out = stdout, *old_err = stderr;
    size_t n, m;
    int code;

    stdout = open_memstream(out, &n);
    stderr = open_memstream(msg, &m);
    code = cli_main(argv);
    fclose(stdout);
    fclose(stderr);
    stdout = old_out;
    stderr = old_err;
    return code;
}

static void the_exit_code_is_the_verbs_or_125(void **s)
{
    static const struct {
        char *argv[5];
        int code;
        const char *out, *msg; /* beginnings */
    } cases[] = {
        {{"bothy", "bare"}, 0, "bare\n", ""},
        {{"bothy", "toy", "-c5"}, 5, "", ""},
        {{"bothy", "toy", "-q"}, EXIT_BOTHY, "", "bothy toy: no kernel; give one with --kernel FILE\n"},
        {{"bothy", "toy", "-x"}, EXIT_BOTHY, "", "bothy toy: unknown option \"-x\""},
        {{"bothy", "bare", "-x"}, EXIT_BOTHY, "", "bothy bare: unknown option \"-x\""},
        {{"bothy", "bare", "x"}, EXIT_BOTHY, "", "bothy bare: unexpected argument \"x\"; "},
        {{"bothy", "tyo"}, EXIT_BOTHY, "", "bothy: unknown verb \"tyo\"; did you mean \"toy\"?\n"},
        {{"bothy", "zzz"}, EXIT_BOTHY, "", "bothy: unknown verb \"zzz\"; \"bothy help\" lists them\n"},
        {{"bothy"}, EXIT_BOTHY, "", "Usage: bothy VERB"},
        {{"bothy", "--help"}, 0, "Usage: bothy VERB", ""},
        {{"bothy", "--version"}, 0, "bothy " BOTHY_VERSION "\n", ""},
        {{"bothy", "toy", "-q", "--help"}, 0, "Usage: bothy toy [OPTION]... [FILE] [FILE]\n", ""},
        {{"bothy", "toy", "-qh"}, 0, "Usage: bothy toy", ""},
        {{"bothy", "bare", "--help"}, 0, "Usage: bothy bare\n", ""},
        {{"bothy", "bunch", "play", "-c6"}, 6, "", ""},
        {{"bothy", "bunch", "play", "-1"}, 1, "", ""},
        {{"bothy", "bunch", "play", "-q"}, 3, "", "bothy bunch play: no kernel"},
        {{"bothy", "bunch", "plya"},
         EXIT_BOTHY,
         "",
         "bothy: unknown verb \"bunch plya\"; did you mean \"bunch play\"?\n"},
        {{"bothy", "bunch", "z"}, EXIT_BOTHY, "", "bothy: unknown verb \"bunch z\"; \"bothy help bunch\" lists them\n"},
        {{"bothy", "bunch"}, EXIT_BOTHY, "", "Usage: bothy bunch VERB"},
        {{"bothy", "bunch", "--help"}, 0, "Usage: bothy bunch VERB", ""},
        {{"bothy", "bunch", "-q", "play"}, EXIT_BOTHY, "", "bothy bunch: the verb comes before its options"},
    };

    (void)s;
    for (size_t i = 0; i < array_len(cases); i++) {
        cleanup_free char *out = NULL, *msg = NULL;

        assert_int_equal(run((char **)cases[i].argv, &out, &msg), cases[i].code);
        assert_memory_equal(out, cases[i].out, strlen(cases[i].out));
        assert_memory_equal(msg, cases[i].msg, strlen(cases[i].msg));
        assert_int_equal(!*out, !*cases[i].out);
        assert_int_equal(!*msg, !*cases[i].msg);
    }
}

static void a_full_disk_behind_standard_output_is_a_failure(void **s)
{
    cleanup_free char *msg = NULL;
    FILE *old_out = stdout, *old_err = stderr;
    size_t n;
    int code;

    (void)s;
    stdout = fopen("/dev/full", "w");
    stderr = open_memstream(&msg, &n);
    code = cli_main((char *[]){"bothy", "--version", NULL});
    fclose(stdout);
    fclose(stderr);
    stdout = old_out;
    stderr = old_err;
    assert_int_equal(code, EXIT_BOTHY);
    assert_string_equal(msg, "bothy: write to standard output: No space left on device\n");
}

static void help_shows_every_row_within_80_columns(void **s)
{
    static const char *const expected[] = {
        "\nPlay.\n",
        "\n  bothy toy -m1G\n",
        "\n  -k, --kernel FILE           kernel to boot\n",
        "\n  -m, --memory SIZE           RAM (default: 256M)\n",
        "\n      --machine pci|mmio      board (default: pci)\n",
        "\n  -q, --quiet                 say less\n",
        "\n      --[no-]reboot           start anew (default: on)\n",
        "\n  -d, --disk FILE             disk; may be repeated\n",
        "\n  -h, --help                  this text\n",
    };
    cleanup_free char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);

    (void)s;
    cli_print_help(f, &toy);
    fclose(f);
    for (size_t i = 0; i < array_len(expected); i++)
        assert_non_null(strstr(text, expected[i]));
    for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1)
        assert_true(end - line <= 80);
}

static void a_group_lists_its_verbs(void **s)
{
    cleanup_free char *text = NULL, *man = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);

    (void)s;
    cli_print_help(f, &bunch);
    fclose(f);
    assert_non_null(strstr(text, "\n  play                        play, too\n"));
    f = open_memstream(&man, &n);
    cli_print_man_verb(f, &bunch);
    fclose(f);
    assert_non_null(strstr(man, ".SS bothy bunch VERB\n"));
    assert_non_null(strstr(man, ".SS bothy bunch play [OPTION]...\n"));
}

static void the_manual_hides_nothing_from_roff(void **s)
{
    static const struct opt opts[] = {
        O_BOOL(struct toy, quiet, "dash-es", "off", ".starts with a dot, has \\ and 'quotes"),
        O_END,
    };
    static const struct cli_verb odd = {.name = "odd", .summary = "be odd", .opts = opts, .text = "'quoted line"};
    cleanup_free char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);

    (void)s;
    cli_print_man_verb(f, &odd);
    fclose(f);
    assert_non_null(strstr(text, "\n\\fB\\-\\-dash\\-es\\fR\n\\&.starts with a dot, has \\e and 'quotes.\n"));
    assert_non_null(strstr(text, "\n\\&'quoted line\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(long_and_short_forms_mean_the_same),
        cmocka_unit_test(lists_keep_every_mention_in_order),
        cmocka_unit_test(arguments_mix_with_options_until_two_dashes),
        cmocka_unit_test(values_may_look_like_options_or_be_empty),
        cmocka_unit_test(switches_take_a_value_only_after_an_equals_sign),
        cmocka_unit_test(switches_are_turned_off_by_no),
        cmocka_unit_test(a_second_pass_goes_over_what_a_file_set),
        cmocka_unit_test(every_mistake_is_one_line_with_the_remedy),
        cmocka_unit_test(a_value_is_checked_by_its_row),
        cmocka_unit_test(the_exit_code_is_the_verbs_or_125),
        cmocka_unit_test(a_full_disk_behind_standard_output_is_a_failure),
        cmocka_unit_test(help_shows_every_row_within_80_columns),
        cmocka_unit_test(a_group_lists_its_verbs),
        cmocka_unit_test(the_manual_hides_nothing_from_roff),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
