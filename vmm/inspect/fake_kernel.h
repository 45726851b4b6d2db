/*
 * Guest memory as a small kernel leaves it, for tests: VMCOREINFO, a ring of 8 log records with 256 bytes of text,
 * kallsyms, BTF, two modules, a stack, and two sections of memory with their struct pages.  Its image is mapped at
 * FAKE_IMAGE as it lies in memory.
 */
#pragma once
#include <elf.h>
#include <linux/btf.h>
#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>

#include "vmm/base/base.h"
#include "vmm/mem/gmem.h"

enum { FAKE_RAM = 4 << 20, FAKE_TABLES = 0x1000, FAKE_NOTE = 0x10000, FAKE_PRB = 0x20000, FAKE_RING = 0x20100 };
enum { FAKE_DESCS = 0x21000, FAKE_INFOS = 0x22000, FAKE_DATA = 0x24000, FAKE_KALLSYMS = 0x30000, FAKE_TEXT = 0x100000 };
enum { FAKE_COUNT_BITS = 3, FAKE_SIZE_BITS = 8, FAKE_STACK = 0x50000, FAKE_SYMBOLS = 7 };
enum { FAKE_BTF = 0x160000, FAKE_BTF_LEN = 0x1000, FAKE_MODULES = 0x170000 /* the list's head */ };
enum { FAKE_ALPHA = 0x170100, FAKE_BETA = 0x171100, FAKE_ALPHA_TEXT = 0x180000, FAKE_BETA_TEXT = 0x181000 };
enum { FAKE_BETA_INIT = 0x182000, FAKE_IKCONFIG = 0x1a0ff9 };
enum { FAKE_ROOTS = 0x1b0000, FAKE_SECTIONS = 0x1b1000, FAKE_PAGES = 0x1c0000, FAKE_MORE_PAGES = 0x1d0000 };
enum { FAKE_SECTION_PAGES = 512, FAKE_PAGE_SIZE = 64 /* of a struct page */ };
#define FAKE_IMAGE  0xffffffff80000000ull
#define FAKE_CONFIG "# of a test\nCONFIG_VIRTIO_FS=y\n"

static inline void fake_put(struct gmem *m, gpa_t at, const void *bytes, size_t n)
{
    if (gmem_write(m, at, bytes, n))
        abort();
}

static inline void fake_put64(struct gmem *m, gpa_t at, uint64_t v)
{
    fake_put(m, at, &v, sizeof(v));
}

static inline void fake_put32(struct gmem *m, gpa_t at, uint32_t v)
{
    fake_put(m, at, &v, sizeof(v));
}

/* The record `id`, with its text where it would come next. */
static inline void fake_record(struct gmem *m, uint64_t id, uint64_t *pos, const char *text)
{
    uint64_t index = id % (1 << FAKE_COUNT_BITS), size = 1 << FAKE_SIZE_BITS, len = strlen(text);
    uint64_t begin = *pos, next = begin + align_up(8 + len, 8);
    uint16_t text_len = (uint16_t)len;

    if (begin / size != next / size && next % size) /* it begins anew */
        next = align_up(begin, size) + align_up(8 + len, 8);
    fake_put(m, FAKE_DATA + (begin / size == next / size || !(next % size) ? begin % size : 0) + 8, text, len);
    fake_put64(m, FAKE_DESCS + index * 24, 2ull << 62 | id);
    fake_put64(m, FAKE_DESCS + index * 24 + 8, len ? begin : 1);
    fake_put64(m, FAKE_DESCS + index * 24 + 16, len ? next : 1);
    fake_put64(m, FAKE_INFOS + index * 88, id);
    fake_put64(m, FAKE_INFOS + index * 88 + 8, id * 1000000);
    fake_put(m, FAKE_INFOS + index * 88 + 16, &text_len, 2);
    *pos = len ? next : begin;
}

