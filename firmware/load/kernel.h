/*
 * A Linux kernel unpacked: the vmlinux that a bzImage carries, laid out as it will lie in RAM, and its relocations.
 * It lies in memory of our own or in a file of the cache.
 */
#pragma once
#include "firmware/load/loader.h"

enum { KERNEL_EXTENTS_MAX = 40, KERNEL_PAGE = 4096 };
#define KERNEL_SPAN_MAX GiB(1) /* KERNEL_IMAGE_SIZE: no x86-64 kernel can be larger */

enum reloc_kind { RELOC_32, RELOC_INVERSE32, RELOC_64, RELOC_KINDS };

struct kernel {
    struct setup_header hdr;
    uint64_t phys;  /* where it is linked for; a multiple of 2 MiB */
    uint64_t memsz; /* with bss; a multiple of KERNEL_PAGE */
    uint64_t entry; /* offset of the 64-bit entry */
    unsigned nextents;
    struct extent { /* pages that are not zeroes: at `off` of the kernel lie `len` bytes that are at data + pos */
        uint64_t off, pos, len;
        uint64_t share; /* 1: nothing in it is relocated, and it is long enough to map it */
    } extents[KERNEL_EXTENTS_MAX];
    uint32_t nrelocs[RELOC_KINDS];
    const uint32_t *relocs; /* offsets into the kernel, by kind, each kind ascending; within `map` */
    const uint8_t *data;    /* = map.p */
    struct buf map;
    int fd; /* of the file that `map` maps, or -1 */
};

#define KERNEL_NONE ((struct kernel){.fd = -1})

/*
 * From the payload's bytes: an ELF file with the relocation table behind it.  -ENOTSUP where that is not what they are,
 * with the reason.
 */
int kernel_unpack(const uint8_t *vmlinux, size_t n, const struct setup_header *hdr, struct kernel *ret, struct err *err)
    must_check;
void kernel_fini(struct kernel *k);
/* That of a bzImage, from the cache (if it may be used) or the file.  -ENOTSUP: only the guest can unpack it. */
int bzimage_unpack(const struct image *im, bool cache, struct kernel *ret, struct err *err) must_check;
/* Do all numbers in it hold?  `map` and what points into it are set. */
bool kernel_valid(const struct kernel *k);
uint32_t kernel_relocs(const struct kernel *k);

/*
 * Puts it into guest RAM at `base`, linked for `virt` bytes above its usual virtual address.  Its `share` extents are
 * mapped copy-on-write where it is in a file and RAM is anonymous; all else is copied.
 */
int kernel_place(const struct kernel *k, struct gmem *mem, gpa_t base, uint64_t virt, struct err *err) must_check;

/* kaslr.c */
struct reloc_table {
    const uint8_t *p[RELOC_KINDS]; /* n[kind] little-endian words each */
    uint32_t n[RELOC_KINDS];
};
/* Splits what lies behind the ELF file.  -ENOTSUP: not in a form known. */
int reloc_table_parse(const uint8_t *p, size_t n, struct reloc_table *ret) must_check;
/* The offset in a kernel linked for `phys` that a table's word means; beyond all kernels where it means nothing. */
uint64_t reloc_offset(uint32_t word, uint64_t phys);
size_t reloc_width(enum reloc_kind kind);
/* Adds `virt` to all that is relative to the kernel's virtual address; `s` is the whole kernel in guest RAM. */
void kaslr_relocate(const struct kernel *k, struct gspan s, uint64_t virt);
/* Where to put `size` bytes of kernel: at random, or where it wants to be; both are taken from the room. */
int kaslr_choose(struct load *ld, const struct kernel *k, const char *name, bool random, gpa_t *base, uint64_t *virt,
                 struct err *err) must_check;
