/*
 * Theory of operation.  The main thread owns the machine: it creates everything, runs the loop of consoles and platform
 * devices, and alone stops and starts the guest.  vCPU threads and I/O loops never change the machine; they leave a
 * request (one bit each) and wake the main loop, which returns from loop_run() to machine_run(), where requests are
 * served with no lane held.  Creation is in the order of this file's machine_create(); destruction is exactly its
 * reverse.
 */
#include "vmm/machine/machine.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "devices/pci/pci.h"
#include "devices/platform/pm.h"
#include "devices/virtio/mmio.h"
#include "devices/virtio/pci.h"
#include "firmware/load/load.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/exit_code.h"
#include "vmm/base/log.h"
#include "vmm/cpu/topology.h"
#include "vmm/kvm/probe.h"
#include "vmm/kvm/vm.h"
#include "vmm/machine/board.h"
#include "vmm/machine/slow_host.h"

enum { MACHINE_DEVICES_MAX = CONFIG_DEVICES_MAX + 16, E820_MAX = 8 };

struct machine {
    const struct config *cfg; /* borrowed */
    struct device_env env;
    struct vm_user vm_user;
    struct loop *loop;
    struct loop *loops[MACHINE_DEVICES_MAX]; /* the others, each with its thread */
    unsigned nloops;
    struct loop *io_loop; /* borrowed from those; NULL while no device asks for it */
    struct gmem *mem;
    struct bus *pio, *mmio;
    struct vm *vm;
    struct irq_or lines[VM_IOAPIC_PINS];
    struct device *devs[MACHINE_DEVICES_MAX]; /* in order of creation */
    unsigned ndevs, nvirtio;
    struct device *pm; /* borrowed from devs */
    uint32_t *apic_ids;
    atomic_uint requests; /* 1 << enum request */
    atomic_int exit_code;
    atomic_uint crash_cpu;
    _Atomic(const char *) crash; /* what the engine said; NULL: the guest said it */
    bool running;
    bool paused;                                       /* not running, until it is resumed */
    uint64_t power_on_ns;                              /* on the guest's clock */
    bool dead;                                         /* and kept for its observer */
    uint64_t begun_ns, made_ns, loaded_ns, entered_ns; /* of machine_profile */
    struct list observers;
    struct list jobs;
    pthread_mutex_t pause_lock; /* of the next two, which any thread writes */
    bool has_why;
    char why[256];
    char paused_for[256]; /* empty: the user wants it */
};

static struct machine *machine_of(struct device_env *env)
{
    return container_of(env, struct machine, env);
}

/* --- what devices may ask for --- */

static struct irq env_line(struct device_env *env, unsigned gsi)
{
    assert(gsi < VM_IOAPIC_PINS);
    return irq_or_input(&machine_of(env)->lines[gsi]);
}

static int env_doorbell_add(struct device_env *env, const struct doorbell *d)
{
    return vm_doorbell_add(machine_of(env)->vm, d);
}

static void env_doorbell_del(struct device_env *env, const struct doorbell *d)
{
    vm_doorbell_del(machine_of(env)->vm, d);
}

static int env_attach_pci(struct device_env *env, struct virtio *v, struct err *err)
{
    (void)env;
    return virtio_pci_attach(v, -1, err);
}

static int env_attach_mmio(struct device_env *env, struct virtio *v, struct err *err)
{
    struct machine *m = machine_of(env);
    struct board_virtio_slot slot;

    if (m->nvirtio == BOARD_VIRTIO_MMIO_MAX)
        return err_set(err, ENOSPC, "the mmio machine has room for %d virtio devices; use --machine pci",
                       BOARD_VIRTIO_MMIO_MAX);
    slot = board_virtio_slot(m->nvirtio++);
    return virtio_mmio_attach(v, slot.base, slot.gsi, err);
}

static void env_request(struct device_env *env, enum request r, int code)
{
    machine_request(machine_of(env), r, code);
}

