#include "vmm/inspect/symbols.h"

#include <errno.h>
#include <stdlib.h>

#include "vmm/base/cleanup.h"

enum { SYMBOLS_MAX = 2 << 20, TOKENS = 256, TOKEN_TABLE_MAX = 16384, NAMES_MAX = 128 << 20, CODES_MAX = 2048 };
enum { STACK_MAX = 16 << 10, CALL_MAX = 7 };

/* --- the table --- */

/* Names in the table: bytes one after the other, which are fetched by pieces. */
struct stream {
    const struct vmcoreinfo *k;
    uint64_t addr;
    uint8_t piece[4096];
    size_t n, at;
};

static int next_byte(struct stream *s)
{
    if (s->at == s->n) {
        s->n = sizeof(s->piece) - s->addr % sizeof(s->piece); /* no further than the page */
        if (vmcoreinfo_read(s->k, s->addr, s->piece, s->n))
            return -EFAULT;
        s->addr += s->n;
        s->at = 0;
    }
    return s->piece[s->at++];
}

struct tokens {
    char table[TOKEN_TABLE_MAX + 1];
    uint16_t index[TOKENS];
};

static int read_tokens(const struct vmcoreinfo *k, struct tokens *ret)
{
    uint64_t table, index;
    size_t n = TOKEN_TABLE_MAX;

    if (!vmcoreinfo_symbol(k, "kallsyms_token_table", &table) || !vmcoreinfo_symbol(k, "kallsyms_token_index", &index))
        return -ENOENT;
    if (index > table) /* it lies behind */
        n = min_u64(n, index - table);
    memset(ret->table, 0, sizeof(ret->table));
    return vmcoreinfo_read(k, table, ret->table, n) || vmcoreinfo_read(k, index, ret->index, sizeof(ret->index))
               ? -EFAULT
               : 0;
}

/* One name: a length of one or two bytes, then tokens; its first letter is the type. */
static int read_name(struct stream *in, const struct tokens *t, char name[SYMBOL_NAME_MAX])
{
    int len = next_byte(in), high = len >= 0x80 ? next_byte(in) : 0;
    size_t n = 0;

    if (len < 0 || high < 0)
        return -EFAULT;
    for (len = len < 0x80 ? len : (len & 0x7f) | high << 7; len; len--) {
        int token = next_byte(in);

        if (token < 0 || t->index[token] >= TOKEN_TABLE_MAX || !t->table[t->index[token]])
            return -EFAULT; /* an empty one is in no name; of such a name could have thousands */
        for (const char *p = t->table + t->index[token]; *p; p++) {
            if (n == SYMBOL_NAME_MAX - 1)
                return -EFAULT;
            name[n++] = *p;
        }
    }
    name[n] = 0;
    return n > 1 ? 0 : -EFAULT;
}

static int read_names(const struct vmcoreinfo *k, const struct tokens *t, uint32_t n, struct symbols *s)
{
    struct stream *in cleanup_free = xcalloc(1, sizeof(*in));
    int rc = 0;

    in->k = k;
    if (!vmcoreinfo_symbol(k, "kallsyms_names", &in->addr))
        return -ENOENT;
    for (uint32_t i = 0; i < n && !rc; i++) {
        char name[SYMBOL_NAME_MAX];

        rc = read_name(in, t, name);
        if (!rc)
            rc = symbols_add(s, 0, name + 1); /* behind its type */
    }
    return rc;
}

/*
 * 32 bits for each, from a base.  Where per-CPU symbols are absolute (x86-64 before 6.15) those are positive, and all
 * others are negative, counted from the base - 1.  The one symbol that we know otherwise tells which it is.
 */
