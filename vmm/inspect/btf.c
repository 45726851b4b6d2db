#include "vmm/inspect/btf.h"

#include <errno.h>
#include <linux/btf.h>
#include <stdlib.h>

#include "vmm/base/cleanup.h"

enum { BTF_BYTES_MAX = 64 << 20 };

/* What follows a type's head. */
static const struct {
    uint8_t once, each; /* bytes; `each`: of as many as its vlen says */
} tails[NR_BTF_KINDS] = {
    [BTF_KIND_INT] = {.once = 4},
    [BTF_KIND_ARRAY] = {.once = sizeof(struct btf_array)},
    [BTF_KIND_STRUCT] = {.each = sizeof(struct btf_member)},
    [BTF_KIND_UNION] = {.each = sizeof(struct btf_member)},
    [BTF_KIND_ENUM] = {.each = sizeof(struct btf_enum)},
    [BTF_KIND_FUNC_PROTO] = {.each = sizeof(struct btf_param)},
    [BTF_KIND_VAR] = {.once = sizeof(struct btf_var)},
    [BTF_KIND_DATASEC] = {.each = sizeof(struct btf_var_secinfo)},
    [BTF_KIND_DECL_TAG] = {.once = sizeof(struct btf_decl_tag)},
    [BTF_KIND_ENUM64] = {.each = sizeof(struct btf_enum64)},
};

static int check(struct btf *b, size_t len)
{
    struct btf_header h;

    memcpy(&h, b->data, sizeof(h));
    if (h.magic != BTF_MAGIC || h.version != BTF_VERSION || h.hdr_len < sizeof(h) || h.hdr_len > len ||
        !range_fits(h.type_off, h.type_len, len - h.hdr_len) || !range_fits(h.str_off, h.str_len, len - h.hdr_len))
        return -EFAULT;
    b->types = h.hdr_len + h.type_off;
    b->types_end = b->types + h.type_len;
    b->strings = h.hdr_len + h.str_off;
    b->strings_end = b->strings + h.str_len;
    return 0;
}

int btf_read(const struct vmcoreinfo *k, const struct symbols *s, struct btf *ret)
{
    uint64_t start, stop;
    struct btf b = {0};

    if (!symbols_find(s, "__start_BTF", &start) || !symbols_find(s, "__stop_BTF", &stop) || start == stop)
        return -ENOENT;
    if (stop < start || stop - start < sizeof(struct btf_header) || stop - start > BTF_BYTES_MAX)
        return -EFAULT;
    b.data = xcalloc(1, stop - start + 1);
    if (vmcoreinfo_read(k, start, b.data, stop - start) || check(&b, stop - start)) {
        btf_fini(&b);
        return -EFAULT;
    }
    *ret = b;
    return 0;
}

void btf_fini(struct btf *b)
{
    free(b->data);
    *b = (struct btf){0};
}

static bool is_called(const struct btf *b, uint32_t name, const char *wanted)
{
    return name < b->strings_end - b->strings && !strcmp((const char *)b->data + b->strings + name, wanted);
}

bool btf_struct(const struct btf *b, const char *name, struct btf_layout *ret)
{
    struct btf_type t;

    for (size_t at = b->types, left; (left = b->types_end - at) >= sizeof(t);) {
        unsigned kind, n;
        size_t tail;

        memcpy(&t, b->data + at, sizeof(t));
        kind = BTF_INFO_KIND(t.info);
        n = BTF_INFO_VLEN(t.info);
        if (!kind || kind >= NR_BTF_KINDS)
            return false;
        tail = tails[kind].once + (size_t)tails[kind].each * n;
        if (tail > left - sizeof(t))
            return false;
        at += sizeof(t);
        if (kind == BTF_KIND_STRUCT && is_called(b, t.name_off, name)) {
            *ret = (struct btf_layout){.btf = b, .size = t.size, .members = at, .nmembers = n};
            return true;
        }
        at += tail;
    }
    return false;
}

bool btf_member(const struct btf_layout *l, const char *name, uint64_t *ret)
{
    for (unsigned i = 0; i < l->nmembers; i++) {
        struct btf_member m;

        memcpy(&m, l->btf->data + l->members + i * sizeof(m), sizeof(m));
        if (!is_called(l->btf, m.name_off, name))
            continue;
        /* In a struct that has bit fields the upper byte is a width; else it is 0 but in a struct of megabytes. */
        if (BTF_MEMBER_BITFIELD_SIZE(m.offset) || m.offset % 8)
            return false;
        *ret = m.offset / 8;
        return true;
    }
    return false;
}
