/*
 * A VM and what is in it: memory, interrupts, doorbells, CPUs.
 *
 * Reset makes a new VM in KVM instead of writing every register of the old one: power-on state is then KVM's own notion
 * of it, complete by construction, and nothing has to be read and kept at start, where it would cost each run.
 */
#include "vmm/kvm/vm.h"

#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/base/cleanup.h"
#include "vmm/cpu/regs.h"
#include "vmm/kvm/engine.h"

static_assert(IOAPIC_PINS == (int)VM_IOAPIC_PINS, "one I/O APIC has all lines");
enum { XAPIC_ID_MAX = 254, PIC_PINS = 16 };

/* A header that ends in a flexible array, as KVM likes them, and room for `n` elements. */
#define ROOM_FOR(head, elem, n) uint8_t room[sizeof(struct head) + (n) * sizeof(struct elem)]
union cpuid_arg {
    struct kvm_cpuid2 head;
    ROOM_FOR(kvm_cpuid2, kvm_cpuid_entry2, CPUID_ENTRIES_MAX);
};
union msr_arg {
    struct kvm_msrs head;
    ROOM_FOR(kvm_msrs, kvm_msr_entry, CPU_MSR_DEFAULTS);
};
union route_arg {
    struct kvm_irq_routing head;
    ROOM_FOR(kvm_irq_routing, kvm_irq_routing_entry, IOAPIC_PINS + PIC_PINS + WIRES_MAX);
};

/* --- interrupts --- */

static void msi_send(struct msi_sink *sink, struct msi m)
{
    struct vm *vm = container_of(sink, struct vm, msi);
    struct irq_msg msg;

    if (!irq_msg_from_msi(m, vm->wide_ids, &msg))
        return;
    /* Fails for a destination that does not exist; on a bus the write would be lost as well. */
    ioctl(vm->fd, KVM_SIGNAL_MSI,
          &(struct kvm_msi){.address_lo = msg.addr_lo, .address_hi = msg.addr_hi, .data = msg.data});
}

struct msi_sink *vm_msi(struct vm *vm)
{
    return &vm->msi;
}

static void add_route(union route_arg *a, uint32_t gsi, const struct irq_msg *m)
{
    a->head.entries[a->head.nr++] = (struct kvm_irq_routing_entry){
        .gsi = gsi,
        .type = KVM_IRQ_ROUTING_MSI,
        .u.msi = {.address_lo = m->addr_lo, .address_hi = m->addr_hi, .data = m->data},
    };
}

static void add_pin(union route_arg *a, uint32_t gsi, uint32_t chip, uint32_t pin)
{
    a->head.entries[a->head.nr++] = (struct kvm_irq_routing_entry){
        .gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = {.irqchip = chip, .pin = pin}};
}

/* Where `vm->pit` has the lines in KVM: what it made of them itself, which our table replaces. */
static void add_lines(union route_arg *a)
{
    for (unsigned i = 0; i < IOAPIC_PINS; i++)
        add_pin(a, i, KVM_IRQCHIP_IOAPIC, i);
    for (unsigned i = 0; i < PIC_PINS; i++)
        add_pin(a, i, i < PIC_PINS / 2 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, i % (PIC_PINS / 2));
}

/* Tells KVM all routes.  It exits for EOIs of the vectors that the pins' name, and uses those for nothing else. */
static int set_routes(struct vm *vm)
{
    union route_arg arg = {.head.nr = 0};

    if (vm->pit)
        add_lines(&arg);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        if (vm->levels >> pin & 1)
            add_route(&arg, pin, &vm->level[pin]);
    for (unsigned i = 0; i < vm->nwires; i++)
        if (vm->wires[i].fd >= 0)
            add_route(&arg, IOAPIC_PINS + i, &vm->wires[i].msg);
    return ioctl(vm->fd, KVM_SET_GSI_ROUTING, &arg) < 0 ? -errno : 0;
}

static void level_changed(struct ioapic *io)
{
    struct vm *vm = container_of(io, struct vm, ioapic);

    pthread_mutex_lock(&vm->route_lock);
    vm->levels = 0;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        struct msi m;

        if (ioapic_level_msi(io, pin, &m) && irq_msg_from_msi(m, vm->wide_ids, &vm->level[pin]))
            vm->levels |= 1u << pin;
    }
    set_routes(vm);
    pthread_mutex_unlock(&vm->route_lock);
}