/* The first of several reasons is what the user is told. */
static void env_pause(struct device_env *env, const char *why)
{
    struct machine *m = machine_of(env);

    pthread_mutex_lock(&m->pause_lock);
    if (!m->has_why)
        snprintf(m->why, sizeof(m->why), "%s", why);
    m->has_why = true;
    pthread_mutex_unlock(&m->pause_lock);
    machine_request(m, REQ_PAUSE, 0);
}

void machine_request(struct machine *m, enum request r, int code)
{
    if (r == REQ_EXIT)
        atomic_store(&m->exit_code, code);
    if (r != REQ_BUTTON && r != REQ_RESUME)
        vm_hold(m->vm); /* first: once the request is there, the machine may start anew */
    atomic_fetch_or(&m->requests, 1u << r);
    loop_quit(m->loop);
}

void machine_do(struct machine *m, struct machine_job *j)
{
    if (!j->queued)
        list_add_tail(&m->jobs, &j->link);
    j->queued = true;
    loop_quit(m->loop);
}

void machine_cancel(struct machine *m, struct machine_job *j)
{
    (void)m;
    if (j->queued)
        list_del(&j->link);
    j->queued = false;
}

static void vm_event(struct vm_user *u, enum vm_event e, unsigned cpu)
{
    static const struct {
        enum request request;
        const char *crash;
    } meaning[] = {
        [VM_RESET] = {REQ_RESET, NULL},
        [VM_POWEROFF] = {REQ_POWEROFF, NULL},
        [VM_CRASH] = {REQ_CRASHED, "the guest says that it crashed"},
        [VM_TRIPLE_FAULT] = {REQ_CRASHED, "triple fault"},
        [VM_EMULATION_FAILED] = {REQ_CRASHED, "KVM cannot emulate an instruction"},
        [VM_ENTRY_FAILED] = {REQ_CRASHED, "the processor refused to enter the guest"},
        [VM_DEBUG] = {REQ_PAUSE, NULL},
        [VM_ENGINE_ERROR] = {REQ_CRASHED, "KVM_RUN failed"},
    };
    struct machine *m = container_of(u, struct machine, vm_user);

    if (meaning[e].crash) {
        atomic_store(&m->crash_cpu, cpu);
        atomic_store(&m->crash, meaning[e].crash);
    }
    machine_request(m, meaning[e].request, 0);
}

/* --- the guest's memory as power-on finds it --- */

static int put_blob(struct machine *m, uint64_t at, uint64_t end, const char *what, struct blob *b, struct err *err)
{
    int r = 0;

    if (b->len > end - at)
        r = err_set(err, E2BIG,
                    "%s of %u CPUs takes %zu bytes, more than the %llu that firmware has; give fewer --cpus", what,
                    m->cfg->cpus, b->len, (unsigned long long)(end - at));
    else if (gmem_write(m->mem, at, b->data, b->len) < 0)
        r = err_set(err, ENOMEM, "guest RAM ends below %#llx; give --memory 1M or more", (unsigned long long)end);
    blob_fini(b);
    return r;
}

static void parse_uuid(const char *text, uint8_t ret[16])
{
    unsigned byte;

    for (unsigned i = 0; i < 16; i++) {
        text += *text == '-';
        sscanf(text, "%2x", &byte);
        ret[i] = (uint8_t)byte;
        text += 2;
    }
}

static char *join_words(const struct opt_list *l)
{
    char *text;
    size_t len;
    FILE *f = open_memstream(&text, &len);

    if (!f)
        abort();
    for (size_t i = 0; i < l->n; i++)
        fprintf(f, "%s%s", i ? " " : "", l->v[i]);
    fclose(f);
    return text;
}

/* The kernel's words; a kernel with neither ACPI nor a device tree learns of virtio-mmio windows from words only. */
static char *command_line(const struct config *c, const struct board_desc *d)
{
    char *words cleanup_free = join_words(&c->append), *text;
    size_t len;
    FILE *f;

    if (c->acpi || c->board == BOARD_PCI)
        return take_ptr(words);
    f = open_memstream(&text, &len);
    if (!f)
        abort();
    fputs(words, f);
    for (unsigned i = 0; i < d->nvirtio_mmio; i++)
        fprintf(f, " virtio_mmio.device=%lluK@%#llx:%u", (unsigned long long)d->virtio_mmio[i].len >> 10,
                (unsigned long long)d->virtio_mmio[i].base, d->virtio_mmio[i].gsi);
    fclose(f);
    return text;
}

