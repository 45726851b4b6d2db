/* `bothy run`: a machine from options, from start to end. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "devices/block/driver.h"
#include "devices/net/net.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/exit_code.h"
#include "vmm/base/file.h"
#include "vmm/base/log.h"
#include "vmm/bundle/bundle.h"
#include "vmm/cli/cli.h"
#include "vmm/cli/crash_opts.h"
#include "vmm/control/control.h"
#include "vmm/gdb/server.h"
#include "vmm/machine/machine.h"

struct run_opts {
    struct config c;
    char *config, *dump_dtb;
    bool dry_run;
    struct crash_opts crash;
    uint32_t log_level;
};

static const struct opt run_options[] = {
    CONFIG_OPTIONS(struct run_opts, c.),
    O_STR(struct run_opts, config, "config", NULL, "start from what --dry-run printed", .arg = "FILE"),
    O_BOOL(struct run_opts, dry_run, "dry-run", "off", "print the whole machine as JSON and run nothing"),
    O_STR(struct run_opts, dump_dtb, "dump-dtb", NULL, "write the mmio machine's device tree and run nothing",
          .arg = "FILE"),
    CRASH_OPTIONS(struct run_opts, crash.),
    O_ENUM(struct run_opts, log_level, "log-level", "warn", log_level_words, "how much bothy says on standard error"),
    O_END,
};

enum { CONFIG_FILE_MAX = 1 << 20 };

static int read_config(const char *path, char **ret, struct err *err)
{
    if (!file_drain(path, CONFIG_FILE_MAX, ret))
        return 0;
    if (errno == EFBIG)
        return err_set(err, EFBIG, "config \"%s\": more than 1 MiB; give what \"bothy run --dry-run\" printed", path);
    return err_file(err, errno, "config", path);
}

static int write_tree(const char *path, const void *data, size_t len, struct err *err)
{
    int fd cleanup_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    int rc = fd < 0 ? -errno : file_write(fd, data, len);

    return rc ? err_file(err, -rc, "device tree", path) : 0;
}

/* The file first, then the command line once more on top of it. */
static int start_from_file(struct cli_line *l, struct err *err)
{
    struct run_opts *o = l->opts;
    char *path cleanup_free = take_ptr(o->config), *text cleanup_free = NULL;
    int r = read_config(path, &text, err);

    if (r < 0)
        return r;
    opts_clear(run_options, o);
    opts_default(run_options, o);
    r = config_from_json(&o->c, text, path, err);
    return r < 0 ? r : cli_parse(l, err);
}

/* A device or a driver, and its options. */
static void list_keys(const char *name, const char *summary, const struct opt *opts)
{
    printf("%-16s %s\n", name, summary);
    for (const struct opt *o = opts; o && o->name; o++) {
        char buf[64], word[96];
        const char *arg = cli_arg_name(o, buf, sizeof(buf));

        snprintf(word, sizeof(word), "%s%s%s", o->name, arg ? "=" : "", arg ? arg : "");
        printf("    %-22s %s%s%s%s\n", word, o->help, o->dflt ? " [" : "", o->dflt ? o->dflt : "", o->dflt ? "]" : "");
    }
}

static void list_networks(void)
{
    const struct device_class *card = device_class_find("virtio-net");

    puts("Networks, with keys of their own:");
    for (const struct net_class *const *c = net_classes; *c; c++) {
        struct opt_choice net = net_choice((unsigned)(c - net_classes));

        list_keys(net.name, net.summary, net.opts);
    }
    puts("\nThe card's own keys, on any network:");
    list_keys(card->name, card->summary, card->opts);
}

static void list_devices(void)
{
    for (const struct device_class *const *p = device_classes; *p; p++)
        if (!(*p)->internal)
            list_keys((*p)->name, (*p)->summary, (*p)->opts);
    puts("\nFormats of disks, with what format-option=KEY=VALUE sets:");
    for (const struct blk_driver *const *d = blk_drivers; *d; d++)
        if ((*d)->endings)
            list_keys((*d)->name, (*d)->summary, (*d)->opts);
    puts("\nFilters of disks, as in filter=throttle:iops=100:bps=1M:");
    for (const struct blk_driver *const *d = blk_drivers; *d; d++)
        if (!(*d)->endings)
            list_keys((*d)->name, (*d)->summary, (*d)->opts);
}

static int print_machine(const struct config *c, struct err *err)
{
    char *text cleanup_free = NULL;
    int r = config_to_json(c, &text, err);

    if (r < 0)
        return r;
    fputs(text, stdout);
    return 0;
}

static int dump_device_tree(const struct config *c, const char *path, struct err *err)
{
    uint8_t *dtb cleanup_free = NULL;
    size_t len;
    int r = machine_device_tree(c, &dtb, &len, err);

    return r < 0 ? r : write_tree(path, dtb, len, err);
}

/* Signals become events of the main loop, so that the terminal and all else is put in order first. */
struct signals {
    struct lane lane;
    struct watch watch;
    struct machine *machine;
    struct sampler *sampler; /* NULL: nobody wants to know what the CPUs do */
    bool asked;              /* the guest has been told to power off */
    bool ended;              /* by SIGQUIT, as if it had crashed */
};

