/*
 * Linux's system calls, as far as the first process makes them, without a C library.  Results are the kernel's: -errno
 * on failure.
 */
#pragma once
#include <asm/unistd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define array_len(a) (sizeof(a) / sizeof((a)[0]))

static inline long sys6(long n, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long ret;

    __asm__ volatile("syscall"
                     : "=a"(ret)
                     : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return ret;
}

/* Any pointers and integers, missing ones are 0: SYS(mount, "proc", "/proc", "proc", 0, NULL). */
#define SYS(name, ...)                 SYS_(__NR_##name, ##__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)
#define SYS_(n, a, b, c, d, e, f, ...) sys6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
