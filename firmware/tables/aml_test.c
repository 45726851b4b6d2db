#include "firmware/tables/aml.h"
#include "vmm/base/test.h"

static void assert_bytes(struct blob *b, const void *want, size_t n)
{
    assert_int_equal(b->len, n);
    assert_memory_equal(b->data, want, n);
    blob_fini(b);
}
#define assert_blob(b, ...) assert_bytes(b, (uint8_t[]){__VA_ARGS__}, sizeof((uint8_t[]){__VA_ARGS__}))

static void integers_take_the_shortest_form(void **s)
{
    struct blob b = {0};

    (void)s;
    aml_int(&b, 0);
    aml_int(&b, 1);
    aml_int(&b, 2);
    aml_int(&b, 0x100);
    aml_int(&b, 0x10000);
    aml_int(&b, 0x100000000);
    assert_blob(&b, 0x00, 0x01, 0x0a, 2, 0x0b, 0, 1, 0x0c, 0, 0, 1, 0, 0x0e, 0, 0, 0, 0, 1, 0, 0, 0);
}

static void names_are_padded(void **s)
{
    struct blob b = {0};

    (void)s;
    aml_ref(&b, "_SB");
    aml_ref(&b, "PCI0");
    assert_blob(&b, '_', 'S', 'B', '_', 'P', 'C', 'I', '0');
}

static void ids_are_packed_as_the_specification_shows(void **s)
{
    struct blob b = {0};

    (void)s;
    aml_eisa_id(&b, "PNP0A08");
    assert_blob(&b, 0x0c, 0x41, 0xd0, 0x0a, 0x08);
    aml_uuid(&b, "33db4d5b-1ff7-401c-9657-7441c03dd766");
    assert_blob(&b, 0x11, 0x13, 0x0a, 16, 0x5b, 0x4d, 0xdb, 0x33, 0xf7, 0x1f, 0x1c, 0x40, 0x96, 0x57, 0x74, 0x41, 0xc0,
                0x3d, 0xd7, 0x66);
}

/* Reads PkgLength at `at` back and says how many bytes it took. */
static size_t package_length(const struct blob *b, size_t at, size_t *ret)
{
    unsigned more = b->data[at] >> 6;

    *ret = b->data[at] & (more ? 0xf : 0x3f);
    for (unsigned i = 1; i <= more; i++)
        *ret |= (size_t)b->data[at + i] << (8 * i - 4);
    return 1 + more;
}

static void package_lengths_count_themselves_at_every_size(void **s)
{
    static const size_t sizes[] = {0, 1, 62, 63, 64, 4093, 4094, 1048572, 1048573};
    static const size_t widths[] = {1, 1, 1, 2, 2, 2, 3, 3, 4};

    (void)s;
    for (size_t i = 0; i < array_len(sizes); i++) {
        struct blob b = {0};
        size_t len, at = aml_if(&b);

        blob_zero(&b, sizes[i]);
        aml_close(&b, at);
        assert_int_equal(package_length(&b, at, &len), widths[i]);
        assert_int_equal(len, b.len - at);
        assert_int_equal(len, sizes[i] + widths[i]);
        blob_fini(&b);
    }
}

static void blocks_nest(void **s)
{
    struct blob b = {0};

    (void)s;
    size_t outer = aml_scope(&b, "_SB");
    size_t inner = aml_device(&b, "RTC");
    aml_close(&b, inner);
    aml_close(&b, outer);
    assert_blob(&b, 0x10, 12, '_', 'S', 'B', '_', 0x5b, 0x82, 5, 'R', 'T', 'C', '_');
}

static void memory_above_4_gib_gets_a_wide_descriptor(void **s)
{
    struct blob r = {0};

    (void)s;
    res_memory(&r, 0xd0000000, 0x1000);
    assert_blob(&r, 0x86, 9, 0, 1, 0, 0, 0, 0xd0, 0, 0x10, 0, 0);
    res_memory(&r, GiB(8), 0x1000);
    assert_int_equal(r.data[0], 0x8a);
    assert_int_equal(get_le64(r.data + 14), GiB(8));
    assert_int_equal(get_le64(r.data + 22), GiB(8) + 0xfff);
    assert_int_equal(get_le64(r.data + 38), 0x1000);
    assert_int_equal(r.len, 46);
    blob_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_take_the_shortest_form),
        cmocka_unit_test(names_are_padded),
        cmocka_unit_test(ids_are_packed_as_the_specification_shows),
        cmocka_unit_test(package_lengths_count_themselves_at_every_size),
        cmocka_unit_test(blocks_nest),
        cmocka_unit_test(memory_above_4_gib_gets_a_wide_descriptor),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
