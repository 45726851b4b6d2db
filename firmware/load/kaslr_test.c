#include "firmware/load/kernel.h"
#include "vmm/base/test.h"

static struct reloc_table parse(const uint32_t *words, size_t n)
{
    struct reloc_table t;

    assert_int_equal(reloc_table_parse((const uint8_t *)words, n * 4, &t), 0);
    return t;
}

static void no_table_means_no_relocations(void **s)
{
    struct reloc_table t = parse(NULL, 0);

    (void)s;
    assert_int_equal(t.n[RELOC_32] + t.n[RELOC_INVERSE32] + t.n[RELOC_64], 0);
}

static void lists_are_64_bit_inverse_and_32_bit(void **s)
{
    static const uint32_t words[] = {0, 1, 2, 3, 0, 4, 0, 5, 6};
    struct reloc_table t = parse(words, array_len(words));

    (void)s;
    assert_int_equal(t.n[RELOC_64], 3);
    assert_int_equal(t.n[RELOC_INVERSE32], 1);
    assert_int_equal(t.n[RELOC_32], 2);
    assert_int_equal(get_le32(t.p[RELOC_64]), 1);
    assert_int_equal(get_le32(t.p[RELOC_INVERSE32]), 4);
    assert_int_equal(get_le32(t.p[RELOC_32] + 4), 6);
}

static void newer_kernels_have_no_inverse_list(void **s)
{
    static const uint32_t words[] = {0, 1, 2, 0, 5};
    struct reloc_table t = parse(words, array_len(words));

    (void)s;
    assert_int_equal(t.n[RELOC_64], 2);
    assert_int_equal(t.n[RELOC_INVERSE32], 0);
    assert_int_equal(t.n[RELOC_32], 1);
    assert_int_equal(get_le32(t.p[RELOC_32]), 5);
}

static void lists_may_be_empty(void **s)
{
    static const uint32_t words[] = {0, 0, 0};
    struct reloc_table t = parse(words, array_len(words));

    (void)s;
    assert_int_equal(t.n[RELOC_32] + t.n[RELOC_INVERSE32] + t.n[RELOC_64], 0);
}

static void other_forms_are_not_believed(void **s)
{
    static const uint32_t four[] = {0, 1, 0, 2, 0, 3, 0, 4}, one[] = {0, 1, 2}, late[] = {9, 0, 1, 0, 2, 0, 3};
    struct reloc_table t;

    (void)s;
    assert_int_equal(reloc_table_parse((const uint8_t *)four, sizeof(four), &t), -ENOTSUP);
    assert_int_equal(reloc_table_parse((const uint8_t *)one, sizeof(one), &t), -ENOTSUP);
    assert_int_equal(reloc_table_parse((const uint8_t *)late, sizeof(late), &t), -ENOTSUP);
    assert_int_equal(reloc_table_parse((const uint8_t *)four, sizeof(four) - 1, &t), -ENOTSUP);
}

static void words_are_sign_extended_virtual_addresses(void **s)
{
    (void)s;
    assert_int_equal(reloc_offset(0x81000000, MiB(16)), 0);
    assert_int_equal(reloc_offset(0x81234567, MiB(16)), 0x234567);
    assert_true(reloc_offset(0x80ffffff, MiB(16)) > KERNEL_SPAN_MAX);
    assert_true(reloc_offset(0x7fffffff, 0) > KERNEL_SPAN_MAX);
    assert_true(reloc_offset(0, 0) > KERNEL_SPAN_MAX);
}

static struct kernel kernel_of(uint64_t memsz, uint32_t relocs)
{
    return (struct kernel){.hdr = {.kernel_alignment = MiB(2), .relocatable_kernel = 1, .init_size = (uint32_t)memsz},
                           .phys = MiB(16),
                           .memsz = memsz,
                           .nrelocs = {relocs},
                           .fd = -1};
}

static struct load load_with(const struct e820_entry *map, unsigned n)
{
    struct load ld = {0};

    room_init(&ld.room, map, n);
    return ld;
}

static void choice_is_what_fits(void **s)
{
    /* Room for the kernel at 16 MiB and at 18 MiB. */
    const struct e820_entry map[] = {{.base = MiB(1), .size = MiB(29), .type = 1}};
    struct kernel k = kernel_of(MiB(12), 1);
    unsigned seen = 0;

    (void)s;
    for (int i = 0; i < 100; i++) {
        struct load ld = load_with(map, 1);
        uint64_t virt;
        gpa_t base;

        assert_int_equal(kaslr_choose(&ld, &k, "kernel", true, &base, &virt, NULL), 0);
        assert_true(base == MiB(16) || base == MiB(18));
        assert_true(virt % MiB(2) == 0 && virt <= GiB(1) - MiB(28));
        assert_false(room_has(&ld.room, base, 1) || room_has(&ld.room, base + MiB(12) - 1, 1));
        seen |= base == MiB(16) ? 1 : 2;
    }
    assert_int_equal(seen, 3);
}

