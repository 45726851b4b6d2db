#include "firmware/load/kernel.h"

#include <inttypes.h>
#include <stdlib.h>

#include "firmware/load/elf.h"
#include "vmm/base/cleanup.h"

/*
 * What is mapped from the cache, and what is copied.  A stock kernel rewrites nearly every page of its text while it
 * boots (alternatives, call thunks, trace points): mapped, such a page costs two faults of 4 KiB and is private in the
 * end; copied, it is part of a huge page.  What stays as it is are long stretches without any address in them: type
 * and unwind tables, tables of constants.  They are as long with KASLR as without, and all guests share them.
 */
enum {
    SHARE_MIN = 256 << 10,
    GAP_MIN = 64 << 10,  /* shorter runs of zero pages stay in an extent */
    GAPS_MAX = 32 << 20, /* more between segments is not believed: it would only be searched for nothing */
};

uint32_t kernel_relocs(const struct kernel *k)
{
    return k->nrelocs[RELOC_32] + k->nrelocs[RELOC_INVERSE32] + k->nrelocs[RELOC_64];
}

void kernel_fini(struct kernel *k)
{
    buf_free(&k->map);
    if (k->fd >= 0)
        close(k->fd);
    *k = KERNEL_NONE;
}

bool kernel_valid(const struct kernel *k)
{
    const uint32_t *r = k->relocs;
    uint64_t end = 0;

    if (k->memsz == 0 || k->memsz > KERNEL_SPAN_MAX || k->memsz % KERNEL_PAGE || k->phys % MiB(2) ||
        k->phys > KERNEL_SPAN_MAX - k->memsz || k->entry >= k->memsz || k->nextents > KERNEL_EXTENTS_MAX)
        return false;
    for (unsigned i = 0; i < k->nextents; i++) {
        const struct extent *x = &k->extents[i];

        if ((x->off | x->pos | x->len) % KERNEL_PAGE || x->len == 0 || x->off < end ||
            !range_fits(x->off, x->len, k->memsz) || !range_fits(x->pos, x->len, k->map.n) || x->share > 1)
            return false;
        end = x->off + x->len;
    }
    for (unsigned kind = 0; kind < RELOC_KINDS; kind++) {
        for (uint32_t i = 0; i < k->nrelocs[kind]; i++) {
            if (!range_fits(*r++, reloc_width(kind), k->memsz))
                return false;
        }
    }
    return true;
}

