#include "firmware/load/kernel.h"
#include "firmware/load/test_images.h"

enum { PAGE = KERNEL_PAGE };

/* A vmlinux of `n` bytes of `code`, with one relocation at `reloc`. */
static struct kernel unpack(const uint8_t *code, size_t n, uint32_t reloc)
{
    struct bytes b = elf64(FAKE_PHYS, FAKE_PHYS, code, n, n, 0);
    const uint32_t table[] = {0, 0, 0x80000000 + FAKE_PHYS + reloc};
    const struct setup_header hdr = {.header = 0x53726448};
    struct kernel k;
    struct err err;

    bytes_put(&b, b.n, table, sizeof(table));
    if (kernel_unpack(b.p, b.n, &hdr, &k, &err) < 0)
        fail_msg("%s", err.msg);
    bytes_free(&b);
    assert_true(kernel_valid(&k));
    return k;
}

/* In RAM lies what lay in the file, `virt` added where the relocation is. */
static void assert_placed(const struct kernel *k, const uint8_t *code, size_t n, uint32_t reloc)
{
    const uint32_t virt = MiB(6);
    uint8_t *got = malloc(n);
    struct gmem *mem;

    assert_int_equal(gmem_create(MiB(32), GMEM_SHARED, 0, &mem, NULL), 0);
    assert_int_equal(kernel_place(k, mem, MiB(2), virt, NULL), 0);
    assert_int_equal(gmem_read(mem, MiB(2), got, n), 0);
    assert_int_equal(get_le32(got + reloc), (uint32_t)(get_le32(code + reloc) + virt));
    memcpy(got + reloc, code + reloc, 4);
    assert_memory_equal(got, code, n);
    free(got);
    gmem_destroy(mem);
}

static void stretches_without_relocations_are_shared_where_they_fill_a_third_of_a_huge_page(void **s)
{
    const size_t n = MiB(2) + 200 * PAGE;
    uint8_t *code = malloc(n);
    struct kernel k;

    (void)s;
    memset(code, 0x77, n);
    k = unpack(code, n, PAGE - 2); /* over the edge of two pages */
    assert_int_equal(k.nextents, 2);
    assert_false(k.extents[0].share);
    assert_int_equal(k.extents[0].len, 2 * PAGE);
    assert_true(k.extents[1].share);
    assert_int_equal(k.extents[1].off, 2 * PAGE);
    assert_int_equal(k.extents[1].len, n - 2 * PAGE);
    assert_placed(&k, code, n, PAGE - 2);
    kernel_fini(&k);
    k = unpack(code, n, MiB(2) + 100 * PAGE); /* no stretch is too short, but they fill the second 2 MiB to a third */
    assert_int_equal(k.nextents, 3);
    assert_int_equal(k.extents[1].len, PAGE);
    assert_false(k.extents[1].share);
    assert_true(k.extents[2].share);
    assert_placed(&k, code, n, MiB(2) + 100 * PAGE);
    kernel_fini(&k);
    k = unpack(code, MiB(2) + 150 * PAGE, 8); /* here they do not */
    assert_int_equal(k.nextents, 3);
    assert_true(k.extents[1].share);
    assert_int_equal(k.extents[1].len, MiB(2) - PAGE);
    assert_false(k.extents[2].share);
    assert_int_equal(k.extents[2].len, 150 * PAGE);
    kernel_fini(&k);
    free(code);
}

static void short_stretches_are_not_shared(void **s)
{
    const size_t n = 300 * PAGE;
    uint8_t *code = malloc(n);
    struct kernel k;

    (void)s;
    memset(code, 0x77, n);
    for (size_t at = 0; at < n; at += 10 * PAGE) /* zeroes between them */
        memset(code + at, 0, PAGE);
    k = unpack(code, n, PAGE);
    for (unsigned i = 0; i < k.nextents; i++)
        assert_false(k.extents[i].share);
    assert_placed(&k, code, n, PAGE);
    kernel_fini(&k);
    free(code);
}

static void pages_of_zeroes_are_left_out(void **s)
{
    const size_t n = 64 * PAGE;
    uint8_t *code = calloc(1, n);
    struct kernel k;

    (void)s;
    code[10] = code[5 * PAGE] = code[63 * PAGE] = 1;
    k = unpack(code, n, 40 * PAGE); /* a relocated zero is no longer one */
    assert_int_equal(k.nextents, 2);
    assert_int_equal(k.extents[0].len, 6 * PAGE); /* with a gap too short to be worth it */
    assert_int_equal(k.extents[1].off, 63 * PAGE);
    assert_int_equal(k.extents[1].len, PAGE);
    assert_placed(&k, code, n, 40 * PAGE);
    kernel_fini(&k);
    free(code);
}

static void more_extents_than_there_is_room_for_become_one(void **s)
{
    const size_t n = (KERNEL_EXTENTS_MAX + 10) * 20 * PAGE;
    uint8_t *code = calloc(1, n);
    struct kernel k;

    (void)s;
    for (size_t at = 0; at < n; at += 20 * PAGE)
        code[at] = 1;
    k = unpack(code, n, 8);
    assert_int_equal(k.nextents, KERNEL_EXTENTS_MAX);
    assert_placed(&k, code, n, 8);
    kernel_fini(&k);
    free(code);
}

static void what_is_no_kernel_is_left_to_the_guest(void **s)
{
    struct bytes good = fake_vmlinux(), b;
    const struct setup_header hdr = {0};
    const uint64_t odd = FAKE_PHYS + MiB(1), far = GiB(1);
    struct kernel k;
    struct err err;

    (void)s;
    assert_int_equal(kernel_unpack((const uint8_t *)"no ELF file", 12, &hdr, &k, &err), -ENOTSUP);
    b = elf32(FAKE_PHYS, FAKE_PHYS, good.p, 100, 100);
    assert_int_equal(kernel_unpack(b.p, b.n, &hdr, &k, &err), -ENOTSUP);
    bytes_free(&b);
    b = elf64(odd, odd, good.p, 100, 100, 0);
    assert_int_equal(kernel_unpack(b.p, b.n, &hdr, &k, &err), -ENOTSUP);
    bytes_free(&b);
    b = elf64(far, far, good.p, 100, 100, 0);
    assert_int_equal(kernel_unpack(b.p, b.n, &hdr, &k, &err), -ENOTSUP);
    bytes_free(&b);
    bytes_put32(&good, good.n - 4, 0x80000000 + FAKE_PHYS + FAKE_MEMSZ - 3); /* a relocation over the end */
    assert_int_equal(kernel_unpack(good.p, good.n, &hdr, &k, &err), -ENOTSUP);
    bytes_free(&good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stretches_without_relocations_are_shared_where_they_fill_a_third_of_a_huge_page),
        cmocka_unit_test(short_stretches_are_not_shared),
        cmocka_unit_test(pages_of_zeroes_are_left_out),
        cmocka_unit_test(more_extents_than_there_is_room_for_become_one),
        cmocka_unit_test(what_is_no_kernel_is_left_to_the_guest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
