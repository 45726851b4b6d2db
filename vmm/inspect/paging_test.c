#include "vmm/inspect/paging.h"

#include <errno.h>

#include "vmm/base/test.h"

enum { RAM = 1 << 20, T1 = 0x1000, T2 = 0x2000, T3 = 0x3000, T4 = 0x4000, T5 = 0x5000, PAGE = 0x8000 };
#define PG      0x80000001ull
#define LONG    0x500ull
#define LA57    0x1020ull
#define PRESENT 1ull
#define LARGE   0x80ull

static int setup(void **s)
{
    struct err err;
    struct gmem *m;

    if (gmem_create(RAM, GMEM_ANON, 0, &m, &err))
        fail_msg("%s", err.msg);
    *s = m;
    return 0;
}

static int teardown(void **s)
{
    gmem_destroy(*s);
    return 0;
}

static void put(struct gmem *m, gpa_t table, unsigned i, uint64_t entry)
{
    assert_int_equal(gmem_write(m, table + 8 * i, &entry, 8), 0);
}

static void check(const struct paging *p, uint64_t addr, gpa_t want, uint64_t want_left)
{
    uint64_t left = 0;
    gpa_t got = 0;

    assert_int_equal(paging_walk(p, addr, &got, &left), 0);
    assert_true(got == want);
    assert_true(left == want_left);
}

static void check_absent(const struct paging *p, uint64_t addr)
{
    uint64_t left;
    gpa_t got;

    assert_int_equal(paging_walk(p, addr, &got, &left), -EFAULT);
}

static void without_paging_addresses_are_physical(void **s)
{
    const struct paging p = {.mem = *s, .cr0 = 1};

    check(&p, 0x12345, 0x12345, 0xfffedcbb);
    check(&p, 0xffffffff00000010, 0x10, 0xfffffff0);
}

static void four_levels_and_three_sizes(void **s)
{
    const struct paging p = {.mem = *s, .cr0 = PG, .cr3 = T1 | 0xfff, .cr4 = 0x20, .efer = LONG};

    put(p.mem, T1, 511, T2 | PRESENT);
    put(p.mem, T2, 510, T3 | PRESENT);
    put(p.mem, T2, 511, 0x40000000 | LARGE | PRESENT);
    put(p.mem, T3, 8, T4 | PRESENT);
    put(p.mem, T3, 9, 1ull << 63 | 0x200000 | LARGE | PRESENT);
    put(p.mem, T4, 3, 1ull << 63 | PAGE | PRESENT);
    check(&p, 0xffffffff81003123, PAGE + 0x123, 0x1000 - 0x123);
    check(&p, 0xffffffff81212345, 0x200000 + 0x12345, 0x200000 - 0x12345);
    check(&p, 0xffffffffc1234567, 0x40000000 + 0x1234567, 0x40000000 - 0x1234567);
    check_absent(&p, 0xffffffff81002fff);
    check_absent(&p, 0);
}

static void five_levels(void **s)
{
    const struct paging p = {.mem = *s, .cr0 = PG, .cr3 = T5, .cr4 = LA57, .efer = LONG};

    put(p.mem, T5, 0x110, T1 | PRESENT);
    put(p.mem, T1, 0, T2 | PRESENT);
    put(p.mem, T2, 0, 0x40000000 | LARGE | PRESENT);
    check(&p, 0xff10000000000000, 0x40000000, 0x40000000);
}

static void thirty_two_bits(void **s)
{
    const struct paging two = {.mem = *s, .cr0 = PG, .cr3 = T1, .cr4 = 0x10},
                        pae = {.mem = *s, .cr0 = PG, .cr3 = T2 + 0x20, .cr4 = 0x20};
    const uint32_t entries[] = {T3 | PRESENT, 0x00800000 | 1 << 13 | LARGE | PRESENT};
    const uint32_t page = PAGE | PRESENT;

    assert_int_equal(gmem_write(two.mem, T1, entries, sizeof(entries)), 0);
    assert_int_equal(gmem_write(two.mem, T3 + 4 * 5, &page, 4), 0);
    check(&two, 0x5678, PAGE + 0x678, 0x988);
    check(&two, 0x400004, 0x100800004, 0x3ffffc);
    put(pae.mem, T2 + 0x20, 3, T4 | PRESENT);
    put(pae.mem, T4, 1, 0x600000 | LARGE | PRESENT);
    check(&pae, 0xc0200010, 0x600010, 0x1ffff0);
}

static void tables_outside_memory_map_nothing(void **s)
{
    const struct paging p = {.mem = *s, .cr0 = PG, .cr3 = T1, .efer = LONG};
    struct paging far = p;

    put(p.mem, T1, 0, 0x000ffffffffff000 | PRESENT);
    put(p.mem, T1, 1, T1 | PRESENT); /* a table that holds itself ends, too */
    put(p.mem, T1, 2, RAM | PRESENT);
    check_absent(&p, 0);
    check_absent(&p, 2ull << 39);
    check_absent(&p, 1ull << 39);
    far.cr3 = UINT64_MAX;
    check_absent(&far, 0);
}

static void copies_cross_pages_that_do_not_follow_each_other(void **s)
{
    const struct paging p = {.mem = *s, .cr0 = PG, .cr3 = T1, .efer = LONG};
    char got[8];

    put(p.mem, T1, 0, T2 | PRESENT);
    put(p.mem, T2, 0, T3 | PRESENT);
    put(p.mem, T3, 0, T4 | PRESENT);
    put(p.mem, T4, 0, PAGE | PRESENT);
    put(p.mem, T4, 1, (PAGE + 0x3000) | PRESENT);
    put(p.mem, T4, 3, RAM | PRESENT);
    assert_int_equal(paging_write(&p, 0xffc, "abcdefgh", 8), 0);
    assert_int_equal(gmem_read(p.mem, PAGE + 0x3000, got, 4), 0);
    assert_memory_equal(got, "efgh", 4);
    assert_int_equal(paging_read(&p, 0xffc, got, 8), 0);
    assert_memory_equal(got, "abcdefgh", 8);
    assert_int_equal(paging_read(&p, 0x1ffc, got, 8), -EFAULT);
    assert_int_equal(paging_read(&p, 0x3000, got, 1), -EFAULT);
    assert_int_equal(paging_write(&p, 0x2000, got, 1), -EFAULT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(without_paging_addresses_are_physical),
        TEST(four_levels_and_three_sizes),
        TEST(five_levels),
        TEST(thirty_two_bits),
        TEST(tables_outside_memory_map_nothing),
        TEST(copies_cross_pages_that_do_not_follow_each_other),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
