#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"
#include "vmm/runner/matrix.h"

#include <stdio.h>

struct box {
    char *kernel;
    uint32_t cpus;
    uint64_t memory;
    struct opt_list append;
};
static const struct opt box_opts[] = {
    O_STR(struct box, kernel, "kernel", NULL, "a kernel"),
    O_U32(struct box, cpus, "cpus", "1", 1, 64, "CPUs"),
    O_SIZE(struct box, memory, "memory", "512M", MiB(1), GiB(64), "RAM"),
    O_LIST(struct box, append, "append", "words"),
    O_END,
};

static void every_combination(void **state)
{
    static const char *const names[] = {
        "cpus=1 append=", "cpus=1 append=quiet nosmt", "cpus=1 append=a,b",
        "cpus=4 append=", "cpus=4 append=quiet nosmt", "cpus=4 append=a,b",
    };
    struct matrix m = {0};
    struct err err;

    (void)state;
    assert_int_equal(matrix_runs(&m), 1);
    assert_null(matrix_name(&m, 0));
    assert_int_equal(matrix_add(&m, box_opts, "cpus=1,4", &err), 0);
    assert_int_equal(matrix_add(&m, box_opts, "append=, quiet nosmt ,a,,b", &err), 0);
    assert_int_equal(matrix_runs(&m), array_len(names));
    for (unsigned i = 0; i < array_len(names); i++) {
        char *name cleanup_free = matrix_name(&m, i);
        struct box box = {0};

        assert_string_equal(name, names[i]);
        opts_default(box_opts, &box);
        assert_int_equal(opts_set(box_opts, &box, "append", "always", &err), 0);
        assert_int_equal(matrix_apply(&m, i, box_opts, &box, &err), 0);
        assert_int_equal(box.cpus, i < 3 ? 1 : 4);
        assert_int_equal(box.append.n, i % 3 ? 2 : 1); /* beside what every run has */
        opts_clear(box_opts, &box);
    }
    matrix_fini(&m);
}

static void lines_of_a_file(void **state)
{
    struct matrix m = {0};
    struct err err;

    (void)state;
    assert_int_equal(matrix_add_lines(&m, box_opts, "# what we ship\nkernel=5.10,6.1\n\n  memroy = 1G\n", "m", &err),
                     -EINVAL);
    assert_string_equal(err.msg, "m, line 4: a matrix has no \"memroy\"; did you mean \"memory\"?");
    matrix_fini(&m);
    assert_int_equal(matrix_add_lines(&m, box_opts, "kernel=5.10,6.1\r\n\tmemory = 1G", "m", &err), 0);
    assert_int_equal(matrix_runs(&m), 2);
    matrix_fini(&m);
}

static void refused(const char *axis, const char *message)
{
    struct matrix m = {0};
    struct err err;
    int r;

    assert_int_equal(matrix_add(&m, box_opts, "kernel=a", &err), 0);
    r = matrix_add_word(&m, box_opts, axis, &err);
    assert_int_equal(r, -err.code);
    assert_string_equal(err.msg, message);
    matrix_fini(&m);
}

static void refusals(void **state)
{
    (void)state;
    refused("cpu=1", "a matrix has no \"cpu\"; did you mean \"cpus\"?");
    refused("colour=1", "a matrix has no \"colour\"; it varies options of the machine, as in cpus=1,2");
    refused("kernel=b", "the matrix has kernel twice; give all its values at once, with commas");
    refused("cpus", "matrix \"cpus\": there is no such file; name one, or write an axis like cpus=1,2");
    refused("/nonexistent/a=b",
            "matrix \"/nonexistent/a=b\": there is no such file; name one, or write an axis like cpus=1,2");
    refused("/dev/null", "matrix \"/dev/null\": no line in it says anything; write lines like cpus=1,2");
}

static void values_are_the_options(void **state)
{
    struct matrix m = {0};
    struct box box = {0};
    struct err err;

    (void)state;
    assert_int_equal(matrix_add(&m, box_opts, "cpus=1,many", &err), 0);
    opts_default(box_opts, &box);
    assert_int_equal(matrix_apply(&m, 0, box_opts, &box, &err), 0);
    assert_int_equal(matrix_apply(&m, 1, box_opts, &box, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "matrix: cpus"));
    opts_clear(box_opts, &box);
    matrix_fini(&m);
}

static void limits(void **state)
{
    char values[5 * MATRIX_VALUES + 8] = "cpus=1";
    struct matrix m = {0};
    struct err err;

    (void)state;
    for (int i = 1; i < MATRIX_VALUES; i++)
        strcat(values, ",1");
    assert_int_equal(matrix_add(&m, box_opts, values, &err), 0);
    assert_int_equal(matrix_runs(&m), MATRIX_VALUES);
    memcpy(values, "append", 4); /* "appe=…" is no option */
    assert_int_equal(matrix_add(&m, box_opts, values, &err), -EINVAL);
    assert_int_equal(matrix_add(&m, box_opts, "memory=1G,2G,1G,2G,1G,2G,1G,2G,1G,2G,1G,2G,1G,2G,1G,2G,1G", &err),
                     -EINVAL);
    assert_string_equal(err.msg, "a matrix of more than 4096 runs; split it");
    matrix_fini(&m);
    memcpy(values, "cpus", 4);
    strcat(values, ",1");
    assert_int_equal(matrix_add(&m, box_opts, values, &err), -EINVAL);
    assert_string_equal(err.msg, "more than 256 values of cpus");
    matrix_fini(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_combination),      cmocka_unit_test(lines_of_a_file), cmocka_unit_test(refusals),
        cmocka_unit_test(values_are_the_options), cmocka_unit_test(limits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
