#include "vmm/runner/has.h"

#include <stdio.h>
#include <unistd.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"
#include "vmm/base/test.h"

static char dir[32];
static const char kconfig[] =
    "#\n# CONFIG_VIRTIO_PCI is not set\nCONFIG_VIRTIO_MMIO=y\nCONFIG_VIRTIO_FS_X=y\nCONFIG_EXT4_FS=m\n";

static void write_file(const char *name, const char *text)
{
    char path[64];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

/* A kernel whose modules are these two lists. */
static int set_up(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/bothy-has.XXXXXX");
    assert_non_null(mkdtemp(dir));
    write_file("modules.dep", "kernel/a/virtio_mmio.ko:\nkernel/a/virtio_console.ko:\n");
    write_file("modules.builtin", "kernel/b/ext4.ko\n");
    log_set_level(LOG_ERROR);
    return 0;
}

static int tear_down(void **state)
{
    static const char *const names[] = {"modules.dep", "modules.builtin"};

    (void)state;
    for (size_t i = 0; i < array_len(names); i++) {
        char path[64];

        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        unlink(path);
    }
    return rmdir(dir);
}

static void modules_or_the_configuration_tell(void **state)
{
    const struct test_spec modules = {.modules = dir}, config = {.kconfig = kconfig};
    const struct test_spec none = {.name = NULL}, nowhere = {.modules = "/nonexistent"};

    (void)state;
    assert_int_equal(kernel_has(&modules, "virtio_mmio", "VIRTIO_MMIO"), HAS);
    assert_int_equal(kernel_has(&modules, "ext4", "EXT4_FS"), HAS);
    assert_int_equal(kernel_has(&modules, "virtiofs", "VIRTIO_FS"), HAS_NOT);
    assert_int_equal(kernel_has(&nowhere, "virtiofs", "VIRTIO_FS"), HAS_MAYBE);
    assert_int_equal(kernel_has(&config, "virtio_mmio", "VIRTIO_MMIO"), HAS);
    assert_int_equal(kernel_has(&config, "virtio_pci", "VIRTIO_PCI"), HAS_NOT);
    assert_int_equal(kernel_has(&config, "virtiofs", "VIRTIO_FS"), HAS_NOT);
    assert_int_equal(kernel_has(&config, "ext4", "EXT4_FS"), HAS_MAYBE);
    assert_int_equal(kernel_has(&none, "ext4", "EXT4_FS"), HAS_MAYBE);
}

static void a_run_is_fitted_to_its_kernel(void **state)
{
    struct config c = {.board = BOARD_PCI, .kernel = "vmlinuz"};
    struct test_spec s = {.config = &c, .root = "/srv/root"};
    struct err err;

    (void)state;
    assert_int_equal(fit_to_kernel(&s, &err), 0);
    assert_int_equal(c.board, BOARD_PCI);
    assert_int_equal(s.root_kind, TEST_ROOT_SHARED);
    s.modules = dir;
    assert_int_equal(fit_to_kernel(&s, &err), 0);
    assert_int_equal(c.board, BOARD_MMIO);
    assert_int_equal(s.root_kind, TEST_ROOT_IN_MEMORY);
    s.root_kind = TEST_ROOT_DISK;
    assert_int_equal(fit_to_kernel(&s, &err), 0);
    assert_int_equal(s.root_kind, TEST_ROOT_DISK);
    s.root_kind = TEST_ROOT_SHARED;
    s.root = "/";
    assert_int_equal(fit_to_kernel(&s, &err), -ENOENT);
    assert_non_null(strstr(err.msg, "CONFIG_VIRTIO_FS"));
    assert_non_null(strstr(err.msg, "--root"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(modules_or_the_configuration_tell),
        cmocka_unit_test(a_run_is_fitted_to_its_kernel),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
