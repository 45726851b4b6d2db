#include "vmm/base/opt.h"
#include "vmm/base/test.h"

struct disk {
    char *path, *serial;
    bool ro;
    uint32_t queues, port, mode;
    uint64_t seed, size;
    struct opt_list tags;
};

static const char *const modes[] = {"direct", "buffered", NULL};
static const struct opt disk_opts[] = {
    O_STR(struct disk, path, "path", NULL, "image"),
    O_STR(struct disk, serial, "serial", "none", "serial number"),
    O_BOOL(struct disk, ro, "ro", "off", "read-only"),
    O_U32(struct disk, queues, "queues", "1", 1, 16, "how many queues"),
    O_U32(struct disk, port, "port", "0x3f8", 0, 0, "port"),
    O_U64(struct disk, seed, "seed", "0", 0, 0, "seed"),
    O_SIZE(struct disk, size, "size", "64K", KiB(4), GiB(16), "size"),
    O_ENUM(struct disk, mode, "mode", "buffered", modes, "how it is opened"),
    O_LIST(struct disk, tags, "tag", "words for people"),
    O_END,
};

struct window {
    uint32_t width;
};
static const struct opt window_opts[] = {
    O_U32(struct window, width, "width", NULL, 1, 0, "in pixels"),
    O_END,
};

struct screen {
    uint32_t size;
    char *title;
    struct opt_list flags;
};
static const struct opt screen_opts[] = {
    O_U32(struct screen, size, "size", NULL, 1, 0, "in inches"),
    O_STR(struct screen, title, "title", "none", "what it says"),
    O_LIST(struct screen, flags, "flag", "words"),
    O_END,
};

static struct opt_choice output(unsigned i)
{
    static const struct opt_choice outputs[] = {
        {"nowhere", "no output", NULL, 1},
        {"screen", "a screen", screen_opts, sizeof(struct screen), "title"},
        {.name = NULL},
    };

    return outputs[i];
}

struct player {
    bool loud;
    struct opt_chosen out;
};
static const struct opt player_opts[] = {
    O_BOOL(struct player, loud, "loud", "off", "is it"),
    O_CHOICE(struct player, out, "out", NULL, output, "where to"),
    O_END,
};

static int with_disk(void **s)
{
    static struct disk d;

    opts_default(disk_opts, &d);
    *s = &d;
    return 0;
}

static int clear_disk(void **s)
{
    opts_clear(disk_opts, *s);
    return 0;
}

#define assert_parses(d, text)                             \
    do {                                                   \
        struct err err_;                                   \
        if (opts_parse(disk_opts, d, "path", text, &err_)) \
            fail_msg("%s: %s", text, err_.msg);            \
    } while (0)

#define assert_refused(d, text, why)                                    \
    do {                                                                \
        struct err err_;                                                \
        assert_true(opts_parse(disk_opts, d, "path", text, &err_) < 0); \
        assert_string_equal(err_.msg, why);                             \
    } while (0)

static void defaults_come_from_the_table(void **s)
{
    struct disk *d = *s;

    assert_null(d->path);
    assert_string_equal(d->serial, "none");
    assert_false(d->ro);
    assert_int_equal(d->queues, 1);
    assert_int_equal(d->port, 0x3f8);
    assert_int_equal(d->size, 65536);
    assert_int_equal(d->mode, 1);
    assert_int_equal(d->tags.n, 0);
}

static void a_line_sets_what_it_names(void **s)
{
    struct disk *d = *s;

    assert_parses(d, "a.img,ro,queues=0x10,size=1.5M,mode=direct,tag=x,tag=y,seed=18446744073709551615");
    assert_string_equal(d->path, "a.img");
    assert_true(d->ro);
    assert_int_equal(d->queues, 16);
    assert_int_equal(d->size, 1536 << 10);
    assert_int_equal(d->mode, 0);
    assert_int_equal(d->seed, UINT64_MAX);
    assert_int_equal(d->tags.n, 2);
    assert_string_equal(d->tags.v[1], "y");
    assert_parses(d, "ro=off");
    assert_false(d->ro);
    assert_string_equal(d->path, "a.img");
    assert_parses(d, "");
    opts_default(disk_opts, d);
    assert_null(d->path);
}

