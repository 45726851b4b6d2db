#include "vmm/inspect/kernel_config.h"

#include "vmm/base/test.h"
#include "vmm/inspect/fake_kernel.h"

static void it_is_read_from_memory(void **state)
{
    struct gmem *m = fake_kernel_create();
    struct vmcoreinfo k;
    char *text;

    (void)state;
    assert_int_equal(vmcoreinfo_find(m, &k), 0);
    assert_null(kernel_config_read(&k));
    fake_config(m);
    text = kernel_config_read(&k);
    assert_string_equal(text, FAKE_CONFIG);
    free(text);
    vmcoreinfo_fini(&k);
    gmem_destroy(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(it_is_read_from_memory)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