static unsigned fill_e820(const struct board_desc *d, struct e820_entry ret[E820_MAX])
{
    unsigned n = 0;

    ret[n++] = (struct e820_entry){0, BOARD_RAM_HOLE, 1};
    ret[n++] = (struct e820_entry){BOARD_RAM_HOLE, 0xa0000 - BOARD_RAM_HOLE, 2};
    ret[n++] = (struct e820_entry){BOARD_DTB_BASE, BOARD_FIRMWARE_END - BOARD_DTB_BASE, 2};
    if (d->ram_low > BOARD_FIRMWARE_END)
        ret[n++] = (struct e820_entry){BOARD_FIRMWARE_END, d->ram_low - BOARD_FIRMWARE_END, 1};
    if (d->pci.ecam)
        ret[n++] = (struct e820_entry){d->pci.ecam, PCI_ECAM_SIZE, 2};
    if (d->ram_high)
        ret[n++] = (struct e820_entry){GMEM_HIGH_BASE, d->ram_high, 1};
    return n;
}

/* Firmware's tables and the kernel, and how the first vCPU starts. */
static int load_guest(struct machine *m, struct vm_boot *ret, struct err *err)
{
    const struct config *c = m->cfg;
    struct e820_entry e820[E820_MAX];
    struct board_desc d;
    struct boot_params_in in;
    struct boot_regs regs;
    struct blob b, dtb __attribute__((cleanup(blob_fini))) = {0};
    uint64_t mptable_base;
    char *cmdline cleanup_free = NULL;
    uint8_t uuid[16];
    int r;

    board_describe(c, m->apic_ids, vm_phys_bits(m->vm), &d);
    cmdline = command_line(c, &d);
    parse_uuid(c->uuid, uuid);
    b = smbios_build(&d, BOARD_SMBIOS_BASE, uuid, BOTHY_VERSION);
    mptable_base = align_up(BOARD_SMBIOS_BASE + b.len, 16);
    if ((r = put_blob(m, BOARD_SMBIOS_BASE, BOARD_FIRMWARE_END, "SMBIOS", &b, err)) < 0)
        return r;
    if (c->acpi) {
        b = acpi_build(&d, BOARD_ACPI_BASE);
        if ((r = put_blob(m, BOARD_ACPI_BASE, BOARD_SMBIOS_BASE, "ACPI", &b, err)) < 0)
            return r;
    } else {
        b = mptable_build(&d, mptable_base);
        if ((r = put_blob(m, mptable_base, BOARD_FIRMWARE_END, "the MP table", &b, err)) < 0)
            return r;
        dtb = fdt_build(&d, cmdline);
    }
    in = (struct boot_params_in){
        .kernel = c->kernel,
        .ninitrds = (unsigned)c->initrds.n,
        .cmdline = cmdline,
        .kaslr = c->kaslr,
        .cache = c->kernel_cache,
        .e820 = e820,
        .ne820 = fill_e820(&d, e820),
        .rsdp = c->acpi ? BOARD_ACPI_BASE : 0,
        .dtb = dtb.data,
        .dtb_len = (uint32_t)dtb.len,
        .low_free = BOARD_LOADER_BASE,
        .low_end = BOARD_LOADER_END,
    };
    if (c->initrds.n > BOOT_INITRDS_MAX)
        return err_set(err, E2BIG, "%zu initrds; at most %d are joined", c->initrds.n, BOOT_INITRDS_MAX);
    for (size_t i = 0; i < c->initrds.n; i++)
        in.initrds[i] = c->initrds.v[i];
    if ((r = boot_load(m->mem, &in, &regs, err)) < 0)
        return r;
    *ret = (struct vm_boot){
        .long_mode = regs.entry == BOOT_LINUX64,
        .rip = regs.rip,
        .rsi = regs.rsi,
        .rbx = regs.rbx,
        .rax = regs.rax,
        .cr3 = regs.cr3,
        .gdt = regs.gdt,
    };
    return 0;
}

