#include "vmm/mem/gmem.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/memfd.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "vmm/base/cleanup.h"

/* Where a file lies under guest pages, so that discarding them brings back zeroes and not the file. */
struct file_area {
    gpa_t gpa;
    uint64_t n;
};

enum {
    PAGE = 4096,
    FILE_AREAS_MAX = 32,
    /* At the bottom lie firmware's tables and what real mode needs.  A huge page for them would cost each guest 2 MiB,
     * and the time to clear those before anything runs. */
    SMALL_PAGES = 2 << 20,
    /* Smaller discards within a file area write zeroes: a guest could cut the mapping to pieces otherwise. */
    FILE_CUT_MIN = 2 << 20,
};

struct gmem {
    enum gmem_backing backing;
    uint64_t page; /* what can be given back at a time */
    struct gmem_range ranges[GMEM_RANGES];
    unsigned nranges;
    int fd;               /* owned; the ranges borrow it */
    pthread_mutex_t lock; /* the areas */
    struct file_area areas[FILE_AREAS_MAX];
    unsigned nareas;
};

const char *const gmem_backing_words[] = {
    [GMEM_ANON] = "anonymous",
    [GMEM_SHARED] = "shared",
    [GMEM_HUGETLB] = "hugetlb",
    NULL,
};

static char *host_ptr(struct gbyte *p, uint64_t off)
{
    return (char *)p + off;
}

/* The range that holds [gpa, gpa + n) whole, or NULL.  Ranges never touch, so nothing can lie in two of them. */
static const struct gmem_range *range_of(const struct gmem *m, gpa_t gpa, uint64_t n)
{
    for (unsigned i = 0; i < m->nranges; i++) {
        const struct gmem_range *r = &m->ranges[i];

        if (gpa >= r->base && range_fits(gpa - r->base, n, r->size))
            return r;
    }
    return NULL;
}

#if defined(__has_feature)
#define UNDER_TSAN __has_feature(thread_sanitizer)
#elif defined(__SANITIZE_THREAD__)
#define UNDER_TSAN 1
#else
#define UNDER_TSAN 0
#endif

/*
 * The only place where we touch guest bytes in bulk.  The guest may change them meanwhile, which is its own loss: the
 * barrier keeps the compiler from reading them again in place of the copy.  ThreadSanitizer, which would complain, sees
 * calls of memcpy(3) even in functions that it is told to leave alone, but no assembly.
 */
static void copy_racy(void *dst, const void *src, size_t n)
{
    if (UNDER_TSAN)
        __asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(n) : : "memory");
    else
        memcpy(dst, src, n);
    __asm__ volatile("" : : : "memory");
}

static uint64_t huge_pages_free(uint64_t page)
{
    char path[96];
    cleanup_fd int fd = -1;
    char text[32] = "";

    snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%" PRIu64 "kB/free_hugepages", page >> 10);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
        return 0;
    return strtoull(text, NULL, 10);
}

static int huge_pages_missing(uint64_t size, uint64_t page, struct err *err)
{
    uint64_t need = size / page, there = huge_pages_free(page);

    if (page == GiB(1))
        return err_set(err, ENOMEM,
                       "guest RAM needs %" PRIu64 " huge pages of 1 GiB and %" PRIu64
                       " are free; write their number to /sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages, "
                       "or use less -m",
                       need, there);
    return err_set(err, ENOMEM,
                   "guest RAM needs %" PRIu64 " huge pages of 2 MiB and %" PRIu64
                   " are free; reserve them with sysctl vm.nr_hugepages=%" PRIu64 ", or use less -m",
                   need, there, need);
}

