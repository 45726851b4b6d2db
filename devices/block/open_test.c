#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/block/file.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"

/* A folder for each test, with files in it; names are relative to it. */
static char home[64];

static int setup(void **s)
{
    (void)s;
    strcpy(home, "/tmp/bothy-open-XXXXXX");
    return !mkdtemp(home) || chdir(home);
}

static int teardown(void **s)
{
    char command[128];

    (void)s;
    snprintf(command, sizeof(command), "rm -r %s", home);
    return chdir("/") || system(command);
}

static void make(const char *path, const char *head, uint64_t size)
{
    cleanup_fd int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, head, strlen(head), 0), strlen(head));
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
}

static struct blk *open_ok(const char *path, const struct blk_open_opts *o)
{
    struct blk *b;
    struct err err;

    if (blk_open(path, o, NULL, NULL, &b, &err))
        fail_msg("%s", err.msg);
    return b;
}

static void open_refused(const char *path, const struct blk_open_opts *o, const char *word, const char *remedy)
{
    struct blk *b;
    struct err err;

    if (!blk_open(path, o, NULL, NULL, &b, &err))
        fail_msg("%s was opened", path);
    if (!strstr(err.msg, word) || !strstr(err.msg, remedy))
        fail_msg("\"%s\" lacks \"%s\" or \"%s\"", err.msg, word, remedy);
}

static void names_decide_that_a_disk_is_raw(void **s)
{
    static const char *const paths[] = {"a.raw", "a.img", "a.IMG", "a.iso", "noending", "odd.ending", ".raw"};

    (void)s;
    for (size_t i = 0; i < array_len(paths); i++) {
        struct blk *b;

        make(paths[i], "", 4096);
        b = open_ok(paths[i], &(struct blk_open_opts){0});
        assert_string_equal(b->drv->name, "raw");
        assert_int_equal(b->lim.size, 4096);
        assert_int_equal(b->lim.read_only, !strcmp(paths[i], "a.iso"));
        blk_close(b);
    }
}

static void unknown_formats_and_options_are_refused(void **s)
{
    (void)s;
    make("a.raw", "", 4096);
    open_refused("a.raw", &(struct blk_open_opts){.format = "qcow9"}, "qcow9", "raw");
    open_refused("a.raw", &(struct blk_open_opts){.format = "file"}, "\"file\" is unknown", "raw");
    open_refused("a.raw", &(struct blk_open_opts){.options = "x=1"}, "raw has no options", "x=1");
}

static void a_raw_disk_reads_and_writes_its_file(void **s)
{
    char out[1000], in[1000], zeroes[1000] = {0};
    struct blk *b;

    (void)s;
    memset(out, 'x', sizeof(out));
    make("a.raw", "", 8192);
    b = open_ok("a.raw", &(struct blk_open_opts){0});
    assert_int_equal(blk_pwrite(b, out, sizeof(out), 4001), 0);
    assert_int_equal(blk_pread(b, in, sizeof(in), 4001), 0);
    assert_memory_equal(in, out, sizeof(in));
    assert_int_equal(blk_zero(b, 0, 8192, true), 0);
    assert_int_equal(blk_pread(b, in, sizeof(in), 4001), 0);
    assert_memory_equal(in, zeroes, sizeof(in));
    assert_int_equal(blk_pwrite(b, out, sizeof(out), 8000), -EINVAL);
    assert_int_equal(blk_flush(b), 0);
    blk_close(b);
}

static void a_new_file_is_made_but_never_over_another(void **s)
{
    char buf[512] = "x";
    struct blk *b;
    struct err err;
    struct stat st;

    (void)s;
    make("full", "data", 512);
    assert_int_equal(blk_create_file("full", false, &b, &err), -EEXIST);
    assert_int_equal(stat("full", &st), 0);
    assert_int_equal(st.st_size, 512);
    assert_int_equal(blk_create_file("full", true, &b, &err), 0);
    assert_int_equal(b->lim.size, 0);
    assert_int_equal(blk_pwrite(b, buf, sizeof(buf), MiB(1)), 0); /* it grows … */
    assert_int_equal(blk_pread(b, buf, sizeof(buf), MiB(2)), 0);  /* … and reads as zeroes behind */
    assert_int_equal(buf[0], 0);
    blk_close(b);
    assert_int_equal(blk_create_file("new", false, &b, &err), 0);
    blk_close(b);
    assert_int_equal(blk_create_file("new", false, &b, &err), 0); /* still empty */
    blk_close(b);
    assert_int_equal(blk_create_file("no/such/folder", false, &b, &err), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(names_decide_that_a_disk_is_raw, setup, teardown),
        cmocka_unit_test_setup_teardown(unknown_formats_and_options_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_raw_disk_reads_and_writes_its_file, setup, teardown),
        cmocka_unit_test_setup_teardown(a_new_file_is_made_but_never_over_another, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
