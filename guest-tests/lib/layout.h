/* Numbers that start.S and C share. */
#pragma once

#define CPUS         64 /* at most */
#define KERNEL_STACK 4096
#define KERNEL_CODE  0x08
#define KERNEL_DATA  0x10
#define USER_CODE    0x1b
#define USER_DATA    0x23
#define TSS_FIRST    0x30
#define GDT_SIZE     (TSS_FIRST + 16 * CPUS)
#define VECTORS      64 /* exceptions, and 0x20 to 0x3f for tests */
#define STUB_SIZE    16
#define AP_PAGE      0x8000