static int assign_bars(struct machine *m, struct err *err)
{
    struct board_desc d;

    if (!m->env.pci)
        return 0;
    board_describe(m->cfg, m->apic_ids, vm_phys_bits(m->vm), &d);
    return pci_bus_assign(m->env.pci, (struct pci_window){d.pci.mmio32, d.pci.mmio32_len},
                          (struct pci_window){d.pci.mmio64, d.pci.mmio64_len}, err);
}

/* Devices and processors as at power-on; guest RAM is zeroes. */
static int power_on(struct machine *m, struct err *err)
{
    struct vm_boot boot;
    int r;

    for (unsigned i = 0; i < m->ndevs; i++)
        device_reset(m->devs[i]);
    for (unsigned i = 0; i < VM_IOAPIC_PINS; i++)
        irq_or_reset(&m->lines[i]);
    if ((r = assign_bars(m, err)) < 0 || (r = load_guest(m, &boot, err)) < 0 || (r = vm_reset(m->vm, &boot, err)) < 0)
        return r;
    for (unsigned i = 0; i < m->ndevs; i++)
        device_settle(m->devs[i]);
    m->power_on_ns = loop_now(m->loop, CLK_GUEST);
    return 0;
}

int machine_reset(struct machine *m, struct err *err)
{
    const struct gmem_range *ranges;
    unsigned n = gmem_ranges(m->mem, &ranges);
    int r = 0;

    assert(!m->running);
    for (unsigned i = 0; i < n && r >= 0; i++)
        r = gmem_discard(m->mem, ranges[i].base, ranges[i].size);
    return r < 0 ? err_set(err, -r, "guest RAM cannot be cleared: %s", strerror(-r)) : power_on(m, err);
}

/* --- creation --- */

static int add_loop(struct machine *m, const char *name, struct loop **ret, struct err *err)
{
    int r = loop_create(name, ret, err);

    if (r < 0)
        return r;
    assert(m->nloops < MACHINE_DEVICES_MAX);
    m->loops[m->nloops++] = *ret;
    return loop_thread(*ret, err);
}

static int find_loop(struct machine *m, const struct device_class *cls, const char *id, struct loop **ret,
                     struct err *err)
{
    int r = 0;

    if (cls->loop == LOOP_OWN)
        return add_loop(m, id, ret, err);
    if (cls->loop == LOOP_IO && !m->io_loop)
        r = add_loop(m, "io", &m->io_loop, err);
    *ret = cls->loop == LOOP_IO ? m->io_loop : m->loop;
    return r;
}

static int add_device(struct machine *m, const struct device_class *cls, const char *id, const char *options,
                      struct err *err)
{
    struct loop *loop;
    struct device *d;
    int r = device_create(cls, id, options, &d, err);

    if (r < 0)
        return err_wrap(err, "%s", id);
    assert(m->ndevs < MACHINE_DEVICES_MAX);
    m->devs[m->ndevs++] = d;
    if ((r = find_loop(m, cls, id, &loop, err)) >= 0)
        r = device_init(d, &m->env, loop, err);
    return r < 0 ? err_wrap(err, "%s", id) : 0;
}

static int add_devices(struct machine *m, struct err *err)
{
    for (const struct board_device *b = board_devices; b->cls; b++) {
        int r;

        if (b->board != BOARD_ANY && b->board != m->cfg->board)
            continue;
        if ((r = add_device(m, device_class_find(b->cls), b->id, b->options, err)) < 0)
            return r;
        if (!strcmp(b->cls, "pm"))
            m->pm = m->devs[m->ndevs - 1];
    }
    for (unsigned i = 0; i < m->cfg->ndevices; i++) {
        const struct config_device *cd = &m->cfg->devices[i];
        int r = add_device(m, cd->cls, cd->id, cd->options, err);

        if (r < 0)
            return r;
    }
    return 0;
}

