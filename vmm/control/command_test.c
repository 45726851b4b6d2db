#include "vmm/control/command.h"

#include "devices/testing/fake_machine.h"
#include "vmm/base/test.h"

static struct machine m;

static int setup(void **s)
{
    (void)s;
    fake_machine_init(&m);
    return 0;
}

static int teardown(void **s)
{
    (void)s;
    fake_machine_fini(&m);
    return 0;
}

/* Its one member is of that name; the value is the caller's. */
static json_t *ask(const char *line, const char *member)
{
    char *text = command_answer(&m, line, strlen(line));
    json_t *answer = json_loads(text, 0, NULL), *ret = json_object_get(answer, member);

    if (!ret || json_object_size(answer) != 1 || strchr(text, '\n'))
        fail_msg("%s: %s", line, text);
    json_incref(ret);
    json_decref(answer);
    free(text);
    return ret;
}

static void does(const char *line, const char *result)
{
    json_t *got = ask(line, "result"), *want = json_loads(result, 0, NULL);

    assert_true(json_equal(got, want));
    json_decref(got);
    json_decref(want);
}

static void fails(const char *line, const char *why)
{
    json_t *got = ask(line, "error");

    assert_string_equal(json_string_value(got), why);
    json_decref(got);
}

static void the_guest_is_paused_and_resumed(void **s)
{
    json_t *status;

    (void)s;
    does("{\"command\": \"pause\"}", "{}");
    assert_true(m.paused && !m.running);
    status = ask("{\"command\": \"status\"}", "result");
    assert_string_equal(json_string_value(json_object_get(status, "state")), "paused");
    assert_null(json_object_get(status, "reason"));
    json_decref(status);
    fails("{\"command\": \"powerdown\"}",
          "powerdown: bothy is paused, so it cannot power itself down; resume it first, or quit");
    assert_int_equal(m.requests[REQ_BUTTON], 0);
    m.start_fails = "no threads";
    fails("{\"command\": \"resume\"}", "resume: no threads");
    assert_true(m.paused);
    m.start_fails = NULL;
    does("{\"command\": \"resume\"}", "{}");
    assert_true(m.running && !m.paused);
}

static void a_reason_to_be_paused_is_told(void **s)
{
    json_t *status;

    (void)s;
    machine_pause(&m, "the disk is full");
    status = ask("{\"command\": \"status\"}", "result");
    assert_string_equal(json_string_value(json_object_get(status, "reason")), "failed");
    assert_string_equal(json_string_value(json_object_get(json_object_get(status, "devices"), "com1")), "uart");
    json_decref(status);
}

static void the_profile_is_told(void **s)
{
    (void)s;
    does("{\"command\": \"profile\"}", "{\"begun\": 1.0, \"made\": 0.001, \"loaded\": 0.003, \"entered\": 0.0035, "
                                       "\"exits\": {\"com1\": 5, \"INTR\": 2}}");
}

static void requests_reach_the_machine(void **s)
{
    (void)s;
    does("{\"command\": \"reset\"}", "{}");
    does("{\"command\": \"powerdown\"}", "{}");
    does("{\"command\": \"quit\"}", "{}");
    assert_int_equal(m.requests[REQ_RESET], 1);
    assert_int_equal(m.requests[REQ_BUTTON], 1);
    assert_int_equal(m.requests[REQ_QUIT], 1);
}

/* A device with a command of each kind. */

static int run_poke(struct device *d, const void *args, json_t *reply, struct err *err)
{
    (void)d;
    if (*(const uint32_t *)args == 9)
        return err_set(err, EIO, "it does not like \xff");
    json_object_set_new(reply, "running", json_boolean(m.running));
    return 0;
}

static const struct opt poke_opts[] = {{.name = "at", .help = "where", .kind = OPT_U32, .off = 0}, O_END};
static const struct device_command toy_commands[] = {
    {.name = "poke", .help = "a poke", .opts = poke_opts, .size = 4, .run = run_poke},
    {.name = "still-poke", .help = "a poke", .opts = poke_opts, .size = 4, .still = true, .run = run_poke},
    {.name = NULL},
};
static const struct device_class toy_class = {.name = "toy", .size = sizeof(struct device), .commands = toy_commands};

static void add_toy(void)
{
    struct device *d;
    struct err err;

    assert_int_equal(device_create(&toy_class, "toy0", "", &d, &err), 0);
    assert_int_equal(device_init(d, &m.e.env, m.e.env.loop, &err), 0);
    m.devices[m.ndevices++] = d;
}

