#include "vmm/inspect/kdump.h"

#include <sys/time.h>
#include <sys/utsname.h>
#include <zlib.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/file.h"

enum { PAGE = 4096, CHUNK = 256 << 10, VERSION = 6, ZLIB = 1 /* in status, and in a page's flags */ };

struct head { /* block 0; integers are the machine's */
    char signature[8];
    int32_t version;
    struct {
        char sysname[65], nodename[65], release[65], version[65], machine[65], domainname[65];
    } uts;
    int64_t seconds, micros;
    uint32_t status, block_size, sub_blocks, bitmap_blocks, pages, ram_blocks, device_blocks, written_blocks, cpu,
        ncpus;
};
static_assert(offsetof(struct head, seconds) == 408 && offsetof(struct head, ncpus) == 460, "as dumps have it");

struct sub_head { /* block 1 */
    uint64_t phys_base;
    int32_t level, split;
    uint64_t start, end, info_at, info_len, notes_at, notes_len, erase_at, erase_len, start64, end64, pages64;
};
static_assert(sizeof(struct sub_head) == 104, "as dumps have it");

struct page_desc {
    uint64_t at;
    uint32_t len, flags;
    uint64_t unused;
};

/* What is written one after the other, from a place in the file on. */
struct stream {
    int fd;
    uint64_t at;
    size_t n;
    uint8_t buf[64 << 10];
};

struct kdump {
    const struct gmem_range *ranges;
    unsigned nranges;
    uint64_t pages, bitmap_len; /* to the end of memory; bytes, of one bitmap */
    uint8_t *bitmaps;           /* both */
    struct stream descs, data;
    struct page_desc zeroes; /* one page for all of them; len 0: not yet written */
};

static int flush(struct stream *s)
{
    int rc = file_write_at(s->fd, s->at, s->buf, s->n);

    s->at += s->n;
    s->n = 0;
    return rc;
}

static int put(struct stream *s, const void *p, size_t n)
{
    int rc = n > sizeof(s->buf) - s->n ? flush(s) : 0;

    memcpy(s->buf + s->n, p, n);
    s->n += n;
    return rc;
}

static bool is_dumped(const struct kdump *d, uint64_t page)
{
    return d->bitmaps[d->bitmap_len + page / 8] >> page % 8 & 1;
}

/* How many pages are in the file. */
static uint64_t make_bitmaps(struct kdump *d, const struct spare *spare)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < d->nranges; i++)
        for (uint64_t page = d->ranges[i].base / PAGE, left = d->ranges[i].size / PAGE; left; page++, left--) {
            d->bitmaps[page / 8] |= (uint8_t)(1 << page % 8);
            if (spare && spare_has(spare, page * PAGE))
                continue;
            d->bitmaps[d->bitmap_len + page / 8] |= (uint8_t)(1 << page % 8);
            n++;
        }
    return n;
}

static int put_page(struct kdump *d, const uint8_t *page)
{
    static const uint8_t zeroes[PAGE];
    bool zero = !memcmp(page, zeroes, PAGE);
    uint8_t packed[PAGE];
    uLongf n = PAGE - 1;
    bool smaller;
    int rc;

    if (zero && d->zeroes.len)
        return put(&d->descs, &d->zeroes, sizeof(d->zeroes));
    smaller = compress2(packed, &n, page, PAGE, Z_BEST_SPEED) == Z_OK;
    const struct page_desc desc = {
        .at = d->data.at + d->data.n, .len = smaller ? (uint32_t)n : PAGE, .flags = smaller ? ZLIB : 0};

    if (zero)
        d->zeroes = desc;
    rc = put(&d->data, smaller ? packed : page, desc.len);
    return rc ? rc : put(&d->descs, &desc, sizeof(desc));
}

static int put_pages(struct kdump *d, const struct gmem *mem)
{
    uint8_t *piece cleanup_free = xcalloc(1, CHUNK);
    int rc = 0;

    for (unsigned i = 0; i < d->nranges && !rc; i++)
        for (uint64_t at = 0, n; at < d->ranges[i].size && !rc; at += n) {
            n = min_u64(CHUNK, d->ranges[i].size - at);
            rc = gmem_read(mem, d->ranges[i].base + at, piece, n);
            for (uint64_t off = 0; off < n && !rc; off += PAGE)
                if (is_dumped(d, (d->ranges[i].base + at + off) / PAGE))
                    rc = put_page(d, piece + off);
        }
    if (!rc)
        rc = flush(&d->descs);
    return rc ? rc : flush(&d->data);
}

static int put_heads(const struct kdump *d, int fd, const struct vmcoreinfo *k, unsigned ncpus, const uint8_t *notes,
                     size_t notes_len, uint64_t *end)
{
    struct head h = {
        .signature = "KDUMP  ",
        .version = VERSION,
        .uts = {.sysname = "Linux", .machine = "x86_64"},
        .status = ZLIB,
        .block_size = PAGE,
        .bitmap_blocks = (uint32_t)(2 * d->bitmap_len / PAGE),
        .pages = (uint32_t)min_u64(d->pages, UINT32_MAX),
        .ncpus = ncpus,
    };
    struct sub_head sub = {
        .phys_base = k->phys_base,
        .info_at = PAGE + sizeof(sub),
        .info_len = k->info_len,
        .notes_at = align_up(PAGE + sizeof(sub) + k->info_len, 4),
        .notes_len = notes_len,
        .pages64 = d->pages,
    };
    struct timeval now;
    int rc;

    h.signature[7] = ' ';
    memcpy(h.uts.release, k->release, sizeof(h.uts.release) - 1);
    gettimeofday(&now, NULL);
    h.seconds = now.tv_sec;
    h.micros = now.tv_usec;
    h.sub_blocks = (uint32_t)(align_up(sub.notes_at + notes_len, PAGE) / PAGE - 1);
    *end = PAGE * (1ull + h.sub_blocks);
    rc = file_write_at(fd, 0, &h, sizeof(h));
    if (!rc)
        rc = file_write_at(fd, PAGE, &sub, sizeof(sub));
    if (!rc)
        rc = file_write_at(fd, sub.info_at, k->info, k->info_len);
    return rc ? rc : file_write_at(fd, sub.notes_at, notes, notes_len);
}

int kdump_write(int fd, const struct gmem *mem, const struct cpu_state *cpus, unsigned ncpus,
                const struct vmcoreinfo *k, const struct spare *spare, struct err *err)
{
    struct kdump *d cleanup_free = xcalloc(1, sizeof(*d));
    uint8_t *notes cleanup_free = NULL, *bitmaps cleanup_free = NULL;
    size_t notes_len;
    uint64_t at, n;
    int rc;

    d->nranges = gmem_ranges(mem, &d->ranges);
    d->pages = (d->ranges[d->nranges - 1].base + d->ranges[d->nranges - 1].size) / PAGE;
    d->bitmap_len = align_up(align_up(d->pages, 8) / 8, PAGE);
    d->bitmaps = bitmaps = xcalloc(2, d->bitmap_len);
    n = make_bitmaps(d, spare);
    core_notes(cpus, ncpus, k, &notes, &notes_len);
    rc = put_heads(d, fd, k, ncpus, notes, notes_len, &at);
    if (!rc)
        rc = file_write_at(fd, at, bitmaps, 2 * d->bitmap_len);
    d->descs.fd = d->data.fd = fd;
    d->descs.at = at + 2 * d->bitmap_len;
    d->data.at = d->descs.at + n * sizeof(struct page_desc);
    if (!rc)
        rc = put_pages(d, mem);
    return rc ? err_set(err, -rc, "core: %s", strerror(-rc)) : 0;
}
