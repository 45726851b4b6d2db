/* Tiny guests in long mode, without a machine around them: one CPU, 64 KiB of memory, run by the calling thread. */
#include "vmm/kvm/probe.h"

#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/cpu/regs.h"
#include "vmm/kvm/engine.h"

enum { MEMORY = 64 << 10, PML4 = 0x1000, PDPT = 0x2000, DIRECTORY = 0x3000, GDT = 0x4000, IDT = 0x5000 };
enum { DATA = 0x6000, STACK = 0x7ff0, CODE = 0x8000, HANDLER = 0x9000 };
enum { PAGE_PRESENT = 1, PAGE_WRITE = 2, PAGE_USER = 4, PAGE_LARGE = 1 << 7 };
enum { RFLAGS_IOPL3 = 3 << 12, CR4_OSFXSR = 1 << 9, CR4_OSXSAVE = 1 << 18 };
enum { LOOP_FIRST = 256, LOOP_GROWTH = 4, LOOP_INSNS = 2 };
#define LOOP_ENOUGH_NS (NS_PER_SEC / 100)
/* Where level 0 is this much slower than level 3 it is emulated: 5000 times was seen, 1 is usual. */
enum { SLOW_RATIO = 32 };

struct probe_vm {
    int fd, cpu;
    uint8_t *mem; /* NULL: none, as `run` */
    struct kvm_run *run;
    size_t run_len;
};

static void probe_vm_fini(struct probe_vm *p)
{
    if (p->run)
        munmap(p->run, p->run_len);
    if (p->cpu >= 0)
        close(p->cpu);
    if (p->fd >= 0)
        close(p->fd);
    if (p->mem)
        munmap(p->mem, MEMORY);
}

static int failed(struct err *err, const char *what)
{
    return err_set(err, errno, "KVM: probe: %s: %s", what, strerror(errno));
}

static void *map(size_t len, int flags, int fd)
{
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, flags, fd, 0);

    return p == MAP_FAILED ? NULL : p;
}

/* The host's features: instructions that the guest cannot have would tell nothing about KVM's emulator. */
static int set_cpuid(int kvm, int cpu, struct err *err)
{
    union {
        struct kvm_cpuid2 head;
        uint8_t room[sizeof(struct kvm_cpuid2) + CPUID_ENTRIES_MAX * sizeof(struct kvm_cpuid_entry2)];
    } arg = {.head.nent = CPUID_ENTRIES_MAX};

    if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &arg) < 0 || ioctl(cpu, KVM_SET_CPUID2, &arg) < 0)
        return failed(err, "CPUID");
    return 0;
}

