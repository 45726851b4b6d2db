#include "vmm/machine/config.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/sysinfo.h>

#include "devices/net/net.h"
#include "vmm/base/cleanup.h"
#include "vmm/machine/board.h"

const char *const config_board_words[] = {[BOARD_PCI] = "pci", [BOARD_MMIO] = "mmio", NULL};

const struct opt config_opts[] = {CONFIG_OPTIONS(struct config, ), O_END};

void config_init(struct config *c)
{
    *c = (struct config){0};
    opts_default(config_opts, c);
}

void config_fini(struct config *c)
{
    opts_clear(config_opts, c);
    for (unsigned i = 0; i < c->ndevices; i++)
        free(c->devices[i].options);
    *c = (struct config){0};
}

static bool id_taken(const struct config *c, const char *id)
{
    for (unsigned i = 0; i < c->ndevices; i++)
        if (!strcmp(c->devices[i].id, id))
            return true;
    return false;
}

/* "disk0", "disk1" … */
static void free_id(const struct config *c, const char *stem, char ret[32])
{
    for (unsigned n = 0;; n++) {
        snprintf(ret, 32, "%.20s%u", stem, n);
        if (!id_taken(c, ret))
            return;
    }
}

static int choose_id(const struct config *c, const char *class_name, const char *id, char ret[32], struct err *err)
{
    const char *stem = strrchr(class_name, '-');

    if (!id) {
        free_id(c, stem ? stem + 1 : class_name, ret);
        return 0;
    }
    if (id_taken(c, id))
        return err_set(err, EEXIST, "two devices are called \"%s\"; give one another id", id);
    snprintf(ret, 32, "%s", id);
    return 0;
}

static int unknown_class(const char *name, struct err *err)
{
    const char *words[CONFIG_DEVICES_MAX + 1] = {NULL};
    unsigned n = 0;
    const char *near;

    for (unsigned i = 0; device_classes[i] && n < CONFIG_DEVICES_MAX; i++)
        if (!device_classes[i]->internal)
            words[n++] = device_classes[i]->name;
    near = nearest_word(name, words);
    if (near)
        return err_set(err, ENOENT, "no device is called \"%s\"; did you mean \"%s\"?", name, near);
    return err_set(err, ENOENT, "no device is called \"%s\"; --device help lists them", name);
}

int config_add_class(struct config *c, const char *class_name, const char *options, const char *id, struct err *err)
{
    const struct device_class *cls = device_class_find(class_name);
    struct config_device *d;
    int r;

    if (!cls || cls->internal)
        return unknown_class(class_name, err);
    if (c->ndevices == CONFIG_DEVICES_MAX)
        return err_set(err, E2BIG, "more than %d devices", CONFIG_DEVICES_MAX);
    d = &c->devices[c->ndevices];
    if ((r = choose_id(c, class_name, id, d->id, err)) < 0)
        return r;
    d->cls = cls;
    d->options = xstrdup(options);
    c->ndevices++;
    return 0;
}

int config_add_device(struct config *c, const char *spec, const char *id, struct err *err)
{
    size_t n = strcspn(spec, ",");
    char name[64];

    snprintf(name, sizeof(name), "%.*s", (int)n, spec);
    return config_add_class(c, name, spec[n] ? spec + n + 1 : "", id, err);
}

/* sockets × cores × threads = cpus, with what is 0 chosen to fit. */
static int resolve_topology(struct config *c, struct err *err)
{
    uint64_t product;

    if (!c->threads)
        c->threads = 1;
    if (!c->sockets)
        c->sockets = c->cores ? (uint32_t)max_u64(c->cpus / ((uint64_t)c->cores * c->threads), 1) : 1;
    if (!c->cores)
        c->cores = (uint32_t)max_u64(c->cpus / ((uint64_t)c->sockets * c->threads), 1);
    product = (uint64_t)c->sockets * c->cores * c->threads;
    if (product != c->cpus)
        return err_set(err, EINVAL, "%u sockets x %u cores x %u threads are %llu CPUs, not %u; make --cpus the product",
                       c->sockets, c->cores, c->threads, (unsigned long long)product, c->cpus);
    return 0;
}