/* Names as one token each: token 0 is "T", token i is a name. */
static inline void fake_kallsyms(struct gmem *m, bool absolute)
{
    static const struct {
        const char *name;
        uint32_t offset;
    } symbols[FAKE_SYMBOLS] = {
        {"_stext", 0},
        {"panic", 0x100},
        {"sysrq_handle_crash", 0x200},
        {"_etext", 0x1000},
        {"__start_BTF", FAKE_BTF - FAKE_TEXT},
        {"__stop_BTF", FAKE_BTF + FAKE_BTF_LEN - FAKE_TEXT},
        {"modules", FAKE_MODULES - FAKE_TEXT},
    };
    uint16_t at = 0;

    fake_put32(m, FAKE_KALLSYMS, FAKE_SYMBOLS);
    fake_put64(m, FAKE_KALLSYMS + 8, FAKE_IMAGE + FAKE_TEXT);
    for (uint32_t i = 0; i <= FAKE_SYMBOLS; i++) {
        const char *token = i ? symbols[i - 1].name : "T";

        fake_put(m, FAKE_KALLSYMS + 0x400 + at, token, strlen(token) + 1);
        fake_put(m, FAKE_KALLSYMS + 0x800 + 2 * i, &at, 2);
        at = (uint16_t)(at + strlen(token) + 1);
    }
    for (uint32_t i = 0; i < FAKE_SYMBOLS; i++) {
        const uint8_t name[] = {2, 0, (uint8_t)(i + 1)};
        uint32_t off = symbols[i].offset;

        fake_put(m, FAKE_KALLSYMS + 0x100 + 3 * i, name, sizeof(name));
        fake_put32(m, FAKE_KALLSYMS + 0x200 + 4 * i, absolute ? (uint32_t)-1 - off : off);
    }
}

/* --- types --- */

struct fake_btf {
    uint8_t types[FAKE_BTF_LEN / 2];
    size_t ntypes;
    char strings[FAKE_BTF_LEN / 4];
    size_t nstrings;
};

static inline uint32_t fake_string(struct fake_btf *b, const char *s)
{
    uint32_t at = (uint32_t)b->nstrings;

    strcpy(b->strings + at, s);
    b->nstrings += strlen(s) + 1;
    return at;
}

static inline void fake_words(struct fake_btf *b, const uint32_t *words, size_t n)
{
    memcpy(b->types + b->ntypes, words, n * sizeof(*words));
    b->ntypes += n * sizeof(*words);
}

/* A type that is not a struct, with what follows it. */
static inline void fake_type(struct fake_btf *b, unsigned kind, unsigned vlen, unsigned more_words)
{
    uint32_t words[16] = {0, kind << 24 | vlen};

    fake_words(b, words, 3 + more_words);
}

struct fake_member {
    const char *name;
    uint32_t at; /* bytes */
};

static inline void fake_struct(struct fake_btf *b, const char *name, uint32_t size, const struct fake_member *members)
{
    uint32_t n = 0, head[3] = {fake_string(b, name), 0, size};

    while (members[n].name)
        n++;
    head[1] = (uint32_t)BTF_KIND_STRUCT << 24 | n;
    fake_words(b, head, 3);
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t words[] = {fake_string(b, members[i].name), 1, 8 * members[i].at};

        fake_words(b, words, 3);
    }
}

