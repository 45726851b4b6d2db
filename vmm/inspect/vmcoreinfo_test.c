#include "vmm/inspect/vmcoreinfo.h"

#include <errno.h>
#include <sys/stat.h>

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

/* Behind as many as are looked at; one less, and it is found. */
static void notes_that_are_made_up_end_the_search(void **s)
{
    enum { MADE_UP = 0x200000, PAGE = 4096, NOTES = 256, TRUE = MADE_UP + NOTES * PAGE };
    struct fake_world *w = *s;
    struct vmcoreinfo found;
    uint8_t note[PAGE];

    assert_int_equal(gmem_read(w->mem, FAKE_NOTE, note, sizeof(note)), 0);
    fake_put32(w->mem, FAKE_NOTE, 0);
    fake_put(w->mem, TRUE, note, sizeof(note));
    for (unsigned i = 0; i < NOTES; i++)
        fake_put(w->mem, MADE_UP + i * PAGE, note, 24);
    assert_int_equal(vmcoreinfo_find(w->mem, &found), -ENOENT);
    fake_put32(w->mem, MADE_UP, 0);
    assert_int_equal(vmcoreinfo_find(w->mem, &found), 0);
    vmcoreinfo_fini(&found);
}

/* A guest's memory is the host's where it has been written, and only there. */
static void looking_takes_no_memory(void **s)
{
    const struct gmem_range *range;
    struct vmcoreinfo k;
    struct gmem *m;
    struct stat st;

    (void)s;
    assert_int_equal(gmem_create(MiB(64), GMEM_SHARED, 0, &m, NULL), 0);
    fake_kernel_write(m);
    assert_int_equal(vmcoreinfo_look(m, &k), 0);
    vmcoreinfo_fini(&k);
    fake_put32(m, FAKE_NOTE, 0);
    assert_int_equal(vmcoreinfo_look(m, &k), -ENOENT);
    gmem_ranges(m, &range);
    assert_int_equal(fstat(range->fd, &st), 0);
    assert_true((uint64_t)st.st_blocks * 512 < MiB(32));
    gmem_destroy(m);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fake_world_setup, fake_world_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_kernel_is_found_by_its_note),
        TEST(notes_that_are_made_up_end_the_search),
        cmocka_unit_test(looking_takes_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