static int create(struct machine *m, struct err *err)
{
    const struct config *c = m->cfg;
    struct cpu_topology topo = {c->sockets, c->cores, c->threads};
    struct vm_opts vo = {
        .topology = topo,
        .cpu = c->cpu,
        .pit = c->pit,
    };
    int r;

    m->apic_ids = xcalloc(c->cpus, sizeof(*m->apic_ids));
    for (unsigned i = 0; i < c->cpus; i++)
        m->apic_ids[i] = cpu_apic_id(&topo, i);
    if ((r = gmem_create(c->memory, c->backing, c->hugepage_size, &m->mem, err)) < 0)
        return r;
    m->pio = bus_create("pio", 0x10000);
    m->mmio = bus_create("mmio", UINT64_MAX);
    m->vm_user.event = vm_event;
    if ((r = vm_create(&vo, m->mem, m->pio, m->mmio, &m->vm_user, &m->vm, err)) < 0)
        return r;
    if ((r = loop_create("main", &m->loop, err)) < 0)
        return r;
    for (unsigned i = 0; i < VM_IOAPIC_PINS; i++)
        irq_or_init(&m->lines[i], vm_line(m->vm, i));
    m->env = (struct device_env){
        .mem = m->mem,
        .pio = m->pio,
        .mmio = m->mmio,
        .loop = m->loop,
        .msi = vm_msi(m->vm),
        .line = env_line,
        .doorbell_add = env_doorbell_add,
        .doorbell_del = env_doorbell_del,
        .attach_virtio = c->board == BOARD_PCI ? env_attach_pci : env_attach_mmio,
        .request = env_request,
        .pause = env_pause,
    };
    if ((r = add_devices(m, err)) < 0)
        return r;
    m->made_ns = clock_now_ns();
    r = power_on(m, err);
    m->loaded_ns = clock_now_ns();
    return r;
}

int machine_create(const struct config *c, struct machine **ret, struct err *err)
{
    struct machine *m = xcalloc(1, sizeof(*m));
    int r;

    m->cfg = c;
    m->begun_ns = clock_now_ns();
    list_init(&m->jobs);
    list_init(&m->observers);
    pthread_mutex_init(&m->pause_lock, NULL);
    r = create(m, err);
    if (r < 0) {
        machine_destroy(m);
        return r;
    }
    *ret = m;
    return 0;
}

void machine_destroy(struct machine *m)
{
    if (!m)
        return;
    machine_stop(m);
    while (m->ndevs)
        device_destroy(m->devs[--m->ndevs]);
    while (m->nloops)
        loop_destroy(m->loops[--m->nloops]);
    loop_destroy(m->loop);
    vm_destroy(m->vm);
    bus_destroy(m->mmio);
    bus_destroy(m->pio);
    gmem_destroy(m->mem);
    assert(list_empty(&m->jobs));
    pthread_mutex_destroy(&m->pause_lock);
    free(m->apic_ids);
    free(m);
}

/* --- running --- */

/* All but the CPUs. */
static void stand_still(struct machine *m)
{
    for (unsigned i = m->ndevs; i-- > 0;)
        device_stop(m->devs[i]);
    loop_clock_stop(m->loop);
    for (unsigned i = 0; i < m->nloops; i++)
        loop_clock_stop(m->loops[i]);
    m->running = false;
}

int machine_start(struct machine *m, struct err *err)
{
    int r;

    assert(!m->running);
    m->running = true;
    for (unsigned i = 0; i < m->nloops; i++)
        loop_clock_start(m->loops[i]);
    loop_clock_start(m->loop);
    for (unsigned i = 0; i < m->ndevs; i++)
        device_start(m->devs[i]);
    if (!m->entered_ns)
        m->entered_ns = clock_now_ns();
    r = vm_start(m->vm, err);
    if (r < 0)
        stand_still(m);
    return r;
}

void machine_stop(struct machine *m)
{
    if (!m->running)
        return;
    vm_stop(m->vm);
    stand_still(m);
}

static void tell_paused(struct machine *m)
{
    list_for_each (l, &m->observers) {
        struct machine_observer *o = container_of(l, struct machine_observer, link);

        if (o->paused)
            o->paused(o);
    }
}

