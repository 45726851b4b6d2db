#include "vmm/inspect/guest_kernel.h"

#include <errno.h>

#include "vmm/base/test.h"
#include "vmm/inspect/fake_kernel.h"

static void all_that_is_there_is_found(void **s)
{
    struct gmem *m = fake_kernel_create();
    struct guest_kernel k;

    (void)s;
    guest_kernel_init(&k, m);
    assert_true(k.found && k.has_symbols && k.modules == 2);
    guest_kernel_fini(&k);
    fake_put32(m, FAKE_KALLSYMS, 0);
    guest_kernel_init(&k, m);
    assert_true(k.found && !k.has_symbols && k.symbols.n == 0 && k.modules == -ENOENT);
    guest_kernel_fini(&k);
    fake_put32(m, FAKE_NOTE, 0);
    guest_kernel_init(&k, m);
    assert_true(!k.found && !k.has_symbols && k.modules == -ENOENT);
    guest_kernel_fini(&k);
    gmem_destroy(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_that_is_there_is_found)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
