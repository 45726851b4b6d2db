#include "guest-tests/lib/cpu.h"

#include "guest-tests/lib/boot.h"
#include "guest-tests/lib/io.h"
#include "guest-tests/lib/layout.h"
#include "guest-tests/lib/test.h"

enum { IO_PORTS = 0x1000, USER_STACK = 8192, PAGE = 4096, MAP_TABLES = 8, INVALID_OPCODE = 6 };

struct tss {
    uint32_t reserved0;
    uint64_t rsp0;
    uint8_t reserved1[90];
    uint16_t io_map;
    uint8_t io_allowed[IO_PORTS / 8]; /* zeroes: from level 3 too, where IOPL would not do everywhere */
    uint8_t io_end;
} __attribute__((packed));

struct gate {
    uint16_t low, selector, type, mid;
    uint32_t high, reserved;
};

struct table_pointer {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed));

struct frame { /* as start.S pushes it */
    uint64_t r11, r10, r9, r8, rdi, rsi, rdx, rcx, rax;
    uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

extern uint64_t gdt[], page_map[];
extern volatile uint32_t ap_index;
extern const uint8_t vector_stubs[], ap_start[], ap_end[];
void level0_gate(void);
uint64_t level0_call(uint64_t (*fn)(uint64_t), uint64_t arg);
_Noreturn void to_level3(void (*fn)(void), void *stack_top);
_Noreturn void cpu_main(unsigned cpu);
void vector_dispatch(struct frame *f);

uint8_t kernel_stacks[CPUS][KERNEL_STACK] __attribute__((aligned(16)));
static uint8_t user_stacks[CPUS][USER_STACK] __attribute__((aligned(16)));
static struct tss tss[CPUS];
static struct gate idt[VECTORS];
static bool in_level0, x2apic;
static void (*volatile ap_fn)(void);
volatile uint32_t irq_count[VECTORS];

/* ---- levels ---- */

static void apic_enable(void);

static void set_gate(unsigned vector, const void *entry)
{
    uint64_t at = (uint64_t)entry;

    idt[vector] = (struct gate){.low = at, .selector = KERNEL_CODE, .type = 0x8e00, .mid = at >> 16, .high = at >> 32};
}

static void fill_idt(void)
{
    for (unsigned v = 0; v < VECTORS; v++)
        set_gate(v, vector_stubs + v * STUB_SIZE);
    set_gate(INVALID_OPCODE, level0_gate);
}

static void run_case(void)
{
    apic_enable();
    exit(main());
}

static uint64_t stop(uint64_t arg)
{
    for (;;)
        asm volatile("cli; hlt");
    return arg;
}

static void run_ap(void)
{
    void (*fn)(void) = ap_fn;

    apic_enable();
    ap_fn = NULL;
    fn();
    level0(stop, 0);
}

/* In level 0, on the processor's kernel stack. */
_Noreturn void cpu_main(unsigned cpu)
{
    uint64_t base = (uint64_t)&tss[cpu];
    uint64_t *entry = &gdt[TSS_FIRST / 8 + 2 * cpu];
    const struct table_pointer idtr = {sizeof(idt) - 1, (uint64_t)idt};

    tss[cpu].rsp0 = (uint64_t)kernel_stacks[cpu + 1];
    tss[cpu].io_map = offsetof(struct tss, io_allowed);
    tss[cpu].io_end = 0xff;
    entry[0] = (sizeof(struct tss) - 1) | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24 & 0xff) << 56;
    entry[1] = base >> 32;
    asm volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%ss" : : "r"(KERNEL_DATA));
    asm volatile("lidt %0" : : "m"(idtr));
    asm volatile("ltr %w0" : : "r"(TSS_FIRST + 16 * cpu));
    if (cpu == 0) {
        fill_idt();
        outb(0x21, 0xff); /* PICs */
        outb(0xa1, 0xff);
    }
    if (cpu == 0 && word("level0")) {
        in_level0 = true;
        asm volatile("sti");
        run_case();
    }
    to_level3(cpu ? run_ap : run_case, user_stacks[cpu + 1]);
}

uint64_t level0(uint64_t (*fn)(uint64_t), uint64_t arg)
{
    return in_level0 ? fn(arg) : level0_call(fn, arg);
}

static uint64_t do_rdmsr(uint64_t msr)
{
    uint32_t lo, hi;

    asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"((uint32_t)msr));
    return lo | (uint64_t)hi << 32;
}

uint64_t rdmsr(uint32_t msr)
{
    return level0(do_rdmsr, msr);
}

struct msr_write {
    uint32_t msr;
    uint64_t v;
};

static uint64_t do_wrmsr(uint64_t arg)
{
    const struct msr_write *w = phys(arg);

    asm volatile("wrmsr" : : "c"(w->msr), "a"((uint32_t)w->v), "d"((uint32_t)(w->v >> 32)) : "memory");
    return 0;
}

void wrmsr(uint32_t msr, uint64_t v)
{
    const struct msr_write w = {msr, v};

    level0(do_wrmsr, (uint64_t)&w);
}

struct halt {
    unsigned vector;
    uint32_t n;
};

static uint64_t do_halt(uint64_t arg)
{
    const struct halt *h = phys(arg);

    asm volatile("cli");
    while (irq_count[h->vector] < h->n)
        asm volatile("sti; hlt; cli" : : : "memory");
    return 0;
}

void irq_halt(unsigned vector, uint32_t n)
{
    const struct halt h = {vector, n};

    level0(do_halt, (uint64_t)&h);
    if (in_level0)
        asm volatile("sti");
}

struct cpuid cpuid(uint32_t leaf, uint32_t sub)
{
    struct cpuid r;

