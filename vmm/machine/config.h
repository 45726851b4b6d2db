/*
 * The machine as asked for: what the command line or a JSON file says, and after config_resolve() the whole of it, with
 * every default filled in.  The resolved form printed as JSON resolves to itself.
 */
#pragma once
#include <stdio.h>

#include "devices/char/chardev.h"

enum board { BOARD_PCI, BOARD_MMIO, BOARD_ANY };

enum { CONFIG_DEVICES_MAX = 64, CONFIG_CPUS_MAX = 4096 };

struct config_device {
    const struct device_class *cls;
    char id[32];
    char *options; /* "key=value,…" as device_create() takes it; owned */
};

struct config {
    char *name, *uuid, *cpu, *kernel; /* owned */
    struct opt_list initrds, append;  /* append's words are joined by blanks */
    uint32_t board, backing;
    uint64_t memory, hugepage_size;
    uint32_t cpus, sockets, cores, threads;
    bool acpi, pit, rng, kaslr, kernel_cache, reboot;
    char *control, *gdb; /* socket's path, vmm/gdb/server.h; NULL: none */
    bool paused;
    /* Short forms: config_resolve() makes devices of them. */
    struct opt_list disks, shares, nets, ports, serials, consoles, extra;
    char *debugcon;
    struct config_device devices[CONFIG_DEVICES_MAX];
    unsigned ndevices;
};

extern const char *const config_board_words[];

/*
 * The option rows of all of the above but `devices`, for a table over struct T whose config's members are reached by
 * the prefix M: each verb that makes a machine has them beside options of its own.
 */