static int resolve_memory(struct config *c, struct err *err)
{
    uint64_t page = c->backing == GMEM_HUGETLB ? c->hugepage_size : KiB(4), host;
    struct sysinfo si;

    if (page != KiB(4) && page != MiB(2) && page != GiB(1))
        return err_set(err, EINVAL, "huge pages are 2M or 1G; give --hugepage-size one of them");
    if (c->memory % page)
        return err_set(err, EINVAL, "%llu bytes of memory are not whole pages; give --memory a multiple of %lluK",
                       (unsigned long long)c->memory, (unsigned long long)page >> 10);
    if (sysinfo(&si) < 0)
        return err_set(err, errno, "sysinfo: %s", strerror(errno));
    host = ((uint64_t)si.totalram + si.totalswap) * si.mem_unit;
    if (c->memory > host)
        return err_set(err, ENOMEM, "%llu MiB of memory is more than this host's %llu MiB; give --memory less",
                       (unsigned long long)c->memory >> 20, (unsigned long long)host >> 20);
    return 0;
}

static int resolve_uuid(struct config *c, struct err *err)
{
    static const char shape[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    uint8_t b[16];
    char text[sizeof(shape)];

    if (c->uuid) {
        size_t i = 0;

        while (shape[i] && (shape[i] == 'x' ? isxdigit((unsigned char)c->uuid[i]) : c->uuid[i] == '-'))
            i++;
        if (shape[i] || c->uuid[i])
            return err_set(err, EINVAL, "\"%s\" is no UUID; write it as 8-4-4-4-12 hexadecimal digits", c->uuid);
        return 0;
    }
    if (getrandom(b, sizeof(b), 0) != sizeof(b))
        return err_set(err, errno, "getrandom: %s", strerror(errno));
    b[6] = (b[6] & 0x0f) | 0x40; /* RFC 4122 4.4: random, variant 1 */
    b[8] = (b[8] & 0x3f) | 0x80;
    for (size_t i = 0, nibble = 0; i < sizeof(shape); i++) {
        text[i] = shape[i];
        if (shape[i] == 'x') {
            text[i] = "0123456789abcdef"[nibble % 2 ? b[nibble / 2] & 15 : b[nibble / 2] >> 4];
            nibble++;
        }
    }
    c->uuid = xstrdup(text);
    return 0;
}

void config_put_option(FILE *f, const char *name, const char *value)
{
    if (!value)
        return;
    fprintf(f, "%s%s=", ftell(f) ? "," : "", name);
    for (; *value; value++)
        fputs(*value == ',' ? ",," : (char[]){*value, 0}, f);
}

static void write_options(FILE *f, const struct opt *opts, const void *obj)
{
    const struct opt *more;
    void *chosen;

    for (const struct opt *o = opts; o && o->name; o++) {
        char buf[64];

        if (o->kind == OPT_LIST)
            for (size_t j = 0; j < opts_list(o, obj)->n; j++)
                config_put_option(f, o->name, opts_list(o, obj)->v[j]);
        else
            config_put_option(f, o->name, opts_get(o, obj, buf, sizeof(buf)));
    }
    more = opts ? opts_chosen(opts, obj, &chosen) : NULL;
    if (more)
        write_options(f, more, chosen);
}

/* Writes every option of each device out, so that the JSON shows what a default was. */
static int resolve_devices(struct config *c, struct err *err)
{
    for (unsigned i = 0; i < c->ndevices; i++) {
        struct config_device *cd = &c->devices[i];
        struct device *d = NULL;
        char *text = NULL;
        size_t len = 0;
        FILE *f;
        int r = device_create(cd->cls, cd->id, cd->options, &d, err);

        if (r < 0)
            return err_wrap(err, "%s", cd->id);
        f = open_memstream(&text, &len);
        if (!f)
            abort();
        write_options(f, cd->cls->opts, d);
        fclose(f);
        device_destroy(d);
        free(cd->options);
        cd->options = text;
    }
    return 0;
}

static unsigned count_class(const struct config *c, const char *class_name)
{
    unsigned n = 0;

    for (unsigned i = 0; i < c->ndevices; i++)
        n += !strcmp(c->devices[i].cls->name, class_name);
    return n;
}

/* A device whose options are "chardev=TO" and then `more`. */
static int add_char_device(struct config *c, const char *cls, const char *stem, const char *to, const char *more,
                           struct err *err)
{
    char *options cleanup_free = NULL;
    char id[32];
    size_t len;
    FILE *f = open_memstream(&options, &len);

    if (!f)
        abort();
    config_put_option(f, "chardev", to);
    fputs(more, f);
    fclose(f);
    free_id(c, stem, id);
    return config_add_class(c, cls, options, id, err);
}

static int add_serial(struct config *c, const char *to, struct err *err)
{
    unsigned n = count_class(c, "uart");
    char where[64];

    if (n == BOARD_UARTS_MAX)
        return err_set(err, E2BIG, "--serial %s: the board has only %d serial ports", to, BOARD_UARTS_MAX);
    snprintf(where, sizeof(where), ",iobase=%#x,irq=%u", board_serials[n].port, board_serials[n].irq);
    return add_char_device(c, "uart", "com", to, where, err);
}

static void list_clear(struct opt_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->v[i]);
    free(l->v);
    *l = (struct opt_list){0};
}