    asm volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(sub));
    return r;
}

static uint64_t *next_table(uint64_t *entry)
{
    static uint8_t tables[MAP_TABLES][PAGE] __attribute__((aligned(PAGE)));
    static unsigned used;

    if (!*entry) {
        CHECK(used < MAP_TABLES);
        *entry = (uint64_t)tables[used++] | 7;
    }
    return phys(*entry & ~0xfffull);
}

void *map(uint64_t address, uint64_t len)
{
    for (uint64_t at = address & ~0x1fffffull; at < address + len; at += 0x200000) {
        uint64_t *pointers = next_table(&page_map[at >> 39 & 511]);
        uint64_t *directory = next_table(&pointers[at >> 30 & 511]);

        directory[at >> 21 & 511] = at | 0x97; /* 2 MiB, uncached, for level 3 */
    }
    return phys(address);
}

/* ---- interrupts ---- */

static void (*handlers[VECTORS])(void);

void vector_dispatch(struct frame *f)
{
    if (f->vector < VECTOR_FIRST) {
        printf("exception %lu, error 0x%lx, at 0x%lx\n", f->vector, f->error, f->rip);
        exit(EXIT_EXCEPTION);
    }
    if (handlers[f->vector])
        handlers[f->vector]();
    __atomic_fetch_add(&irq_count[f->vector], 1, __ATOMIC_SEQ_CST);
    apic_write(APIC_EOI, 0);
}

void irq_handler(unsigned vector, void (*fn)(void))
{
    handlers[vector] = fn;
}

void irq_wait(unsigned vector, uint32_t n)
{
    while (irq_count[vector] < n)
        asm volatile("pause");
}

void irq_linger(void)
{
    enum { ACCESSES = 200, PORT_POST = 0x80 };

    for (int i = 0; i < ACCESSES; i++)
        inb(PORT_POST);
}

bool irq_quiet(unsigned vector)
{
    irq_linger();

    uint32_t n = irq_count[vector];

    irq_linger();
    return irq_count[vector] == n;
}

/* ---- local APIC ---- */

static volatile void *apic_reg(unsigned reg)
{
    return (volatile uint8_t *)phys(0xfee00000) + reg;
}

static uint64_t read_x2(uint64_t reg)
{
    return do_rdmsr(MSR_X2APIC + reg / 16);
}

uint32_t apic_read(unsigned reg)
{
    return x2apic ? level0(read_x2, reg) : read32(apic_reg(reg));
}

void apic_write(unsigned reg, uint32_t v)
{
    if (!x2apic)
        write32(apic_reg(reg), v);
    else if (reg == APIC_EOI) /* from interrupts, in level 0 already */
        do_wrmsr((uint64_t) & (struct msr_write){MSR_X2APIC + reg / 16, v});
    else
        wrmsr(MSR_X2APIC + reg / 16, v);
}

uint32_t apic_id(void)
{
    return x2apic ? apic_read(APIC_ID) : apic_read(APIC_ID) >> 24;
}

void apic_send(uint32_t id, uint32_t command)
{
    if (x2apic) {
        wrmsr(MSR_X2APIC + APIC_ICR / 16, (uint64_t)id << 32 | command);
        return;
    }
    apic_write(APIC_ICR_HIGH, id << 24);
    apic_write(APIC_ICR, command);
    while (apic_read(APIC_ICR) & 1 << 12) /* delivery pending */
        asm volatile("pause");
}

static void apic_enable(void)
{
    enum { X2APIC_BIT = 1 << 10 };

    if (x2apic)
        wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | X2APIC_BIT);
    apic_write(APIC_TPR, 0);
    apic_write(APIC_SPURIOUS, 0x1ff);
    apic_write(APIC_LINT0, APIC_MASKED);
}

void apic_use_x2(void)
{
    if (!(cpuid(1, 0).ecx & 1 << 21))
        skip("no x2APIC");
    x2apic = true;
    apic_enable();
}

/* ---- I/O APIC ---- */

static volatile uint8_t *const ioapic = (volatile uint8_t *)0xfec00000;

static void ioapic_write(unsigned reg, uint32_t v)
{
    write32(ioapic, reg);
    write32(ioapic + 0x10, v);
}

void ioapic_route(unsigned pin, unsigned vector, uint32_t flags)
{
    ioapic_write(0x10 + 2 * pin, IOAPIC_MASKED);
    ioapic_write(0x11 + 2 * pin, apic_id() << 24);
    ioapic_write(0x10 + 2 * pin, vector | flags);
}

/* ---- further processors ---- */

unsigned cpus_listed(uint32_t ids[], unsigned max)
{
    const uint8_t *madt = acpi_find("APIC");
    unsigned n = 0;

    CHECK(madt);
    for (uint32_t at = 44; at < get32(madt + 4); at += madt[at + 1]) {
        const uint8_t *e = madt + at;

        CHECK(e[1] >= 2);
        if (n < max && e[0] == 0 && e[4] & 1)
            ids[n++] = e[3];
        else if (n < max && e[0] == 9 && e[8] & 1)
            ids[n++] = get32(e + 4);
    }
    return n;
}

void cpu_start(uint32_t id, void (*fn)(void))
{
    enum { INIT = 0x4500, STARTUP = 0x4600 };

    ap_fn = fn;
    ap_index = ap_index + 1;
    CHECK(ap_index < CPUS);
    memcpy(phys(AP_PAGE), ap_start, ap_end - ap_start);
    apic_send(id, INIT);
    apic_send(id, STARTUP | AP_PAGE >> 12);
    while (ap_fn)
        asm volatile("pause");
}
