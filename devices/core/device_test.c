#include "devices/core/device.h"
#include "vmm/base/test.h"

/* A device that writes down what happens to it. */
struct diary {
    struct device dev;
    char *path;
    bool fails;
    struct device_hook hook;
    struct work work;
    struct {
        uint32_t reg;
    } s;
    struct part {
        uint16_t index;
    } parts[2];
};

static char story[64];

static void tell(struct device *d, char what)
{
    size_t n = strlen(story);

    assert_int_equal(pthread_mutex_trylock(&d->lane.lock), EBUSY); /* always in the lane */
    assert_true(n + 1 < sizeof(story));
    story[n] = what;
    story[n + 1] = 0;
}

static void tell_hook(struct device_hook *h, char what)
{
    tell(&container_of(h, struct diary, hook)->dev, what);
}

static void hook_reset(struct device_hook *h)
{
    tell_hook(h, 'R');
}

static void hook_stop(struct device_hook *h)
{
    tell_hook(h, 'P');
}

static void diary_done(struct work *w, int ret)
{
    (void)ret;
    tell(&container_of(w, struct diary, work)->dev, 'd');
}

static int part_check(void *obj, struct err *err)
{
    struct part *p = obj;

    return p->index > 9 ? err_set(err, EINVAL, "index %u", p->index) : 0;
}

static const struct field diary_fields[] = {{"reg", FIELD_UINT, 0, 4, 1, NULL}, F_END};
static const struct state_desc diary_desc = {"diary", 1, 4, diary_fields, NULL};
static const struct field part_fields[] = {F_U16(struct part, index), F_END};
static const struct state_desc part_desc = {"part", 1, sizeof(struct part), part_fields, part_check};

static int diary_init(struct device *d, struct err *err)
{
    struct diary *y = container_of(d, struct diary, dev);

    tell(d, 'i');
    y->work = (struct work){.lane = &d->lane, .done = diary_done};
    y->hook = (struct device_hook){.reset = hook_reset, .stop = hook_stop};
    device_add_hook(d, &y->hook);
    device_add_state(d, "", &diary_desc, &y->s, 1);
    device_add_state(d, "part", &part_desc, y->parts, 2);
    return y->fails ? err_set(err, ENOENT, "asked to fail") : 0;
}

static void diary_fini(struct device *d)
{
    tell(d, 'f');
}

static void diary_reset(struct device *d)
{
    struct diary *y = container_of(d, struct diary, dev);

    tell(d, 'r');
    y->s.reg = 7;
    y->parts[0].index = y->parts[1].index = 0;
}

static void diary_settle(struct device *d)
{
    tell(d, 's');
}

static void diary_start(struct device *d)
{
    tell(d, 'a');
}

static void diary_stop(struct device *d)
{
    tell(d, 'p');
    work_post(&container_of(d, struct diary, dev)->work);
}

static const struct opt diary_opts[] = {
    O_STR(struct diary, path, "path", NULL, "a file"),
    O_BOOL(struct diary, fails, "fails", "off", "init fails"),
    O_END,
};

struct write_args {
    uint32_t reg;
};
static const struct opt write_opts[] = {O_U32(struct write_args, reg, "reg", NULL, 0, 9, "the new value"), O_END};

static int diary_write(struct device *d, const void *args, json_t *reply, struct err *err)
{
    struct diary *y = container_of(d, struct diary, dev);

    (void)err;
    tell(d, 'w');
    json_object_set_new(reply, "before", json_integer(y->s.reg));
    y->s.reg = ((const struct write_args *)args)->reg;
    return 0;
}

static const struct device_command diary_commands[] = {
    {.name = "write", .help = "a value", .opts = write_opts, .size = sizeof(struct write_args), .run = diary_write},
    {.name = NULL},
};

static json_t *diary_info(struct device *d)
{
    tell(d, 'n');
    return json_pack("{s:i}", "pages", 12);
}

static const struct device_class diary_class = {
    .name = "diary",
    .size = DEVICE_SIZE(struct diary, dev),
    .opts = diary_opts,
    .first = "path",
    .init = diary_init,
    .fini = diary_fini,
    .reset = diary_reset,
    .settle = diary_settle,
    .start = diary_start,
    .stop = diary_stop,
    .commands = diary_commands,
    .info = diary_info,
};
static const struct device_class bare_class = {.name = "bare", .size = sizeof(struct device)};

static struct device_env env;

static int with_env(void **s)
{
    struct err err;

    (void)s;
    story[0] = 0;
    return loop_create("test", &env.loop, &err);
}

static int without_env(void **s)
{
    (void)s;
    loop_destroy(env.loop);
    return 0;
}

static struct device *born(const struct device_class *cls, const char *options)
{
    struct device *d;
    struct err err;

    if (device_create(cls, "dev0", options, &d, &err) || device_init(d, &env, env.loop, &err))
        fail_msg("%s", err.msg);
    return d;
}

static void a_life_runs_in_order_hooks_first_in_the_lane(void **s)
{
    struct device *d = born(&diary_class, "");

    (void)s;
    device_reset(d);
    device_settle(d);
    device_start(d);
    device_stop(d);
    device_destroy(d);
    assert_string_equal(story, "iRrsaPpdf");
    device_destroy(NULL);
}

static void callbacks_may_be_missing(void **s)
{
    struct device *d = born(&bare_class, "");

    (void)s;
    device_reset(d);
    device_settle(d);
    device_start(d);
    device_stop(d);
    device_destroy(d);
}

