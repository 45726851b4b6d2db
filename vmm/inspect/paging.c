/* [Intel SDM vol. 3A, chapter 4, Paging] */
#include "vmm/inspect/paging.h"

#include <errno.h>

enum { PAGE_BITS = 12 };
enum { ENTRY_PRESENT = 1 << 0, ENTRY_LARGE = 1 << 7 };
enum { CR4_PSE = 1 << 4, CR4_PAE = 1 << 5, CR4_LA57 = 1 << 12, EFER_LMA = 1 << 10 };
#define CR0_PG     (1u << 31)
#define ENTRY_ADDR 0x000ffffffffff000ull

/* One way to translate. */
struct mode {
    unsigned levels, index_bits, entry_size;
    unsigned large; /* a bit for each level, 1 for the lowest, whose entries may map a page */
    uint64_t root;  /* bits of CR3 */
};

static struct mode mode_of(const struct paging *p)
{
    if (p->efer & EFER_LMA)
        return (struct mode){p->cr4 & CR4_LA57 ? 5 : 4, 9, 8, 1 << 2 | 1 << 3, ENTRY_ADDR};
    if (p->cr4 & CR4_PAE)
        return (struct mode){3, 9, 8, 1 << 2, 0xffffffe0};
    return (struct mode){2, 10, 4, p->cr4 & CR4_PSE ? 1 << 2 : 0, 0xfffff000};
}

struct paging paging_of(struct gmem *mem, const struct cpu_state *s)
{
    return (struct paging){.mem = mem, .cr0 = s->cr0, .cr3 = s->cr3, .cr4 = s->cr4, .efer = s->efer};
}

int paging_walk(const struct paging *p, uint64_t addr, gpa_t *ret, uint64_t *left)
{
    struct mode m = mode_of(p);
    uint64_t table = p->cr3 & m.root;

    if (!(p->efer & EFER_LMA))
        addr = (uint32_t)addr;
    if (!(p->cr0 & CR0_PG)) {
        *ret = addr;
        *left = (1ull << 32) - addr;
        return 0;
    }
    for (unsigned level = m.levels; level; level--) {
        unsigned shift = PAGE_BITS + (level - 1) * m.index_bits;
        uint64_t entry = 0, size = 1ull << shift;

        if (gmem_read(p->mem, table + (addr >> shift & ((1u << m.index_bits) - 1)) * m.entry_size, &entry,
                      m.entry_size))
            return -EFAULT;
        if (!(entry & ENTRY_PRESENT))
            return -EFAULT;
        if (level == 1 || (entry & ENTRY_LARGE && m.large & 1u << level)) {
            uint64_t base = entry & ENTRY_ADDR & ~(size - 1);

            if (m.entry_size == 4 && level == 2) /* 4 MiB: bits 13 to 20 are the address's 32 to 39 */
                base |= (entry >> 13 & 0xff) << 32;
            *ret = base | (addr & (size - 1));
            *left = size - (addr & (size - 1));
            return 0;
        }
        table = entry & ENTRY_ADDR;
    }
    return -EFAULT;
}

/* Where the first of `n` bytes lie, and how many of them in one piece. */
static int piece_at(const struct paging *p, uint64_t addr, size_t n, gpa_t *at, size_t *piece)
{
    uint64_t left;
    int rc = paging_walk(p, addr, at, &left);

    if (!rc)
        *piece = min_u64(n, left);
    return rc;
}

int paging_read(const struct paging *p, uint64_t addr, void *dst, size_t n)
{
    uint8_t *to = dst;
    size_t piece;
    gpa_t at;

    for (; n; addr += piece, to += piece, n -= piece)
        if (piece_at(p, addr, n, &at, &piece) || gmem_read(p->mem, at, to, piece))
            return -EFAULT;
    return 0;
}

int paging_write(const struct paging *p, uint64_t addr, const void *src, size_t n)
{
    const uint8_t *from = src;
    size_t piece;
    gpa_t at;

    for (; n; addr += piece, from += piece, n -= piece)
        if (piece_at(p, addr, n, &at, &piece) || gmem_write(p->mem, at, from, piece))
            return -EFAULT;
    return 0;
}