#define CONFIG_OPTIONS(T, M)                                                                                           \
    O_STR(T, M kernel, "kernel", NULL, "bzImage, vmlinux, PVH or Multiboot ELF, or FIT", .letter = 'k',                \
          .arg = "FILE"),                                                                                              \
        O_LIST(T, M initrds, "initrd", "initial RAM file system; several are joined", .letter = 'i', .arg = "FILE"),   \
        O_LIST(T, M append, "append", "words for the kernel's command line", .letter = 'a', .arg = "WORDS"),           \
        O_U32(T, M cpus, "cpus", "1", 1, CONFIG_CPUS_MAX, "number of CPUs", .letter = 'c'),                            \
        O_SIZE(T, M memory, "memory", "512M", KiB(512), GiB(65536), "guest RAM", .letter = 'm'),                       \
        O_LIST(T, M disks, "disk", "a disk; --device help lists the keys of virtio-blk", .letter = 'd',                \
               .arg = "FILE[,KEY=VALUE]..."),                                                                          \
        O_LIST(T, M shares, "share", "a directory for the guest to mount -t virtiofs TAG; read-only unless told",      \
               .letter = 's', .arg = "DIR[:TAG][,ro|rw|cow][,KEY=VALUE]..."),                                          \
        O_LIST(T, M nets, "net", "a network card; help lists the networks, none is no card", .letter = 'n',            \
               .arg = "NETWORK[,KEY=VALUE]..."),                                                                       \
        O_LIST(T, M ports, "publish", "a port of this host's that leads to one of the guest's", .letter = 'p',         \
               .arg = "[ADDRESS:]PORT:PORT[/udp]"),                                                                    \
        O_LIST(T, M serials, "serial", "a serial port", .arg = CHARDEV_ARG),                                           \
        O_LIST(T, M consoles, "console", "a virtio console", .arg = CHARDEV_ARG),                                      \
        O_STR(T, M debugcon, "debugcon", NULL, "the debug port 0xe9", .arg = CHARDEV_ARG),                             \
        O_LIST(T, M extra, "device", "any other device; help lists them", .arg = "DEVICE[,KEY=VALUE]..."),             \
        O_ENUM(T, M board, "machine", "pci", config_board_words, "pci: PCI Express; mmio: virtio-mmio only"),          \
        O_STR(T, M cpu, "cpu", "host", "CPU model: host, then ,-feature and ,+feature", .arg = "MODEL"),               \
        O_U32(T, M sockets, "sockets", "0", 0, CONFIG_CPUS_MAX, "CPU packages; 0: as the others leave"),               \
        O_U32(T, M cores, "cores", "0", 0, CONFIG_CPUS_MAX, "cores in a package; 0: as the others leave"),             \
        O_U32(T, M threads, "threads", "0", 0, CONFIG_CPUS_MAX, "threads of a core; 0: one"),                          \
        O_ENUM(T, M backing, "memory-backing", "anonymous", gmem_backing_words,                                        \
               "anonymous: private; shared: a memfd; hugetlb: reserved huge pages"),                                   \
        O_SIZE(T, M hugepage_size, "hugepage-size", "2M", MiB(2), GiB(1), "page size of hugetlb: 2M or 1G"),           \
        O_BOOL(T, M acpi, "acpi", "on", "describe the board by ACPI; off (mmio machine): by a device tree"),           \
        O_BOOL(T, M pit, "pit", "off", "an i8254 timer, for kernels without a paravirtual clock"),                     \
        O_BOOL(T, M rng, "rng", "on", "a virtio entropy device"),                                                      \
        O_BOOL(T, M kaslr, "kaslr", "on",                                                                              \
               "place the kernel at random: costs some milliseconds, and no sharing with other guests"),               \
        O_BOOL(T, M kernel_cache, "kernel-cache", "on", "keep decompressed kernels in $XDG_CACHE_HOME/bothy"),         \
        O_BOOL(T, M reboot, "reboot", "on", "a guest's reboot starts it anew; off: it ends bothy"),                    \
        O_STR(T, M control, "control", NULL, "a socket for \"bothy ctl\", or fd:N, one that is connected",             \
              .arg = "FILE"),                                                                                          \
        O_STR(T, M gdb, "gdb", NULL, "let gdb attach: unix:FILE, [HOST]:PORT, or fd:N, a socket that listens",         \
              .arg = "SOCKET"),                                                                                        \
        O_BOOL(T, M paused, "paused", "off", "the guest waits for \"bothy ctl\" or gdb before its first instruction"), \
        O_STR(T, M name, "name", "bothy", "what to call the guest in messages"),                                       \
        O_STR(T, M uuid, "uuid", NULL, "identity for the guest to read in SMBIOS; random when not given")

/* The same over struct config itself: JSON's keys. */
extern const struct opt config_opts[];

void config_init(struct config *c); /* defaults */
void config_fini(struct config *c);

/* `spec` is "CLASS[,key=value…]"; id NULL: the class's last word and a number ("blk0"). */
int config_add_device(struct config *c, const char *spec, const char *id, struct err *err) must_check;
/* The same with class and options apart. */
int config_add_class(struct config *c, const char *class_name, const char *options, const char *id, struct err *err)
    must_check;

/* Writes ",key=value" (no comma at the start of f) as opts_parse() reads it; nothing when value is NULL. */
void config_put_option(FILE *f, const char *key, const char *value);

/* Fills in what was left open and checks what can be checked without opening anything.  Idempotent. */
int config_resolve(struct config *c, struct err *err) must_check;

/* What the first network card's network tells the guest by DHCP, for a config that is resolved; false: nothing. */
struct net_lease;
bool config_lease(const struct config *c, struct net_lease *ret);

/* JSON that ends with a newline; the caller's to free. */
int config_to_json(const struct config *c, char **ret, struct err *err) must_check;
/* An object's strings, integers and booleans as "key=value,…", but those in `but`; the caller's.
 */
int config_options_from_json(struct json_t *o, const char *const *but, char **ret, struct err *err) must_check;
/* On top of what is there; `where` names the text in messages.  Unknown keys are errors with a suggestion. */
int config_from_json(struct config *c, const char *text, const char *where, struct err *err) must_check;
