#include "vmm/bundle/bundle.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <sys/stat.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"
#include "vmm/inspect/guest_kernel.h"
#include "vmm/inspect/kdump.h"
#include "vmm/inspect/kernel_config.h"
#include "vmm/inspect/printk.h"
#include "vmm/kvm/vm.h"

struct bundle {
    struct machine *machine;
    struct machine_status status;
    int dir;
    struct cpu_state *cpus;
    struct guest_kernel kernel;
    struct printk_reader reader;
    FILE *log;
    struct splat_watch fatal, any; /* the first that kernels seldom survive; the first of all */
    const char *log_error;         /* why there is no log; NULL: there is */
};

/* All that may be in it; what an earlier guest left there would mislead. */
static void drop_files(const struct bundle *b)
{
    static const char *const names[] = {"summary",     "kernel.log",    "cpus",  "devices.json",
                                        "config.json", "kernel.config", "vmcore"};

    for (size_t i = 0; i < array_len(names); i++)
        unlinkat(b->dir, names[i], 0);
}

static int open_file(const struct bundle *b, const char *name, FILE **ret, struct err *err)
{
    int fd = openat(b->dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "w");

    if (!f)
        return err_set(err, errno, "bundle: %s: %s", name, strerror(errno));
    *ret = f;
    return 0;
}

static int close_file(FILE *f, const char *name, struct err *err)
{
    int bad = ferror(f);

    bad |= fclose(f);
    return bad ? err_set(err, EIO, "bundle: %s cannot be written; is the disk full?", name) : 0;
}

static int put_text(const struct bundle *b, const char *name, const char *text, struct err *err)
{
    FILE *f;
    int rc = open_file(b, name, &f, err);

    if (rc)
        return rc;
    fputs(text, f);
    return close_file(f, name, err);
}

/* --- the log --- */

static void put_record(struct printk_reader *r, const struct printk_record *rec)
{
    struct bundle *b = container_of(r, struct bundle, reader);

    for (char *rest = rec->text, *line; (line = strsep(&rest, "\n"));) {
        fprintf(b->log, "[%5llu.%06llu] %s\n", (unsigned long long)(rec->ns / 1000000000),
                (unsigned long long)(rec->ns / 1000 % 1000000), line);
        splat_line(&b->fatal, line);
        splat_line(&b->any, line);
    }
}

static int put_log(struct bundle *b, struct err *err)
{
    int rc, got;

    if (!b->kernel.found) {
        b->log_error = "no Linux kernel in memory that has come as far as its initcalls";
        return 0;
    }
    rc = open_file(b, "kernel.log", &b->log, err);
    if (rc)
        return rc;
    b->reader.record = put_record;
    got = printk_read(&b->kernel.info, &b->reader);
    if (got)
        b->log_error = got == -ENOTSUP ? "a kernel from before 5.10" : "the ring of its records is damaged";
    return close_file(b->log, "kernel.log", err);
}

/* --- what the CPUs were doing --- */

static void put_cpu_line(const struct bundle *b, unsigned cpu, FILE *f)
{
    const struct cpu_state *s = &b->cpus[cpu];
    char name[600];

    symbols_name(&b->kernel.symbols, s->rip, name, sizeof(name));
    if (s->activity == CPU_WAITS)
        fprintf(f, "CPU %u: not started\n", cpu);
    else
        fprintf(f, "CPU %u: %s in %s%s, interrupts %s\n", cpu, s->activity == CPU_HALTED ? "halted" : "running",
                s->level ? "a program at " : "", name, s->rflags & 1 << 9 ? "on" : "off");
}

