/*
 * Guest memory as a small kernel leaves it, for tests: VMCOREINFO, a ring of 8 log records with 256 bytes of text, and
 * kallsyms of four symbols.  Its image is mapped at FAKE_IMAGE as it lies in memory.
 */
#pragma once
#include <stdio.h>
#include <stdlib.h>

#include "vmm/base/base.h"
#include "vmm/mem/gmem.h"

enum { FAKE_RAM = 4 << 20, FAKE_TABLES = 0x1000, FAKE_NOTE = 0x10000, FAKE_PRB = 0x20000, FAKE_RING = 0x20100 };
enum { FAKE_DESCS = 0x21000, FAKE_INFOS = 0x22000, FAKE_DATA = 0x24000, FAKE_KALLSYMS = 0x30000, FAKE_TEXT = 0x100000 };
enum { FAKE_COUNT_BITS = 3, FAKE_SIZE_BITS = 8, FAKE_STACK = 0x50000 };
#define FAKE_IMAGE 0xffffffff80000000ull

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
    static const char *const tokens[] = {"T", "_stext", "panic", "sysrq_handle_crash", "_etext"};
    static const uint32_t offsets[] = {0, 0x100, 0x200, 0x1000};
    uint16_t at = 0;

    fake_put32(m, FAKE_KALLSYMS, 4);
    fake_put64(m, FAKE_KALLSYMS + 8, FAKE_IMAGE + FAKE_TEXT);
    for (uint16_t i = 0; i < array_len(tokens); i++) {
        fake_put(m, FAKE_KALLSYMS + 0x400 + at, tokens[i], strlen(tokens[i]) + 1);
        fake_put(m, FAKE_KALLSYMS + 0x800 + 2u * i, &at, 2);
        at = (uint16_t)(at + strlen(tokens[i]) + 1);
    }
    for (uint32_t i = 0; i < 4; i++) {
        const uint8_t name[] = {2, 0, (uint8_t)(i + 1)};

        fake_put(m, FAKE_KALLSYMS + 0x100 + 3 * i, name, sizeof(name));
        fake_put32(m, FAKE_KALLSYMS + 0x200 + 4 * i, absolute ? (uint32_t)-1 - offsets[i] : offsets[i]);
    }
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
        "NUMBER(pgtable_l5_enabled)=0\nKERNELOFFSET=1e000000\n";

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

static inline struct gmem *fake_kernel_create(void)
{
    uint64_t pos = 0;
    struct gmem *m;

    if (gmem_create(FAKE_RAM, GMEM_ANON, 0, &m, NULL))
        abort();
    fake_put64(m, FAKE_TABLES + 8 * 511, (FAKE_TABLES + 0x1000) | 1);
    fake_put64(m, FAKE_TABLES + 0x1000 + 8 * 510, (FAKE_TABLES + 0x2000) | 1);
    fake_put64(m, FAKE_TABLES + 0x2000, 0x80 | 1);
    fake_note(m);
    fake_kallsyms(m, true);
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
    return m;
}
