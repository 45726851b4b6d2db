#include "vmm/base/test.h"
#include "vmm/mem/gmem.h"

#include <fcntl.h>
#include <sys/mman.h>

#include "vmm/base/cleanup.h"

static struct gmem *ram(uint64_t size, enum gmem_backing backing)
{
    struct gmem *m;
    struct err err;

    if (gmem_create(size, backing, 0, &m, &err))
        fail_msg("%s", err.msg);
    return m;
}

static int rd(const struct gmem *m, gpa_t gpa)
{
    uint8_t b = 0;

    return gmem_read(m, gpa, &b, 1) ? -1 : b;
}

/* A file of `pages` pages, each filled with its number from 1 on. */
static int numbered_file(unsigned pages)
{
    int fd = memfd_create("file", MFD_CLOEXEC);
    uint8_t page[4096];

    assert_true(fd >= 0);
    for (unsigned i = 0; i < pages; i++) {
        memset(page, (int)(i % 255 + 1), sizeof(page));
        assert_int_equal(write(fd, page, sizeof(page)), sizeof(page));
    }
    return fd;
}

/* Pages of ours, from `gpa` on, that take memory of the host. */
static unsigned resident(const struct gmem *m, gpa_t gpa, unsigned pages)
{
    uint8_t there[1024];
    unsigned n = 0;

    assert_true(pages <= sizeof(there));
    gmem_resident(m, gpa, pages, there);
    for (unsigned i = 0; i < pages; i++)
        n += there[i];
    return n;
}

static void small_ram_is_one_aligned_range(void **s)
{
    struct gmem *m = ram(MiB(5), GMEM_ANON);
    const struct gmem_range *r;

    (void)s;
    assert_int_equal(gmem_ranges(m, &r), 1);
    assert_int_equal(r[0].base, 0);
    assert_int_equal(r[0].size, MiB(5));
    assert_int_equal(r[0].fd, -1);
    assert_int_equal((uintptr_t)r[0].host % GMEM_ALIGN, 0);
    assert_int_equal(gmem_size(m), MiB(5));
    gmem_destroy(m);
    gmem_destroy(NULL);
}

static void big_ram_leaves_the_hole(void **s)
{
    struct gmem *m = ram(GiB(5), GMEM_SHARED);
    const struct gmem_range *r;
    uint8_t b = 1;

    (void)s;
    assert_int_equal(gmem_ranges(m, &r), 2);
    assert_int_equal(r[0].size, GMEM_LOW_MAX);
    assert_int_equal(r[1].base, GMEM_HIGH_BASE);
    assert_int_equal(r[1].size, GiB(2));
    assert_int_equal(r[1].fd, r[0].fd);
    assert_int_equal(r[1].fd_off, GMEM_LOW_MAX);
    assert_int_equal((uintptr_t)r[1].host % GMEM_ALIGN, 0);
    assert_int_equal(gmem_write(m, GMEM_LOW_MAX - 1, &b, 1), 0);
    assert_int_equal(gmem_write(m, GMEM_LOW_MAX, &b, 1), -EFAULT);
    assert_int_equal(gmem_write(m, GMEM_HIGH_BASE - 1, &b, 1), -EFAULT);
    assert_int_equal(gmem_write(m, GMEM_HIGH_BASE + GiB(2) - 1, &b, 1), 0);
    assert_int_equal(gmem_write(m, GMEM_HIGH_BASE + GiB(2), &b, 1), -EFAULT);
    gmem_destroy(m);
}

static void shared_ram_is_its_file(void **s)
{
    struct gmem *m = ram(GiB(4), GMEM_SHARED);
    const struct gmem_range *r;
    uint32_t in = 0x12345678, out = 0;

    (void)s;
    gmem_ranges(m, &r);
    assert_int_equal(gmem_write(m, GMEM_HIGH_BASE + 12, &in, 4), 0);
    assert_int_equal(pread(r[1].fd, &out, 4, (off_t)r[1].fd_off + 12), 4);
    assert_int_equal(out, in);
    assert_int_equal(ftruncate(r[0].fd, 0), -1);
    gmem_destroy(m);
}

