#include "vmm/base/test.h"
#include "vmm/mem/iov.h"

static void parts_of_iovecs_skip_and_end_anywhere(void **s)
{
    char buf[64];
    struct iovec iov[] = {{buf, 10}, {buf, 0}, {buf + 20, 10}, {buf + 40, 10}}, got[4];
    uint64_t len;

    (void)s;
    assert_int_equal(iov_part(iov, 10, 12, got, 4, &len), 2);
    assert_int_equal(len, 12);
    assert_ptr_equal(got[0].iov_base, buf + 20);
    assert_ptr_equal(got[1].iov_base, buf + 40);
    assert_int_equal(got[1].iov_len, 2);
    assert_int_equal(iov_part(iov, 5, 25, got, 2, &len), 2);
    assert_int_equal(len, 15);
    memset(buf, '.', sizeof(buf));
    iov_put(iov, 8, "abcdefghijklmn", 14);
    assert_memory_equal(buf + 8, "ab..........cdefghijkl..........mn", 34);
    iov_zero(iov, 9, 2);
    assert_int_equal(buf[9] | buf[20], 0);
    iov_get(iov, 19, buf + 60, 3);
    assert_memory_equal(buf + 60, "lmn", 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_of_iovecs_skip_and_end_anywhere),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
