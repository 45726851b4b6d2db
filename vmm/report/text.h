/* Text from a guest, made fit for terminals, JSON and XML alike, and kept up to a limit. */
#pragma once
#include <stdio.h>

#include "vmm/base/base.h"

/*
 * In place; returns the new length, which is never more.  What remains is UTF-8 of characters that XML 1.0 allows.
 * Colours and other terminal sequences are gone; '?' stands for control characters but tab and newline, and for bytes
 * that are no UTF-8.
 */
size_t text_clean(char *p, size_t n);

/* A string that grows to `max` bytes; what comes later is counted.  All zeroes but `max`: empty. */
struct text {
    char *p; /* NULL: empty; else ends with a zero */
    size_t len, max;
    uint64_t lost;
};
void text_add(struct text *t, const char *p, size_t n);
/* The string, the caller's to free, with a last line that tells of what was lost; NULL when it is empty.  `t` is empty
 * then. */
char *text_take(struct text *t);

/* Each of its lines behind `indent` blanks and the mark; NULL: none. */
void text_write_lines(FILE *to, unsigned indent, const char *mark, const char *text);
