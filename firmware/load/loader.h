/*
 * What the loader's files share: the source of bytes, free guest RAM, and the load under way.  Private to this folder
 * and its tests.
 */
#pragma once
#include "firmware/load/load.h"

#include <asm/bootparam.h>

/* Bytes in a mapping of their own: zeroed, and given back to the host when freed. */
struct buf {
    uint8_t *p;
    size_t n;
};

int buf_alloc(struct buf *ret, size_t n) must_check; /* -ENOMEM */
void buf_free(struct buf *b);
#define cleanup_buf __attribute__((cleanup(buf_free)))

/* A read-only file, or bytes that somebody else owns: a kernel, an initrd, or a part of a FIT. */
struct image {
    const char *name; /* for messages; borrowed */
    uint64_t size;
    const uint8_t *mem; /* NULL: the file */
    int fd;             /* -1: memory */
};

/* A regular file with something in it; `what` ("kernel", "initrd") begins the message. */
int image_open(struct image *ret, const char *what, const char *path, struct err *err) must_check;
void image_close(struct image *im);
/* All `n` bytes at `off`; a file that ends before them is an error. */
int image_read(const struct image *im, uint64_t off, void *dst, size_t n, struct err *err) must_check;
int image_to_guest(const struct image *im, uint64_t off, struct gmem *mem, gpa_t gpa, uint64_t n, struct err *err)
    must_check;

/* Free guest RAM from 1 MiB up. */
enum { ROOM_MAX = E820_MAX_ENTRIES_ZEROPAGE + 64 };
struct room {
    unsigned n;
    struct {
        uint64_t base, end;
    } r[ROOM_MAX];
};

/* A place that is looked for: `size` bytes within [min, end), at a multiple of `align` (a power of two). */
struct want {
    uint64_t size, align, min, end;
};

void room_init(struct room *room, const struct e820_entry *e, unsigned n);
bool room_has(const struct room *room, uint64_t base, uint64_t size);
void room_take(struct room *room, uint64_t base, uint64_t size);
/* How many places there are, and the k-th of them from the bottom (k < room_slots). */
uint64_t room_slots(const struct room *room, const struct want *w);
gpa_t room_slot(const struct room *room, const struct want *w, uint64_t k);

enum { LOAD_HEAD = 8192, LOAD_FIT_RAMDISKS = 1, LOAD_INITRDS_MAX = BOOT_INITRDS_MAX + LOAD_FIT_RAMDISKS };

/* One boot_load(). */
struct load {
    struct gmem *mem;
    const struct boot_params_in *in;
    struct boot_regs *regs;
    struct room room;
    gpa_t low_next;
    struct image initrds[LOAD_INITRDS_MAX];
    unsigned ninitrds;
};

/* A kernel format. `head` is the file's first min(size, LOAD_HEAD) bytes. */
struct loader {
    const char *name;
    bool (*match)(const uint8_t *head, size_t n);
    int (*load)(struct load *ld, const struct image *im, struct err *err);
};
extern const struct loader fit_loader, bzimage_loader, multiboot_loader, elf_loader;

/* By the first loader that knows it; `nested` for what lies in a FIT, which must not be one again. */
int load_image(struct load *ld, const struct image *im, bool nested, struct err *err) must_check;

/* Space in low memory; bytes into it; both at once. */
int low_alloc(struct load *ld, size_t n, size_t align, gpa_t *ret, struct err *err) must_check;
int low_write(struct load *ld, gpa_t at, const void *p, size_t n, struct err *err) must_check;
int low_put(struct load *ld, const void *p, size_t n, size_t align, gpa_t *ret, struct err *err) must_check;
/*
 * "before cmdline after" there, with a NUL; either may be NULL.  `limit` is the longest that the kernel takes, without
 * the NUL.
 */
int low_cmdline(struct load *ld, const char *before, const char *after, size_t limit, gpa_t *ret, struct err *err)
    must_check;
/* Is `word` one of the command line's? */
bool cmdline_has(const char *cmdline, const char *word);

/* `need` bytes of RAM from 0 up would do, but there are fewer. */
int ram_short(const struct load *ld, const char *name, uint64_t need, struct err *err);

struct blob_at {
    gpa_t base;
    uint64_t size; /* 0: nothing */
};
/*
 * Reads images one behind the other, each at a multiple of 4, as high as there is room below `end`; above 4 GiB where
 * that fails and `high` allows it. Stays above `below`, where the kernel ends, or may.
 */
int initrd_load(struct load *ld, const struct image *im, unsigned n, uint64_t end, bool high, uint64_t below,
                struct blob_at *ret, struct err *err) must_check;

/* boot_params, page tables and registers for a kernel that is in RAM, to be entered at `entry`. */
int linux_start(struct load *ld, const struct setup_header *hdr, const char *extra_word, gpa_t entry,
                const struct blob_at *initrd, struct err *err) must_check;
/* Flat segments; `code64`: of long mode. */
int flat_gdt(struct load *ld, bool code64, struct err *err) must_check;