static void a_doubled_comma_is_a_comma(void **s)
{
    struct disk *d = *s;

    assert_parses(d, "path=a,,b=c,serial=,,");
    assert_string_equal(d->path, "a,b=c");
    assert_string_equal(d->serial, ",");
    assert_parses(d, "x,,,ro");
    assert_string_equal(d->path, "x,");
    assert_true(d->ro);
    assert_parses(d, "serial=");
    assert_string_equal(d->serial, "");
}

static void mistakes_are_named_with_a_remedy(void **s)
{
    struct disk *d = *s;

    assert_refused(d, "pth=x", "unknown option \"pth\"; did you mean \"path\"?");
    assert_refused(d, "x,colour=red",
                   "unknown option \"colour\"; there is path, serial, ro, queues, port, seed, size, mode, tag");
    assert_refused(d, "size=12Q", "size \"12Q\" is not a size; write 512M or 4G");
    assert_refused(d, "size=1K", "size \"1K\" is out of range; it is 4K to 16G");
    assert_refused(d, "size=99999999999T", "size \"99999999999T\" is out of range; it is 4K to 16G");
    assert_refused(d, "queues=17", "queues \"17\" is out of range; it is 1 to 16");
    assert_refused(d, "queues=4294967297", "queues \"4294967297\" is out of range; it is 1 to 16");
    assert_refused(d, "port=4294967296", "port \"4294967296\" is out of range; it is 0 to 4294967295");
    assert_refused(d, "queues=two", "queues \"two\" is not a number; write 10 or 0x3f8");
    assert_refused(d, "queues=-1", "queues \"-1\" is not a number; write 10 or 0x3f8");
    assert_refused(d, "queues= 1", "queues \" 1\" is not a number; write 10 or 0x3f8");
    assert_refused(d, "queues=0x", "queues \"0x\" is not a number; write 10 or 0x3f8");
    assert_refused(d, "ro=yes", "ro \"yes\" is neither on nor off");
    assert_refused(d, "mode=dirct", "mode \"dirct\" is unknown; did you mean \"direct\"?");
    assert_refused(d, "mode=x", "mode \"x\" is unknown; there is direct, buffered");
    assert_refused(d, "a,path=b", "path is given twice");
    assert_refused(d, "a,queues", "queues needs a value; write queues=…");
    assert_refused(d, "a,", "\"a,\" has an empty option; write ,, for a comma in a value");
    assert_refused(d, "=1", "\"=1\" has an empty option; write ,, for a comma in a value");
}

static void a_number_without_default_is_required(void **s)
{
    struct window w;
    struct err err;

    (void)s;
    opts_default(window_opts, &w);
    assert_int_equal(opts_parse(window_opts, &w, NULL, "", &err), -EINVAL);
    assert_string_equal(err.msg, "width is missing; write width=…");
    assert_int_equal(opts_parse(window_opts, &w, NULL, "width=80", &err), 0);
    assert_int_equal(w.width, 80);
}

static void set_tells_unknown_from_bad(void **s)
{
    struct disk *d = *s;
    struct err err;

    assert_int_equal(opts_set(disk_opts, d, "sizes", "1", &err), -ENOENT);
    assert_int_equal(opts_set(disk_opts, d, "size", "1", &err), -EINVAL);
    assert_int_equal(opts_set(disk_opts, d, "size", "1", NULL), -EINVAL);
    assert_int_equal(d->size, 65536);
    assert_int_equal(opts_set(disk_opts, d, "path", "a,b", &err), 0);
    assert_string_equal(d->path, "a,b");
}

