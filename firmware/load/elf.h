/* ELF executables, both widths, as far as a loader reads them [System V ABI, chapters 4 and 5]. */
#pragma once
#include "firmware/load/loader.h"

enum { ELF_SEGMENTS_MAX = 32 };

struct elf {
    bool is64;
    uint64_t entry;
    uint64_t end;   /* of what the file's headers describe: whatever comes behind is an appendix */
    uint64_t notes; /* file range of PT_NOTE; the first one */
    uint64_t notes_len;
    unsigned nsegs;
    struct elf_seg { /* PT_LOAD; memsz > 0, and neither the file's range nor the memory's overflows */
        uint64_t off, vaddr, paddr, filesz, memsz;
    } segs[ELF_SEGMENTS_MAX];
};

bool elf_match(const uint8_t *head, size_t n);
/* For x86; with at least one segment.  Segments lie in the file. */
int elf_parse(const struct image *im, struct elf *ret, struct err *err) must_check;
/* Puts the segments where they say, in free RAM, which they take. `ret`: the end of the highest. */
int elf_place(struct load *ld, const struct image *im, const struct elf *elf, uint64_t *ret, struct err *err)
    must_check;
/* hvm_start_info and registers for a kernel placed, with the PVH entry `entry` [PVH boot ABI]. */
int pvh_start(struct load *ld, uint32_t entry, uint64_t kernel_end, struct err *err) must_check;