static bool list_has(const struct opt_list *l, const char *s)
{
    for (size_t i = 0; i < l->n; i++)
        if (!strcmp(l->v[i], s))
            return true;
    return false;
}

enum { DISK_QUEUES_MAX = 64 }; /* what virtio-blk allows */

/* With a queue for each CPU, where the user says nothing else. */
static int add_disk(struct config *c, const char *spec, struct err *err)
{
    char *options cleanup_free = NULL;
    char id[32];
    size_t len;
    FILE *f = open_memstream(&options, &len);

    if (!f)
        abort();
    fputs(spec, f);
    if (!strstr(spec, ",queues="))
        fprintf(f, ",queues=%llu", (unsigned long long)min_u64(c->cpus, DISK_QUEUES_MAX));
    fclose(f);
    free_id(c, "disk", id);
    return config_add_class(c, "virtio-blk", options, id, err);
}

/* "DIR[:TAG][,MODE][,key=value…]": what comes before the first comma that is not doubled. */
static size_t share_dir(const char *spec)
{
    size_t n = 0;

    while (spec[n] && (spec[n] != ',' || spec[n + 1] == ','))
        n += spec[n] == ',' ? 2 : 1;
    return n;
}

static int add_share(struct config *c, const char *spec, struct err *err)
{
    size_t dir = share_dir(spec), len;
    const char *tag = memrchr(spec, ':', dir), *mode = spec + dir + (spec[dir] == ',');
    char *options cleanup_free = NULL;
    char id[32];
    FILE *f = open_memstream(&options, &len);
    bool bare;

    if (!f)
        abort();
    fprintf(f, "path=%.*s", tag ? (int)(tag - spec) : (int)dir, spec);
    if (tag)
        fprintf(f, ",tag=%.*s", (int)(spec + dir - tag - 1), tag + 1);
    bare = *mode && !memchr(mode, '=', strcspn(mode, ","));
    if (*mode)
        fprintf(f, ",%s%s", bare ? "mode=" : "", mode);
    fclose(f);
    free_id(c, "share", id);
    return config_add_class(c, "virtio-fs", options, id, err);
}

