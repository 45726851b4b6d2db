/*
 * Memory comes in sections, found by roots of a page each [include/linux/mmzone.h, CONFIG_SPARSEMEM_EXTREME, as on all
 * x86-64]; a section says where its struct pages are, or would be if it began at page 0.  The first page of a free
 * block has a mark and the block's order; a page of a program's is on a list to be reclaimed from, and its mapping has
 * a bit that says so; the further pages of a large one point to its first.
 */
#include "vmm/inspect/spare.h"

#include <errno.h>

#include "vmm/base/cleanup.h"

enum {
    PAGE = 4096,
    SECTION_BITS_MIN = 21,
    SECTION_BITS_MAX = 40,
    STRUCT_MAX = 512, /* bytes of a struct page, or of a struct mem_section */
    ORDER_MAX = 18,   /* of a free block: 1 GiB */
    AT_ONCE = 512,    /* struct pages */
    MAP_ANON = 1,     /* in page.mapping */
    IS_TAIL = 1,      /* in page.compound_head */
};
#define SECTION_FLAGS (PAGE - 1ull) /* the map is aligned to more than these */

struct layout {
    uint64_t roots, nroots, section, section_bits, map;     /* of mem_section */
    uint64_t page, flags, mapcount, mapping, private, head; /* of struct page */
    uint64_t lru;                                           /* PG_lru */
    uint32_t free;                                          /* page._mapcount of a free block's first */
};

static bool read_layout(const struct vmcoreinfo *k, struct layout *l)
{
    const struct {
        const char *key;
        uint64_t *to, max;
    } numbers[] = {
        {"LENGTH(mem_section)", &l->nroots, UINT32_MAX},
        {"SIZE(mem_section)", &l->section, STRUCT_MAX},
        {"NUMBER(SECTION_SIZE_BITS)", &l->section_bits, SECTION_BITS_MAX},
        {"OFFSET(mem_section.section_mem_map)", &l->map, STRUCT_MAX},
        {"SIZE(page)", &l->page, STRUCT_MAX},
        {"OFFSET(page.flags)", &l->flags, STRUCT_MAX},
        {"OFFSET(page._mapcount)", &l->mapcount, STRUCT_MAX},
        {"OFFSET(page.mapping)", &l->mapping, STRUCT_MAX},
        {"OFFSET(page.private)", &l->private, STRUCT_MAX},
        {"OFFSET(page.compound_head)", &l->head, STRUCT_MAX},
        {"NUMBER(PG_lru)", &l->lru, 63},
    };
    const uint64_t *const members[] = {&l->flags, &l->mapcount, &l->mapping, &l->private, &l->head};
    uint64_t value;

    for (size_t i = 0; i < array_len(numbers); i++)
        if (!vmcoreinfo_number(k, numbers[i].key, numbers[i].to) || *numbers[i].to > numbers[i].max)
            return false;
    for (size_t i = 0; i < array_len(members); i++)
        if (!range_fits(*members[i], sizeof(uint64_t), l->page))
            return false;
    if (!vmcoreinfo_symbol(k, "mem_section", &l->roots) ||
        !vmcoreinfo_number(k, "NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)", &value))
        return false;
    l->free = (uint32_t)value;
    return l->section_bits >= SECTION_BITS_MIN && range_fits(l->map, sizeof(uint64_t), l->section);
}

/* Where page 0 would have its struct page, going by this section; false: it has none. */
static bool find_map(const struct vmcoreinfo *k, const struct layout *l, uint64_t section, uint64_t *ret)
{
    uint64_t a_root = PAGE / l->section, root, map;

    if (section / a_root >= l->nroots || vmcoreinfo_read(k, l->roots + section / a_root * 8, &root, sizeof(root)) ||
        !root || vmcoreinfo_read(k, root + section % a_root * l->section + l->map, &map, sizeof(map)) || !map)
        return false;
    *ret = map & ~SECTION_FLAGS;
    return true;
}

static void add(struct spare *s, uint64_t page, uint64_t n)
{
    for (uint64_t end = min_u64(page + n, s->n); page < end; page++)
        s->bits[page / 64] |= 1ull << page % 64;
}

/* What one page is to its neighbours. */
struct around {
    uint64_t head;     /* the struct page of a large page to leave out; 0: none */
    uint64_t free_end; /* the page behind the last free block: none before it is looked at, so each is added once */
};

/* The struct pages of a part of a section. */
static void look_at(const struct layout *l, const uint8_t *structs, uint64_t map, uint64_t first, uint64_t n,
                    struct around *a, struct spare *s)
{
    for (uint64_t i = 0; i < n; i++) {
        const uint8_t *p = structs + i * l->page;
        uint64_t order = get_le64(p + l->private), to = get_le64(p + l->head);

        if (first + i < a->free_end)
            continue;
        if (get_le32(p + l->mapcount) == l->free) {
            if (order > ORDER_MAX)
                continue;
            add(s, first + i, 1ull << order);
            a->free_end = first + i + (1ull << order);
        } else if (to & IS_TAIL) {
            if (to - IS_TAIL == a->head)
                add(s, first + i, 1);
        } else if (get_le64(p + l->flags) >> l->lru & 1 && get_le64(p + l->mapping) & MAP_ANON) {
            a->head = map + (first + i) * l->page;
            add(s, first + i, 1);
        }
    }
}

int spare_find(const struct vmcoreinfo *k, struct spare *ret)
{
    const struct gmem_range *ranges;
    unsigned nranges = gmem_ranges(k->mem, &ranges);
    uint8_t *structs cleanup_free = xcalloc(AT_ONCE, STRUCT_MAX);
    struct around around = {0};
    struct layout l;
    uint64_t a_section;

    if (!nranges || !read_layout(k, &l))
        return -ENOENT;
    *ret = (struct spare){.n = (ranges[nranges - 1].base + ranges[nranges - 1].size) / PAGE};
    ret->bits = xcalloc(ret->n / 64 + 1, sizeof(*ret->bits));
    a_section = (1ull << l.section_bits) / PAGE;
    for (uint64_t page = 0; page < ret->n; page += a_section) {
        uint64_t map, end = min_u64(page + a_section, ret->n);

        if (!find_map(k, &l, page / a_section, &map))
            continue;
        for (uint64_t at = page; at < end; at += AT_ONCE)
            if (!vmcoreinfo_read(k, map + at * l.page, structs, AT_ONCE * l.page))
                look_at(&l, structs, map, at, min_u64(AT_ONCE, end - at), &around, ret);
    }
    return 0;
}

bool spare_has(const struct spare *s, gpa_t at)
{
    uint64_t page = at / PAGE;

    return page < s->n && s->bits[page / 64] >> page % 64 & 1;
}

void spare_fini(struct spare *s)
{
    free(s->bits);
    *s = (struct spare){.n = 0};
}
