/* The orders, parsed.  Strings are within the text.  Needs no C library: unit tests have it too. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "firmware/abi/init.h"

struct orders {
    const char *modules[INIT_MODULES_MAX];
    unsigned nmodules;
    const char *root, *host, *cwd, *dns;
    uint64_t clock;
    uint32_t uid, gid, groups[INIT_GROUPS_MAX];
    unsigned ngroups;
    bool tty, net, systemd, serve, profile;
    uint16_t cols, rows;
    uint32_t address, mask, gateway;
    char **argv, **envp; /* NULL-terminated, within `words` */
};

/* Room for the pointers to them: arguments, environment, and a NULL after each. */
enum { ORDERS_POINTERS = INIT_WORDS_MAX + 2 };

/* NULL, or what is wrong; `text` is n bytes. */
const char *orders_parse(char *text, size_t n, char **pointers, struct orders *ret);
/* Decimal numbers with a blank between; false where there are not n, or one is above `max`. */
bool parse_numbers(const char *text, uint64_t max, uint64_t *ret, unsigned n);