/* An address that a guest keeps from one start to the next where the user gave it an identity; else one of chance. */
static int put_mac(FILE *f, const struct config *c, const char *id, struct err *err)
{
    const char *identity = c->uuid ? c->uuid : strcmp(c->name, opts_find(config_opts, "name")->dflt) ? c->name : NULL;
    const char *parts[] = {identity, id};
    uint64_t h = 0xcbf29ce484222325; /* FNV-1a */

    if (!identity && getrandom(&h, sizeof(h), 0) != sizeof(h))
        return err_set(err, errno, "getrandom: %s", strerror(errno));
    for (size_t i = 0; identity && i < array_len(parts); i++)
        for (const char *p = parts[i]; *p; p++)
            h = (h ^ (uint8_t)*p) * 0x100000001b3;
    fprintf(f, ",mac=52:54:%02x:%02x:%02x:%02x", (uint8_t)(h >> 56), (uint8_t)(h >> 40), (uint8_t)(h >> 24),
            (uint8_t)h);
    return 0;
}

/* "[ADDRESS:]PORT:PORT[/PROTOCOL]" as the user network's key for forwards has it. */
static int put_forward(FILE *f, const char *spec, struct err *err)
{
    const char *slash = strchrnul(spec, '/'), *guest = memrchr(spec, ':', (size_t)(slash - spec)), *host;
    const char *protocol = *slash ? slash + 1 : "tcp";

    if (!guest || (strcmp(protocol, "tcp") && strcmp(protocol, "udp")))
        return err_set(err, EINVAL, "--publish %s: write HOSTPORT:GUESTPORT, as in 8080:80 or 127.0.0.1:5353:53/udp",
                       spec);
    host = memrchr(spec, ':', (size_t)(guest - spec));
    fprintf(f, ",hostfwd=%s:%.*s:%.*s-:%.*s", protocol, host ? (int)(host - spec) : 0, spec,
            (int)(guest - (host ? host + 1 : spec)), host ? host + 1 : spec, (int)(slash - guest - 1), guest + 1);
    return 0;
}

/* `spec` is "NETWORK[,key=value…]"; the first user network gets the published ports. */
static int add_net(struct config *c, const char *spec, struct err *err)
{
    bool user = strcspn(spec, ",") == strlen("user") && !strncmp(spec, "user", strlen("user"));
    char *options cleanup_free = NULL;
    char id[32];
    size_t len;
    FILE *f = open_memstream(&options, &len);
    int r = 0;

    if (!f)
        abort();
    free_id(c, "net", id);
    fputs(spec, f);
    if (!strstr(spec, ",mac="))
        r = put_mac(f, c, id, err);
    for (size_t i = 0; user && i < c->ports.n && r >= 0; i++)
        r = put_forward(f, c->ports.v[i], err);
    fclose(f);
    if (user)
        list_clear(&c->ports);
    return r < 0 ? r : config_add_class(c, "virtio-net", options, id, err);
}

static int no_forwards(const struct config *c, struct err *err)
{
    return c->ports.n
               ? err_set(err, EINVAL, "--publish %s: there is no user network for it; give --net user", c->ports.v[0])
               : 0;
}

/* Without a word from the user the guest reaches the world, if this build can. */
static int add_nets(struct config *c, struct err *err)
{
    int r = 0;

    if (!c->nets.n && !count_class(c, "virtio-net"))
        r = opts_set(config_opts, c, "net", net_class_find("user") ? "user" : "none", err);
    if (r >= 0 && c->nets.n == 1 && list_has(&c->nets, "none"))
        return no_forwards(c, err); /* "none" stays, so that what was resolved resolves to itself */
    for (size_t i = 0; i < c->nets.n && r >= 0; i++)
        r = strcmp(c->nets.v[i], "none")
                ? add_net(c, c->nets.v[i], err)
                : err_set(err, EINVAL, "--net none and another network are given; leave one of them out");
    if (r >= 0)
        list_clear(&c->nets);
    return r < 0 ? r : no_forwards(c, err);
}

