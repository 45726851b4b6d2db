#include "vmm/inspect/core.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/procfs.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"
#include "vmm/inspect/fake_kernel.h"

#define DIRECT 0xffff912300000000ull /* where this kernel has its direct map */

struct world {
    struct gmem *mem;
    struct vmcoreinfo k;
    struct symbols sym;
    struct cpu_state cpus[3];
    struct spare spare;
    int fd;
    struct stat st;
    const uint8_t *file;
};

static int setup(void **s)
{
    struct world *w = xcalloc(1, sizeof(*w));

    w->mem = fake_kernel_create();
    assert_int_equal(vmcoreinfo_find(w->mem, &w->k), 0);
    assert_int_equal(symbols_read(&w->k, &w->sym), 0);
    assert_int_equal(symbols_add(&w->sym, FAKE_IMAGE + 0x1e0000, "page_offset_base"), 0);
    symbols_sort(&w->sym);
    fake_put64(w->mem, 0x1e0000, DIRECT);
    /* CPU 0's stack is in vmalloc's area, CPU 1 runs a program, CPU 2 waits. */
    fake_put64(w->mem, FAKE_TABLES + 8 * 402, (FAKE_TABLES + 0x3000) | 1);
    fake_put64(w->mem, FAKE_TABLES + 0x3000, (FAKE_TABLES + 0x4000) | 1);
    fake_put64(w->mem, FAKE_TABLES + 0x4000, (FAKE_TABLES + 0x5000) | 1);
    fake_put64(w->mem, FAKE_TABLES + 0x5000 + 8 * 7, FAKE_STACK | 1);
    /* Two pages of modules, which are apart in memory. */
    fake_put64(w->mem, FAKE_TABLES + 0x1000 + 8 * 511, (FAKE_TABLES + 0x6000) | 1);
    fake_put64(w->mem, FAKE_TABLES + 0x6000, (FAKE_TABLES + 0x7000) | 1);
    fake_put64(w->mem, FAKE_TABLES + 0x7000, FAKE_TEXT | 1);
    fake_put64(w->mem, FAKE_TABLES + 0x7000 + 8, FAKE_STACK | 1);
    w->cpus[0] = (struct cpu_state){.rip = 0x1111, .rflags = 0x46, .selector[CPU_CS] = 0x10, .base[CPU_GS] = 0x7777};
    w->cpus[0].gpr[0] = 0xaaaa;
    w->cpus[0].gpr[CPU_RSP] = 0xffffc90000007010;
    w->cpus[1] = (struct cpu_state){.rip = 0x2222, .level = 3};
    w->cpus[2] = (struct cpu_state){.activity = CPU_WAITS};
    w->fd = memfd_create("core", MFD_CLOEXEC);
    *s = w;
    return 0;
}

static int teardown(void **s)
{
    struct world *w = *s;

    if (w->file)
        munmap((void *)w->file, (size_t)w->st.st_size);
    close(w->fd);
    spare_fini(&w->spare);
    symbols_fini(&w->sym);
    vmcoreinfo_fini(&w->k);
    gmem_destroy(w->mem);
    free(w);
    return 0;
}

