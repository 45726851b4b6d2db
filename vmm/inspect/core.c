#include "vmm/inspect/core.h"

#include <elf.h>
#include <errno.h>
#include <sys/procfs.h>
#include <unistd.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/file.h"

enum { PAGE = 4096, LARGE_PAGE = 2 << 20, CHUNK = 256 << 10, STACK_PAGES = 4, MODULE_PIECES = 8192 };
#define IMAGE_MAP    0xffffffff80000000ull
#define IMAGE_MAX    GiB(1)
#define MODULES      (IMAGE_MAP + (512 << 20)) /* or, with KASLR, behind IMAGE_MAX */
#define MODULES_END  0xffffffffff000000ull
#define DIRECT_MAP   0xffff888000000000ull /* without KASLR, of four levels; of five: */
#define DIRECT_MAP_5 0xff11000000000000ull

struct core {
    const struct gmem_range *ranges;
    unsigned nranges;
    const struct spare *spare; /* pages that are left out; NULL: none */
    uint64_t direct;           /* where the kernel has physical 0 */
    uint64_t data;             /* where memory begins in the file */
    Elf64_Phdr *ph;
    unsigned nph;
};

struct notes {
    uint8_t *p;
    size_t len;
};

static void add_note(struct notes *to, const char *name, uint32_t type, const void *desc, size_t len)
{
    Elf64_Nhdr head = {.n_namesz = (uint32_t)strlen(name) + 1, .n_descsz = (uint32_t)len, .n_type = type};
    size_t name_len = align_up(head.n_namesz, 4), total = sizeof(head) + name_len + align_up(len, 4);
    uint8_t *p = realloc(to->p, to->len + total);

    if (!p)
        abort();
    to->p = p;
    p += to->len;
    memset(p, 0, total);
    memcpy(p, &head, sizeof(head));
    memcpy(p + sizeof(head), name, head.n_namesz);
    memcpy(p + sizeof(head) + name_len, desc, len);
    to->len += total;
}

static void add_cpu(struct notes *to, unsigned cpu, const struct cpu_state *s)
{
    enum { RAX, RBX, RCX, RDX, RSI, RDI }; /* in cpu_state.gpr */
    const uint64_t *g = s->gpr;
    const uint64_t regs[] = {g[15],
                             g[14],
                             g[13],
                             g[12],
                             g[CPU_RBP],
                             g[RBX],
                             g[11],
                             g[10],
                             g[9],
                             g[8],
                             g[RAX],
                             g[RCX],
                             g[RDX],
                             g[RSI],
                             g[RDI],
                             UINT64_MAX,
                             s->rip,
                             s->selector[CPU_CS],
                             s->rflags,
                             g[CPU_RSP],
                             s->selector[CPU_SS],
                             s->base[CPU_FS],
                             s->base[CPU_GS],
                             s->selector[CPU_DS],
                             s->selector[CPU_ES],
                             s->selector[CPU_FS],
                             s->selector[CPU_GS]};
    struct elf_prstatus status = {.pr_pid = (pid_t)cpu + 1};

    static_assert(sizeof(regs) == sizeof(status.pr_reg), "the registers of x86-64");
    memcpy(status.pr_reg, regs, sizeof(regs));
    add_note(to, "CORE", NT_PRSTATUS, &status, sizeof(status));
}

/* Where a physical address is in the file; 0: nowhere. */
static uint64_t offset_of(const struct core *c, gpa_t pa, uint64_t len)
{
    uint64_t off = c->data;

    for (unsigned i = 0; i < c->nranges; i++) {
        if (pa >= c->ranges[i].base && range_fits(pa - c->ranges[i].base, len, c->ranges[i].size))
            return off + (pa - c->ranges[i].base);
        off += c->ranges[i].size;
    }
    return 0;
}