static int read_addresses(const struct vmcoreinfo *k, struct symbols *s)
{
    uint32_t *offsets cleanup_free = xcalloc(s->n, sizeof(*offsets));
    uint64_t at, var, base, stext;
    bool absolute = true;

    if (!vmcoreinfo_symbol(k, "kallsyms_offsets", &at) || !vmcoreinfo_symbol(k, "kallsyms_relative_base", &var) ||
        !vmcoreinfo_symbol(k, "_stext", &stext))
        return -ENOENT;
    if (vmcoreinfo_read(k, at, offsets, s->n * sizeof(*offsets)) || vmcoreinfo_read(k, var, &base, sizeof(base)))
        return -EFAULT;
    for (size_t i = 0; i < s->n; i++)
        if (base + offsets[i] == stext && !strcmp(s->names + s->s[i].name, "_stext"))
            absolute = false;
    for (size_t i = 0; i < s->n; i++) {
        int32_t off = (int32_t)offsets[i];

        s->s[i].addr = !absolute ? base + offsets[i] : off >= 0 ? (uint64_t)off : base - 1 - (uint64_t)(int64_t)off;
    }
    return 0;
}

static int fill(const struct vmcoreinfo *k, uint32_t n, struct symbols *s)
{
    struct tokens *t cleanup_free = xcalloc(1, sizeof(*t));
    uint64_t start, end;
    int rc = read_tokens(k, t);

    if (!rc)
        rc = read_names(k, t, n, s);
    if (!rc)
        rc = read_addresses(k, s);
    if (rc)
        return rc;
    symbols_sort(s);
    if (!symbols_find(s, "_stext", &start) || !symbols_find(s, "_etext", &end) || end < start)
        return -EFAULT;
    return symbols_add_code(s, start, end - start, "");
}

int symbols_read(const struct vmcoreinfo *k, struct symbols *ret)
{
    uint32_t n;
    uint64_t var;
    int rc;

    *ret = (struct symbols){0};
    if (!vmcoreinfo_symbol(k, "kallsyms_num_syms", &var))
        return -ENOENT;
    if (vmcoreinfo_read(k, var, &n, sizeof(n)) || !n || n > SYMBOLS_MAX)
        return -EFAULT;
    rc = fill(k, n, ret);
    if (rc)
        symbols_fini(ret);
    return rc;
}

void symbols_fini(struct symbols *s)
{
    free(s->s);
    free(s->names);
    free(s->code);
    *s = (struct symbols){0};
}

/* Room for one more of `size` bytes each. */
static void *grow(void *array, size_t have, size_t *room, size_t size)
{
    if (have < *room)
        return array;
    *room = *room ? 2 * *room : 64;
    array = reallocarray(array, *room, size);
    if (!array)
        abort();
    return array;
}

int symbols_add(struct symbols *s, uint64_t addr, const char *name)
{
    size_t len = strlen(name) + 1;

    if (s->n == SYMBOLS_MAX || s->names_len + len > NAMES_MAX)
        return -EFAULT;
    s->s = grow(s->s, s->n, &s->room, sizeof(*s->s));
    s->s[s->n++] = (struct symbol){.addr = addr, .name = (uint32_t)s->names_len};
    while (s->names_len + len > s->names_room)
        s->names = grow(s->names, s->names_room, &s->names_room, 1);
    for (size_t i = 0; i < len; i++)
        s->names[s->names_len++] = !name[i] || (name[i] > ' ' && name[i] < 127) ? name[i] : '?';
    return 0;
}

int symbols_add_code(struct symbols *s, uint64_t start, uint64_t size, const char *module)
{
    struct code c = {.start = start};

    if (s->ncode == CODES_MAX || __builtin_add_overflow(start, size, &c.end))
        return -EFAULT;
    if (!s->code)
        s->code = xcalloc(CODES_MAX, sizeof(*s->code));
    for (size_t i = 0; i < sizeof(c.module) - 1 && module[i]; i++)
        c.module[i] = module[i] > ' ' && module[i] < 127 ? module[i] : '?';
    s->code[s->ncode++] = c;
    return 0;
}

static int by_address(const void *a, const void *b)
{
    const struct symbol *x = a, *y = b;

    return x->addr != y->addr ? (x->addr < y->addr ? -1 : 1) : x->name < y->name ? -1 : x->name > y->name;
}

void symbols_sort(struct symbols *s)
{
    qsort(s->s, s->n, sizeof(*s->s), by_address);
}

