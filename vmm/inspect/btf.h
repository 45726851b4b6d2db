/*
 * Where the members of a kernel's structs are, from the description of its types that it keeps in memory, BTF
 * [Documentation/bpf/btf.rst], where it was built with one (CONFIG_DEBUG_INFO_BTF, as distributions do).
 */
#pragma once
#include "vmm/inspect/symbols.h"

struct btf {
    uint8_t *data; /* all of it, and a zero */
    size_t types, types_end, strings, strings_end;
};

/* -ENOENT: the kernel has none; -EFAULT: it is damaged. */
int btf_read(const struct vmcoreinfo *k, const struct symbols *s, struct btf *ret) must_check;
void btf_fini(struct btf *b); /* copes with one that is all zeroes */

struct btf_layout { /* of a struct */
    const struct btf *btf;
    uint32_t size;
    size_t members; /* the first one's place in btf->data */
    unsigned nmembers;
};
/* False: there is no such struct; what stands behind a type of an unknown kind is not found. */
bool btf_struct(const struct btf *b, const char *name, struct btf_layout *ret);
/* Bytes from the struct's start.  False: it has no such member, or that does not begin at a byte. */
bool btf_member(const struct btf_layout *l, const char *name, uint64_t *ret);
