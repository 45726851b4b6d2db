/*
 * Guest RAM: at most two ranges of guest-physical addresses (below and above the 4 GiB hole), each one mapping of the
 * host's, aligned to 2 MiB so that the second-level page tables can use large pages.
 *
 * Guest bytes are not C objects: `struct gbyte` is never defined, so what a guest owns cannot be dereferenced.  Copy it
 * out and check the copy, or hand the span to the kernel as an iovec.
 *
 * The map changes only while the machine is stopped.  All else may be called from any thread.
 */
#pragma once
#include "vmm/base/base.h"
#include "vmm/base/err.h"

typedef uint64_t gpa_t;

struct gmem;
struct gbyte;

/* A range-checked window on guest RAM.  Its bytes may change at any moment. */
struct gspan {
    struct gbyte *p;
    size_t len;
};

enum gmem_access { GMEM_READ, GMEM_WRITE };

enum gmem_backing {
    GMEM_ANON,
    GMEM_SHARED,
    GMEM_HUGETLB
};                                             /* private anonymous + THP | memfd + THP | memfd of huge pages */
extern const char *const gmem_backing_words[]; /* "anonymous", "shared", "hugetlb", NULL: for option tables */

enum { GMEM_RANGES = 2, GMEM_ALIGN = 2 << 20 };
#define GMEM_LOW_MAX   GiB(3) /* RAM below the hole ends here at the latest */
#define GMEM_HIGH_BASE GiB(4) /* the rest starts here */

struct gmem_range {
    gpa_t base;
    uint64_t size;
    struct gbyte *host;
    int fd; /* memfd, -1 when anonymous */
    uint64_t fd_off;
};

/*
 * `size` is a multiple of 4 KiB (of `page` for hugetlb) and not 0; `page` is the huge page size (2 MiB or 1 GiB), read
 * for GMEM_HUGETLB only.  Fails with a message that names the remedy (sysctl vm.nr_hugepages=…, less -m).  No page is
 * touched.
 */
int gmem_create(uint64_t size, enum gmem_backing backing, uint64_t page, struct gmem **ret, struct err *err) must_check;
void gmem_destroy(struct gmem *m); /* accepts NULL */

uint64_t gmem_size(const struct gmem *m);
/* Ranges in address order; the count is 1 or 2.  Borrowed. */
unsigned gmem_ranges(const struct gmem *m, const struct gmem_range **ret);

/* Copy.  All or nothing; -EFAULT when any byte is outside RAM. */
int gmem_read(const struct gmem *m, gpa_t gpa, void *dst, size_t n) must_check;
int gmem_write(struct gmem *m, gpa_t gpa, const void *src, size_t n) must_check;
int gmem_zero(struct gmem *m, gpa_t gpa, uint64_t n) must_check;
/*
 * For each page of 4 KiB from `gpa` on, in one range, a byte: 1, the host has it in memory now, so that to read it
 * takes none; 0, it has never been written, was given back, or is swapped out.
 */
void gmem_resident(const struct gmem *m, gpa_t gpa, size_t pages, uint8_t *ret);

/*
 * Check once, use many times (rings, buffers).  [gpa, gpa + n) must lie in one range and `gpa` be a multiple of
 * `align`. -EFAULT otherwise.  Valid until the memory map changes.
 */
int gmem_span(const struct gmem *m, gpa_t gpa, uint64_t n, size_t align, enum gmem_access a, struct gspan *ret)
    must_check;

/* Exactly one load or store each, little endian; `off` is naturally aligned and within the span (asserted). */
uint16_t gspan_load16(struct gspan s, size_t off);          /* acquire */
uint32_t gspan_load32(struct gspan s, size_t off);          /* acquire */
uint64_t gspan_load64(struct gspan s, size_t off);          /* acquire */
void gspan_store16(struct gspan s, size_t off, uint16_t v); /* release */
void gspan_store32(struct gspan s, size_t off, uint32_t v); /* release */
/* Plain copies; the range is asserted to lie within the span. */
void gspan_get(struct gspan s, size_t off, void *dst, size_t n);
void gspan_put(struct gspan s, size_t off, const void *src, size_t n);
struct gspan gspan_sub(struct gspan s, size_t off, size_t n);

/* For readv(2) and its like: the kernel, not we, touches the bytes. */
static inline struct iovec gspan_iov(struct gspan s)
{
    return (struct iovec){.iov_base = s.p, .iov_len = s.len};
}

/*
 * Puts [off, off + n) of a file at `gpa`, copy-on-write: pages that the guest does not write stay shared with the
 * file's page cache.  All 4 KiB aligned.  Only for anonymous RAM (-EOPNOTSUPP else: the caller copies).  The file must
 * not shrink as long as the guest lives.  Machine stopped.
 */
int gmem_map_file(struct gmem *m, gpa_t gpa, int fd, uint64_t off, uint64_t n, struct err *err) must_check;
/* Gives the pages that lie whole within the range back to the host; they read as zeroes after (balloon, free-page
 * reporting, reboot).  A range that is not RAM: -EFAULT and nothing done. */
int gmem_discard(struct gmem *m, gpa_t gpa, uint64_t n) must_check;
