#include "vmm/gdb/regs.h"

#include <stdio.h>
#include <stdlib.h>

const struct gdb_reg gdb_regs[GDB_REGS] = {
    {"rax", "int64", NULL, offsetof(struct cpu_state, gpr[0]), 8},
    {"rbx", "int64", NULL, offsetof(struct cpu_state, gpr[1]), 8},
    {"rcx", "int64", NULL, offsetof(struct cpu_state, gpr[2]), 8},
    {"rdx", "int64", NULL, offsetof(struct cpu_state, gpr[3]), 8},
    {"rsi", "int64", NULL, offsetof(struct cpu_state, gpr[4]), 8},
    {"rdi", "int64", NULL, offsetof(struct cpu_state, gpr[5]), 8},
    {"rbp", "data_ptr", NULL, offsetof(struct cpu_state, gpr[6]), 8},
    {"rsp", "data_ptr", NULL, offsetof(struct cpu_state, gpr[7]), 8},
    {"r8", "int64", NULL, offsetof(struct cpu_state, gpr[8]), 8},
    {"r9", "int64", NULL, offsetof(struct cpu_state, gpr[9]), 8},
    {"r10", "int64", NULL, offsetof(struct cpu_state, gpr[10]), 8},
    {"r11", "int64", NULL, offsetof(struct cpu_state, gpr[11]), 8},
    {"r12", "int64", NULL, offsetof(struct cpu_state, gpr[12]), 8},
    {"r13", "int64", NULL, offsetof(struct cpu_state, gpr[13]), 8},
    {"r14", "int64", NULL, offsetof(struct cpu_state, gpr[14]), 8},
    {"r15", "int64", NULL, offsetof(struct cpu_state, gpr[15]), 8},
    {"rip", "code_ptr", NULL, offsetof(struct cpu_state, rip), 8},
    {"eflags", "i386_eflags", NULL, offsetof(struct cpu_state, rflags), 4},
    {"cs", "int32", NULL, offsetof(struct cpu_state, selector[CPU_CS]), 4},
    {"ss", "int32", NULL, offsetof(struct cpu_state, selector[CPU_SS]), 4},
    {"ds", "int32", NULL, offsetof(struct cpu_state, selector[CPU_DS]), 4},
    {"es", "int32", NULL, offsetof(struct cpu_state, selector[CPU_ES]), 4},
    {"fs", "int32", NULL, offsetof(struct cpu_state, selector[CPU_FS]), 4},
    {"gs", "int32", NULL, offsetof(struct cpu_state, selector[CPU_GS]), 4},
    {"st0", "i387_ext", NULL, offsetof(struct cpu_state, st[0]), 10},
    {"st1", "i387_ext", NULL, offsetof(struct cpu_state, st[1]), 10},
    {"st2", "i387_ext", NULL, offsetof(struct cpu_state, st[2]), 10},
    {"st3", "i387_ext", NULL, offsetof(struct cpu_state, st[3]), 10},
    {"st4", "i387_ext", NULL, offsetof(struct cpu_state, st[4]), 10},
    {"st5", "i387_ext", NULL, offsetof(struct cpu_state, st[5]), 10},
    {"st6", "i387_ext", NULL, offsetof(struct cpu_state, st[6]), 10},
    {"st7", "i387_ext", NULL, offsetof(struct cpu_state, st[7]), 10},
    {"fctrl", "int", "float", offsetof(struct cpu_state, fcw), 4},
    {"fstat", "int", "float", offsetof(struct cpu_state, fsw), 4},
    {"ftag", "int", "float", offsetof(struct cpu_state, ftw), 4},
    {"fiseg", "int", "float", offsetof(struct cpu_state, fiseg), 4},
    {"fioff", "int", "float", offsetof(struct cpu_state, fioff), 4},
    {"foseg", "int", "float", offsetof(struct cpu_state, foseg), 4},
    {"fooff", "int", "float", offsetof(struct cpu_state, fooff), 4},
    {"fop", "int", "float", offsetof(struct cpu_state, fop), 4},
    {"xmm0", "vec128", NULL, offsetof(struct cpu_state, xmm[0]), 16},
    {"xmm1", "vec128", NULL, offsetof(struct cpu_state, xmm[1]), 16},
    {"xmm2", "vec128", NULL, offsetof(struct cpu_state, xmm[2]), 16},
    {"xmm3", "vec128", NULL, offsetof(struct cpu_state, xmm[3]), 16},
    {"xmm4", "vec128", NULL, offsetof(struct cpu_state, xmm[4]), 16},
    {"xmm5", "vec128", NULL, offsetof(struct cpu_state, xmm[5]), 16},
    {"xmm6", "vec128", NULL, offsetof(struct cpu_state, xmm[6]), 16},
    {"xmm7", "vec128", NULL, offsetof(struct cpu_state, xmm[7]), 16},
    {"xmm8", "vec128", NULL, offsetof(struct cpu_state, xmm[8]), 16},
    {"xmm9", "vec128", NULL, offsetof(struct cpu_state, xmm[9]), 16},
    {"xmm10", "vec128", NULL, offsetof(struct cpu_state, xmm[10]), 16},
    {"xmm11", "vec128", NULL, offsetof(struct cpu_state, xmm[11]), 16},
    {"xmm12", "vec128", NULL, offsetof(struct cpu_state, xmm[12]), 16},
    {"xmm13", "vec128", NULL, offsetof(struct cpu_state, xmm[13]), 16},
    {"xmm14", "vec128", NULL, offsetof(struct cpu_state, xmm[14]), 16},
    {"xmm15", "vec128", NULL, offsetof(struct cpu_state, xmm[15]), 16},
    {"mxcsr", "i386_mxcsr", "vector", offsetof(struct cpu_state, mxcsr), 4},
    {"fs_base", "int", NULL, offsetof(struct cpu_state, base[CPU_FS]), 8},
    {"gs_base", "int", NULL, offsetof(struct cpu_state, base[CPU_GS]), 8},
    {"k_gs_base", "int64", "system", offsetof(struct cpu_state, kernel_gs_base), 8},
    {"cr0", "int64", "system", offsetof(struct cpu_state, cr0), 8},
    {"cr2", "int64", "system", offsetof(struct cpu_state, cr2), 8},
    {"cr3", "int64", "system", offsetof(struct cpu_state, cr3), 8},
    {"cr4", "int64", "system", offsetof(struct cpu_state, cr4), 8},
    {"cr8", "int64", "system", offsetof(struct cpu_state, cr8), 8},
    {"efer", "int64", "system", offsetof(struct cpu_state, efer), 8},
};