static void bad_sizes_are_refused_by_name(void **s)
{
    struct gmem *m = NULL;
    struct err err;

    (void)s;
    assert_int_equal(gmem_create(0, GMEM_ANON, 0, &m, &err), -EINVAL);
    assert_int_equal(gmem_create(4097, GMEM_ANON, 0, &m, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "4097"));
    assert_int_equal(gmem_create(UINT64_MAX - 4095, GMEM_ANON, 0, &m, &err), -EINVAL);
    assert_int_equal(gmem_create(MiB(3), GMEM_HUGETLB, MiB(2), &m, &err), -EINVAL);
    assert_int_equal(gmem_create(MiB(3), GMEM_HUGETLB, MiB(3), &m, &err), -EINVAL);
    assert_true(gmem_create(1ull << 50, GMEM_ANON, 0, &m, &err) < 0);
    assert_non_null(strstr(err.msg, "less -m"));
    assert_null(m);
}

static void huge_pages_come_whole_or_with_a_remedy(void **s)
{
    struct gmem *m = NULL;
    struct err err;
    uint64_t v = 7;

    (void)s;
    if (gmem_create(MiB(4), GMEM_HUGETLB, MiB(2), &m, &err)) {
        assert_true(strstr(err.msg, "sysctl vm.nr_hugepages=2") || strstr(err.msg, "another backing"));
        return;
    }
    assert_int_equal(gmem_write(m, MiB(2), &v, sizeof(v)), 0);
    assert_int_equal(gmem_discard(m, MiB(2), MiB(2)), 0);
    assert_int_equal(rd(m, MiB(2)), 0);
    gmem_destroy(m);
}

static void copies_are_all_or_nothing(void **s)
{
    struct gmem *m = ram(MiB(2), GMEM_ANON);
    const gpa_t end = MiB(2);
    uint8_t buf[16];

    (void)s;
    memset(buf, 0xaa, sizeof(buf));
    assert_int_equal(gmem_write(m, end - 8, buf, 16), -EFAULT);
    assert_int_equal(rd(m, end - 8), 0);
    assert_int_equal(gmem_read(m, end - 8, buf, 16), -EFAULT);
    assert_int_equal(buf[0], 0xaa);
    assert_int_equal(gmem_read(m, UINT64_MAX - 7, buf, 16), -EFAULT);
    assert_int_equal(gmem_read(m, UINT64_MAX, buf, SIZE_MAX), -EFAULT);
    assert_int_equal(gmem_read(m, end - 16, buf, 16), 0);
    assert_int_equal(buf[15], 0);
    assert_int_equal(gmem_read(m, UINT64_MAX, buf, 0), 0);
    assert_int_equal(gmem_zero(m, end, 1), -EFAULT);
    gmem_destroy(m);
}

static void zero_touches_what_it_is_told(void **s)
{
    struct gmem *m = ram(MiB(2), GMEM_ANON);
    uint8_t ones[3 * 4096];

    (void)s;
    memset(ones, 1, sizeof(ones));
    assert_int_equal(gmem_write(m, 0, ones, sizeof(ones)), 0);
    assert_int_equal(gmem_zero(m, 5, 2 * 4096), 0);
    assert_int_equal(rd(m, 4), 1);
    assert_int_equal(rd(m, 5), 0);
    assert_int_equal(rd(m, 5 + 2 * 4096 - 1), 0);
    assert_int_equal(rd(m, 5 + 2 * 4096), 1);
    gmem_destroy(m);
}