static int probe_vm_init(struct probe_vm *p, int kvm, struct err *err)
{
    struct kvm_userspace_memory_region slot = {.memory_size = MEMORY};

    *p = (struct probe_vm){.fd = ioctl(kvm, KVM_CREATE_VM, 0), .cpu = -1};
    if (p->fd < 0)
        return kvm_err(err, "KVM: create a machine", errno);
    p->mem = map(MEMORY, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    slot.userspace_addr = (uintptr_t)p->mem;
    if (!p->mem || ioctl(p->fd, KVM_SET_TSS_ADDR, 0xfffbd000ul) < 0 ||
        ioctl(p->fd, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
        return failed(err, "memory");
    p->cpu = ioctl(p->fd, KVM_CREATE_VCPU, 0);
    if (p->cpu < 0)
        return failed(err, "CPU");
    p->run_len = (size_t)ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    p->run = map(p->run_len, MAP_SHARED, p->cpu);
    if (!p->run)
        return failed(err, "CPU");
    return set_cpuid(kvm, p->cpu, err);
}

/* Page tables that let every level in, a GDT, and an IDT in which all vectors lead to HANDLER, which reports success.
 */
static void lay_out(struct probe_vm *p, const uint8_t *code, size_t len)
{
    static const uint8_t handler[] = {0xe6, 0x10}; /* out %al, $0x10 */
    const uint64_t table = PAGE_PRESENT | PAGE_WRITE | PAGE_USER;

    put_le64(p->mem + PML4, PDPT | table);
    put_le64(p->mem + PDPT, DIRECTORY | table);
    put_le64(p->mem + DIRECTORY, PAGE_LARGE | table);
    put_le64(p->mem + GDT + 0x10, 0x00af9b000000ffff);
    put_le64(p->mem + GDT + 0x18, 0x00cf93000000ffff);
    put_le64(p->mem + IDT + 3 * 16, HANDLER | 0x10ull << 16 | 0x8e00ull << 32);
    memcpy(p->mem + HANDLER, handler, sizeof(handler));
    memcpy(p->mem + CODE, code, len);
}

static struct kvm_segment segment(const struct cpu_segment *s, unsigned level)
{
    return (struct kvm_segment){
        .limit = s->limit,
        .selector = s->selector | level,
        .type = s->type,
        .present = 1,
        .dpl = level,
        .db = s->wide,
        .s = 1,
        .l = s->long_mode,
        .g = 1,
    };
}

static int set_regs(struct probe_vm *p, unsigned level, uint64_t cr4, uint64_t turns, struct err *err)
{
    struct kvm_regs regs = {.rip = CODE, .rsp = STACK, .rdi = DATA, .rcx = turns, .rflags = 2 | RFLAGS_IOPL3};
    struct cpu_boot_regs b;
    struct kvm_sregs s;

    cpu_boot_regs(true, PML4, GDT, &b);
    if (ioctl(p->cpu, KVM_GET_SREGS, &s) < 0)
        return failed(err, "registers");
    s.cs = segment(&b.code, level);
    s.ds = s.es = s.fs = s.gs = s.ss = segment(&b.data, level);
    s.tr.type = b.task.type;
    s.tr.limit = b.task.limit;
    s.gdt = (struct kvm_dtable){.base = b.gdt_base, .limit = b.gdt_limit};
    s.idt = (struct kvm_dtable){.base = IDT, .limit = 256 * 16 - 1};
    s.cr0 = b.cr0;
    s.cr3 = b.cr3;
    s.cr4 = b.cr4 | cr4;
    s.efer = b.efer;
    if (ioctl(p->cpu, KVM_SET_SREGS, &s) < 0 || ioctl(p->cpu, KVM_SET_REGS, &regs) < 0)
        return failed(err, "registers");
    return 0;
}

/* Until the guest leaves; KVM_EXIT_*. */
static uint32_t run(struct probe_vm *p)
{
    while (ioctl(p->cpu, KVM_RUN, 0) < 0)
        if (errno != EINTR && errno != EAGAIN)
            return KVM_EXIT_UNKNOWN;
    return p->run->exit_reason;
}

/* Time that others take from this thread does not count. */
static uint64_t thread_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * NS_PER_SEC + (uint64_t)t.tv_nsec;
}

static int time_loop(struct probe_vm *p, unsigned level, uint64_t turns, uint64_t *ns, struct err *err)
{
    int rc = set_regs(p, level, 0, turns, err);
    uint64_t start = thread_ns();

    if (!rc && run(p) != KVM_EXIT_IO)
        rc = err_set(err, EIO, "KVM: probe: a loop at level %u ended with exit %u", level, p->run->exit_reason);
    *ns = thread_ns() - start;
    return rc;
}

static int measure(int kvm, unsigned level, uint64_t *ret, struct err *err)
{
    static const uint8_t code[] = {
        0x48, 0xff, 0xc9, /* 1: dec %rcx */
        0x75, 0xfb,       /* jnz 1b */
        0xe6, 0x10,       /* out %al, $0x10 */
    };
    uint64_t turns = LOOP_FIRST, ns = 0;
    struct probe_vm p;
    int rc = probe_vm_init(&p, kvm, err);

    if (!rc) {
        lay_out(&p, code, sizeof(code));
        rc = time_loop(&p, level, 1, &ns, err); /* the first entry builds tables of all sorts */
    }
    for (ns = 0; !rc && ns < LOOP_ENOUGH_NS; turns *= LOOP_GROWTH) {
        rc = time_loop(&p, level, turns, &ns, err);
        if (!rc && ns)
            *ret = (uint64_t)((double)turns * LOOP_INSNS * NS_PER_SEC / (double)ns);
    }
    probe_vm_fini(&p);
    return rc;
}

/*
 * What Linux executes at level 0 and KVM's emulator has lacked: a breakpoint where it patches itself, wide compare and
 * exchange in its allocator, counting, user access, floating-point state.  RDI points at zeroes.  On a processor
 * without the instruction the guest ends in a triple fault, which is no fault of KVM's.
 */
static const struct {
    const char *name;
    uint64_t cr4;
    uint8_t code[8];
} insns[] = {
    {"INT3", 0, {0xcc}},
    {"CMPXCHG16B", 0, {0x48, 0x0f, 0xc7, 0x0f, 0xe6, 0x10}},
    {"POPCNT", 0, {0xf3, 0x48, 0x0f, 0xb8, 0xc1, 0xe6, 0x10}},
    {"CLAC", 0, {0x0f, 0x01, 0xca, 0xe6, 0x10}},
    {"XRSTOR", CR4_OSFXSR | CR4_OSXSAVE, {0x0f, 0xae, 0x2f, 0xe6, 0x10}},
};
static_assert(array_len(insns) <= PROBE_INSNS_MAX, "room for all that may be missing");

/* Each in a machine of its own, since a failure leaves KVM's CPU in an unspecified state. */
static int try_insn(int kvm, unsigned i, bool *ret, struct err *err)
{
    struct probe_vm p;
    int rc = probe_vm_init(&p, kvm, err);

    if (!rc) {
        lay_out(&p, insns[i].code, sizeof(insns[i].code));
        /* A CR4 bit that is refused: this processor lacks the feature, too. */
        *ret = set_regs(&p, 0, insns[i].cr4, 0, NULL) < 0 || run(&p) != KVM_EXIT_INTERNAL_ERROR;
    }
    probe_vm_fini(&p);
    return rc;
}

int probe_run(struct probe *ret, struct err *err)
{
    struct probe p = {0};
    cleanup_fd int kvm = -1;
    int rc = kvm_open(&kvm, err);

    if (rc < 0)
        return rc;
    for (const struct kvm_cap *c = kvm_caps; c->name; c++) {
        assert(p.ncaps < PROBE_CAPS_MAX);
        p.caps[p.ncaps++] = (struct probe_cap){c->name, kvm_cap(kvm, c->id), c->required};
    }
    rc = measure(kvm, 0, &p.level0, err);
    if (!rc)
        rc = measure(kvm, 3, &p.level3, err);
    for (unsigned i = 0; !rc && i < array_len(insns); i++) {
        bool runs = true;

        rc = try_insn(kvm, i, &runs, err);
        if (!runs)
            p.missing[p.nmissing++] = insns[i].name;
    }
    if (!rc)
        *ret = p;
    return rc;
}

enum probe_verdict probe_judge(const struct probe *p)
{
    if (p->nmissing)
        return PROBE_NO_KERNELS;
    return p->level0 < p->level3 / SLOW_RATIO ? PROBE_SLOW : PROBE_KERNELS;
}

void probe_explain(const struct probe *p, char *text, size_t n)
{
    enum probe_verdict verdict = probe_judge(p);
    size_t at;

    if (verdict == PROBE_KERNELS) {
        snprintf(text, n, "this host's KVM runs stock kernels");
        return;
    }
    snprintf(text, n, "this host's KVM emulates kernel code, at %.2g million instructions a second",
             (double)p->level0 / 1e6);
    for (unsigned i = 0; i < p->nmissing; i++) {
        at = strlen(text);
        snprintf(text + at, n - at, "%s%s", i ? ", " : ", and not ", p->missing[i]);
    }
    at = strlen(text);
    snprintf(text + at, n - at, "; stock kernels %s here: use a host with VT-x or AMD-V, or a rig (tools/rig/svm)",
             verdict == PROBE_SLOW ? "are of no use" : "do not run");
}