static void kernel_without_relocations_keeps_its_virtual_address(void **s)
{
    const struct e820_entry map[] = {{.base = MiB(1), .size = MiB(511), .type = 1}};
    struct kernel k = kernel_of(MiB(12), 0);
    struct load ld = load_with(map, 1);
    uint64_t virt;
    gpa_t base;

    (void)s;
    assert_int_equal(kaslr_choose(&ld, &k, "kernel", true, &base, &virt, NULL), 0);
    assert_int_equal(virt, 0);
}

static void kernel_that_cannot_move_stays(void **s)
{
    const struct e820_entry map[] = {{.base = MiB(1), .size = MiB(511), .type = 1}};
    struct kernel k = kernel_of(MiB(12), 0);
    struct load ld = load_with(map, 1);
    uint64_t virt;
    gpa_t base;

    (void)s;
    k.hdr.relocatable_kernel = 0;
    assert_int_equal(kaslr_choose(&ld, &k, "kernel", true, &base, &virt, NULL), 0);
    assert_int_equal(base, MiB(16));
}

static void largest_kernel_has_one_virtual_place(void **s)
{
    const struct e820_entry map[] = {{.base = MiB(1), .size = GiB(2), .type = 1}};
    struct kernel k = kernel_of(GiB(1) - MiB(16), 1);
    struct load ld = load_with(map, 1);
    uint64_t virt;
    gpa_t base;

    (void)s;
    assert_int_equal(kaslr_choose(&ld, &k, "kernel", true, &base, &virt, NULL), 0);
    assert_int_equal(virt, 0);
}

/* Close together, over the edges of pages, far apart, to the last byte; and not ascending, as a damaged file has them.
 */
static void each_relocation_is_applied_once(void **s)
{
    enum { SIZE = 64 << 10, VIRT = 0x600000 };
    static const uint32_t relocs[] = {0, 4, 4094, 4098, 8188, 40000, 65532, 20000, 19992, 200, 12284, 65528 - 8};
    struct kernel k = kernel_of(SIZE, 8); /* the first 8; then one of the inverse ones, then three of 64 bits */
    struct gmem *mem;
    struct gspan span;
    uint8_t word[8];

    (void)s;
    k.nrelocs[RELOC_INVERSE32] = 1;
    k.nrelocs[RELOC_64] = 3;
    k.relocs = relocs;
    assert_int_equal(gmem_create(SIZE, GMEM_ANON, 0, &mem, NULL), 0);
    assert_int_equal(gmem_span(mem, 0, SIZE, KERNEL_PAGE, GMEM_WRITE, &span), 0);
    kaslr_relocate(&k, span, VIRT);
    for (unsigned i = 0; i < array_len(relocs); i++) {
        gspan_get(span, relocs[i], word, i < 9 ? 4 : 8);
        if (i < 9)
            assert_int_equal(get_le32(word), i < 8 ? (uint32_t)VIRT : (uint32_t)-VIRT);
        else
            assert_int_equal(get_le64(word), VIRT);
        gspan_put(span, relocs[i], "\0\0\0\0\0\0\0", i < 9 ? 4 : 8);
    }
    for (unsigned at = 0; at < SIZE; at += 8) { /* nothing else has changed */
        gspan_get(span, at, word, 8);
        assert_int_equal(get_le64(word), 0);
    }
    gmem_destroy(mem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_table_means_no_relocations),
        cmocka_unit_test(lists_are_64_bit_inverse_and_32_bit),
        cmocka_unit_test(newer_kernels_have_no_inverse_list),
        cmocka_unit_test(lists_may_be_empty),
        cmocka_unit_test(other_forms_are_not_believed),
        cmocka_unit_test(words_are_sign_extended_virtual_addresses),
        cmocka_unit_test(choice_is_what_fits),
        cmocka_unit_test(kernel_without_relocations_keeps_its_virtual_address),
        cmocka_unit_test(kernel_that_cannot_move_stays),
        cmocka_unit_test(largest_kernel_has_one_virtual_place),
        cmocka_unit_test(each_relocation_is_applied_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