static int open_memfd(struct gmem *m, uint64_t size, struct err *err)
{
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;

    if (m->backing == GMEM_HUGETLB)
        flags |= MFD_HUGETLB | (m->page == GiB(1) ? MFD_HUGE_1GB : MFD_HUGE_2MB);
    m->fd = memfd_create("guest-ram", flags);
    if (m->fd < 0) {
        if (m->backing == GMEM_HUGETLB)
            return err_set(err, errno, "this host has no huge pages of %s (%s); use another backing for guest RAM",
                           m->page == GiB(1) ? "1 GiB" : "2 MiB", strerror(errno));
        return err_set(err, errno, "memfd_create: %s", strerror(errno));
    }
    if (ftruncate(m->fd, (off_t)size) < 0)
        return err_set(err, errno, "cannot make %" PRIu64 " MiB of guest RAM: %s; use less -m", size >> 20,
                       strerror(errno));
    /* Whoever is given the descriptor cannot take pages from under us. */
    if (fcntl(m->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return err_set(err, errno, "seal guest RAM: %s", strerror(errno));
    return 0;
}

static int map_range(struct gmem *m, struct gmem_range *r, struct err *err)
{
    uint64_t align = max_u64(GMEM_ALIGN, m->page), room = r->size + align;
    int flags = m->fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    char *reserved, *p;

    /* Ordinary pages are taken as the guest touches them; huge ones must be there from the start. */
    if (m->backing != GMEM_HUGETLB)
        flags |= MAP_NORESERVE;
    reserved = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (reserved == MAP_FAILED)
        return err_set(err, errno, "cannot reserve addresses for %" PRIu64 " MiB of guest RAM: %s; use less -m",
                       r->size >> 20, strerror(errno));
    p = (char *)align_up((uintptr_t)reserved, align);
    if (p > reserved)
        munmap(reserved, (size_t)(p - reserved));
    if (p + r->size < reserved + room)
        munmap(p + r->size, (size_t)(reserved + room - (p + r->size)));
    if (mmap(p, r->size, PROT_READ | PROT_WRITE, flags | MAP_FIXED, m->fd, (off_t)r->fd_off) == MAP_FAILED) {
        int code = errno;

        munmap(p, r->size);
        if (m->backing == GMEM_HUGETLB && code == ENOMEM)
            return huge_pages_missing(gmem_size(m), m->page, err);
        return err_set(err, code, "cannot map %" PRIu64 " MiB of guest RAM: %s; use less -m", r->size >> 20,
                       strerror(code));
    }
    if (m->backing != GMEM_HUGETLB)
        madvise(p, r->size, MADV_HUGEPAGE); /* a wish; hosts without THP serve as well */
    if (m->backing != GMEM_HUGETLB && r->base == 0)
        madvise(p, min_u64(r->size, SMALL_PAGES), MADV_NOHUGEPAGE);
    r->host = (struct gbyte *)p;
    return 0;
}

int gmem_create(uint64_t size, enum gmem_backing backing, uint64_t page, struct gmem **ret, struct err *err)
{
    uint64_t low = min_u64(size, GMEM_LOW_MAX);
    struct gmem *m;
    int rc = 0;

    if (backing != GMEM_HUGETLB)
        page = PAGE;
    else if (page != MiB(2) && page != GiB(1))
        return err_set(err, EINVAL, "huge pages are 2M or 1G, not %" PRIu64 " bytes", page);
    if (!size || size % page)
        return err_set(err, EINVAL, "guest RAM of %" PRIu64 " bytes: must be a multiple of %" PRIu64 " KiB and not 0",
                       size, page >> 10);
    if (size > INT64_MAX - GMEM_HIGH_BASE)
        return err_set(err, EINVAL, "guest RAM of %" PRIu64 " bytes is beyond any host; use less -m", size);
    m = xcalloc(1, sizeof(*m));
    m->backing = backing;
    m->page = page;
    m->fd = -1;
    pthread_mutex_init(&m->lock, NULL);
    m->ranges[0] = (struct gmem_range){.base = 0, .size = low};
    m->ranges[1] = (struct gmem_range){.base = GMEM_HIGH_BASE, .size = size - low, .fd_off = low};
    m->nranges = size > low ? 2 : 1;
    if (backing != GMEM_ANON)
        rc = open_memfd(m, size, err);
    for (unsigned i = 0; i < m->nranges; i++)
        m->ranges[i].fd = m->fd;
    for (unsigned i = 0; i < m->nranges && !rc; i++)
        rc = map_range(m, &m->ranges[i], err);
    if (rc) {
        gmem_destroy(m);
        return rc;
    }
    *ret = m;
    return 0;
}

void gmem_destroy(struct gmem *m)
{
    if (!m)
        return;
    for (unsigned i = 0; i < m->nranges; i++)
        if (m->ranges[i].host)
            munmap(m->ranges[i].host, m->ranges[i].size);
    if (m->fd >= 0)
        close(m->fd);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

uint64_t gmem_size(const struct gmem *m)
{
    uint64_t size = 0;

    for (unsigned i = 0; i < m->nranges; i++)
        size += m->ranges[i].size;
    return size;
}

unsigned gmem_ranges(const struct gmem *m, const struct gmem_range **ret)
{
    *ret = m->ranges;
    return m->nranges;
}

int gmem_read(const struct gmem *m, gpa_t gpa, void *dst, size_t n)
{
    const struct gmem_range *r = range_of(m, gpa, n);

    if (!r)
        return n ? -EFAULT : 0;
    copy_racy(dst, host_ptr(r->host, gpa - r->base), n);
    return 0;
}

int gmem_write(struct gmem *m, gpa_t gpa, const void *src, size_t n)
{
    const struct gmem_range *r = range_of(m, gpa, n);

    if (!r)
        return n ? -EFAULT : 0;
    copy_racy(host_ptr(r->host, gpa - r->base), src, n);
    return 0;
}

int gmem_zero(struct gmem *m, gpa_t gpa, uint64_t n)
{
    static const char zeroes[PAGE];
    const struct gmem_range *r = range_of(m, gpa, n);

    if (!r)
        return n ? -EFAULT : 0;
    for (uint64_t off = gpa - r->base, end = off + n; off < end; off += PAGE)
        copy_racy(host_ptr(r->host, off), zeroes, min_u64(PAGE, end - off));
    return 0;
}

void gmem_resident(const struct gmem *m, gpa_t gpa, size_t pages, uint8_t *ret)
{
    const struct gmem_range *r = range_of(m, gpa, pages * PAGE);

    if (!r || mincore(host_ptr(r->host, gpa - r->base), pages * PAGE, ret))
        memset(ret, 1, pages); /* nobody knows: as if it were there */
    for (size_t i = 0; i < pages; i++)
        ret[i] &= 1; /* mincore(2) defines no other bit */
}

int gmem_span(const struct gmem *m, gpa_t gpa, uint64_t n, size_t align, enum gmem_access a, struct gspan *ret)
{
    const struct gmem_range *r = range_of(m, gpa, n);

    (void)a; /* all RAM may be read and written */
    if (!r || gpa & (align - 1))
        return -EFAULT;
    *ret = (struct gspan){.p = (struct gbyte *)host_ptr(r->host, gpa - r->base), .len = n};
    return 0;
}

static void *span_at(struct gspan s, size_t off, size_t n)
{
    assert(range_fits(off, n, s.len));
    return host_ptr(s.p, off);
}

static void *span_word(struct gspan s, size_t off, size_t n)
{
    void *p = span_at(s, off, n);

    assert(!((uintptr_t)p & (n - 1)));
    return p;
}

uint16_t gspan_load16(struct gspan s, size_t off)
{
    return le16toh(__atomic_load_n((uint16_t *)span_word(s, off, 2), __ATOMIC_ACQUIRE));
}

uint32_t gspan_load32(struct gspan s, size_t off)
{
    return le32toh(__atomic_load_n((uint32_t *)span_word(s, off, 4), __ATOMIC_ACQUIRE));
}

uint64_t gspan_load64(struct gspan s, size_t off)
{
    return le64toh(__atomic_load_n((uint64_t *)span_word(s, off, 8), __ATOMIC_ACQUIRE));
}

void gspan_store16(struct gspan s, size_t off, uint16_t v)
{
    __atomic_store_n((uint16_t *)span_word(s, off, 2), htole16(v), __ATOMIC_RELEASE);
}

void gspan_store32(struct gspan s, size_t off, uint32_t v)
{
    __atomic_store_n((uint32_t *)span_word(s, off, 4), htole32(v), __ATOMIC_RELEASE);
}

void gspan_get(struct gspan s, size_t off, void *dst, size_t n)
{
    copy_racy(dst, span_at(s, off, n), n);
}

void gspan_put(struct gspan s, size_t off, const void *src, size_t n)
{
    copy_racy(span_at(s, off, n), src, n);
}

struct gspan gspan_sub(struct gspan s, size_t off, size_t n)
{
    return (struct gspan){.p = span_at(s, off, n), .len = n};
}

/* Fresh private pages in place of whatever is mapped there. */
static int map_zeroes(char *p, uint64_t n)
{
    if (mmap(p, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) ==
        MAP_FAILED)
        return -errno;
    madvise(p, n, MADV_HUGEPAGE);
    return 0;
}

int gmem_map_file(struct gmem *m, gpa_t gpa, int fd, uint64_t off, uint64_t n, struct err *err)
{
    const struct gmem_range *r = range_of(m, gpa, n);
    struct stat st;
    int rc = 0;

    if (m->backing != GMEM_ANON)
        return err_set(err, EOPNOTSUPP, "files are mapped into anonymous guest RAM only");
    if (!r || !n)
        return err_set(err, EFAULT, "no guest RAM at %#" PRIx64 "+%#" PRIx64, gpa, n);
    if ((gpa | off | n) & (PAGE - 1))
        return err_set(err, EINVAL, "a file is mapped by whole pages of 4 KiB");
    if (fstat(fd, &st) < 0)
        return err_set(err, errno, "fstat: %s", strerror(errno));
    /* Beyond the last page of a file lies a bus error and not data. */
    if (!range_fits(off, n, align_up((uint64_t)st.st_size, PAGE)))
        return err_set(err, ERANGE, "file ends before %#" PRIx64, off + n);
    pthread_mutex_lock(&m->lock);
    if (m->nareas == FILE_AREAS_MAX)
        rc = err_set(err, ENOSPC, "more than %d files in guest RAM", FILE_AREAS_MAX);
    else if (mmap(host_ptr(r->host, gpa - r->base), n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd,
                  (off_t)off) == MAP_FAILED)
        rc = err_set(err, errno, "map file into guest RAM: %s", strerror(errno));
    else
        m->areas[m->nareas++] = (struct file_area){.gpa = gpa, .n = n};
    pthread_mutex_unlock(&m->lock);
    return rc;
}

/* Whole pages of anonymous RAM within one range: where files lie in them, zeroes take their place. */
static int discard_files(struct gmem *m, const struct gmem_range *r, gpa_t gpa, gpa_t end)
{
    for (unsigned i = 0; i < m->nareas;) {
        struct file_area *a = &m->areas[i];
        gpa_t from = max_u64(gpa, a->gpa), to = min_u64(end, a->gpa + a->n);
        int rc = 0;

        if (from < to && (to - from >= FILE_CUT_MIN || to - from == a->n))
            rc = map_zeroes(host_ptr(r->host, from - r->base), to - from);
        else if (from < to)
            rc = gmem_zero(m, from, to - from);
        if (rc)
            return rc;
        if (from < to && to - from == a->n)
            *a = m->areas[--m->nareas];
        else
            i++;
    }
    return 0;
}

int gmem_discard(struct gmem *m, gpa_t gpa, uint64_t n)
{
    const struct gmem_range *r = range_of(m, gpa, n);
    gpa_t from, to;
    int rc = 0;

    if (!r)
        return -EFAULT;
    from = align_up(gpa, m->page);
    to = align_down(gpa + n, m->page);
    if (from >= to)
        return 0;
    if (m->fd >= 0)
        return fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(r->fd_off + from - r->base),
                         (off_t)(to - from)) < 0
                   ? -errno
                   : 0;
    if (madvise(host_ptr(r->host, from - r->base), to - from, MADV_DONTNEED) < 0)
        return -errno;
    pthread_mutex_lock(&m->lock);
    rc = discard_files(m, r, from, to);
    pthread_mutex_unlock(&m->lock);
    return rc;
}
