#include "vmm/base/test.h"
#include "vmm/runner/room.h"

static void memory_of_the_host(void **state)
{
    (void)state;
    assert_int_equal(room_available("MemTotal:       8000 kB\nMemFree:  10 kB\nMemAvailable:    4096 kB\n"), MiB(4));
    assert_int_equal(room_available("MemAvailable: 0 kB\n"), 0);
    assert_true(room_available("MemFree: 1 kB\n") == UINT64_MAX);
    assert_true(room_available("MemAvailable: 99999999999999999999 kB\n") == UINT64_MAX);
}

static void this_host(void **state)
{
    struct room r;

    (void)state;
    room_look(&r);
    assert_in_range(r.cpus, 1, 1 << 20);
    assert_true(r.memory > MiB(1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_of_the_host),
        cmocka_unit_test(this_host),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