/* `since_6_4`: struct module has an array of parts, not two of them. */
static inline void fake_types(struct gmem *m, bool since_6_4)
{
    static const struct fake_member old[] =
        {{"state", 0}, {"list", 8}, {"name", 24}, {"kallsyms", 128}, {"core_layout", 160}, {"init_layout", 200}, {0}},
                                    layout[] = {{"base", 0}, {"size", 8}, {"text_size", 12}, {0}},
                                    new[] = {{"state", 0},      {"list", 8},  {"name", 24},
                                             {"kallsyms", 128}, {"mem", 160}, {0}},
                                    memory[] = {{"base", 0}, {"size", 12}, {0}},
                                    kallsyms[] = {{"symtab", 0}, {"num_symtab", 8}, {"strtab", 16}, {0}};
    struct fake_btf b = {.nstrings = 1};
    struct btf_header h = {.magic = BTF_MAGIC, .version = BTF_VERSION, .hdr_len = sizeof(h)};
    uint8_t zeroes[FAKE_BTF_LEN] = {0};

    fake_type(&b, BTF_KIND_INT, 0, 1);
    fake_type(&b, BTF_KIND_ARRAY, 0, 3);
    fake_type(&b, BTF_KIND_ENUM, 2, 4);
    fake_type(&b, BTF_KIND_FUNC_PROTO, 3, 6);
    fake_type(&b, BTF_KIND_DATASEC, 1, 3);
    fake_type(&b, BTF_KIND_ENUM64, 2, 6);
    fake_type(&b, BTF_KIND_PTR, 0, 0);
    fake_struct(&b, "module", 512, since_6_4 ? new : old);
    fake_struct(&b, since_6_4 ? "module_memory" : "module_layout", since_6_4 ? 24 : 32, since_6_4 ? memory : layout);
    fake_struct(&b, "mod_kallsyms", 32, kallsyms);
    h.type_len = h.str_off = (uint32_t)b.ntypes;
    h.str_len = (uint32_t)b.nstrings;
    fake_put(m, FAKE_BTF, zeroes, sizeof(zeroes));
    fake_put(m, FAKE_BTF, &h, sizeof(h));
    fake_put(m, FAKE_BTF + sizeof(h), b.types, b.ntypes);
    fake_put(m, FAKE_BTF + sizeof(h) + h.str_off, b.strings, b.nstrings);
}

/* --- modules --- */

struct fake_function {
    const char *name;
    uint64_t at; /* physical */
};

/* struct module at `at`, behind it its symbols at 0x200 and their names at 0x400. */
static inline void fake_module(struct gmem *m, gpa_t at, gpa_t next, const char *name, gpa_t text, gpa_t init,
                               bool since_6_4, const struct fake_function *functions)
{
    gpa_t core = at + 160, other = at + (since_6_4 ? 160 + 4 * 24 : 200), size = 12;
    uint32_t n = 0, string = 1;

    fake_put64(m, at + 8, FAKE_IMAGE + next);
    fake_put(m, at + 24, name, strlen(name) + 1);
    fake_put64(m, at + 128, FAKE_IMAGE + at + 0x180);
    fake_put64(m, core, FAKE_IMAGE + text);
    fake_put32(m, core + size, 0x800);
    fake_put64(m, other, init ? FAKE_IMAGE + init : 0);
    fake_put32(m, other + size, init ? 0x100 : 0);
    for (; functions[n].name; n++) {
        const Elf64_Sym sym = {.st_name = string, .st_value = FAKE_IMAGE + functions[n].at};

        fake_put(m, at + 0x200 + n * sizeof(sym), &sym, sizeof(sym));
        fake_put(m, at + 0x400 + string, functions[n].name, strlen(functions[n].name) + 1);
        string += (uint32_t)strlen(functions[n].name) + 1;
    }
    fake_put64(m, at + 0x180, FAKE_IMAGE + at + 0x200);
    fake_put32(m, at + 0x188, n);
    fake_put64(m, at + 0x190, FAKE_IMAGE + at + 0x400);
}

static inline void fake_modules(struct gmem *m, bool since_6_4)
{
    static const struct fake_function alpha[] = {{"alpha_read", FAKE_ALPHA_TEXT + 0x100},
                                                 {"alpha_open", FAKE_ALPHA_TEXT + 0x10},
                                                 {0}},
                                      beta[] = {{"beta_data", FAKE_BETA + 0x800},
                                                {"beta_spin", FAKE_BETA_TEXT},
                                                {"beta_init", FAKE_BETA_INIT},
                                                {0}};

    fake_put64(m, FAKE_MODULES, FAKE_IMAGE + FAKE_ALPHA + 8);
    fake_module(m, FAKE_ALPHA, FAKE_BETA + 8, "alpha", FAKE_ALPHA_TEXT, 0, since_6_4, alpha);
    fake_module(m, FAKE_BETA, FAKE_MODULES, "beta", FAKE_BETA_TEXT, FAKE_BETA_INIT, since_6_4, beta);
    fake_types(m, since_6_4);
}

