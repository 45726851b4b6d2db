/*
 * What every case uses.  A case is `int main(void)`; what it returns is the exit code.  It is called in level 3 with
 * I/O allowed and interrupts on, since that is where code runs at native speed under every hypervisor, or in level 0
 * with the word "level0" on the command line.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EXIT_PASSED = 0, EXIT_FAILED = 1, EXIT_SKIPPED = 77, EXIT_EXCEPTION = 99 };

int main(void);

/* To the debug port: %d %u %x (with l or z), %s, %c, %%, a width with leading zeroes. */
void printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Through the debug-exit port. */
_Noreturn void exit(int code);
/* Says why this host or board cannot run the case. */
_Noreturn void skip(const char *why);
_Noreturn void fail(const char *file, int line, const char *what, uint64_t got, uint64_t want);

#define CHECK(cond)                                \
    do {                                           \
        if (!(cond))                               \
            fail(__FILE__, __LINE__, #cond, 0, 1); \
    } while (0)
#define CHECK_EQ(got, want)                                           \
    do {                                                              \
        uint64_t got_ = (got), want_ = (want);                        \
        if (got_ != want_)                                            \
            fail(__FILE__, __LINE__, #got " is " #want, got_, want_); \
    } while (0)

/* The command line; the text after "NAME=" or "" for a bare NAME, NULL when there is no such word. */
const char *word(const char *name);
uint64_t parse_number(const char *text, const char **end); /* decimal or 0x… */

void *memcpy(void *dst, const void *src, size_t n);
void *memset(void *dst, int c, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);

#define array_len(a) (sizeof(a) / sizeof((a)[0]))
