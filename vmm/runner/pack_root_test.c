/* What is packed is read back by cpio(1). */
#include "vmm/runner/pack_root.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"
#include "vmm/runner/cpio.h"

static char top[32];

static int run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int run(const char *fmt, ...)
{
    char *line cleanup_free = NULL;
    va_list ap;

    va_start(ap, fmt);
    assert_true(vasprintf(&line, fmt, ap) > 0);
    va_end(ap);
    return system(line);
}

static int set_up(void **state)
{
    (void)state;
    strcpy(top, "/tmp/bothy-root.XXXXXX");
    assert_non_null(mkdtemp(top));
    return run("cd %s && mkdir -p root/bin root/etc && echo text >root/etc/file && chmod 640 root/etc/file && "
               "ln -s ../etc/file root/bin/link && mkfifo root/fifo && head -c 3000000 /dev/zero >root/large",
               top);
}

static int tear_down(void **state)
{
    (void)state;
    return run("rm -r %s", top);
}

static int pack(uint64_t memory, struct err *err)
{
    char root[48], archive[48];
    struct config c = {.memory = memory};
    const struct test_spec s = {.config = &c, .root = root};
    FILE *f;
    int r;

    snprintf(root, sizeof(root), "%s/root", top);
    snprintf(archive, sizeof(archive), "%s/archive", top);
    f = fopen(archive, "w");
    assert_non_null(f);
    r = pack_root(f, &s, err);
    cpio_end(f);
    assert_int_equal(fclose(f), 0);
    return r;
}

static void a_directory_becomes_an_archive(void **state)
{
    struct err err;

    (void)state;
    if (run("cpio --version >/dev/null 2>&1"))
        skip();
    assert_int_equal(pack(MiB(512), &err), 0);
    assert_int_equal(
        run("cd %s && mkdir out && cd out && cpio -idm --quiet --no-preserve-owner <../archive && "
            "diff -r -x fifo --no-dereference .bothy/root ../root && [ \"$(stat -c %%a .bothy/root/etc/file)\" = 640 ] "
            "&& [ -p .bothy/root/fifo ]",
            top),
        0);
    assert_int_equal(run("cd %s && cpio -tvn --quiet <archive | awk '$3 || $4 { exit 1 }'", top), 0); /* root's */
}

static void what_is_too_large_is_told(void **state)
{
    struct err err;

    (void)state;
    assert_int_equal(pack(MiB(100), &err), -EFBIG);
    assert_non_null(strstr(err.msg, "-m 10"));
    assert_non_null(strstr(err.msg, "CONFIG_VIRTIO_FS"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_directory_becomes_an_archive, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_too_large_is_told, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
