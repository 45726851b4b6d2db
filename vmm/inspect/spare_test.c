#include "vmm/inspect/spare.h"

#include <errno.h>

#include "vmm/inspect/fake_world.h"

enum { LRU = 1 << 4, ANON = 1, BUDDY = -129, MAPPED = 0, UNMAPPED = -1 };

static void set_page(struct fake_world *w, uint64_t n, uint64_t flags, uint64_t mapping, uint64_t order, int mapcount)
{
    fake_put64(w->mem, fake_page(n), flags);
    fake_put64(w->mem, fake_page(n) + 24, mapping);
    fake_put64(w->mem, fake_page(n) + 40, order);
    fake_put32(w->mem, fake_page(n) + 48, (uint32_t)mapcount);
}

static void make_tail(struct fake_world *w, uint64_t n, uint64_t of)
{
    fake_put64(w->mem, fake_page(n) + 8, (FAKE_IMAGE + fake_page(of)) | 1);
}

/* That these pages, and no others, can be done without. */
static void check(struct fake_world *w, const uint64_t *pages, size_t n)
{
    struct spare s;
    size_t found = 0;

    assert_int_equal(spare_find(&w->k, &s), 0);
    for (uint64_t i = 0; i < FAKE_RAM / 4096; i++) {
        bool wanted = found < n && pages[found] == i;

        if (spare_has(&s, i * 4096 + 4095) != wanted)
            fail_msg("page %u is %s", (unsigned)i, wanted ? "kept" : "left out");
        found += wanted;
    }
    assert_int_equal(found, n);
    assert_false(spare_has(&s, FAKE_RAM));
    spare_fini(&s);
}

static void free_blocks_and_programs_pages_are_spare(void **state)
{
    static const uint64_t spare[] = {8, 9, 10, 11, 20, 30, 31, 32, 700, 1020, 1021, 1022, 1023};
    struct fake_world *w = *state;

    set_page(w, 8, 0, 0, 2, BUDDY); /* four pages */
    set_page(w, 20, LRU, 0xffff888000001001, 0, MAPPED);
    set_page(w, 21, LRU, 0xffff888000001000, 0, MAPPED); /* a file's */
    set_page(w, 22, 0, 0xffff888000001001, 0, UNMAPPED); /* on no list: whatever that word is */
    set_page(w, 30, LRU, 0xffff888000001001, 0, UNMAPPED);
    make_tail(w, 31, 30);
    make_tail(w, 32, 30);
    set_page(w, 40, LRU, 0xffff888000002000, 0, MAPPED);
    make_tail(w, 41, 40);
    set_page(w, 700, LRU, ANON, 0, MAPPED);
    set_page(w, 1020, 0, 0, 3, BUDDY); /* of which half is there */
    check(w, spare, array_len(spare));
}

/* If each page began a block of the largest order, it would take hours to believe them all. */
static void in_a_free_block_no_other_begins(void **state)
{
    static const uint64_t spare[] = {8, 9, 10, 11};
    struct fake_world *w = *state;

    set_page(w, 8, 0, 0, 2, BUDDY);
    set_page(w, 9, 0, 0, 3, BUDDY);
    check(w, spare, array_len(spare));
}

static void a_block_of_no_order_that_can_be_is_kept(void **state)
{
    struct fake_world *w = *state;

    set_page(w, 8, 0, 0, 19, BUDDY);
    set_page(w, 9, 0, 0, UINT64_MAX, BUDDY);
    check(w, NULL, 0);
}

static void sections_that_are_not_there_are_kept(void **state)
{
    static const uint64_t spare[] = {700};
    struct fake_world *w = *state;

    set_page(w, 20, LRU, ANON, 0, MAPPED);
    set_page(w, 700, LRU, ANON, 0, MAPPED);
    fake_put64(w->mem, FAKE_SECTIONS, 0);
    check(w, spare, array_len(spare));
    fake_put64(w->mem, FAKE_SECTIONS, 0xffff800000000000); /* unmapped */
    check(w, spare, array_len(spare));
    fake_put64(w->mem, FAKE_ROOTS, 0);
    check(w, NULL, 0);
    fake_put64(w->mem, FAKE_ROOTS, 0xffff800000000000);
    check(w, NULL, 0);
}

/* What its note says instead of `was`, of the same length. */
static void say(struct fake_world *w, const char *was, const char *now)
{
    char *at = strstr(w->k.info, was);

    assert_non_null(at);
    assert_int_equal(strlen(was), strlen(now));
    memcpy(at, now, strlen(now));
}

static void a_note_that_makes_no_sense_is_no_help(void **state)
{
    static const struct {
        const char *was, *now;
    } lies[] = {
        {"SYMBOL(mem_section)", "SYMBOL(mem_suction)"},
        {"SIZE(mem_section)=16", "SIZE(mem_section)=00"},
        {"SIZE_BITS)=21", "SIZE_BITS)=20"},
        {"SIZE_BITS)=21", "SIZE_BITS)=41"},
        {"SIZE(page)=64", "SIZE(page)=00"},
        {"SIZE(page)=64", "SIZE(page)=54"},
        {"OFFSET(page.private)=40", "OFFSET(page.private)=57"},
        {"NUMBER(PG_lru)=4", "NUMBER(PG_lru)=x"},
        {"BUDDY_MAPCOUNT_VALUE)=-129", "BUDDY_MAPCOUNT_VALUE)=none"},
    };
    struct fake_world *w = *state;
    struct spare s;

    for (size_t i = 0; i < array_len(lies); i++) {
        say(w, lies[i].was, lies[i].now);
        if (spare_find(&w->k, &s) != -ENOENT)
            fail_msg("%s is believed", lies[i].now);
        say(w, lies[i].now, lies[i].was);
    }
    check(w, NULL, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fake_world_setup, fake_world_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(free_blocks_and_programs_pages_are_spare), TEST(in_a_free_block_no_other_begins),
        TEST(a_block_of_no_order_that_can_be_is_kept),  TEST(sections_that_are_not_there_are_kept),
        TEST(a_note_that_makes_no_sense_is_no_help),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