static void add_load(struct core *c, uint64_t va, gpa_t pa, uint64_t len)
{
    uint64_t off = offset_of(c, pa, len);

    if (off)
        c->ph[c->nph++] = (Elf64_Phdr){.p_type = PT_LOAD,
                                       .p_flags = PF_R | PF_W | PF_X,
                                       .p_offset = off,
                                       .p_vaddr = va,
                                       .p_paddr = pa,
                                       .p_filesz = len,
                                       .p_memsz = len};
}

/* Its mapping is of large pages, in which parts that were freed may be holes. */
static void add_image(struct core *c, const struct vmcoreinfo *k)
{
    uint64_t start, end, left;
    gpa_t pa;

    if (!vmcoreinfo_symbol(k, "_stext", &start))
        return;
    start = end = align_down(start, LARGE_PAGE);
    for (uint64_t off = 0; off < IMAGE_MAX; off += LARGE_PAGE)
        if (paging_walk(&k->paging, start + off, &pa, &left) == 0 && pa == start + off - IMAGE_MAP + k->phys_base)
            end = start + off + LARGE_PAGE;
    add_load(c, start, start - IMAGE_MAP + k->phys_base, end - start);
}

/* Code and data of modules, in as many pieces as their pages lie in memory. */
static void add_modules(struct core *c, const struct vmcoreinfo *k)
{
    unsigned first = c->nph;

    for (uint64_t va = MODULES; va < MODULES_END && c->nph - first < MODULE_PIECES; va += PAGE) {
        Elf64_Phdr *last = &c->ph[c->nph - 1];
        uint64_t left;
        gpa_t pa;

        if (paging_walk(&k->paging, va, &pa, &left) || pa == va - IMAGE_MAP + k->phys_base)
            continue;
        if (c->nph > first && last->p_vaddr + last->p_filesz == va &&
            offset_of(c, pa, PAGE) == last->p_offset + last->p_filesz)
            last->p_filesz = last->p_memsz += PAGE;
        else
            add_load(c, va, pa, PAGE);
    }
}

/* Stacks that lie in vmalloc's area, page by page. */
static void add_stack(struct core *c, const struct vmcoreinfo *k, const struct cpu_state *s)
{
    uint64_t va = align_down(s->gpr[CPU_RSP], PAGE), left;
    gpa_t pa;

    for (unsigned i = 0; i < STACK_PAGES && !s->level; i++, va += PAGE)
        if (paging_walk(&k->paging, va, &pa, &left) == 0 && va - c->direct != pa)
            add_load(c, va, pa, PAGE);
}

/* By the variable that has it; else by the roots of memory's sections, which lie in it. */
static uint64_t direct_map(const struct vmcoreinfo *k, const struct symbols *s)
{
    uint64_t va, base, left;
    gpa_t pa;

    if (!k)
        return 0;
    if (s && symbols_find(s, "page_offset_base", &va) && vmcoreinfo_read(k, va, &base, sizeof(base)) == 0)
        return base;
    if (vmcoreinfo_symbol(k, "mem_section", &va) && paging_walk(&k->paging, va, &pa, &left) == 0 &&
        !((va - pa) % GiB(1)) && va < IMAGE_MAP)
        return va - pa;
    return k->paging.cr4 & 1 << 12 ? DIRECT_MAP_5 : DIRECT_MAP;
}

static bool is_left_out(const struct core *c, gpa_t pa, const uint8_t *page)
{
    static const uint8_t zeroes[PAGE];

    return (c->spare && spare_has(c->spare, pa)) || !memcmp(page, zeroes, PAGE);
}

/* The pages of a piece of memory that are to be in the file. */
static int put_pages(int fd, uint64_t off, const struct core *c, gpa_t pa, const uint8_t *data, size_t n)
{
    int rc = 0;

    for (size_t at = 0, end; at < n && !rc; at = end) {
        end = at + PAGE;
        if (is_left_out(c, pa + at, data + at))
            continue;
        while (end < n && !is_left_out(c, pa + end, data + end))
            end += PAGE;
        rc = file_write_at(fd, off + at, data + at, end - at);
    }
    return rc;
}