static void lists_are_bounded(void **s)
{
    struct disk *d = *s;
    struct err err;

    for (int i = 0; i < OPT_LIST_MAX; i++)
        assert_int_equal(opts_set(disk_opts, d, "tag", "x", &err), 0);
    assert_int_equal(opts_set(disk_opts, d, "tag", "x", &err), -EINVAL);
    assert_int_equal(opts_list(opts_find(disk_opts, "tag"), d)->n, OPT_LIST_MAX);
}

static void get_gives_what_set_takes(void **s)
{
    struct disk *d = *s, copy = {0};
    struct err err;
    char buf[32];

    assert_parses(d, "x,ro,queues=7,seed=123456789012,size=1.5G,mode=direct");
    assert_string_equal(opts_get(opts_find(disk_opts, "size"), d, buf, sizeof(buf)), "1536M");
    opts_default(disk_opts, &copy);
    for (const struct opt *o = disk_opts; o->name; o++) {
        const char *text = opts_get(o, d, buf, sizeof(buf));

        if (text)
            assert_int_equal(opts_set(disk_opts, &copy, o->name, text, &err), 0);
        else
            assert_int_equal(o->kind, OPT_LIST);
    }
    assert_string_equal(copy.path, "x");
    assert_true(copy.ro);
    assert_int_equal(copy.queues, 7);
    assert_int_equal(copy.seed, 123456789012);
    assert_int_equal(copy.size, GiB(3) / 2);
    assert_int_equal(copy.mode, 0);
    opts_clear(disk_opts, &copy);
    opts_default(disk_opts, &copy);
    assert_null(opts_get(opts_find(disk_opts, "path"), &copy, buf, sizeof(buf)));
    opts_clear(disk_opts, &copy);
}

static void sizes_are_exact_or_refused(void **s)
{
    static const struct {
        const char *text;
        int rc;
        uint64_t v;
    } cases[] = {
        {"0", 0, 0},
        {"512", 0, 512},
        {"64K", 0, 65536},
        {"64k", 0, 65536},
        {"0x10M", 0, MiB(16)},
        {"1.5G", 0, GiB(3) / 2},
        {"1.000000000000000000K", 0, 1024},
        {"0.5T", 0, GiB(512)},
        {"16777215T", 0, 16777215ull << 40},
        {"16777216T", -ERANGE, 0},
        {"18446744073709551615", 0, UINT64_MAX},
        {"18446744073709551616", -ERANGE, 0},
        {"1.3K", -EINVAL, 0},
        {"1.5", -EINVAL, 0},
        {"1.K", -EINVAL, 0},
        {".5K", -EINVAL, 0},
        {"1.0000000000000000000K", -EINVAL, 0},
        {"", -EINVAL, 0},
        {"K", -EINVAL, 0},
        {"-1K", -EINVAL, 0},
        {" 1K", -EINVAL, 0},
        {"1KB", -EINVAL, 0},
        {"1 K", -EINVAL, 0},
        {"1e3", -EINVAL, 0},
    };

    (void)s;
    for (size_t i = 0; i < array_len(cases); i++) {
        uint64_t v = 42;

        if (parse_size(cases[i].text, &v) != cases[i].rc || v != (cases[i].rc ? 42 : cases[i].v))
            fail_msg("%s", cases[i].text);
    }
}

static void the_nearest_word_is_near(void **s)
{
    static const char *const words[] = {"memory", "cpus", "initrd", "append", NULL};
    char longer[400];

    (void)s;
    assert_string_equal(nearest_word("memroy", words), "memory");
    assert_string_equal(nearest_word("mem", words), "memory");
    assert_string_equal(nearest_word("cpu", words), "cpus");
    assert_string_equal(nearest_word("intird", words), "initrd");
    assert_string_equal(nearest_word("appendd", words), "append");
    assert_null(nearest_word("kernel", words));
    assert_null(nearest_word("x", words));
    assert_null(nearest_word("", words));
    memset(longer, 'a', sizeof(longer));
    longer[sizeof(longer) - 1] = 0;
    assert_null(nearest_word(longer, words));
}

