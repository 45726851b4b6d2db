#include "vmm/runner/has.h"

#include <stdio.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"
#include "vmm/runner/modules.h"

static enum has by_modules(const char *dir, const char *module)
{
    struct module_list list = {.n = 0};
    struct modules m;
    int r;

    if (modules_open(&m, dir, NULL) < 0)
        return HAS_MAYBE; /* who loads them says why */
    r = modules_need(&m, module, &list, NULL);
    modules_close(&m);
    return r == -ENOENT ? HAS_NOT : r < 0 ? HAS_MAYBE : HAS;
}

/* As a module it may or may not be there. */
static enum has by_config(const char *text, const char *option)
{
    char *line cleanup_free = NULL;
    const char *found;

    if (asprintf(&line, "\nCONFIG_%s=", option) < 0)
        abort();
    found = strstr(text, line);
    return !found ? HAS_NOT : found[strlen(line)] == 'y' ? HAS : HAS_MAYBE;
}

enum has kernel_has(const struct test_spec *s, const char *module, const char *option)
{
    return s->modules ? by_modules(s->modules, module) : s->kconfig ? by_config(s->kconfig, option) : HAS_MAYBE;
}

int fit_to_kernel(struct test_spec *s, struct err *err)
{
    struct config *c = s->config;

    if (c->board == BOARD_PCI && kernel_has(s, "virtio_pci", "VIRTIO_PCI") == HAS_NOT &&
        kernel_has(s, "virtio_mmio", "VIRTIO_MMIO") == HAS) {
        log_msg(LOG_WARN, "the kernel has no CONFIG_VIRTIO_PCI: it gets a machine without PCI, as by --machine mmio");
        c->board = BOARD_MMIO;
    }
    if (s->root_kind != TEST_ROOT_SHARED || kernel_has(s, "virtiofs", "VIRTIO_FS") != HAS_NOT)
        return 0;
    if (!strcmp(s->root, "/"))
        return err_set(err, ENOENT,
                       "kernel \"%s\" has no CONFIG_VIRTIO_FS, which it needs to have the host's files; build it with "
                       "that, or give --root a directory that fits into memory, or a disk's image",
                       c->kernel);
    log_msg(LOG_WARN, "the kernel has no CONFIG_VIRTIO_FS: it gets a copy of root \"%s\" in its memory", s->root);
    s->root_kind = TEST_ROOT_IN_MEMORY;
    return 0;
}