static inline void fake_note(struct gmem *m)
{
    uint32_t head[6] = {11, 0, 0};
    char *text;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    static const struct {
        const char *name;
        uint64_t at;
    } symbols[] = {
        {"_stext", FAKE_TEXT},
        {"init_top_pgt", FAKE_TABLES},
        {"prb", FAKE_PRB},
        {"mem_section", FAKE_ROOTS},
        {"kallsyms_num_syms", FAKE_KALLSYMS},
        {"kallsyms_relative_base", FAKE_KALLSYMS + 8},
        {"kallsyms_names", FAKE_KALLSYMS + 0x100},
        {"kallsyms_offsets", FAKE_KALLSYMS + 0x200},
        {"kallsyms_token_table", FAKE_KALLSYMS + 0x400},
        {"kallsyms_token_index", FAKE_KALLSYMS + 0x800},
    };
    static const char numbers[] =
        "SIZE(printk_ringbuffer)=80\nOFFSET(printk_ringbuffer.desc_ring)=0\nOFFSET(printk_ringbuffer.text_data_ring)="
        "40\n"
        "OFFSET(prb_desc_ring.count_bits)=0\nOFFSET(prb_desc_ring.descs)=8\nOFFSET(prb_desc_ring.infos)=16\n"
        "OFFSET(prb_desc_ring.head_id)=24\nOFFSET(prb_desc_ring.tail_id)=32\nSIZE(prb_desc)=24\n"
        "OFFSET(prb_desc.state_var)=0\nOFFSET(prb_desc.text_blk_lpos)=8\nOFFSET(prb_data_blk_lpos.begin)=0\n"
        "OFFSET(prb_data_blk_lpos.next)=8\nSIZE(printk_info)=88\nOFFSET(printk_info.seq)=0\n"
        "OFFSET(printk_info.ts_nsec)=8\nOFFSET(printk_info.text_len)=16\nOFFSET(prb_data_ring.size_bits)=0\n"
        "OFFSET(prb_data_ring.data)=8\nOFFSET(atomic_long_t.counter)=0\nNUMBER(phys_base)=0\n"
        "NUMBER(pgtable_l5_enabled)=0\nKERNELOFFSET=1e000000\n"
        "LENGTH(mem_section)=1\nSIZE(mem_section)=16\nOFFSET(mem_section.section_mem_map)=0\n"
        "NUMBER(SECTION_SIZE_BITS)=21\nSIZE(page)=64\nOFFSET(page.flags)=0\nOFFSET(page.compound_head)=8\n"
        "OFFSET(page.mapping)=24\nOFFSET(page.private)=40\nOFFSET(page._mapcount)=48\nNUMBER(PG_lru)=4\n"
        "NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-129\n";

    if (!f)
        abort();
    fputs("OSRELEASE=6.1.0-test\n", f);
    for (size_t i = 0; i < array_len(symbols); i++)
        fprintf(f, "SYMBOL(%s)=%llx\n", symbols[i].name, (unsigned long long)(FAKE_IMAGE + symbols[i].at));
    fputs(numbers, f);
    fclose(f);
    head[1] = (uint32_t)len;
    memcpy(head + 3, "VMCOREINFO", 11);
    fake_put(m, FAKE_NOTE, head, sizeof(head));
    fake_put(m, FAKE_NOTE + sizeof(head), text, len);
    free(text);
}

/* What it was configured by, as CONFIG_IKCONFIG keeps it; over the edge of a page. */
static inline void fake_config(struct gmem *m)
{
    uint8_t packed[256];
    z_stream z = {.next_in = (Bytef *)FAKE_CONFIG,
                  .avail_in = sizeof(FAKE_CONFIG) - 1,
                  .next_out = packed,
                  .avail_out = sizeof(packed)};

    if (deflateInit2(&z, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) != Z_OK ||
        deflate(&z, Z_FINISH) != Z_STREAM_END)
        abort();
    deflateEnd(&z);
    fake_put(m, FAKE_IKCONFIG, "IKCFG_ST", 8);
    fake_put(m, FAKE_IKCONFIG + 8, packed, z.total_out);
    fake_put(m, FAKE_IKCONFIG + 8 + z.total_out, "IKCFG_ED", 8);
}

