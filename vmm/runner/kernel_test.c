#include "vmm/runner/kernel.h"

#include <stdio.h>
#include <sys/stat.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"

/* What a test makes below a directory of its own, in order: a directory where the name ends in a slash. */
static void make(const char *dir, const char *const *names)
{
    /* A setup header that says where the version lies. */
    static char kernel[0x400];

    memcpy(kernel + 0x202, "HdrS", 4);
    put_le16(kernel + 0x20e, 0x100);
    strcpy(kernel + 0x300, "6.1.0-test (somebody)");
    for (; *names; names++) {
        char path[128];
        FILE *f;

        snprintf(path, sizeof(path), "%s/%s", dir, *names);
        if (path[strlen(path) - 1] == '/') {
            assert_int_equal(mkdir(path, 0755), 0);
            continue;
        }
        f = fopen(path, "w");
        assert_non_null(f);
        if (strstr(path, "release"))
            fputs("6.2.0-tree\n", f);
        else if (strstr(path, "config-"))
            fputs("CONFIG_FUSE_FS=m\n", f);
        else
            fwrite(kernel, 1, sizeof(kernel), f);
        fclose(f);
    }
}

static void unmake(const char *dir, const char *const *names)
{
    size_t n = 0;
    char path[128];

    while (names[n])
        n++;
    while (n--) {
        snprintf(path, sizeof(path), "%s/%s", dir, names[n]);
        assert_int_equal(remove(path), 0);
    }
    assert_int_equal(rmdir(dir), 0);
}

static void a_package_brings_its_modules(void **state)
{
    static const char *const names[] = {"boot/", "boot/vmlinuz", "lib/", "lib/modules/", "lib/modules/6.1.0-test/",
                                        NULL};
    char dir[] = "/tmp/bothy-kernel.XXXXXX", file[64], modules[96];
    struct kernel_place k;
    struct err err;

    (void)state;
    assert_non_null(mkdtemp(dir));
    make(dir, names);
    snprintf(file, sizeof(file), "%s/boot/vmlinuz", dir);
    snprintf(modules, sizeof(modules), "%s/boot/../lib/modules/6.1.0-test", dir);
    assert_int_equal(kernel_find(file, &k, &err), 0);
    assert_string_equal(k.file, file);
    assert_string_equal(k.version, "6.1.0-test");
    assert_string_equal(k.modules, modules);
    kernel_place_fini(&k);
    unmake(dir, names);
}

static void a_build_tree_has_its_kernel(void **state)
{
    static const char *const names[] = {
        "vmlinux", "modules.order", "include/",       "include/config/",       "include/config/kernel.release",
        "arch/",   "arch/x86/",     "arch/x86/boot/", "arch/x86/boot/bzImage", NULL};
    char dir[] = "/tmp/bothy-kernel.XXXXXX", file[64];
    struct kernel_place k;
    struct err err;

    (void)state;
    assert_non_null(mkdtemp(dir));
    make(dir, names);
    snprintf(file, sizeof(file), "%s/arch/x86/boot/bzImage", dir);
    assert_int_equal(kernel_find(dir, &k, &err), 0);
    assert_string_equal(k.file, file);
    assert_string_equal(k.version, "6.2.0-tree");
    assert_non_null(strstr(k.modules, "/arch/x86/boot/../../.."));
    kernel_place_fini(&k);
    assert_int_equal(remove(file), 0);
    assert_int_equal(kernel_find(dir, &k, &err), 0);
    snprintf(file, sizeof(file), "%s/vmlinux", dir);
    assert_string_equal(k.file, file);
    kernel_place_fini(&k);
    assert_int_equal(remove(file), 0);
    assert_int_equal(kernel_find(dir, &k, &err), -ENOENT);
    assert_non_null(strstr(err.msg, "build the kernel there"));
    make(dir, (const char *const[]){"vmlinux", "arch/x86/boot/bzImage", NULL});
    unmake(dir, names);
}

static void its_configuration_may_lie_beside_it(void **state)
{
    static const char *const names[] = {"vmlinuz", "config-6.1.0-test", NULL};
    char dir[] = "/tmp/bothy-kernel.XXXXXX", file[64], *text;
    struct kernel_place k;
    struct err err;

    (void)state;
    assert_non_null(mkdtemp(dir));
    make(dir, names);
    snprintf(file, sizeof(file), "%s/vmlinuz", dir);
    assert_int_equal(kernel_find(file, &k, &err), 0);
    text = kernel_config(&k, false);
    assert_string_equal(text, "CONFIG_FUSE_FS=m\n");
    free(text);
    assert_int_equal(remove(k.config), 0);
    assert_null(kernel_config(&k, false)); /* nor does this kernel carry one */
    make(dir, names);
    kernel_place_fini(&k);
    unmake(dir, names);
}

static void what_is_no_kernel_is_named(void **state)
{
    struct kernel_place k;
    struct err err;

    (void)state;
    assert_int_equal(kernel_find("/nowhere/kernel", &k, &err), -ENOENT);
    assert_non_null(strstr(err.msg, "/nowhere/kernel"));
    assert_int_equal(kernel_find("/dev/null/kernel", &k, &err), -ENOTDIR);
    assert_string_equal(err.msg, "kernel \"/dev/null/kernel\": Not a directory; check the path");
    assert_int_equal(kernel_find("0.0.0-none", &k, &err), -ENOENT);
    assert_non_null(strstr(err.msg, "0.0.0-none"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_package_brings_its_modules),
        cmocka_unit_test(a_build_tree_has_its_kernel),
        cmocka_unit_test(its_configuration_may_lie_beside_it),
        cmocka_unit_test(what_is_no_kernel_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
