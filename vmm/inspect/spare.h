/*
 * The pages of a Linux guest that a dump can do without: free ones, and programs' own data.  Found as kdump's tools do
 * [Documentation/admin-guide/kdump/vmcoreinfo.rst], by the struct page of each, which is the guest's word: at worst a
 * page is left out that somebody wanted, or the other way round.
 */
#pragma once
#include "vmm/inspect/vmcoreinfo.h"

struct spare {
    uint64_t *bits; /* one for each page frame */
    uint64_t n;     /* of them */
};

/* -ENOENT: the kernel does not say where its struct pages are, or not in a way known here. */
int spare_find(const struct vmcoreinfo *k, struct spare *ret) must_check;
/* Whether the page at this address is one; never with one that is all zeroes. */
bool spare_has(const struct spare *s, gpa_t at);
void spare_fini(struct spare *s); /* copes with one that is all zeroes */