static int put_cpus(const struct bundle *b, const struct samples *samples, struct err *err)
{
    FILE *f;
    int rc = open_file(b, "cpus", &f, err);

    if (rc)
        return rc;
    for (unsigned i = 0; i < b->status.config->cpus; i++) {
        char *report cleanup_free = vm_report(machine_vm(b->machine), i);
        uint64_t trace[TRACE_MAX];
        unsigned n = symbols_trace(&b->kernel.symbols, &b->kernel.info, &b->cpus[i], trace);

        put_cpu_line(b, i, f);
        for (unsigned k = 0; k < n; k++) {
            char name[600];

            symbols_name(&b->kernel.symbols, trace[k], name, sizeof(name));
            fprintf(f, "  %s\n", name);
        }
        if (samples)
            samples_put(samples, &b->kernel, i, true, f);
        fprintf(f, "%s\n", report);
    }
    return close_file(f, "cpus", err);
}

/* --- the machine --- */

static int put_devices(const struct bundle *b, struct err *err)
{
    char *text cleanup_free = NULL;
    json_t *all = json_object();

    for (unsigned i = 0; i < b->status.ndevices; i++)
        json_object_set_new(all, b->status.devices[i]->id, device_info(b->status.devices[i]));
    text = json_dumps(all, JSON_INDENT(2));
    json_decref(all);
    return put_text(b, "devices.json", text ? text : "", err);
}

static int put_config(const struct bundle *b, struct err *err)
{
    char *text cleanup_free = NULL;
    int rc = config_to_json(b->status.config, &text, err);

    return rc < 0 ? rc : put_text(b, "config.json", text, err);
}

/* The kernel's own, which few have with them. */
static int put_kernel_config(const struct bundle *b, struct err *err)
{
    char *text cleanup_free = b->kernel.found ? kernel_config_read(&b->kernel.info) : NULL;

    return text ? put_text(b, "kernel.config", text, err) : 0;
}

static int put_core(const struct bundle *b, const struct bundle_opts *o, struct err *err)
{
    int fd cleanup_fd = openat(b->dir, "vmcore", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600), rc;
    const struct vmcoreinfo *k = b->kernel.found ? &b->kernel.info : NULL;
    struct gmem *mem = machine_memory(b->machine);
    struct spare spare = {.n = 0};

    if (fd < 0)
        return err_set(err, errno, "bundle: vmcore: %s", strerror(errno));
    if (o->lean && k && spare_find(k, &spare))
        log_msg(LOG_WARN, "bundle: the kernel does not say which pages are free; vmcore has all of them");
    if (o->packed && k)
        rc = kdump_write(fd, mem, b->cpus, b->status.config->cpus, k, &spare, err);
    else
        rc = core_write(fd, mem, b->cpus, b->status.config->cpus, k, b->kernel.has_symbols ? &b->kernel.symbols : NULL,
                        &spare, err);
    spare_fini(&spare);
    return rc;
}

/* --- the summary --- */

/* A kernel that is known to have died says where itself; else what the CPUs were doing tells. */
static void first_line(const struct bundle *b, const struct bundle_opts *o, char *ret, size_t n)
{
    bool died = b->fatal.seen & b->fatal.wanted, noted = b->any.seen & b->any.wanted;
    const struct splat_watch *s = died ? &b->fatal : &b->any;
    const char *what = b->status.crash ? b->status.crash : o->what ? o->what : "the guest says that it crashed";
    char name[SYMBOL_NAME_MAX + CODE_NAME_MAX + 64];

    if (o->samples && !died) {
        samples_verdict(o->samples, &b->kernel, name, sizeof(name));
        snprintf(ret, n, "%s: %s", what, name);
    } else if (noted && s->function[0]) {
        snprintf(ret, n, "%s in %s: %s", splat_names[s->first], s->function, s->title);
    } else if (noted) {
        snprintf(ret, n, "%s: %s", splat_names[s->first], s->title);
    } else {
        symbols_name(&b->kernel.symbols, b->cpus[b->status.crash_cpu].rip, name, sizeof(name));
        snprintf(ret, n, "%s: CPU %u in %s", what, b->status.crash_cpu, name);
    }
}

