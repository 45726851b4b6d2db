/*
 * Address space layout randomisation as a bzImage's own decompressor does it: a random physical place, a random virtual
 * one, and the table of relocations behind the payload's ELF file applied for the difference
 * [Linux arch/x86/boot/compressed/misc.c handle_relocations; arch/x86/tools/relocs.c emit_relocs].
 */
#include "firmware/load/kernel.h"

#include <inttypes.h>
#include <sys/random.h>

#define KERNEL_MAP_BASE 0xffffffff80000000ull /* __START_KERNEL_map: virtual = physical address as linked + this */

size_t reloc_width(enum reloc_kind kind)
{
    return kind == RELOC_64 ? 8 : 4;
}

uint64_t reloc_offset(uint32_t word, uint64_t phys)
{
    return (uint64_t)(int64_t)(int32_t)word - KERNEL_MAP_BASE - phys;
}

/*
 * Lists of 32-bit words, each behind a zero: the table reads "0 64-bit… 0 inverse… 0 32-bit…".  Kernels from 6.15 on
 * have no inverse ones, and then that list's zero is not there either.  Kernels without KASLR have no table.
 */
int reloc_table_parse(const uint8_t *p, size_t n, struct reloc_table *ret)
{
    size_t words = n / 4, starts[RELOC_KINDS + 1], lists = 0;
    static const enum reloc_kind with_inverse[] = {RELOC_64, RELOC_INVERSE32, RELOC_32},
                                 without[] = {RELOC_64, RELOC_32};

    *ret = (struct reloc_table){0};
    if (n == 0)
        return 0;
    if (n % 4 || n > UINT32_MAX || get_le32(p) != 0)
        return -ENOTSUP;
    for (size_t i = 0; i < words; i++) {
        if (get_le32(p + i * 4) != 0)
            continue;
        if (lists == RELOC_KINDS)
            return -ENOTSUP;
        starts[lists++] = i + 1;
    }
    if (lists < 2)
        return -ENOTSUP;
    starts[lists] = words + 1;
    for (size_t l = 0; l < lists; l++) {
        enum reloc_kind kind = lists == RELOC_KINDS ? with_inverse[l] : without[l];

        ret->p[kind] = p + starts[l] * 4;
        ret->n[kind] = (uint32_t)(starts[l + 1] - 1 - starts[l]);
    }
    return 0;
}

static void add(uint8_t *word, size_t width, uint64_t v)
{
    if (width == 8)
        put_le64(word, get_le64(word) + v);
    else
        put_le32(word, get_le32(word) + (uint32_t)v);
}

/* A window's worth at a time: there are hundreds of thousands, most of them close together. */
static const uint32_t *relocate(struct gspan s, const uint32_t *r, uint32_t n, enum reloc_kind kind, uint64_t v)
{
    const uint32_t *end = r + n;
    size_t width = reloc_width(kind);
    uint8_t window[KERNEL_PAGE];

    while (r < end) {
        size_t at = *r, len = min_u64(sizeof(window), s.len - at), used = 0;

        gspan_get(s, at, window, len);
        /* An offset that does not ascend, in a damaged file, is far off and begins the next window. */
        for (; r < end && *r - at <= len - width; used = max_u64(used, *r++ - at + width))
            add(window + (*r - at), width, v);
        gspan_put(s, at, window, used);
    }
    return end;
}

void kaslr_relocate(const struct kernel *k, struct gspan s, uint64_t virt)
{
    const uint32_t *r = k->relocs;

    r = relocate(s, r, k->nrelocs[RELOC_32], RELOC_32, virt);
    r = relocate(s, r, k->nrelocs[RELOC_INVERSE32], RELOC_INVERSE32, 0 - virt);
    relocate(s, r, k->nrelocs[RELOC_64], RELOC_64, virt);
}

/* A number below `n`; the bias of the remainder is below 2^-40 for what is asked here. */
static int random_below(uint64_t n, uint64_t *ret, struct err *err)
{
    uint64_t v;

    if (getrandom(&v, sizeof(v), 0) != sizeof(v))
        return err_set(err, EIO, "the host gives no random numbers for KASLR; boot with nokaslr");
    *ret = v % n;
    return 0;
}

int kaslr_choose(struct load *ld, const struct kernel *k, const char *name, bool random, gpa_t *base, uint64_t *virt,
                 struct err *err)
{
    struct want w = {.size = max_u64(k->memsz, k->hdr.init_size),
                     .align = max_u64(k->hdr.kernel_alignment, MiB(2)),
                     .min = k->phys,
                     .end = GiB(4)}; /* as far as the identity map reaches */
    uint64_t slots, slot = 0, vslot = 0;
    int rc = 0;

    if (!k->hdr.relocatable_kernel)
        w.end = k->phys + w.size;
    slots = room_slots(&ld->room, &w);
    if (slots == 0)
        return ram_short(ld, name, k->phys + w.size + MiB(1), err);
    if (random)
        rc = random_below(slots, &slot, err);
    if (rc == 0 && random && kernel_relocs(k) > 0 && k->phys + w.size < KERNEL_SPAN_MAX)
        rc = random_below((KERNEL_SPAN_MAX - k->phys - w.size) / w.align + 1, &vslot, err);
    if (rc < 0)
        return rc;
    *base = room_slot(&ld->room, &w, slot);
    *virt = vslot * w.align;
    room_take(&ld->room, *base, w.size);
    return 0;
}