static void signal_arrived(struct watch *w, uint32_t revents)
{
    struct signals *s = container_of(w, struct signals, watch);
    struct signalfd_siginfo si;

    (void)revents;
    if (read(w->fd, &si, sizeof(si)) != sizeof(si))
        return;
    if (si.ssi_signo == SIGQUIT) {
        s->ended = true;
        if (s->sampler)
            sampler_start(s->sampler);
        else
            machine_request(s->machine, REQ_CRASHED, 0);
        return;
    }
    machine_request(s->machine, si.ssi_signo == SIGINT || s->asked ? REQ_QUIT : REQ_BUTTON, 0);
    s->asked = true;
}

/* What ends the machine. */
static void ending_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
    sigaddset(set, SIGQUIT);
}

static int run_machine(struct machine *m, struct sampler *sampler, bool *ended, struct err *err)
{
    struct signals s = {
        .machine = m, .sampler = sampler, .watch = {.lane = &s.lane, .events = EPOLLIN, .ready = signal_arrived}};
    sigset_t set;
    int fd cleanup_fd = -1, code;

    ending_signals(&set);
    fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        return err_set(err, errno, "signalfd: %s", strerror(errno));
    s.watch.fd = fd;
    lane_init(&s.lane, machine_loop(m));
    lane_lock(&s.lane);
    watch_add(&s.watch);
    lane_unlock(&s.lane);
    code = machine_run(m, err);
    lane_lock(&s.lane);
    watch_del(&s.watch);
    lane_unlock(&s.lane);
    lane_fini(&s.lane);
    *ended = s.ended;
    return code;
}

/* Before any thread is made, so that all inherit it. */
static void block_signals(void)
{
    sigset_t set;

    ending_signals(&set);
    sigaddset(&set, SIGPIPE);
    sigprocmask(SIG_BLOCK, &set, NULL);
}

static void put_bundle(struct machine *m, const struct crash_opts *o, const struct sampler *sampler, bool ended)
{
    const struct bundle_opts bundle = {
        .dir = o->bundle,
        .what = ended ? "ended by SIGQUIT" : NULL,
        .core = o->core || o->lean || o->packed,
        .lean = o->lean,
        .packed = o->packed,
        .samples = sampler_samples(sampler),
    };
    struct err err;
    char line[512];

    if (bundle_write(m, &bundle, line, sizeof(line), &err) < 0)
        log_msg(LOG_ERROR, "%s", err.msg);
    else
        log_msg(LOG_ERROR, "%s; see %s", line, o->bundle);
}

static int run_config(const struct run_opts *o, struct err *err)
{
    const struct config *c = &o->c;
    struct control *control = NULL;
    struct log_watch *watch = NULL;
    struct sampler *sampler = NULL;
    struct gdb *gdb = NULL;
    struct machine *m;
    bool ended = false;
    uint32_t kinds;
    int r;

    block_signals();
    if ((r = crash_opts_check(&o->crash, &kinds, err)) < 0 || (r = machine_create(c, &m, err)) < 0)
        return r;
    if (kinds)
        log_watch_create(m, kinds, &watch);
    if (o->crash.bundle)
        sampler_create(m, &sampler);
    if (c->control)
        r = control_open(m, c->control, &control, err);
    if (r >= 0 && c->gdb)
        r = gdb_open(m, c->gdb, &gdb, err);
    if (r >= 0)
        r = run_machine(m, sampler, &ended, err);
    if (r >= 0 && log_watch_last(watch))
        r = EXIT_CRASHED;
    if (r == EXIT_CRASHED && o->crash.bundle)
        put_bundle(m, &o->crash, sampler, ended);
    else if (ended)
        log_msg(LOG_ERROR, "%s: ended by SIGQUIT", c->name);
    gdb_close(gdb, r);
    log_watch_destroy(watch);
    sampler_destroy(sampler);
    control_close(control);
    machine_destroy(m);
    return r;
}

static bool asks_for_help(const struct opt_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        if (!strcmp(l->v[i], "help"))
            return true;
    return false;
}

static int run_verb(struct cli_line *l, struct err *err)
{
    struct run_opts *o = l->opts;
    int r = 0;

    if (o->config)
        r = start_from_file(l, err);
    if (asks_for_help(&o->c.extra)) {
        list_devices();
        return 0;
    }
    if (asks_for_help(&o->c.nets)) {
        list_networks();
        return 0;
    }
    log_set_level(o->log_level);
    if (r >= 0)
        r = config_resolve(&o->c, err);
    if (r >= 0) {
        if (o->dry_run)
            r = print_machine(&o->c, err);
        else if (o->dump_dtb)
            r = dump_device_tree(&o->c, o->dump_dtb, err);
        else
            r = run_config(o, err);
    }
    config_fini(&o->c);
    return r;
}

const struct cli_verb verb_run = {
    .name = "run",
    .summary = "boot a guest",
    .text = "Boots a kernel under KVM with its console on the terminal.  Ctrl-] q quits, Ctrl-] ? lists what else "
            "there is.\n\n"
            "SIGTERM presses the guest's power button; a second one ends it at once, as SIGINT does.  SIGQUIT ends it "
            "as if it had crashed, with its bundle.",
    .opts = run_options,
    .size = sizeof(struct run_opts),
    .run = run_verb,
};