static int irqfd(struct vm *vm, unsigned i, uint32_t flags)
{
    struct kvm_irqfd arg = {.fd = (uint32_t)vm->wires[i].fd, .gsi = IOAPIC_PINS + i, .flags = flags};

    return ioctl(vm->fd, KVM_IRQFD, &arg) < 0 ? -errno : 0;
}

static int msi_wire(struct msi_sink *sink, int fd, struct msi m)
{
    struct vm *vm = container_of(sink, struct vm, msi);
    struct irq_msg msg;
    unsigned i = 0;
    int rc;

    if (!irq_msg_from_msi(m, vm->wide_ids, &msg))
        return -ENOSYS;
    pthread_mutex_lock(&vm->route_lock);
    while (i < vm->nwires && vm->wires[i].fd >= 0)
        i++;
    rc = i < WIRES_MAX ? 0 : -ENOSPC;
    if (!rc) {
        if (i == vm->nwires && !(vm->wires = realloc(vm->wires, ++vm->nwires * sizeof(*vm->wires))))
            abort();
        vm->wires[i] = (struct wire){fd, msg};
        rc = set_routes(vm);
        if (!rc)
            rc = irqfd(vm, i, 0);
        if (rc)
            vm->wires[i].fd = -1;
    }
    pthread_mutex_unlock(&vm->route_lock);
    return rc;
}

static void msi_unwire(struct msi_sink *sink, int fd)
{
    struct vm *vm = container_of(sink, struct vm, msi);

    pthread_mutex_lock(&vm->route_lock);
    for (unsigned i = 0; i < vm->nwires; i++)
        if (vm->wires[i].fd == fd) {
            irqfd(vm, i, KVM_IRQFD_FLAG_DEASSIGN);
            vm->wires[i].fd = -1;
        }
    pthread_mutex_unlock(&vm->route_lock);
}

static void line_set(void *far, unsigned pin, bool level)
{
    struct vm *vm = far;

    if (vm->pit)
        ioctl(vm->fd, KVM_IRQ_LINE, &(struct kvm_irq_level){.irq = pin, .level = level});
    else
        ioapic_set(&vm->ioapic, pin, level);
}

struct irq vm_line(struct vm *vm, unsigned gsi)
{
    assert(gsi < VM_IOAPIC_PINS);
    return (struct irq){.set = line_set, .far = vm, .pin = gsi};
}

/* --- doorbells --- */

static int bell_ioctl(struct vm *vm, const struct bell *b, uint32_t flags)
{
    struct kvm_ioeventfd arg = {
        .addr = b->addr,
        .len = b->d.len,
        .fd = b->d.fd,
        .datamatch = b->d.value,
        .flags = flags | (b->pio ? KVM_IOEVENTFD_FLAG_PIO : 0) | (b->d.match ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0),
    };

    return ioctl(vm->fd, KVM_IOEVENTFD, &arg) < 0 ? -errno : 0;
}

static bool same_doorbell(const struct doorbell *a, const struct doorbell *b)
{
    return a->region == b->region && a->off == b->off && a->len == b->len && a->match == b->match &&
           (!a->match || a->value == b->value) && a->fd == b->fd;
}

int vm_doorbell_add(struct vm *vm, const struct doorbell *d)
{
    struct bell b = {.d = *d, .addr = d->region->base + d->off, .pio = d->region->bus == vm->pio};
    unsigned i = 0;
    int rc;

    assert(d->region->bus == vm->pio || d->region->bus == vm->mmio);
    pthread_mutex_lock(&vm->bell_lock);
    while (i < vm->nbells && vm->bells[i].d.region)
        i++;
    rc = i < BELLS_MAX ? bell_ioctl(vm, &b, 0) : -ENOSPC;
    if (!rc) {
        if (i == vm->nbells && !(vm->bells = realloc(vm->bells, ++vm->nbells * sizeof(b))))
            abort();
        vm->bells[i] = b;
    }
    pthread_mutex_unlock(&vm->bell_lock);
    return rc;
}

void vm_doorbell_del(struct vm *vm, const struct doorbell *d)
{
    pthread_mutex_lock(&vm->bell_lock);
    for (unsigned i = 0; i < vm->nbells; i++)
        if (vm->bells[i].d.region && same_doorbell(&vm->bells[i].d, d)) {
            bell_ioctl(vm, &vm->bells[i], KVM_IOEVENTFD_FLAG_DEASSIGN);
            vm->bells[i].d.region = NULL;
            break;
        }
    pthread_mutex_unlock(&vm->bell_lock);
}

/* --- making it in KVM --- */

static int vm_ioctl_err(struct err *err, const char *what)
{
    return err_set(err, errno, "KVM: %s: %s", what, strerror(errno));
}