static void devices_have_commands(void **s)
{
    json_t *help;

    (void)s;
    add_toy();
    does("{\"command\": \"toy0.poke\", \"at\": 3}", "{\"running\": true}");
    does("{\"command\": \"toy0.poke\", \"at\": \"0x10\"}", "{\"running\": true}");
    does("{\"command\": \"toy0.info\"}", "{\"class\": \"toy\", \"state\": {}}");
    help = ask("{\"command\": \"help\"}", "result");
    assert_string_equal(json_string_value(json_object_get(json_object_get(help, "toy0.poke"), "at")), "where");
    assert_non_null(json_object_get(help, "resume"));
    json_decref(help);
}

static void the_guest_stands_still_for_commands_that_need_it(void **s)
{
    (void)s;
    add_toy();
    does("{\"command\": \"toy0.still-poke\", \"at\": 3}", "{\"running\": false}");
    assert_true(m.running && m.stops == 1);
    fails("{\"command\": \"toy0.still-poke\", \"at\": 9}", "toy0.still-poke: it does not like ?");
    assert_true(m.running && m.stops == 2);
    machine_pause(&m, NULL);
    does("{\"command\": \"toy0.still-poke\", \"at\": 3}", "{\"running\": false}");
    assert_true(m.paused && !m.running);
    assert_int_equal(machine_resume(&m, NULL), 0);
    m.start_fails = "no threads";
    does("{\"command\": \"toy0.still-poke\", \"at\": 3}", "{\"running\": false}");
    assert_true(m.paused && m.why); /* it can be resumed later */
}

static void what_is_wrong_is_said_in_one_line(void **s)
{
    static const struct {
        const char *line, *why;
    } bad[] = {
        {"[]", "not an object; ask as in {\"command\": \"help\"}"},
        {"{}", "no \"command\"; ask as in {\"command\": \"help\"}"},
        {"{\"command\": 7}", "no \"command\"; ask as in {\"command\": \"help\"}"},
        {"{\"command\": \"statsu\"}", "unknown command \"statsu\"; did you mean \"status\"?"},
        {"{\"command\": \"xyzzy\"}", "unknown command \"xyzzy\"; \"help\" lists what there is"},
        {"{\"command\": \"\"}", "unknown command \"\"; \"help\" lists what there is"},
        {"{\"command\": \"com0.info\"}", "unknown device \"com0\"; did you mean \"com1\"?"},
        {"{\"command\": \".\"}", "unknown device \"\"; \"status\" lists what there is"},
        {"{\"command\": \"toy0.pike\"}", "unknown command of toy0 \"pike\"; did you mean \"poke\"?"},
        {"{\"command\": \"toy0.poke\"}", "toy0.poke: at is missing; write at=…"},
        {"{\"command\": \"toy0.poke\", \"at\": 1, \"to\": 2}", "toy0.poke: unknown option \"to\"; there is at"},
        {"{\"command\": \"toy0.poke\", \"at\": {}}", "\"at\" has a value that is no string, integer or boolean"},
        {"{\"command\": \"toy0.info\", \"at\": 1}", "toy0.info: it takes no arguments"},
        {"{\"command\": \"status\", \"at\": 1}", "status: it takes no arguments"},
    };

    (void)s;
    add_toy();
    for (size_t i = 0; i < array_len(bad); i++)
        fails(bad[i].line, bad[i].why);
}

static void what_is_no_json_is_refused(void **s)
{
    enum { DEEP = 30000 };
    static const char *const rubbish[] = {"",
                                          "{",
                                          "\xff\xfe",
                                          "{\"command\": \"status\"} x",
                                          "{\"command\": \"status\", \"command\": \"quit\"}",
                                          "{\"command\": \"a\\u0000b\"}",
                                          "{\"command\": 99999999999999999999999999}"};
    char deep[DEEP + 1];

    (void)s;
    for (size_t i = 0; i < array_len(rubbish); i++)
        json_decref(ask(rubbish[i], "error"));
    memset(deep, '[', DEEP);
    deep[DEEP] = 0;
    json_decref(ask(deep, "error"));
    for (unsigned i = 0; i < REQ_COUNT; i++)
        assert_int_equal(m.requests[i], 0);
}

#define with_machine(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_machine(the_guest_is_paused_and_resumed),
        with_machine(a_reason_to_be_paused_is_told),
        with_machine(the_profile_is_told),
        with_machine(requests_reach_the_machine),
        with_machine(devices_have_commands),
        with_machine(the_guest_stands_still_for_commands_that_need_it),
        with_machine(what_is_wrong_is_said_in_one_line),
        with_machine(what_is_no_json_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