static void write_core(struct world *w, bool kernel, bool symbols)
{
    struct err err;
    void *p;

    if (core_write(w->fd, w->mem, w->cpus, array_len(w->cpus), kernel ? &w->k : NULL, symbols ? &w->sym : NULL,
                   w->spare.n ? &w->spare : NULL, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(fstat(w->fd, &w->st), 0);
    p = mmap(NULL, (size_t)w->st.st_size, PROT_READ, MAP_PRIVATE, w->fd, 0);
    assert_true(p != MAP_FAILED);
    w->file = p;
}

static Elf64_Phdr phdr(const struct world *w, unsigned i)
{
    Elf64_Phdr p;

    memcpy(&p, w->file + sizeof(Elf64_Ehdr) + i * sizeof(p), sizeof(p));
    return p;
}

static unsigned nphdrs(const struct world *w)
{
    Elf64_Ehdr e;

    memcpy(&e, w->file, sizeof(e));
    assert_memory_equal(e.e_ident, ELFMAG, SELFMAG);
    assert_true(e.e_type == ET_CORE && e.e_machine == EM_X86_64 && e.e_phentsize == sizeof(Elf64_Phdr));
    return e.e_phnum;
}

/* Memory at a kernel's address, as a debugger finds it; NULL: it is not in there. */
static const uint8_t *at(const struct world *w, uint64_t va)
{
    for (unsigned i = 0; i < nphdrs(w); i++) {
        Elf64_Phdr p = phdr(w, i);

        if (p.p_type == PT_LOAD && va >= p.p_vaddr && va < p.p_vaddr + p.p_filesz) {
            assert_true(range_fits(p.p_offset, p.p_filesz, (uint64_t)w->st.st_size));
            return w->file + p.p_offset + (va - p.p_vaddr);
        }
    }
    return NULL;
}

/* The i-th note: its type, and what it holds. */
static const uint8_t *note(const struct world *w, unsigned i, const char *name, uint32_t type, size_t *len)
{
    Elf64_Phdr p = phdr(w, 0);
    const uint8_t *n = w->file + p.p_offset;

    assert_int_equal(p.p_type, PT_NOTE);
    for (;; i--) {
        size_t name_len = align_up(get_le32(n), 4);

        assert_true(n < w->file + p.p_offset + p.p_filesz);
        *len = get_le32(n + 4);
        if (!i) {
            assert_int_equal(get_le32(n + 8), type);
            assert_string_equal((const char *)n + 12, name);
            return n + 12 + name_len;
        }
        n += 12 + name_len + align_up(*len, 4);
    }
}

static void each_cpu_that_was_started_has_a_note(void **s)
{
    struct world *w = *s;
    struct elf_prstatus st;
    struct user_regs_struct regs;
    const uint8_t *info;
    size_t len;

    write_core(w, true, true);
    memcpy(&st, note(w, 0, "CORE", NT_PRSTATUS, &len), sizeof(st));
    assert_int_equal(len, sizeof(st));
    memcpy(&regs, st.pr_reg, sizeof(regs));
    assert_true(regs.rip == 0x1111 && regs.rsp == 0xffffc90000007010 && regs.rax == 0xaaaa && regs.eflags == 0x46);
    assert_true(regs.cs == 0x10 && regs.gs_base == 0x7777 && st.pr_pid == 1);
    memcpy(&st, note(w, 1, "CORE", NT_PRSTATUS, &len), sizeof(st));
    memcpy(&regs, st.pr_reg, sizeof(regs));
    assert_true(regs.rip == 0x2222 && st.pr_pid == 2);
    info = note(w, 2, "VMCOREINFO", 0, &len);
    assert_int_equal(len, w->k.info_len);
    assert_memory_equal(info, w->k.info, len);
}

static void memory_is_where_the_kernel_has_it(void **s)
{
    struct world *w = *s;

    write_core(w, true, true);
    assert_memory_equal(at(w, DIRECT + FAKE_TEXT + 0x210), "\xe8", 2);
    assert_memory_equal(at(w, FAKE_IMAGE + FAKE_TEXT + 0x210), "\xe8", 2);
    assert_true(at(w, DIRECT + FAKE_TEXT) == at(w, FAKE_IMAGE + FAKE_TEXT)); /* once in the file */
    assert_int_equal(get_le64(at(w, 0xffffc90000007018)), 0x1234);           /* of the fake kernel's stack */
    assert_null(at(w, 0xffffc90000008000)); /* behind its last page nothing is mapped */
    assert_memory_equal(at(w, 0xffffffffc0000210), "\xe8", 2);
    assert_int_equal(get_le64(at(w, 0xffffffffc0001018)), 0x1234);
    assert_null(at(w, 0xffffffffc0002000));
    assert_null(at(w, DIRECT + FAKE_RAM));
    assert_null(at(w, FAKE_TEXT));
}

static void without_symbols_the_usual_place_is_assumed(void **s)
{
    struct world *w = *s;

    write_core(w, true, false);
    assert_memory_equal(at(w, 0xffff888000000000 + FAKE_TEXT + 0x210), "\xe8", 2);
    assert_memory_equal(at(w, FAKE_IMAGE + FAKE_TEXT + 0x210), "\xe8", 2);
}

static void what_is_spare_is_a_hole(void **s)
{
    struct world *w = *s;

    fake_put64(w->mem, 0x300000, 1);
    fake_put64(w->mem, 0x301000, 2);
    fake_put64(w->mem, 0x302000, 3);
    w->spare = (struct spare){.n = FAKE_RAM / 4096, .bits = xcalloc(FAKE_RAM / 4096 / 64, 8)};
    w->spare.bits[0x301 / 64] |= 1ull << 0x301 % 64;
    write_core(w, true, true);
    assert_int_equal(get_le64(at(w, DIRECT + 0x300000)), 1);
    assert_int_equal(get_le64(at(w, DIRECT + 0x301000)), 0);
    assert_int_equal(get_le64(at(w, DIRECT + 0x302000)), 3);
}

static void without_a_kernel_memory_is_at_physical_addresses(void **s)
{
    struct world *w = *s;

    write_core(w, false, false);
    assert_int_equal(nphdrs(w), 2);
    assert_memory_equal(at(w, FAKE_TEXT + 0x210), "\xe8", 2);
}

static void zeroes_take_no_room(void **s)
{
    struct world *w = *s;

    write_core(w, true, true);
    assert_true(w->st.st_size >= FAKE_RAM);
    assert_true(w->st.st_blocks * 512 < FAKE_RAM / 8);
}

static void a_file_that_cannot_be_written_is_an_error(void **s)
{
    struct world *w = *s;
    int fd cleanup_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct err err;

    assert_int_equal(core_write(fd, w->mem, w->cpus, 1, NULL, NULL, NULL, &err), -EBADF);
    assert_non_null(strstr(err.msg, "core: "));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(each_cpu_that_was_started_has_a_note),
        TEST(memory_is_where_the_kernel_has_it),
        TEST(without_symbols_the_usual_place_is_assumed),
        TEST(without_a_kernel_memory_is_at_physical_addresses),
        TEST(zeroes_take_no_room),
        TEST(what_is_spare_is_a_hole),
        TEST(a_file_that_cannot_be_written_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