static int make_memory(struct vm *vm, struct err *err)
{
    const struct gmem_range *r;
    unsigned n = gmem_ranges(vm->mem, &r);

    for (unsigned i = 0; i < n; i++) {
        struct kvm_userspace_memory_region arg = {
            .slot = i,
            .guest_phys_addr = r[i].base,
            .memory_size = r[i].size,
            .userspace_addr = (uintptr_t)r[i].host,
        };

        if (vm->phys_bits < 64 && r[i].base + r[i].size > 1ull << vm->phys_bits)
            return err_set(err, EFBIG, "guest memory up to %#llx is beyond the %u address bits of this host's KVM",
                           (unsigned long long)(r[i].base + r[i].size), vm->phys_bits);
        if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &arg) < 0)
            return vm_ioctl_err(err, "guest memory");
    }
    return 0;
}

static int make_irqchip(struct vm *vm, struct err *err)
{
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {IOAPIC_PINS}};
    struct kvm_enable_cap wide = {
        .cap = KVM_CAP_X2APIC_API,
        .args = {KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK},
    };

    if (vm->wide_ids && ioctl(vm->fd, KVM_ENABLE_CAP, &wide) < 0)
        return vm_ioctl_err(err, "x2APIC ids beyond 254");
    if (!vm->pit)
        return ioctl(vm->fd, KVM_ENABLE_CAP, &split) < 0 ? vm_ioctl_err(err, "local APICs") : 0;
    if (ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0) < 0)
        return vm_ioctl_err(err, "interrupt controllers");
    if (ioctl(vm->fd, KVM_CREATE_PIT2, &pit) < 0)
        return vm_ioctl_err(err, "i8254 timer");
    return 0;
}

static int set_cpuid(struct vcpu *c, struct err *err)
{
    struct vm *vm = c->vm;
    union cpuid_arg arg = {.head.nent = vm->cpuid.n};

    cpuid_set_cpu(&vm->cpuid, &vm->topology, c->index);
    for (unsigned i = 0; i < vm->cpuid.n; i++) {
        const struct cpuid_entry *e = &vm->cpuid.e[i];

        arg.head.entries[i] = (struct kvm_cpuid_entry2){
            .function = e->fn,
            .index = e->idx,
            .flags = e->indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
            .eax = e->r[CPUID_EAX],
            .ebx = e->r[CPUID_EBX],
            .ecx = e->r[CPUID_ECX],
            .edx = e->r[CPUID_EDX],
        };
    }
    return ioctl(c->fd, KVM_SET_CPUID2, &arg) < 0 ? vm_ioctl_err(err, "CPUID") : 0;
}

/* Those of the default MSRs that this KVM has, with their bits added to what they hold at power-on. */
static void read_msrs(struct vcpu *c, union msr_arg *ret)
{
    ret->head = (struct kvm_msrs){.nmsrs = 0};
    for (unsigned i = 0; i < CPU_MSR_DEFAULTS; i++) {
        union msr_arg one = {.head.nmsrs = 1};

        one.head.entries[0] = (struct kvm_msr_entry){.index = cpu_msr_defaults[i].index};
        if (ioctl(c->fd, KVM_GET_MSRS, &one) != 1)
            continue;
        one.head.entries[0].data |= cpu_msr_defaults[i].set;
        ret->head.entries[ret->head.nmsrs++] = one.head.entries[0];
    }
}

