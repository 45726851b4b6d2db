#include "vmm/inspect/modules.h"

#include <elf.h>
#include <errno.h>

#include "vmm/inspect/btf.h"

enum { MODULES_MAX = 1024, LOOKS_MAX = 1 << 20, PAGE = 4096 };
enum { MOD_INIT_TEXT = 4 }; /* in module.mem[], since Linux 6.4; the first is the code that stays */

/* Offsets. */
struct layout {
    uint64_t list, name, kallsyms, text, init; /* in struct module */
    uint64_t base, size;                       /* in what is at `text` and `init` */
    uint64_t symtab, nsymtab, strtab;          /* in struct mod_kallsyms */
};

static bool find_code(const struct btf *b, const struct btf_layout *module, struct layout *ret)
{
    struct btf_layout part;

    if (btf_struct(b, "module_layout", &part)) /* until Linux 6.3 */
        return btf_member(module, "core_layout", &ret->text) && btf_member(module, "init_layout", &ret->init) &&
               btf_member(&part, "base", &ret->base) && btf_member(&part, "text_size", &ret->size);
    if (!btf_struct(b, "module_memory", &part) || !btf_member(module, "mem", &ret->text))
        return false;
    ret->init = ret->text + MOD_INIT_TEXT * (uint64_t)part.size;
    return btf_member(&part, "base", &ret->base) && btf_member(&part, "size", &ret->size);
}

static int read_layout(const struct vmcoreinfo *k, const struct symbols *s, struct layout *ret)
{
    struct btf_layout module, kallsyms;
    struct btf b;
    int rc = btf_read(k, s, &b);

    if (rc)
        return rc;
    if (!btf_struct(&b, "module", &module) || !btf_struct(&b, "mod_kallsyms", &kallsyms) ||
        !btf_member(&module, "list", &ret->list) || !btf_member(&module, "name", &ret->name) ||
        !btf_member(&module, "kallsyms", &ret->kallsyms) || !btf_member(&kallsyms, "symtab", &ret->symtab) ||
        !btf_member(&kallsyms, "num_symtab", &ret->nsymtab) || !btf_member(&kallsyms, "strtab", &ret->strtab) ||
        !find_code(&b, &module, ret))
        rc = -ENOENT;
    btf_fini(&b);
    return rc;
}

/* A string of the guest's, cut to what there is room for; "": there is none. */
static void read_string(const struct vmcoreinfo *k, uint64_t addr, char *buf, size_t n)
{
    size_t have = 0;

    while (have < n - 1) {
        size_t part = min_u64(n - 1 - have, PAGE - addr % PAGE); /* nothing may be behind its page */

        if (vmcoreinfo_read(k, addr, buf + have, part))
            break;
        if (memchr(buf + have, 0, part))
            return;
        have += part;
        addr += part;
    }
    buf[have] = 0;
}

/* A part of the module's code, when it is there (init's is freed when it has run). */
static int add_code(const struct vmcoreinfo *k, const struct layout *l, uint64_t part, const char *name,
                    struct symbols *s)
{
    uint64_t base;
    uint32_t size;

    if (vmcoreinfo_read(k, part + l->base, &base, sizeof(base)) ||
        vmcoreinfo_read(k, part + l->size, &size, sizeof(size)))
        return -EFAULT;
    return base && size ? symbols_add_code(s, base, size, name) : 0;
}

static int add_symbols(const struct vmcoreinfo *k, const struct layout *l, uint64_t kallsyms, unsigned *looks,
                       struct symbols *s)
{
    uint64_t symtab, strtab;
    uint32_t n;

    if (vmcoreinfo_read(k, kallsyms + l->symtab, &symtab, sizeof(symtab)) ||
        vmcoreinfo_read(k, kallsyms + l->strtab, &strtab, sizeof(strtab)) ||
        vmcoreinfo_read(k, kallsyms + l->nsymtab, &n, sizeof(n)))
        return -EFAULT;
    for (uint32_t i = 0; i < n; i++) {
        char name[SYMBOL_NAME_MAX];
        Elf64_Sym sym;

        if (!(*looks)-- || vmcoreinfo_read(k, symtab + i * sizeof(sym), &sym, sizeof(sym)))
            return -EFAULT;
        if (!symbols_code(s, sym.st_value))
            continue;
        read_string(k, strtab + sym.st_name, name, sizeof(name));
        if (*name && symbols_add(s, sym.st_value, name))
            return -EFAULT;
    }
    return 0;
}

static int add_module(const struct vmcoreinfo *k, const struct layout *l, uint64_t module, unsigned *looks,
                      struct symbols *s)
{
    char name[CODE_NAME_MAX];
    uint64_t kallsyms;
    int rc;

    read_string(k, module + l->name, name, sizeof(name));
    rc = add_code(k, l, module + l->text, name, s);
    if (!rc)
        rc = add_code(k, l, module + l->init, name, s);
    if (!rc && vmcoreinfo_read(k, module + l->kallsyms, &kallsyms, sizeof(kallsyms)))
        rc = -EFAULT;
    return rc || !kallsyms ? rc : add_symbols(k, l, kallsyms, looks, s);
}

int symbols_add_modules(const struct vmcoreinfo *k, struct symbols *s)
{
    unsigned looks = LOOKS_MAX;
    struct layout l;
    uint64_t head, at;
    int rc, n = 0;

    if (!symbols_find(s, "modules", &head))
        return -ENOENT;
    rc = read_layout(k, s, &l);
    if (rc)
        return rc;
    for (at = head; !rc; n++) {
        if (vmcoreinfo_read(k, at, &at, sizeof(at)) || n > MODULES_MAX) /* list_head.next is its first member */
            rc = -EFAULT;
        else if (at == head)
            break;
        else
            rc = add_module(k, &l, at - l.list, &looks, s);
    }
    symbols_sort(s);
    return rc ? rc : n;
}
