#include "firmware/load/loader.h"
#include "vmm/base/test.h"

static const struct e820_entry map[] = {
    {.base = 0, .size = 0x9fc00, .type = 1},
    {.base = MiB(1), .size = MiB(31), .type = 1},
    {.base = MiB(30), .size = MiB(1), .type = 3}, /* tables in the middle of RAM */
    {.base = GiB(4), .size = MiB(64), .type = 1},
};

static struct room make_room(void)
{
    struct room r;

    room_init(&r, map, array_len(map));
    return r;
}

static void room_is_ram_above_1_mib_without_what_is_reserved(void **s)
{
    struct room r = make_room();

    (void)s;
    assert_false(room_has(&r, 0x1000, 1));
    assert_true(room_has(&r, MiB(1), MiB(29)));
    assert_false(room_has(&r, MiB(1), MiB(29) + 1));
    assert_false(room_has(&r, MiB(30), 1));
    assert_true(room_has(&r, MiB(31), MiB(1)));
    assert_true(room_has(&r, GiB(4), MiB(64)));
    assert_false(room_has(&r, UINT64_MAX, 2));
    assert_false(room_has(&r, GiB(4), UINT64_MAX));
}

static void what_is_taken_is_no_longer_there(void **s)
{
    struct room r = make_room();

    (void)s;
    room_take(&r, MiB(8), MiB(2));
    assert_true(room_has(&r, MiB(1), MiB(7)));
    assert_true(room_has(&r, MiB(10), MiB(20)));
    assert_false(room_has(&r, MiB(8), 1));
    assert_false(room_has(&r, MiB(10) - 1, 1));
    room_take(&r, MiB(29), UINT64_MAX); /* over all that follows */
    assert_false(room_has(&r, GiB(4), 1));
    assert_true(room_has(&r, MiB(10), MiB(19)));
}

static void every_slot_is_aligned_and_free_and_none_is_missing(void **s)
{
    struct room r = make_room();
    const struct want w = {.size = MiB(3), .align = MiB(2), .min = MiB(5), .end = GiB(8)};
    uint64_t n = room_slots(&r, &w), expected = 0;
    gpa_t last = 0;

    (void)s;
    for (gpa_t at = 0; at < GiB(5); at += w.align)
        expected += at >= w.min && room_has(&r, at, w.size);
    assert_int_equal(n, expected);
    for (uint64_t k = 0; k < n; k++) {
        gpa_t at = room_slot(&r, &w, k);

        assert_true(at > last && at % w.align == 0 && room_has(&r, at, w.size));
        last = at;
    }
    assert_int_equal(room_slot(&r, &w, 0), MiB(6));
    assert_int_equal(last, GiB(4) + MiB(60));
}

static void no_slot_leaves_the_window(void **s)
{
    struct room r = make_room();
    struct want w = {.size = MiB(2), .align = 4096, .min = MiB(1), .end = MiB(3)};

    (void)s;
    assert_int_equal(room_slots(&r, &w), 1);
    w.end--;
    assert_int_equal(room_slots(&r, &w), 0);
    w = (struct want){.size = UINT64_MAX, .align = 4096, .end = UINT64_MAX};
    assert_int_equal(room_slots(&r, &w), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(room_is_ram_above_1_mib_without_what_is_reserved),
        cmocka_unit_test(what_is_taken_is_no_longer_there),
        cmocka_unit_test(every_slot_is_aligned_and_free_and_none_is_missing),
        cmocka_unit_test(no_slot_leaves_the_window),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
