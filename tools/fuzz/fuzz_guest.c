/* What a test run reads that others wrote: lines of the guest's first process, its orders, and depmod's files. */
#include "firmware/init/orders.h"
#include "tools/fuzz/fuzz.h"
#include "vmm/base/cleanup.h"
#include "vmm/runner/modules.h"
#include "vmm/runner/said.h"

static void read_line(const char *text)
{
    struct said s;

    if (!said_parse(text, &s))
        assert(s.kind != SAID_ERROR || strlen(s.text) < sizeof(s.text));
}

static void read_orders(char *text, size_t n)
{
    char **pointers cleanup_free = xcalloc(ORDERS_POINTERS, sizeof(*pointers));
    struct orders o;

    if (orders_parse(text, n, pointers, &o))
        return;
    assert(o.argv[0] && o.nmodules <= INIT_MODULES_MAX && o.ngroups <= INIT_GROUPS_MAX);
    for (char **p = o.envp; *p; p++)
        assert(*p > text && *p < text + n);
}

/* The first line is of modules.builtin, the rest modules.dep. */
static void read_modules(char *text)
{
    size_t first = strcspn(text, "\n");
    struct modules m = {.dir = "/", .builtin = text, .dep = text[first] ? text + first + 1 : text + first};
    struct module_list list = {.n = 0};
    struct err err;
    char name[16];

    if (modules_need(&m, "virtio_pci", &list, &err) == -ENOENT)
        assert(!list.n);
    if (modules_need(&m, "fuse", &list, &err) < 0)
        assert(err.msg[0]);
    for (unsigned i = 0; i < list.n; i++) {
        assert(list.paths[i] >= text);
        module_name(&list, i, name, sizeof(name));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text cleanup_free = xcalloc(1, size + 1);

    if (size < 1)
        return 0;
    memcpy(text, data + 1, size - 1);
    if (data[0] == 'L')
        read_line(text);
    else if (data[0] == 'O')
        read_orders(text, size - 1);
    else
        read_modules(text);
    return 0;
}