static int put_memory(int fd, const struct core *c, const struct gmem *mem)
{
    uint8_t *piece cleanup_free = xcalloc(1, CHUNK);
    uint64_t off = c->data;
    int rc = 0;

    for (unsigned i = 0; i < c->nranges && !rc; off += c->ranges[i++].size)
        for (uint64_t at = 0, n; at < c->ranges[i].size && !rc; at += n) {
            n = min_u64(CHUNK, c->ranges[i].size - at);
            rc = gmem_read(mem, c->ranges[i].base + at, piece, n);
            if (!rc)
                rc = put_pages(fd, off + at, c, c->ranges[i].base + at, piece, n);
        }
    if (!rc && ftruncate(fd, (off_t)off))
        rc = -errno;
    return rc;
}

static int put_all(int fd, struct core *c, const struct notes *notes, const struct gmem *mem)
{
    uint64_t at = sizeof(Elf64_Ehdr) + c->nph * sizeof(*c->ph);
    const Elf64_Ehdr eh = {
        .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
        .e_type = ET_CORE,
        .e_machine = EM_X86_64,
        .e_version = EV_CURRENT,
        .e_phoff = sizeof(eh),
        .e_ehsize = sizeof(eh),
        .e_phentsize = sizeof(*c->ph),
        .e_phnum = (uint16_t)c->nph,
    };
    int rc;

    assert(at + notes->len <= c->data);
    c->ph[0] = (Elf64_Phdr){.p_type = PT_NOTE, .p_offset = at, .p_filesz = notes->len, .p_memsz = notes->len};
    rc = file_write_at(fd, 0, &eh, sizeof(eh));
    if (!rc)
        rc = file_write_at(fd, sizeof(eh), c->ph, c->nph * sizeof(*c->ph));
    if (!rc)
        rc = file_write_at(fd, at, notes->p, notes->len);
    return rc ? rc : put_memory(fd, c, mem);
}

void core_notes(const struct cpu_state *cpus, unsigned ncpus, const struct vmcoreinfo *k, uint8_t **ret, size_t *n)
{
    struct notes notes = {.p = NULL};

    for (unsigned i = 0; i < ncpus; i++)
        if (cpus[i].activity != CPU_WAITS)
            add_cpu(&notes, i, &cpus[i]);
    if (k)
        add_note(&notes, "VMCOREINFO", 0, k->info, k->info_len);
    *ret = notes.p;
    *n = notes.len;
}

int core_write(int fd, const struct gmem *mem, const struct cpu_state *cpus, unsigned ncpus, const struct vmcoreinfo *k,
               const struct symbols *s, const struct spare *spare, struct err *err)
{
    size_t loads = 2 + GMEM_RANGES + MODULE_PIECES + STACK_PAGES * ncpus;
    struct notes notes;
    struct core c = {.spare = spare, .direct = direct_map(k, s), .nph = 1};
    int rc;

    c.nranges = gmem_ranges(mem, &c.ranges);
    c.ph = xcalloc(loads, sizeof(*c.ph));
    core_notes(cpus, ncpus, k, &notes.p, &notes.len);
    c.data = align_up(sizeof(Elf64_Ehdr) + loads * sizeof(*c.ph) + notes.len, PAGE);
    for (unsigned i = 0; i < c.nranges; i++)
        add_load(&c, c.direct + c.ranges[i].base, c.ranges[i].base, c.ranges[i].size);
    if (k)
        add_image(&c, k);
    for (unsigned i = 0; k && i < ncpus; i++)
        add_stack(&c, k, &cpus[i]);
    if (k)
        add_modules(&c, k);
    rc = put_all(fd, &c, &notes, mem);
    free(notes.p);
    free(c.ph);
    return rc ? err_set(err, -rc, "core: %s", strerror(-rc)) : 0;
}