static int play(struct player *p, const char *text, struct err *err)
{
    opts_default(player_opts, p);
    return opts_parse(player_opts, p, "out", text, err);
}

static void a_choice_brings_options_of_its_own(void **s)
{
    struct player p = {.loud = false};
    struct screen *screen;
    const struct opt *more;
    void *obj;
    struct err err;

    (void)s;
    assert_int_equal(play(&p, "screen,loud,size=24,flag=a,flag=b", &err), 0);
    assert_string_equal(p.out.is.name, "screen");
    screen = p.out.obj;
    assert_true(p.loud);
    assert_int_equal(screen->size, 24);
    assert_string_equal(screen->title, "none");
    assert_int_equal(screen->flags.n, 2);
    more = opts_chosen(player_opts, &p, &obj);
    assert_ptr_equal(more, screen_opts);
    assert_ptr_equal(obj, screen);
    assert_string_equal(opts_get(&player_opts[1], &p, NULL, 0), "screen");
    assert_int_equal(opts_set(player_opts, &p, "title", "x", &err), 0);
    assert_string_equal(screen->title, "x");
    assert_int_equal(play(&p, "size=7,out=screen", &err), 0); /* in any order */
    assert_int_equal(((struct screen *)p.out.obj)->size, 7);
    assert_int_equal(play(&p, "screen=name,size=7", &err), 0);
    assert_string_equal(((struct screen *)p.out.obj)->title, "name");
    assert_int_equal(play(&p, "nowhere", &err), 0);
    assert_null(opts_chosen(player_opts, &p, &obj));
    opts_clear(player_opts, &p);
    assert_null(p.out.obj);
}

static void bad_choices_and_their_options_are_refused(void **s)
{
    static const struct {
        const char *text, *why;
    } rows[] = {
        {"", "out is missing; write out=…"},
        {"size=7", "out is missing; write out=…"},
        {"scren", "out \"scren\" is unknown; did you mean \"screen\"?"},
        {"screen", "size is missing; write size=…"},
        {"nowhere,size=7", "unknown option \"size\"; there is loud, out"},
        {"screen,siz=7", "unknown option \"siz\"; did you mean \"size\"?"},
        {"screen,size=7,size=8", "size is given twice"},
        {"screen,size=7,out=nowhere", "out is given twice"},
        {"nowhere=x", "out is missing; write out=…"},
        {"screen,size=x", "size \"x\" is not a number; write 10 or 0x3f8"},
    };
    struct player p = {.loud = false};
    struct err err;

    (void)s;
    for (size_t i = 0; i < array_len(rows); i++) {
        assert_true(play(&p, rows[i].text, &err) < 0);
        assert_string_equal(err.msg, rows[i].why);
    }
    opts_clear(player_opts, &p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(defaults_come_from_the_table, with_disk, clear_disk),
        cmocka_unit_test_setup_teardown(a_line_sets_what_it_names, with_disk, clear_disk),
        cmocka_unit_test_setup_teardown(a_doubled_comma_is_a_comma, with_disk, clear_disk),
        cmocka_unit_test_setup_teardown(mistakes_are_named_with_a_remedy, with_disk, clear_disk),
        cmocka_unit_test(a_number_without_default_is_required),
        cmocka_unit_test_setup_teardown(set_tells_unknown_from_bad, with_disk, clear_disk),
        cmocka_unit_test_setup_teardown(lists_are_bounded, with_disk, clear_disk),
        cmocka_unit_test_setup_teardown(get_gives_what_set_takes, with_disk, clear_disk),
        cmocka_unit_test(sizes_are_exact_or_refused),
        cmocka_unit_test(the_nearest_word_is_near),
        cmocka_unit_test(a_choice_brings_options_of_its_own),
        cmocka_unit_test(bad_choices_and_their_options_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
