/* What cmocka wants before its own header; every *_test.c includes this after the header that it tests. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* How many times as much tests that choose at random shall do: BOTHY_TEST_FACTOR, else 1. */
static inline unsigned test_factor(void)
{
    const char *s = getenv("BOTHY_TEST_FACTOR");

    return s ? (unsigned)strtoul(s, NULL, 10) : 1;
}