/* Where page `n` of the guest's memory has its struct page. */
static inline gpa_t fake_page(uint64_t n)
{
    return n < FAKE_SECTION_PAGES ? FAKE_PAGES + n * FAKE_PAGE_SIZE
                                  : FAKE_MORE_PAGES + (n - FAKE_SECTION_PAGES) * FAKE_PAGE_SIZE;
}

/* A section's struct pages are told as if they began with page 0's; its flags are in the low bits. */
static inline void fake_sections(struct gmem *m)
{
    fake_put64(m, FAKE_ROOTS, FAKE_IMAGE + FAKE_SECTIONS);
    fake_put64(m, FAKE_SECTIONS, (FAKE_IMAGE + FAKE_PAGES) | 0xf);
    fake_put64(m, FAKE_SECTIONS + 16, (FAKE_IMAGE + FAKE_MORE_PAGES - FAKE_SECTION_PAGES * FAKE_PAGE_SIZE) | 0xf);
}

/* Into zeroes, of at least FAKE_RAM bytes. */
static inline void fake_kernel_write(struct gmem *m)
{
    uint64_t pos = 0;

    fake_put64(m, FAKE_TABLES + 8 * 511, (FAKE_TABLES + 0x1000) | 1);
    fake_put64(m, FAKE_TABLES + 0x1000 + 8 * 510, (FAKE_TABLES + 0x2000) | 1);
    fake_put64(m, FAKE_TABLES + 0x2000, 0x80 | 1);
    fake_note(m);
    fake_kallsyms(m, true);
    fake_modules(m, false);
    fake_sections(m);
    fake_put64(m, FAKE_PRB, FAKE_IMAGE + FAKE_RING);
    fake_put32(m, FAKE_RING, FAKE_COUNT_BITS);
    fake_put64(m, FAKE_RING + 8, FAKE_IMAGE + FAKE_DESCS);
    fake_put64(m, FAKE_RING + 16, FAKE_IMAGE + FAKE_INFOS);
    fake_put32(m, FAKE_RING + 40, FAKE_SIZE_BITS);
    fake_put64(m, FAKE_RING + 48, FAKE_IMAGE + FAKE_DATA);
    for (uint64_t id = 0; id < 11; id++) {
        char text[64] = ""; /* as one of them has none */

        if (id != 7)
            snprintf(text, sizeof(text), "record %llu\twith\x1b text", (unsigned long long)id);
        fake_record(m, id, &pos, text);
    }
    fake_put64(m, FAKE_RING + 24, 2ull << 62 | 10); /* head; the tail is behind what was overwritten */
    fake_put64(m, FAKE_RING + 32, 2ull << 62 | 3);
    /* A stack: what follows a call, what does not, and no code. */
    fake_put(m, FAKE_TEXT + 0x210, "\xe8\0\0\0\0", 5);
    fake_put(m, FAKE_TEXT + 0x120, "\xff\xd0", 2);
    fake_put64(m, FAKE_STACK, FAKE_IMAGE + FAKE_TEXT + 0x122);
    fake_put64(m, FAKE_STACK + 8, FAKE_IMAGE + FAKE_TEXT + 0x300);
    fake_put64(m, FAKE_STACK + 24, 0x1234);
    fake_put64(m, FAKE_STACK + 32, FAKE_IMAGE + FAKE_TEXT + 0x215);
}

static inline struct gmem *fake_kernel_create(void)
{
    struct gmem *m;

    if (gmem_create(FAKE_RAM, GMEM_ANON, 0, &m, NULL))
        abort();
    fake_kernel_write(m);
    return m;
}