void machine_pause(struct machine *m, const char *why)
{
    const struct config *c = m->cfg;
    bool news;

    machine_stop(m);
    if (m->paused && (!why || m->paused_for[0]))
        return;
    news = !m->paused;
    m->paused = true;
    snprintf(m->paused_for, sizeof(m->paused_for), "%s", why ? why : "");
    if (why)
        log_msg(LOG_ERROR, "%s is paused: %s, then continue it with: %s%s%s", m->cfg->name, why,
                c->control ? "bothy ctl " : "Ctrl-] c on its terminal", c->control ? c->control : "",
                c->control ? " resume" : "");
    if (news)
        tell_paused(m);
}

int machine_resume(struct machine *m, struct err *err)
{
    int r;

    if (m->dead) {
        machine_request(m, REQ_CRASHED, 0);
        return 0;
    }
    r = m->paused ? machine_start(m, err) : 0;
    if (r < 0)
        return r;
    m->paused = false;
    m->paused_for[0] = 0;
    return 0;
}

void machine_status(struct machine *m, struct machine_status *ret)
{
    *ret = (struct machine_status){
        .paused = m->paused,
        .why = m->paused_for[0] ? m->paused_for : NULL,
        .up_ns = loop_now(m->loop, CLK_GUEST) - m->power_on_ns,
        .devices = m->devs,
        .ndevices = m->ndevs,
        .config = m->cfg,
        .crash = atomic_load(&m->crash),
        .crash_cpu = atomic_load(&m->crash_cpu),
    };
}

/* Several regions may be one device's. */
static void add_exits(struct machine_profile *p, const char *cause, uint64_t n)
{
    unsigned i = 0;

    while (i < p->nexits && strcmp(p->exits[i].cause, cause))
        i++;
    if (!n || i == MACHINE_CAUSES_MAX)
        return;
    p->exits[i].cause = cause;
    p->exits[i].n += n;
    p->nexits += i == p->nexits;
}

void machine_profile(struct machine *m, struct machine_profile *ret)
{
    struct bus *const buses[] = {m->pio, m->mmio};
    const char *name;
    uint64_t n;

    *ret = (struct machine_profile){
        .begun_ns = m->begun_ns, .made_ns = m->made_ns, .loaded_ns = m->loaded_ns, .entered_ns = m->entered_ns};
    for (size_t b = 0; b < array_len(buses); b++)
        for (unsigned i = 0; bus_accesses(buses[b], i, &name, &n); i++)
            add_exits(ret, name, n);
    for (unsigned i = 0; vm_exits(m->vm, i, &name, &n); i++)
        if (name)
            add_exits(ret, name, n);
}

/* What a device, or the user at the terminal, asked for. */
static void serve_pause(struct machine *m)
{
    char why[sizeof(m->why)];
    bool has;

    pthread_mutex_lock(&m->pause_lock);
    has = m->has_why;
    strcpy(why, m->why);
    m->has_why = false;
    pthread_mutex_unlock(&m->pause_lock);
    machine_pause(m, has ? why : NULL);
}

struct loop *machine_loop(struct machine *m)
{
    return m->loop;
}

void machine_observe(struct machine *m, struct machine_observer *o)
{
    list_add_tail(&m->observers, &o->link);
}

void machine_unobserve(struct machine *m, struct machine_observer *o)
{
    (void)m;
    list_del(&o->link);
}

struct vm *machine_vm(struct machine *m)
{
    return m->vm;
}

struct gmem *machine_memory(struct machine *m)
{
    return m->mem;
}

static int crashed(struct machine *m)
{
    const char *why = atomic_load(&m->crash);
    char *report cleanup_free = NULL;
    struct probe probe;

    machine_stop(m);
    if (!why)
        return EXIT_CRASHED; /* who asked for it says why */
    log_msg(LOG_ERROR, "%s: CPU %u: %s", m->cfg->name, atomic_load(&m->crash_cpu), why);
    report = vm_report(m->vm, atomic_load(&m->crash_cpu));
    for (char *rest = report, *line; (line = strsep(&rest, "\n"));)
        if (*line)
            log_msg(LOG_ERROR, "%s", line);
    if (!probe_run(&probe, NULL) && probe_judge(&probe) != PROBE_KERNELS) {
        char text[256];

        probe_explain(&probe, text, sizeof(text));
        log_msg(LOG_ERROR, "%s", text);
    }
    return EXIT_CRASHED;
}