static bool all_zero(const uint8_t *p, size_t n)
{
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* A segment's bytes into the kernel's, page by page; pages of zeroes are left untouched. */
static void put_segment(uint8_t *kernel, uint64_t at, const uint8_t *src, uint64_t n)
{
    while (n > 0) {
        uint64_t part = min_u64(n, KERNEL_PAGE - at % KERNEL_PAGE);

        if (!all_zero(src, part))
            memcpy(kernel + at, src, part);
        at += part;
        src += part;
        n -= part;
    }
}

static void add_extent(struct kernel *k, uint64_t off, uint64_t len, bool share)
{
    struct extent *last = k->nextents ? &k->extents[k->nextents - 1] : NULL;
    bool near = last && !last->share && !share && off - (last->off + last->len) < GAP_MIN;

    if (near || k->nextents == KERNEL_EXTENTS_MAX) {
        last->len = off + len - last->off;
        last->share = false;
        return;
    }
    k->extents[k->nextents++] = (struct extent){.off = off, .pos = off, .len = len, .share = share};
}

/* Finds what is not zero among the first `n` bytes, and what of that no relocation touches. */
static void find_extents(struct kernel *k, uint64_t n)
{
    cleanup_free bool *moves = xcalloc(k->memsz / KERNEL_PAGE, sizeof(*moves));
    const uint32_t *r = k->relocs;
    uint64_t end;

    for (unsigned kind = 0; kind < RELOC_KINDS; kind++) {
        for (uint32_t i = 0; i < k->nrelocs[kind]; i++, r++)
            moves[*r / KERNEL_PAGE] = moves[(*r + reloc_width(kind) - 1) / KERNEL_PAGE] = true;
    }
    for (uint64_t at = 0; at < n; at = end) {
        for (end = at; end < n && !moves[end / KERNEL_PAGE] && !all_zero(k->data + end, KERNEL_PAGE);)
            end += KERNEL_PAGE;
        if (end > at) {
            add_extent(k, at, end - at, end - at >= SHARE_MIN);
            continue;
        }
        if (!all_zero(k->data + at, KERNEL_PAGE))
            add_extent(k, at, KERNEL_PAGE, false);
        end = at + KERNEL_PAGE;
    }
}

static int compare_u32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

/* The table's words as offsets, checked, at `to`. */
static int convert_relocs(struct kernel *k, const struct reloc_table *t, uint32_t *to)
{
    k->relocs = to;
    for (unsigned kind = 0; kind < RELOC_KINDS; kind++) {
        for (uint32_t i = 0; i < t->n[kind]; i++) {
            uint64_t off = reloc_offset(get_le32(t->p[kind] + i * 4), k->phys);

            if (!range_fits(off, reloc_width(kind), k->memsz))
                return -EINVAL;
            to[i] = (uint32_t)off;
        }
        qsort(to, t->n[kind], sizeof(*to), compare_u32);
        to += t->n[kind];
        k->nrelocs[kind] = t->n[kind];
    }
    return 0;
}

/* Extent of all segments in memory and of their bytes from files, relative to the lowest. */
static void measure(const struct elf *elf, struct kernel *k, uint64_t *filled)
{
    uint64_t end = 0, file_end = 0;

    k->phys = UINT64_MAX;
    for (unsigned i = 0; i < elf->nsegs; i++) {
        const struct elf_seg *s = &elf->segs[i];

        k->phys = min_u64(k->phys, s->paddr);
        end = max_u64(end, s->paddr + s->memsz);
        file_end = max_u64(file_end, s->paddr + s->filesz);
    }
    k->memsz = end - k->phys;
    *filled = file_end - k->phys;
}

int kernel_unpack(const uint8_t *vmlinux, size_t n, const struct setup_header *hdr, struct kernel *ret, struct err *err)
{
    const struct image im = {.name = "vmlinux", .size = n, .mem = vmlinux, .fd = -1};
    struct kernel k = KERNEL_NONE;
    struct reloc_table table;
    struct elf elf;
    uint64_t filled;
    int rc = elf_parse(&im, &elf, err);

    if (rc < 0 || !elf.is64)
        return err_set(err, ENOTSUP, "payload is not a 64-bit ELF file");
    if (reloc_table_parse(vmlinux + elf.end, n - elf.end, &table) < 0)
        return err_set(err, ENOTSUP, "relocations have an unknown form");
    measure(&elf, &k, &filled);
    if (k.memsz > KERNEL_SPAN_MAX || filled > n + GAPS_MAX || k.phys % MiB(2) || k.phys > KERNEL_SPAN_MAX - k.memsz ||
        elf.entry < k.phys || elf.entry - k.phys >= k.memsz)
        return err_set(err, ENOTSUP, "segments at 0x%" PRIx64 " with 0x%" PRIx64 " bytes are no kernel's", k.phys,
                       k.memsz);
    k.hdr = *hdr;
    k.entry = elf.entry - k.phys;
    k.memsz = align_up(k.memsz, KERNEL_PAGE);
    filled = align_up(filled, KERNEL_PAGE);
    rc = buf_alloc(&k.map, filled + (table.n[RELOC_32] + table.n[RELOC_INVERSE32] + table.n[RELOC_64]) * 4ull);
    if (rc < 0)
        return err_set(err, -rc, "no memory for %" PRIu64 " bytes of kernel", filled);
    k.data = k.map.p;
    for (unsigned i = 0; i < elf.nsegs; i++)
        put_segment(k.map.p, elf.segs[i].paddr - k.phys, vmlinux + elf.segs[i].off, elf.segs[i].filesz);
    if (convert_relocs(&k, &table, (uint32_t *)(k.map.p + filled)) < 0) {
        kernel_fini(&k);
        return err_set(err, ENOTSUP, "a relocation points outside of the kernel");
    }
    find_extents(&k, filled);
    *ret = k;
    return 0;
}

int kernel_place(const struct kernel *k, struct gmem *mem, gpa_t base, uint64_t virt, struct err *err)
{
    struct gspan s;

    if (gmem_span(mem, base, k->memsz, KERNEL_PAGE, GMEM_WRITE, &s) < 0)
        return err_set(err, EFAULT, "no guest RAM at 0x%" PRIx64 " for the kernel", base);
    for (unsigned i = 0; i < k->nextents; i++) {
        const struct extent *x = &k->extents[i];

        if (!x->share || k->fd < 0 || gmem_map_file(mem, base + x->off, k->fd, x->pos, x->len, NULL) < 0)
            gspan_put(s, x->off, k->data + x->pos, x->len);
    }
    if (virt)
        kaslr_relocate(k, s, virt);
    return 0;
}
