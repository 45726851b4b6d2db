/*
 * From the PVH entry [Xen, PVH boot ABI] to C in long mode, the ways between privilege levels, interrupt entry and the
 * first steps of further processors.  Where a hypervisor emulates level 0 an instruction costs microseconds: tables are
 * data here, not made by code.
 */
#include "guest-tests/lib/layout.h"

    .section .note.Xen, "a", @note
    .long   4, 4, 18                    /* XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz  "Xen"
    .long   pvh_entry

/* Turns paging on with the tables below; a far jump to 64-bit code must follow.  No stack is needed. */
    .macro  enable_long_mode
    mov     $0x20, %eax                 /* PAE */
    mov     %eax, %cr4
    mov     $page_map, %eax
    mov     %eax, %cr3
    mov     $0xc0000080, %ecx           /* EFER.LME */
    xor     %edx, %edx
    mov     $0x100, %eax
    wrmsr
    mov     $0x80000011, %eax           /* PG, ET, PE */
    mov     %eax, %cr0
    .endm

    .text
    .code32
    .global pvh_entry
pvh_entry:
    mov     %ebx, start_info
    lgdt    gdt_pointer
    enable_long_mode
    ljmp    $KERNEL_CODE, $boot_cpu64

    .code64
boot_cpu64:
    lea     kernel_stacks + KERNEL_STACK, %rsp
    xor     %edi, %edi
    jmp     cpu_main

/* Further processors start here in real mode, after it was copied to AP_PAGE. */
    .code16
    .global ap_start, ap_end
ap_start:
    cli
    mov     %cs, %ax
    mov     %ax, %ds
    lgdtl   ap_gdt_pointer - ap_start
    enable_long_mode
    ljmpl   $KERNEL_CODE, $ap64
ap_gdt_pointer:
    .word   GDT_SIZE - 1
    .long   gdt
ap_end:

    .code64
ap64:
    mov     ap_index, %edi              /* who starts it waits before it starts the next */
    mov     %edi, %eax
    inc     %eax
    imul    $KERNEL_STACK, %eax, %eax
    lea     kernel_stacks(%rax), %rsp
    jmp     cpu_main

/* void to_level3(void (*fn)(void), void *stack_top): never returns; interrupts go on. */
    .global to_level3
to_level3:
    sub     $8, %rsi                    /* as after a call */
    pushq   $USER_DATA
    pushq   %rsi
    pushq   $0x202                      /* I/O is allowed by the TSS: some hypervisors lose IOPL */
    pushq   $USER_CODE
    pushq   %rdi
    iretq

/*
 * uint64_t level0_call(uint64_t (*fn)(uint64_t), uint64_t arg): calls fn(arg) in level 0.  An invalid instruction is the
 * way in: hypervisors that emulate level 0 know neither INT nor SYSCALL from level 3.
 */
    .global level0_call, level0_gate
level0_call:
    ud2
    ret
level0_gate:                            /* of vector 6 */
    push    %rax
    lea     level0_call(%rip), %rax
    cmp     %rax, 8(%rsp)
    pop     %rax
    jne     vector_stubs + 6 * STUB_SIZE
    addq    $2, (%rsp)
    mov     %rdi, %rax
    mov     %rsi, %rdi
    sub     $8, %rsp
    call    *%rax
    add     $8, %rsp
    iretq

/* One entry for each vector, STUB_SIZE bytes apart; those of exceptions without an error code push one. */
    .global vector_stubs
    .balign STUB_SIZE
vector_stubs:
    vector = 0
    .rept VECTORS
    .balign STUB_SIZE
    .if !((0x227d00 >> vector) & 1)     /* 8, 10 to 14, 17, 21 bring their own */
    pushq   $0
    .endif
    pushq   $vector
    jmp     vector_common
    vector = vector + 1
    .endr

vector_common:
    push    %rax
    push    %rcx
    push    %rdx
    push    %rsi
    push    %rdi
    push    %r8
    push    %r9
    push    %r10
    push    %r11
    mov     %rsp, %rdi
    cld
    call    vector_dispatch
    pop     %r11
    pop     %r10
    pop     %r9
    pop     %r8
    pop     %rdi
    pop     %rsi
    pop     %rdx
    pop     %rcx
    pop     %rax
    add     $16, %rsp
    iretq

    .data
    .balign 16
    .global gdt
gdt:
    .quad   0
    .quad   0x00af9b000000ffff          /* KERNEL_CODE: 64-bit, level 0 */
    .quad   0x00cf93000000ffff          /* KERNEL_DATA */
    .quad   0x00affb000000ffff          /* USER_CODE: 64-bit, level 3 */
    .quad   0x00cff3000000ffff          /* USER_DATA */
    .quad   0
    .fill   2 * CPUS, 8, 0              /* a TSS for each processor */
gdt_pointer:
    .word   GDT_SIZE - 1
    .quad   gdt

    .global start_info, ap_index
start_info:
    .long   0
ap_index:
    .long   0

/* Identity map of the first and the fourth GiB in 2 MiB pages that level 3 may use; the fourth, devices, is uncached. */
    .balign 4096
    .global page_map
page_map:
    .quad   page_pointers + 7
    .fill   511, 8, 0
page_pointers:
    .quad   page_low + 7, 0, 0, page_devices + 7
    .fill   508, 8, 0
page_low:
    page = 0x87
    .rept   512
    .quad   page
    page = page + 0x200000
    .endr
page_devices:
    page = 0xc0000097
    .rept   512
    .quad   page
    page = page + 0x200000
    .endr

    .section .note.GNU-stack, "", @progbits
