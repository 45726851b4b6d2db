#include "devices/net/csum.h"

#include "vmm/base/test.h"

static void the_example_of_rfc_1071_adds_up(void **state)
{
    const uint8_t words[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};

    (void)state;
    assert_int_equal(csum_fold(csum_add(0, words, sizeof(words))), 0xffff & ~0xddf2);
}

static void slow(const uint8_t *p, size_t n, uint16_t *ret)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += i % 2 ? p[i] : (uint32_t)p[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    *ret = (uint16_t)~sum;
}

static void every_length_and_split_gives_the_same(void **state)
{
    uint8_t data[257];
    uint16_t want;

    (void)state;
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 151 + i / 3);
    for (size_t n = 0; n <= sizeof(data); n++) {
        slow(data, n, &want);
        for (size_t cut = 0; cut <= n; cut += 2)
            assert_int_equal(csum_fold(csum_add(csum_add(0, data, cut), data + cut, n - cut)), want);
    }
}

static void much_of_the_largest_does_not_overflow(void **state)
{
    static uint8_t ones[65535];
    uint64_t sum = 0;

    (void)state;
    memset(ones, 0xff, sizeof(ones));
    for (unsigned i = 0; i < 100; i++)
        sum = csum_add(sum, ones, sizeof(ones) - 1);
    assert_int_equal(csum_fold(sum), 0);
}

static void a_changed_field_changes_the_sum_as_if_added_anew(void **state)
{
    uint8_t data[20];
    uint16_t before, after;

    (void)state;
    for (unsigned v = 0; v < 65536; v += 127) {
        for (unsigned i = 0; i < sizeof(data); i++)
            data[i] = (uint8_t)(i * 7 + v);
        slow(data, sizeof(data), &before);
        after = csum_change(before, get_be16(data + 12), (uint16_t)v);
        put_be16(data + 12, (uint16_t)v);
        assert_int_equal(csum_fold(csum_add(0, data, sizeof(data))), after);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_example_of_rfc_1071_adds_up),
        cmocka_unit_test(every_length_and_split_gives_the_same),
        cmocka_unit_test(much_of_the_largest_does_not_overflow),
        cmocka_unit_test(a_changed_field_changes_the_sum_as_if_added_anew),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