static void spans_are_checked_once_and_work_after(void **s)
{
    struct gmem *m = ram(MiB(2), GMEM_ANON);
    struct gspan a, b;
    uint32_t v;

    (void)s;
    assert_int_equal(gmem_span(m, 0x1008, 64, 16, GMEM_READ, &a), -EFAULT);
    assert_int_equal(gmem_span(m, MiB(2) - 32, 64, 16, GMEM_READ, &a), -EFAULT);
    assert_int_equal(gmem_span(m, MiB(3), 0, 1, GMEM_READ, &a), -EFAULT);
    assert_int_equal(gmem_span(m, 0x1000, 64, 16, GMEM_WRITE, &a), 0);
    gspan_store32(a, 8, 0x11223344);
    assert_int_equal(gspan_load16(a, 10), 0x1122);
    assert_int_equal(gspan_load64(a, 8), 0x11223344);
    assert_int_equal(rd(m, 0x1008), 0x44);
    gspan_store16(a, 62, 0xbeef);
    b = gspan_sub(a, 60, 4);
    assert_int_equal(gspan_load32(b, 0), 0xbeef0000);
    gspan_put(b, 1, "\x01\x02", 2);
    gspan_get(b, 0, &v, 4);
    assert_int_equal(v, 0xbe020100);
    assert_int_equal(gspan_iov(b).iov_len, 4);
    gmem_destroy(m);
}

static void discarded_pages_read_zero(void **s)
{
    (void)s;
    for (enum gmem_backing backing = GMEM_ANON; backing <= GMEM_SHARED; backing++) {
        struct gmem *m = ram(MiB(2), backing);
        uint8_t ones[4 * 4096];

        memset(ones, 1, sizeof(ones));
        assert_int_equal(gmem_write(m, 0, ones, sizeof(ones)), 0);
        assert_int_equal(gmem_discard(m, 100, 4096), 0); /* no whole page in it */
        assert_int_equal(rd(m, 100), 1);
        assert_int_equal(gmem_discard(m, 100, 2 * 4096), 0);
        assert_int_equal(rd(m, 4095), 1);
        assert_int_equal(rd(m, 4096), 0);
        assert_int_equal(rd(m, 8191), 0);
        assert_int_equal(rd(m, 8192), 1);
        assert_int_equal(gmem_discard(m, MiB(2) - 4096, 8192), -EFAULT);
        assert_int_equal(gmem_discard(m, UINT64_MAX - 4095, 8192), -EFAULT);
        assert_int_equal(gmem_discard(m, 0, MiB(2)), 0);
        assert_int_equal(resident(m, 0, 512), 0);
        gmem_destroy(m);
    }
}

static void a_mapped_file_is_copied_on_write(void **s)
{
    struct gmem *m = ram(MiB(8), GMEM_ANON);
    cleanup_fd int fd = numbered_file(4);
    uint8_t b = 0xee, was = 0;
    struct err err;

    (void)s;
    assert_int_equal(gmem_write(m, MiB(4) - 1, &b, 1), 0); /* the huge page that the file cuts */
    assert_int_equal(gmem_write(m, MiB(4) + 4 * 4096, &b, 1), 0);
    assert_int_equal(gmem_map_file(m, MiB(4), fd, 0, 4 * 4096, &err), 0);
    assert_int_equal(rd(m, MiB(4) - 1), 0xee);
    assert_int_equal(rd(m, MiB(4)), 1);
    assert_int_equal(rd(m, MiB(4) + 4 * 4096 - 1), 4);
    assert_int_equal(rd(m, MiB(4) + 4 * 4096), 0xee);
    assert_int_equal(gmem_write(m, MiB(4), &b, 1), 0);
    assert_int_equal(rd(m, MiB(4)), 0xee);
    assert_int_equal(pread(fd, &was, 1, 0), 1);
    assert_int_equal(was, 1);
    gmem_destroy(m);
}