bool symbols_find(const struct symbols *s, const char *name, uint64_t *ret)
{
    for (size_t i = 0; i < s->n; i++)
        if (!strcmp(s->names + s->s[i].name, name)) {
            *ret = s->s[i].addr;
            return true;
        }
    return false;
}

const struct code *symbols_code(const struct symbols *s, uint64_t addr)
{
    for (unsigned i = 0; i < s->ncode; i++)
        if (addr >= s->code[i].start && addr < s->code[i].end)
            return &s->code[i];
    return NULL;
}

/* The function that `addr` is in, and where that ends: at the next symbol, or with the code.  NULL: in none. */
static const struct symbol *function_at(const struct symbols *s, uint64_t addr, const struct code **code, uint64_t *end)
{
    size_t low = 0, high = s->n;

    *code = symbols_code(s, addr);
    while (low < high) { /* the first above it */
        size_t mid = (low + high) / 2;

        if (s->s[mid].addr <= addr)
            low = mid + 1;
        else
            high = mid;
    }
    if (!*code || !low || s->s[low - 1].addr < (*code)->start)
        return NULL;
    *end = low < s->n ? min_u64(s->s[low].addr, (*code)->end) : (*code)->end;
    low--;
    while (low && s->s[low - 1].addr == s->s[low].addr)
        low--;
    return &s->s[low];
}

static void put_name(const struct symbols *s, uint64_t addr, bool whole, char *buf, size_t n)
{
    const struct code *code;
    char offset[64] = "";
    uint64_t end;
    const struct symbol *f = function_at(s, addr, &code, &end);

    if (!f) {
        snprintf(buf, n, "%#llx", (unsigned long long)addr);
        return;
    }
    if (whole)
        snprintf(offset, sizeof(offset), "+%#llx/%#llx", (unsigned long long)(addr - f->addr),
                 (unsigned long long)(end - f->addr));
    snprintf(buf, n, "%s%s%s%s%s", s->names + f->name, offset, *code->module ? " [" : "", code->module,
             *code->module ? "]" : "");
}

void symbols_name(const struct symbols *s, uint64_t addr, char *buf, size_t n)
{
    put_name(s, addr, true, buf, n);
}

void symbols_function(const struct symbols *s, uint64_t addr, char *buf, size_t n)
{
    put_name(s, addr, false, buf, n);
}

/* --- back-traces --- */

/* Does a call end at `addr`?  [Intel SDM vol. 2A, CALL: E8 rel32; FF /2 in its lengths] */
static bool follows_call(const struct vmcoreinfo *k, uint64_t addr)
{
    uint8_t b[CALL_MAX];

    if (vmcoreinfo_read(k, addr - CALL_MAX, b, sizeof(b)))
        return false;
    if (b[2] == 0xe8)
        return true;
    for (unsigned len = 2; len <= CALL_MAX; len++)
        if (b[CALL_MAX - len] == 0xff && (b[CALL_MAX - len + 1] >> 3 & 7) == 2)
            return true;
    return false;
}

/* Of a function's return, where that goes through a thunk: it was called there, but by nobody. */
static bool is_thunk(const struct symbols *s, uint64_t addr)
{
    char name[SYMBOL_NAME_MAX + CODE_NAME_MAX];

    symbols_function(s, addr, name, sizeof(name));
    return strstr(name, "return_thunk");
}

unsigned symbols_trace(const struct symbols *s, const struct vmcoreinfo *k, const struct cpu_state *cpu,
                       uint64_t ret[TRACE_MAX])
{
    uint64_t sp = align_up(cpu->gpr[CPU_RSP], 8);
    unsigned n = 0;

    if (cpu->level || !s->ncode)
        return 0;
    for (unsigned i = 0; i < STACK_MAX / 8 && n < TRACE_MAX; i++) {
        uint64_t word;

        if (vmcoreinfo_read(k, sp + 8 * i, &word, sizeof(word)))
            break;
        if (symbols_code(s, word) && follows_call(k, word) && !is_thunk(s, word))
            ret[n++] = word;
    }
    return n;
}