static void options_are_parsed_before_init(void **s)
{
    struct device *d = born(&diary_class, "a.img");
    struct err err;

    (void)s;
    assert_string_equal(container_of(d, struct diary, dev)->path, "a.img");
    device_destroy(d);
    story[0] = 0;
    assert_int_equal(device_create(&diary_class, "dev0", "pth=x", &d, &err), -ENOENT);
    assert_string_equal(err.msg, "unknown option \"pth\"; did you mean \"path\"?");
    assert_int_equal(device_create(&bare_class, "dev0", "path=x", &d, &err), -ENOENT);
    assert_string_equal(story, "");
}

static void a_failed_init_is_finished(void **s)
{
    struct device *d;
    struct err err;

    (void)s;
    assert_int_equal(device_create(&diary_class, "dev0", "fails=on", &d, &err), 0);
    assert_int_equal(device_init(d, &env, env.loop, &err), -ENOENT);
    device_destroy(d);
    assert_string_equal(story, "if");
}

static void names_are_checked(void **s)
{
    static const char *const bad[] = {"", "a.b", "a b", "../x", "a\n", "0123456789012345678901234567890x"};
    struct device *d;
    struct err err;

    (void)s;
    for (size_t i = 0; i < array_len(bad); i++)
        assert_int_equal(device_create(&bare_class, bad[i], "", &d, &err), -EINVAL);
    assert_int_equal(device_create(&bare_class, "0123456789012345678901234567890", "", &d, &err), 0);
    device_destroy(d);
}

static void all_parts_are_saved_and_loaded_over_a_reset(void **s)
{
    struct device *a = born(&diary_class, ""), *b = born(&diary_class, "");
    struct diary *ya = container_of(a, struct diary, dev), *yb = container_of(b, struct diary, dev);
    struct state_writer w = {0};
    struct state_reader r;
    struct err err;

    (void)s;
    ya->s.reg = 0x12345678;
    ya->parts[0].index = 1;
    ya->parts[1].index = 2;
    device_save(a, &w);
    r = (struct state_reader){.buf = w.buf, .len = w.len};
    story[0] = 0;
    assert_int_equal(device_load(b, &r, &err), 0);
    assert_string_equal(story, "Rr");
    assert_int_equal(r.off, r.len);
    assert_int_equal(yb->s.reg, 0x12345678);
    assert_int_equal(yb->parts[0].index, 1);
    assert_int_equal(yb->parts[1].index, 2);
    state_writer_fini(&w);
    ya->parts[1].index = 10;
    device_save(a, &w);
    r = (struct state_reader){.buf = w.buf, .len = w.len};
    assert_int_equal(device_load(b, &r, &err), -EBADMSG);
    assert_string_equal(err.msg, "dev0.part1: index 10");
    state_writer_fini(&w);
    device_destroy(a);
    device_destroy(b);
}

static void info_has_every_part_and_what_the_class_adds(void **s)
{
    struct device *d = born(&diary_class, "");
    struct diary *y = container_of(d, struct diary, dev);
    json_t *info, *want;

    (void)s;
    y->s.reg = 7;
    y->parts[1].index = 3;
    info = device_info(&y->dev);
    want = json_pack("{s:s, s:i, s:{s:{s:i}, s:[{s:i}, {s:i}]}}", "class", "diary", "pages", 12, "state", "diary",
                     "reg", 7, "part", "index", 0, "index", 3);
    assert_true(json_equal(info, want));
    json_decref(info);
    json_decref(want);
    device_destroy(d);
}

static void commands_get_their_arguments_checked_in_the_lane(void **s)
{
    struct device *d = born(&diary_class, "");
    struct diary *y = container_of(d, struct diary, dev);
    const struct device_command *cmd = device_command_find(&y->dev, "write");
    json_t *reply = json_object();
    struct err err;

    (void)s;
    assert_non_null(cmd);
    assert_null(device_command_find(&y->dev, "writ"));
    assert_int_equal(device_command_run(&y->dev, cmd, "reg=5", reply, &err), 0);
    assert_int_equal(y->s.reg, 5);
    assert_int_equal(json_integer_value(json_object_get(reply, "before")), 0);
    assert_int_equal(device_command_run(&y->dev, cmd, "", reply, &err), -EINVAL);
    assert_int_equal(device_command_run(&y->dev, cmd, "rag=5", reply, &err), -ENOENT);
    assert_int_equal(y->s.reg, 5);
    json_decref(reply);
    device_destroy(d);
}

static void classes_are_found_by_name(void **s)
{
    (void)s;
    for (const struct device_class *const *c = device_classes; *c; c++) {
        assert_ptr_equal(device_class_find((*c)->name), *c); /* so names are unique, too */
        assert_non_null((*c)->summary);
    }
    assert_non_null(device_classes[0]);
    assert_null(device_class_find("no-such-device"));
}

#define with_loop(test) cmocka_unit_test_setup_teardown(test, with_env, without_env)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_loop(a_life_runs_in_order_hooks_first_in_the_lane),
        with_loop(callbacks_may_be_missing),
        with_loop(options_are_parsed_before_init),
        with_loop(a_failed_init_is_finished),
        with_loop(names_are_checked),
        with_loop(all_parts_are_saved_and_loaded_over_a_reset),
        with_loop(info_has_every_part_and_what_the_class_adds),
        with_loop(commands_get_their_arguments_checked_in_the_lane),
        cmocka_unit_test(classes_are_found_by_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