bool config_lease(const struct config *c, struct net_lease *ret)
{
    for (unsigned i = 0; i < c->ndevices; i++) {
        const struct config_device *cd = &c->devices[i];
        void *net = NULL;
        struct device *d;
        bool is;

        if (strcmp(cd->cls->name, "virtio-net") != 0)
            continue;
        if (device_create(cd->cls, cd->id, cd->options, &d, NULL) < 0)
            return false;
        opts_chosen(cd->cls->opts, d, &net);
        is = net_lease(net_class_find(opts_get(opts_find(cd->cls->opts, "backend"), d, NULL, 0)), net, ret);
        device_destroy(d);
        return is;
    }
    return false;
}

/* Makes devices of the short forms, and those that every machine has. */
static int resolve_short_forms(struct config *c, struct err *err)
{
    bool stdio_taken = list_has(&c->consoles, "stdio") || (c->debugcon && !strcmp(c->debugcon, "stdio"));
    int r = 0;

    for (size_t i = 0; i < c->serials.n && r >= 0; i++)
        r = add_serial(c, c->serials.v[i], err);
    if (r >= 0 && !count_class(c, "uart"))
        r = add_serial(c, stdio_taken ? "null" : "stdio", err);
    for (size_t i = 0; i < c->consoles.n && r >= 0; i++)
        r = add_char_device(c, "virtio-console", "console", c->consoles.v[i], "", err);
    if (r >= 0 && c->debugcon)
        r = add_char_device(c, "debugcon", "debugcon", c->debugcon, "", err);
    for (size_t i = 0; i < c->disks.n && r >= 0; i++)
        r = add_disk(c, c->disks.v[i], err);
    for (size_t i = 0; i < c->shares.n && r >= 0; i++)
        r = add_share(c, c->shares.v[i], err);
    for (size_t i = 0; i < c->extra.n && r >= 0; i++)
        r = config_add_device(c, c->extra.v[i], NULL, err);
    if (r >= 0)
        r = add_nets(c, err);
    if (r >= 0 && c->rng && !count_class(c, "virtio-rng"))
        r = config_add_class(c, "virtio-rng", "", NULL, err);
    if (r < 0)
        return r;
    list_clear(&c->serials);
    list_clear(&c->consoles);
    list_clear(&c->disks);
    list_clear(&c->shares);
    list_clear(&c->extra);
    free(take_ptr(c->debugcon));
    return 0;
}

/* Tells a kernel where its console is, unless the user's words do. */
static int resolve_console_words(struct config *c, struct err *err)
{
    bool console = count_class(c, "virtio-console") > 0, serial = false;
    int r = 0;

    for (size_t i = 0; i < c->append.n; i++)
        if (!strncmp(c->append.v[i], "console=", 8) || strstr(c->append.v[i], " console="))
            return 0;
    for (unsigned i = 0; i < c->ndevices; i++)
        serial |= !strcmp(c->devices[i].cls->name, "uart") && !strstr(c->devices[i].options, "chardev=null");
    if (serial)
        r = opts_set(config_opts, c, "append", "console=ttyS0", err);
    if (console && r >= 0)
        r = opts_set(config_opts, c, "append", "console=hvc0", err);
    return r;
}

int config_resolve(struct config *c, struct err *err)
{
    int r;

    if (!c->kernel)
        return err_set(err, EINVAL, "no kernel; give one with -k FILE");
    if (!c->acpi && c->board == BOARD_PCI)
        return err_set(err, EINVAL, "the pci machine needs ACPI; give --machine mmio with --acpi=off");
    if ((r = resolve_topology(c, err)) < 0 || (r = resolve_memory(c, err)) < 0 ||
        (r = resolve_short_forms(c, err)) < 0 || (r = resolve_uuid(c, err)) < 0 ||
        (r = resolve_console_words(c, err)) < 0)
        return r;
    return resolve_devices(c, err);
}