static void what_cannot_be_mapped_is_refused(void **s)
{
    struct gmem *m = ram(MiB(2), GMEM_ANON), *sh = ram(MiB(2), GMEM_SHARED);
    cleanup_fd int fd = numbered_file(2);
    struct err err;

    (void)s;
    assert_int_equal(gmem_map_file(sh, 0, fd, 0, 4096, &err), -EOPNOTSUPP);
    assert_int_equal(gmem_map_file(m, 0, fd, 0, 3 * 4096, &err), -ERANGE);
    assert_int_equal(gmem_map_file(m, 0, fd, 3 * 4096, 4096, &err), -ERANGE);
    assert_int_equal(gmem_map_file(m, 0, fd, UINT64_MAX - 4095, 8192, &err), -ERANGE);
    assert_int_equal(gmem_map_file(m, MiB(2) - 4096, fd, 0, 8192, &err), -EFAULT);
    assert_int_equal(gmem_map_file(m, 16, fd, 0, 4096, &err), -EINVAL);
    assert_int_equal(gmem_map_file(m, 0, -1, 0, 4096, &err), -EBADF);
    gmem_destroy(m);
    gmem_destroy(sh);
}

static void discarding_a_mapped_file_does_not_bring_it_back(void **s)
{
    struct gmem *m = ram(MiB(16), GMEM_ANON);
    cleanup_fd int fd = numbered_file(1024);
    uint8_t b = 0xee;
    struct err err;

    (void)s;
    assert_int_equal(gmem_map_file(m, MiB(8), fd, 0, MiB(4), &err), 0);
    assert_int_equal(gmem_write(m, MiB(8), &b, 1), 0);
    assert_int_equal(gmem_discard(m, MiB(8), 4096), 0); /* one page */
    assert_int_equal(rd(m, MiB(8)), 0);
    assert_int_equal(rd(m, MiB(8) + 4096), 2);
    assert_int_equal(gmem_discard(m, MiB(9), MiB(2)), 0); /* a large piece of the middle */
    assert_int_equal(rd(m, MiB(9) - 1), 256 % 255);
    assert_int_equal(rd(m, MiB(9)), 0);
    assert_int_equal(rd(m, MiB(11) - 1), 0);
    assert_int_equal(rd(m, MiB(11)), 768 % 255 + 1);
    assert_int_equal(gmem_discard(m, 0, MiB(16)), 0); /* all, as a reboot does */
    assert_int_equal(resident(m, MiB(8), 1024), 0);
    assert_int_equal(rd(m, MiB(11)), 0);
    gmem_destroy(m);
}

static void rebooting_maps_files_anew_for_ever(void **s)
{
    struct gmem *m = ram(MiB(4), GMEM_ANON);
    cleanup_fd int fd = numbered_file(2);
    struct err err;

    (void)s;
    for (int i = 0; i < 100; i++) {
        assert_int_equal(gmem_map_file(m, 0, fd, 0, 4096, &err), 0);
        assert_int_equal(gmem_map_file(m, MiB(2), fd, 4096, 4096, &err), 0);
        assert_int_equal(gmem_discard(m, 0, MiB(4)), 0);
    }
    while (!gmem_map_file(m, 0, fd, 0, 4096, &err))
        ;
    assert_int_equal(err.code, ENOSPC);
    gmem_destroy(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_ram_is_one_aligned_range),
        cmocka_unit_test(big_ram_leaves_the_hole),
        cmocka_unit_test(shared_ram_is_its_file),
        cmocka_unit_test(bad_sizes_are_refused_by_name),
        cmocka_unit_test(huge_pages_come_whole_or_with_a_remedy),
        cmocka_unit_test(copies_are_all_or_nothing),
        cmocka_unit_test(zero_touches_what_it_is_told),
        cmocka_unit_test(spans_are_checked_once_and_work_after),
        cmocka_unit_test(discarded_pages_read_zero),
        cmocka_unit_test(a_mapped_file_is_copied_on_write),
        cmocka_unit_test(what_cannot_be_mapped_is_refused),
        cmocka_unit_test(discarding_a_mapped_file_does_not_bring_it_back),
        cmocka_unit_test(rebooting_maps_files_anew_for_ever),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
