#include "vmm/cli/serve_request.h"

#include "vmm/base/test.h"

static struct serve_request q;

static void parse(const char *line)
{
    struct err err = {.msg = ""};

    if (serve_request_parse(line, strlen(line), &q, &err) < 0)
        fail_msg("%s: %s", line, err.msg);
}

static void fails(const char *line, const char *why)
{
    struct err err = {.msg = ""};

    assert_true(serve_request_parse(line, strlen(line), &q, &err) < 0);
    assert_string_equal(err.msg, why);
    serve_request_clear(&q);
}

static void requests_are_understood(void **s)
{
    (void)s;
    parse(
        "{\"id\": -5, \"command\": \"create\", \"count\": 3, \"machine\": {\"cpus\": 2, \"append\": [\"a\", \"b\"]}}");
    assert_true(q.verb == SERVE_CREATE && q.has_id && q.id == -5 && q.count == 3);
    assert_string_equal(q.machine, "{\"cpus\":2,\"append\":[\"a\",\"b\"]}");
    serve_request_clear(&q);

    parse("{\"command\": \"create\"}");
    assert_true(!q.has_id && q.count == 1 && !q.machine);
    serve_request_clear(&q);

    parse("{\"command\": \"run\", \"vm\": 7, \"timeout\": 10, \"argv\": [\"sh\", \"-c\", \"echo a, b\"]}");
    assert_true(q.verb == SERVE_RUN && q.vm == 7 && q.timeout == 10);
    assert_string_equal(q.argv[0], "sh");
    assert_string_equal(q.argv[2], "echo a, b");
    assert_null(q.argv[3]);
    serve_request_clear(&q);

    parse("{\"command\": \"put\", \"vm\": 1, \"from\": \"a,b=c\", \"to\": \"/d\"}");
    assert_true(q.verb == SERVE_PUT && !q.timeout);
    assert_string_equal(q.from, "a,b=c");
    assert_string_equal(q.to, "/d");
    serve_request_clear(&q);
}

static void what_is_wrong_is_said_in_one_line(void **s)
{
    static const struct {
        const char *line, *why;
    } bad[] = {
        {"{", "not JSON: string or '}' expected near end of file"},
        {"[]", "not an object; ask as in {\"command\": \"create\"}"},
        {"{}", "no \"command\"; ask as in {\"command\": \"create\"}"},
        {"{\"command\": \"rest\"}", "unknown command \"rest\"; did you mean \"reset\"?"},
        {"{\"command\": \"xyzzy\"}",
         "unknown command \"xyzzy\"; there are create, run, put, get, diagnose, reset and destroy"},
        {"{\"command\": \"reset\"}", "reset: vm is missing; write vm=…"},
        {"{\"command\": \"reset\", \"vm\": 0}", "reset: vm \"0\" is out of range; it is 1 to 4294967295"},
        {"{\"command\": \"reset\", \"wm\": 1}", "reset: unknown option \"wm\"; did you mean \"vm\"?"},
        {"{\"command\": \"reset\", \"vm\": 1, \"argv\": [\"x\"]}", "reset: unknown option \"argv\"; there is vm"},
        {"{\"command\": \"create\", \"count\": 65}", "create: count \"65\" is out of range; it is 1 to 64"},
        {"{\"command\": \"create\", \"machine\": 1}",
         "create: \"machine\" is no object; write as in {\"memory\": \"1G\"}"},
        {"{\"command\": \"run\", \"vm\": 1}", "run: \"argv\" is to have 1 to 4096 words, as in [\"uname\", \"-r\"]"},
        {"{\"command\": \"run\", \"vm\": 1, \"argv\": [\"a\", 1]}", "run: \"argv\" has an element that is no string"},
        {"{\"command\": \"get\", \"vm\": 1, \"to\": \"a\"}", "get: give the paths of two files, \"from\" and \"to\""},
        {"{\"id\": \"x\", \"command\": \"reset\"}", "\"id\" is no integer"},
    };

    (void)s;
    for (size_t i = 0; i < array_len(bad); i++)
        fails(bad[i].line, bad[i].why);
}

static void a_bad_request_has_its_id(void **s)
{
    static const char line[] = "{\"id\": 3, \"command\": \"nothing\"}";
    struct err err;

    (void)s;
    assert_true(serve_request_parse(line, strlen(line), &q, &err) < 0);
    assert_true(q.has_id && q.id == 3);
    serve_request_clear(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_understood),
        cmocka_unit_test(what_is_wrong_is_said_in_one_line),
        cmocka_unit_test(a_bad_request_has_its_id),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