/* The guest starts anew, or stays paused.  The exit code, or -1: go on. */
static int restart(struct machine *m)
{
    struct err err;

    machine_stop(m);
    list_for_each (l, &m->observers) {
        struct machine_observer *o = container_of(l, struct machine_observer, link);

        if (o->resets && o->resets(o))
            return crashed(m);
    }
    if (!m->cfg->reboot)
        return EXIT_ORDERLY;
    if (machine_reset(m, &err) < 0 || (!m->paused && machine_start(m, &err) < 0)) {
        log_msg(LOG_ERROR, "%s: cannot reboot: %s", m->cfg->name, err.msg);
        return EXIT_BOTHY;
    }
    return -1;
}

static void run_jobs(struct machine *m)
{
    while (!list_empty(&m->jobs)) {
        struct machine_job *j = container_of(list_pop(&m->jobs), struct machine_job, link);

        j->queued = false;
        j->run(j);
    }
}

/* Does somebody want to look at the crashed guest? */
static bool is_kept(struct machine *m)
{
    if (m->dead)
        return false;
    machine_stop(m);
    list_for_each (l, &m->observers) {
        struct machine_observer *o = container_of(l, struct machine_observer, link);

        m->dead |= o->crashed && o->crashed(o);
    }
    m->paused |= m->dead;
    return m->dead;
}

/* The main loop, until a request ends the guest; returns the exit code. */
static int serve(struct machine *m)
{
    for (;;) {
        struct err err;
        unsigned r;
        int code;

        loop_run(m->loop);
        r = atomic_exchange(&m->requests, 0);
        if (r & 1u << REQ_EXIT)
            return machine_stop(m), atomic_load(&m->exit_code);
        if (r & 1u << REQ_QUIT)
            return machine_stop(m), EXIT_INTERRUPTED;
        if (r & 1u << REQ_CRASHED && !is_kept(m))
            return crashed(m);
        if (r & 1u << REQ_POWEROFF)
            return machine_stop(m), EXIT_ORDERLY;
        if (r & 1u << REQ_BUTTON)
            pm_press_power_button(m->pm);
        if (r & 1u << REQ_RESET && (code = restart(m)) >= 0)
            return code;
        if (r & 1u << REQ_RESUME && machine_resume(m, &err) < 0)
            log_msg(LOG_ERROR, "%s: cannot continue: %s", m->cfg->name, err.msg);
        if (r & 1u << REQ_PAUSE) /* what failed just now weighs more than the wish to go on */
            serve_pause(m);
        run_jobs(m);
    }
}

int machine_run(struct machine *m, struct err *err)
{
    struct slow_host slow;
    int code = m->cfg->paused ? 0 : machine_start(m, err);

    m->paused = m->cfg->paused;
    if (code < 0)
        return code;
    slow_host_watch(&slow, m->loop);
    code = serve(m);
    slow_host_fini(&slow);
    return code;
}

int machine_device_tree(const struct config *c, uint8_t **ret, size_t *len, struct err *err)
{
    uint32_t *ids cleanup_free = xcalloc(c->cpus, sizeof(*ids));
    struct cpu_topology topo = {c->sockets, c->cores, c->threads};
    char *cmdline cleanup_free = NULL;
    struct board_desc d;
    struct blob b;

    if (c->board != BOARD_MMIO)
        return err_set(err, EINVAL, "only the mmio machine has a device tree; give --machine mmio");
    for (unsigned i = 0; i < c->cpus; i++)
        ids[i] = cpu_apic_id(&topo, i);
    board_describe(c, ids, 36, &d);
    cmdline = command_line(c, &d);
    b = fdt_build(&d, cmdline);
    *ret = b.data;
    *len = b.len;
    return 0;
}