/* Which of them each feature has. */
static const struct {
    const char *name, *types;
    unsigned first, n;
} features[] = {
    {"org.gnu.gdb.i386.core",
     "<flags id=\"i386_eflags\" size=\"4\">"
     "<field name=\"CF\" start=\"0\" end=\"0\"/><field name=\"\" start=\"1\" end=\"1\"/>"
     "<field name=\"PF\" start=\"2\" end=\"2\"/><field name=\"AF\" start=\"4\" end=\"4\"/>"
     "<field name=\"ZF\" start=\"6\" end=\"6\"/><field name=\"SF\" start=\"7\" end=\"7\"/>"
     "<field name=\"TF\" start=\"8\" end=\"8\"/><field name=\"IF\" start=\"9\" end=\"9\"/>"
     "<field name=\"DF\" start=\"10\" end=\"10\"/><field name=\"OF\" start=\"11\" end=\"11\"/>"
     "<field name=\"NT\" start=\"14\" end=\"14\"/><field name=\"RF\" start=\"16\" end=\"16\"/>"
     "<field name=\"VM\" start=\"17\" end=\"17\"/><field name=\"AC\" start=\"18\" end=\"18\"/></flags>",
     0, 40},
    {"org.gnu.gdb.i386.sse",
     "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/><vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
     "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/><vector id=\"v4i32\" type=\"int32\" count=\"4\"/>"
     "<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
     "<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/><field name=\"v2_double\" type=\"v2d\"/>"
     "<field name=\"v16_int8\" type=\"v16i8\"/><field name=\"v4_int32\" type=\"v4i32\"/>"
     "<field name=\"v2_int64\" type=\"v2i64\"/><field name=\"uint128\" type=\"uint128\"/></union>"
     "<flags id=\"i386_mxcsr\" size=\"4\"><field name=\"IE\" start=\"0\" end=\"0\"/></flags>",
     40, 17},
    {"org.gnu.gdb.i386.segments", "", 57, 2},
    {"org.bothy.i386.system", "", 59, 7},
};
static_assert(40 + 17 + 2 + 7 == GDB_REGS, "every register is in a feature");

enum { REG_FTAG = 34 };

/* A bit for each register in use, and two bits for each: 3 for empty [Intel SDM vol. 1, 10.5.1.1 x87 State]. */
static uint32_t tags_from_bits(uint32_t bits)
{
    uint32_t tags = 0;

    for (unsigned i = 0; i < 8; i++)
        tags |= bits & 1u << i ? 0 : 3u << (2 * i);
    return tags;
}

static uint32_t bits_from_tags(uint32_t tags)
{
    uint32_t bits = 0;

    for (unsigned i = 0; i < 8; i++)
        bits |= (tags >> (2 * i) & 3) == 3 ? 0 : 1u << i;
    return bits;
}

void gdb_reg_get(unsigned n, const struct cpu_state *s, void *ret)
{
    assert(n < GDB_REGS);
    memcpy(ret, (const uint8_t *)s + gdb_regs[n].off, gdb_regs[n].len);
    if (n == REG_FTAG)
        put_le32(ret, tags_from_bits(s->ftw));
}

void gdb_reg_set(unsigned n, struct cpu_state *s, const void *value)
{
    assert(n < GDB_REGS);
    memcpy((uint8_t *)s + gdb_regs[n].off, value, gdb_regs[n].len);
    if (n == REG_FTAG)
        s->ftw = bits_from_tags(get_le32(value));
}

char *gdb_target_xml(void)
{
    char *text;
    size_t len;
    FILE *f = open_memstream(&text, &len);

    if (!f)
        abort();
    fputs("<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\">"
          "<target><architecture>i386:x86-64</architecture>",
          f);
    for (size_t i = 0; i < array_len(features); i++) {
        fprintf(f, "<feature name=\"%s\">%s", features[i].name, features[i].types);
        for (unsigned n = features[i].first; n < features[i].first + features[i].n; n++) {
            const struct gdb_reg *r = &gdb_regs[n];

            fprintf(f, "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\"", r->name, r->len * 8u, r->type);
            if (r->group)
                fprintf(f, " group=\"%s\"", r->group);
            fputs("/>", f);
        }
        fputs("</feature>", f);
    }
    fputs("</target>", f);
    fclose(f);
    return text;
}
