#include "vmm/inspect/kdump.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/procfs.h>
#include <sys/stat.h>
#include <zlib.h>

#include "vmm/inspect/fake_world.h"

enum { PAGE = 4096, PAGES = FAKE_RAM / PAGE };

/* Where the format has it. */
enum {
    HEAD_RELEASE = 12 + 2 * 65,
    HEAD_STATUS = 424,
    HEAD_SUB_BLOCKS = 432,
    HEAD_BITMAP_BLOCKS = 436,
    HEAD_NCPUS = 460
};
enum { SUB_INFO = PAGE + 32, SUB_NOTES = PAGE + 48, SUB_PAGES = PAGE + 96 };

struct dump {
    const uint8_t *p;
    size_t n;
};

static struct dump dump(struct fake_world *w, const struct spare *spare)
{
    const struct cpu_state cpus[2] = {{.rip = 0x1111}, {.activity = CPU_WAITS}};
    int fd cleanup_fd = memfd_create("dump", MFD_CLOEXEC);
    struct stat st;
    struct err err;
    void *p;

    if (kdump_write(fd, w->mem, cpus, array_len(cpus), &w->k, spare, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(fstat(fd, &st), 0);
    p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    assert_true(p != MAP_FAILED);
    return (struct dump){p, (size_t)st.st_size};
}

static uint64_t bitmaps_at(const struct dump *d)
{
    return PAGE * (1ull + get_le32(d->p + HEAD_SUB_BLOCKS));
}

/* Its descriptor; NULL: it is not in there. */
static const uint8_t *desc_of(const struct dump *d, uint64_t page)
{
    uint64_t at = bitmaps_at(d), len = (uint64_t)get_le32(d->p + HEAD_BITMAP_BLOCKS) * PAGE, before = 0;
    const uint8_t *dumped = d->p + at + len / 2;

    assert_true(d->p[at + page / 8] >> page % 8 & 1);
    for (uint64_t i = 0; i < page; i++)
        before += dumped[i / 8] >> i % 8 & 1;
    return dumped[page / 8] >> page % 8 & 1 ? d->p + at + len + 24 * before : NULL;
}

static void check_page(const struct dump *d, struct fake_world *w, uint64_t page)
{
    const uint8_t *desc = desc_of(d, page);
    uint8_t want[PAGE], got[PAGE];
    uLongf n = PAGE;

    assert_non_null(desc);
    assert_true(range_fits(get_le64(desc), get_le32(desc + 8), d->n));
    assert_int_equal(gmem_read(w->mem, page * PAGE, want, PAGE), 0);
    if (get_le32(desc + 12))
        assert_int_equal(uncompress(got, &n, d->p + get_le64(desc), get_le32(desc + 8)), Z_OK);
    else
        memcpy(got, d->p + get_le64(desc), PAGE);
    assert_int_equal(n, PAGE);
    assert_memory_equal(got, want, PAGE);
}

static void heads_and_notes_are_in_place(void **state)
{
    struct fake_world *w = *state;
    struct dump d = dump(w, NULL);
    struct elf_prstatus st;
    struct user_regs_struct regs;

    assert_memory_equal(d.p, "KDUMP   \6\0\0\0Linux", 18);
    assert_string_equal((const char *)d.p + HEAD_RELEASE, "6.1.0-test");
    assert_int_equal(get_le32(d.p + HEAD_STATUS), 1);
    assert_int_equal(get_le32(d.p + HEAD_NCPUS), 2);
    assert_int_equal(get_le64(d.p + SUB_PAGES), PAGES);
    assert_int_equal(get_le64(d.p + SUB_INFO + 8), w->k.info_len);
    assert_memory_equal(d.p + get_le64(d.p + SUB_INFO), w->k.info, w->k.info_len);
    assert_string_equal((const char *)d.p + get_le64(d.p + SUB_NOTES) + 12, "CORE");
    memcpy(&st, d.p + get_le64(d.p + SUB_NOTES) + 20, sizeof(st));
    memcpy(&regs, st.pr_reg, sizeof(regs));
    assert_int_equal(regs.rip, 0x1111);
    munmap((void *)d.p, d.n);
}

static void pages_come_back(void **state)
{
    struct fake_world *w = *state;
    uint8_t noise[PAGE];
    struct dump d;

    for (size_t i = 0; i < PAGE; i++)
        noise[i] = (uint8_t)(i * i * 2654435761u >> 13);
    fake_put(w->mem, 0x300000, noise, PAGE); /* it does not get smaller */
    d = dump(w, NULL);
    for (uint64_t page = 0; page < PAGES; page++)
        check_page(&d, w, page);
    assert_true(get_le64(desc_of(&d, 0x3f0)) == get_le64(desc_of(&d, 0x3f1))); /* zeroes are there once */
    assert_true(d.n < FAKE_RAM / 8);
    munmap((void *)d.p, d.n);
}

static void what_is_spare_is_not_in_it(void **state)
{
    struct fake_world *w = *state;
    struct spare spare = {.n = PAGES, .bits = xcalloc(PAGES / 64, 8)};
    struct dump d;

    spare.bits[0] = 1ull << 5;
    d = dump(w, &spare);
    for (uint64_t page = 0; page < PAGES; page++)
        if (page == 5)
            assert_null(desc_of(&d, page));
        else
            check_page(&d, w, page);
    spare_fini(&spare);
    munmap((void *)d.p, d.n);
}

static void a_file_that_cannot_be_written_is_an_error(void **state)
{
    struct fake_world *w = *state;
    int fd cleanup_fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    struct err err;

    assert_int_equal(kdump_write(fd, w->mem, NULL, 0, &w->k, NULL, &err), -ENOSPC);
    assert_non_null(strstr(err.msg, "core: "));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fake_world_setup, fake_world_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(heads_and_notes_are_in_place),
        TEST(pages_come_back),
        TEST(what_is_spare_is_not_in_it),
        TEST(a_file_that_cannot_be_written_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