static int make_vcpu(struct vcpu *c, union msr_arg *msrs, struct err *err)
{
    struct vm *vm = c->vm;
    void *run;
    int rc;

    c->fd = ioctl(vm->fd, KVM_CREATE_VCPU, (unsigned long)cpu_apic_id(&vm->topology, c->index));
    if (c->fd < 0)
        return err_set(err, errno, "KVM: CPU %u: %s", c->index, strerror(errno));
    run = mmap(NULL, vm->run_len, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
    if (run == MAP_FAILED)
        return err_set(err, errno, "KVM: map CPU %u: %s", c->index, strerror(errno));
    c->run = run;
    rc = set_cpuid(c, err);
    if (rc < 0)
        return rc;
    if (!c->index)
        read_msrs(c, msrs);
    if (ioctl(c->fd, KVM_SET_MSRS, msrs) != (int)msrs->head.nmsrs)
        return vm_ioctl_err(err, "MSRs");
    return 0;
}

static void unmake(struct vm *vm)
{
    for (unsigned i = 0; i < vm->ncpus; i++) {
        struct vcpu *c = &vm->cpus[i];

        if (c->run)
            munmap(c->run, vm->run_len);
        if (c->fd >= 0)
            close(c->fd);
        c->run = NULL;
        c->fd = -1;
        c->debugged = 0;
    }
    if (vm->fd >= 0)
        close(vm->fd);
    vm->fd = -1;
}

/* Memory before interrupts: changing it while KVM frees an old I/O bus in the background waits for that. */
static int make(struct vm *vm, struct err *err)
{
    uint64_t identity = VM_PRIVATE_BASE;
    union msr_arg msrs;
    int rc;

    do
        vm->fd = ioctl(vm->kvm, KVM_CREATE_VM, 0);
    while (vm->fd < 0 && errno == EINTR);
    if (vm->fd < 0)
        return kvm_err(err, "KVM: create a machine", errno);
    if (ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0 ||
        ioctl(vm->fd, KVM_SET_TSS_ADDR, (unsigned long)VM_PRIVATE_BASE + 0x1000) < 0)
        return vm_ioctl_err(err, "private pages");
    rc = make_memory(vm, err);
    if (!rc)
        rc = make_irqchip(vm, err);
    for (unsigned i = 0; !rc && i < vm->ncpus; i++)
        rc = make_vcpu(&vm->cpus[i], &msrs, err);
    vm->fresh = true;
    return rc;
}

/* --- life --- */

static int check_counts(const struct vm_opts *o, int kvm, struct err *err)
{
    const struct cpu_topology *t = &o->topology;
    unsigned max = (unsigned)kvm_cap(kvm, KVM_CAP_MAX_VCPUS), max_id = (unsigned)kvm_cap(kvm, KVM_CAP_MAX_VCPU_ID);
    unsigned package, cpus;
    uint32_t last;

    if (!t->sockets || !t->cores || !t->threads)
        return err_set(err, EINVAL, "0 CPUs: a machine needs at least one");
    if (__builtin_mul_overflow(t->cores, t->threads, &package) || __builtin_mul_overflow(package, t->sockets, &cpus) ||
        cpus > max)
        return err_set(err, E2BIG, "%llu CPUs: this host's KVM allows at most %u in a machine",
                       (unsigned long long)t->sockets * t->cores * t->threads, max);
    last = cpu_apic_id(t, cpus - 1);
    if (max_id && last >= max_id)
        return err_set(err, E2BIG,
                       "%u sockets of %u cores of %u threads need APIC ids up to %u, but this host's KVM ends at %u; "
                       "counts that are powers of two leave no gaps",
                       t->sockets, t->cores, t->threads, last, max_id - 1);
    if (last > XAPIC_ID_MAX && !(kvm_cap(kvm, KVM_CAP_X2APIC_API) & KVM_X2APIC_API_USE_32BIT_IDS))
        return err_set(err, EOPNOTSUPP, "%u CPUs: this host's KVM lacks X2APIC_API, so that APIC ids end at %d", cpus,
                       XAPIC_ID_MAX);
    return 0;
}

static int read_cpuid(struct vm *vm, const char *text, struct err *err)
{
    union cpuid_arg arg = {.head.nent = CPUID_ENTRIES_MAX};
    const struct cpuid_machine machine = {
        .topology = vm->topology,
        .tsc_deadline = kvm_cap(vm->kvm, KVM_CAP_TSC_DEADLINE_TIMER),
        .wide_apic_ids = vm->wide_ids,
    };
    int rc;

    if (ioctl(vm->kvm, KVM_GET_SUPPORTED_CPUID, &arg) < 0)
        return vm_ioctl_err(err, "supported CPUID");
    vm->cpuid.n = (unsigned)min_u64(arg.head.nent, CPUID_ENTRIES_MAX);
    for (unsigned i = 0; i < vm->cpuid.n; i++) {
        const struct kvm_cpuid_entry2 *e = &arg.head.entries[i];

        vm->cpuid.e[i] = (struct cpuid_entry){
            .fn = e->function,
            .idx = e->index,
            .indexed = e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            .r = {e->eax, e->ebx, e->ecx, e->edx},
        };
    }
    rc = cpuid_set_machine(&vm->cpuid, &machine, err);
    if (!rc)
        rc = cpuid_select(&vm->cpuid, text, err);
    vm->phys_bits = cpuid_phys_bits(&vm->cpuid);
    return rc;
}

static int build(struct vm *vm, const struct vm_opts *o, struct err *err)
{
    int rc = read_cpuid(vm, o->cpu, err);

    if (!rc)
        rc = make(vm, err);
    if (!rc && !vm->pit)
        rc = bus_map(vm->mmio, &vm->ioapic.region, VM_IOAPIC_BASE, err);
    return rc;
}

int vm_create(const struct vm_opts *o, struct gmem *mem, struct bus *pio, struct bus *mmio, struct vm_user *user,
              struct vm **ret, struct err *err)
{
    cleanup_fd int kvm = -1;
    unsigned ncpus;
    struct vm *vm;
    int rc = kvm_open(&kvm, err);

    if (!rc)
        rc = check_counts(o, kvm, err);
    if (rc < 0)
        return rc;
    ncpus = cpu_count(&o->topology);
    vm = xcalloc(1, sizeof(*vm) + ncpus * sizeof(vm->cpus[0]));
    vm->mem = mem;
    vm->pio = pio;
    vm->mmio = mmio;
    vm->user = user;
    vm->topology = o->topology;
    vm->pit = o->pit;
    vm->wide_ids = cpu_apic_id(&o->topology, ncpus - 1) > XAPIC_ID_MAX;
    vm->run_len = (size_t)ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    vm->kvm = take_fd(&kvm);
    vm->fd = -1;
    vm->msi = (struct msi_sink){msi_send, msi_wire, msi_unwire};
    pthread_mutex_init(&vm->route_lock, NULL);
    ioapic_init(&vm->ioapic, &vm->msi, level_changed);
    pthread_mutex_init(&vm->bell_lock, NULL);
    vm->ncpus = ncpus;
    for (unsigned i = 0; i < ncpus; i++)
        vm->cpus[i] = (struct vcpu){.vm = vm, .index = i, .fd = -1};

    rc = build(vm, o, err);
    if (rc < 0) {
        vm_destroy(vm);
        return rc;
    }
    *ret = vm;
    return 0;
}

void vm_destroy(struct vm *vm)
{
    if (!vm)
        return;
    assert(!vm->running);
    unmake(vm);
    close(vm->kvm);
    ioapic_fini(&vm->ioapic);
    pthread_mutex_destroy(&vm->route_lock);
    pthread_mutex_destroy(&vm->bell_lock);
    free(vm->bells);
    free(vm->wires);
    free(vm);
}

unsigned vm_phys_bits(const struct vm *vm)
{
    return vm->phys_bits;
}

static struct kvm_segment segment(const struct cpu_segment *s)
{
    return (struct kvm_segment){
        .base = s->base,
        .limit = s->limit,
        .selector = s->selector,
        .type = s->type,
        .present = 1,
        .s = !s->system,
        .db = s->wide,
        .l = s->long_mode,
        .g = s->limit > 0xfffff,
    };
}

static int set_boot_regs(struct vcpu *c, const struct vm_boot *boot, struct err *err)
{
    struct kvm_regs regs = {.rip = boot->rip, .rsi = boot->rsi, .rbx = boot->rbx, .rax = boot->rax};
    struct kvm_sregs sregs;
    struct cpu_boot_regs b;

    cpu_boot_regs(boot->long_mode, boot->cr3, boot->gdt, &b);
    regs.rflags = b.rflags;
    if (ioctl(c->fd, KVM_GET_SREGS, &sregs) < 0)
        return vm_ioctl_err(err, "read system registers");
    sregs.cs = segment(&b.code);
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = segment(&b.data);
    sregs.tr = segment(&b.task);
    sregs.gdt = (struct kvm_dtable){.base = b.gdt_base, .limit = b.gdt_limit};
    sregs.cr0 = b.cr0;
    sregs.cr3 = b.cr3;
    sregs.cr4 = b.cr4;
    sregs.efer = b.efer;
    if (ioctl(c->fd, KVM_SET_SREGS, &sregs) < 0)
        return vm_ioctl_err(err, "set system registers");
    if (ioctl(c->fd, KVM_SET_REGS, &regs) < 0)
        return vm_ioctl_err(err, "set registers");
    return 0;
}

int vm_reset(struct vm *vm, const struct vm_boot *boot, struct err *err)
{
    int rc = 0;

    assert(!vm->running);
    ioapic_reset(&vm->ioapic);
    vm->levels = 0;
    if (!vm->fresh) {
        unmake(vm);
        rc = make(vm, err);
        for (unsigned i = 0; !rc && i < vm->nbells; i++)
            if (vm->bells[i].d.region && bell_ioctl(vm, &vm->bells[i], 0) < 0)
                rc = vm_ioctl_err(err, "doorbell");
    }
    return rc ? rc : set_boot_regs(&vm->cpus[0], boot, err);
}
