#include "vmm/inspect/vmcoreinfo.h"

#include <errno.h>

#include "vmm/base/cleanup.h"
#include "vmm/inspect/fake_world.h"

static void a_kernel_is_found_by_its_note(void **s)
{
    struct fake_world *w = *s;
    struct vmcoreinfo none = {0};
    uint64_t v;
    char byte;

    assert_string_equal(w->k.release, "6.1.0-test");
    assert_true(w->k.kaslr == 0x1e000000 && w->k.phys_base == 0);
    assert_true(vmcoreinfo_symbol(&w->k, "prb", &v) && v == FAKE_IMAGE + FAKE_PRB);
    assert_true(vmcoreinfo_number(&w->k, "SIZE(prb_desc)", &v) && v == 24);
    assert_false(vmcoreinfo_symbol(&w->k, "prb_", &v));
    assert_false(vmcoreinfo_number(&w->k, "OSRELEASE", &v));
    assert_int_equal(vmcoreinfo_read(&w->k, FAKE_IMAGE + FAKE_TEXT + 0x120, &byte, 1), 0);
    assert_int_equal((uint8_t)byte, 0xff);
    assert_int_equal(vmcoreinfo_read(&w->k, FAKE_IMAGE + 0x200000, &byte, 1), -EFAULT);
    fake_put32(w->mem, FAKE_NOTE + 4, VMCOREINFO_MAX + 1);
    assert_int_equal(vmcoreinfo_find(w->mem, &none), -ENOENT);
    fake_note(w->mem);
    fake_put64(w->mem, FAKE_TABLES + 8 * 511, 0);
    assert_int_equal(vmcoreinfo_find(w->mem, &none), -ENOENT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fake_world_setup, fake_world_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_kernel_is_found_by_its_note),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
