/* Ports and memory-mapped registers. */
#pragma once
#include <stddef.h>
#include <stdint.h>

static inline void outb(uint16_t port, uint8_t v)
{
    asm volatile("outb %0, %1" : : "a"(v), "Nd"(port) : "memory");
}

static inline void outw(uint16_t port, uint16_t v)
{
    asm volatile("outw %0, %1" : : "a"(v), "Nd"(port) : "memory");
}

static inline void outl(uint16_t port, uint32_t v)
{
    asm volatile("outl %0, %1" : : "a"(v), "Nd"(port) : "memory");
}

static inline uint8_t inb(uint16_t port)
{
    uint8_t v;

    asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory");
    return v;
}

static inline uint16_t inw(uint16_t port)
{
    uint16_t v;

    asm volatile("inw %1, %0" : "=a"(v) : "Nd"(port) : "memory");
    return v;
}

static inline uint32_t inl(uint16_t port)
{
    uint32_t v;

    asm volatile("inl %1, %0" : "=a"(v) : "Nd"(port) : "memory");
    return v;
}

/* String instructions: `n` units. */
static inline void outsb(uint16_t port, const void *p, size_t n)
{
    asm volatile("rep outsb" : "+S"(p), "+c"(n) : "d"(port) : "memory");
}

static inline void insb(uint16_t port, void *p, size_t n)
{
    asm volatile("rep insb" : "+D"(p), "+c"(n) : "d"(port) : "memory");
}

static inline void insw(uint16_t port, void *p, size_t n)
{
    asm volatile("rep insw" : "+D"(p), "+c"(n) : "d"(port) : "memory");
}

static inline void insl(uint16_t port, void *p, size_t n)
{
    asm volatile("rep insl" : "+D"(p), "+c"(n) : "d"(port) : "memory");
}

/* Exactly one load or store each, whatever the compiler thinks. */
static inline uint8_t read8(const volatile void *p)
{
    return *(const volatile uint8_t *)p;
}

static inline uint16_t read16(const volatile void *p)
{
    uint16_t v;

    asm volatile("movw (%1), %0" : "=r"(v) : "r"(p) : "memory");
    return v;
}

static inline uint32_t read32(const volatile void *p)
{
    uint32_t v;

    asm volatile("movl (%1), %0" : "=r"(v) : "r"(p) : "memory");
    return v;
}

static inline uint64_t read64(const volatile void *p)
{
    uint64_t v;

    asm volatile("movq (%1), %0" : "=r"(v) : "r"(p) : "memory");
    return v;
}

static inline void write8(volatile void *p, uint8_t v)
{
    asm volatile("movb %0, (%1)" : : "q"(v), "r"(p) : "memory");
}

static inline void write16(volatile void *p, uint16_t v)
{
    asm volatile("movw %0, (%1)" : : "r"(v), "r"(p) : "memory");
}

static inline void write32(volatile void *p, uint32_t v)
{
    asm volatile("movl %0, (%1)" : : "r"(v), "r"(p) : "memory");
}

static inline void write64(volatile void *p, uint64_t v)
{
    asm volatile("movq %0, (%1)" : : "r"(v), "r"(p) : "memory");
}

static inline void *phys(uint64_t address)
{
    return (void *)address;
}