static int put_summary(const struct bundle *b, const struct bundle_opts *o, const char *line, struct err *err)
{
    const struct config *c = b->status.config;
    FILE *f;
    int rc = open_file(b, "summary", &f, err);

    if (rc)
        return rc;
    fprintf(f, "%s\n\nGuest: %s, %u CPUs, %llu MiB, up %llu.%03llu s\n", line, c->name, c->cpus,
            (unsigned long long)(c->memory >> 20), (unsigned long long)(b->status.up_ns / 1000000000),
            (unsigned long long)(b->status.up_ns / 1000000 % 1000));
    if (b->kernel.found)
        fprintf(f, "Kernel: %s, moved by %#llx (KASLR)\n", b->kernel.info.release,
                (unsigned long long)b->kernel.info.kaslr);
    fprintf(f, "Log: %s\n", b->log_error ? b->log_error : "kernel.log");
    if (b->kernel.found && !b->kernel.has_symbols)
        fprintf(f, "Symbols: this kernel does not tell where they are (before 6.0, or without kallsyms)\n");
    if (b->kernel.has_symbols && b->kernel.modules < 0)
        fprintf(f, "Modules: %s\n",
                b->kernel.modules == -ENOENT ? "without names, as this kernel does not tell where they are (no BTF)"
                                             : "their list is damaged");
    /* A descriptor of ours no other process can have. */
    if (!c->initrds.n || strncmp(c->initrds.v[c->initrds.n - 1], "/proc/self/", 11) != 0)
        fprintf(f, "Again: bothy run --config config.json\n");
    if (o->core)
        fprintf(f, "Core: crash vmlinux vmcore%s%s\n", o->packed ? "" : ", or gdb vmlinux vmcore",
                b->kernel.info.kaslr && !o->packed ? ", then symbol-file -o OFFSET vmlinux with the offset above" : "");
    fprintf(f, "\n");
    for (unsigned i = 0; i < c->cpus; i++)
        put_cpu_line(b, i, f);
    for (unsigned i = 0; o->samples && i < c->cpus; i++)
        samples_put(o->samples, &b->kernel, i, false, f);
    return close_file(f, "summary", err);
}

static int write_all(struct bundle *b, const struct bundle_opts *o, char *line, size_t n, struct err *err)
{
    int rc = put_log(b, err);

    first_line(b, o, line, n);
    if (!rc)
        rc = put_summary(b, o, line, err);
    if (!rc)
        rc = put_cpus(b, o->samples, err);
    if (!rc)
        rc = put_devices(b, err);
    if (!rc)
        rc = put_config(b, err);
    if (!rc)
        rc = put_kernel_config(b, err);
    return rc || !o->core ? rc : put_core(b, o, err);
}

int bundle_write(struct machine *m, const struct bundle_opts *o, char *line, size_t n, struct err *err)
{
    struct bundle b = {.machine = m, .any.wanted = UINT32_MAX};
    int rc;

    b.fatal.wanted = 1u << SPLAT_PANIC | 1u << SPLAT_OOPS | 1u << SPLAT_BUG | 1u << SPLAT_LOCKUP;
    if (mkdir(o->dir, 0700) && errno != EEXIST)
        return err_file(err, errno, "bundle", o->dir);
    b.dir = open(o->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (b.dir < 0)
        return err_file(err, errno, "bundle", o->dir);
    drop_files(&b);
    machine_status(m, &b.status);
    b.cpus = xcalloc(b.status.config->cpus, sizeof(*b.cpus));
    for (unsigned i = 0; i < b.status.config->cpus; i++)
        if (vm_cpu_get(machine_vm(m), i, &b.cpus[i]) < 0)
            b.cpus[i].activity = CPU_WAITS;
    guest_kernel_init(&b.kernel, machine_memory(m));
    rc = write_all(&b, o, line, n, err);
    guest_kernel_fini(&b.kernel);
    free(b.cpus);
    close(b.dir);
    return rc;
}
