#include "firmware/load/elf.h"

#include <elf.h>
#include <inttypes.h>
#include <stdlib.h>

#include "vmm/base/cleanup.h"

enum {
    ELF_PHNUM_MAX = 64,
    ELF_SHNUM_MAX = 65535,
    ELF_NOTES_MAX = 64 << 10,
    XEN_ELFNOTE_PHYS32_ENTRY = 18,
    LINUX_CMDLINE_MAX = 2047, /* COMMAND_LINE_SIZE - 1 on x86 */
};

bool elf_match(const uint8_t *head, size_t n)
{
    return n >= SELFMAG && memcmp(head, ELFMAG, SELFMAG) == 0;
}

/* The 32-bit structures in the form of the 64-bit ones. */
static Elf64_Ehdr widen_ehdr(const Elf32_Ehdr *h)
{
    return (Elf64_Ehdr){.e_type = h->e_type,
                        .e_machine = h->e_machine,
                        .e_entry = h->e_entry,
                        .e_phoff = h->e_phoff,
                        .e_phentsize = h->e_phentsize,
                        .e_phnum = h->e_phnum,
                        .e_shoff = h->e_shoff,
                        .e_shentsize = h->e_shentsize,
                        .e_shnum = h->e_shnum};
}

static Elf64_Phdr widen_phdr(const Elf32_Phdr *p)
{
    return (Elf64_Phdr){.p_type = p->p_type,
                        .p_offset = p->p_offset,
                        .p_vaddr = p->p_vaddr,
                        .p_paddr = p->p_paddr,
                        .p_filesz = p->p_filesz,
                        .p_memsz = p->p_memsz};
}

static int read_ehdr(const struct image *im, Elf64_Ehdr *ret, bool *is64, struct err *err)
{
    unsigned char ident[EI_NIDENT];
    Elf32_Ehdr h32;
    int rc = image_read(im, 0, ident, sizeof(ident), err);

    if (rc < 0)
        return rc;
    *is64 = ident[EI_CLASS] == ELFCLASS64;
    if ((!*is64 && ident[EI_CLASS] != ELFCLASS32) || ident[EI_DATA] != ELFDATA2LSB)
        return err_set(err, EINVAL, "%s: an ELF file, but not of x86", im->name);
    if (*is64) {
        rc = image_read(im, 0, ret, sizeof(*ret), err);
    } else {
        rc = image_read(im, 0, &h32, sizeof(h32), err);
        if (rc == 0)
            *ret = widen_ehdr(&h32);
    }
    if (rc < 0)
        return rc;
    if (ret->e_machine != (*is64 ? EM_X86_64 : EM_386))
        return err_set(err, EINVAL, "%s: an ELF file for machine %u, not for x86; give an x86-64 kernel", im->name,
                       ret->e_machine);
    if (ret->e_type != ET_EXEC && ret->e_type != ET_DYN)
        return err_set(err, EINVAL, "%s: an ELF file, but not linked to run; give vmlinux or bzImage", im->name);
    if (ret->e_phnum == 0 || ret->e_phnum > ELF_PHNUM_MAX)
        return err_set(err, EINVAL, "%s: %u program headers, 1 to %d are sensible", im->name, ret->e_phnum,
                       ELF_PHNUM_MAX);
    if (ret->e_phentsize != (*is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)))
        return err_set(err, EINVAL, "%s: program headers of %u bytes", im->name, ret->e_phentsize);
    return 0;
}

static int add_segment(const struct image *im, const Elf64_Phdr *p, struct elf *elf, struct err *err)
{
    uint64_t end;

    if (p->p_memsz == 0)
        return 0;
    if (elf->nsegs == ELF_SEGMENTS_MAX)
        return err_set(err, E2BIG, "%s: more than %d segments", im->name, ELF_SEGMENTS_MAX);
    if (p->p_filesz > p->p_memsz || __builtin_add_overflow(p->p_paddr, p->p_memsz, &end))
        return err_set(err, EINVAL, "%s: segment %u: sizes make no sense (file 0x%" PRIx64 ", memory 0x%" PRIx64 ")",
                       im->name, elf->nsegs, p->p_filesz, p->p_memsz);
    if (!range_fits(p->p_offset, p->p_filesz, im->size))
        return err_set(err, EINVAL,
                       "%s: truncated: segment %u is 0x%" PRIx64 " bytes at 0x%" PRIx64 ", the file has 0x%" PRIx64
                       "; copy it again",
                       im->name, elf->nsegs, p->p_filesz, p->p_offset, im->size);
    elf->end = max_u64(elf->end, p->p_offset + p->p_filesz);
    elf->segs[elf->nsegs++] = (struct elf_seg){
        .off = p->p_offset, .vaddr = p->p_vaddr, .paddr = p->p_paddr, .filesz = p->p_filesz, .memsz = p->p_memsz};
    return 0;
}

