#include "vmm/inspect/vmcoreinfo.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "vmm/base/cleanup.h"

enum { PAGE = 4096, NOTE_HEAD = 24 /* name and all */ };
enum { NOTES_MAX = 256 }; /* that are looked at; a guest's own guests have some, more are made up to keep us busy */
#define IMAGE_MAP 0xffffffff80000000ull /* where x86-64 kernels map themselves; phys_base is relative to it */
#define NOTE_NAME "VMCOREINFO"

/* The note at the start of a page [elf(5), Notes]: namesz 11, descsz, type 0, the name padded to 12. */
static bool is_note(const uint8_t *head, size_t *len)
{
    *len = get_le32(head + 4);
    return get_le32(head) == sizeof(NOTE_NAME) && !get_le32(head + 8) &&
           !memcmp(head + 12, NOTE_NAME, sizeof(NOTE_NAME)) && *len && *len <= VMCOREINFO_MAX;
}

/* The text behind "KEY=" at the start of a line. */
static const char *value_of(const struct vmcoreinfo *k, const char *key)
{
    size_t len = strlen(key);

    for (const char *line = k->info; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (!strncmp(line, key, len) && line[len] == '=')
            return line + len + 1;
    }
    return NULL;
}

static bool parse(const char *text, int base, uint64_t *ret)
{
    char *end;

    if (!text || !(isxdigit((unsigned char)*text) || *text == '-'))
        return false;
    errno = 0;
    *ret = strtoull(text, &end, base);
    return !errno && (*end == '\n' || !*end);
}

bool vmcoreinfo_symbol(const struct vmcoreinfo *k, const char *name, uint64_t *ret)
{
    char key[128];

    snprintf(key, sizeof(key), "SYMBOL(%s)", name);
    return parse(value_of(k, key), 16, ret);
}

bool vmcoreinfo_number(const struct vmcoreinfo *k, const char *key, uint64_t *ret)
{
    return parse(value_of(k, key), 10, ret);
}

int vmcoreinfo_read(const struct vmcoreinfo *k, uint64_t addr, void *dst, size_t n)
{
    return paging_read(&k->paging, addr, dst, n);
}

/* The kernel that the text tells of, if it is there. */
static bool understand(struct vmcoreinfo *k)
{
    enum { LONG_MODE = 1 << 10 | 1 << 8, PAE = 1 << 5, LA57 = 1 << 12 };
    const char *release = value_of(k, "OSRELEASE");
    uint64_t tables, five = 0, stext;
    gpa_t at;

    if (!release || !vmcoreinfo_symbol(k, "_stext", &stext) ||
        !vmcoreinfo_number(k, "NUMBER(phys_base)", &k->phys_base) ||
        !(vmcoreinfo_symbol(k, "init_top_pgt", &tables) || vmcoreinfo_symbol(k, "swapper_pg_dir", &tables)))
        return false;
    if (!vmcoreinfo_number(k, "NUMBER(pgtable_l5_enabled)", &five))
        five = 0;
    snprintf(k->release, sizeof(k->release), "%.*s", (int)min_u64(strcspn(release, "\n"), sizeof(k->release) - 1),
             release);
    for (char *p = k->release; *p; p++)
        if (!isgraph((unsigned char)*p))
            *p = '?';
    if (!parse(value_of(k, "KERNELOFFSET"), 16, &k->kaslr))
        k->kaslr = 0;
    k->paging = (struct paging){
        .mem = k->mem,
        .cr0 = 0x80000001,
        .cr3 = tables - IMAGE_MAP + k->phys_base,
        .cr4 = PAE | (five ? LA57 : 0),
        .efer = LONG_MODE,
    };
    return paging_walk(&k->paging, stext, &at, &(uint64_t){0}) == 0;
}

static bool try_note(struct gmem *mem, gpa_t at, size_t len, struct vmcoreinfo *ret)
{
    struct vmcoreinfo k = {.mem = mem, .info = xcalloc(1, len + 1), .info_len = len};

    if (gmem_read(mem, at + NOTE_HEAD, k.info, len) == 0 && understand(&k)) {
        *ret = k;
        return true;
    }
    free(k.info);
    return false;
}

/* Among the pages that the host has in memory, or among the others. */
static bool search(struct gmem *mem, bool resident, struct vmcoreinfo *ret)
{
    enum { PAGES = 512 /* looked at together */ };
    const struct gmem_range *ranges;
    unsigned n = gmem_ranges(mem, &ranges), notes = 0;

    for (unsigned i = 0; i < n; i++)
        for (uint64_t off = 0; off < ranges[i].size; off += PAGES * PAGE) {
            size_t pages = min_u64(PAGES, (ranges[i].size - off) / PAGE), len;
            uint8_t there[PAGES], head[NOTE_HEAD];

            gmem_resident(mem, ranges[i].base + off, pages, there);
            for (size_t p = 0; p < pages && notes < NOTES_MAX; p++) {
                gpa_t at = ranges[i].base + off + p * PAGE;

                if (there[p] != resident || gmem_read(mem, at, head, sizeof(head)) < 0 || !is_note(head, &len))
                    continue;
                if (try_note(mem, at, len, ret))
                    return true;
                notes++;
            }
        }
    return false;
}

int vmcoreinfo_look(struct gmem *mem, struct vmcoreinfo *ret)
{
    return search(mem, true, ret) ? 0 : -ENOENT;
}

int vmcoreinfo_find(struct gmem *mem, struct vmcoreinfo *ret)
{
    return search(mem, true, ret) || search(mem, false, ret) ? 0 : -ENOENT;
}

void vmcoreinfo_fini(struct vmcoreinfo *k)
{
    free(k->info);
    k->info = NULL;
}
