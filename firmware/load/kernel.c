#include "firmware/load/kernel.h"

#include <inttypes.h>
#include <stdlib.h>

#include "firmware/load/elf.h"
#include "vmm/base/cleanup.h"

/*
 * What is mapped from the cache, and what is copied.  A stock kernel rewrites nearly every page of its text while it
 * boots (alternatives, call thunks, trace points): mapped, such a page costs two faults of 4 KiB and is private in the
 * end; copied, it is part of a huge page.  What stays as it is are long stretches without any address in them: type
 * and unwind tables, tables of constants, padding.  They are as long with KASLR as without, and all guests share them.
 * A mapping also takes the huge page from its neighbours in the same 2 MiB, which the guest may fill page by page (gaps
 * between segments, bss): it must be worth that.
 */
enum {
    FRAME = 512,           /* pages of a huge page */
    FRAME_MIN = FRAME / 3, /* so many of them must be shared, in runs of RUN_MIN; with less, none are */
    RUN_MIN = 16,
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

/* What becomes of a page. */
enum { PAGE_ZERO, PAGE_COPIED, PAGE_SHARED };

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

static void copy_page(uint8_t *page)
{
    if (*page == PAGE_SHARED)
        *page = PAGE_COPIED;
}

/* Of the pages of one frame, those that are worth it stay shared. */
static void judge_frame(uint8_t *page)
{
    unsigned total = 0;

    for (unsigned i = 0, n; i < FRAME; i += n + 1) {
        for (n = 0; i + n < FRAME && page[i + n] == PAGE_SHARED; n++)
            ;
        total += n < RUN_MIN ? 0 : n;
        for (unsigned j = i; n < RUN_MIN && j < i + n; j++)
            copy_page(&page[j]);
    }
    for (unsigned i = 0; total < FRAME_MIN && i < FRAME; i++)
        copy_page(&page[i]);
}

/* Finds what is not zero among the first `n` bytes, and what of that is to be shared. */
static void find_extents(struct kernel *k, uint64_t n)
{
    uint64_t npages = n / KERNEL_PAGE, frames = (npages + FRAME - 1) / FRAME;
    cleanup_free uint8_t *page = xcalloc(max_u64(k->memsz / KERNEL_PAGE, frames * FRAME), sizeof(*page));
    const uint32_t *r = k->relocs;

    for (uint64_t i = 0; i < npages; i++)
        page[i] = all_zero(k->data + i * KERNEL_PAGE, KERNEL_PAGE) ? PAGE_ZERO : PAGE_SHARED;
    for (unsigned kind = 0; kind < RELOC_KINDS; kind++) {
        for (uint32_t i = 0; i < k->nrelocs[kind]; i++, r++) {
            copy_page(&page[*r / KERNEL_PAGE]);
            copy_page(&page[(*r + reloc_width(kind) - 1) / KERNEL_PAGE]);
        }
    }
    for (uint64_t f = 0; f < frames; f++)
        judge_frame(page + f * FRAME);
    for (uint64_t i = 0, end; i < npages; i = end) {
        for (end = i + 1; end < npages && page[end] == page[i]; end++)
            ;
        if (page[i] != PAGE_ZERO)
            add_extent(k, i * KERNEL_PAGE, (end - i) * KERNEL_PAGE, page[i] == PAGE_SHARED);
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