int elf_parse(const struct image *im, struct elf *ret, struct err *err)
{
    Elf64_Ehdr eh;
    uint64_t end;
    int rc = read_ehdr(im, &eh, &ret->is64, err);

    if (rc < 0)
        return rc;
    ret->entry = eh.e_entry;
    ret->end = ret->notes = ret->notes_len = 0;
    ret->nsegs = 0;
    for (unsigned i = 0; i < eh.e_phnum; i++) {
        Elf64_Phdr p;
        Elf32_Phdr p32;

        if (__builtin_add_overflow(eh.e_phoff, (uint64_t)i * eh.e_phentsize, &end))
            return err_set(err, EINVAL, "%s: program headers lie outside the file", im->name);
        if (ret->is64) {
            rc = image_read(im, end, &p, sizeof(p), err);
        } else {
            rc = image_read(im, end, &p32, sizeof(p32), err);
            if (rc == 0)
                p = widen_phdr(&p32);
        }
        if (rc == 0 && p.p_type == PT_LOAD)
            rc = add_segment(im, &p, ret, err);
        if (rc < 0)
            return rc;
        if (p.p_type == PT_NOTE && ret->notes_len == 0 && range_fits(p.p_offset, p.p_filesz, im->size)) {
            ret->notes = p.p_offset;
            ret->notes_len = p.p_filesz;
        }
    }
    if (ret->nsegs == 0)
        return err_set(err, EINVAL, "%s: an ELF file with nothing to load", im->name);
    /* The section headers are last in what the linker and objcopy write, all sections lie before them. */
    if (!__builtin_add_overflow(eh.e_shoff, (uint64_t)eh.e_shnum * eh.e_shentsize, &end) && end <= im->size)
        ret->end = max_u64(ret->end, end);
    return 0;
}

int elf_place(struct load *ld, const struct image *im, const struct elf *elf, uint64_t *ret, struct err *err)
{
    bool entry_ok = false;
    uint64_t end = 0;

    for (unsigned i = 0; i < elf->nsegs; i++) {
        const struct elf_seg *s = &elf->segs[i];

        end = max_u64(end, s->paddr + s->memsz);
        entry_ok |= elf->entry >= s->paddr && elf->entry - s->paddr < s->memsz;
        if (room_has(&ld->room, s->paddr, s->memsz))
            continue;
        if (s->paddr < MiB(1))
            return err_set(err, EINVAL, "%s: loads at 0x%" PRIx64 "; link it at 1 MiB or above", im->name, s->paddr);
        if (s->paddr + s->memsz <= GMEM_LOW_MAX)
            return ram_short(ld, im->name, s->paddr + s->memsz + MiB(1), err);
        return err_set(err, EINVAL, "%s: segment %u, 0x%" PRIx64 " bytes at 0x%" PRIx64 ", lies outside of guest RAM",
                       im->name, i, s->memsz, s->paddr);
    }
    if (!entry_ok)
        return err_set(err, EINVAL, "%s: entry point 0x%" PRIx64 " lies in no segment", im->name, elf->entry);
    for (unsigned i = 0; i < elf->nsegs; i++) {
        const struct elf_seg *s = &elf->segs[i];
        int rc = s->filesz ? image_to_guest(im, s->off, ld->mem, s->paddr, s->filesz, err) : 0;

        if (rc < 0)
            return rc;
        room_take(&ld->room, s->paddr, s->memsz);
    }
    *ret = end;
    return 0;
}

/* The entry that the note names: 1 found, 0 there is none. */
static int find_pvh_entry(const struct image *im, const struct elf *elf, uint32_t *ret, struct err *err)
{
    size_t n = elf->notes_len, at = 0;
    cleanup_free uint8_t *notes = NULL;
    int rc;

    if (n == 0 || n > ELF_NOTES_MAX)
        return 0;
    notes = xcalloc(1, n);
    rc = image_read(im, elf->notes, notes, n, err);
    if (rc < 0)
        return rc;
    while (range_fits(at, sizeof(Elf64_Nhdr), n)) {
        uint64_t name = at + sizeof(Elf64_Nhdr), desc = name + align_up(get_le32(notes + at), 4);
        uint32_t len = get_le32(notes + at + 4);

        if (!range_fits(desc, len, n))
            return 0;
        if (get_le32(notes + at + 8) == XEN_ELFNOTE_PHYS32_ENTRY && get_le32(notes + at) == 4 && len >= 4 &&
            memcmp(notes + name, "Xen", 4) == 0) {
            *ret = get_le32(notes + desc); /* 4 or 8 bytes; a 32-bit address in both */
            return 1;
        }
        at = desc + align_up(len, 4);
    }
    return 0;
}

static int load_linux(struct load *ld, const struct image *im, uint64_t entry, uint64_t end, struct err *err)
{
    const struct setup_header hdr = {
        .boot_flag = 0xaa55,
        .header = 0x53726448, /* "HdrS" */
        .version = 0x20f,
        .kernel_alignment = MiB(2),
        .cmdline_size = LINUX_CMDLINE_MAX,
        .initrd_addr_max = 0x7fffffff,
        .xloadflags = XLF_KERNEL_64,
    };
    struct blob_at initrd;
    int rc = initrd_load(ld, ld->initrds, ld->ninitrds, (uint64_t)hdr.initrd_addr_max + 1, false, end, &initrd, err);

    if (rc < 0)
        return err_wrap(err, "%s", im->name);
    return linux_start(ld, &hdr, NULL, entry, &initrd, err);
}

static int load(struct load *ld, const struct image *im, struct err *err)
{
    struct elf elf;
    uint32_t pvh = 0;
    uint64_t end;
    int rc = elf_parse(im, &elf, err);

    if (rc < 0)
        return rc;
    rc = find_pvh_entry(im, &elf, &pvh, err);
    if (rc < 0)
        return rc;
    if (rc == 0 && !elf.is64)
        return err_set(err, EINVAL,
                       "%s: a 32-bit ELF file with neither PVH note nor Multiboot header; give a 64-bit kernel",
                       im->name);
    if (rc > 0)
        elf.entry = pvh; /* e_entry is for other loaders */
    rc = elf_place(ld, im, &elf, &end, err);
    if (rc < 0)
        return rc;
    return pvh ? pvh_start(ld, pvh, end, err) : load_linux(ld, im, elf.entry, end, err);
}

const struct loader elf_loader = {.name = "ELF", .match = elf_match, .load = load};
